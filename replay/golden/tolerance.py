"""Compare numbers in JSON lists within a tolerance. No windows, no reports.

Numbers are equal as in numpy's `isclose`, if `|golden - obtained| <= atol + rtol * |golden|` in
floats; if both tolerances are 0, as in Python's `==`, which tells large integers apart.
"""

from dataclasses import dataclass
from types import NoneType

import numpy as np
from numpy.typing import NDArray

from flexrec.replay.plots.contents import Numbers


@dataclass(frozen=True)
class Deviation:
    """The differences of two lists of numbers of the same shape.

    Attributes:
        where: flat indices of the values out of tolerance.
        kinds: flat indices of integers that became floats, or floats that became integers.
        max_abs, max_rel: the largest errors among `where`, of pairs without a gap; None if there
            is no such pair. An error relative to 0 is infinite.
    """

    where: NDArray[np.intp]
    kinds: NDArray[np.intp]
    max_abs: float | None
    max_rel: float | None


def deviation(golden: Numbers, obtained: Numbers, *, rtol: float, atol: float) -> Deviation | None:
    """Compare numbers of the same shape; None if they are equal.

    >>> from flexrec.replay.plots.contents import numbers
    >>> deviation(numbers([1.0]), numbers([1.5]), rtol=0.0, atol=0.25).max_abs
    0.5
    """
    kinds = _changed_kinds(golden, obtained)
    if golden.leaves == obtained.leaves:
        return Deviation(np.array([], np.intp), kinds, None, None) if len(kinds) else None
    where = _out_of_tolerance(golden, obtained, rtol, atol)
    if not len(where) and not len(kinds):
        return None
    a, b = golden.array[where], obtained.array[where]
    both = np.isfinite(a) & np.isfinite(b)
    error, size = np.abs(a - b)[both], np.abs(a)[both]
    if not len(error):
        return Deviation(where, kinds, None, None)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relative = np.where(error > 0, error / size, 0.0)
    return Deviation(where, kinds, float(error.max()), float(relative.max()))


def _changed_kinds(golden: Numbers, obtained: Numbers) -> NDArray[np.intp]:
    if len((golden.kinds | obtained.kinds) - {NoneType}) < 2:
        return np.array([], np.intp)
    pairs = zip(map(type, golden.leaves), map(type, obtained.leaves), strict=True)
    return np.array([i for i, pair in enumerate(pairs) if pair in _CHANGED], np.intp)


_CHANGED = {(int, float), (float, int)}


def _out_of_tolerance(
    golden: Numbers, obtained: Numbers, rtol: float, atol: float
) -> NDArray[np.intp]:
    a, b = golden.array, obtained.array
    differ = np.isnan(a) != np.isnan(b)
    if not (rtol or atol):
        pairs = zip(golden.leaves, obtained.leaves, strict=True)
        return np.flatnonzero(differ | np.array([old != new for old, new in pairs], bool))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.flatnonzero(differ | (np.abs(a - b) > atol + rtol * np.abs(a)))
