"""Tensors on an accelerator: copied on the device when added, fetched when they are written."""

import math
import sys
from collections.abc import Callable, Collection, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from flexrec.recorder.events import (
    Array,
    Later,
    Value,
    array_of,
    check_shape,
    is_tensor,
    normalise,
)
from flexrec.recorder.storage import format as fmt

if TYPE_CHECKING:
    import torch

Tensor: TypeAlias = "torch.Tensor"


Read: TypeAlias = Callable[[Collection[Any]], list[Any]]
"""Converts values to Python numbers."""

_LARGE = 1 << 20  # bytes: tensors at least this large are fetched one by one


class OnDevice:
    """A copy of a tensor, made on its accelerator without waiting for it; or a later number."""

    __slots__ = ("form", "shape", "tensor")

    def __init__(self, tensor: "torch.Tensor | Later") -> None:
        self.tensor: Any = tensor
        self.shape: tuple[int, ...] = ()
        if isinstance(tensor, Later):
            self.form = fmt.Form(fmt.NUMBER)
            return
        self.tensor = tensor.detach().clone()
        self.shape = tuple(tensor.shape)
        name = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_floating_point() and name not in ("float16", "float32", "float64"):
            name = "float32"  # normalise widens bfloat16 and float8 too
        self.form = fmt.Form(name, tensor.ndim) if tensor.ndim else fmt.Form(fmt.NUMBER)

    @property
    def nbytes(self) -> int:
        """The size of the array in the file, in bytes."""
        return self.form.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def fetched_arrays(waiting: Sequence[OnDevice]) -> list[Array]:
    """Fetch the arrays' values, in C order; waits for the accelerator.

    Small tensors of the same device and dtype are fetched in one copy.
    """
    import torch

    kinds: dict[Any, list[int]] = {}
    for i, one in enumerate(waiting):
        alone = i if one.nbytes >= _LARGE else None
        kinds.setdefault((one.tensor.device, one.tensor.dtype, alone), []).append(i)
    arrays: dict[int, Array] = {}
    for kind in kinds.values():
        flat = array_of("", torch.cat([waiting[i].tensor.reshape(-1) for i in kind]))
        ends = np.cumsum([waiting[i].tensor.numel() for i in kind])
        arrays.update(zip(kind, np.split(flat, ends[:-1]), strict=True))
    return [arrays[i] for i in range(len(waiting))]


Numbers = tuple[list[int], Any]
"""Slots, and their numbers in one tensor (slots,) on an accelerator; or a slot and its number."""


def gathered(waiting: "Sequence[tuple[int, torch.Tensor | Later]]") -> list[Numbers]:
    """Copy 0-d tensors, each given with its slot, in one kernel per device and dtype."""
    import torch

    kinds: dict[Any, list[tuple[int, torch.Tensor]]] = {}
    late: list[Numbers] = []
    for slot, value in waiting:
        if isinstance(value, Later):
            late.append(([slot], value))
        else:
            kinds.setdefault((value.device, value.dtype), []).append((slot, value))
    with torch.no_grad():
        stacked: list[Numbers] = [
            ([slot for slot, _ in kind], torch.stack([tensor for _, tensor in kind]))
            for kind in kinds.values()
        ]
    return stacked + late


def fetched_numbers(waiting: Sequence[Numbers]) -> tuple[list[int], Array]:
    """Fetch all slots' numbers as float64, in one copy per accelerator; waits for it."""
    import torch

    slots = [slot for some, value in waiting if isinstance(value, Later) for slot in some]
    late = [_read(value) for _, value in waiting if isinstance(value, Later)]
    numbers: list[Array] = [np.array(late, np.float64)]
    tensors = [(some, value) for some, value in waiting if not isinstance(value, Later)]
    for device in {tensor.device for _, tensor in tensors}:
        here = [(some, tensor) for some, tensor in tensors if tensor.device == device]
        slots += [slot for some, _ in here for slot in some]
        wide = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        together = torch.cat([tensor.to(wide) for _, tensor in here])
        numbers.append(together.cpu().numpy().astype(np.float64, copy=False))
    return slots, np.concatenate(numbers)


def _read(value: Later) -> float:
    """The number; NaN if the accelerator has failed."""
    try:
        return float(value)
    except RuntimeError:
        return math.nan


def take(key: str, value: object) -> "Value | OnDevice | tuple[Any, ...] | None":
    """Like `normalise`, but tensors on an accelerator stay there, as `OnDevice` copies."""
    if isinstance(value, Later):
        return OnDevice(value)
    if is_elsewhere(value):
        tensor = cast("torch.Tensor", value)
        check_shape(key, tuple(tensor.shape))
        return OnDevice(tensor)
    if not isinstance(value, (tuple, list)) or not any(map(is_elsewhere, value)):
        return normalise(key, value)
    parts: list[Any] = []
    for part in value:
        taken = take(key, part)
        if taken is None or isinstance(taken, tuple):
            normalise(key, value)  # raises InputError, naming the type
        parts.append(taken)
    return tuple(parts)


def is_elsewhere(value: Any) -> bool:
    """Whether it is a tensor on an accelerator that can be copied there and fetched later."""
    if not is_tensor(value) or value.is_cpu:
        return False
    torch = sys.modules["torch"]
    is_lasting = value.layout is torch.strided and not (value.is_meta or value.is_quantized)
    is_complex = value.is_complex() and (not value.ndim or value.dtype is torch.complex32)
    return is_lasting and not is_complex


# ---------------------------------------------------------------------- CPU tensors


def read_plain(values: Collection[Any]) -> list[Any]:
    """Convert CPU tensors with `tolist`, 0-d ones to numbers; leave other values as they are."""
    torch = sys.modules.get("torch")
    if torch is None:
        return list(values)
    tensor = torch.Tensor
    return [value.tolist() if type(value) is tensor and value.is_cpu else value for value in values]


@cache
def tensor_reader() -> Read:
    """A faster `read_plain` for collections of tensors only.

    It skips checking each tensor's device as long as no tensor can be on an accelerator.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and accelerator.type != "cuda":
        return read_plain
    tolist, is_cpu = torch.Tensor.tolist, attrgetter("is_cpu")
    may_wait: Callable[[], bool] = torch.cuda.is_initialized

    def read(values: Collection[Any]) -> list[Any]:
        if may_wait() and not all(map(is_cpu, values)):
            raise TypeError("to read a tensor on an accelerator would wait for it")
        return list(map(tolist, values))

    return read


def as_plain(part: Any) -> Any:
    """Convert a CPU tensor to a number or an array, without a copy if possible.

    Anything else is returned as it is.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(part, torch.Tensor) or not part.is_cpu:
        return part
    try:
        if not part.ndim:
            return part.tolist()
        plain = part.detach() if part.requires_grad else part
        if plain.dtype is torch.bfloat16:  # numpy has no bfloat16
            plain = plain.float()
        return plain.numpy()
    except (TypeError, RuntimeError):  # not strided, or of another dtype that numpy lacks
        return part
