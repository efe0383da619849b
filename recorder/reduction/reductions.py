"""The reductions of the meters that have a small state.

The meters (flexrec.replay.meters) use the same functions, so replaying a recorded state gives the
same result as the raw value, to the bit. This module contains no meters, uses no files and does not
import torch.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Array, Part, Reduction
from flexrec.recorder.reduction.class_counts import cells, highest, ranks_from_below, sparse, tally
from flexrec.recorder.reduction.validation import (
    NUMBERS,
    array,
    count,
    counting,
    flattened,
    ignored,
    labels,
    number,
    shapes_differ,
    span,
)

Ints = NDArray[np.signedinteger[Any]]

MOST_CLASSES = 1 << 12
"""The most classes of a matrix whose size is not given."""
_BLOCK = 1 << 15
"""The number of errors that are squared and added at a time, to fit the processor's cache."""
_FINEST = -1074
"""The exponent of the smallest float64."""


@dataclass(frozen=True)
class Averages(Reduction):
    """The reduction of AverageValueMeter."""

    mean: bool = False

    meter = "AverageValueMeter"
    optional = ("mean",)

    def serves(self, asked: Reduction) -> bool:
        """Whether `asked` is a reduction of the same kind that does not take sums for means."""
        return isinstance(asked, Averages) and self.mean >= asked.mean

    def state_of(self, value: Any, n: float = 1) -> tuple[float, Part, float, float]:
        """(count, first value, mean minus first value, sum of squared deviations)."""
        many = number("n", n)
        if not (many >= 1 and many % 1 == 0):
            raise MeterError(f"n must be a whole number of at least 1, got {n}")
        parts = 1.0 if self.mean else many
        if isinstance(value, NUMBERS):
            return many, number("value", value) / parts, 0.0, 0.0
        values = array("value", value)
        if values.size == 1:
            return many, float(values.reshape(())) / parts, 0.0, 0.0
        return many, np.divide(values, parts, dtype=np.float64), 0.0, 0.0


def doubted_sum(value: Any, n: float, *, is_first: bool) -> str | None:
    """A message if a pair that is taken for (sum, n) looks like (mean, n).

    That is if it is below 1, or for the first pair, no whole number and far below n.
    """
    if n <= 1 or not isinstance(value, float):
        return None
    most = max(1.0, n / 4) if is_first and not value.is_integer() else 1.0
    if not 0 < abs(value) < most:
        return None
    return (
        f"({value:g}, {n:g}) is taken for a sum of {n:g} values, {value / n:.3g} each; "
        "where it is their mean, give the AverageValueMeter mean=True, else mean=False"
    )


@dataclass(frozen=True)
class SquaredErrors(Reduction):
    """The reduction of MSEMeter."""

    meter = "MSEMeter"
    shown = ("root",)

    @np.errstate(invalid="ignore", over="ignore")  # takes half the time of a with statement
    def state_of(self, output: Any, target: Any) -> tuple[float, float]:
        """(sum of squared errors, count)."""
        output, target = array("output", output), array("target", target)
        if output.shape != target.shape and not output.size == target.size == 1:
            raise shapes_differ(("output", "target"), (output, target))
        output, target = output.ravel(), target.ravel()
        total = 0.0
        for i in range(0, output.size, _BLOCK):
            part = slice(i, i + _BLOCK)
            errors = np.subtract(output[part], target[part], dtype=np.float64)
            # A dot product would be faster, but its last bits depend on the processor.
            errors *= errors
            total += float(np.add.reduce(errors))
        return total, float(output.size)


@dataclass(frozen=True)
class ClassErrors(Reduction):
    """The reduction of ClassErrorMeter. `topk` is one k or several, and is stored sorted."""

    topk: Any = (1,)
    ignore: Any = ()  # a class number or several, kept sorted

    meter = "ClassErrorMeter"
    shown = ("accuracy",)
    optional = ("ignore",)

    def __post_init__(self) -> None:
        ks = self.topk if isinstance(self.topk, Iterable) else (self.topk,)
        object.__setattr__(self, "topk", tuple(sorted({count("topk", k) for k in ks})))
        if not self.topk:
            raise ValueError("topk must name at least one k")
        object.__setattr__(self, "ignore", ignored(self.ignore))

    def state_of(self, output: Any, target: Any) -> tuple[float, ...]:
        """(number of samples, then for every k the number of wrong ones)."""
        scores, classes = flattened(array("output", output), array("target", target))
        scores = scores if scores.ndim == 2 else np.atleast_2d(scores)
        if scores.ndim != 2 or classes.size != len(scores) or classes.ndim > 2:
            raise shapes_differ(("output", "target"), (scores, classes))
        classes = classes.reshape(-1)
        if self.ignore:
            counts = counting(classes, self.ignore)
            scores, classes = scores[counts], classes[counts]
        n, C = scores.shape
        if C == 1:
            raise MeterError(
                "output must have a column of scores for each class, got one alone; of one score "
                "for each sample AUCMeter makes a curve, and ConfusionMeter takes classes"
            )
        if self.topk[-1] > C:
            raise MeterError(
                f"topk must be at most the number of classes, got {self.topk[-1]} "
                f"for output {scores.shape}"
            )
        if self.topk == (1,):
            return float(n), float(np.count_nonzero(highest(scores) != classes))
        if classes.dtype != np.int64 or span(classes) > C:
            known = (classes >= 0) & (classes < C) & (classes == np.floor(classes))
            scores, classes = scores[known], classes[known].astype(np.int64)
        rest = ranks_from_below(scores, classes)
        return float(n), *(float(n - np.count_nonzero(rest > C - k)) for k in self.topk)


