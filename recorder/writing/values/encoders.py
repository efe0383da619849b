"""From the values of an add to a queued event, quickly, where an earlier add had the same keys.

An encoder declines what it cannot take, or is not sure of; then the slow way, which is the one that
raises, is event_queue.py's.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from flexrec.recorder.events import Array, is_tensor
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.writing.accelerator import (
    Numbers,
    OnDevice,
    Read,
    as_plain,
    gathered,
    is_elsewhere,
    read_plain,
    tensor_reader,
)
from flexrec.recorder.writing.values.copies import SMALL, Copier, Slab
from flexrec.recorder.writing.values.shared_arrays import Part

Blob = bytes | Array | OnDevice


class Held(NamedTuple):
    """What an event has that is not in its bytes.

    Attributes:
        blobs: its arrays, in order, where they are not joined.
        slabs: the memory of those that were copied into some.
        waiting: numbers that are on an accelerator, and the event's slots that they are for.
    """

    blobs: Sequence[Blob] = ()
    slabs: Sequence[Slab | None] = ()
    waiting: Sequence[Numbers] = ()


Queued: TypeAlias = tuple[int, bytes, bytes, int, Held | None]
"""An event on its way to the file: the number of its signature (of a mark, its code); step, time
and slots, packed; its small arrays, joined; how many bytes all its arrays have; and what else it
holds. Where an array lies is counted from the first of its event."""

_TOP = struct.Struct("<qd")
RECORD_BYTES = 2 << 20  # bytes of records of one kind that are worth waking the writer
_PLAIN = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bBhHiIqQlLefd")})
_Array = np.ndarray
_Form = tuple[tuple[int, ...], Any]
_NUMBER: _Form = ((), None)
_NOTHING: _Form = ((), "what no part has")
_UNPACKABLE = (struct.error, OverflowError, TypeError)


def _record_of(slots: int) -> struct.Struct:
    return struct.Struct(f"{_TOP.format}{slots}d")


def pack_record(step: int, time: float, slots: Sequence[float]) -> bytes:
    """The record of an event: its step, its time, its slots."""
    return _record_of(len(slots)).pack(step, time, *slots)


class Encoder(ABC):
    """What adds of the same keys have in common.

    Attributes:
        number: of their signature.
        pack: of step, time and the slots, makes a record.
        plenty: how many of these events are worth waking the writer.
        is_quick: whether nothing but Python's own numbers and 0-d CPU tensors came, as far as is
            known; `read` makes Python's own numbers of such values (None: they are that already).
    """

    __slots__ = ("is_quick", "number", "pack", "plenty", "read")

    def __init__(self, number: int, slots: int) -> None:
        record = _record_of(slots)
        self.number, self.pack = number, record.pack
        self.plenty = RECORD_BYTES // record.size + 1
        self.is_quick = False
        self.read: Read | None = None

    @abstractmethod
    def encode(self, step: int, time: float, values: Collection[Any]) -> Queued | None:
        """The event; None: it is declined."""

    def slow_down(self) -> None:  # noqa: B027 - others are not quick
        """Values came that `read` cannot take."""


class NumberEncoder(Encoder):
    """Of adds of keys whose values are single numbers."""

    __slots__ = ()

    def __init__(self, number: int, values: Collection[Any]) -> None:
        super().__init__(number, len(values))
        # The sum of numpy's own numbers would warn where it overflows.
        self.is_quick = all(map(_can_be_summed, values))
        if any(map(is_tensor, values)):
            self.read = tensor_reader() if all(map(is_tensor, values)) else read_plain

    def slow_down(self) -> None:
        """Values came that `read` cannot take: read numbers and tensors, or decline."""
        self.is_quick = self.read is not read_plain
        self.read = read_plain

    def encode(self, step: int, time: float, values: Collection[Any]) -> Queued | None:
        """The event; slots of tensors on an accelerator are 0 for now."""
        numbers = [value if type(value) in _PLAIN else as_plain(value) for value in values]
        waiting: list[tuple[int, Any]] = []
        if not _PLAIN.issuperset(map(type, numbers)):
            for slot, value in enumerate(numbers):
                if is_elsewhere(value) and not value.ndim:
                    waiting.append((slot, value))
                    numbers[slot] = 0.0
            if not _PLAIN.issuperset(map(type, numbers)):
                return None
        try:
            record = self.pack(step, time, *numbers)
        except _UNPACKABLE:  # the slow way names the key
            return None
        return self.number, record, b"", 0, Held(waiting=gathered(waiting)) if waiting else None


class ArrayEncoder(Encoder):
    """Of adds of keys some of whose values are arrays, or tuples with arrays in them."""

    __slots__ = ("_copier", "_counts", "_is_pair", "_kinds", "_last", "_own", "_same")

    def __init__(
        self,
        number: int,
        columns: Sequence[fmt.Column],
        same: Mapping[Part, Part],
        copier: Copier,
    ) -> None:
        super().__init__(number, sum(column.slots for column in columns))
        self._copier = copier
        self._counts = [None if column.bare else len(column.forms) for column in columns]
        self._is_pair = self._counts == [2]
        parts = [(column.key, i) for column in columns for i in range(len(column.forms))]
        forms = dict(zip(parts, (form for c in columns for form in c.forms), strict=True))
        # Where among the parts of an add those are that earlier ones are, with these; and the rest.
        self._same = [(parts.index(part), parts.index(owner)) for part, owner in same.items()]
        self._own = [i for i, part in enumerate(parts) if part not in same]
        self._kinds = [
            (None if form.kind == fmt.NUMBER else form.dtype, form.ndim)
            for form in (forms[parts[i]] for i in self._own)
        ]
        self._last = _Last([_NOTHING, _NOTHING])

    def encode(self, step: int, time: float, values: Collection[Any]) -> Queued | None:
        """The event; the arrays' kinds are as before, their shapes may change."""
        last = self._last
        if self._is_pair and last.nbytes < SMALL and not last.numbers:
            # What most meters take, output and target: a loop takes as long as all of this.
            (pair,) = values
            if type(pair) is tuple and len(pair) == 2:
                a, b = pair
                if type(a) is not _Array or type(b) is not _Array:
                    a, b = pair = as_plain(a), as_plain(b)
                (shape, dtype), (shape_b, dtype_b) = last.forms
                if (
                    (type(a) is _Array and a.dtype is dtype and a.shape == shape)
                    and (type(b) is _Array and b.dtype is dtype_b and b.shape == shape_b)
                ):  # fmt: skip
                    record = _TOP.pack(step, time) + last.packed
                    return self.number, record, _joined(pair), last.nbytes, None
        parts = self._parts(values)
        if parts is None:
            return None
        if not _are(parts, last.forms):
            parts = list(map(as_plain, parts))
            if not _are(parts, last.forms):
                measured = self._measured(parts)
                if measured is None:
                    return None
                self._last = last = measured
        return self._encoded(step, time, parts, last)

    def _encoded(
        self, step: int, time: float, parts: Sequence[Any], last: "_Last"
    ) -> Queued | None:
        if last.numbers:
            slots = last.slots.copy()
            for slot, place in last.numbers:
                slots[slot] = parts[place]
            try:
                record = self.pack(step, time, *slots)
            except _UNPACKABLE:  # the slow way names the key
                return None
            parts = [part for part in parts if type(part) is _Array]
        else:
            record = _TOP.pack(step, time) + last.packed
        if last.nbytes < SMALL:
            return self.number, record, _joined(parts), last.nbytes, None
        blobs, slabs = zip(*map(self._copier.copy, parts), strict=True)
        return self.number, record, b"", last.nbytes, Held(blobs, slabs)

    def _measured(self, parts: Sequence[Any]) -> "_Last | None":
        """The slots and sizes of parts, where they are of the kinds that they should be of."""
        last = _Last()
        for place, (part, (dtype, ndim)) in enumerate(zip(parts, self._kinds, strict=True)):
            if dtype is None:
                if type(part) not in _PLAIN:
                    return None
                last.forms.append(_NUMBER)
                last.numbers.append((len(last.slots), place))
                last.slots.append(0.0)
                continue
            if type(part) is not _Array or part.dtype != dtype or part.ndim != ndim:
                return None
            if 0 in part.shape:  # which may be absurd
                return None
            last.forms.append((part.shape, part.dtype))
            last.slots += [last.nbytes, *part.shape]
            last.nbytes += part.nbytes
        last.packed = struct.pack(f"<{len(last.slots)}d", *last.slots)
        return last

    def _parts(self, values: Collection[Any]) -> Sequence[Any] | None:
        """The values and, of tuples, what is in them, where there are as many as before; without
        those that are earlier ones, where these still are."""
        parts: list[Any] = []
        for value, count in zip(values, self._counts, strict=True):
            if count is None:
                parts.append(value)
            elif (type(value) is tuple or type(value) is list) and len(value) == count:
                parts += value
            else:
                return None
        if self._same:
            for part, owner in self._same:
                if parts[part] is not parts[owner]:
                    return None
            return [parts[i] for i in self._own]
        return parts


