"""Adds that look as an earlier one did: the quick way from values to the slots of an event.

A layout declines what it cannot take, or is not sure of; then the slow way, which is the one that
raises, is outbox.py's.
"""

import struct
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import Buffer, code_word, record_of
from flexrec.recorder.events import is_tensor
from flexrec.recorder.on_device import is_elsewhere

if TYPE_CHECKING:
    import torch

__all__ = ["ArrayLayout", "NumberLayout"]

_PLAIN = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bBhHiIqQlLefd")})
_ARRAYS = frozenset({np.ndarray})
_form = attrgetter("dtype", "shape")
_UNPACKABLE = (struct.error, OverflowError, TypeError)


class NumberLayout:
    """Adds of keys whose values are single numbers.

    Attributes:
        word: the signature, as a buffer takes it.
        pack: of step, time and the values, makes a record.
        is_plain: whether nothing but Python's own numbers came, as far as is known.
    """

    __slots__ = ("is_plain", "pack", "word")

    def __init__(self, code: int, count: int) -> None:
        self.word = code_word(code)
        self.pack = record_of(count).pack
        self.is_plain = True

    def record(
        self, step: int, time: float, values: Collection[Any]
    ) -> "tuple[bytes | None, list[tuple[int, torch.Tensor]]]":
        """The record, None where not all are numbers, and the numbers that are on an accelerator.

        These come with their slots, which are 0 for now. 0-d CPU tensors are read here.
        """
        waiting: list[tuple[int, torch.Tensor]] = []
        numbers = _read(values)
        if not _PLAIN.issuperset(map(type, numbers)):
            for slot, value in enumerate(numbers):
                if is_elsewhere(value) and not value.ndim:
                    waiting.append((slot, value))
                    numbers[slot] = 0.0
                elif type(value) not in _PLAIN:
                    return None, waiting
        try:
            return self.pack(step, time, *numbers), waiting
        except _UNPACKABLE:  # the slow way names the key
            return None, waiting


class ArrayLayout:
    """Adds of keys some of whose values are arrays, or tuples with arrays in them."""

    __slots__ = ("_counts", "_keys", "_kinds", "_last", "_pack", "_word")

    def __init__(self, code: int, columns: Sequence[fmt.Column]) -> None:
        self._word = code_word(code)
        self._keys = [column.key for column in columns for _ in column.forms]
        self._counts = [None if column.bare else len(column.forms) for column in columns]
        self._kinds = [
            (None if form.kind == fmt.NUMBER else form.dtype, form.ndim)
            for column in columns
            for form in column.forms
        ]
        self._pack = record_of(sum(column.slots for column in columns)).pack
        self._last = _Last([], [], [], 0, {})

    def put(
        self,
        buffer: Buffer,
        step: int,
        time: float,
        values: Collection[Any],
        weights: dict[str, int],
    ) -> bool:
        """Append an event, and add what its arrays weigh to their keys; false: it is declined."""
        parts = self._parts(values)
        if parts is None:
            return False
        are_arrays = _ARRAYS.issuperset(map(type, parts))
        if not are_arrays:
            parts = [_shared(part) for part in parts]
            are_arrays = _ARRAYS.issuperset(map(type, parts))
        last, offset = self._last, buffer.blob_base + buffer.blob_bytes
        if are_arrays and list(map(_form, parts)) == last.forms:
            slots = last.slots.copy()
            for slot, distance in last.offsets:
                slots[slot] = offset + distance
        else:
            found = self._measured(parts, offset)
            if found is None:
                return False
            self._last = last = found
            slots = last.slots
            parts = [part for part in parts if type(part) is np.ndarray]
        try:
            record = self._pack(step, time, *slots)
        except _UNPACKABLE:
            return False
        blobs = buffer.copies(parts, last.nbytes)
        for key, size in last.weights.items():
            weights[key] += size
        buffer.blobs += blobs
        buffer.blob_bytes += last.nbytes
        buffer.records += record
        buffer.codes += self._word
        return True

    def _measured(self, parts: Sequence[Any], offset: int) -> "_Last | None":
        """The slots and sizes of parts, where they are of the kinds that they should be of."""
        last = _Last([], [], [], 0, {})
        for part, key, (dtype, ndim) in zip(parts, self._keys, self._kinds, strict=True):
            if dtype is None:
                number = _number(part)
                if number is None:
                    return None
                last.slots.append(number)
                continue
            if type(part) is not np.ndarray or part.dtype != dtype or part.ndim != ndim:
                return None
            last.forms.append(_form(part))
            last.offsets.append((len(last.slots), last.nbytes))
            last.slots.append(offset + last.nbytes)
            last.slots += part.shape
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
    """What the parts of an add were, for the next one that is all arrays and the same.

    Attributes:
        forms: of each array, its dtype and shape.
        slots: what they take in the record.
        offsets: of each array, the slot that says where it lies, and how far from the first.
        nbytes: of all arrays; `weights` is by key.
    """

    forms: list[tuple[Any, ...]]
    slots: list[float]
    offsets: list[tuple[int, int]]
    nbytes: int
    weights: dict[str, int]


def _number(value: Any) -> Any:
    """A number, or that of a 0-d CPU tensor; None for anything else."""
    (number,) = _read((value,))
    return number if type(number) in _PLAIN else None


def _read(values: Iterable[Any]) -> list[Any]:
    """The values, those of CPU tensors in Python's own types; 0-d ones are numbers then."""
    torch = sys.modules.get("torch")
    if torch is None:
        return list(values)
    tensor = torch.Tensor
    return [value.tolist() if type(value) is tensor and value.is_cpu else value for value in values]


def _shared(part: Any) -> Any:
    """A CPU tensor with axes as an array on the same memory; what cannot be one, as it is."""
    if not is_tensor(part) or not part.ndim or not part.is_cpu:
        return part
    try:
        return (part.detach() if part.requires_grad else part).numpy()
    except (TypeError, RuntimeError):  # not strided, or numpy has no such type
        return part
