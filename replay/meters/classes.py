"""Meters of classifications: how often the class is right, and which is taken for which."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Array
from flexrec.replay.meters.arguments import array, count, labels, shapes_differ
from flexrec.replay.meters.base import Meter

__all__ = ["ClassErrorMeter", "ConfusionMeter"]

Ints = NDArray[np.int64]

_BLOCK = 1 << 16
"""How many values are compared at a time: they stay in the processor's cache."""
_MOST_CLASSES = 1 << 12
"""A matrix whose size is not given grows no larger than this, whatever comes."""


class ClassErrorMeter(Meter):
    """Percentage of samples whose class is not among the k with the highest scores.

        >>> meter = ClassErrorMeter(topk=[1, 2])
        >>> meter.add([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [1, 1])
        >>> meter.value()
        (50.0, 0.0)

    Takes (output, target): scores (N, C), or (C,) for one sample, and classes (N,), (N, 1) or a
    number. Of equal scores the lower class comes first; NaN counts as the highest score. A
    target that is none of the C classes is wrong, as in TNT. None gives nan.
    Gives one percentage for each k, in ascending order of k. O(1) memory.

    Args:
        topk: one k or several.
        accuracy: give 100 minus the error.

    Raises:
        MeterError: shapes do not fit; a k is greater than C.
    """

    fields: tuple[str, ...] = ("top1",)

    def __init__(self, topk: int | Iterable[int] = (1,), accuracy: bool = False) -> None:
        ks = topk if isinstance(topk, Iterable) else (topk,)
        self.topk = tuple(sorted({count("topk", k) for k in ks}))
        if not self.topk:
            raise ValueError("topk must name at least one k")
        self.accuracy = accuracy
        self.fields = tuple(f"top{k}" for k in self.topk)
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._n = 0.0
        self._wrong = dict.fromkeys(self.topk, 0.0)

    def add(self, output: Any, target: Any) -> None:
        """Take in scores and classes."""
        self.merge(*self.state_of(output, target))

    def value(self, k: int | None = None) -> Any:
        """The percentage for every k, or for one."""
        if k is None:
            values = tuple(map(self.value, self.topk))
            return values if len(values) > 1 else values[0]
        if k not in self._wrong:
            raise ValueError(f"k must be one of topk {self.topk}, got {k!r}")
        if not self._n:
            return math.nan
        wrong = self._wrong[k] / self._n
        return (1.0 - wrong) * 100.0 if self.accuracy else wrong * 100.0

    def state_of(self, output: Any, target: Any) -> tuple[float, ...]:
        """(how many, then for every k how many are wrong)."""
        scores, classes = np.atleast_2d(array("output", output)), array("target", target)
        if scores.ndim != 2 or classes.size != len(scores) or classes.ndim > 2:
            raise shapes_differ(("output", "target"), (scores, classes))
        if scores.shape[1] < self.topk[-1]:
            raise MeterError(
                f"topk must be at most the number of classes, got {self.topk[-1]} "
                f"for output {scores.shape}"
            )
        classes = classes.ravel()
        block = max(1, _BLOCK // scores.shape[1])
        wrong = np.zeros(len(self.topk))
        for i in range(0, len(scores), block):
            ranks = _ranks(scores[i : i + block], classes[i : i + block])
            wrong += [np.count_nonzero(ranks >= k) for k in self.topk]
        return float(len(scores)), *wrong.tolist()

    def state(self) -> tuple[float, ...]:
        """(how many, then for every k how many are wrong)."""
        return self._n, *self._wrong.values()

    def merge(self, n: float, *wrong: float) -> None:
        """Take in another meter's samples."""
        if len(wrong) != len(self.topk):
            raise MeterError(f"state must be of topk {self.topk}, got {len(wrong)} counts")
        self._n += n
        for k, more in zip(self.topk, wrong, strict=True):
            self._wrong[k] += more


def _ranks(scores: Array, classes: Array) -> Array:
    """How many classes (of C, at most) come before each sample's own."""
    C, N = scores.shape[1], len(scores)
    known = (classes >= 0) & (classes < C)
    if classes.dtype.kind == "f":
        known &= classes == np.floor(classes)
    own = np.where(known, classes, 0).astype(np.intp)
    columns = np.ascontiguousarray(scores.T)
    at_own = columns[own, np.arange(N)]
    ranks: Array = C - _many(columns <= at_own)  # so NaN comes before
    ties = np.flatnonzero((_many(columns == at_own) > 1) | np.isnan(at_own))
    if ties.size:
        columns, at_own, own = columns[:, ties], at_own[ties], own[ties]
        nan = np.isnan(at_own)
        equal = np.where(nan, np.isnan(columns), columns == at_own)
        above = ~((columns <= at_own) | nan)
        ranks[ties] = _many(above | (equal & (np.arange(C)[:, np.newaxis] < own)))
    ranks[~known] = C
    return ranks


def _many(marked: NDArray[np.bool_]) -> NDArray[np.int32]:
    """How many of each column are marked."""
    many: NDArray[np.int32] = marked.view(np.uint8).sum(axis=0, dtype=np.int32)
    return many


class ConfusionMeter(Meter):
    """How often each class (row) was taken for each class (column).

        >>> meter = ConfusionMeter(k=2)
        >>> meter.add([0, 1, 1], [0, 0, 1])
        >>> meter.value().tolist()
        [[1, 1], [0, 1]]

    Takes (predicted, target): predicted classes (N,), (N, 1) or a number, or scores (N, k), of
    which the highest counts, the lower class of equals; target classes, or one-hot rows (N, k).
    Gives a matrix (k, k): rows are the targets, columns the predicted classes; int64 counts, or
    with `normalized` each row divided by its sum (a row without samples stays 0). None gives
    zeros, as in TNT. O(k²) memory.

    Args:
        k: the number of classes; None: as many as the scores have, or the classes that came.
        normalized: give shares of each row.

    Raises:
        MeterError: shapes do not fit; classes outside 0 to k − 1; a target row that is not
            one-hot.
    """

    fields = ("confusion",)

    def __init__(self, k: int | None = None, normalized: bool = False) -> None:
        self.k = None if k is None else count("k", k)
        self.normalized = normalized
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._counts = np.zeros((self.k or 0, self.k or 0), np.int64)

    def add(self, predicted: Any, target: Any) -> None:
        """Take in predictions and targets."""
        self.merge(*self.state_of(predicted, target))

    def value(self) -> Array:
        """The matrix, as an array of its own."""
        if not self.normalized:
            return self._counts.copy()
        shares: Array = self._counts / self._counts.sum(axis=1, keepdims=True).clip(min=1)
        return shares

    def state_of(self, predicted: Any, target: Any) -> tuple[float, Ints, Ints]:
        """(k, cells of the matrix that are not 0, row by row; their counts)."""
        columns, wide = self._classes("predicted", predicted)
        rows, high = self._classes("target", target)
        if columns.shape != rows.shape:
            raise shapes_differ(("predicted", "target"), (columns, rows))
        k = self.k or max(wide, high)
        if rows.size < k * k:
            return float(k), *np.unique(rows * k + columns, return_counts=True)
        counts = np.zeros(k * k, np.int64)
        for i in range(0, rows.size, _BLOCK):
            block = slice(i, i + _BLOCK)
            counts += np.bincount(rows[block] * k + columns[block], minlength=k * k)
        return _sparse(counts, k)

    def state(self) -> tuple[float, Ints, Ints]:
        """(k, cells of the matrix that are not 0, row by row; their counts)."""
        return _sparse(self._counts.ravel(), len(self._counts))

    def merge(self, k: float, cells: Ints, counts: Ints) -> None:
        """Take in another meter's counts."""
        size = int(k)
        fits = size == self.k if self.k else size <= _MOST_CLASSES
        if not fits or (cells.size and not 0 <= cells.min() <= cells.max() < size * size):
            raise MeterError(f"state must be of {self.k or 'few'} classes, got {k:g}")
        more = size - len(self._counts)
        if more > 0:
            self._counts = np.pad(self._counts, (0, more))
        rows, columns = np.divmod(cells, max(1, size))
        self._counts[rows, columns] += counts

    def _classes(self, what: str, value: Any) -> tuple[Ints, int]:
        """The classes (N,), and how many there are at least."""
        found = array(what, value)
        if found.ndim < 2 or (found.ndim == 2 and found.shape[1] == 1):
            numbers = labels(what, found.ravel(), self.k or _MOST_CLASSES)
            return numbers, int(numbers.max(initial=-1)) + 1
        wide = found.shape[1]
        if found.ndim != 2 or not 0 < wide <= (self.k or _MOST_CLASSES) or wide < (self.k or 1):
            k = self.k or "k"
            raise MeterError(f"{what} must be classes (N,) or (N, {k}), got shape {found.shape}")
        highest: Ints = found.argmax(axis=1)
        if what == "target" and not (
            (np.count_nonzero(found, axis=1) == 1).all() and (found.max(axis=1) == 1).all()
        ):
            raise MeterError(f"{what} must be one-hot rows, each with a single 1 among zeros")
        return highest, wide


def _sparse(counts: Ints, k: int) -> tuple[float, Ints, Ints]:
    cells = np.flatnonzero(counts)
    return float(k), cells, counts[cells]
