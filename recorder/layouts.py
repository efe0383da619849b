"""Adds that look as an earlier one did: the quick way from values to the slots of an event.

A layout declines what it cannot take, or is not sure of; then the slow way, which is the one that
raises, is outbox.py's.
"""

import struct
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import Buffer, code_word, record_of
from flexrec.recorder.events import is_tensor
from flexrec.recorder.on_device import is_elsewhere
from flexrec.recorder.writer import SMALL

if TYPE_CHECKING:
    import torch

__all__ = ["ArrayLayout", "NumberLayout", "read"]

_PLAIN = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bBhHiIqQlLefd")})
_Array = np.ndarray
_ONE_THREAD_AT_A_TIME = getattr(sys, "_is_gil_enabled", lambda: True)()
_Form = tuple[tuple[int, ...], Any]
_NUMBER: _Form = ((), None)
_NOTHING: _Form = ((), "what no part has")
_UNPACKABLE = (struct.error, OverflowError, TypeError)


class NumberLayout:
    """Adds of keys whose values are single numbers.

    Attributes:
        word: the signature, as a buffer takes it.
        pack: of step, time and the slots, makes a record.
        is_plain: whether nothing but Python's own numbers came, as far as is known.
        is_quick: whether nothing but these and 0-d CPU tensors did, and no lock is needed.
    """

    __slots__ = ("_code", "is_plain", "is_quick", "pack", "word")

    def __init__(self, code: int, count: int) -> None:
        self._code, self.word = code, code_word(code)
        self.pack = record_of(count).pack
        self.is_plain, self.is_quick = True, _ONE_THREAD_AT_A_TIME

    def put(self, buffer: Buffer, step: int, time: float, values: Collection[Any]) -> bool:
        """Append an event; false: it is declined, not all are numbers.

        0-d CPU tensors are read here; slots of those on an accelerator are 0 for now.
        """
        waiting: list[tuple[int, torch.Tensor]] = []
        numbers = read(values)
        if not _PLAIN.issuperset(map(type, numbers)):
            for slot, value in enumerate(numbers):
                if is_elsewhere(value) and not value.ndim:
                    waiting.append((slot, value))
                    numbers[slot] = 0.0
                elif type(value) not in _PLAIN:
                    return False
        try:
            record = self.pack(step, time, *numbers)
        except _UNPACKABLE:  # the slow way names the key
            return False
        if waiting:
            buffer.append(self._code, record, waiting=waiting)
        else:
            buffer.commit(record, self.word)
        return True

    def weigh(self) -> None:
        """Numbers weigh nothing."""


