"""Events on their way from `add` to the file, and tensors that are still on an accelerator."""

import math
import sys
from array import array
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.events import Array, Part, State, Value, array_of, is_tensor, normalise
from flexrec.recorder.writer import SMALL, Block

if TYPE_CHECKING:
    import torch

__all__ = [
    "Buffer",
    "OnDevice",
    "Slabs",
    "column_of_taken",
    "plain_arrays",
    "plain_numbers",
    "take",
]


_SLAB = 8 << 20  # bytes of memory that large arrays are copied to
_SPARE = 4  # slabs that are kept for later
_PLAIN = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bBhHiIqQlLefd")})


def plain_numbers(values: Collection[Any]) -> Collection[Any] | None:
    """The values as what `array("d").extend` takes, or None where they are not all numbers.

    This is the hot path; 0-d CPU tensors are read here.
    """
    if _PLAIN.issuperset(map(type, values)):
        return values
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    tensor, numbers = torch.Tensor, []
    for value in values:
        kind = type(value)
        if kind is tensor:
            if value.dim() or not value.is_cpu:
                return None
            value = value.item()
        elif kind not in _PLAIN:
            return None
        numbers.append(value)
    return numbers


def plain_arrays(values: Collection[Any]) -> tuple[list[Any], tuple[Any, ...]] | None:
    """The parts of values that are arrays, CPU tensors and floats, and what tells their forms.

    None where there is anything else. The arrays are not copied, and tensors share their memory.
    """
    parts: list[Any] = []
    kinds: list[Any] = []
    for value in values:
        several = type(value) is tuple or type(value) is list
        kinds.append(len(value) if several else None)
        for part in value if several else (value,):
            if type(part) is float:
                kinds.append(float)
            else:
                if type(part) is not np.ndarray:
                    if not (is_tensor(part) and part.is_cpu):
                        return None
                    try:
                        part = part.detach().numpy()
                    except (TypeError, RuntimeError):  # not strided, or numpy has no such type
                        return None
                if not part.ndim:
                    return None
                kinds += (part.dtype, part.ndim)
            parts.append(part)
    return parts, tuple(kinds)


class OnDevice:
    """A tensor on an accelerator, to be fetched when it is written; nothing waits for it now."""

    __slots__ = ("form", "shape", "tensor")

    def __init__(self, tensor: "torch.Tensor") -> None:
        self.tensor = tensor.detach().clone()
        self.shape = tuple(tensor.shape)
        name = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_floating_point() and name not in ("float16", "float32", "float64"):
            name = "float32"  # as normalise does with bfloat16 and float8
        self.form = fmt.Form(name, tensor.ndim) if tensor.ndim else fmt.Form(fmt.NUMBER)


class Slabs:
    """Memory for large arrays, used again once they are written: fresh memory costs more than
    the copy into it."""

    def __init__(self) -> None:
        self._free: list[Array] = []

    def take(self) -> Array:
        """A slab: bytes, with anything in them."""
        return self._free.pop() if self._free else np.empty(_SLAB, "u1")

    def give(self, slabs: list[Array]) -> None:
        """Slabs that nobody looks at any more."""
        self._free += slabs[: _SPARE - len(self._free)]


