"""IFD and r-IFD against what their authors' scripts compute and drop, re-enacted row by row.

Each re-enactment takes records (instruction, input, output) through the steps of its script with
plain forward passes over the full logits: the text that is put together, the search for the answer
in it, the truncation, the list of losses, the part of that list that is averaged, the rows that are
left out. They share no code with `qaq.scoring`.
"""

import copy
import json
import math
from functools import cache
from statistics import fmean

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from qaq.host.progress import Progress
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.run.compose import compose
from qaq.scoring.config import FramingConfig
from qaq.scoring.engine import Engine
from qaq.scoring.framing import make_framer
from qaq.scoring.framings.ifd import parts
from qaq.scoring.stage import score_tasks, tokenise

from .conftest import PAIRS, Tiny

RECORDS = [
    *({"instruction": q, "input": "", "output": a} for q, a in PAIRS),
    {
        "instruction": "Repair this function.",
        "input": "def twice(x):\n    return x * 3",
        "output": "def twice(x):\n    return x * 2",
    },
    {"instruction": "Sort", "input": "the list {3, 1, 2}. Sort it now.", "output": "[1, 2, 3]"},
]
INTRO = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
CHAT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: "
)


def alpaca(instruction, given):
    if given == "":
        return f"{INTRO}. {REQUEST}{instruction}\n\n### Response:"
    context = ", paired with an input that provides further context. "
    return f"{INTRO}{context}{REQUEST}{instruction}\n\n### Input:\n{given}\n\n### Response:"


def vicuna(instruction, given):
    return CHAT + instruction + ("" if given == "" else f"\nInput:\n{given}") + " ASSISTANT:"


def row_of(number, record):
    """The record as a row of the pool."""
    start = len(record["instruction"]) + 2 if record["input"] else None
    question = "\n\n".join(filter(None, (record["instruction"], record["input"])))
    row = {"row_id": str(number), "question": question, "answer": record["output"]}
    return row | {"input_start": start}


@cache
def engine_of(model):
    return Engine(model)


def ours(tiny, framing, records=RECORDS):
    framer, engine = make_framer(framing, tiny.config, tiny.tokenizer, None), engine_of(tiny.model)
    rows = [row_of(i, record) for i, record in enumerate(records)]
    scored, tasks = tokenise(rows, framer)
    score_tasks(scored, tasks, engine, 2048, Progress("t", len(rows), "rows"))
    return scored


def framed(kind, **options):
    return FramingConfig(name=kind, kind=kind, **options)


class Script:
    """The functions that the scripts share, with a limit."""

    def __init__(self, tiny, limit):
        self.model, self.tokenizer, self.limit = tiny.model, tiny.tokenizer, limit

    def encode(self, text, limit=None):
        if limit is not None and limit < 1:
            return []
        how = {} if limit is None else {"truncation": True, "max_length": limit}
        return self.tokenizer.encode(text, **how)

    def losses(self, text, limit):
        """The loss of every token but the first."""
        ids = torch.tensor([self.encode(text, limit)])
        if ids.numel() < 2:
            return []
        with torch.no_grad():
            logits = self.model(ids).logits[0]
        return torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none").tolist()

    def masked_loss(self, text, target, limit):
        """Hugging Face's loss with the labels before the target's last occurrence masked."""
        ids = torch.tensor([self.encode(text, limit)])
        labels = ids.clone()
        labels[0, : len(self.encode(text[: text.rfind(target)])) if target else 0] = -100
        with torch.no_grad():
            return float(self.model(ids, labels=labels).loss)


