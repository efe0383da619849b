"""Meters for classification: the error of the top k classes, and the confusion matrix."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Array
from flexrec.recorder.reduction.class_counts import tally
from flexrec.recorder.reduction.reductions import MOST_CLASSES, Cells, ClassErrors
from flexrec.replay.meters.base import Meter

Ints = NDArray[np.int64]


class ClassErrorMeter(Meter):
    """Percentage of samples whose class is not among the k with the highest scores.

        >>> meter = ClassErrorMeter(topk=[1, 2])
        >>> meter.add([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [1, 1])
        >>> meter.value()
        (50.0, 0.0)

    Takes (output, target): scores (N, C), or (C,) for one sample, and classes (N,), (N, 1) or a
    number; or scores (N, C, H, W) and classes (N, H, W), where each pixel is a sample. Among equal
    scores the lower class comes first; NaN counts as the highest score. A target that is none of
    the C classes counts as an error, as in TNT, unless it is ignored.
    Gives one percentage for each k, in ascending order of k; without values nan. O(1) memory.

    Args:
        topk: one k or several.
        accuracy: give 100 minus the error.
        ignore: a target, or several, whose samples do not count, such as -100 for padding.

    Raises:
        MeterError: the shapes do not match; C is 1; a k is greater than C.
    """

    fields: tuple[str, ...] = ("top1",)
    reduction: ClassErrors

    def __init__(
        self,
        topk: int | Iterable[int] = (1,),
        accuracy: bool = False,
        ignore: int | Iterable[int] | None = None,
    ) -> None:
        self.reduction = ClassErrors(topk, ignore)
        self.topk: tuple[int, ...] = self.reduction.topk
        self.accuracy = accuracy
        self.fields = tuple(f"top{k}" for k in self.topk)
        self.reset()

    def reset(self) -> None:
        """Discard all samples."""
        self._n = 0.0
        self._wrong = dict.fromkeys(self.topk, 0.0)

    def add(self, output: Any, target: Any) -> None:
        """Add scores and classes."""
        self.merge(*self.reduction.state_of(output, target))

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

    def merge(self, n: float, *wrong: float) -> None:
        """Merge a state."""
        if len(wrong) != len(self.topk):
            raise MeterError(f"state must be of topk {self.topk}, got {len(wrong)} counts")
        self._n += n
        for k, more in zip(self.topk, wrong, strict=True):
            self._wrong[k] += more


class ConfusionMeter(Meter):
    """The confusion matrix: how often each target class (row) was predicted as each class (column).

        >>> meter = ConfusionMeter(k=2)
        >>> meter.add([0, 1, 1], [0, 0, 1])
        >>> meter.value().tolist()
        [[1, 1], [0, 1]]

    Takes (predicted, target): predicted classes (N,), (N, 1) or a number, or scores (N, k), of
    which the highest counts, and among equal scores the lower class; target classes, or one-hot
    rows (N, k). Or the same for pixels, (N, H, W) and (N, k, H, W), where each pixel is a sample.
    Gives a matrix (k, k): rows are the targets, columns the predicted classes; int64 counts, or
    with `normalized` each row divided by its sum (a row without samples stays 0). Without values
    gives zeros, as in TNT. O(k²) memory.

    Args:
        k: the number of classes; None: the number of scores, or of the classes that were added.
        normalized: give fractions of each row.
        ignore: a target class, or several, whose samples do not count, such as -100 for padding.

    Raises:
        MeterError: the shapes do not match; a class is outside 0 to k − 1; a target row is not
            one-hot.
    """

    fields = ("confusion",)
    reduction: Cells

    def __init__(
        self,
        k: int | None = None,
        normalized: bool = False,
        ignore: int | Iterable[int] | None = None,
    ) -> None:
        self.reduction, self.k = Cells(k, ignore), k
        self.normalized = normalized
        self.reset()

    def reset(self) -> None:
        """Discard all samples."""
        self._counts = np.zeros((self.k or 0, self.k or 0), np.int64)

    def add(self, predicted: Any, target: Any) -> None:
        """Add predictions and targets."""
        k, rows, columns = self.reduction.samples(predicted, target, len(self._counts))
        self._grow(k)
        tally(rows, columns, self._counts)

    def value(self) -> Array:
        """The matrix, as a new array."""
        if not self.normalized:
            return self._counts.copy()
        shares: Array = self._counts / self._counts.sum(axis=1, keepdims=True).clip(min=1)
        return shares

    def merge(self, k: float, cells: Ints, counts: Ints) -> None:
        """Merge a state."""
        size = int(k)
        fits = size == self.k if self.k else size <= MOST_CLASSES
        if not fits or (cells.size and not 0 <= cells.min() <= cells.max() < size * size):
            raise MeterError(f"state must be of {self.k or 'few'} classes, got {k:g}")
        self._grow(size)
        rows, columns = np.divmod(cells, max(1, size))
        self._counts[rows, columns] += counts

    def _grow(self, k: int) -> None:
        more = k - len(self._counts)
        if more > 0:
            self._counts = np.pad(self._counts, (0, more))
