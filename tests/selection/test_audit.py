"""The audit on real files: counts that add up, tails, moves, and the three ways of showing them."""

import json
import re
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq.host.errors import DataError
from qaq.selection import audit as audits
from qaq.selection.audit_page import most
from qaq.selection.audit_schema import Group
from qaq.store.tables import PAIRS, SUBSET, write_rows, write_table

ANSWER = {"short": "x = 1", "long": "def f():\n    return '<b>&</b>'\n" * 20}


@pytest.fixture
def pool(make, tmp_path):
    """Eight rows: two sources, two lengths, two planted echoes; ranks in two strata."""
    ids = make.ids(8)
    folder = tmp_path / "pairs"
    folder.mkdir()
    answers = [ANSWER["short"]] * 4 + [ANSWER["long"]] * 4
    table = make.pairs(ids, answers=answers, sources=["web", "book"] * 4)
    defects = pa.array([None] * 6 + ["echo"] * 2, pa.string())
    write_table(folder / "pairs.parquet", table.set_column(4, "defect", defects), PAIRS)
    return folder, ids


def subset(folder, ids, ranks, kept, reasons=None):
    folder.mkdir()
    rows = [
        {
            "row_id": row_id,
            "score": None if rank is None else 10 * rank,
            "stratum": None if rank is None else i % 2,
            "rank": rank,
            "kept": i in kept,
            "reason": (reasons or {}).get(i, "kept: highest" if i in kept else "dropped: lower"),
        }
        for i, (row_id, rank) in enumerate(zip(ids, ranks, strict=True))
    ]
    write_rows(folder / "rows.parquet", rows, SUBSET)
    return folder


def chosen_by(folder, rule, **asked):
    """Write the manifest of a subset that this rule made."""
    config = {"selector": rule, **asked}
    (folder / "manifest.json").write_text(json.dumps({"full_config": config}))


RANKS = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.4, None]


@pytest.fixture
def first(pool, tmp_path):
    _, ids = pool
    return subset(tmp_path / "first", ids, RANKS, {2, 3, 4}, {7: "no score: empty answer"})


def counts(groups):
    return {group.name: (group.rows, group.kept) for group in groups}


def test_every_count_adds_up(pool, first):
    found = audits.audit(first, pool[0])
    assert (found.rows, found.kept, found.unscored) == (8, 3, 1)
    assert counts(found.by_reason) == {
        "dropped: lower": (4, 0),
        "kept: highest": (3, 3),
        "no score: empty answer": (1, 0),
    }
    assert counts(found.by_stratum) == {"0": (4, 2), "1": (3, 1)}
    assert counts(found.by_source) == {"web": (4, 2), "book": (4, 1)}
    assert counts(found.by_defect) == {"echo": (2, 0)}
    assert (
        counts(found.by_length) == {"0 to 5": (4, 2), "319 to 620": (4, 1)}
        or sum(rows for rows, _ in counts(found.by_length).values()) == 8
    )


def test_lengths_are_quartiles_of_characters(pool, first):
    kept, dropped = audits.audit(first, pool[0]).lengths
    assert (kept.name, kept.rows, dropped.name, dropped.rows) == ("kept", 3, "dropped", 5)
    long = len(ANSWER["long"])
    assert kept.answer == (5.0, 5.0, (5 + long) / 2)  # 5, 5 and `long` characters
    assert kept.question == (10.0, 10.0, 10.0)


def test_the_tails_are_the_ends_of_the_order_by_rank(pool, first):
    found = audits.audit(first, pool[0])
    ids = pool[1]
    assert [e.row_id for e in found.lowest] == [ids[i] for i in (0, 5, 1, 6, 2)]
    assert [e.row_id for e in found.highest] == [ids[i] for i in (4, 3, 2, 6, 1)]
    assert (found.highest[0].rank, found.highest[0].kept) == (0.9, True)
    assert len(found.highest[0].answer) < len(ANSWER["long"])


