"""Values on their way out of a sample's process: packed there, unpacked where they are judged.

A pickle from hostile code is read here, so the reader knows one global name, `rebuild`, and makes
nothing but plain values: the built-in types, numpy's numbers and arrays, and a few types of the
standard library. Any other object arrives as `Opaque`, which equals nothing: the program's own
`__eq__` stays behind. What can be iterated brings its items, since EvalPlus makes sets of the
answers to some tasks and takes a `filter` or a generator there. Instances of subclasses arrive as
what they hold, with a type that is not the built-in one, because EvalPlus's checker compares types
where it allows a tolerance.
"""

import collections
import contextlib
import datetime
import decimal
import fractions
import io
import itertools
import mmap
import numbers
import pickle
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

# Codes of pickle by which a few bytes ask for any amount of memory: a place of the memo beyond all
# others (PUT, LONG_BINPUT), a buffer whose content does not follow (BYTEARRAY8)
GREEDY = (b"p", b"r", b"\x96")
ROOM = 256 << 20  # bytes that any value may take
MOST_ITEMS = 1 << 16  # of what is iterated on the way; beyond, it is opaque
GROWTH = 64  # and for each byte of its pickle; a list of small numbers takes 36
PLAIN_DTYPES = "biufcSU"
ITEMS: dict[type, Callable[[Any], Iterable[Any]]] = {
    collections.Counter: lambda x: list(dict.items(x)),
    collections.OrderedDict: lambda x: list(collections.OrderedDict.items(x)),
    collections.defaultdict: lambda x: list(dict.items(x)),
    collections.deque: list,
    datetime.date: lambda x: [x.year, x.month, x.day],
    datetime.timedelta: lambda x: [x.days, x.seconds, x.microseconds],
    decimal.Decimal: lambda x: [str(x)],
    fractions.Fraction: lambda x: [x.numerator, x.denominator],
    range: lambda x: [x.start, x.stop, x.step],
    complex: lambda x: [x.real, x.imag],
    type({}.keys()): list,
    type({}.items()): list,
}
BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda x: bytes.__getitem__(x, slice(None)),
    list: lambda x: list(list.__iter__(x)),
    tuple: lambda x: tuple(tuple.__iter__(x)),
    set: lambda x: set(set.__iter__(x)),
    frozenset: lambda x: frozenset(frozenset.__iter__(x)),
    dict: lambda x: dict(dict.items(x)),
}


class Unreadable(Exception):
    """What came is no value that a program could have returned."""


class Opaque:
    """Stands for an object of a type that does not travel; equal to nothing, and not None."""

    __slots__ = ()


class Iterated(Opaque):
    """Stands for an iterable of a type that does not travel; equal to nothing, its items are."""

    __slots__ = ("_items",)

    def __init__(self, items: list[Any]):
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)


