"""The mean squared error."""

import math
from typing import Any

import numpy as np

from flexrec.replay.meters.arguments import array, shapes_differ
from flexrec.replay.meters.base import Meter

__all__ = ["MSEMeter"]

_BLOCK = 1 << 16
"""How many values are widened to float64 at a time: they stay in the processor's cache."""


class MSEMeter(Meter):
    """Mean squared error over all elements since the last reset, or its root.

        >>> meter = MSEMeter()
        >>> meter.add([1.0, 2.0], [1.0, 4.0])
        >>> meter.value()
        2.0

    Takes (output, target): arrays of any but the same shape, or two numbers. None gives 0, as in
    TNT. Differences and sums are float64 whatever the dtypes are. O(1) memory.

    Args:
        root: give the root of the mean squared error.

    Raises:
        MeterError: shapes differ (nothing is broadcast).
    """

    fields = ("mse",)

    def __init__(self, root: bool = False) -> None:
        self.root = root
        self.reset()

    def reset(self) -> None:
        """Forget all errors."""
        self._sum, self._n = 0.0, 0.0

    def add(self, output: Any, target: Any) -> None:
        """Take in outputs and targets of the same shape."""
        self.merge(*self.state_of(output, target))

    def value(self) -> float:
        """The mean squared error, or its root."""
        mse = self._sum / max(1.0, self._n)
        return math.sqrt(mse) if self.root else mse

    def state_of(self, output: Any, target: Any) -> tuple[float, float]:
        """(sum of squared errors, how many)."""
        output, target = array("output", output), array("target", target)
        if output.shape != target.shape and not output.size == target.size == 1:
            raise shapes_differ(("output", "target"), (output, target))
        output, target = output.ravel(), target.ravel()
        total = 0.0
        with np.errstate(invalid="ignore", over="ignore"):
            for i in range(0, output.size, _BLOCK):
                block = slice(i, i + _BLOCK)
                errors = np.subtract(output[block], target[block], dtype=np.float64)
                total += float(np.square(errors, out=errors).sum())
        return total, float(output.size)

    def state(self) -> tuple[float, float]:
        """(sum of squared errors, how many)."""
        return self._sum, self._n

    def merge(self, total: float, n: float) -> None:
        """Take in another meter's errors."""
        self._sum += total
        self._n += n