def test_a_row_is_shown_with_its_own_texts_wherever_it_stands_in_the_file(make, tmp_path):
    ids, places = make.ids(8), [5, 2, 7, 0, 3, 6, 1, 4]
    texts = {ids[i]: (f"question {i}", f"answer {i}") for i in range(8)}
    asked, answers = zip(*(texts[ids[i]] for i in places), strict=True)
    pairs = make.pairs([ids[i] for i in places], [*asked], [*answers])
    pq.write_table(pairs, tmp_path / "pairs.parquet", row_group_size=3)
    one = subset(tmp_path / "one", ids, RANKS, {2, 3, 4})
    other = subset(tmp_path / "other", ids, RANKS[::-1], {3, 4, 5})
    found, moved = audits.audit(one, tmp_path), audits.diff(one, other, tmp_path)
    shown = [*found.lowest, *found.highest, *found.kept_at_cut, *found.dropped_at_cut]
    shown += [*moved.left, *moved.entered]
    assert len(shown) == 5 + 5 + 3 + 4 + 1 + 1
    assert all((row.question, row.answer) == texts[row.row_id] for row in shown)


def test_rows_on_both_sides_of_a_bands_two_cuts_are_shown(pool, tmp_path):
    folder, ids = pool
    band = subset(tmp_path / "band", ids, RANKS, {2, 3, 6})  # ranks 0.4, 0.5, 0.7
    found = audits.audit(band, folder)
    assert found.kept_at_cut[0].rank == 0.4  # 0.1 from the nearest dropped row
    assert {e.rank for e in found.kept_at_cut} == {0.4, 0.5, 0.7}
    assert [e.rank for e in found.dropped_at_cut] == [0.3, 0.2, 0.9, 0.1]
    whole = audits.audit(subset(tmp_path / "all", ids, RANKS, set(range(8))), folder)
    assert whole.kept_at_cut == whole.dropped_at_cut == ()