def cherry(script, record, prompt, commit):
    """(loss alone, loss after the question), or why data_by_IFD.py leaves the row out."""
    instruction, given, output = record["instruction"], record["input"], record["output"]
    mark, spare = ("ASSISTANT:", 6) if prompt == "vicuna" else ("### Response:", 4)
    limit, alone = script.limit, mark + output
    # data_analysis.py
    measured = instruction
    if prompt == "wiz":
        told = "\nInput:" + given if given != "" else ""
        whole = instruction + told + "\n\n### Response:" + output
    else:
        measured = (alpaca if prompt == "alpaca" else vicuna)(instruction, given)
        whole = measured + output
    length = len(script.encode(measured, limit))
    room = limit - length - 2 if commit == "first" else limit - length + spare
    lists = script.losses(alone, room), script.losses(whole, limit)
    # data_by_IFD.py
    if prompt == "wiz":
        whole = instruction + "\n\n### Response:" + output
    if commit == "first":
        length = len(script.encode(instruction, limit))
        room = limit - length - 2
        if room <= 4:
            return "leaves no room"
    elif limit - length <= 0:
        return "leaves no room"
    averaged, tokens = [], []
    for text, cut, found in ((alone, room, lists[0]), (whole, limit, lists[1])):
        start = len(script.encode(text[: text.rfind(output)]))
        end = len(script.encode(text, cut))
        tokens.append(end - start)
        averaged.append(found[start - 1 : end - 1] if end > start else [])
    if min(tokens) <= 0:
        return "is left to score"
    if length + tokens[0] > limit:
        return "longer than the limit"
    if not all(averaged):  # only the first commit: numpy's mean of nothing is not a number
        return "is left to score"
    return [fmean(part) for part in averaged]


def compare(rows, expected, spans=("a", "a_given_q")):
    """Each row has the script's losses, or the script's reason; how many rows have which?"""
    counts = {"scored": 0}
    for row, found in zip(rows, expected, strict=True):
        if isinstance(found, str) or any(math.isnan(loss) for loss in found):
            wanted = found if isinstance(found, str) else "is left to score"
            assert row["reason"].startswith("the script drops it: ")
            assert wanted in row["reason"]
            assert all(row[f"nll_{span}"] is None for span in spans)
            counts[wanted] = counts.get(wanted, 0) + 1
            continue
        assert row["reason"] is None
        counts["scored"] += 1
        for span, loss in zip(spans, found, strict=True):
            assert row[f"nll_{span}"] / row[f"tokens_{span}"] == pytest.approx(loss, abs=1e-4)
    return counts


@pytest.fixture(scope="module", params=["no BOS", "BOS"])
def model(tiny: Tiny, request):
    """The tiny model with a tokenizer that adds nothing, as GPT-2's, or BOS, as Llama's."""
    if request.param == "no BOS":
        return tiny
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.bos_token = bos = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return Tiny(tiny.config, tiny.model, tokenizer)


LIMITS = {"wiz": (512, 64, 40, 30), "alpaca": (512, 190, 160, 118), "vicuna": (512, 190, 160, 118)}


@pytest.mark.parametrize("prompt", ["wiz", "alpaca", "vicuna"])
def test_cherry_scores_and_drops_as_the_present_scripts_do(model, prompt):
    seen = set()
    for limit in LIMITS[prompt]:
        expected = [cherry(Script(model, limit), r, prompt, "present") for r in RECORDS]
        rows = ours(model, framed("cherry", cherry_prompt=prompt, max_tokens=limit))
        seen |= set(compare(rows, expected))
    assert seen >= {"scored", "leaves no room"}


@pytest.mark.parametrize("prompt, limit", [("wiz", 60), ("alpaca", 170), ("vicuna", 190)])
def test_cherry_drops_the_answers_that_do_not_fit_where_the_mark_takes_few_tokens(
    tiny, prompt, limit
):
    """As in most vocabularies: fewer tokens than the scripts give back for it."""
    tokenizer, model = copy.deepcopy(tiny.tokenizer), copy.deepcopy(tiny.model)
    tokenizer.add_tokens(["### Response:", "ASSISTANT:"])
    model.resize_token_embeddings(len(tokenizer))
    short = Tiny(tiny.config, model, tokenizer)
    expected = [cherry(Script(short, limit), r, prompt, "present") for r in RECORDS]
    rows = ours(short, framed("cherry", cherry_prompt=prompt, max_tokens=limit))
    counts = compare(rows, expected)
    assert counts["longer than the limit"] >= 1
    assert counts["scored"] >= 1


@pytest.mark.parametrize("prompt", ["wiz", "alpaca"])
def test_cherry_first_scores_and_drops_as_the_first_commit_did(model, prompt):
    seen = set()
    for limit in LIMITS[prompt]:
        expected = [cherry(Script(model, limit), r, prompt, "first") for r in RECORDS]
        rows = ours(model, framed("cherry_first", cherry_prompt=prompt, max_tokens=limit))
        seen |= set(compare(rows, expected))
    assert seen > {"scored"}


