"""The decision page says what the committed results say, rule by rule."""

import json
import re
from pathlib import Path

import pytest
from scipy.stats import fisher_exact

from qaq.api.explain import explanation
from qaq.api.work import RULE
from qaq.host.errors import UserError
from qaq.host.plugins import options
from qaq.page.names import DEFECTS

ROOT = Path(__file__).parents[2]
KINDS = ["clean", "swapped answer", "echo"]


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
        *figures, _, _ = cells.split(" | ")
        shares = [tuple(round(100 * c[k]) for k in ("value", "low", "high")) for c in kept[name]]
        assert figures == [f"{v} [{low}–{high}]" for v, low, high in shares], name


def holm(p_values):
    """Which of several p values lie below 5% after Holm's correction."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    found = set()
    for step, place in enumerate(order):
        if p_values[place] > 0.05 / (len(order) - step):
            break
        found.add(place)
    return found


def test_the_kinds_that_a_rule_leaves_out_or_collects_are_found_by_fishers_test():
    every = table_named("Every rule, ratio, rate and kind of row")["rows"]
    rows = [[cell["value"] for cell in row] for row in every]
    names = {kind: title for kind, title in DEFECTS.items() if kind != "rebuilt_question"}
    clean = 1000 - 12 * 40
    for rule, cells in lines():
        kept = {r[3]: r[4] for r in rows if r[0] == rule and r[1] in (0.25, None) and r[2] == 0.44}
        kinds = [kind for kind in names if kind in kept and kind != "clean"]
        p_values = []
        for kind in kinds:
            control = "rebuilt_question" if kind == "other_natural_language" else "clean"
            sizes = 40, clean if control == "clean" else 40
            hits = round(40 * kept[kind]), round(sizes[1] * kept[control])
            table = [[h, n - h] for h, n in zip(hits, sizes, strict=True)]
            p_values.append((fisher_exact(table).pvalue, kept[kind] > kept[control]))
        found = holm([p for p, _ in p_values])
        sides = [
            {names[kinds[i]] for i in found if p_values[i][1] == more} or {"none"}
            for more in (False, True)
        ]
        assert [set(cell.split(", ")) for cell in cells.split(" | ")[-2:]] == sides, rule


def test_the_claims_about_the_default_are_verdicts_of_the_study():
    table = table_named("Claims that planted noise can test")
    held = {row[0]["value"]: [c["value"] for c in row[1:]] for row in table["rows"]}
    for claim, figure in (
        ("Low RMI marks rows with swapped answer", "0.99"),
        ("Low RMI marks rows with neighbour's answer", "0.88"),
        ("High RMI marks rows with echo", "1.00"),
    ):
        assert held[claim][0].startswith(f"AUROC {figure}")
        assert held[claim][-1] == "holds"
        assert figure in explanation()
    every = table_named("Every rule, ratio, rate and kind of row")["rows"]
    rows = [[cell["value"] for cell in row] for row in every]
    band = {(r[1], r[3]): r[4] for r in rows if r[0] == "rmi_band" and r[2] == 0.44}
    assert [band[ratio, "echo"] for ratio in (0.25, 0.5, 0.75)] == [0, 0, 1]
    assert [band[ratio, "swapped_answer"] for ratio in (0.25, 0.5, 0.75)] == [0, 0, 1 / 40]


def test_the_default_is_a_rule_and_every_rule_that_the_page_names_is_one():
    page = explanation()
    assert RULE in options("selector")
    named = set(re.findall(r"`((?:rmi|ifd|diff|sum|random|r_ifd|perplexity|rds)_\w+)`", page))
    assert named - set(options("selector")) == set()


def test_one_rule_can_be_asked_for():
    lines = explanation("ifd").splitlines()
    assert lines[0] == "ifd" and "  clean rows kept (%): 19 [16–22]" in lines
    assert any("keeps more of: swapped answer, not code, partial" in line for line in lines)
    assert not any(line.startswith("|") for line in lines) and "95%" in explanation("ifd")
    assert explanation(RULE).startswith(f"## Why `{RULE}`")
    assert "## What each rule" not in explanation(RULE)
    with pytest.raises(UserError, match="nothing was shown of scar here"):
        explanation("scar")
