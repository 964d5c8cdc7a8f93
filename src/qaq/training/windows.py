"""Which rows make up each optimiser step, and who computes them.

A *window* is the rows of one step. The order is a pure function of the rows and a seed; neither
the micro-batch nor the number of processes has a say in it. A window is then sharded over
processes and micro-batches, which changes where a gradient is summed and not what it is.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from qaq.training.config import TrainConfig


@dataclass(frozen=True)
class Window:
    """The rows of one optimiser step: positions in the list of examples, in seeded order."""

    step: int
    epoch: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """Size of the whole pool, for recipes that match its compute."""

    rows: int
    tokens: int


def seed_for(purpose: str, seed: int) -> int:
    """The seed of one purpose (order, init), 31 bits, so that no two purposes share a stream."""
    return int(hashlib.sha256(f"{purpose}/{seed}".encode()).hexdigest()[:8], 16) >> 1


def order(row_ids: Sequence[str], epoch: int, seed: int) -> list[int]:
    """Positions of the rows in the order of one epoch.

    Sorted by SHA-256 of seed, epoch and row: independent of the table's order and of any
    library's generator.
    """

    def place(position: int) -> str:
        return hashlib.sha256(f"{seed}/{epoch}/{row_ids[position]}".encode()).hexdigest()

    return sorted(range(len(row_ids)), key=place)


def plan(
    row_ids: Sequence[str],
    lengths: Sequence[int],
    config: TrainConfig,
    share: float,
    seed: int,
    pool: Pool,
) -> list[Window]:
    """All windows of a run.

    The last window of an epoch may be smaller; no window spans two epochs. For `match=steps` the
    steps are those of the whole pool under the recipe of share 1; for `match=tokens` windows are
    added until the pool's tokens times `epochs` have been seen.
    """
    batch = config.recipe(share).batch_size
    per_epoch = math.ceil(len(row_ids) / batch)
    steps = {
        "epochs": math.ceil(config.epochs * per_epoch),
        "steps": math.ceil(config.epochs * math.ceil(pool.rows / config.recipe(1).batch_size)),
        "tokens": None,
    }[config.match]
    wanted = config.epochs * pool.tokens
    windows: list[Window] = []
    tokens = epoch = 0
    while row_ids:
        shuffled = order(row_ids, epoch, seed)
        for start in range(0, len(shuffled), batch):
            done = tokens >= wanted if steps is None else len(windows) >= steps
            if done:
                return windows
            rows = tuple(shuffled[start : start + batch])
            windows.append(Window(len(windows) + 1, epoch, rows))
            tokens += sum(lengths[row] for row in rows)
        epoch += 1
    return windows


def shard(
    rows: Sequence[int], lengths: Sequence[int], processes: int, pieces: int
) -> list[list[list[int]]]:
    """Share a window out: for each process, `pieces` micro-batches of nearly equal token counts.

    The longest row goes to the emptiest micro-batch first, rows of one length in the window's
    order. Every process gets the same number of
    micro-batches, because sharded models must run their passes together; a micro-batch may be
    empty when there are fewer rows than micro-batches.
    """
    bins: list[list[int]] = [[] for _ in range(processes * pieces)]
    loads = [0] * len(bins)
    for row in sorted(rows, key=lambda r: -lengths[r]):
        target = loads.index(min(loads))
        bins[target].append(row)
        loads[target] += lengths[row]
    return [bins[process::processes] for process in range(processes)]


def pieces_for(
    rows: Sequence[int],
    lengths: Sequence[int],
    processes: int,
    micro_batch: int | None,
    token_budget: int,
) -> int:
    """Micro-batches per process: by rows where `micro_batch` is set, else by tokens."""
    if micro_batch is not None:
        return max(1, math.ceil(len(rows) / (processes * micro_batch)))
    tokens = sum(lengths[row] for row in rows)
    return max(1, math.ceil(tokens / (processes * token_budget)))
