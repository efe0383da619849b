"""Measures of a tensor, and pooling of the results of several tensors.

This module is independent of names, layers and calls. On the CPU partial results are Python floats;
on any other device they are tensors on that device, and nothing waits for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

try:  # the same CRC-32, several times as fast
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

from flexrec.recorder.files.names import ON_ACCELERATOR

Number: TypeAlias = float | Tensor
Partial: TypeAlias = Any
"""The result of a measure of a tensor; its form depends on the measure."""

_CHUNK = 1 << 20  # a longer dot product of float32 is inexact in its fourth digit
_SAMPLE = 1 << 13
_PARTS = 64
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False, slots=True)
class Measure:
    """Computes a partial result of a tensor, and merges two partial results.

    Attributes:
        of: computes the partial result of a tensor returned by `prepare`.
        merge: merges two partial results.
    """

    of: Callable[[Tensor], Partial]
    merge: Callable[[Partial, Partial], Partial]


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor, without a collective; other tensors unchanged."""
    to_local = getattr(tensor, "to_local", None)
    part: Tensor = tensor if to_local is None else to_local()
    return part


def prepare(tensor: Tensor) -> Tensor | None:
    """Prepare a tensor for measuring: detach and convert it; None if there is nothing to measure.

    >>> prepare(torch.tensor([1, 2])) is None  # integers and booleans are not measured
    True

    float16, bfloat16 and float8 become float32; float32 and float64 stay; complex numbers become
    pairs of real ones. For a sparse tensor the stored values count, with duplicates summed; for a
    DTensor, this process's part.
    """
    tensor = local(tensor.detach() if tensor.requires_grad else tensor)
    if tensor.is_nested:
        return None
    if tensor.layout is not torch.strided:
        tensor = tensor.coalesce().values() if tensor.is_sparse else tensor.values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def ratio(above: Number, below: Number) -> Number:
    """A quotient in the manner of IEEE 754: x / 0 is infinite, 0 / 0 is NaN."""
    if isinstance(above, Tensor) or isinstance(below, Tensor) or below:
        return above / below
    return math.copysign(math.inf, above) if above and above == above else math.nan


def item(value: Tensor) -> Number:
    """Convert a CPU tensor to a Python float; tensors on other devices are returned unchanged."""
    return value.item() if value.is_cpu else value


def _flat(tensor: Tensor) -> Tensor:
    """All elements in memory order; a view for every dense tensor, even a transposed one."""
    if not tensor.is_contiguous():
        tensor = tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    return tensor.reshape(-1)


def squared(tensor: Tensor) -> Tensor:
    """The sum of the squares."""
    flat = _flat(tensor)
    return torch.dot(flat, flat)


# ---------------------------------------------------------------- count, mean and deviation


def _moments(tensor: Tensor) -> Partial:
    """Count, mean and sample standard deviation (0 for a single element)."""
    flat = _flat(tensor)
    n = flat.numel()
    if not flat.is_cpu:
        std, mean = torch.std_mean(flat, correction=min(1, n - 1))
        return n, mean, std
    if n == 1:
        return 1, flat.item(), 0.0
    # A sum and a dot product take a fifth of the time of torch's own std, but are useless if the
    # mean is far above the deviation, or if squares exceed float32's range.
    total = flat.sum().item()
    if n <= _CHUNK:
        squares = torch.dot(flat, flat).item()
    else:
        parts = [flat[start : start + _CHUNK] for start in range(0, n, _CHUNK)]
        squares = math.fsum(torch.dot(part, part).item() for part in parts)
    spread = squares - total * total / n
    if not (spread > 0.05 * squares and squares > n * 1e-30):
        flat = flat.double()
        total = flat.sum().item()
        centred = flat - total / n
        spread = torch.dot(centred, centred).item()
    return n, total / n, math.sqrt(spread / (n - 1))


def _merge_moments(a: Partial, b: Partial) -> Partial:
    """The pairwise update of Chan, Golub and LeVeque, 1983."""
    (n, mean, std), (m, other_mean, other_std) = a, b
    both, apart = n + m, other_mean - mean
    within = std * std * (n - 1) + other_std * other_std * (m - 1)
    squares = within + apart * apart * (n * m / both)
    return both, mean + apart * (m / both), (squares / (both - 1)) ** 0.5