@dataclass(slots=True)
class _Last:
    """What the parts of an add were, for the next one that has the same.

    Attributes:
        forms: of each part, the array's shape and dtype, or `_NUMBER`.
        slots: what they take in the record; `packed` is the same in bytes.
        numbers: of each number, its slot, and which part it is.
        nbytes: of all arrays.
    """

    forms: list[_Form] = field(default_factory=list)
    slots: list[float] = field(default_factory=list)
    packed: bytes = b""
    numbers: list[tuple[int, int]] = field(default_factory=list)
    nbytes: int = 0


def _can_be_summed(value: object) -> bool:
    return type(value) in (float, int, bool) or is_tensor(value)


def _are(parts: Sequence[Any], forms: list[_Form]) -> bool:
    """Whether the parts are arrays of these shapes and types, and numbers where they should be."""
    for part, (shape, dtype) in zip(parts, forms):  # noqa: B905 - there are as many, or _NOTHING
        if dtype is None:
            if type(part) not in _PLAIN:
                return False
        elif type(part) is not _Array or part.dtype is not dtype or part.shape != shape:
            return False
    return True


def _joined(arrays: Sequence[Any]) -> bytes:
    """The arrays' bytes, in C order."""
    try:
        return b"".join(arrays)  # one copy for all
    except (TypeError, BufferError):  # not contiguous
        return b"".join([array.tobytes() for array in arrays])
