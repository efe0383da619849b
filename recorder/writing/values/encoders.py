"""Fast encoding of adds with the same keys as an earlier add.

An encoder declines values that it may not handle; then event_queue.py converts them the slow way,
which raises the errors.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from flexrec.recorder.events import Array, is_tensor
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.writing.values.accelerator import (
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
    """The data of an event that is not in its bytes.

    Attributes:
        blobs: the event's arrays in order, if they are not joined.
        slabs: the slabs of the copied arrays.
        waiting: numbers on an accelerator, and their slots in the event.
    """

    blobs: Sequence[Blob] = ()
    slabs: Sequence[Slab | None] = ()
    waiting: Sequence[Numbers] = ()


Queued: TypeAlias = tuple[int, bytes, bytes, int, Held | None]
"""A queued event: the number of its signature (or the code of a mark); its step, time and slots,
packed; its small arrays, joined; the bytes of all its arrays; and its other data. Offsets of arrays
are relative to the event's first array."""

_TOP = struct.Struct("<qd")
RECORD_BYTES = 2 << 20  # bytes of records of one kind at which the writer is woken
_PLAIN = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bBhHiIqQlLefd")})
_Array = np.ndarray
_Form = tuple[tuple[int, ...], Any]
_NUMBER: _Form = ((), None)
_NOTHING: _Form = ((), "what no part has")
_UNPACKABLE = (struct.error, OverflowError, TypeError)


def _record_of(slots: int) -> struct.Struct:
    return struct.Struct(f"{_TOP.format}{slots}d")


def pack_record(step: int, time: float, slots: Sequence[float]) -> bytes:
    """Pack the record of an event: step, time, slots."""
    return _record_of(len(slots)).pack(step, time, *slots)


class Encoder(ABC):
    """Encodes adds of the same keys.

    Attributes:
        number: the number of their signature.
        pack: makes a record from step, time and slots.
        plenty: the number of these events at which the writer is woken.
        is_quick: whether all values so far were Python numbers or 0-d CPU tensors; `read` converts
            them to Python numbers (None if they are Python numbers already).
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
        """Encode an event; None if the encoder declines it."""

    def slow_down(self) -> None:  # noqa: B027 - other encoders are not quick
        """Handle values that `read` cannot convert."""


class NumberEncoder(Encoder):
    """Encodes adds whose values are all single numbers."""

    __slots__ = ()

    def __init__(self, number: int, values: Collection[Any]) -> None:
        super().__init__(number, len(values))
        # Summing numpy's numbers would warn on overflow.
        self.is_quick = all(map(_can_be_summed, values))
        if any(map(is_tensor, values)):
            self.read = tensor_reader() if all(map(is_tensor, values)) else read_plain

    def slow_down(self) -> None:
        """Read numbers and tensors from now on; if that is so already, stop being quick."""
        self.is_quick = self.read is not read_plain
        self.read = read_plain

    def encode(self, step: int, time: float, values: Collection[Any]) -> Queued | None:
        """Encode an event; slots of tensors on an accelerator are 0 until they are fetched."""
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
    """Encodes adds in which some values are arrays, or tuples that contain arrays."""

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
        # The indices of shared parts, each with that of its owner; and of the other parts.
        self._same = [(parts.index(part), parts.index(owner)) for part, owner in same.items()]
        self._own = [i for i, part in enumerate(parts) if part not in same]
        self._kinds = [
            (None if form.kind == fmt.NUMBER else form.dtype, form.ndim)
            for form in (forms[parts[i]] for i in self._own)
        ]
        self._last = _Last([_NOTHING, _NOTHING])

    def encode(self, step: int, time: float, values: Collection[Any]) -> Queued | None:
        """Encode an event whose arrays have the same dtypes and ranks; shapes may change."""
        last = self._last
        if self._is_pair and last.nbytes < SMALL and not last.numbers:
            # The pair (output, target) that most meters take, without a loop, which would double
            # the time.
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
        """The slots and sizes of parts; None if a part has another dtype or rank."""
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
            if 0 in part.shape:  # the other axes may be too large: the slow way checks
                return None
            last.forms.append((part.shape, part.dtype))
            last.slots += [last.nbytes, *part.shape]
            last.nbytes += part.nbytes
        last.packed = struct.pack(f"<{len(last.slots)}d", *last.slots)
        return last

    def _parts(self, values: Collection[Any]) -> Sequence[Any] | None:
        """The parts of the values, without shared ones.

        None if a tuple has another length, or if a shared part is no longer shared.
        """
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
    """The layout of the last add, reused if the next one has the same shapes and dtypes.

    Attributes:
        forms: for each part, the array's shape and dtype, or `_NUMBER`.
        slots: the slots of the record; `packed` is the same in bytes.
        numbers: for each number, its slot and the index of its part.
        nbytes: the bytes of all arrays.
    """

    forms: list[_Form] = field(default_factory=list)
    slots: list[float] = field(default_factory=list)
    packed: bytes = b""
    numbers: list[tuple[int, int]] = field(default_factory=list)
    nbytes: int = 0


def _can_be_summed(value: object) -> bool:
    return type(value) in (float, int, bool) or is_tensor(value)


def _are(parts: Sequence[Any], forms: list[_Form]) -> bool:
    """Whether the parts are arrays of these shapes and dtypes, or numbers, as `forms` say."""
    for part, (shape, dtype) in zip(parts, forms):  # noqa: B905 - equal lengths, or _NOTHING
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
