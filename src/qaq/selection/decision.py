"""What a rule says of every row of the pool, and how many rows it may keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qaq.host.errors import UserError
from qaq.selection.pool import Pool
from qaq.selection.ranks import NO_STRATUM, FloatArray, IntArray, Mask, Strata
from qaq.store.tables import SUBSET

T = TypeVar("T", bound=np.generic)
Rounding = Literal["nearest", "down"]  # of the rows; published scripts write int(n * ratio)
Labels = npt.NDArray[np.int32]

KEPT = 0  # the label of kept rows; every other label is a reason to drop
UNSCORED = -1


class TooFewRows(UserError):
    """More rows are asked for than the rule can keep, or it keeps none."""


@dataclass(frozen=True)
class Size:
    """How many rows are asked for: a ratio, of the rows that can be selected unless `of` is set.

    A `count` comes before the ratio.
    """

    ratio: float | None
    of: int | None = None
    count: int | None = None

    def rows(self, selectable: int, method: str, rounding: Rounding = "nearest") -> int:
        """`round(ratio * rows)`, or `int(ratio * rows)` for `down`; never more than there are.

        Raises:
            UserError: neither is given.
            TooFewRows: more rows are asked for than can be selected.
        """
        if self.count is not None:
            if self.count > selectable:
                raise TooFewRows(
                    f"{method} was asked for {self.count} rows, but only {selectable} can be "
                    "selected; ask for at most so many"
                )
            return self.count
        if self.ratio is None:
            raise UserError(f"{method} keeps a part of the rows; give it a ratio")
        base = selectable if self.of is None else self.of
        count = round(self.ratio * base) if rounding == "nearest" else int(self.ratio * base)
        if count > selectable:
            highest = selectable * 10**6 // base / 10**6  # rounded down, so that it can be met
            raise TooFewRows(
                f"{method} was asked for {count} rows (ratio {self.ratio:g} of {base}), "
                f"but only {selectable} can be selected; lower the ratio to at most {highest:g}"
            )
        return count


@dataclass(frozen=True)
class Decision:
    """The audited table of a rule, in the order of the pool.

    `score` is what the rule ranks by (NaN = none), `rank` in [0, 1] inside the `stratum` or among
    all rows.
    `label` indexes `labels`; label 0 is that of the kept rows. `selectable` counts the rows
    that the rule could have kept.
    """

    score: FloatArray
    stratum: Strata
    rank: FloatArray
    label: Labels
    labels: tuple[str, ...]
    selectable: int

    @property
    def kept(self) -> Mask:
        """Which rows are kept."""
        return np.asarray(self.label == KEPT)

    def counts(self) -> dict[str, int]:
        """Rows by reason, most frequent first."""
        found = np.bincount(self.label, minlength=len(self.labels))
        pairs = sorted(zip(found.tolist(), self.labels, strict=True), key=lambda p: (-p[0], p[1]))
        return {label: count for count, label in pairs if count}

    def table(self, row_ids: pa.ChunkedArray) -> pa.Table:
        """The subset artifact's table (`qaq.store.tables.SUBSET`)."""
        reasons = pa.DictionaryArray.from_arrays(pa.array(self.label), pa.array(self.labels))
        stratum = pa.array(self.stratum, mask=self.stratum == NO_STRATUM)
        columns = {
            "row_id": row_ids,
            "score": pa.array(self.score, mask=np.isnan(self.score)),
            "stratum": stratum,
            "rank": pa.array(self.rank, mask=np.isnan(self.rank)),
            "kept": pa.array(self.kept),
            "reason": reasons.cast(pa.string()),
        }
        return pa.table(columns, schema=SUBSET)