MOMENTS = Measure(_moments, _merge_moments)
"""(count, mean, sample standard deviation)."""


def norm(moments: Partial) -> Number:
    """The Euclidean norm, from a result of `MOMENTS`."""
    n, mean, std = moments
    euclidean: Number = (std * std * (n - 1) + mean * mean * n) ** 0.5
    if isinstance(mean, Tensor):
        return mean.abs().where(mean.isinf(), euclidean)  # the deviation is NaN then
    return math.inf if math.isinf(mean) else euclidean


# ---------------------------------------------------------------- extremes, sums and counts


def _extremes(tensor: Tensor) -> Partial:
    low, high = torch.aminmax(_flat(tensor))
    return item(low), item(high)


def _merge_extremes(a: Partial, b: Partial) -> Partial:
    if isinstance(a[0], Tensor):
        return torch.minimum(a[0], b[0]), torch.maximum(a[1], b[1])
    return float(np.minimum(a[0], b[0])), float(np.maximum(a[1], b[1]))  # NaN stays NaN


EXTREMES = Measure(_extremes, _merge_extremes)
"""(least, greatest)."""


def summed(total: Callable[[Tensor], Tensor]) -> Measure:
    """A measure (count, sum over the elements); `total` computes the sum over a flat tensor."""

    def of(tensor: Tensor) -> Partial:
        flat = _flat(tensor)
        return flat.numel(), item(total(flat))

    return Measure(of, lambda a, b: (a[0] + b[0], a[1] + b[1]))


# ---------------------------------------------------------------- quantiles and histogram


