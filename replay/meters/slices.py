"""Sums over slices of a column, for `Meter.reduce_slices`. No meters here.

Slices are given by their starts and stops, as `Meter.reduce_slices` is; they may overlap.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_GATHERED = 1 << 20
"""How many values of overlapping slices are laid out side by side at a time."""


def overlap(starts: Ints, stops: Ints) -> bool:
    """Whether a value is in several slices.

    >>> overlap(np.array([0, 1]), np.array([2, 3]))
    True
    """
    return bool((starts[1:] < stops[:-1]).any())


def own_parts(starts: Ints, stops: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where each slice's part begins that the slice before lacks, and whether it goes on from it.

        >>> begins, goes_on = own_parts(np.array([0, 0, 5]), np.array([2, 5, 9]))
        >>> begins.tolist(), goes_on.tolist()
        ([0, 2, 5], [False, True, False])

    A slice goes on where it starts as the one before does: nothing was reset in between. Where
    meters were reset or went on, the parts never overlap.
    """
    goes_on = np.zeros(len(starts), bool)
    goes_on[1:] = starts[1:] == starts[:-1]
    begins = np.where(goes_on, np.concatenate([starts[:1], stops[:-1]]), starts)
    return begins, goes_on


def reduced(ufunc: np.ufunc, values: Floats, starts: Ints, stops: Ints) -> Floats:
    """`ufunc.reduce(values[start:stop])` of every slice; none may be empty or overlap another.

    >>> reduced(np.add, np.arange(4.0), np.array([0, 2]), np.array([2, 4])).tolist()
    [1.0, 5.0]
    """
    # reduceat reduces from each bound to the next: every other result is a slice's. The last
    # stop is left out, as a bound must lie within, and then the values have to end there.
    bounds = np.stack([starts, stops], axis=1).ravel()[:-1]
    with np.errstate(invalid="ignore", over="ignore"):
        slices: Floats = ufunc.reduceat(values[: stops[-1]], bounds)[::2]
    return slices


def moments(values: Floats, starts: Ints, stops: Ints) -> tuple[Floats, Floats, Floats]:
    """First value, mean less it, and sum of squared deviations from the mean, of every slice.

        >>> first, mean, squares = moments(np.array([1.0, 3.0]), np.array([0]), np.array([2]))
        >>> first.tolist(), mean.tolist(), squares.tolist()
        ([1.0], [1.0], [2.0])

    No slice may be empty. In two passes over the values less the first of the slice: accurate
    for any offset. Where the first is not finite, 0 stands for it.
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
    """The slices' numbers at each slice's values, and zeros in the gaps between slices."""
    gaps = np.append(starts[1:], stops[-1]) - stops
    if not gaps.any():
        return np.repeat(each, stops - starts)
    pairs = np.stack([each, np.zeros_like(each)], axis=1).ravel()
    return np.repeat(pairs, np.stack([stops - starts, gaps], axis=1).ravel())
