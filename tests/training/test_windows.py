"""The order of rows, and how a window is shared out."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from qaq.training.config import ShareRecipe, TrainConfig
from qaq.training.windows import Pool, order, pieces_for, plan, seed_for, shard

ROWS = [f"{i:016x}" for i in range(21)]


def config(**changes: object) -> TrainConfig:
    return TrainConfig(
        **({"name": "t", "batch_size": 4, "learning_rate": 1, "epochs": 3} | changes)
    )  # type: ignore[arg-type]


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 3), st.integers(0, 99))
def test_every_epoch_has_every_row_once_in_whole_windows(
    rows: int, batch: int, epochs: int, seed: int
) -> None:
    ids = names(rows)
    windows = plan(ids, [1] * rows, config(batch_size=batch, epochs=epochs), 1, seed, Pool(rows, 0))
    assert [w.step for w in windows] == list(range(1, len(windows) + 1))
    for epoch in range(epochs):
        mine = [w.rows for w in windows if w.epoch == epoch]
        assert sorted(row for window in mine for row in window) == list(range(rows))
        assert all(len(window) == batch for window in mine[:-1])
        assert len(mine[-1]) == (rows % batch or batch)


def test_no_rows_make_no_windows() -> None:
    assert plan([], [], config(match="steps"), 1, 0, Pool(10, 10)) == []


def names(count: int) -> list[str]:
    return [f"{i:016x}" for i in range(count)]


def test_the_order_follows_the_rows_and_not_their_place_in_the_table() -> None:
    backwards = ROWS[::-1]
    forward_names = [ROWS[i] for i in order(ROWS, 0, 7)]
    assert [backwards[i] for i in order(backwards, 0, 7)] == forward_names


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {tuple(order(ROWS, epoch, seed)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9
    assert seed_for("order", 1) != seed_for("init", 1) != seed_for("order", 2)


def test_a_part_of_an_epoch_is_a_part_of_its_steps() -> None:
    assert len(plan(ROWS, [1] * 21, config(epochs=0.5), 1, 0, Pool(21, 21))) == 3
    assert len(plan(ROWS, [1] * 21, config(epochs=1.5), 1, 0, Pool(21, 21))) == 9


def test_match_steps_takes_the_steps_of_the_whole_pool() -> None:
    """84 rows in the pool: 3 epochs of 21 steps, also for the 21 rows that were kept."""
    windows = plan(ROWS, [1] * 21, config(match="steps"), 0.25, 0, Pool(84, 84))
    assert len(windows) == 63
    seen = Counter(row for w in windows for row in w.rows)
    assert set(seen) == set(range(21))
    assert max(seen.values()) - min(seen.values()) <= 1


def test_match_tokens_stops_once_the_tokens_of_the_pool_are_seen() -> None:
    lengths = [10 + i for i in range(21)]
    windows = plan(ROWS, lengths, config(match="tokens", epochs=1), 0.25, 0, Pool(84, 1700))
    tokens = [sum(lengths[row] for row in w.rows) for w in windows]
    assert sum(tokens) >= 1700 > sum(tokens[:-1])


def test_matching_changes_nothing_when_the_whole_pool_is_kept() -> None:
    lengths = [5] * 21
    plans = [
        plan(ROWS, lengths, config(match=match), 1, 3, Pool(21, 105))
        for match in ("epochs", "steps", "tokens")
    ]
    assert plans[0] == plans[1] == plans[2]


def test_the_recipe_is_the_smallest_listed_share_that_holds_the_arm() -> None:
    paper = config(
        batch_size=512,
        learning_rate=1.2e-4,
        by_share=(
            ShareRecipe(share=0.5, batch_size=256, learning_rate=0.8e-4),
            ShareRecipe(share=0.25, batch_size=128, learning_rate=0.4e-4),
        ),
    )
    assert [paper.recipe(s).batch_size for s in (1, 0.6, 0.5, 0.3, 0.25, 0.1)] == [
        512,
        512,
        256,
        256,
        128,
        128,
    ]


@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(1, 9),
)
def test_dealing_a_window_out_loses_and_doubles_nothing(
    lengths: list[int], processes: int, pieces: int
) -> None:
    sharded = shard(range(len(lengths)), lengths, processes, pieces)
    assert [len(mine) for mine in sharded] == [pieces] * processes
    flat = [row for mine in sharded for piece in mine for row in piece]
    assert sorted(flat) == list(range(len(lengths)))
    loads = [sum(lengths[row] for row in piece) for mine in sharded for piece in mine]
    assert max(loads) - min(loads) <= max(lengths)


def test_micro_batches_follow_the_rows_or_the_token_budget() -> None:
    lengths = [100] * 8
    assert pieces_for(range(8), lengths, 1, 8, 1) == 1
    assert pieces_for(range(8), lengths, 1, 1, 1) == 8
    assert pieces_for(range(8), lengths, 2, 3, 1) == 2
    assert pieces_for(range(8), lengths, 1, None, 400) == 2
    assert pieces_for(range(8), lengths, 2, None, 400) == 1
