"""Smooth lines with TensorBoard's exponential moving average. No drawing here."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def smoothed(values: ArrayLike, weight: float) -> NDArray[np.float64]:
    """The debiased exponential moving average of the values, as in TensorBoard.

        >>> smoothed([0.0, 1.0, 1.0], 0.5).tolist()
        [0.0, 0.6666666666666666, 0.8571428571428571]

    Point n is the sum of `weight**(n - k) * values[k]` over k <= n, divided by the sum of these
    weights: the first point is the first value. NaN and infinities are kept, and do not count in
    the averages.

    Args:
        values: (n,), in order.
        weight: from 0, no smoothing, to less than 1.
    """
    average, total, found = 0.0, 0.0, []
    for value in np.asarray(values, np.float64).tolist():
        if math.isfinite(value):
            total = total * weight + 1.0
            average += (value - average) / total
        found.append(average if math.isfinite(value) else value)
    return np.array(found, np.float64)
