"""Meters that average: over all values, or over the last few."""

import math
from typing import Any

import numpy as np

from flexrec.recorder.errors import MeterError, warn
from flexrec.recorder.events import Array
from flexrec.recorder.reduction.reductions import Averages, doubted_sum
from flexrec.recorder.reduction.validation import NUMBERS, array, count, number
from flexrec.replay.meters.base import Meter
from flexrec.replay.meters.slices import Floats, Ints, moments, overlap, own_parts


class AverageValueMeter(Meter):
    """Mean and standard deviation of all values since the last reset.

        >>> meter = AverageValueMeter()
        >>> for value in (1.0, 2.0, 6.0):
        ...     meter.add(value)
        >>> meter.value()
        (3.0, 2.6457513110645907)

    Takes a number, or an array: arrays of one shape are averaged element by element. `add(s, n)`
    adds n values of s / n each, so that their sum is s; with `mean`, n values of s each.
    Gives (mean, std); std is the sample standard deviation (divided by n − 1). The std of one value
    is infinite; without values gives (nan, nan): both as in TNT. With infinite values the mean is
    their mean and the std is nan.

    Formula: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances", eq. 2.1, on values from which the first one is subtracted, so that the std is
    accurate for any offset. O(1) memory.

    Args:
        mean: whether pairs are (mean, n), as for a loss that is averaged over its batch. By default
            they are (sum, n), as in TNT, with a warning if that looks like a mistake; False means
            (sum, n) without a warning.

    Raises:
        MeterError: a value is not a number; n is not a whole number above 0; the array's shape
            changes.
    """

    fields = ("mean", "std")
    reduction: Averages

    def __init__(self, mean: bool | None = None) -> None:
        if mean not in (None, False, True):
            raise ValueError(f"mean must be true or false, got {mean!r}")
        self.reduction = Averages(bool(mean))
        self._doubts, self._begins = mean is None, True
        self.reset()

    def reset(self) -> None:
        """Discard all values."""
        self._n = 0.0
        self._first: Any = 0.0
        self._mean: Any = 0.0  # mean of the values minus the first one
        self._squares: Any = 0.0  # sum of squared deviations from the mean

    def add(self, value: Any, n: float = 1) -> None:
        """Add a value, or n values by their sum."""
        if type(n) is not int and array("n", n).size != 1:
            raise MeterError("it takes a number or an array, or a sum and a count, not a pair")
        if n == 1 and isinstance(value, NUMBERS) and type(self._mean) is float:
            # the same as below, several times as fast
            self._merge(1.0, value if type(value) is float else number("value", value), 0.0, 0.0)
        else:
            doubt = doubted_sum(value, n, is_first=self._begins) if self._doubts else None
            self._begins = self._begins and n <= 1
            if doubt is not None:
                self._doubts = False
                warn(doubt)
            self.merge(*self.reduction.state_of(value, n))

    def value(self) -> tuple[Any, Any]:
        """(mean, std)."""
        if self._n == 0:
            return math.nan, math.nan
        mean = self._first + self._mean
        if isinstance(mean, np.ndarray):
            with np.errstate(divide="ignore", invalid="ignore"):
                std = np.full_like(mean, np.inf)
                return mean, std if self._n == 1 else np.sqrt(self._squares / (self._n - 1))
        return mean, math.inf if self._n == 1 else math.sqrt(self._squares / (self._n - 1))

    def merge(self, n: float, first: Any, mean: Any, squares: Any) -> None:
        """Merge a state."""
        if n == 0:
            return
        if type(first) is type(self._first) is float:
            self._merge(float(n), first, float(mean), float(squares))
            return
        if self._n and np.shape(first) != np.shape(self._first):
            raise MeterError(
                f"value must have shape {np.shape(self._first)} as before, got {np.shape(first)}"
            )
        if isinstance(first, np.ndarray):
            with np.errstate(invalid="ignore", over="ignore"):
                self._merge_arrays(n, first, mean, squares)
        else:
            self._merge(float(n), float(first), float(mean), float(squares))

    def add_all(self, values: Floats) -> None:
        """Add many numbers at once."""
        found = moments(values, np.array([0]), np.array([len(values)]))
        self.merge(len(values), *(float(each[0]) for each in found))

    def reduce_slices(self, values: Floats, starts: Ints, stops: Ints) -> tuple[Floats, ...] | None:
        """The mean and std of every slice."""
        begins, goes_on = own_parts(starts, stops)
        if overlap(begins, stops):
            return None
        lengths = stops - begins
        filled = lengths > 0
        first, mean, squares = np.zeros((3, len(starts)))
        found = moments(values, begins[filled], stops[filled])
        first[filled], mean[filled], squares[filled] = found
        if not goes_on.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                return first + mean, np.where(lengths > 1, np.sqrt(squares / (lengths - 1)), np.inf)
        meter, results = AverageValueMeter(), []
        columns = (goes_on, lengths.astype(np.float64), first, mean, squares)
        for more, n, *part in zip(*(column.tolist() for column in columns), strict=True):
            if not more:
                meter.reset()
            if n:  # not true after two consecutive logs
                meter._merge(n, *part)
            results.append(meter.value())
        means, stds = np.array(results).T
        return means, stds

    def _merge(self, n: float, first: float, mean: float, squares: float) -> None:
        if self._n == 0:
            self._first = first if math.isfinite(first) else 0.0
            self._n, self._mean, self._squares = n, first - self._first + mean, squares
            return
        before = self._n
        self._n += n
        shifted = first - self._first + mean
        delta = shifted - self._mean
        if math.isfinite(delta):
            self._mean += delta / (self._n / n)
            self._squares += squares + delta * delta * (before * n / self._n)
        else:  # the weighted mean keeps an infinity that the difference makes nan
            self._mean = self._mean * (before / self._n) + shifted * (n / self._n)
            self._squares = math.nan

    def _merge_arrays(self, n: float, first: Array, mean: Any, squares: Any) -> None:
        """`_merge`, element by element."""
        if self._n == 0:
            self._first = np.where(np.isfinite(first), first, 0.0)
            self._mean = first - self._first + mean
            self._n, self._squares = n, squares + np.zeros_like(first)
            return
        before = self._n
        self._n += n
        shifted = first - self._first
        shifted += mean
        delta = shifted - self._mean
        grown = delta * delta
        grown *= before * n / self._n
        grown += squares
        grown += self._squares
        known = np.isfinite(delta)
        delta /= self._n / n
        delta += self._mean
        if np.count_nonzero(known) < known.size:
            weighted = self._mean * (before / self._n) + shifted * (n / self._n)
            delta, grown = np.where(known, delta, weighted), np.where(known, grown, np.nan)
        self._mean, self._squares = delta, grown


