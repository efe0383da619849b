"""Fingerprints: an integer of a tensor's bits, dtype and shape, that knows their positions.

On the CPU it is the CRC-32 of dtype, shape and bytes in C order: two tensors that differ have the
same with a chance of 2^-32, and never where they differ within 32 bits next to each other. On an
accelerator it is the sum of the elements' bits, each multiplied by an odd number that depends on
its position, modulo 2^64, whose upper 53 bits count: whole numbers are added exactly, in any order,
and nothing waits for the device. The two are not compared with each other: they differ.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from flexrec.recorder.storage.journal import checksum

Fingerprint: TypeAlias = int | Tensor
"""Below 2^53; of a tensor on an accelerator a 0-d int64 tensor there."""

Look: TypeAlias = Callable[[Tensor], Fingerprint]
"""Gives the fingerprint of a tensor, as `fingerprint` does."""

_CHAIN = 1_000_003
_AT_ONCE = 1 << 24  # elements: four times as much memory is needed meanwhile, or more
_SPREAD = (1 << 31) - 1  # a prime that brings 32 bits to 63
_WORD = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64)  # as int64 has them


def fingerprint(tensor: Tensor) -> Fingerprint:
    """The fingerprint of a tensor; equal for equal elements, whatever the strides.

    >>> fingerprint(torch.tensor([1.0, 2.0])) == fingerprint(torch.tensor([2.0, 1.0]))
    False
    """
    tensor = _dense(tensor.detach())
    head = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    flat = tensor.contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    if not flat.is_cpu:
        return _on_device(flat, checksum(head))
    begun = checksum(head)
    return checksum(flat.view(torch.uint8).numpy(), begun) if flat.numel() else begun


def of_all(values: Any, look: Look = fingerprint) -> Fingerprint | None:
    """One fingerprint of all tensors, numbers and texts in a value; None: there are none.

    Args:
        values: tensors, numbers and texts in tuples, lists, dicts and dataclasses.
        look: gives the fingerprint of each tensor.
    """
    found: Fingerprint | None = None
    for value in leaves(values):
        each = look(value) if isinstance(value, Tensor) else of_text(repr(value))
        found = each if found is None else _chained(found, each)
    return found


def of_text(text: str) -> int:
    """The fingerprint of a text."""
    return checksum(text.encode("utf-8", "surrogatepass"))


def leaves(values: Any) -> Iterator[Any]:
    """The tensors, numbers and texts in a value, in order."""
    if isinstance(values, (Tensor, bool, int, float, str)):
        yield values
        return
    inside: Iterable[Any] = ()
    if isinstance(values, dict):
        inside = values.values()
    elif isinstance(values, (list, tuple)):
        inside = values
    elif is_dataclass(values) and not isinstance(values, type):
        inside = (getattr(values, field.name, None) for field in fields(values))
    for value in inside:
        yield from leaves(value)


def _dense(tensor: Tensor) -> Tensor:
    """What has its elements in memory here: of a DTensor this rank's, of a sparse one all."""
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_meta:
        raise ValueError("a tensor of the device meta has no elements")
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return tensor.resolve_conj().resolve_neg()


def _chained(before: Fingerprint, after: Fingerprint) -> Fingerprint:
    """Two fingerprints as one, which knows their order."""
    if isinstance(before, Tensor) or isinstance(after, Tensor):
        device = before.device if isinstance(before, Tensor) else _device(after)
        first, second = (torch.as_tensor(each, device=device) for each in (before, after))
        return _upper(first * _CHAIN + second)
    return ((before * _CHAIN + after) & _WORD) >> 11


def _device(value: Fingerprint) -> torch.device:
    return value.device if isinstance(value, Tensor) else torch.device("cpu")


def _upper(word: Tensor) -> Tensor:
    """The upper 53 of 64 bits."""
    return word.bitwise_right_shift(11).bitwise_and((1 << 53) - 1)


def _on_device(flat: Tensor, head: int) -> Tensor:
    """The sum over the elements' bits, each by an odd number of its position."""
    words = flat.view(_WORDS[flat.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, words.numel(), _AT_ONCE):
        part = words[start : start + _AT_ONCE].long()
        place = torch.arange(start + 1, start + 1 + part.numel(), device=flat.device)
        mixed = place * _MIX[0]
        mixed = (mixed ^ mixed.bitwise_right_shift(29)) * _MIX[1]
        total += (part * (mixed | 1)).sum()
    return _upper(total * _CHAIN + head * _SPREAD)


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
