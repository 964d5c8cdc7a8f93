"""The worked examples of docs/framings.md, computed here by other means.

The texts are written out as a reader of the page would, each rendering takes a forward pass of
its own with the whole logits, and the log-softmax is in float64. The page's numbers, this file's
and the engine's must agree.
"""

import re
from pathlib import Path

import pytest
import torch

from qaq.host.progress import Progress
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.scoring.config import FramingConfig
from qaq.scoring.engine import Engine
from qaq.scoring.framing import make_framer
from qaq.scoring.stage import score_rows

QUICK = ("chat", "plain")
PAGE = Path(__file__).parents[2] / "docs" / "framings.md"
Q = "Write a function that adds two numbers."
A = "def add(a, b):\n    return a + b"
SYSTEM = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
)
USER, ASSISTANT, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"
REVERSE = (
    "Below is an answer to a programming task. Write the task that this answer most likely "
    "responds to. If the answer is not about programming, write INVALID.\n\nAnswer:\n"
)
SPANS = ("q", "q_given_a", "a", "a_given_q")


@pytest.fixture(scope="module")
def smollm():
    config = ModelConfig(name="smollm", id="embedded:smollm2-135m-instruct", dtype="float32")
    return config, load_model(config, "cpu"), load_tokenizer(config)


def joined(tokenizer, *pieces):
    """Ids of texts tokenised one by one, and where the last of them starts."""
    parts = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
    ids = [i for part in parts for i in part]
    return ids, list(range(len(ids) - len(parts[-1]), len(ids)))


def chat(tokenizer):
    return {
        "q": joined(tokenizer, SYSTEM + USER, Q),
        "a_given_q": joined(tokenizer, SYSTEM + USER, Q, END + ASSISTANT, A),
        "a": joined(tokenizer, SYSTEM + USER, END + ASSISTANT, A),
        "q_given_a": joined(tokenizer, SYSTEM + USER, REVERSE, A, END + ASSISTANT, Q),
    }


def plain(tokenizer):
    bos = tokenizer.bos_token
    return {
        "q": joined(tokenizer, bos, Q),
        "a_given_q": joined(tokenizer, bos, Q, "\n\n", A),
        "a": joined(tokenizer, bos, A),
        "q_given_a": joined(tokenizer, bos, A, "\n\n", Q),
    }


def from_character(tokenizer, text, start):
    encoded = tokenizer(text, return_offsets_mapping=True)
    scored = [i for i, (b, _) in enumerate(encoded["offset_mapping"]) if b >= start and i > 0]
    return encoded["input_ids"], scored


def authors(tokenizer):
    alone = SYSTEM + USER + Q + END
    empty = SYSTEM + USER + END
    asked = SYSTEM + USER + REVERSE + A + END + ASSISTANT
    return {
        "q": from_character(tokenizer, alone, len(empty)),
        "q_given_a": from_character(tokenizer, asked + Q + END, len(asked)),
    }


def after(tokenizer, prefix, text):
    ids = tokenizer(prefix + text)["input_ids"]
    start = max(len(tokenizer(prefix)["input_ids"]) if prefix else 0, 1)
    return ids, list(range(start, len(ids)))


def cherry(tokenizer):
    return {
        "a": after(tokenizer, "### Response:", A),
        "a_given_q": after(tokenizer, Q + "\n\n### Response:", A),
    }


def superfiltering(tokenizer):
    return {"a": after(tokenizer, "", A), "a_given_q": after(tokenizer, Q + "\n", A)}


def ask_llm(tokenizer):
    asked = (
        "\n###\n\nDoes the previous paragraph demarcated within ### and ### contain informative "
        "signal for fine-tuning a large-language model? An informative datapoint should be "
        "well-formatted, its response should do what its instruction asks, and strictly NOT have "
        "any harmful, racist, sexist, etc. content.\n\nOPTIONS:\n- yes\n- no"
    )
    pair = ("###\nInstruction: ", Q, "\n\nResponse: ", A)
    return {"a_given_q": joined(tokenizer, SYSTEM + USER, *pair, asked, END + ASSISTANT, "yes")}


BY_HAND = {f.__name__: f for f in (chat, plain, authors, cherry, superfiltering, ask_llm)}


def on_the_page():
    """framing: span: (nats, tokens), from the page's table."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in BY_HAND:
            entries = (re.fullmatch(r"([\d.]+) / (\d+)", cell) for cell in cells[1:5])
            found[cells[0]] = {
                span: (float(e[1]), int(e[2])) for span, e in zip(SPANS, entries, strict=True) if e
            }
    return found


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in BY_HAND]
)
def test_the_page_the_engine_and_a_forward_pass_by_hand_agree(smollm, kind):
    config, model, tokenizer = smollm
    framer = make_framer(FramingConfig(name=kind, kind=kind), config, tokenizer, None)
    engine = Engine(model)
    row = {"row_id": "1", "question": Q, "answer": A}
    scored = score_rows([row], framer, engine, 4096, Progress("t", 1, "rows"))[0]
    found = {}
    for span, (ids, positions) in BY_HAND[kind](tokenizer).items():
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double()
        logp = logits.log_softmax(-1)
        total = -sum(float(logp[i - 1, ids[i]]) for i in positions)
        assert scored[f"tokens_{span}"] == len(positions)
        assert scored[f"nll_{span}"] == pytest.approx(total, abs=1e-4 * len(positions))
        found[span] = (pytest.approx(total, abs=2e-3), len(positions))
    assert {s for s in SPANS if scored[f"nll_{s}"] is not None} == set(found)
    assert on_the_page()[kind] == found