class MovingAverageValueMeter(Meter):
    """Mean and standard deviation of the last `windowsize` numbers since the last reset.

        >>> meter = MovingAverageValueMeter(windowsize=2)
        >>> for value in (1.0, 2.0, 6.0):
        ...     meter.add(value)
        >>> meter.value()
        (4.0, 2.8284271247461903)

    Takes a number. Gives (mean, std); std is the sample standard deviation (divided by n − 1), 0
    for one value. Without values gives (0, 0), as in TNT. Computed from the whole window at every
    read, so that a NaN has no effect once it has left the window. O(windowsize) memory.

    Raises:
        MeterError: a value is not a number.
    """

    fields = ("mean", "std")

    def __init__(self, windowsize: int) -> None:
        self.windowsize = count("windowsize", windowsize)
        self._window = np.zeros(min(self.windowsize, 16))
        self.reset()

    def reset(self) -> None:
        """Discard all values."""
        self._n = 0

    def add(self, value: Any) -> None:
        """Add a number."""
        if type(value) is not float:
            value = number("value", value)
        at = self._n % self.windowsize
        if at == len(self._window):  # grow the window as it fills
            self._window = np.resize(self._window, min(2 * at, self.windowsize))
        self._window[at] = value
        self._n += 1

    def value(self) -> tuple[float, float]:
        """(mean, std) of the window."""
        n = min(self._n, self.windowsize)
        if n == 0:
            return 0.0, 0.0
        first, mean, squares = moments(self._window[:n], np.array([0]), np.array([n]))
        return float(first[0] + mean[0]), math.sqrt(squares[0] / max(1, n - 1))

    def add_all(self, values: Floats) -> None:
        """Add many numbers, of which the last are kept."""
        super().add_all(values[-self.windowsize :])

    def reduce_slices(self, values: Floats, starts: Ints, stops: Ints) -> tuple[Floats, ...] | None:
        """The mean and std of the last `windowsize` values of every slice."""
        starts = np.maximum(starts, stops - self.windowsize)
        first, mean, squares = moments(values, starts, stops)
        return first + mean, np.sqrt(squares / np.maximum(1, stops - starts - 1))
