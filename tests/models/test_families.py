"""Every family of decoders that can be built small: its way, and that its numbers are its own.

`python -m tests.models.test_families` runs all of them and writes the table in docs/models.md.
"""

import copy
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.models.families import EXPERTS, FAMILIES, FAST, tiny
from torch.nn import functional
from transformers import GenerationConfig

from qaq.evaluation.generation.generate import Decoding, Request
from qaq.evaluation.generation.hf import HfGenerator
from qaq.evaluation.prompts import Stops
from qaq.scoring.engine import Engine
from qaq.scoring.framing import Rendering, Span
from qaq.scoring.plan import Task
from qaq.training.packed import pack, prepare
from qaq.training.rows import Example

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
START = "| family |"


def ids(count, salt):
    return tuple(3 + (n * n * 5 + n * salt + salt) % 120 for n in range(count))


OPENING = ids(9, 2)
ROWS = [OPENING + ids(20, 3), ids(31, 4), OPENING + ids(12, 5), ids(6, 6)]


@dataclass(frozen=True)
class Found:
    """How a family is run: scored (and embedded), trained, asked; why not the fastest way."""

    family: str
    scored: str
    trained: str
    asked: str
    reason: str

    def line(self) -> str:
        return f"| {self.family} | {self.scored} | {self.trained} | {self.asked} | {self.reason} |"


def look(family: str) -> Found:
    """Run a family in every way that the project does, and compare with the model's own."""
    engine = scored(family)
    trained = lora_step(family)
    asked = answered(family)
    reason = engine.forward.reasons.get("packed") or trained or asked or ""
    return Found(
        family,
        engine.forward.way,
        "packed" if trained is None else "rows",
        "batched" if asked is None else "rows",
        re.sub(r" \(by up to [^)]*\)|[|].*", "", reason),
    )


def scored(family: str) -> Engine:
    """Sums equal to the plain forward, and to the last bit the same beside other neighbours."""
    model = tiny(family)
    tasks = [
        Task(at, Rendering(row, (Span("q", 1, 4), Span("a", 4, len(row)))))
        for at, row in enumerate(ROWS)
    ]
    expected = []
    for row in ROWS:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].double()
        nll = functional.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="none")
        expected.append({"q": float(nll[:3].sum()), "a": float(nll[3:].sum())})
    engine = Engine(model)
    for sums, wanted in zip(engine.score(tasks), expected, strict=True):
        assert sums == pytest.approx(wanted, abs=2e-3, rel=1e-4)
    one, two = (Task(9, Rendering(ids(17, salt), (Span("q", 1, 17),))) for salt in (7, 8))
    assert one.ids[0] != two.ids[0] and len({t.ids < tasks[1].ids for t in (one, two)}) == 1
    beside = [engine.score([other, tasks[1]])[1] for other in (one, two)]
    assert beside[0] == beside[1]
    return engine


def lora_step(family: str) -> str | None:
    """Losses and gradients of adapters equal to those of the model's own forward."""
    model = tiny(family)
    head = model.get_output_embeddings()
    names = [n for n, m in model.named_modules() if type(m) is torch.nn.Linear and m is not head]
    config = LoraConfig(r=2, lora_alpha=4, target_modules=names)
    examples = [Example(str(at), row, 3, False) for at, row in enumerate(ROWS)]

    def adapted(base):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            made = get_peft_model(base, copy.deepcopy(config))
            for name, weight in made.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.05)
        return made.eval(), [p for p in made.parameters() if p.requires_grad]

    plain, own = adapted(tiny(family))
    losses = []
    for row in ROWS:
        logits = plain(input_ids=torch.tensor([row]), use_cache=False).logits[0].float()
        losses.append(
            functional.cross_entropy(logits[2:-1], torch.tensor(row[3:]), reduction="sum")
        )
    expected = torch.autograd.grad(torch.stack(losses).sum(), own, allow_unused=True)
    reason = prepare(model)
    ours, trained = adapted(model)
    nll = ours(**pack(examples, torch.device("cpu")))
    torch.testing.assert_close(nll.sum(), torch.stack(losses).sum(), atol=2e-3, rtol=1e-4)
    found = torch.autograd.grad(nll.sum(), trained, allow_unused=True)
    for one, two in zip(found, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, atol=2e-3, rtol=2e-3)
    return reason


class Numbers:
    """A tokenizer that writes ids as numbers."""

    def batch_decode(self, rows, **_):
        return [" ".join(map(str, row)) for row in rows]


def answered(family: str) -> str | None:
    """Greedy answers equal to those of the model's own `generate`."""
    model = tiny(family)
    requests = [Request(str(at), 0, row, "") for at, row in enumerate(ROWS)]
    generator = HfGenerator(model, Numbers(), Decoding(5, Stops(()), frozenset()), 3)
    found = {c.task_id: c.text for c in generator(requests)}
    model.generation_config = GenerationConfig()
    plan = GenerationConfig(max_new_tokens=5, do_sample=False)
    for request in requests:
        whole = model.generate(inputs=torch.tensor([request.prompt]), generation_config=plan)
        answer = whole[0, len(request.prompt) :].tolist()
        assert found[request.task_id] == " ".join(map(str, answer))
    return generator.problem


def table() -> dict[str, str]:
    """The lines of the page, by family."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    return {line.split("|")[1].strip(): line for line in lines if not line.startswith(START)}


@pytest.mark.parametrize(
    "family",
    [f if f in FAST else pytest.param(f, marks=pytest.mark.nightly) for f in FAMILIES],
)
def test_a_family_gives_its_own_numbers_in_the_way_that_the_page_says(family):
    found = look(family)
    line = table()[family]
    if family in EXPERTS:
        return  # how an expert's share of the tokens is rounded differs between processors
    assert found.line() == line


def test_the_page_has_every_family():
    assert sorted(table()) == sorted(FAMILIES) and len(FAMILIES) >= 30


def write() -> None:
    """Look at all families and put the table into the page."""
    lines = []
    for family in FAMILIES:
        try:
            lines.append(look(family).line())
        except Exception as error:
            lines.append(f"| {family} | FAILED: {type(error).__name__}: {str(error)[:300]!r} |")
        print(lines[-1], flush=True)
    text = PAGE.read_text(encoding="utf-8")
    head = text[: text.index(START)]
    rule = "| family | scoring, embedding | training | answering | why not the fastest |\n"
    rule += "|---|---|---|---|---|\n"
    PAGE.write_text(head + rule + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
