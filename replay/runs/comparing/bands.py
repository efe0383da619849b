"""The mean of several curves and a band around it, at the x that they share. Numbers only."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DefinitionError

Floats = NDArray[np.float64]
Curve = tuple[Floats, Floats]
"""x and y (n,)."""

BANDS = ("std", "sem", "minmax", "q10-q90", "none")
_AROUND = ("std", "sem")  # as much below the mean as above it
_QUANTILES = re.compile(r"q(\d{1,2}|100)-q(\d{1,2}|100)")
_SHARED = 0.5  # of the x: with fewer, curves are interpolated
_ROOM = 1 << 25  # values of all curves at all x, at most


class Mean(NamedTuple):
    """The mean of curves.

    Attributes:
        x, y: (n,) the mean at each x of the curves with a finite value there; NaN if there is none.
        band: the lower and the upper edge (n,), NaN where there are too few values; None: no band.
        counts: (n,) how many curves have a finite value.
        kind: the kind of the band.
    """

    x: Floats
    y: Floats
    band: tuple[Floats, Floats] | None
    counts: NDArray[np.int64]
    kind: str

    @property
    def note(self) -> str:
        """How many curves there are, and the band, if there is one to be seen: `n=5, ± std`.

        `n=5→3` if only 3 go on to the end.
        """
        known = self.counts[self.counts > 0]
        most, last = (int(known.max()), int(known[-1])) if len(known) else (0, 0)
        count = f"n={most}" if most == last else f"n={most}→{last}"
        if self.band is None or not np.isfinite(self.band).any():
            return count
        return f"{count}, ± {self.kind}" if self.kind in _AROUND else f"{count}, {self.kind}"


def check_band(kind: str) -> str:
    """The kind of band; DefinitionError if there is none of this name."""
    quantiles = _QUANTILES.fullmatch(kind)
    if kind in BANDS or (quantiles and int(quantiles[1]) < int(quantiles[2])):
        return kind
    raise DefinitionError(
        f"there is no band {kind!r}; there are {', '.join(BANDS)}, and other percentiles such as "
        "q25-q75"
    )


def mean_of(curves: Sequence[Curve], band: str) -> Mean:
    """The mean of the curves and a band around it.

    The mean is taken at every x that a curve has. If, where several curves are, they have values
    at fewer than half of the x, each is interpolated between its first and its last x, never
    beyond, at as many of these x as the longest curve has. Where curves end early, the mean is that
    of the others. NaN and infinities do not count.

    Args:
        curves: in a fixed order: sums are taken in it, so that equal runs give equal bits.
        band: `std` (of samples: divided by n - 1) and `sem` (std / sqrt(n)) on both sides of the
            mean; `minmax`; percentiles such as `q10-q90`; `none`.
    """
    x, values = _aligned([_in_order(curve) for curve in curves])
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / counts
        edges = _edges(band, values, known, counts, mean)
    return Mean(x, mean, edges, counts, band)


def _in_order(curve: Curve) -> Curve:
    """Rising x; of several values at one x, the last."""
    x, y = curve
    if len(x) < 2 or (np.diff(x) > 0).all():
        return curve
    found, last = np.unique(x[::-1], return_index=True)
    return found, y[::-1][last]


def _aligned(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """All x (n,), and the values (curves, n) there, NaN where a curve has none."""
    first = curves[0][0]
    if all(np.array_equal(x, first) for x, _ in curves):
        return first, np.stack([y for _, y in curves])
    every, values_at = np.unique(np.concatenate([x for x, _ in curves]), return_counts=True)
    begun = np.searchsorted(sorted(x[0] for x, _ in curves if len(x)), every, "right")
    around = begun - np.searchsorted(sorted(x[-1] for x, _ in curves if len(x)), every)
    several = around > 1  # curves whose first and last x are on both sides
    shared = values_at[several].sum() >= _SHARED * around[several].sum()
    if shared and len(every) * len(curves) <= _ROOM:
        values = np.full((len(curves), len(every)), np.nan)
        for row, (x, y) in zip(values, curves, strict=True):
            row[np.searchsorted(every, x)] = y
        return every, values
    most = max(len(x) for x, _ in curves)
    grid = every[np.linspace(0, len(every) - 1, most).astype(np.int64)]  # close where values are
    ends = {"left": np.nan, "right": np.nan}
    rows = [np.interp(grid, *_finite(c), **ends) if len(c[0]) else np.nan * grid for c in curves]
    return grid, np.stack(rows)


def _finite(curve: Curve) -> Curve:
    x, y = curve
    known = np.isfinite(y)
    return (x[known], y[known]) if known.any() else (x, y)


def _edges(
    band: str, values: Floats, known: NDArray[np.bool_], counts: NDArray[np.int64], mean: Floats
) -> tuple[Floats, Floats] | None:
    if band == "none":
        return None
    if band in _AROUND:
        squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
        spread = np.sqrt(np.where(counts > 1, squares, np.nan) / (counts - 1))
        spread = spread / np.sqrt(counts) if band == "sem" else spread
        return mean - spread, mean + spread
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    low, high = (0, 100) if band == "minmax" else map(int, _QUANTILES.fullmatch(band).groups())  # type: ignore[union-attr]
    at: Callable[[float], Floats] = lambda part: _quantile(ordered, counts, part)  # noqa: E731
    return at(low / 100), at(high / 100)


def _quantile(ordered: Floats, counts: NDArray[np.int64], part: float) -> Floats:
    """A quantile of each column, of its first `counts` values, as np.nanquantile gives it."""
    place = part * np.maximum(counts - 1, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    columns = np.arange(ordered.shape[1])
    low, high = ordered[below, columns], ordered[above, columns]
    found: Floats = low + (place - below) * (high - low)
    return np.where(counts > 0, found, np.nan)
