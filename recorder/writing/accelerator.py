"""Tensors on an accelerator, on their way to the file: fetched when it is written, not before."""

import sys
from collections.abc import Callable, Collection, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from flexrec.recorder.events import Array, Value, array_of, check_shape, is_tensor, normalise
from flexrec.recorder.storage import format as fmt

if TYPE_CHECKING:
    import torch

Tensor: TypeAlias = "torch.Tensor"


Read: TypeAlias = Callable[[Collection[Any]], list[Any]]
"""Makes Python's own numbers of values."""

_LARGE = 1 << 20  # bytes: a tensor this large is fetched by itself


class OnDevice:
    """A copy of a tensor on its accelerator; nothing waits for it now."""

    __slots__ = ("form", "shape", "tensor")

    def __init__(self, tensor: "torch.Tensor") -> None:
        self.tensor = tensor.detach().clone()
        self.shape = tuple(tensor.shape)
        name = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_floating_point() and name not in ("float16", "float32", "float64"):
            name = "float32"  # as normalise does with bfloat16 and float8
        self.form = fmt.Form(name, tensor.ndim) if tensor.ndim else fmt.Form(fmt.NUMBER)

    @property
    def nbytes(self) -> int:
        """What it takes in the file."""
        return self.form.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def fetched_arrays(waiting: Sequence[OnDevice]) -> list[Array]:
    """The arrays' values, in C order; waits for the accelerator.

    Small ones of a kind come in one copy together.
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


Numbers = tuple[list[int], "torch.Tensor"]
"""Slots, and the numbers that belong there, in one tensor (slots,) of an accelerator's."""


def gathered(waiting: "Sequence[tuple[int, torch.Tensor]]") -> list[Numbers]:
    """Copies of 0-d tensors with the slots that they are for: one kernel for each kind of them."""
    import torch

    kinds: dict[Any, list[tuple[int, torch.Tensor]]] = {}
    for slot, tensor in waiting:
        kinds.setdefault((tensor.device, tensor.dtype), []).append((slot, tensor))
    with torch.no_grad():
        return [
            ([slot for slot, _ in kind], torch.stack([tensor for _, tensor in kind]))
            for kind in kinds.values()
        ]


def fetched_numbers(waiting: Sequence[Numbers]) -> tuple[list[int], Array]:
    """All slots and their numbers in float64, one copy for each accelerator; waits for it."""
    import torch

    slots: list[int] = []
    numbers: list[Array] = []
    for device in {tensor.device for _, tensor in waiting}:
        here = [(some, tensor) for some, tensor in waiting if tensor.device == device]
        slots += [slot for some, _ in here for slot in some]
        wide = torch.float32 if device.type == "mps" else torch.float64  # MPS has no other
        together = torch.cat([tensor.to(wide) for _, tensor in here])
        numbers.append(together.cpu().numpy().astype(np.float64, copy=False))
    return slots, np.concatenate(numbers)


def take(key: str, value: object) -> "Value | OnDevice | tuple[Any, ...] | None":
    """`normalise`, but a tensor on an accelerator stays there until it is written."""
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
            normalise(key, value)  # raises, naming what it is
        parts.append(taken)
    return tuple(parts)


def is_elsewhere(value: Any) -> bool:
    """Whether it is a tensor on an accelerator that can be copied there, and fetched later."""
    if not is_tensor(value) or value.is_cpu:
        return False
    torch = sys.modules["torch"]
    is_lasting = value.layout is torch.strided and not (value.is_meta or value.is_quantized)
    is_complex = value.is_complex() and (not value.ndim or value.dtype is torch.complex32)
    return is_lasting and not is_complex


# ---------------------------------------------------------------------- tensors that are here


def read_plain(values: Collection[Any]) -> list[Any]:
    """The values, those of CPU tensors in Python's own types; 0-d ones are numbers then."""
    torch = sys.modules.get("torch")
    if torch is None:
        return list(values)
    tensor = torch.Tensor
    return [value.tolist() if type(value) is tensor and value.is_cpu else value for value in values]


@cache
def tensor_reader() -> Read:
    """The same for tensors alone, in half the time: they are not asked where they are, as long as
    none can be on an accelerator."""
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
