"""Values on their way out of a sample's process: the same, or plainly something else."""

import collections
import contextlib
import datetime
import decimal
import enum
import fractions
import itertools
import pickle
import resource
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.evaluation.judge import wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(), max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip


def carried(value: Any) -> Any:
    return wire.unpack(wire.pack(value))


@given(VALUES)
def test_a_plain_value_arrives_as_it_was(value: Any) -> None:
    found = carried(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        collections.Counter("aab"), collections.deque([1, 2]), collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]), range(1, 9, 2), decimal.Decimal("0.10"),
        fractions.Fraction(1, 3), datetime.date(2026, 1, 2), datetime.timedelta(days=1, seconds=2),
        {"a": 1}.keys(), {"a": 1}.items(), 10**5000, np.int64(3), np.float32(0.1), np.bool_(True),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_of_a_known_type_arrives_as_one(value: Any) -> None:
    found = carried([value])[0]
    assert found == value
    assert type(found) is type(value)


def test_arrays_keep_their_numbers_type_and_shape() -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.array([1 + 2j]), np.array(["a", "bc"])):
        found = carried(array)
        assert (found == array).all() and found.dtype == array.dtype
    objects = carried(np.array([1, None, [2]], dtype=object))
    assert objects.tolist() == [1, None, [2]]
    assert carried(np.array(10**30)) == 10**30 and carried(np.array(None)) == None  # noqa: E711


class Equal:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class EqualNumber(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Colour(enum.IntEnum):
    RED = 3


def test_what_a_program_says_of_equality_stays_behind() -> None:
    assert carried(Equal()) != 1 and carried([Equal()]) != [1]
    assert carried(EqualNumber(5)) == 5 and carried(EqualNumber(5)) != 6


def test_an_instance_of_a_subclass_is_what_it_holds_and_not_of_the_builtin_type() -> None:
    pair = collections.namedtuple("pair", "a b")(1, 2)
    for value, plain in ((Colour.RED, 3), (pair, (1, 2)), (type("L", (list,), {})([1]), [1])):
        found = carried(value)
        assert found == plain and type(found) is not type(plain)


def test_other_objects_are_there_and_equal_nothing() -> None:
    for value in (object(), iter([1]), (i for i in "a"), print, int, Equal):
        found = carried(value)
        assert found is not None and found != value and found != carried(value)


class Endless:
    def __iter__(self) -> Any:
        return itertools.repeat(1)


class Leaving:
    def __iter__(self) -> Any:
        yield 1
        raise SystemExit


@pytest.mark.parametrize(
    "value",
    [
        filter(None, [1, 2, 0]), map(abs, [-1, -2]), (x for x in (1, 2)), {"a": 1, "b": 2}.values(),
        reversed([2, 1]), itertools.chain([1], [2]), iter([1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_can_be_iterated_brings_its_items_as_often_as_they_are_asked_for(value: Any) -> None:
    found = carried(value)
    assert set(found) == set(found) == {1, 2} and found != [1, 2]
    assert isinstance(found, wire.Opaque)


def test_items_without_end_or_that_end_the_program_do_not_come() -> None:
    for value in (Endless(), Leaving(), iter(range(wire.MOST_ITEMS + 1))):
        assert type(carried(value)) is wire.Opaque
    assert len(list(carried(iter(range(wire.MOST_ITEMS))))) == wire.MOST_ITEMS
    (pair,) = carried(zip([Equal()], [3], strict=True))
    assert pair[0] != 3 and pair[1] == 3


def test_what_is_too_deep_to_pack_is_something_else() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert isinstance(carried(deep), wire.Opaque)


def test_nothing_but_plain_values_can_be_read() -> None:
    for value in (print, wire.Opaque, np.dtype, Equal()):
        with pytest.raises(wire.Unreadable):
            wire.unpack(pickle.dumps(value))


@pytest.mark.parametrize(
    "content",
    [
        b"K\x01r\xff\xff\xff\x7f.",  # LONG_BINPUT: the two thousand millionth place of the memo
        b"K\x01p2000000000\n.",  # PUT
        b"\x96" + (1 << 40).to_bytes(8, "little") + b".",  # BYTEARRAY8 of a terabyte
        b"\x8e" + (1 << 40).to_bytes(8, "little") + b".",  # BINBYTES8
        b"\x8b\xff\xff\xff\x7f.",  # LONG4
    ],
)
def test_a_few_bytes_cannot_ask_for_all_memory(content: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(wire.Unreadable):
        wire.unpack(b"\x80\x05" + content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_a_large_value_still_arrives() -> None:
    value = list(range(2_000_000))
    assert wire.unpack(wire.pack(value)) == value
    short = [()] * 3_000_000
    assert wire.unpack(wire.pack(short)) == short


@given(st.binary(max_size=64))
def test_nonsense_is_unreadable_or_plain(content: bytes) -> None:
    with contextlib.suppress(wire.Unreadable):
        wire.unpack(b"\x80\x05" + content)
