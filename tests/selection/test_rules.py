"""Each rule against a slow reference written from its definition, and the laws all rules keep."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from qaq.host.errors import DataError, UserError
from qaq.selection.config import SelectorConfig
from qaq.selection.decision import Size, TooFewRows
from qaq.selection.pool import Embeddings, build_pool
from qaq.selection.rules import select
from qaq.store.tables import SCORES

few = settings(max_examples=15, deadline=None)
ADAPTER = TypeAdapter(SelectorConfig)

SCORE_RULES = [
    "longest",
    "perplexity_high",
    "perplexity_middle",
    "ifd_cherry",
    "ifd_superfiltering",
    "rmi_top",
    "rmi_bottom",
    "rmi_band",
    "diff_high",
    "diff_low",
    "sum_high",
    "sum_low",
]


def rule(method, **fields):
    return ADAPTER.validate_python({"method": method, **fields})


# Scores on a coarse grid, so that ties are frequent; None = a row without a score.
grid = st.one_of(st.none(), st.integers(-6, 6).map(lambda i: i / 4))
positive = st.integers(1, 8).map(lambda i: i / 4)


@st.composite
def tables(draw, max_rows=12):
    n = draw(st.integers(1, max_rows))

    def many(element):
        return draw(st.lists(element, min_size=n, max_size=n))

    def one_model():
        return {
            "rmi": many(grid),
            "ppl_q": many(positive),
            "ifd": many(positive),
            "ppl_a": many(positive),
            "tokens_a": many(st.integers(1, 9)),
        }

    return n, one_model(), one_model()


# --- slow references: rows in a list, Python's sort, one rule a function ---


def ordered(rows, value, descending=False):
    """Row numbers by value; equals by row id, that is by number."""
    return sorted(rows, key=lambda i: (-value[i] if descending else value[i], i))


def slow_strata(rows, ppl_q, bins):
    bins = max(1, min(bins, len(rows) // 4))
    return {i: sum(ppl_q[j] < ppl_q[i] for j in rows) * bins // len(rows) for i in rows}


def slow_ranks(rows, value, stratum):
    ranks = {}
    for i in rows:
        peers = [value[j] for j in rows if stratum[j] == stratum[i]]
        below = sum(p < value[i] for p in peers)
        equal = sum(p == value[i] for p in peers)
        ranks[i] = (below + (equal + 1) / 2 - 0.5) / len(peers)
    return ranks


def scored(strong):
    return [i for i, value in enumerate(strong["rmi"]) if value is not None]


def slow_highest(rows, value, count):
    return sorted(ordered(rows, value, descending=True)[:count])


def slow_around(rows, value, count, center):
    start = min(max(round(center * len(rows) - count / 2), 0), len(rows) - count)
    return sorted(ordered(rows, value)[start : start + count])


def slow_pair_perplexity(rows, model):
    out = {}
    for i in rows:
        a = model["tokens_a"][i]
        nll = 2 * model["ppl_q"][i] + a * model["ppl_a"][i] * model["ifd"][i]
        out[i] = np.exp(nll / (2 + a))
    return out


def slow_simple(method, rows, strong, ratio):
    """longest and the two perplexities."""
    count = round(ratio * len(rows))
    if method == "longest":
        return slow_highest(rows, strong["tokens_a"], count)
    pair = slow_pair_perplexity(rows, strong)
    if method == "perplexity_high":
        return slow_highest(rows, pair, count)
    return slow_around(rows, pair, count, 0.5)


def slow_ifd(method, rows, model, ratio):
    if method == "ifd_cherry":
        value = {i: model["ifd"][i] for i in rows}
        survivors = [i for i in rows if value[i] <= 1]
    else:
        value = {i: np.exp(model["ppl_a"][i] * model["ifd"][i] - model["ppl_a"][i]) for i in rows}
        survivors = [i for i in rows if value[i] < 1]
    count = round(ratio * len(rows))
    return None if count > len(survivors) else slow_highest(survivors, value, count)


def slow_ranked(method, rows, strong, weak, ratio, bins, size=round, own=False):
    """The rules over RMI ranks of one or two models."""
    count = size(ratio * len(rows))
    stratum = slow_strata(rows, strong["ppl_q"], bins)
    first = slow_ranks(rows, strong["rmi"], stratum)
    if method == "rmi_top":
        return slow_highest(rows, first, count)
    if method == "rmi_bottom":
        return sorted(ordered(rows, first)[:count])
    if method == "rmi_band":
        return slow_around(rows, first, count, 0.625)
    if own:
        stratum = slow_strata(rows, weak["ppl_q"], bins)
    second = slow_ranks(rows, weak["rmi"], stratum)
    sign = -1 if method.startswith("diff") else 1
    value = {i: round(first[i] + sign * second[i], 12) for i in rows}
    if method.endswith("high"):
        return slow_highest(rows, value, count)
    return sorted(ordered(rows, value)[:count])


def slow_reference(method, strong, weak, ratio, bins):
    """Row numbers that the rule keeps, or None where it must refuse."""
    if method == "ifd_superfiltering":
        return slow_ifd(method, scored(weak), weak, ratio)
    rows = scored(strong)
    if method == "ifd_cherry":
        return slow_ifd(method, rows, strong, ratio)
    if method.startswith(("longest", "perplexity")):
        return slow_simple(method, rows, strong, ratio)
    if method.startswith(("diff", "sum")):
        rows = [i for i in rows if weak["rmi"][i] is not None]
    return slow_ranked(method, rows, strong, weak, ratio, bins)


@pytest.mark.parametrize("method", SCORE_RULES)
@few
@given(data=tables(), ratio=st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]), bins=st.integers(1, 5))
def test_a_rule_keeps_the_rows_of_its_slow_reference(make, method, data, ratio, bins):
    n, strong, weak = data
    pool = make.pool(n, weak=weak, **strong)
    fields = {"bins": bins} if method.startswith(("rmi", "diff", "sum")) else {}
    expected = slow_reference(method, strong, weak, ratio, bins)
    if not expected:
        with pytest.raises(UserError):
            select(rule(method, **fields), pool, ratio=ratio)
        return
    decision = select(rule(method, **fields), pool, ratio=ratio)
    assert make.kept(decision) == expected


@pytest.mark.parametrize("method", ["diff_high", "diff_low", "sum_high", "sum_low"])
@few
@given(data=tables(), ratio=st.sampled_from([0.15, 0.29, 0.5, 0.75]), bins=st.integers(1, 4))
def test_each_model_may_have_its_own_strata_and_the_size_be_rounded_down(
    make, method, data, ratio, bins
):
    n, strong, weak = data
    rows = [i for i in scored(strong) if weak["rmi"][i] is not None]
    expected = slow_ranked(method, rows, strong, weak, ratio, bins, size=int, own=True)
    config = rule(method, bins=bins, strata="own", rounding="down")
    pool = make.pool(n, weak=weak, **strong)
    if not expected:
        with pytest.raises(UserError):
            select(config, pool, ratio=ratio)
        return
    assert make.kept(select(config, pool, ratio=ratio)) == expected


@few
@given(data=tables(), ratio=st.sampled_from([0.15, 0.29, 0.5]))
def test_the_published_sizes_of_ifd_are_those_of_their_scripts(make, data, ratio):
    """int(survivors x rate) by data_by_IFD.py, int(rows x rate) by select_data.py."""
    n, strong, weak = data
    pool = make.pool(n, weak=weak, **strong)
    under = [i for i in scored(strong) if strong["ifd"][i] <= 1]
    small = {i: np.exp(weak["ppl_a"][i] * (weak["ifd"][i] - 1)) for i in scored(weak)}
    below = [i for i in small if small[i] < 1]
    cases = [
        ("ifd_cherry", "survivors", under, strong["ifd"], int(len(under) * ratio)),
        ("ifd_superfiltering", "pool", below, small, int(n * ratio)),
    ]
    for method, share_of, rows, value, count in cases:
        config = rule(method, share_of=share_of, rounding="down")
        if not 0 < count <= len(rows):
            with pytest.raises(UserError):
                select(config, pool, ratio=ratio)
        else:
            kept = make.kept(select(config, pool, ratio=ratio))
            assert kept == slow_highest(rows, value, count)


@pytest.mark.parametrize("method", SCORE_RULES)
@few
@given(data=tables())
def test_a_row_without_a_score_is_never_kept_and_says_why(make, method, data):
    n, strong, weak = data
    why = ["no room for the question" if r is None else None for r in strong["rmi"]]
    why_weak = ["weak says so" if r is None else None for r in weak["rmi"]]
    pool = make.pool(n, weak=weak | {"reasons": why_weak}, **strong, reasons=why)
    try:
        decision = select(rule(method), pool, ratio=0.5)
    except UserError:
        return
    needs = rule(method).needs
    for i, reason in enumerate(make.reasons(decision)):
        if "strong" in needs and strong["rmi"][i] is None:
            assert reason == "no score: no room for the question"
        elif "weak" in needs and weak["rmi"][i] is None:
            assert reason == "no score: weak says so"
        else:
            assert not reason.startswith("no score")


@few
@given(data=tables(), bins=st.integers(1, 5))
def test_the_four_quarter_bands_part_the_scored_rows(make, data, bins):
    n, strong, _ = data
    pool = make.pool(n, **strong)
    seen = []
    for low in (0.0, 0.25, 0.5, 0.75):
        try:
            band = select(rule("rmi_band", low=low, high=low + 0.25, bins=bins), pool)
        except UserError:  # the quarter is empty in a tiny pool
            continue
        seen += make.kept(band)
    assert sorted(seen) == scored(strong)


@few
@given(data=tables(), ratio=st.floats(0.05, 1), center=st.floats(0, 1))
def test_a_band_around_a_center_has_exactly_the_size_asked_for(make, data, ratio, center):
    n, strong, _ = data
    rows = scored(strong)
    if round(ratio * len(rows)) == 0:
        return
    decision = select(rule("rmi_band", center=center), make.pool(n, **strong), ratio=ratio)
    assert decision.kept.sum() == round(ratio * len(rows))
    assert decision.selectable == len(rows)
    ranks = decision.rank[decision.kept]
    dropped = decision.rank[~decision.kept & ~np.isnan(decision.rank)]
    assert not ((dropped > ranks.min()) & (dropped < ranks.max())).any()


@pytest.mark.parametrize("method", ["rmi_top", "rmi_bottom", "rmi_band", "diff_high", "sum_low"])
@few
@given(data=tables())
def test_a_growing_transform_of_a_score_keeps_rank_based_results(make, method, data):
    n, strong, weak = data
    stretched = strong | {"rmi": [None if r is None else (2 * r) ** 3 for r in strong["rmi"]]}
    outcomes = []
    for one in (strong, stretched):
        try:
            outcomes.append(
                make.kept(select(rule(method), make.pool(n, weak=weak, **one), ratio=0.5))
            )
        except UserError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("method", SCORE_RULES)
def test_one_row_is_kept_when_all_are_asked_for(make, method):
    model = {"rmi": [1.0], "ppl_q": [3.0], "ifd": [0.5]}
    decision = select(rule(method), make.pool(1, weak=model, **model), ratio=1.0)
    assert make.kept(decision) == [0]


@pytest.mark.parametrize("method", SCORE_RULES)
def test_equal_scores_are_taken_in_the_order_of_the_row_ids(make, method):
    model = {"rmi": [1.0] * 8}
    decision = select(rule(method), make.pool(8, weak=model, **model), ratio=0.25)
    first = 4 if method == "rmi_band" else 3 if method == "perplexity_middle" else 0
    assert make.kept(decision) == [first, first + 1]


# --- full and random ---


def test_full_keeps_every_row_scored_or_not(make):
    decision = select(rule("full"), make.pool(3, rmi=[1.0, None, 2.0]))
    assert decision.kept.all()
    assert decision.counts() == {"kept: every row": 3}


def test_random_is_the_same_on_every_platform(make):
    # Computed once by hand-written splitmix64 in plain integers, below.
    pool = make.pool(50)
    kept = select(rule("random"), pool, ratio=0.2, seed=7).kept
    numbers = [slow_mix(int(key) ^ slow_mix(7)) for key in pool.keys]
    assert set(np.flatnonzero(kept)) == set(sorted(range(50), key=lambda i: -numbers[i])[:10])


def slow_mix(number):
    mask = 2**64 - 1
    number = (number + 0x9E3779B97F4A7C15) & mask
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & mask
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & mask
    return number ^ (number >> 31)


def test_splitmix_gives_its_published_first_outputs():
    # Vigna's reference implementation, seed 1234567.
    state, golden = 1234567, 0x9E3779B97F4A7C15
    outputs = [slow_mix((state + i * golden) & (2**64 - 1)) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_random_seeds_are_independent_and_uniform(make):
    pool = make.pool(2000)
    draws = np.array([select(rule("random"), pool, ratio=0.25, seed=s).kept for s in range(200)])
    assert (draws.sum(axis=1) == 500).all()
    # Each row is kept in a quarter of 200 draws: mean 50, standard deviation 6.1.
    per_row = draws.sum(axis=0)
    assert abs(per_row.std() - 6.12) < 0.5
    assert np.abs(per_row - 50).max() < 6.12 * 5
    both = (draws[0] & draws[1]).sum()
    assert abs(both - 125) < 5 * 9.0


def test_a_larger_random_draw_holds_the_smaller_one(make):
    pool = make.pool(100)
    small = select(rule("random"), pool, ratio=0.1, seed=3).kept
    large = select(rule("random"), pool, ratio=0.6, seed=3).kept
    assert (large | ~small).all()


# --- sizes ---


def test_asking_for_more_than_survives_names_the_numbers(make):
    pool = make.pool(10, ifd=[0.5] * 4 + [1.5] * 6)
    with pytest.raises(UserError, match=r"asked for 5 rows \(ratio 0.5 of 10\), but only 4"):
        select(rule("ifd_cherry"), pool, ratio=0.5)


@given(rows=st.integers(1, 10**6), data=st.data())
def test_the_ratio_that_a_refusal_names_can_be_kept(rows, data):
    selectable = data.draw(st.integers(rows // 10_000 + 1, rows)) - 1
    for rounding in ("nearest", "down"):
        try:
            Size(1.0, of=rows).rows(selectable, "any", rounding)
        except TooFewRows as error:
            named = float(str(error).rsplit(maxsplit=1)[1])
        assert selectable / rows - 1e-6 <= named <= selectable / rows
        assert Size(named, of=rows).rows(selectable, "any", rounding) <= selectable


def test_too_few_rows_are_told_from_every_other_fault(make):
    with pytest.raises(TooFewRows, match=r"only 0 can be selected.*no row has a score of"):
        select(rule("rmi_top"), make.pool(3, rmi=[None] * 3), count=2)
    with pytest.raises(TooFewRows, match="keeps none of 3 rows"):
        select(rule("rmi_top"), make.pool(3), ratio=0.1)
    with pytest.raises(UserError, match="give it a ratio") as found:
        select(rule("rmi_top"), make.pool(3))
    assert not isinstance(found.value, TooFewRows)


def test_a_fault_keeps_its_class_where_a_span_without_scores_may_be_its_cause(make):
    pool = make.pool(3, rmi=[None] * 3)
    queries = np.zeros((1, 2), np.float32)
    vectors = Embeddings(np.ones((3, 2), np.float32), np.arange(3), queries)
    with pytest.raises(DataError, match=r"1 of 1 queries have an embedding.*no row has a score"):
        select(rule("rds_plus"), replace(pool, embeddings=vectors), ratio=0.5)


def test_cherry_can_count_the_share_among_the_survivors(make):
    pool = make.pool(10, ifd=[0.5, 0.6, 0.7, 0.8] + [1.5] * 6)
    decision = select(rule("ifd_cherry", share_of="survivors"), pool, ratio=0.5)
    assert make.kept(decision) == [2, 3]
    assert decision.selectable == 4
    assert decision.counts() == {"dropped: IFD above 1": 6, "dropped: lower": 2, "kept: highest": 2}


def test_cherry_keeps_an_ifd_of_exactly_one_and_superfiltering_does_not(make):
    pool = make.pool(2, ifd=[1.0, 0.5], weak={"ifd": [1.0, 0.5]})
    assert make.kept(select(rule("ifd_cherry"), pool, ratio=0.5)) == [0]
    assert make.kept(select(rule("ifd_superfiltering"), pool, ratio=0.5)) == [1]


def test_a_ratio_that_keeps_nothing_is_refused(make):
    with pytest.raises(UserError, match="keeps none of 3 rows"):
        select(rule("rmi_top"), make.pool(3), ratio=0.1)


def test_a_pool_without_any_score_is_refused(make):
    with pytest.raises(UserError, match="keeps none of 3 rows, 0 of which can be selected"):
        select(rule("rmi_band"), make.pool(3, rmi=[None] * 3), ratio=0.5)


def test_a_rule_that_keeps_a_share_wants_a_ratio(make):
    with pytest.raises(UserError, match="give it a ratio"):
        select(rule("rmi_top"), make.pool(3))


# --- worked by hand ---


def test_stratified_ranks_by_hand(make):
    # Two bins of PPL(Q): rows 0-3 (low) and 4-7 (high); RMI is ranked inside each.
    pool = make.pool(
        8,
        ppl_q=[1, 1.1, 1.2, 1.3, 5, 5.1, 5.2, 5.3],
        rmi=[0.4, 0.1, 0.2, 0.3, 4.0, 1.0, 2.0, 3.0],
    )
    decision = select(rule("rmi_top", bins=2), pool, ratio=0.25)
    assert decision.stratum.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert decision.rank.tolist() == [0.875, 0.125, 0.375, 0.625] * 2
    assert make.kept(decision) == [0, 4]
    # With one bin the ranks are global: the high-PPL rows win.
    assert make.kept(select(rule("rmi_top", bins=1), pool, ratio=0.25)) == [4, 7]


def test_the_band_by_hand(make):
    # Sixteen rows, one bin: positions 8 to 11 of 0 to 15 are the third quarter.
    pool = make.pool(16, rmi=[float(i) for i in range(16)])
    decision = select(rule("rmi_band", bins=1), pool, ratio=0.25)
    assert make.kept(decision) == [8, 9, 10, 11]
    assert decision.counts() == {
        "dropped: below the band": 8,
        "dropped: above the band": 4,
        "kept: in the band": 4,
    }
    fixed = select(rule("rmi_band", bins=1, low=0.5, high=0.75), pool)
    assert make.kept(fixed) == [8, 9, 10, 11]


@pytest.mark.parametrize("n", range(10, 40))
def test_the_middle_of_a_small_pool_holds_neither_end_of_rmi(make, n):
    rng = np.random.default_rng(n)
    for _ in range(5):
        rmi, ppl_q = rng.normal(size=n).tolist(), rng.uniform(1, 5, n).tolist()
        pool = make.pool(n, rmi=rmi, ppl_q=ppl_q)
        decision = select(rule("rmi_band", center=0.5), pool, ratio=0.25)
        ends = {int(np.argmin(rmi)), int(np.argmax(rmi))}
        assert not ends & set(make.kept(decision))
        assert decision.kept.sum() == round(n / 4)


def test_global_ranks_keep_the_rows_that_the_authors_script_ranks(make):
    # A span without tokens counts as log PPL = 0 there, though such a question has no perplexity.
    table = make.scores(make.ids(8), rmi=[float(i) for i in range(8)]).to_pylist()
    table[7] |= {"nll_q": 0.0, "tokens_q": 0, "nll_q_given_a": 2.5, "tokens_q_given_a": 5}
    ids = pa.table({"row_id": make.ids(8)})
    pool, _ = build_pool(ids, {"strong": pa.Table.from_pylist(table, schema=SCORES)})
    config = rule("rmi_band", bins=1, metric="rmi_authors", low=0.0, high=0.25)
    decision = select(config, pool)
    assert decision.score[7] == -0.5 and decision.selectable == 8
    assert make.kept(decision) == [0, 7]
    assert make.kept(select(rule("rmi_bottom", bins=1), pool, ratio=0.25)) == [0, 1]


def test_a_band_that_would_reach_beyond_the_end_is_pushed_back(make):
    pool = make.pool(10, rmi=[float(i) for i in range(10)])
    high = select(rule("rmi_band", bins=1, center=1.0), pool, ratio=0.3)
    low = select(rule("rmi_band", bins=1, center=0.0), pool, ratio=0.3)
    assert (make.kept(high), make.kept(low)) == ([7, 8, 9], [0, 1, 2])


def test_a_threshold_keeps_what_lies_strictly_above_it_and_ignores_the_ratio(make):
    # Ten rows, global ranks 0.05, 0.15, ...: row i is i/10 + 0.05 for the strong model. The weak
    # model has rows 0 and 1 swapped (Diff -0.1, +0.1) and rows 2 and 4 swapped (-0.2, +0.2).
    strong = [float(i) for i in range(10)]
    weak = [1.0, 0.0, 4.0, 3.0, 2.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    pool = make.pool(10, rmi=strong, weak={"rmi": weak})
    config = rule("diff_high", cut="threshold", ranks="global")
    decision = select(config, pool)
    assert decision.score.tolist() == [-0.1, 0.1, -0.2, 0, 0.2, 0, 0, 0, 0, 0]
    assert make.kept(decision) == [4]  # 0.1 is not above 0.1
    assert not config.uses_ratio
    low = select(rule("diff_low", cut="threshold", ranks="global"), pool)
    assert make.kept(low) == [2]


def test_the_sum_is_cut_around_one(make):
    rmi = [float(i) for i in range(5)]  # ranks 0.1, 0.3, 0.5, 0.7, 0.9; sums twice that
    pool = make.pool(5, rmi=rmi, weak={"rmi": rmi})
    high = select(rule("sum_high", cut="threshold", threshold=0.4, ranks="global"), pool)
    low = select(rule("sum_low", cut="threshold", threshold=0.4, ranks="global"), pool)
    assert (make.kept(high), make.kept(low)) == ([4], [0])


def test_a_rule_needs_both_models_to_have_scored_a_row(make):
    pool = make.pool(4, rmi=[1.0, 2.0, 3.0, None], weak={"rmi": [None, 1.0, 2.0, 3.0]})
    decision = select(rule("diff_high"), pool, ratio=0.5)
    assert decision.selectable == 2
    assert make.reasons(decision)[0] == make.reasons(decision)[3]
    assert make.reasons(decision)[0] == "no score: not a finite number"
