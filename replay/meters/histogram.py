"""How often values fall into each of a row of bins."""

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
"""Bins are never as wide, nor as narrow, as two to this power."""


class HistogramMeter(Meter):
    """How many values fall into each bin, over all elements since the last reset.

        >>> meter = HistogramMeter(bins=4, range=(0, 1))
        >>> meter.add([0.1, 0.2, 0.9])
        >>> counts, edges, bounds = meter.value()
        >>> counts.tolist(), edges.tolist()
        ([2, 0, 0, 1], [0.0, 0.25, 0.5, 0.75, 1.0])

    Takes a number or an array of any shape. NaN and infinities are left out.
    Gives (counts, edges, bounds): (bins,) int64; (bins + 1,) float64; and (65,) float64, the
    bounds of 64 bins that hold as many values each, for the plot types `histograms` and `boxplot`:
    within a bin values count as evenly spread. None gives zeros, and bounds of NaN. O(bins) memory.

    With a range, bins are numpy.histogram's: of equal width, the last one closed, and values
    outside are left out. Without, the bins follow the values: their width is the smallest power
    of two with which `bins` of them, at whole multiples of the width, hold all values. Then the
    result depends on the values alone, not on their order, and nothing but counts is kept.

    Args:
        bins: how many bins, at least 2 without a range.
        range: (lowest, highest) value.

    Raises:
        MeterError: no numbers.
    """

    fields = ("counts", "edges", "bounds")
    reduction: Bins

    def __init__(self, bins: int = 64, range: tuple[float, float] | None = None) -> None:  # noqa: A002
        self.reduction = Bins(bins, range)
        self.bins = bins
        self.range: tuple[float, float] | None = self.reduction.range
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self._counts = np.zeros(0 if self.range is None else self.bins, np.int64)
        self._first, self._exponent = 0, 0  # bin i begins at (first + i) * 2 ** exponent

    def add(self, values: Any) -> None:
        """Take in a number or an array."""
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
        """Take in the values that a state stands for."""
        if self.range is not None:
            if len(counts) != self.bins:
                raise MeterError(f"state must be of {self.bins} bins, got {len(counts)}")
            self._counts += counts
            return
        if not len(counts):
            return
        if counts.ndim != 1 or not (abs(first) < 2.0**63 and abs(exponent) < _MOST):
            raise MeterError("state must be of bins that float64 has")
        rows = [(counts, int(first), int(exponent))]
        if self._counts.size:
            rows.append((self._counts, self._first, self._exponent))
        self._counts, self._first, self._exponent = _joined(rows, self.bins)


def _bounds(counts: Ints, edges: Floats) -> Floats:
    """Between which values each 64th of them lies."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return np.full(_PARTS + 1, np.nan)
    held = slice(filled[0], filled[-1] + 1)
    below = np.concatenate([[0], np.cumsum(counts[held])])
    wanted = np.arange(_PARTS + 1) * (below[-1] / _PARTS)
    bounds: Floats = np.interp(wanted, below, edges[filled[0] : filled[-1] + 2])
    return bounds


def _joined(rows: list[tuple[Ints, int, int]], bins: int) -> tuple[Ints, int, int]:
    """Rows of bins as one row of at most `bins`, as narrow as can be."""
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
    joined = np.zeros(most - least + 1, np.int64)
    for counts, first, own in rows:
        places = np.array([((first + i) >> (exponent - own)) - least for i in range(len(counts))])
        np.add.at(joined, places, counts)
    return joined, least, exponent