class ArrayLayout:
    """Adds of keys some of whose values are arrays, or tuples with arrays in them.

    Attributes:
        word, pack, is_plain, is_quick: as of a NumberLayout.
    """

    is_plain = is_quick = False

    __slots__ = ("_code", "_counts", "_keys", "_kinds", "_last", "_weights", "pack", "word")

    def __init__(self, code: int, columns: Sequence[fmt.Column], weights: dict[str, int]) -> None:
        self._code, self.word, self._weights = code, code_word(code), weights
        self._keys = [column.key for column in columns for _ in column.forms]
        self._counts = [None if column.bare else len(column.forms) for column in columns]
        self._kinds = [
            (None if form.kind == fmt.NUMBER else form.dtype, form.ndim)
            for column in columns
            for form in column.forms
        ]
        self.pack = record_of(sum(column.slots for column in columns)).pack
        self._last = _Last([_NOTHING], [], [], [])

    def put(self, buffer: Buffer, step: int, time: float, values: Collection[Any]) -> bool:
        """Append an event; false: it is declined."""
        parts = self._parts(values)
        if parts is None:
            return False
        last = self._last
        if not _are(parts, last.forms):
            parts = [_taken(part) for part in parts]
            if not _are(parts, last.forms):
                measured = self._measured(parts)
                if measured is None:
                    return False
                self.weigh()
                self._last = last = measured
        slots, offset = last.slots, buffer.blob_base + buffer.blob_bytes
        for slot, distance in last.offsets:
            slots[slot] = offset + distance
        if last.numbers:
            for slot, place in last.numbers:
                slots[slot] = parts[place]
            parts = [part for part in parts if type(part) is _Array]
        try:
            record = self.pack(step, time, *slots)
        except _UNPACKABLE:
            return False
        if last.nbytes < SMALL:
            small = _joined(parts)
            buffer.tail += small
            buffer.blob_bytes += last.nbytes
            buffer.commit(record, self.word)
        else:
            buffer.append(self._code, record, list(map(buffer.copied, parts)), last.nbytes)
        last.count += 1
        return True

    def weigh(self) -> None:
        """Add to each key what its arrays weighed since this was asked last."""
        last = self._last
        for key, size in last.weights.items():
            self._weights[key] += size * last.count
        last.count = 0

    def _measured(self, parts: Sequence[Any]) -> "_Last | None":
        """The slots and sizes of parts, where they are of the kinds that they should be of."""
        last = _Last([], [], [], [])
        for place, (part, key, (dtype, ndim)) in enumerate(
            zip(parts, self._keys, self._kinds, strict=True)
        ):
            if dtype is None:
                if type(part) not in _PLAIN:
                    return None
                last.forms.append(_NUMBER)
                last.numbers.append((len(last.slots), place))
                last.slots.append(0.0)
                continue
            if type(part) is not _Array or part.dtype != dtype or part.ndim != ndim:
                return None
            last.forms.append((part.shape, part.dtype))
            last.offsets.append((len(last.slots), last.nbytes))
            last.slots += [0.0, *part.shape]
            last.nbytes += part.nbytes
            last.weights[key] = last.weights.get(key, 0) + part.nbytes
        return last

    def _parts(self, values: Collection[Any]) -> Sequence[Any] | None:
        """The values and, of tuples, what is in them, where there are as many as before."""
        counts = self._counts
        if len(counts) == 1 and counts[0]:
            (value,) = values
            is_same = (type(value) is tuple or type(value) is list) and len(value) == counts[0]
            return value if is_same else None
        parts: list[Any] = []
        for value, count in zip(values, counts, strict=True):
            if count is None:
                parts.append(value)
            elif (type(value) is tuple or type(value) is list) and len(value) == count:
                parts += value
            else:
                return None
        return parts


@dataclass(slots=True)
class _Last:
    """What the parts of an add were, for the next one that has the same.

    Attributes:
        forms: of each part, the array's shape and dtype, or `_NUMBER`.
        slots: what they take in the record.
        numbers: of each number, its slot, and which part it is.
        offsets: of each array, the slot that says where it lies, and how far from the first.
        nbytes: of all arrays; `weights` is by key.
        count: adds that were like this and were not weighed yet.
    """

    forms: list[_Form]
    slots: list[float]
    numbers: list[tuple[int, int]]
    offsets: list[tuple[int, int]]
    nbytes: int = 0
    weights: dict[str, int] = field(default_factory=dict)
    count: int = 0


def _are(parts: Sequence[Any], forms: list[_Form]) -> bool:
    """Whether the parts are arrays of these shapes and types, and numbers where they should be."""
    for part, (shape, dtype) in zip(parts, forms):  # noqa: B905 - there are as many, or _NOTHING
        if type(part) is _Array:
            if part.dtype is not dtype or part.shape != shape:
                return False
        elif dtype is not None or type(part) not in _PLAIN:
            return False
    return True


def _joined(arrays: Sequence[Any]) -> bytes:
    """The arrays' bytes, in C order."""
    try:
        return b"".join(arrays)  # one copy for all
    except (TypeError, BufferError):  # not contiguous
        return b"".join([array.tobytes() for array in arrays])


def read(values: Iterable[Any]) -> list[Any]:
    """The values, those of CPU tensors in Python's own types; 0-d ones are numbers then."""
    torch = sys.modules.get("torch")
    if torch is None:
        return list(values)
    tensor = torch.Tensor
    return [value.tolist() if type(value) is tensor and value.is_cpu else value for value in values]


def _taken(part: Any) -> Any:
    """A CPU tensor's number, or an array on the same memory; what can be neither, as it is."""
    if not is_tensor(part) or not part.is_cpu:
        return part
    try:
        if not part.ndim:
            return part.tolist()
        return (part.detach() if part.requires_grad else part).numpy()
    except (TypeError, RuntimeError):  # not strided, or numpy has no such type
        return part
