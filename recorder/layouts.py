"""Adds that look as an earlier one did: the quick way from values to the slots of an event.

A layout declines what it cannot take, or is not sure of; then the slow way, which is the one that
raises, is intake.py's.
"""

import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import Buffer, Entry, code_word, pack_top, record_of
from flexrec.recorder.events import is_tensor
from flexrec.recorder.on_device import is_elsewhere
from flexrec.recorder.sharing import Part
from flexrec.recorder.writer import SMALL

if TYPE_CHECKING:
    import torch

__all__ = ["ONE_THREAD_AT_A_TIME", "ArrayLayout", "Layout", "NumberLayout"]

_PLAIN = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bBhHiIqQlLefd")})
_Array = np.ndarray
ONE_THREAD_AT_A_TIME = getattr(sys, "_is_gil_enabled", lambda: True)()
_Read: TypeAlias = Callable[[Collection[Any]], list[Any]]
_Form = tuple[tuple[int, ...], Any]
_NUMBER: _Form = ((), None)
_NOTHING: _Form = ((), "what no part has")
_UNPACKABLE = (struct.error, OverflowError, TypeError)


class Layout(ABC):
    """What adds of the same keys have in common.

    Attributes:
        code: their signature; `word` is that of an event of numbers, as a buffer takes it.
        pack: of step, time and the slots, makes a record.
        is_quick: whether nothing but Python's own numbers and 0-d CPU tensors came, as far as is
            known, and no lock is needed.
        read: makes Python's own numbers of such values; None: they are that already.
        is_light: whether the last add was one that `light` takes, and no lock is needed.
    """

    __slots__ = ("code", "is_light", "is_quick", "pack", "read", "word")

    def __init__(self, code: int, slots: int) -> None:
        self.code, self.word = code, code_word(code)
        self.pack = record_of(slots).pack
        self.is_quick = self.is_light = False
        self.read: _Read | None = None

    @abstractmethod
    def light(self, step: int, time: float, values: Collection[Any]) -> Entry | None:
        """An event of numbers, and of small arrays that are as the last one's; None: it is not
        such a one."""

    @abstractmethod
    def entry(
        self, buffer: Buffer, step: int, time: float, values: Collection[Any]
    ) -> Entry | None:
        """An event for a buffer; None: it is declined."""

    def slow_down(self) -> None:  # noqa: B027 - others are not quick
        """Values came that `read` cannot take."""

    def weigh(self) -> None:  # noqa: B027 - numbers weigh nothing
        """Add to each key what its arrays weighed since this was asked last."""


class NumberLayout(Layout):
    """Adds of keys whose values are single numbers."""

    __slots__ = ()

    def __init__(self, code: int, values: Collection[Any]) -> None:
        super().__init__(code, len(values))
        # The sum of numpy's own numbers would warn where it overflows.
        self.is_quick = ONE_THREAD_AT_A_TIME and all(map(_can_be_summed, values))
        if any(map(is_tensor, values)):
            self.read = _tensor_reader() if all(map(is_tensor, values)) else _read

    def slow_down(self) -> None:
        """Values came that `read` cannot take: read numbers and tensors, or decline."""
        self.is_quick = self.read is not _read
        self.read = _read

    def light(self, step: int, time: float, values: Collection[Any]) -> Entry | None:
        """An event of numbers; 0-d CPU tensors are read."""
        try:
            numbers = [value if type(value) in _PLAIN else _taken(value) for value in values]
            if not _PLAIN.issuperset(map(type, numbers)):
                return None
            return self.pack(step, time, *numbers), self.word, b"", 0, None
        except _UNPACKABLE:  # the slow way names the key
            return None

    def entry(
        self, buffer: Buffer, step: int, time: float, values: Collection[Any]
    ) -> Entry | None:
        """An event; slots of tensors on an accelerator are 0 for now."""
        waiting: list[tuple[int, torch.Tensor]] = []
        if not self.is_light:
            for slot, value in enumerate(values):
                if is_elsewhere(value) and not value.ndim:
                    waiting.append((slot, value))
        if waiting:
            values = list(values)
            for slot, _ in waiting:
                values[slot] = 0.0
        light = self.light(step, time, values)
        self.is_light = light is not None and not waiting and ONE_THREAD_AT_A_TIME
        if light is None or not waiting:
            return light
        return buffer.entry(self.code, light[0], waiting=waiting)