def pack(value: Any) -> memoryview:
    """A value as bytes; what cannot be packed at all becomes opaque. Runs beside hostile code."""
    buffer = io.BytesIO()
    try:
        _Packer(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # too deep, changed while it was read, a broken container
        return pack(object())
    return buffer.getbuffer()


def unpack(content: "bytes | bytearray | memoryview") -> Any:
    """The value, made of plain types only. Raises Unreadable: it is nothing that `pack` makes."""
    reader = _Reader(io.BytesIO(content))
    greedy = any(code in bytes(content) for code in GREEDY)
    try:
        with _bounded(ROOM + GROWTH * len(content)) if greedy else contextlib.nullcontext():
            return reader.load()
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from None


@contextlib.contextmanager
def _bounded(more: int) -> Iterator[None]:
    """At most so many bytes of address space more than now, for this process."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        _limit(_address_space(before) + more, before)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _address_space(before: tuple[int, int]) -> int:
    """What this process has, to 64 MiB: the limit below which it gets no page more.

    A judge cannot see /proc, where it stands.
    """
    low, high = 0, 1 << 47
    while high - low > 64 << 20:
        middle = (low + high) // 2
        _limit(middle, before)
        try:
            mmap.mmap(-1, mmap.PAGESIZE).close()
        except OSError:
            low = middle
        else:
            high = middle
    return high


def _limit(wanted: int, before: tuple[int, int]) -> None:
    known = [limit for limit in before if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *known]), before[1]))


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:  # noqa: PLR0911
        """How everything but the plain built-in types is packed."""
        if value is rebuild:
            return NotImplemented
        kind = type(value)
        if kind in ITEMS:
            return rebuild, (kind.__name__, ITEMS[kind](value))
        numpy = sys.modules.get("numpy")
        if numpy is not None and (isinstance(value, numpy.generic) or kind is numpy.ndarray):
            return self._array(value)
        for base, plain in BASES.items():
            if isinstance(value, base):
                return rebuild, (f"sub_{base.__name__}", plain(value))
        if isinstance(value, numbers.Integral):
            return rebuild, ("sub_int", int(value))
        if isinstance(value, numbers.Real):
            return rebuild, ("sub_float", float(value))
        return self._iterated(value)

    @staticmethod
    def _iterated(value: Any) -> Any:
        try:
            items = list(itertools.islice(value, MOST_ITEMS + 1))
        except BaseException:  # no iterable, or whatever a program's own iterator does
            return rebuild, ("opaque", None)
        many = len(items) > MOST_ITEMS
        return rebuild, ("opaque", None) if many else ("iterated", items)

    @staticmethod
    def _array(value: Any) -> Any:
        dtype = value.dtype
        if dtype.kind == "O":
            return rebuild, ("objects", (value.shape, value.ravel().tolist()))
        if dtype.kind not in PLAIN_DTYPES:
            return rebuild, ("opaque", None)
        form = "array" if value.ndim or type(value).__name__ == "ndarray" else "scalar"
        return rebuild, (form, (dtype.str, value.shape, value.tobytes()))


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The one name that a packed value may hold."""
        if (module, name) == (__name__, "rebuild"):
            return rebuild
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """No value refers to anything outside it."""
        raise pickle.UnpicklingError("it refers to something else")


def rebuild(kind: str, content: Any) -> Any:
    """A value of a kind that pickle has no code for, from plain content."""
    return _MAKERS[kind](content)


def _array(content: Any) -> Any:
    import numpy as np

    form, shape, data = content
    dtype = np.dtype(str(form))
    if dtype.kind not in PLAIN_DTYPES:
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _objects(content: Any) -> Any:
    import numpy as np

    shape, items = content
    array = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):  # one by one: numpy would take lists for rows
        array[place] = item
    return array.reshape(shape)


def _sub(base: Any) -> Callable[[Any], Any]:
    made = type(f"Sub{base.__name__.title()}", (base,), {"__slots__": ()})

    def make(content: Any) -> Any:
        if type(content) is not base:
            raise ValueError(f"{type(content).__name__} for {base.__name__}")
        return made(content)

    return make


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "Counter": lambda items: collections.Counter(dict(items)),
    "OrderedDict": collections.OrderedDict,
    "defaultdict": lambda items: collections.defaultdict(None, items),
    "deque": collections.deque,
    "date": lambda parts: datetime.date(*parts),
    "timedelta": lambda parts: datetime.timedelta(*parts),
    "Decimal": lambda parts: decimal.Decimal(*parts),
    "Fraction": lambda parts: fractions.Fraction(*parts),
    "range": lambda parts: range(*parts),
    "complex": lambda parts: complex(*parts),
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_items": lambda items: dict(items).items(),
    "array": _array,
    "scalar": lambda content: _array(content)[()],
    "objects": _objects,
    "opaque": lambda _: Opaque(),
    "iterated": Iterated,
    **{f"sub_{base.__name__}": _sub(base) for base in BASES},
}
