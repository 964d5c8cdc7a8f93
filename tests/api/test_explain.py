"""The decision page says what the committed results say, rule by rule."""

import json
import re
from pathlib import Path

import pytest

from qaq.api.explain import explanation
from qaq.api.work import RULE
from qaq.host.errors import UserError
from qaq.host.plugins import options

ROOT = Path(__file__).parents[2]
KINDS = ["clean", "damaged", "swapped answer", "echo"]


def results():
    tree = json.loads((ROOT / "results" / "planted_noise" / "results.json").read_text())
    return {table["name"]: table for table in tree["tables"]}


def table_named(title):
    return next(t for t in results().values() if t["title"] == title)


def lines():
    return re.findall(r"^\| `(\w+)` \| (.+) \|$", explanation(), re.M)


def test_every_figure_of_the_table_is_the_committed_one():
    table = table_named("What each rule keeps")
    names = [c if isinstance(c, str) else c.get("name", c.get("title")) for c in table["columns"]]
    at = [next(i for i, n in enumerate(names) if str(n).endswith(kind)) for kind in KINDS]
    kept = {row[0]["value"]: [row[i] for i in at] for row in table["rows"]}
    assert {name for name, _ in lines()} == set(kept)
    for name, cells in lines():
        *figures, verdict = cells.split(" | ")
        shares = [tuple(round(100 * c[k]) for k in ("value", "low", "high")) for c in kept[name]]
        assert figures == [f"{v} [{low}–{high}]" for v, low, high in shares], name
        clean, damaged = kept[name][:2]
        expected = "not decided"
        if damaged["high"] < clean["low"]:
            expected = "leaves damage out"
        if damaged["low"] > clean["high"]:
            expected = "collects damage"
        assert verdict == expected, name


def test_the_claims_about_the_default_are_verdicts_of_the_study():
    table = table_named("Claims that planted noise can test")
    held = {row[0]["value"]: [c["value"] for c in row[1:]] for row in table["rows"]}
    for claim, figure in (
        ("Low RMI marks rows with swapped answer", "0.99"),
        ("Low RMI marks rows with neighbour's answer", "0.88"),
        ("High RMI marks rows with echo", "1.00"),
    ):
        assert held[claim][0].startswith(f"AUROC {figure}")
        assert held[claim][1] == "holds"
        assert figure in explanation()
    every = table_named("Every rule, ratio, rate and kind of row")["rows"]
    rows = [[cell["value"] for cell in row] for row in every]
    band = {(r[1], r[3]): r[4] for r in rows if r[0] == "rmi_band" and r[2] == 0.44}
    assert [band[ratio, "echo"] for ratio in (0.25, 0.5, 0.75)] == [0, 0, 1]
    assert [band[ratio, "swapped_answer"] for ratio in (0.25, 0.5, 0.75)] == [0, 0, 0]


def test_the_default_is_a_rule_and_every_rule_that_the_page_names_is_one():
    page = explanation()
    assert RULE in options("selector")
    named = set(re.findall(r"`((?:rmi|ifd|diff|sum|random|r_ifd|perplexity|rds)_\w+)`", page))
    assert named - set(options("selector")) == set()


def test_one_rule_can_be_asked_for():
    assert explanation("ifd").splitlines()[0] == "`ifd`"
    assert "collects damage" in explanation("ifd")
    assert explanation(RULE).startswith(f"## Why `{RULE}`")
    assert "What each rule keeps" not in explanation(RULE)
    with pytest.raises(UserError, match="nothing was shown of scar here"):
        explanation("scar")