class Buffer:
    """Events on their way to the file. Offsets are absolute: they start at the bases."""

    def __init__(self, value_base: int, blob_base: int, slabs: Slabs) -> None:
        self.value_base, self.blob_base = value_base, blob_base
        self._slabs, self._taken, self._used = slabs, list[Array](), _SLAB
        self.codes, self.starts, self.steps = array("q"), array("q"), array("q")
        self.times, self.values = array("d"), array("d")
        self.blobs: list[bytes | Array | OnDevice] = []
        self.blob_bytes = 0
        self.deferred: list[tuple[int, OnDevice]] = []
        self.schema = b""

    @property
    def nbytes(self) -> int:
        return 8 * len(self.values) + 32 * len(self.codes) + self.blob_bytes

    def event(self, code: int, start: int, step: int, now: float) -> None:
        self.codes.append(code)
        self.starts.append(self.value_base + start)
        self.steps.append(step)
        self.times.append(now)

    def put(self, part: "Part | OnDevice") -> None:
        if isinstance(part, float):
            self.values.append(part)
            return
        if isinstance(part, OnDevice) and not part.shape:
            self.deferred.append((len(self.values), part))
            self.values.append(0.0)
            return
        if isinstance(part, str):
            part = np.frombuffer(part.encode("utf-8", "surrogatepass"), "u1")
        if isinstance(part, OnDevice):
            self.values.append(float(self.blob_base + self.blob_bytes))
            self.values.extend(part.shape)
            self.blobs.append(part)
            self.blob_bytes += part.form.dtype.itemsize * math.prod(part.shape)
        else:
            self.put_array(part)

    def put_array(self, array: Array) -> int:
        """Take a copy of an array in; return its bytes."""
        self.values.append(self.blob_base + self.blob_bytes)
        self.values.extend(array.shape)
        size = array.nbytes
        self.blobs.append(array.tobytes() if size < SMALL or size > _SLAB else self._copied(array))
        self.blob_bytes += size
        return size

    def release(self) -> None:
        """The block was written: its memory may be used again."""
        self._slabs.give(self._taken)
        self._taken = []

    def _copied(self, array: Array) -> Array:
        """A copy's bytes, in C order."""
        size = array.nbytes
        if self._used + size > _SLAB:
            self._taken.append(self._slabs.take())
            self._used = 0
        room = self._taken[-1][self._used : self._used + size]
        room.view(array.dtype).reshape(array.shape)[...] = array
        self._used += -(-size // 64) * 64  # what follows is aligned
        return room

    def block(self) -> Block:
        """What to append; what is still on an accelerator is fetched here, numbers in one copy."""
        values = np.array(self.values)
        if self.deferred:
            values[[slot for slot, _ in self.deferred]] = _fetch_numbers(self.deferred)
        events = np.empty(len(self.codes), fmt.EVENT)
        events["code"], events["start"] = self.codes, self.starts
        events["step"], events["time"] = self.steps, self.times
        blobs: list[Array] = []
        for is_small, some in groupby(self.blobs, _is_small):
            if is_small:
                blobs.append(np.frombuffer(b"".join(cast("Iterator[bytes]", some)), "u1"))
            else:
                blobs += map(_fetched, some)
        return Block(self.schema, blobs, values, events)


def _is_small(blob: bytes | Array | OnDevice) -> bool:
    """Whether it is worth joining with its neighbours before it is written."""
    return isinstance(blob, bytes) and len(blob) < SMALL


def _fetched(blob: bytes | Array | OnDevice) -> Array:
    if isinstance(blob, OnDevice):
        return np.ascontiguousarray(array_of("", blob.tensor))
    return np.frombuffer(blob, "u1") if isinstance(blob, bytes) else blob


def _fetch_numbers(deferred: "list[tuple[int, OnDevice]]") -> Array:
    """The values of 0-d tensors: one copy for each accelerator, at float64."""
    import torch

    numbers = np.empty(len(deferred))
    for device in {number.tensor.device for _, number in deferred}:
        here = [i for i, (_, number) in enumerate(deferred) if number.tensor.device == device]
        tensors = [deferred[i][1].tensor.to(torch.float64) for i in here]
        numbers[here] = torch.stack(tensors).cpu().numpy()
    return numbers


def take(key: str, value: object) -> "Value | OnDevice | tuple[Any, ...] | None":
    """`normalise`, but a tensor on an accelerator stays there until it is written."""
    if is_tensor(value):
        return (
            OnDevice(cast("torch.Tensor", value))
            if _is_deferrable(value)
            else normalise(key, value)
        )
    if isinstance(value, (tuple, list)) and any(is_tensor(p) and _is_deferrable(p) for p in value):
        parts: list[Any] = []
        for part in value:
            taken = take(key, part)
            if taken is None or isinstance(taken, tuple):
                normalise(key, value)  # raises, naming what it is
            parts.append(taken)
        return tuple(parts)
    return normalise(key, value)


def _is_deferrable(tensor: Any) -> bool:
    return (
        tensor.device.type not in ("cpu", "meta")
        and not tensor.is_quantized
        and str(tensor.layout) == "torch.strided"
        and not (tensor.is_complex() and tensor.ndim == 0)
        and "complex32" not in str(tensor.dtype)
    )


def column_of_taken(key: str, value: Any) -> fmt.Column:
    parts = value if isinstance(value, tuple) else (value,)
    forms = (part.form if isinstance(part, OnDevice) else fmt.form_of(part) for part in parts)
    reduction = value.reduction if isinstance(value, State) else None
    return fmt.Column(key, tuple(forms), not isinstance(value, tuple), reduction)
