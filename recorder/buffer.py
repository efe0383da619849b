"""Events on their way from `add` to the file, and tensors that are still on an accelerator."""

import sys
from array import array
from collections.abc import Collection
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.events import Array, Part, Value, array_of, is_tensor, normalise
from flexrec.recorder.writer import Block

if TYPE_CHECKING:
    import torch

__all__ = ["Buffer", "OnDevice", "column_of_taken", "plain_numbers", "take"]


_PLAIN = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bBhHiIqQlLefd")})
_on_cpu = attrgetter("is_cpu")


def plain_numbers(values: Collection[Any]) -> Collection[Any] | None:
    """The values as what `array("d").extend` takes, or None where they are not all numbers.

    This is the hot path: 0-d CPU tensors are read here, all in a few calls.
    """
    other = set(map(type, values)) - _PLAIN
    if not other:
        return values
    torch = sys.modules.get("torch")
    if torch is None or other != {torch.Tensor}:
        return None
    tensors = [value for value in values if type(value) is torch.Tensor]
    if not all(map(_on_cpu, tensors)) or any(map(torch.Tensor.dim, tensors)):
        return None
    if len(tensors) == len(values):
        return list(map(torch.Tensor.item, tensors))
    return [value.item() if type(value) is torch.Tensor else value for value in values]


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


class Buffer:
    """Events on their way to the file. Offsets are absolute: they start at the bases."""

    def __init__(self, value_base: int, blob_base: int) -> None:
        self.value_base, self.blob_base = value_base, blob_base
        self.codes, self.starts, self.steps = array("q"), array("q"), array("q")
        self.times, self.values = array("d"), array("d")
        self.blobs: list[Array | OnDevice] = []
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
        self.values.append(float(self.blob_base + self.blob_bytes))
        self.values.extend(part.shape)
        self.blobs.append(part)
        itemsize = part.form.dtype.itemsize if isinstance(part, OnDevice) else part.itemsize
        self.blob_bytes += itemsize * int(np.prod(part.shape, dtype=np.int64))

    def block(self) -> Block:
        """What to append; what is still on an accelerator is fetched here, numbers in one copy."""
        values = np.array(self.values)
        if self.deferred:
            values[[slot for slot, _ in self.deferred]] = _fetch_numbers(self.deferred)
        events = np.empty(len(self.codes), fmt.EVENT)
        events["code"], events["start"] = self.codes, self.starts
        events["step"], events["time"] = self.steps, self.times
        blobs = [
            array_of("", blob.tensor) if isinstance(blob, OnDevice) else blob for blob in self.blobs
        ]
        return Block(self.schema, [np.ascontiguousarray(blob) for blob in blobs], values, events)


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
    return fmt.Column(key, tuple(forms), not isinstance(value, tuple))
