"""Statistics of a key's numbers: how many, the last, the least, the greatest, and the mean."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.storage.arrays import Ints


@dataclass
class Statistics:
    """The statistics of numbers that are given part by part.

    >>> found = Statistics()
    >>> found.take(np.arange(3), np.array([2.0, np.nan, 1.0]))
    >>> found.last, found.least, found.least_at, found.mean, found.not_finite
    (1.0, 1.0, 2, 1.5, 1)

    Attributes:
        count: the number of values.
        finite: the number of values that are finite; least, greatest and mean are of these.
        steps: the lowest and the highest step; None if there is no value.
        last, last_at: the last value, and its step.
        least, least_at, greatest, greatest_at: the least and the greatest value, and the step at
            which each came first.
    """

    count: int = 0
    finite: int = 0
    steps: tuple[int, int] | None = None
    last: float = math.nan
    last_at: int = 0
    least: float = math.nan
    least_at: int = 0
    greatest: float = math.nan
    greatest_at: int = 0
    _total: float = 0.0

    @property
    def mean(self) -> float:
        """The mean of the finite values; NaN if there is none."""
        return self._total / self.finite if self.finite else math.nan

    @property
    def not_finite(self) -> int:
        """The number of values that are NaN or infinite."""
        return self.count - self.finite

    def take(self, step: Ints, values: NDArray[np.floating]) -> None:
        """Add the next values, with their steps."""
        if not len(values):
            return
        first, last = int(step.min()), int(step.max())
        low, high = self.steps or (first, last)
        self.steps = min(low, first), max(high, last)
        self.count += len(values)
        self.last, self.last_at = float(values[-1]), int(step[-1])
        kept = np.isfinite(values)
        if not kept.all():
            step, values = step[kept], values[kept]
        if not len(values):
            return
        i, k = int(values.argmin()), int(values.argmax())
        if not self.least <= values[i]:  # NaN, at first, is never less
            self.least, self.least_at = float(values[i]), int(step[i])
        if not self.greatest >= values[k]:
            self.greatest, self.greatest_at = float(values[k]), int(step[k])
        with np.errstate(over="ignore"):
            self._total += float(values.sum())
        self.finite += len(values)
