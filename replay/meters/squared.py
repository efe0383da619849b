"""The meter of the mean squared error."""

import math
from typing import Any

from flexrec.recorder.reduction.reductions import SquaredErrors
from flexrec.replay.meters.base import Meter


class MSEMeter(Meter):
    """Mean squared error over all elements since the last reset, or its root.

        >>> meter = MSEMeter()
        >>> meter.add([1.0, 2.0], [1.0, 4.0])
        >>> meter.value()
        2.0

    Takes (output, target): two arrays of the same shape, or two numbers. Without values gives 0, as
    in TNT. Differences and sums are float64 for all dtypes. O(1) memory.

    Args:
        root: give the root of the mean squared error.

    Raises:
        MeterError: the shapes differ (nothing is broadcast).
    """

    fields = ("mse",)
    reduction = SquaredErrors()

    def __init__(self, root: bool = False) -> None:
        self.root = root
        self.reset()

    def reset(self) -> None:
        """Discard all errors."""
        self._sum, self._n = 0.0, 0.0

    def add(self, output: Any, target: Any) -> None:
        """Add outputs and targets of the same shape."""
        self.merge(*self.reduction.state_of(output, target))

    def value(self) -> float:
        """The mean squared error, or its root."""
        mse = self._sum / max(1.0, self._n)
        return math.sqrt(mse) if self.root else mse

    def merge(self, total: float, n: float) -> None:
        """Merge a state."""
        self._sum += total
        self._n += n
