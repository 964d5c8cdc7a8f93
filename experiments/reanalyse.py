"""Make the tests of committed results anew, from their per-problem rows.

    python experiments/reanalyse.py results/small_code results/rmi_bands

Reads `results.json` (of this or an earlier form) and `per_problem.parquet` of each folder and the
`primary` family that `conf/experiment/NAME.yaml` declares; writes `results.json`, `summary.txt`,
`tables.md`, `differences.png` and `quality.png` in place. Nothing is trained, judged or scored.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import matplotlib
import pandas as pd
import yaml
from pydantic import TypeAdapter

from qaq.evidence.config import PrimaryConfig
from qaq.host.plugins import conf_dir
from qaq.page.drawing import STYLE, draw
from qaq.page.tables import to_markdown
from qaq.reporting import analysis, family
from qaq.reporting.analysis import UNTUNED
from qaq.reporting.assemble import descriptive
from qaq.reporting.collect import Collected
from qaq.reporting.config import ReportArm, ReportStage
from qaq.reporting.contents import summary
from qaq.reporting.figures.arms import differences, quality
from qaq.reporting.schema import SCHEMA_VERSION, Results, save_results
from qaq.reporting.tables import make_tables
from qaq.reporting.verdict import verdict
from qaq.store.tables import read_json


def declared(experiment: str) -> PrimaryConfig:
    """The family that an experiment's YAML declares."""
    text = (conf_dir() / "experiment" / f"{experiment}.yaml").read_text()
    return TypeAdapter(PrimaryConfig).validate_python(yaml.safe_load(text).get("primary") or {})


def reanalyse(tree: dict[str, Any], outcomes: pd.DataFrame, primary: PrimaryConfig) -> Results:
    """The results with the tests, the verdict and the suites' intervals of today."""
    arms = tuple(
        ReportArm(name=a["name"], method=a["method"], ratio=a["ratio"], seeds=tuple(a["seeds"]))
        for a in tree["arms"]
        if a["name"] != UNTUNED
    )
    suites = tuple(sorted(outcomes["benchmark"].unique()))
    spec = ReportStage(
        experiment=tree["experiment"], arms=arms, suites=suites, untuned=True, primary=primary
    )
    found = analysis.grids(outcomes)
    limited = family.as_declared(primary, arms, found)
    tests = family.primary_tests(primary, arms, limited)
    loss = family.loss(primary, arms, limited)
    powers = family.powers(primary, arms, limited)
    new = {
        "schema_version": SCHEMA_VERSION,
        "comparisons": [*tests, *analysis.described(descriptive(spec, found), found)],
        "loss": loss,
        "power": powers,
        "verdict": verdict(tests, loss, powers),
        "notes": (*family.notes(primary, arms, found), *_kept_notes(tree)),
    }
    return TypeAdapter(Results).validate_python(tree | new)


def _kept_notes(tree: dict[str, Any]) -> list[str]:
    made_here = (
        *("declared runs", "take no part in the primary family"),
        *("was not made", "are held against all rows"),
    )
    return [note for note in tree["notes"] if not any(part in note for part in made_here)]


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        tree = read_json(folder / "results.json")
        outcomes = pd.read_parquet(folder / "per_problem.parquet")
        results = reanalyse(tree, outcomes, declared(tree["experiment"]))
        tables = make_tables(results)
        save_results(results, folder / "results.json")
        (folder / "summary.txt").write_text(summary(results, tables), encoding="utf-8")
        if (folder / "tables.md").exists():
            text = "\n".join(to_markdown(table) for table in tables.values())
            (folder / "tables.md").write_text(text, encoding="utf-8")
        for name, figure in (("differences", differences), ("quality", quality)):
            if not (folder / f"{name}.png").exists():
                continue
            with matplotlib.rc_context(STYLE):
                drawn = figure(cast(Collected, None), results)
            if drawn is not None:
                with tempfile.TemporaryDirectory() as scratch:
                    draw({name: drawn}, Path(scratch))
                    (folder / f"{name}.png").write_bytes(
                        (Path(scratch) / f"{name}.png").read_bytes()
                    )
        print(f"{folder}\n  " + "\n  ".join(results.verdict))


if __name__ == "__main__":
    main()
