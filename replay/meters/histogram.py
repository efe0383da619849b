"""The meter of histograms: how many values fall into each bin."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.reduction.reductions import Bins
from flexrec.replay.meters.base import Meter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PARTS = 64

_MOST = 1100
"""Bins are narrower than two to this power, and wider than two to minus this power."""


class HistogramMeter(Meter):
    """A histogram of all elements since the last reset.

        >>> meter = HistogramMeter(bins=4, range=(0, 1))
        >>> meter.add([0.1, 0.2, 0.9])
        >>> counts, edges, bounds = meter.value()
        >>> counts.tolist(), edges.tolist()
        ([2, 0, 0, 1], [0.0, 0.25, 0.5, 0.75, 1.0])

    Takes a number or an array of any shape. NaN and infinities are left out.
    Gives (counts, edges, bounds): (bins,) int64; (bins + 1,) float64; and (65,) float64, the
    bounds of 64 bins with equally many values, for the plot types `histograms` and `boxplot`;
    values are assumed to be spread evenly within a bin. Without values gives zeros, and bounds of
    NaN. O(bins) memory.

    With a range, the bins are those of numpy.histogram: of equal width, the last one closed, and
    values outside are left out. Without a range, the bins follow the values: their width is the
    smallest power of two for which `bins` bins, starting at multiples of the width, hold all
    values. The result then depends only on the values, not on their order, and only counts are
    kept.

    Args:
        bins: the number of bins, at least 2 without a range.
        range: (lowest, highest) value.

    Raises:
        MeterError: the values are not numbers.
    """

    fields = ("counts", "edges", "bounds")
    reduction: Bins

    def __init__(self, bins: int = 64, range: tuple[float, float] | None = None) -> None:  # noqa: A002
        self.reduction = Bins(bins, range)
        self.bins = bins
        self.range: tuple[float, float] | None = self.reduction.range
        if self.range is not None:
            low, high = self.range
            edges = np.linspace(low, high, bins + 1)
            self.centres = (edges[:-1] + edges[1:]) / 2
        self.reset()

    def reset(self) -> None:
        """Discard all values."""
        self._counts = np.zeros(0 if self.range is None else self.bins, np.int64)
        self._first, self._exponent = 0, 0  # bin i begins at (first + i) * 2 ** exponent

    def add(self, values: Any) -> None:
        """Add a number or an array."""
        self.merge(*self.reduction.state_of(values))  # type: ignore[arg-type]  # tuples of two lengths

    def value(self) -> tuple[Ints, Floats, Floats]:
        """(counts, edges, bounds)."""
        counts, edges = self._counted()
        return counts, edges, _bounds(counts, edges)

    def _counted(self) -> tuple[Ints, Floats]:
        if self.range is not None:
            return self._counts.copy(), np.linspace(*self.range, self.bins + 1)
        if not self._counts.size:
            return np.zeros(self.bins, np.int64), np.linspace(0.0, 1.0, self.bins + 1)
        before = (self.bins - len(self._counts)) // 2
        counts = np.zeros(self.bins, np.int64)
        counts[before : before + len(self._counts)] = self._counts
        edges = (self._first - before) + np.arange(self.bins + 1.0)
        with np.errstate(over="ignore"):
            return counts, np.ldexp(edges, self._exponent)

    def merge(self, counts: Ints, first: float = 0.0, exponent: float = 0.0) -> None:
        """Merge a state."""
        if self.range is not None:
            if len(counts) != self.bins:
                raise MeterError(f"state must be of {self.bins} bins, got {len(counts)}")
            self._counts += counts
            return
        if not len(counts):
            return
        if counts.ndim != 1 or not (abs(first) < 2.0**63 and abs(exponent) < _MOST):
            raise MeterError("state must have bins within the range of float64")
        rows = [(counts, int(first), int(exponent))]
        if self._counts.size:
            rows.append((self._counts, self._first, self._exponent))
        self._counts, self._first, self._exponent = _combined(rows, self.bins)


def _bounds(counts: Ints, edges: Floats) -> Floats:
    """The bounds of 64 bins with equally many values."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return np.full(_PARTS + 1, np.nan)
    held = slice(filled[0], filled[-1] + 1)
    below = np.concatenate([[0], np.cumsum(counts[held])])
    wanted = np.arange(_PARTS + 1) * (below[-1] / _PARTS)
    bounds: Floats = np.interp(wanted, below, edges[filled[0] : filled[-1] + 2])
    return bounds


def _combined(rows: list[tuple[Ints, int, int]], bins: int) -> tuple[Ints, int, int]:
    """Combine rows of bins into one row of at most `bins` bins, as narrow as possible."""
    exponent = max(exponent for _, _, exponent in rows)
    while True:
        ends = [
            (first >> (exponent - own), (first + len(counts) - 1) >> (exponent - own))
            for counts, first, own in rows
        ]
        least, most = min(a for a, _ in ends), max(b for _, b in ends)
        if most - least < bins:
            break
        exponent += 1
    combined = np.zeros(most - least + 1, np.int64)
    for counts, first, own in rows:
        places = np.array([((first + i) >> (exponent - own)) - least for i in range(len(counts))])
        np.add.at(combined, places, counts)
    return combined, least, exponent
