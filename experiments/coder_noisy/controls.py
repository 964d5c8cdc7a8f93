"""What a score of the damaged pool sees: the placeholder, or who wrote the answer?

    python experiments/coder_noisy/controls.py PAIRS STRONG WEAK results/coder_noisy

PAIRS, STRONG and WEAK are artifacts of a run of `coder_noisy`. For every score, and for what needs
no model: AUROC of the placeholders against all other rows, AUROC of the answers of the 0.5B against
those of the 1.5B among the undamaged rows, and what the lowest and the highest quarter would hold
(rows of a tie count by their share). Writes `controls.md` and `controls.json`. Made after the first
models were judged; it decides nothing.
"""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from qaq.data.python_code import Function, find_python
from qaq.evidence.estimate import FloatArray, Mask
from qaq.evidence.ranking import area
from qaq.page.tables import Cell, Column, Table, decimal, text, to_markdown
from qaq.scoring.metrics import Columns, divide, ifd_loss_ratio, mean_nll, rmi
from qaq.selection.controls import model_free
from qaq.selection.rules.disagreement import paired_ranks
from qaq.store.tables import read_scores, write_json


def main() -> None:
    """Read, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("pairs", "strong", "weak", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    pairs = pq.read_table(given.pairs / "pairs.parquet").to_pandas()
    strong, weak = (columns(folder, pairs["row_id"]) for folder in (given.strong, given.weak))
    found = dict(scores(strong, weak))
    found |= dict(without_model(pairs["question"].tolist(), pairs["answer"].tolist()))
    damaged, small = (pairs["defect"].notna(), pairs["source"] == "weak")
    rows = [
        row(name, values, damaged.to_numpy(), small.to_numpy()) for name, values in found.items()
    ]
    heads = (
        Column("score", kind="text"),
        *(Column(name, "AUROC") for name in ("placeholder", "answer by the 0.5B")),
        *(
            Column(name, f"{end} quarter holds")
            for end in ("lowest", "highest")
            for name in ("placeholders", "rows by the 0.5B")
        ),
    )
    note = f"{len(pairs)} rows, {damaged.sum()} placeholders, {small.sum()} answers by the 0.5B."
    table = Table("controls", "Placeholder or author?", note, heads, tuple(rows))
    (given.out / "controls.md").write_text(to_markdown(table) + "\n")
    values = {cells[0].text: [cell.value for cell in cells[1:]] for cells in rows}
    write_json(given.out / "controls.json", values)


def columns(folder: Path, row_ids: object) -> Columns:
    """Sums and counts of a table of scores, in the order of the pairs."""
    table = read_scores(folder).to_pandas().set_index("row_id").loc[row_ids]
    return {name: table[name].to_numpy(float) for name in table if name.startswith(("nll", "tok"))}


def scores(strong: Columns, weak: Columns) -> Iterator[tuple[str, FloatArray]]:
    """What the rules of this experiment rank by, and the NLL of the answer behind it."""
    answer = [mean_nll(model, "a_given_q") for model in (strong, weak)]
    yield "RMI (1.5B)", rmi(strong)
    yield "IFD (1.5B)", ifd_loss_ratio(strong)
    yield "IFD (0.5B)", ifd_loss_ratio(weak)
    for name, metric, bins in (("diff_high", "rmi", 10), ("diff_high_ifd", "ifd_loss_ratio", 1)):
        first, second, _ = paired_ranks(strong, weak, metric=metric, bins=bins)
        yield f"{name}: rank by the 1.5B − rank by the 0.5B", first - second
    yield "NLL of the answer given the question (1.5B)", answer[0]
    yield "NLL of the answer given the question (0.5B, the target)", answer[1]
    yield "the same, 1.5B ÷ 0.5B", divide(*answer)


def without_model(questions: list[str], answers: list[str]) -> Iterator[tuple[str, FloatArray]]:
    """What needs no model."""
    yield from model_free(questions, answers).items()
    phrase = [float("Your code here" in answer) for answer in answers]
    yield "holds `Your code here`", np.array(phrase)
    yield "holds a function without a body", np.array([float(bodiless(a)) for a in answers])
    returns = [float(bool(re.search(r"^\s*return\b", a, re.MULTILINE))) for a in answers]
    yield "holds a line with `return`", np.array(returns)


def bodiless(answer: str) -> bool:
    """Whether a function of the answer does nothing: a docstring, `pass` or `...` alone."""
    block = find_python(answer)
    functions = [n for n in ast.walk(block.tree) if isinstance(n, Function)] if block else []
    return any(all(map(_idle, function.body)) for function in functions)


def _idle(node: ast.stmt) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant or isinstance(node, ast.Pass)


def row(name: str, values: FloatArray, damaged: Mask, small: Mask) -> tuple[Cell, ...]:
    """A line of the table."""
    by_author = area(values[~damaged], small[~damaged], ~small[~damaged])
    cells = [text(name)]
    for found in (area(values, damaged, ~damaged), by_author):
        cells.append(decimal(found, 2) if found else text(""))
    for sign in (1, -1):
        share = kept(sign * values, len(values) // 4)
        cells += [Cell(f"{n:.0f}", value=float(n)) for n in (share @ damaged, share @ small)]
    return tuple(cells)


def kept(values: FloatArray, count: int) -> FloatArray:
    """How much of each row the `count` lowest values hold; rows of a tie share what is left."""
    known = np.where(np.isfinite(values), values, np.inf)
    cut = np.sort(known)[count - 1]
    tied = known == cut
    left = count - (known < cut).sum()
    return (known < cut) + tied * left / tied.sum()


if __name__ == "__main__":
    main()