class ArrayLayout(Layout):
    """Adds of keys some of whose values are arrays, or tuples with arrays in them."""

    __slots__ = ("_counts", "_is_pair", "_keys", "_kinds", "_last", "_own", "_same", "_weights")

    def __init__(
        self,
        code: int,
        columns: Sequence[fmt.Column],
        same: Mapping[Part, Part],
        weights: dict[str, int],
    ) -> None:
        super().__init__(code, sum(column.slots for column in columns))
        self._weights = weights
        self._counts = [None if column.bare else len(column.forms) for column in columns]
        self._is_pair = self._counts == [2]
        parts = [(column.key, i) for column in columns for i in range(len(column.forms))]
        forms = dict(zip(parts, (form for c in columns for form in c.forms), strict=True))
        # Where among the parts of an add those are that earlier ones are, with these; and the rest.
        self._same = [(parts.index(part), parts.index(owner)) for part, owner in same.items()]
        self._own = [i for i, part in enumerate(parts) if part not in same]
        own = [parts[i] for i in self._own]
        self._keys = [key for key, _ in own]
        self._kinds = [
            (None if form.kind == fmt.NUMBER else form.dtype, form.ndim)
            for form in map(forms.__getitem__, own)
        ]
        self._last = _Last([_NOTHING, _NOTHING])

    def light(self, step: int, time: float, values: Collection[Any]) -> Entry | None:
        """An event of numbers and small arrays, those of CPU tensors too."""
        last = self._last
        if last.nbytes >= SMALL:
            return None
        if self._is_pair and not last.numbers:
            # What most meters take, output and target: a loop takes as long as all of this.
            (pair,) = values
            if type(pair) is tuple and len(pair) == 2:
                a, b = pair
                if type(a) is not _Array or type(b) is not _Array:
                    a, b = pair = _taken(a), _taken(b)
                (shape, dtype), (shape_b, dtype_b) = last.forms
                if (
                    (type(a) is _Array and a.dtype is dtype and a.shape == shape)
                    and (type(b) is _Array and b.dtype is dtype_b and b.shape == shape_b)
                ):  # fmt: skip
                    last.count += 1
                    record = pack_top(step, time) + last.packed
                    return record, last.word, _joined(pair), last.nbytes, None
        parts = self._parts(values)
        if parts is None:
            return None
        if not _are(parts, last.forms):
            parts = list(map(_taken, parts))
            if not _are(parts, last.forms):
                return None
        return self._light(step, time, parts, last)

    def entry(
        self, buffer: Buffer, step: int, time: float, values: Collection[Any]
    ) -> Entry | None:
        """An event of arrays of any size; their kinds are the same, shapes may change."""
        parts, last = self._parts(values), self._last
        if parts is None:
            return None
        if not _are(parts, last.forms):
            parts = list(map(_taken, parts))
            if not _are(parts, last.forms):
                measured = self._measured(parts)
                if measured is None:
                    return None
                self.weigh()
                self._last = last = measured
                self.is_light = last.nbytes < SMALL and ONE_THREAD_AT_A_TIME
        if last.nbytes < SMALL:
            return self._light(step, time, parts, last)
        record = self._record(step, time, parts, last)
        if record is None:
            return None
        arrays = [part for part in parts if type(part) is _Array]
        last.count += 1
        return buffer.entry(self.code, record, list(map(buffer.copied, arrays)), last.nbytes)

    def _light(self, step: int, time: float, parts: Sequence[Any], last: "_Last") -> Entry | None:
        if last.numbers:
            record = self._record(step, time, parts, last)
            if record is None:
                return None
            parts = [part for part in parts if type(part) is _Array]
        else:
            record = pack_top(step, time) + last.packed
        last.count += 1
        return record, last.word, _joined(parts), last.nbytes, None

    def _record(self, step: int, time: float, parts: Sequence[Any], last: "_Last") -> bytes | None:
        slots = last.slots.copy()
        for slot, place in last.numbers:
            slots[slot] = parts[place]
        try:
            return self.pack(step, time, *slots)
        except _UNPACKABLE:  # the slow way names the key
            return None

    def weigh(self) -> None:
        """Add to each key what its arrays weighed since this was asked last."""
        last = self._last
        count, last.count = last.count, 0
        for key, size in last.weights.items():
            self._weights[key] += size * count

    def _measured(self, parts: Sequence[Any]) -> "_Last | None":
        """The slots and sizes of parts, where they are of the kinds that they should be of."""
        last = _Last()
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
            if 0 in part.shape:  # which may be absurd
                return None
            last.forms.append((part.shape, part.dtype))
            last.slots += [last.nbytes, *part.shape]
            last.nbytes += part.nbytes
            last.weights[key] = last.weights.get(key, 0) + part.nbytes
        last.word = code_word(self.code, last.nbytes)
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
        nbytes: of all arrays; `weights` is by key.
        word: of such an add, as a buffer takes it.
        count: adds that were like this and were not weighed yet.
    """

    forms: list[_Form] = field(default_factory=list)
    slots: list[float] = field(default_factory=list)
    packed: bytes = b""
    numbers: list[tuple[int, int]] = field(default_factory=list)
    nbytes: int = 0
    weights: dict[str, int] = field(default_factory=dict)
    word: bytes = b""
    count: int = 0


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


def _read(values: Collection[Any]) -> list[Any]:
    """The values, those of CPU tensors in Python's own types; 0-d ones are numbers then."""
    torch = sys.modules.get("torch")
    if torch is None:
        return list(values)
    tensor = torch.Tensor
    return [value.tolist() if type(value) is tensor and value.is_cpu else value for value in values]


@cache
def _tensor_reader() -> _Read:
    """The same for tensors alone, in half the time: they are not asked where they are, as long as
    none can be on an accelerator."""
    import torch

    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and accelerator.type != "cuda":
        return _read
    tolist, is_cpu = torch.Tensor.tolist, attrgetter("is_cpu")
    may_wait: Callable[[], bool] = torch.cuda.is_initialized

    def read(values: Collection[Any]) -> list[Any]:
        if may_wait() and not all(map(is_cpu, values)):
            raise TypeError("to read a tensor on an accelerator would wait for it")
        return list(map(tolist, values))

    return read


def _taken(part: Any) -> Any:
    """A CPU tensor's number, or an array on the same memory; what can be neither, as it is."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(part, torch.Tensor) or not part.is_cpu:
        return part
    try:
        if not part.ndim:
            return part.tolist()
        plain = part.detach() if part.requires_grad else part
        if plain.dtype is torch.bfloat16:  # which numpy has not
            plain = plain.float()
        return plain.numpy()
    except (TypeError, RuntimeError):  # not strided, or another type that numpy has not
        return part
