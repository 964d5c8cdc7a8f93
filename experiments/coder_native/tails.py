"""A sample of the native pool at RMI's tails to be read, and the count of what was read.

    python experiments/coder_native/tails.py draw PAIRS SCORES FOLDER
    python experiments/coder_native/tails.py count FOLDER

PAIRS and SCORES are artifacts of a run of `coder_noisy`, whose undamaged rows are the pool as it
was written. `draw` writes `rows.jsonl`, what readers see (number, question, answer, in an order
that says nothing of the score; not committed, the pool is), and `drawn.csv`, what they do not:
RMI, its stratified rank, the group. `count` reads `first.csv` and `second.csv`, the labels of two
readers by the rubric of this folder's README, and writes `tails.json` and `tails.md`.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qaq.evidence.estimate import share, share_difference, shares_differ
from qaq.evidence.runs import holm
from qaq.scoring.metrics import log_perplexity_q, rmi
from qaq.selection.ranks import equal_count_bins, ranks_within
from qaq.store.tables import read_scores, write_jsonl

EACH = 67  # rows of a group: 200 rows and one
STRATA = 10  # of PPL(Q), as the rules use
GROUPS = ("lowest", "middle", "highest")
LABELS = {
    "task": ("clear", "vague", "none"),
    "answer": ("solves", "flawed", "other"),
    "repeats": ("yes", "no"),
}
# What is compared: its name and the labels that count
COUNTED = {
    "task clear": lambda row: row["task"] == "clear",
    "no task": lambda row: row["task"] == "none",
    "answer solves": lambda row: row["answer"] == "solves",
    "answers something else": lambda row: row["answer"] == "other",
    "clear and solved": lambda row: row["task"] == "clear" and row["answer"] == "solves",
    "repeats the question": lambda row: row["repeats"] == "yes",
}


def draw(pairs: Path, scores: Path, folder: Path) -> None:
    """The undamaged rows of the lowest, middle and highest ranks, shuffled by a seed."""
    table = pq.read_table(pairs / "pairs.parquet")
    clean = table.filter(pa.compute.is_null(table["defect"]))
    scored = read_scores(scores)
    at = {row: n for n, row in enumerate(scored["row_id"].to_pylist())}
    places = [at[row] for row in clean["row_id"].to_pylist()]
    columns = {n: scored[n].to_numpy()[places] for n in scored.column_names if n != "row_id"}
    score = rmi(columns)
    ranks = ranks_within(score, equal_count_bins(log_perplexity_q(columns), STRATA))
    order = np.argsort(ranks, kind="stable")[: int(np.isfinite(ranks).sum())]
    start = (len(order) - EACH) // 2
    chosen = {
        "lowest": order[:EACH], "middle": order[start : start + EACH], "highest": order[-EACH:]
    }  # fmt: skip
    group = {int(row): name for name, rows in chosen.items() for row in rows}
    shown = np.random.default_rng(0).permutation(sorted(group))
    folder.mkdir(parents=True, exist_ok=True)
    question, answer = clean["question"].to_pylist(), clean["answer"].to_pylist()
    write_jsonl(
        folder / "rows.jsonl",
        ({"number": n, "question": question[r], "answer": answer[r]} for n, r in enumerate(shown)),
    )
    ids = clean["row_id"].to_pylist()
    with (folder / "drawn.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["number", "row_id", "group", "rmi", "rank"])
        for number, row in enumerate(shown):
            out.writerow([number, ids[row], group[row], f"{score[row]:.4f}", f"{ranks[row]:.4f}"])


def read_labels(file: Path, rows: int) -> list[dict[str, str]]:
    """One reader's labels in the order of the numbers; every row once, known words only."""
    with file.open(encoding="utf-8", newline="") as text:
        found = {int(row["number"]): row for row in csv.DictReader(text)}
    if sorted(found) != list(range(rows)):
        raise SystemExit(f"{file}: expected a line for each of 0 to {rows - 1}")
    for number, row in found.items():
        for name, words in LABELS.items():
            if row[name] not in words:
                raise SystemExit(f"{file}, {number}: {name} is {row[name]!r}, expected {words}")
    return [found[n] for n in range(rows)]