def decide(
    pool: Pool,
    labels: Sequence[str],
    label: Labels,
    *,
    score: FloatArray | None = None,
    stratum: Strata | None = None,
    rank: FloatArray | None = None,
    selectable: int | None = None,
    roles: Sequence[str] = (),
) -> Decision:
    """Put a decision together; rows whose label is UNSCORED get `no score: <reason>`.

    The reason is the one in the score table of the first of `roles` that gives one.
    """
    n = len(pool)
    label = label.copy()
    unscored = np.flatnonzero(label == UNSCORED)
    names = list(labels)
    if len(unscored):
        codes, texts = _unscored_reasons(pool, unscored, roles)
        label[unscored] = codes + len(names)
        names += [f"no score: {text}" for text in texts]
    return Decision(
        score=np.full(n, np.nan) if score is None else score,
        stratum=np.full(n, NO_STRATUM, np.int32) if stratum is None else stratum,
        rank=np.full(n, np.nan) if rank is None else rank,
        label=label,
        labels=tuple(names),
        selectable=n - len(unscored) if selectable is None else selectable,
    )


def sound(decision: Any, rows: int, method: str) -> Decision:
    """What a rule decided about so many rows.

    Raises:
        UserError: it says nothing, or not of every row, or gives labels that are none.
    """
    if not isinstance(decision, Decision):
        raise UserError(
            f"{method} returned {type(decision).__name__}; a rule returns a Decision, which "
            "qaq.selection.decision.decide puts together"
        )
    kinds = {"label": "iu", "score": "iuf", "stratum": "iu", "rank": "iuf"}
    columns = {name: np.asarray(getattr(decision, name)) for name in kinds}
    for name, column in columns.items():
        if column.shape != (rows,) or column.dtype.kind not in kinds[name]:
            raise UserError(
                f"{method} decided about a pool of {rows} rows with a {name} of shape "
                f"{column.shape} and type {column.dtype}; a rule has to say of every row whether "
                f"it is kept: expected {rows} {'numbers' if 'f' in kinds[name] else 'integers'}"
            )
    label = columns["label"]
    if rows and not 0 <= label.min() <= label.max() < len(decision.labels):
        raise UserError(
            f"{method} gave labels from {label.min()} to {label.max()} for {len(decision.labels)} "
            "texts; expected places in labels, 0 for the rows that are kept (decide takes -1 for "
            "rows without a score)"
        )
    return Decision(
        score=columns["score"].astype(np.float64),
        stratum=columns["stratum"].astype(np.int32),
        rank=columns["rank"].astype(np.float64),
        label=label.astype(np.int32),
        labels=tuple(decision.labels),
        selectable=int(decision.selectable),
    )


def nested(mask: Mask, inner: Decision, labels: Sequence[str], label: Labels) -> Decision:
    """A decision about part of a pool, put into the whole.

    Args:
        mask: the rows that `inner` is about, in its order.
        inner: what was decided about them.
        labels: reasons of the rows outside `mask`, indexed by `label`.
        label: one per row of the whole pool; read only outside `mask`.
    """

    def whole(values: npt.NDArray[T], empty: float) -> npt.NDArray[T]:
        out = np.full(len(mask), empty, values.dtype)
        out[mask] = values
        return out

    return Decision(
        score=whole(inner.score, np.nan),
        stratum=whole(inner.stratum, NO_STRATUM),
        rank=whole(inner.rank, np.nan),
        label=np.where(mask, whole(inner.label, 0), label + len(inner.labels)).astype(np.int32),
        labels=(*inner.labels, *labels),
        selectable=inner.selectable,
    )


def _unscored_reasons(
    pool: Pool, rows: IntArray, roles: Sequence[str]
) -> tuple[npt.NDArray[np.int32], list[str]]:
    texts = ["not a finite number"]
    codes = np.zeros(len(rows), np.int32)
    for role in [role for role in roles if role in pool.scores]:
        theirs, names = pool.scores[role].reasons()
        texts += [name for name in names if name not in texts]
        place = {text: i for i, text in enumerate(texts)}
        index = np.array([place[name] for name in names] + [0], np.int32)  # the last is for -1
        codes = np.where(codes == 0, index[theirs[rows]], codes)
    used = np.unique(codes)
    return np.searchsorted(used, codes).astype(np.int32), [texts[i] for i in used]
