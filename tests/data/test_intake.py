import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.data.config import DataConfig
from qaq.data.intake import Counts, kept, sample, screen
from qaq.data.rows import Entry, Pair, Rejected

DATA = DataConfig(name="s", source="jsonl")
PAIRS = [Pair(f"q{i}", f"a{i}", "s") for i in range(200)]


def entries(*answers):
    return [Entry(i, {"question": "q", "answer": a}) for i, a in enumerate(answers, start=1)]


def test_a_second_row_with_the_same_canonical_texts_is_a_duplicate_of_the_first():
    rows = list(screen(entries("x", "y", "x \r\n", "x"), "s", DATA))
    assert [isinstance(row, Pair) for row in rows] == [True, True, False, False]
    assert rows[2].reason == rows[3].reason == "duplicate"
    assert "row 1" in rows[3].detail


@given(st.lists(st.sampled_from(["x", "y", "z", "", 3, None])))
def test_read_is_kept_plus_quarantined_whatever_comes(answers):
    counts, refused = Counts(), []
    pairs = list(kept(screen(entries(*answers), "s", DATA), counts, refused.append))
    assert counts.read == len(answers) == counts.kept + counts.quarantined.total()
    assert counts.kept == len(pairs) == len({p.row_id for p in pairs})
    assert sum(counts.quarantined.values()) == len(refused)
    assert all(isinstance(row, Rejected) for row in refused)


@pytest.mark.parametrize("limit", [1, 7, 199, 200, 500])
def test_a_sample_has_its_size_and_keeps_the_order_of_the_source(limit):
    drawn = sample(PAIRS, limit, seed=0)
    assert len(drawn) == min(limit, len(PAIRS))
    assert drawn == [pair for pair in PAIRS if pair in set(drawn)]


def test_no_limit_means_every_row():
    assert list(sample(iter(PAIRS), None, seed=0)) == PAIRS


def test_another_seed_draws_other_rows_and_the_same_seed_the_same():
    assert sample(PAIRS, 50, 1) == sample(PAIRS, 50, 1) != sample(PAIRS, 50, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.randoms(use_true_random=False))
def test_a_sample_depends_on_the_rows_alone_and_samples_are_nested(small, large, rng):
    shuffled = rng.sample(PAIRS, len(PAIRS))
    drawn = set(sample(PAIRS, large, 3))
    assert set(sample(shuffled, large, 3)) == drawn
    assert set(sample(PAIRS, min(small, large), 3)) <= drawn


def test_every_row_has_the_same_chance():
    times = dict.fromkeys(PAIRS, 0)
    for seed in range(400):
        for pair in sample(PAIRS, 50, seed):
            times[pair] += 1
    # binomial(400, 1/4): mean 100, standard deviation 8.7; 5 of them on either side
    assert 56 < min(times.values()) <= max(times.values()) < 144
