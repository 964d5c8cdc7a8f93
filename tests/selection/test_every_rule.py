"""What every rule has to keep to, ours and the user's: a rule is tested by being registered.

`QAQ_PATH=FOLDER python -m pytest tests/selection/test_every_rule.py` tests the rules of a folder.
A rule whose parameters have no defaults says with which it is tried: `example: ClassVar[dict]`.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from qaq.host.errors import UserError
from qaq.selection.config import (
    RULES,
    SelectorConfig,
    reads_texts,
    reads_truth,
    rules_within,
)
from qaq.selection.decision import Decision
from qaq.selection.pool import Embeddings, build_pool
from qaq.selection.rules import scar, select
from qaq.selection.texts import COLUMNS, TEXTS

ROWS = 60
ADAPTER = TypeAdapter(SelectorConfig)
COMPOSED = {
    "then": {"filter": {"method": "full"}, "rank": {"method": "rmi_band"}, "share_of": "survivors"},
    "exclude": {"rule": {"method": "longest"}, "contaminated": True, "near_duplicates": True},
    "undamaged": {"rule": {"method": "random"}},
}
UNSCORED = {"strong": [0, 1, 2, 3], "weak": [3, 4, 5], "asked": [5, 10]}
UNSCORED |= {"embeddings": [6, 7], "overlaps": [8, 9]}


def parameters(name):
    example = getattr(RULES[name].config, "example", COMPOSED.get(name, {}))
    return ADAPTER.validate_python({"method": name, **example})


@pytest.fixture
def world(make, monkeypatch):
    """`pool(selector, order)`: what the rule says that it reads, and nothing else.

    Scores lie on a coarse grid, so that ties are frequent; `order` permutes the rows on disk.
    """
    lengths = {"scar": lambda _, texts: np.array([len(t) % 7 for t in texts["answer"].to_pylist()])}
    monkeypatch.setattr(scar, "scar_scores", lengths["scar"])
    rng = np.random.default_rng(5)

    def model(role):
        values = {
            "rmi": rng.integers(-4, 5, ROWS) / 4,
            "ppl_q": rng.integers(8, 16, ROWS) / 4,
            "ifd": rng.integers(1, 8, ROWS) / 8,
            "ppl_a": rng.integers(1, 9, ROWS) / 4,
            "tokens_a": rng.integers(1, 9, ROWS),
        }
        lists = {name: column.tolist() for name, column in values.items()}
        why = [None] * ROWS
        for row in UNSCORED[role]:
            lists["rmi"][row], why[row] = None, f"{role} could not read it"
        return lists | {"reasons": why}

    made = {role: model(role) for role in ("strong", "weak", "asked")}
    vectors = rng.integers(-2, 3, (ROWS, 4)).astype(np.float32) + 0.5
    vectors[UNSCORED["embeddings"]] = 0
    queries = rng.normal(size=(3, 4)).astype(np.float32)
    answers = ["word = " + "word + " * int(n) + "1" for n in rng.integers(1, 9, ROWS)]
    rows = make.pairs(make.ids(ROWS), answers=answers)
    planted = pa.array(["echo" if i % 3 == 0 else None for i in range(ROWS)], pa.string())
    rows = rows.set_column(rows.column_names.index("defect"), "defect", planted)

    def pool(selector, order=None):
        ids = make.ids(ROWS)
        tables = {r: make.scores(ids, **made[r]) for r in selector.needs if r in made}
        order = list(range(ROWS)) if order is None else order
        shuffled = {r: t.take(pa.array(order[::-1])) for r, t in tables.items()}
        read = ["row_id", "defect"] if reads_truth(selector) else ["row_id"]
        built, _ = build_pool(rows.take(pa.array(order)).select(read), shuffled)
        if reads_texts(selector):
            on_disk = rows.take(pa.array(order)).select(COLUMNS).cast(TEXTS)
            built = replace(built, texts=make.texts(on_disk, place=np.array(order)))
        if "embeddings" in selector.needs:
            place = np.argsort(order)
            built = replace(built, embeddings=Embeddings(vectors[order], place, queries))
        if "overlaps" in selector.needs:
            why = ["mbpp" if i in UNSCORED["overlaps"] else None for i in range(ROWS)]
            built = replace(built, barred=pa.chunked_array([pa.array(why, pa.string())]))
        return built

    return pool


def facts(decision: Decision):
    columns = (decision.label, decision.score, decision.rank, decision.stratum)
    return [c.tolist() for c in map(np.nan_to_num, columns)], decision.labels, decision.selectable


def apply(name, world, ratio=0.25, seed=1, order=None):
    selector = parameters(name)
    return select(selector, world(selector, order), ratio=ratio, seed=seed)


@pytest.mark.parametrize("name", RULES)
def test_its_parameters_have_a_card_and_survive_a_job_file(name):
    selector = parameters(name)
    assert type(selector).__doc__
    assert ADAPTER.validate_python(ADAPTER.dump_python(selector, mode="json")) == selector


@pytest.mark.parametrize("name", RULES)
def test_permuting_the_rows_on_disk_changes_nothing_and_ties_go_the_same_way(name, world):
    first = facts(apply(name, world))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(ROWS).tolist()
        assert facts(apply(name, world, order=order)) == first


@pytest.mark.parametrize("name", RULES)
def test_a_row_that_lacks_what_the_rule_reads_is_never_kept(name, world):
    decision = apply(name, world, ratio=1.0 if parameters(name).uses_ratio else 0.5)
    lacking = sorted({row for role in parameters(name).needs for row in UNSCORED.get(role, ())})
    assert not decision.kept[lacking].any()
    assert np.isnan(decision.score[lacking]).all()
    assert np.isnan(decision.rank[lacking]).all()
    assert not any(decision.labels[i].startswith("kept") for i in decision.label[lacking])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 1.0])
def test_its_size_is_what_the_ratio_asks_for_or_does_not_depend_on_it(name, ratio, world):
    decision = apply(name, world, ratio)
    kept = int(decision.kept.sum())
    assert len(decision.label) == ROWS
    assert kept <= decision.selectable <= ROWS
    if parameters(name).uses_ratio:
        assert kept == round(ratio * decision.selectable)
    else:
        assert facts(decision) == facts(apply(name, world, 0.75))


@pytest.mark.parametrize("name", [n for n in RULES if parameters(n).uses_ratio])
def test_a_number_of_rows_may_be_asked_for_and_not_more_than_there_are(name, world):
    selector = parameters(name)
    decision = select(selector, world(selector), seed=1, count=7)
    assert int(decision.kept.sum()) == 7
    with pytest.raises(UserError, match=r"asked for 61 rows, but only \d+ can be selected"):
        select(selector, world(selector), seed=1, count=ROWS + 1)


@pytest.mark.parametrize("name", RULES)
def test_chance_plays_a_part_exactly_where_it_says_so(name, world):
    assert facts(apply(name, world)) == facts(apply(name, world))
    seeded = any(part.seeded for part in rules_within(parameters(name)))
    assert seeded == (facts(apply(name, world, seed=1)) != facts(apply(name, world, seed=2)))


@pytest.mark.parametrize("name", RULES)
def test_every_row_has_a_reason(name, world):
    decision = apply(name, world)
    assert decision.labels[0].startswith("kept")
    assert all(0 <= code < len(decision.labels) for code in decision.label)
    assert all(text.strip() for text in decision.labels)
