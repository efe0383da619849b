"""Meters that keep one value: the best, the last, and the time."""

import math
from typing import Any

import numpy as np

from flexrec.recorder.events import Part
from flexrec.recorder.reduction.validation import array, number
from flexrec.replay.meters.base import Meter
from flexrec.replay.meters.slices import Floats, Ints, overlap, own_parts, reduced


class BestValueMeter(Meter):
    """The smallest, or largest, number since the last reset.

        >>> meter = BestValueMeter(mode="max")
        >>> meter.add(0.5)
        >>> meter.add(0.25)
        >>> meter.value()
        0.5

    Takes a number; NaN is never the best, unless nothing else was added. Without values gives nan.
    For the best value of a whole run, set `reset = false` in its definition. O(1) memory.

    Raises:
        MeterError: a value is not a number.
    """

    fields = ("best",)

    def __init__(self, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        self.mode = mode
        self.reset()

    def reset(self) -> None:
        """Discard all values."""
        self._best = math.nan

    def add(self, value: Any) -> None:
        """Add a number."""
        came = number("value", value)
        better = came < self._best if self.mode == "min" else came > self._best
        if better or math.isnan(self._best):
            self._best = came

    def value(self) -> float:
        """The best so far."""
        return self._best

    def add_all(self, values: Floats) -> None:
        """Add many numbers at once."""
        best = np.fmin if self.mode == "min" else np.fmax
        self.add(float(best.reduce(values)))

    def reduce_slices(self, values: Floats, starts: Ints, stops: Ints) -> tuple[Floats, ...] | None:
        """The best of every slice."""
        best = np.fmin if self.mode == "min" else np.fmax
        begins, goes_on = own_parts(starts, stops)
        if overlap(begins, stops):
            return None
        found, filled = np.full(len(starts), np.nan), stops > begins
        found[filled] = reduced(best, values, begins[filled], stops[filled])
        groups = np.flatnonzero(~goes_on)
        for a, b in zip(groups, np.append(groups[1:], len(starts)), strict=True):
            if b - a > 1:
                best.accumulate(found[a:b], out=found[a:b])
        return (found,)


class LastValueMeter(Meter):
    """The value that was added last.

        >>> meter = LastValueMeter()
        >>> meter.add(0.1)
        >>> meter.add(0.01)
        >>> meter.value()
        0.01

    Takes a number, or an array of any shape, such as the samples of a histogram, and gives it
    unchanged. Without values gives nan. O(1) memory.

    Raises:
        MeterError: a value is neither a number nor an array of numbers.
    """

    fields = ("last",)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Discard the value."""
        self._last: Part = math.nan

    def add(self, value: Any) -> None:
        """Add a number or an array."""
        found = array("value", value, keep=True)
        self._last = float(found) if found.ndim == 0 else found

    def value(self) -> Part:
        """The number or array that was added last."""
        return self._last

    def add_all(self, values: Floats) -> None:
        """Add many numbers, of which the last is kept."""
        self.add(values[-1])

    def reduce_slices(
        self,
        values: Floats,
        starts: Ints,  # noqa: ARG002 - Meter's signature
        stops: Ints,
    ) -> tuple[Floats, ...] | None:
        """The last of every slice."""
        return (values[stops - 1],)


class TimeMeter(Meter):
    """Seconds since the last reset, by recorded times; with `unit`, seconds between adds.

        >>> meter = TimeMeter(unit=True)
        >>> for time in (10.0, 11.0, 14.0, 16.0):
        ...     meter.tick(time)
        ...     meter.add("anything")
        >>> meter.value()
        2.0

    Takes anything: only the times of adds count. The clock starts at the first add, since a key is
    not known before, and restarts at every later reset. With `unit` gives the mean of the times
    between the adds since the last reset, so that the time between two phases counts for neither;
    for a single add, the time since the add before it. Times are never negative. Without values
    gives 0, or nan with `unit`. O(1) memory.
    """

    fields = ("seconds",)
    uses_time = True
    counts_only = True

    def __init__(self, unit: bool = False) -> None:
        self.unit = unit
        self._now = 0.0
        self._start: float | None = None
        self._last: float | None = None  # times of adds, also from before the reset
        self._n, self._spans, self._span = 0, 0.0, math.nan

    def tick(self, time: float) -> None:
        """Set the time, in seconds."""
        self._now = time

    def add(self, *_: Any) -> None:
        """Count an add."""
        if self._start is None:
            self._start = self._now
        if self._last is not None:
            self._span = max(0.0, self._now - self._last)
            self._spans += self._span if self._n else 0.0
        self._n, self._last = self._n + 1, self._now

    def value(self) -> float:
        """The seconds since the reset, or between adds."""
        if not self.unit:
            return 0.0 if self._start is None else max(0.0, self._now - self._start)
        if self._n > 1:
            return self._spans / (self._n - 1)
        return self._span if self._n else math.nan

    def reset(self) -> None:
        """Restart the clock, if it runs."""
        if self._start is not None:
            self._start = self._now
        self._n, self._spans = 0, 0.0
