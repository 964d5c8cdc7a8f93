"""Each published framing against what its script computes, re-enacted here row by row.

The re-enactments follow the scripts' steps (full logits, Hugging Face's own label loss, search for
the answer in the text); they share no code with `qaq.scoring`.
"""

import numpy as np
import pytest
import torch

from qaq.progress import Progress
from qaq.scoring.engine import Engine
from qaq.scoring.metrics import METRICS
from qaq.scoring.stage import score_rows

from .conftest import PAIRS, Tiny

ROWS = [{"row_id": str(i), "question": q, "answer": a} for i, (q, a) in enumerate(PAIRS)]


def ours(tiny: Tiny, kind, system=None, **options):
    engine = Engine(tiny.model, tiny.tokenizer.pad_token_id, packed=True)
    framer = tiny.framer(kind, system, **options)
    return score_rows(ROWS, framer, engine, 2048, Progress("t", len(ROWS), "rows"))


def authors_log_ppl(tiny: Tiny, text, char_start):
    """Mean NLL over tokens whose offset begins at `char_start` or later, as the script masks."""
    encoding = tiny.tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    ids = encoding["input_ids"]
    mask = torch.tensor(
        [[float(b >= char_start) for b, _ in encoding["offset_mapping"][0].tolist()]]
    )
    with torch.no_grad():
        logits = tiny.model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
    return float((loss * mask[0, 1:]).sum() / mask[0, 1:].sum().clamp(min=1))


def test_authors_gives_the_script_s_numbers_and_its_shifted_mask(tiny: Tiny):
    system, reverse = "Write code.", "Give the task of this:\n{answer}"
    rows = ours(tiny, "authors", system, reverse_instruction=reverse)
    render = tiny.tokenizer.apply_chat_template
    first = [{"role": "system", "content": system}]
    for row, (q, a) in zip(rows, PAIRS, strict=True):
        alone = render([*first, {"role": "user", "content": q}], tokenize=False)
        empty = render([*first, {"role": "user", "content": ""}], tokenize=False)
        asked = [*first, {"role": "user", "content": reverse.format(answer=a)}]
        whole = render([*asked, {"role": "assistant", "content": q}], tokenize=False)
        prompt = render(asked, tokenize=False, add_generation_prompt=True)
        log_q = authors_log_ppl(tiny, alone, len(empty))
        log_q_a = authors_log_ppl(tiny, whole, len(prompt))
        columns = {
            name: np.array([value], float)
            for name, value in row.items()
            if name.startswith(("nll", "tokens")) and value is not None
        }
        assert columns["nll_q"][0] / max(columns["tokens_q"][0], 1) == pytest.approx(
            log_q, abs=1e-4
        )
        assert METRICS["rmi_authors"](columns)[0] == pytest.approx(log_q - log_q_a, abs=1e-4)
        exact = len(tiny.tokenizer(q, add_special_tokens=False)["input_ids"])
        assert row["tokens_q"] != exact, "the script's mask is shifted; this one is not"


def cherry_mean(tiny: Tiny, text, answer, limit):
    """Mean NLL of the answer's tokens, found by searching the text, as Cherry_LLM does."""
    ids = tiny.tokenizer.encode(text, return_tensors="pt", truncation=True, max_length=limit)
    start = len(tiny.tokenizer.encode(text[: text.rfind(answer)]))
    labels = ids.clone()
    labels[0, :start] = -100
    with torch.no_grad():
        return float(tiny.model(ids, labels=labels).loss)


def test_cherry_gives_the_script_s_ratio_of_losses(tiny: Tiny):
    rows = ours(tiny, "cherry", max_tokens=512)
    for row, (q, a) in zip(rows, PAIRS, strict=True):
        limit = 512 - len(tiny.tokenizer.encode(q)) - 2
        alone = cherry_mean(tiny, "### Response:" + a, a, limit)
        asked = cherry_mean(tiny, q + "\n\n### Response:" + a, a, 512)
        ratio = (row["nll_a_given_q"] / row["tokens_a_given_q"]) / (row["nll_a"] / row["tokens_a"])
        assert ratio == pytest.approx(asked / alone, abs=1e-4)


def test_superfiltering_leaves_the_first_answer_token_unscored_once(tiny: Tiny):
    rows = ours(tiny, "superfiltering", max_tokens=1024)
    for row, (q, a) in zip(rows, PAIRS, strict=True):
        ids = tiny.tokenizer.encode(a, return_tensors="pt")
        with torch.no_grad():
            alone = float(tiny.model(ids, labels=ids).loss)
        asked = cherry_mean(tiny, q + "\n" + a, a, 1024)
        assert row["nll_a"] / row["tokens_a"] == pytest.approx(alone, abs=1e-4)
        assert row["nll_a_given_q"] / row["tokens_a_given_q"] == pytest.approx(asked, abs=1e-4)
        assert row["tokens_a"] == ids.shape[1] - 1


def test_a_question_that_fills_cherry_s_window_is_refused_with_a_reason(tiny: Tiny):
    framed = tiny.framer("cherry", max_tokens=16)(PAIRS[4][0], PAIRS[4][1])
    assert framed.reason == "the question leaves no room for the answer"
