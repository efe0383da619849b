"""Meters of classifications: how often the class is right, and which is taken for which."""

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
    number; or those of pixels, (N, C, H, W) and (N, H, W), each a sample. Of equal scores the
    lower class comes first; NaN counts as the highest score. A target that is none of the C
    classes is wrong, as in TNT, unless it is ignored. None gives nan.
    Gives one percentage for each k, in ascending order of k. O(1) memory.

    Args:
        topk: one k or several.
        accuracy: give 100 minus the error.
        ignore: a target, or several, whose samples do not count, such as -100 of padding.

    Raises:
        MeterError: shapes do not fit; C is 1; a k is greater than C.
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
        """Forget all samples."""
        self._n = 0.0
        self._wrong = dict.fromkeys(self.topk, 0.0)

    def add(self, output: Any, target: Any) -> None:
        """Take in scores and classes."""
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
        """Take in the samples that a state stands for."""
        if len(wrong) != len(self.topk):
            raise MeterError(f"state must be of topk {self.topk}, got {len(wrong)} counts")
        self._n += n
        for k, more in zip(self.topk, wrong, strict=True):
            self._wrong[k] += more


class ConfusionMeter(Meter):
    """How often each class (row) was taken for each class (column).

        >>> meter = ConfusionMeter(k=2)
        >>> meter.add([0, 1, 1], [0, 0, 1])
        >>> meter.value().tolist()
        [[1, 1], [0, 1]]

    Takes (predicted, target): predicted classes (N,), (N, 1) or a number, or scores (N, k), of
    which the highest counts, the lower class of equals; target classes, or one-hot rows (N, k).
    Or those of pixels, (N, H, W) and (N, k, H, W), each a sample.
    Gives a matrix (k, k): rows are the targets, columns the predicted classes; int64 counts, or
    with `normalized` each row divided by its sum (a row without samples stays 0). None gives
    zeros, as in TNT. O(k²) memory.

    Args:
        k: the number of classes; None: as many as the scores have, or the classes that came.
        normalized: give shares of each row.
        ignore: a target class, or several, whose samples do not count, such as -100 of padding.

    Raises:
        MeterError: shapes do not fit; classes outside 0 to k − 1; a target row that is not
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
        """Forget all samples."""
        self._counts = np.zeros((self.k or 0, self.k or 0), np.int64)

    def add(self, predicted: Any, target: Any) -> None:
        """Take in predictions and targets."""
        k, rows, columns = self.reduction.samples(predicted, target, len(self._counts))
        self._grow(k)
        tally(rows, columns, self._counts)

    def value(self) -> Array:
        """The matrix, as an array of its own."""
        if not self.normalized:
            return self._counts.copy()
        shares: Array = self._counts / self._counts.sum(axis=1, keepdims=True).clip(min=1)
        return shares

    def merge(self, k: float, cells: Ints, counts: Ints) -> None:
        """Take in the samples that a state stands for."""
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