def kappa(first: list[str], second: list[str]) -> float:
    """Cohen's kappa: agreement beyond what the two readers' own frequencies give."""
    words = sorted({*first, *second})
    seen = np.mean([a == b for a, b in zip(first, second, strict=True)])
    chance = sum(first.count(w) * second.count(w) for w in words) / len(first) ** 2
    return float((seen - chance) / (1 - chance)) if chance < 1 else 1.0


def count(folder: Path) -> dict[str, Any]:
    """Shares of each group by each reader, tails against the middle, and the readers' agreement."""
    with (folder / "drawn.csv").open(encoding="utf-8", newline="") as text:
        group = [row["group"] for row in csv.DictReader(text)]
    readers = {
        name: read_labels(folder / f"{name}.csv", len(group)) for name in ("first", "second")
    }
    result: dict[str, Any] = {"rows": len(group), "agreement": {}, "readers": {}}
    for name in LABELS:
        one, two = ([row[name] for row in rows] for rows in readers.values())
        same = float(np.mean([a == b for a, b in zip(one, two, strict=True)]))
        result["agreement"][name] = {"same": same, "kappa": kappa(one, two)}
    for reader, rows in readers.items():
        made: dict[str, Any] = {}
        for what, counts in COUNTED.items():
            held = {
                g: [counts(r) for r, its in zip(rows, group, strict=True) if its == g]
                for g in GROUPS
            }
            made[what] = {g: share(sum(h), len(h)) for g, h in held.items()}
        tests = [(w, tail) for w in COUNTED for tail in ("lowest", "highest")]
        p = [shares_differ(made[w][tail], made[w]["middle"]) for w, tail in tests]
        corrected = dict(zip(tests, holm(p), strict=True))
        result["readers"][reader] = {
            what: {
                g: {
                    "share": e.value, "low": e.low, "high": e.high,
                    **({} if g == "middle" else against(e, shares["middle"], corrected[what, g])),
                }
                for g, e in shares.items()
            }
            for what, shares in made.items()
        }  # fmt: skip
    return result


def against(tail: Any, middle: Any, p: float) -> dict[str, float]:
    """The difference from the middle group, with Newcombe's interval and Holm's p."""
    d = share_difference(tail, middle)
    return {"difference": d.value, "difference_low": d.low, "difference_high": d.high, "p_holm": p}


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# What stands at the tails of RMI", "",
        f"{result['rows']} rows, {EACH} of each group; % of the rows with Wilson's 95% intervals. "
        "A star: differs from the middle (Fisher's exact test, Holm over the reader's "
        f"{2 * len(COUNTED)} comparisons, 5%).",
    ]  # fmt: skip
    for reader, made in result["readers"].items():
        lines += [
            "",
            f"**The {reader} reader.**",
            "",
            f"| | {' | '.join(GROUPS)} |",
            "|---|---|---|---|",
        ]
        for what, shares in made.items():
            cells = [
                f"{100 * e['share']:.0f} [{100 * e['low']:.0f}–{100 * e['high']:.0f}]"
                + ("*" if e.get("p_holm", 1.0) < 0.05 else "")
                for e in (shares[g] for g in GROUPS)
            ]
            lines.append(f"| {what} | {' | '.join(cells)} |")
    lines += [
        "",
        "**Agreement of the readers.**",
        "",
        "| label | same | Cohen's kappa |",
        "|---|---|---|",
    ]
    for name, found in result["agreement"].items():
        lines.append(f"| {name} | {100 * found['same']:.0f}% | {found['kappa']:.2f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Draw, or count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=["draw", "count"])
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    if given.do == "draw":
        draw(*given.folders)
        return
    (folder,) = given.folders
    result = count(folder)
    (folder / "tails.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "tails.md").write_text(page(result), encoding="utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
