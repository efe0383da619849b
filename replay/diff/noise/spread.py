"""How far a run lies outside the spread of its references: the statistic, on arrays alone.

docs/diff.md describes it, with its source, its false alarms and its power.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

WINDOW, KEPT = 15, 10
"""A key is beyond the spread once it was so in `KEPT` of the last `WINDOW` rows."""

_LIMITS = {2: 10.0, 3: 5.0, 4: 3.5, 5: 2.5, 10: 1.3}
_FRACTION = 0.03  # of the keys that have to be beyond together, two at least
_FAR = 100.0  # so many times the limit, one key is enough
_ROUNDING = 8 * 2.0**-24  # eight units in the last place of a float32
_TINY = np.finfo(np.float64).tiny
_ROWS = 1 << 12  # rows that are sorted at once


def limit_of(references: int) -> float:
    """How many times the spread a key may lie outside, for this number of references.

    >>> [limit_of(count) for count in (2, 3, 7)]
    [10.0, 5.0, 2.5]
    """
    return _LIMITS[max(count for count in _LIMITS if count <= references)]


def least_keys(keys: int) -> int:
    """How many of the keys have to be beyond the spread together.

    >>> [least_keys(keys) for keys in (1, 57, 800)]
    [1, 2, 24]
    """
    return min(keys, max(2, math.ceil(_FRACTION * keys)))


def excess(low: Floats, high: Floats, value: Floats, size: Floats) -> Singles:
    """How far values lie outside the spread of the references, in multiples of it.

    Args:
        low, high, size: (rows, keys) as in `width_of`.
        value: (rows, keys) the values of the run.

    Returns:
        (rows, keys); 0 within the spread, and where a reference is not finite; infinity where the
        run alone is not.
    """
    width = width_of(low, high, size)
    with np.errstate(invalid="ignore", over="ignore"):
        outside = np.maximum(np.maximum(low - value, value - high), 0)
        outside[~np.isfinite(value)] = np.inf
        found: Singles = np.where(np.isfinite(width), outside / width, 0).astype(np.float32)
    return found


def width_of(low: Floats, high: Floats, size: Floats) -> Floats:
    """The spread of the references, which of a key never shrinks with time.

    It is at least a rounding error of the key's size, and half of what is usual among the keys
    relative to their sizes.

    Args:
        low, high: (rows, keys) the least and the largest value of the references, for keys of the
            same source and statistic.
        size: (rows, keys) the size of what the values are taken of.

    Returns:
        (rows, keys); infinite from where a reference is not finite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.maximum.accumulate(np.where(np.isfinite(size), size, 0), axis=0)
        width = np.where(np.isfinite(high - low), high - low, np.inf)
        width = np.maximum.accumulate(width, axis=0) + _ROUNDING * size + _TINY
        usual = np.median(width / np.maximum(size, _TINY), axis=1, keepdims=True)
        wider: Floats = np.maximum(width, np.where(np.isfinite(usual), usual, 0) * size / 2)
    return wider


def lasting(found: Singles) -> Singles:
    """For each row, the excess that `KEPT` of the last `WINDOW` rows reach.

    >>> lasting(np.ones((11, 1), np.float32))[:, 0].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    """
    padded = np.concatenate([np.zeros((WINDOW - 1, found.shape[1]), found.dtype), found])
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0)
    kept, at = np.empty_like(found), WINDOW - KEPT
    for first in range(0, len(found), _ROWS):
        part = windows[first : first + _ROWS]
        kept[first : first + _ROWS] = np.partition(part, at, axis=-1)[..., at]
    return kept


def first_beyond(kept: Singles, limit: float) -> int | None:
    """The first row at which enough keys are beyond the limit, or one is far; None: none is."""
    are_many = (kept > limit).sum(axis=1) >= least_keys(kept.shape[1])
    over = np.flatnonzero(are_many | (kept > _FAR * limit).any(axis=1))
    return int(over[0]) if len(over) else None
