"""Each published framing against what its script computes, re-enacted here row by row.

The re-enactments follow the scripts' steps (full logits, Hugging Face's own truncation); they share
no code with `qaq.scoring`. IFD's scripts are in test_published_ifd.py.
"""

import copy

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from qaq.host.progress import Progress
from qaq.scoring.engine import Engine
from qaq.scoring.metrics import METRICS
from qaq.scoring.stage import score_rows

from .conftest import PAIRS, Tiny

ROWS = [{"row_id": str(i), "question": q, "answer": a} for i, (q, a) in enumerate(PAIRS)]
SYSTEM, REVERSE = "Write code.", "Give the task of this:\n{answer}"


@pytest.fixture(scope="module")
def adds_bos(tiny: Tiny) -> Tiny:
    """The tiny model with a tokenizer that adds BOS, and a chat template that prints it too."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.bos_token = bos = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{- bos_token -}}" + tokenizer.chat_template
    return Tiny(tiny.config, tiny.model, tokenizer)


def ours(tiny: Tiny, kind, system=None, **options):
    engine = Engine(tiny.model)
    framer = tiny.framer(kind, system, **options)
    return score_rows(ROWS, framer, engine, 2048, Progress("t", len(ROWS), "rows"))


def rmi_authors(row):
    columns = {
        name: np.array([value], float)
        for name, value in row.items()
        if name.startswith(("nll", "tokens")) and value is not None
    }
    return METRICS["rmi_authors"](columns)[0]


def authors_log_ppl(tiny: Tiny, text, char_start, limit):
    """Mean NLL over tokens whose offset begins at `char_start` or later, as the script masks."""
    encoding = tiny.tokenizer(
        text,
        return_tensors="pt",
        return_offsets_mapping=True,
        truncation=True,
        max_length=limit,
    )
    ids = encoding["input_ids"]
    mask = torch.tensor(
        [[float(b >= char_start) for b, _ in encoding["offset_mapping"][0].tolist()]]
    )
    with torch.no_grad():
        logits = tiny.model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
    return float((loss * mask[0, 1:]).sum() / mask[0, 1:].sum().clamp(min=1))


def authors_by_hand(tiny: Tiny, question, answer, limit):
    """The script's log PPL(Q) and log PPL(Q|A), and whether either text is longer than `limit`."""
    render = tiny.tokenizer.apply_chat_template
    first = [{"role": "system", "content": SYSTEM}]
    alone = render([*first, {"role": "user", "content": question}], tokenize=False)
    empty = render([*first, {"role": "user", "content": ""}], tokenize=False)
    asked = [*first, {"role": "user", "content": REVERSE.format(answer=answer)}]
    whole = render([*asked, {"role": "assistant", "content": question}], tokenize=False)
    prompt = render(asked, tokenize=False, add_generation_prompt=True)
    return (
        authors_log_ppl(tiny, alone, len(empty), limit),
        authors_log_ppl(tiny, whole, len(prompt), limit),
        max(len(tiny.tokenizer.encode(text)) for text in (alone, whole)) > limit,
    )


def check_authors(tiny: Tiny, limit):
    """Compare all rows with the script's numbers; returns the rows."""
    rows = ours(tiny, "authors", SYSTEM, reverse_instruction=REVERSE, max_tokens=limit)
    for row, (q, a) in zip(rows, PAIRS, strict=True):
        log_q, log_q_a, cut = authors_by_hand(tiny, q, a, limit)
        assert row["reason"] is None
        assert row["truncated"] == cut
        assert row["nll_q"] / max(row["tokens_q"], 1) == pytest.approx(log_q, abs=1e-4)
        assert rmi_authors(row) == pytest.approx(log_q - log_q_a, abs=1e-4)
    return rows


def test_authors_gives_the_script_s_numbers_and_its_shifted_mask(tiny: Tiny):
    for row, (q, _) in zip(check_authors(tiny, 20480), PAIRS, strict=True):
        exact = len(tiny.tokenizer(q, add_special_tokens=False)["input_ids"])
        assert row["tokens_q"] != exact, "the script's mask is shifted; this one is not"


@pytest.mark.parametrize("limit", [80, 60])
def test_authors_gives_the_script_s_numbers_where_texts_are_cut(tiny: Tiny, limit):
    rows = check_authors(tiny, limit)
    cut = [row["tokens_q_given_a"] for row in rows if row["truncated"]]
    assert len(cut) >= 2
    assert min(cut) == 0 < max(cut), "some of a cut question should be left, and none of another"


@pytest.mark.parametrize("limit", [20480, 80])
def test_authors_keeps_bos_twice_where_tokenizer_and_template_add_it(adds_bos: Tiny, limit):
    framer = adds_bos.framer("authors", SYSTEM, reverse_instruction=REVERSE, max_tokens=limit)
    bos = adds_bos.tokenizer.bos_token_id
    for q, a in PAIRS:
        for rendering in framer(q, a).renderings:
            assert rendering.ids[:2] == (bos, bos)
            assert rendering.ids.count(bos) == 2
    rows = check_authors(adds_bos, limit)
    assert any(row["truncated"] for row in rows) == (limit == 80)


def test_authors_counts_a_question_that_the_answer_pushed_out_as_log_ppl_zero(tiny: Tiny):
    """The answer's prompt fills the limit; one token more of room, and one token is scored."""
    (q, a), full = PAIRS[0], REVERSE.format(answer=PAIRS[0][1])
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": full}]
    prompt = tiny.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    limit = len(tiny.tokenizer.encode(prompt))
    options = {"reverse_instruction": REVERSE}
    row = ours(tiny, "authors", SYSTEM, max_tokens=limit, **options)[0]
    log_q, log_q_a, _ = authors_by_hand(tiny, q, a, limit)
    assert (row["tokens_q_given_a"], row["nll_q_given_a"]) == (0, 0)
    assert row["truncated"]
    assert row["reason"] is None
    assert log_q_a == 0 < log_q
    assert rmi_authors(row) == pytest.approx(log_q, abs=1e-4)
    assert (
        ours(tiny, "authors", SYSTEM, max_tokens=limit + 1, **options)[0]["tokens_q_given_a"] == 1
    )
