"""Reduce slices of a column, for `Meter.reduce_slices`. No meters here.

Slices are given by their starts and stops, as in `Meter.reduce_slices`; they may overlap.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_GATHERED = 1 << 20
"""The most values of overlapping slices that are copied side by side at a time."""


def overlap(starts: Ints, stops: Ints) -> bool:
    """Whether some value is in several slices.

    >>> overlap(np.array([0, 1]), np.array([2, 3]))
    True
    """
    return bool((starts[1:] < stops[:-1]).any())


def own_parts(starts: Ints, stops: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """The start of the part of each slice after the slice before, and whether it continues that.

        >>> begins, goes_on = own_parts(np.array([0, 0, 5]), np.array([2, 5, 9]))
        >>> begins.tolist(), goes_on.tolist()
        ([0, 2, 5], [False, True, False])

    A slice continues the one before if both have the same start: nothing was reset in between. If
    every slice continues the one before or starts after it, the parts never overlap.
    """
    goes_on = np.zeros(len(starts), bool)
    goes_on[1:] = starts[1:] == starts[:-1]
    begins = np.where(goes_on, np.concatenate([starts[:1], stops[:-1]]), starts)
    return begins, goes_on


def reduced(ufunc: np.ufunc, values: Floats, starts: Ints, stops: Ints) -> Floats:
    """Compute `ufunc.reduce(values[start:stop])` for each slice; none may be empty or overlap.

    >>> reduced(np.add, np.arange(4.0), np.array([0, 2]), np.array([2, 4])).tolist()
    [1.0, 5.0]
    """
    # reduceat reduces from each bound to the next: every other result belongs to a slice. The last
    # stop is left out, since a bound must lie within the values, which then have to end there.
    bounds = np.stack([starts, stops], axis=1).ravel()[:-1]
    with np.errstate(invalid="ignore", over="ignore"):
        slices: Floats = ufunc.reduceat(values[: stops[-1]], bounds)[::2]
    return slices


def moments(values: Floats, starts: Ints, stops: Ints) -> tuple[Floats, Floats, Floats]:
    """The first value, mean minus the first value, and sum of squared deviations of every slice.

        >>> first, mean, squares = moments(np.array([1.0, 3.0]), np.array([0]), np.array([2]))
        >>> first.tolist(), mean.tolist(), squares.tolist()
        ([1.0], [1.0], [2.0])

    No slice may be empty. Computed in two passes over the values minus the slice's first value, and
    so accurate for any offset. A first value that is not finite is replaced by 0.
    """
    if not overlap(starts, stops):
        return _moments(values, starts, stops)
    lengths = stops - starts
    block = np.cumsum(lengths) // _GATHERED
    edges = np.flatnonzero(np.diff(block)) + 1
    parts = [
        _gathered_moments(values, some, long)
        for some, long in zip(np.split(starts, edges), np.split(lengths, edges), strict=True)
    ]
    first, mean, squares = map(np.concatenate, zip(*parts, strict=True))
    return first, mean, squares


def _gathered_moments(values: Floats, starts: Ints, lengths: Ints) -> tuple[Floats, Floats, Floats]:
    ends = np.cumsum(lengths)
    begins = ends - lengths
    return _moments(values[np.repeat(starts - begins, lengths) + np.arange(ends[-1])], begins, ends)


def _moments(values: Floats, starts: Ints, stops: Ints) -> tuple[Floats, Floats, Floats]:
    lengths = stops - starts
    values, starts, stops = values[starts[0] : stops[-1]], starts - starts[0], stops - starts[0]
    first = np.where(np.isfinite(values[starts]), values[starts], 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        deviations = values - _spread(first, starts, stops)
        mean = reduced(np.add, deviations, starts, stops) / lengths
        deviations -= _spread(mean, starts, stops)
        np.square(deviations, out=deviations)
        return first, mean, reduced(np.add, deviations, starts, stops)


def _spread(each: Floats, starts: Ints, stops: Ints) -> Floats:
    """Repeat each slice's number for each of its values, with zeros in the gaps between slices."""
    gaps = np.append(starts[1:], stops[-1]) - stops
    if not gaps.any():
        return np.repeat(each, stops - starts)
    pairs = np.stack([each, np.zeros_like(each)], axis=1).ravel()
    return np.repeat(pairs, np.stack([stops - starts, gaps], axis=1).ravel())