def test_the_pairs_must_be_those_of_the_subset(pool, first, make, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(make.pairs(make.ids(8)[:6]), other / "pairs.parquet")
    with pytest.raises(DataError, match="2 are only in the subset and 0 only in the pairs"):
        audits.audit(first, other)


def test_the_rule_comes_from_the_manifest(pool, first):
    chosen_by(first, {"method": "rmi_top", "bins": 10}, ratio=0.25, seed=None)
    found = audits.audit(first, pool[0])
    assert found.rule == {"method": "rmi_top", "bins": 10, "ratio": 0.25}
    assert "method=rmi_top, bins=10, ratio=0.25" in audits.to_text(found)
    chosen_by(first, {"method": "rmi_top"}, ratio=None, seed=None, count=3)
    assert "method=rmi_top, count=3" in audits.to_text(audits.audit(first, pool[0]))


BAND = {"method": "rmi_band"}
OF_QUESTIONS = "By stratum of log PPL(Q)"
INSIDE = "rank inside its stratum of log PPL(Q) (right"


@pytest.mark.parametrize(
    ("rule", "table", "axis"),
    [
        (BAND, OF_QUESTIONS, INSIDE),
        ({"method": "exclude", "rule": BAND}, OF_QUESTIONS, INSIDE),
        ({"method": "then", "filter": {"method": "ifd"}, "rank": BAND}, OF_QUESTIONS, INSIDE),
        ({"method": "diff_high"}, OF_QUESTIONS, "rank (right"),
        ({"method": "then", "filter": BAND, "rank": {"method": "sum_low"}}, OF_QUESTIONS, "rank ("),
        ({"method": "random_clusters"}, "By stratum", "rank (right"),
        ({"method": "random_matched", "like": BAND}, "By stratum", "rank (right"),
    ],
)
def test_strata_and_ranks_are_called_what_they_are_by_the_rule(pool, first, rule, table, axis):
    chosen_by(first, rule, ratio=0.25)
    found = audits.audit(first, pool[0])
    assert table in audits.to_text(found).splitlines()
    drawn = re.findall(r"<!-- (rank.*?) -->", audits.page(found, first))  # glyphs are drawn
    assert [text.startswith(axis) for text in drawn] == [True]


def test_rows_that_were_left_out_or_need_no_score_are_not_called_unscored(pool, tmp_path):
    folder, ids = pool
    kept = subset(tmp_path / "kept", ids, [None] * 8, set(range(6)), {6: "excluded: echo"})
    assert audits.audit(kept, folder).unscored == 0
    reasons = {6: "excluded: echo", 7: "no score: empty answer"}
    kept = subset(tmp_path / "one", ids, [None] * 8, set(range(6)), reasons)
    assert audits.audit(kept, folder).unscored == 1


@pytest.fixture
def second(pool, tmp_path):
    _, ids = pool
    return subset(tmp_path / "second", ids, RANKS[::-1], {3, 4, 5}, {2: "dropped: IFD above 1"})


def test_a_diff_says_what_moved_and_why(pool, first, second):
    found = audits.diff(first, second, pool[0])
    assert (found.kept_first, found.kept_second, found.kept_both) == (3, 3, 2)
    assert found.of_union == 2 / 4
    assert [(m.first_reason, m.second_reason, m.rows) for m in found.moves] == [
        ("kept: highest", "dropped: IFD above 1", 1),
        ("dropped: lower", "kept: highest", 1),
    ]
    assert [m.row_id for m in found.left] == [pool[1][2]]
    assert [m.row_id for m in found.entered] == [pool[1][5]]
    assert (found.entered[0].first_rank, found.entered[0].second_rank) == (0.2, 0.5)
    assert {part.name: part.rows for part in found.lengths} == {
        "kept by both": 2,
        "only first": 1,
        "only second": 1,
    }


def test_equal_subsets_have_nothing_to_tell(pool, first):
    found = audits.diff(first, first, pool[0])
    assert found.moves == () and found.of_union == 1 and found.rank_correlation == 1
    assert "nothing" in audits.to_html(found).lower()


def test_rows_of_only_one_pool_are_counted_apart(pool, first, tmp_path):
    ids = [*pool[1][:6], "0000000000000000"]
    other = subset(tmp_path / "other", ids, [0.5] * 7, {0})
    assert audits.diff(first, other, pool[0]).absent == 3


def test_subsets_of_different_pools_are_refused(pool, first, tmp_path):
    other = subset(tmp_path / "other", ["0000000000000000"], [0.5], {0})
    with pytest.raises(DataError, match="have no row in common"):
        audits.diff(first, other, pool[0])


class Page(HTMLParser):
    """Collects the text of a page and refuses tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("kind", ["audit", "diff"])
def test_the_page_is_whole_escaped_and_needs_nothing_from_outside(pool, first, second, kind):
    audit, moves = audits.audit(first, pool[0]), audits.diff(first, second, pool[0])
    html = audits.to_html(audit if kind == "audit" else moves)
    page = Page()
    page.feed(html)
    assert page.open == [] and all(link.startswith("#") for link in page.links)
    assert html.count("<script") == html.count("<script>") == 1  # bare: it loads nothing
    assert "http" not in html and "<b>&" not in html
    shown = " ".join(page.text)
    assert "kept: highest" in shown and "return '<b>&</b>'" in shown


def test_text_and_json_tell_the_same_numbers(pool, first, second):
    found = audits.audit(first, pool[0])
    tree = json.loads(json.dumps(audits.to_json(found)))
    text = audits.to_text(found)
    assert re.search(r"keeps 3 of 8 rows \(37\.5%\); 1 unscored", text)
    for group in tree["by_source"]:
        assert re.search(rf"{group['name']}\s+{group['rows']}\s+{group['kept']}\s", text)
    assert tree["lowest"][0]["row_id"] in text
    assert all(len(line) <= 120 for line in text.splitlines())
    moved = audits.to_text(audits.diff(first, second, pool[0]))
    assert "dropped: IFD above 1" in moved


def test_a_reader_is_shown_the_largest_groups_and_the_others_as_one():
    groups = [Group(f"source {i}", 40 - i, i) for i in range(30)]
    shown = most(groups)
    assert [g.name for g in shown] == [*(g.name for g in groups[:15]), "15 others"]
    assert sum(g.rows for g in shown) == sum(g.rows for g in groups)
    assert sum(g.kept for g in shown) == sum(g.kept for g in groups)
    assert most(groups[:16]) == groups[:16]