@dataclass(frozen=True)
class Cells(Reduction):
    """The reduction of ConfusionMeter."""

    k: int | None = None
    ignore: Any = ()  # a class number or several, kept sorted

    meter = "ConfusionMeter"
    shown = ("normalized",)
    optional = ("ignore",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignore", ignored(self.ignore))
        if self.k is not None:
            object.__setattr__(self, "k", count("k", self.k))

    def state_of(self, predicted: Any, target: Any) -> tuple[float, Ints, Ints]:
        """(k, flat indices of the matrix's nonzero cells, their counts)."""
        k, rows, columns = self.samples(predicted, target)
        if rows.size * 64 < k * k:
            return float(k), *np.unique(cells(rows, columns, k), return_counts=True)
        counts = np.zeros((k, k), np.int64)
        tally(rows, columns, counts)
        return sparse(counts)

    def serves(self, asked: Reduction) -> bool:
        """A meter without a given size can read states of any size."""
        if not isinstance(asked, Cells):
            return False
        return asked.k in (None, self.k) and asked.ignore == self.ignore

    def samples(self, predicted: Any, target: Any, least: int = 0) -> tuple[int, Ints, Ints]:
        """k (if not given, at least `least`), and each sample's row and column in (k, k)."""
        came = array("predicted", predicted), array("target", target)
        predicted, target = self._samples(*came)
        columns, wide = self._classes("predicted", predicted)
        rows, high = self._classes("target", target)
        if columns.shape != rows.shape:
            raise shapes_differ(("predicted", "target"), came)
        if self.ignore:  # also among one-hot rows
            counts = counting(rows, self.ignore)
            rows, columns = rows[counts], columns[counts]
        return self.k or max(wide, high, least), rows, columns

    def _samples(self, predicted: Array, target: Array) -> tuple[Array, Array]:
        """Both as one row or number for each sample that is not ignored."""
        if predicted.ndim > 2 and predicted.shape == target.shape:
            predicted, target = predicted.reshape(-1), target.reshape(-1)
        predicted, target = flattened(predicted, target)
        target, predicted = flattened(target, predicted)
        if self.ignore and target.size == np.shape(np.atleast_1d(predicted))[0]:
            counts = counting(target.reshape(-1), self.ignore)
            predicted, target = np.atleast_1d(predicted)[counts], target.reshape(-1)[counts]
        return predicted, target

    def _classes(self, what: str, found: Array) -> tuple[Ints, int]:
        """The classes (N,), and the least number of classes they imply."""
        if found.ndim < 2 or (found.ndim == 2 and found.shape[1] == 1):
            return labels(what, found, self.k or MOST_CLASSES)
        wide = found.shape[1]
        if found.ndim != 2 or not 0 < wide <= (self.k or MOST_CLASSES) or wide < (self.k or 1):
            k = self.k or "k"
            raise MeterError(
                f"{what} must be classes (N,), or (N, {k}), got shape {found.shape}; pixels are "
                f"(N, H, W), or scores (N, {k}, H, W)"
            )
        classes = highest(found)
        if what == "target":
            at = found.take(np.arange(0, found.size, wide) + classes)
            if not np.count_nonzero(found) == np.count_nonzero(at == 1) == len(found):
                raise MeterError(f"{what} must be one-hot rows, each with a single 1 among zeros")
        return classes, wide


@dataclass(frozen=True)
class Bins(Reduction):
    """The reduction of HistogramMeter."""

    bins: int = 64
    range: Any = None  # (lowest, highest)

    meter = "HistogramMeter"

    def __post_init__(self) -> None:
        least = 2 if self.range is None else 1
        object.__setattr__(self, "bins", count("bins", self.bins, least=least))
        if self.range is not None:
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"range must be (lowest, highest), both finite, got {self.range}")
            object.__setattr__(self, "range", (float(low), float(high)))

    def state_of(self, values: Any) -> tuple[Part, ...]:
        """(counts,); without a range (counts, first bin, exponent of the bin width)."""
        found = array("values", values).ravel()
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            found = found[np.isfinite(found)]
        return self.state_of_counts(found.astype(np.float64, copy=False))

    def state_of_counts(self, values: NDArray[np.float64], counts: Any = None) -> tuple[Part, ...]:
        """The state for values (N,) that each occur `counts` (N,) times, by default once."""
        if self.range is not None:
            found = np.histogram(values, self.bins, self.range, weights=counts)[0]
            return (found.astype(np.int64),)
        if counts is not None:
            values, counts = values[counts > 0], counts[counts > 0]
        if not values.size:
            return np.zeros(0, np.int64), 0.0, 0.0
        exponent = _exponent(float(values.min()), float(values.max()), self.bins)
        places = _places(values, exponent)
        first = places.min()
        found = np.bincount(places - first, counts).astype(np.int64)
        return found, float(first), float(exponent)


def _exponent(least: float, most: float, bins: int) -> int:
    """The least exponent of a bin width with which `bins` bins cover both, within float64."""
    largest = max(abs(least), abs(most))
    exponent = max(math.frexp(largest)[1] - 53, _FINEST) if largest else _FINEST
    if least < most:
        exponent = max(exponent, math.frexp(most / bins - least / bins)[1] - 1)
    while np.ptp(_places(np.array([least, most]), exponent)) >= bins:
        exponent += 1
    return exponent


def _places(values: NDArray[np.float64], exponent: int) -> Ints:
    """The bin of each value: the largest n with n · 2**exponent ≤ value."""
    places: Ints = np.floor(np.ldexp(values, -exponent)).astype(np.int64)
    np.minimum(places, -1, out=places, where=values < 0)  # also values that underflowed to zero
    return places


REDUCTIONS: dict[str, type[Reduction]] = {
    kind.meter: kind for kind in (Averages, Bins, Cells, ClassErrors, SquaredErrors)
}
"""All reductions, by the meters' names."""
