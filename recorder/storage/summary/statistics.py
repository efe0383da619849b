"""Statistics of a key's numbers: how many, the last, the least, the greatest, and the mean."""

import math
from collections.abc import Sequence
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
    total: float = 0.0

    @property
    def mean(self) -> float:
        """The mean of the finite values; NaN if there is none."""
        return self.total / self.finite if self.finite else math.nan

    @property
    def not_finite(self) -> int:
        """The number of values that are NaN or infinite."""
        return self.count - self.finite

    def take(self, step: Ints, values: NDArray[np.floating]) -> None:
        """Add the next values, with their steps."""
        take_rows([self], step, values[np.newaxis])


def take_rows(found: Sequence[Statistics], step: Ints, values: NDArray[np.floating]) -> None:
    """Add the next values of several keys, which share their steps.

    Args:
        found: the statistics of each key.
        step: (values,).
        values: (keys, values).
    """
    if not values.size:
        return
    values = np.ascontiguousarray(values)  # else numpy adds up a key's values less exactly
    first, last, last_at = int(step.min()), int(step.max()), int(step[-1])
    kept = np.isfinite(values)
    lows = highs = finite = values
    if not kept.all():
        lows, highs = np.where(kept, values, np.inf), np.where(kept, values, -np.inf)
        finite = np.where(kept, values, 0)
    i, k = lows.argmin(axis=1), highs.argmax(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        totals = finite.sum(axis=1)
    key = np.arange(len(values))
    columns = (kept.sum(axis=1), values[:, -1], lows[key, i], step[i], highs[key, k], step[k])
    for one, n, end, low, low_at, high, high_at, total in zip(
        found, *(column.tolist() for column in columns), totals.tolist(), strict=True
    ):
        before = one.steps or (first, last)
        one.steps = min(before[0], first), max(before[1], last)
        one.count += len(step)
        one.last, one.last_at = end, last_at
        if not n:
            continue
        one.finite += n
        one.total += total
        if not one.least <= low:  # NaN, at first, is never less
            one.least, one.least_at = low, low_at
        if not one.greatest >= high:
            one.greatest, one.greatest_at = high, high_at