def forward_losses(script, record, before):
    """Loss of the output alone, in the room that the prompt leaves, and after the prompt."""
    output, limit = record["output"], script.limit
    room = limit - len(script.encode(before, limit)) + 1
    alone = fmean(script.losses(output, room) or [math.nan])
    return alone, script.masked_loss(before + output, output, limit)


@pytest.mark.parametrize("limit", [1024, 60, 20])
def test_superfiltering_leaves_the_first_answer_token_unscored_once(tiny, limit):
    expected = []
    for record in RECORDS:
        before = record["instruction"] + "\n"
        before += record["input"] + "\n" if record["input"] else ""
        expected.append(forward_losses(Script(tiny, limit), record, before))
    rows = ours(tiny, framed("superfiltering", max_tokens=limit))
    assert compare(rows, expected)["scored"] >= 2
    whole = [row for row in rows if row["reason"] is None and not row["truncated"]]
    assert all(row["tokens_a"] == row["tokens_a_given_q"] - 1 for row in whole)


def reflection(script, record, prompt):
    """Losses of question and answer, alone and after the other, as data_analysis.py has them."""
    instruction, given, output = record["instruction"], record["input"], record["output"]

    def wiz(asked, more):
        return asked + (f"\n{more}" if more else "") + "\n\n### Response:"

    before = {"alpaca": alpaca, "vicuna": vicuna, "wiz": wiz}[prompt]
    guess = (
        "Below is the response to an instruction, please guess the corresponding instruction for "
        f"the given response.\n{output}\nGenerate the instruction for the above response."
    )
    reverse, limit = before(guess, ""), script.limit
    room = limit - len(script.encode(reverse, limit)) + 1
    q = fmean(script.losses(instruction + given, room) or [math.nan])
    q_given_a = script.masked_loss(reverse + instruction + given, instruction, limit)
    return (q, q_given_a, *forward_losses(script, record, before(instruction, given)))


@pytest.mark.parametrize("prompt, limit", [("vicuna", 2048), ("alpaca", 225), ("wiz", 140)])
def test_r_ifd_gives_the_losses_of_selective_reflection_tuning(model, prompt, limit):
    options = ["framing=r_ifd", f"framing.cherry_prompt={prompt}", f"framing.max_tokens={limit}"]
    framing = compose(options).framing
    expected = [reflection(Script(model, limit), record, prompt) for record in RECORDS]
    counts = compare(ours(model, framing), expected, ("q", "q_given_a", "a", "a_given_q"))
    assert counts["scored"] >= 3
    assert limit == 2048 or len(counts) > 1, "some row should have a span cut away"


def test_the_instruction_that_occurs_in_its_input_is_found_there_as_the_script_finds_it(tiny):
    record = RECORDS[-1]
    row = ours(tiny, framed("r_ifd"), [record])[0]
    words = len(tiny.tokenizer.encode("Sort it now."))
    assert row["tokens_q_given_a"] == pytest.approx(words, abs=1)


def test_a_question_with_an_input_part_comes_apart_as_it_was_put_together():
    assert parts("Sort.\n\n3, 1", 7) == ("Sort.", "3, 1")
    assert parts("3, 1", 0) == ("", "3, 1")
    assert parts("Sort.\n\n3, 1", None) == ("Sort.\n\n3, 1", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cherry", "cherry_alpaca", "cherry_first"])
def test_real_rows_on_a_real_model_get_the_script_s_ratio_or_its_reason(shared_data, name):
    config = ModelConfig(name="smollm", id="embedded:smollm2-135m-instruct", dtype="float32")
    smollm = Tiny(config, load_model(config, "cpu"), load_tokenizer(config))
    pool = json.loads((shared_data / "instruct" / "gpteacher_codegen_instruct.json").read_text())
    records = [
        {"instruction": r["instruction"], "input": r["input"], "output": r["response"]}
        for r in sorted(pool, key=lambda r: -len(r["response"]))[:400:20]
    ]
    # shorter than the scripts' default, so that rows are cut and dropped
    framing = compose([f"framing={name}", "framing.max_tokens=256"]).framing
    commit = "first" if name == "cherry_first" else "present"
    script = Script(smollm, framing.max_tokens)
    expected = [cherry(script, r, framing.cherry_prompt, commit) for r in records]
    counts = compare(ours(smollm, framing, records), expected)
    assert counts["scored"] > 0
    if commit == "present":
        assert len(counts) > 1, "some of the longest rows should be dropped"