class Sample:
    """A sample of at most about 8192 elements of a tensor, each representing `weight` of them.

    Attributes:
        least, greatest: the extremes of all finite elements; inf and -inf if there are none.
    """

    def __init__(self, values: Tensor, weights: Tensor, least: Tensor, greatest: Tensor) -> None:
        self.values, self.weights = values, weights
        self.least, self.greatest = least, greatest

    @classmethod
    def of(cls, tensor: Tensor) -> "Sample":
        """Sample every k-th element, with k coprime to their number to favour no row or column."""
        flat = _flat(tensor)
        n = flat.numel()
        values = flat[:: _prime_to(n, -(-n // _SAMPLE))].clone()
        weights = torch.full_like(values, n / values.numel())
        return cls(values, weights, *_finite_extremes(flat))

    def merge(self, other: "Sample") -> "Sample":
        """Merge two samples, thinning the result if it would become too large."""
        values = torch.cat([self.values, other.values])
        weights = torch.cat([self.weights, other.weights])
        least = torch.minimum(self.least, other.least)
        greatest = torch.maximum(self.greatest, other.greatest)
        n = values.numel()
        if n > 4 * _SAMPLE:
            # Keep elements in proportion to their weights, at even steps. They are shuffled before,
            # so that the steps cannot coincide with a pattern of rows or columns.
            mixed = torch.arange(n, device=values.device) * _prime_to(n, round(n * _GOLDEN)) % n
            ends = weights[mixed].cumsum(0)
            count = 2 * _SAMPLE
            steps = torch.arange(count, dtype=ends.dtype, device=ends.device) + 0.5
            kept = torch.searchsorted(ends, steps * (ends[-1:] / count)).clamp(max=n - 1)
            values = values[mixed[kept]]
            weights = (ends[-1:] / count).expand(count)
        return Sample(values, weights, least, greatest)

    @cached_property
    def ranked(self) -> tuple[Tensor, Tensor]:
        """The values in order, and the rank of each as a fraction from 0 to 1."""
        values, order = self.values.sort()
        weights = self.weights[order]
        middles = weights.cumsum(0) - weights / 2
        return values, (middles - middles[:1]) / (middles[-1:] - middles[:1])

    def quantile(self, fraction: float) -> Tensor:
        """A quantile, interpolated linearly as by numpy's default; NaN if any value is NaN."""
        values, ranks = self.ranked
        if values.numel() == 1:
            return values[0]
        wanted = torch.full_like(ranks[:1], fraction)
        above = torch.searchsorted(ranks, wanted).clamp(1, values.numel() - 1)
        between = _between(values, ranks, above, wanted)
        return torch.where(values[-1:].isnan(), values[-1:], between)[0]  # NaN sorts last

    def histogram(self) -> Tensor:
        """(65,) The ascending bounds of 64 bins that each hold a 64th of the finite elements."""
        finite = self.values.isfinite()
        values, order = self.values.where(finite, math.inf).sort()  # not finite: last
        weights = (self.weights * finite)[order]
        middles = weights.cumsum(0) - weights / 2
        last = (finite.sum() - 1).clamp(min=0).reshape(1)
        ranks = (middles - middles[:1]) / (middles.gather(0, last) - middles[:1])
        wanted = torch.arange(_PARTS + 1, dtype=ranks.dtype, device=ranks.device) / _PARTS
        above = torch.minimum(torch.searchsorted(ranks, wanted), last)
        bounds = _between(values, ranks, above, wanted)
        bounds[0], bounds[-1] = self.least, self.greatest
        return bounds.where(bounds.isfinite(), math.nan)


def _between(values: Tensor, ranks: Tensor, above: Tensor, wanted: Tensor) -> Tensor:
    """Values at the wanted ranks, interpolated between the values at `above` and before it."""
    before = (above - 1).clamp(min=0)
    x, y = ranks.gather(0, before), ranks.gather(0, above)
    share = ((wanted - x) / (y - x)).where(y > x, 0.0)
    low, high = values.gather(0, before), values.gather(0, above)
    # At the rank of a neighbour the result is exactly its value, however far the other one is.
    between = torch.lerp(low, high, share).where(share < 1, high)
    return between.where((share > 0) & (low != high), low)


def _finite_extremes(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest finite element."""
    if flat.is_cpu:
        least, greatest = torch.aminmax(flat)
        if math.isfinite(least.item()) and math.isfinite(greatest.item()):
            return least, greatest
    finite = flat.isfinite()
    return flat.where(finite, math.inf).amin(), flat.where(finite, -math.inf).amax()


def _prime_to(n: int, stride: int) -> int:
    """The least number from `stride` on that is coprime to n, or n itself."""
    while math.gcd(stride, n) > 1 and stride < n:
        stride += 1
    return stride


SAMPLE = Measure(Sample.of, Sample.merge)
"""A `Sample`."""


# ---------------------------------------------------------------- powers of two

_BIAS = 127  # of float32's exponents
_LEAST, _MOST = -24, 16  # the range of float16: 2**-24 is its least number, 2**16 is above it


def _powers(tensor: Tensor) -> Partial:
    """(83,) int64 The number of finite elements in each bin between powers of two."""
    # The sign and the exponent are the upper nine bits of a float32.
    codes = _flat(tensor).float().view(torch.int32).bitwise_right_shift(23).bitwise_and(0x1FF)
    counts = torch.bincount(codes, minlength=512) if codes.is_cpu else counts_there(codes)
    positive, negative = (_by_power(half) for half in counts.view(2, 256))
    return torch.cat([negative[1:].flip(0), negative[:1] + positive[:1], positive[1:]])


def counts_there(codes: Tensor) -> Tensor:
    """(512,) Count the codes 0 to 511 on an accelerator, where bincount would wait."""
    # Float32 cannot count beyond 2^24.
    wide = torch.float32 if codes.device.type == "mps" else torch.float64
    return torch.histc(codes.to(wide), bins=512, min=0, max=512).long()


def _by_power(counts: Tensor) -> Tensor:
    """(42,) The counts below all powers, between each two, and from the last on; finite only."""
    first, last = _BIAS + _LEAST, _BIAS + _MOST
    below, above = counts[:first].sum(0, keepdim=True), counts[last:255].sum(0, keepdim=True)
    return torch.cat([below, counts[first:last], above])


POWERS = Measure(_powers, lambda a, b: a + b)
"""(83,) int64 counts of finite elements in bins that are equal for all tensors: up to −2^16,
between −2^16 and −2^15, …, up to −2^−24; smaller than 2^−24; from 2^−24 on, …, from 2^16 on."""


# ---------------------------------------------------------------- dead units


def _alive(tensor: Tensor) -> Partial:
    alive = tensor.ne(0)
    if tensor.dim() > 1:
        alive = alive.flatten(0, -2).any(0)
    return {alive.numel(): alive.reshape(-1)}


def _merge_alive(a: Partial, b: Partial) -> Partial:
    return {**a, **b, **{units: a[units] | b[units] for units in a.keys() & b.keys()}}


ALIVE = Measure(_alive, _merge_alive)
"""By the number of units: which units were nonzero somewhere in the batch.

The last dimension of its tensors must count units; units.py finds that dimension.
"""


def dead(alive: Partial) -> Number:
    """The fraction of units that were zero everywhere, from a result of `ALIVE`."""
    living = item(torch.stack([mask.sum() for mask in alive.values()]).sum())
    return 1 - ratio(living, float(sum(alive)))


# ---------------------------------------------------------------- fingerprints

Fingerprint: TypeAlias = int | Tensor
"""An integer below 2^53; for a tensor on an accelerator, a 0-d int64 tensor there."""

_CHAIN = 1_000_003
_AT_ONCE = 1 << 24  # elements; temporarily takes at least four times their memory
_SPREAD = (1 << 31) - 1  # a prime that spreads 32 bits over 63
_WORD = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64)  # as int64
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(tensor: Tensor) -> Fingerprint:
    """A hash of a tensor's bits, dtype and shape, independent of its strides.

    On the CPU it is the CRC-32 of dtype, shape and bytes in C order. Different tensors have equal
    fingerprints with a probability of 2^-32, and never if they differ only within 32 adjacent bits.
    On an accelerator it is 2^52 plus the upper 52 bits of the sum, modulo 2^64, of the elements'
    bits, each multiplied by an odd number that depends on its position. Integer sums are exact in
    any order, and nothing waits for the device. The two kinds cannot be compared; those of the CPU
    are below 2^52.

    >>> fingerprint(torch.tensor([1.0, 2.0])) == fingerprint(torch.tensor([2.0, 1.0]))
    False
    """
    dtype, tensor = tensor.dtype, _dense(tensor.detach())
    head = f"{dtype}{tuple(tensor.shape)}".encode()
    flat = tensor.contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    if not flat.is_cpu:
        return _on_device(flat, crc32(head))
    found: int = crc32(head)
    return int(crc32(flat.view(torch.uint8).numpy(), found)) if flat.numel() else found


def of_text(text: str) -> int:
    """The fingerprint of a string."""
    return int(crc32(text.encode("utf-8", "surrogatepass")))


def _dense(tensor: Tensor) -> Tensor:
    """A dense tensor in this process: a DTensor's local part, a sparse tensor made dense, or a
    quantized one's numbers."""
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return tensor.resolve_conj().resolve_neg()


def chained(before: Fingerprint, after: Fingerprint) -> Fingerprint:
    """Combine two fingerprints into one that depends on their order."""
    if isinstance(before, Tensor) or isinstance(after, Tensor):
        device = before.device if isinstance(before, Tensor) else _device(after)
        first, second = (torch.as_tensor(each, device=device) for each in (before, after))
        return _upper(first * _CHAIN + second)
    return ((before * _CHAIN + after) & _WORD) >> 12


def _device(value: Fingerprint) -> torch.device:
    return value.device if isinstance(value, Tensor) else torch.device("cpu")


def _upper(word: Tensor) -> Tensor:
    """The upper 52 of 64 bits, and the sign of an accelerator."""
    upper = word.bitwise_right_shift(12).bitwise_and(ON_ACCELERATOR - 1)
    return upper.bitwise_or(ON_ACCELERATOR)


def _on_device(flat: Tensor, head: int) -> Tensor:
    """The sum of the elements' bits, each multiplied by an odd number for its position."""
    words = flat.view(_WORDS[flat.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, words.numel(), _AT_ONCE):
        part = words[start : start + _AT_ONCE].long()
        place = torch.arange(start + 1, start + 1 + part.numel(), device=flat.device)
        mixed = place * _MIX[0]
        mixed = (mixed ^ mixed.bitwise_right_shift(29)) * _MIX[1]
        total += (part * (mixed | 1)).sum()
    return _upper(total * _CHAIN + head * _SPREAD)


def fingerprint_number(found: Fingerprint) -> Number:
    """Convert a fingerprint to a float, which represents it exactly, as statistics are."""
    return found.double() if isinstance(found, Tensor) else float(found)


FINGERPRINT = Measure(fingerprint, chained)
"""A `Fingerprint`; for several tensors it depends on their order."""
