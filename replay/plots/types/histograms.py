"""Histograms over time: a column of frequencies for each mark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flexrec.replay.plots.pairs import subtracted
from flexrec.replay.plots.plot_type import (
    XY,
    Floats,
    History,
    Message,
    PlotType,
    Traces,
    rank,
)
from flexrec.replay.plots.types.matrices import COLOURS, heatmap
from flexrec.replay.plots.window import Trace


def _histograms(client: Any, traces: Traces, opts: Message) -> Message:
    opts.pop("numbins", None)  # the bins were chosen with the marks at hand
    return heatmap(client, traces, {"colormap": "Viridis", **opts})


def _form(value: Any) -> bool | None:
    """Any number of samples may be drawn beside any other."""
    return rank(value) == "vector" or None


def _frequencies(
    label: str, xs: Sequence[float], values: Sequence[Any], opts: Mapping[str, Any]
) -> list[Trace]:
    """A column of frequencies for each mark, all over the same bins."""
    columns = [np.asarray(value, np.float64) for value in values]
    columns = [column[np.isfinite(column)] for column in columns]
    edges = edges_of(np.concatenate(columns), opts.get("numbins", _BINS))
    heights = np.stack([shares(column, edges) for column in columns], axis=1)
    return [Trace(label, heights, np.array(xs), rows=(edges[:-1] + edges[1:]) / 2)]


def edges_of(samples: Floats, bins: int) -> Floats:
    """(bins + 1,): bins of equal width from the least to the greatest of the samples; those that
    are as good as one value lie in the middle of bins that can be told apart."""
    low, high = (float(samples.min()), float(samples.max())) if len(samples) else (0.0, 1.0)
    finest = 4 * bins * float(np.spacing(max(abs(low), abs(high))))
    if high - low < finest:
        low, high = low - max(0.5, finest), high + max(0.5, finest)
    edges: Floats = 4 * np.linspace(low / 4, high / 4, bins + 1)  # see _LARGE
    return edges


def shares(samples: Floats, edges: Floats) -> Floats:
    """Which share of a distribution lies in each bin, as far as samples tell: between neighbours
    it is taken to be even, so few samples, such as bounds of bins, are as good as many."""
    ordered = np.sort(samples)
    last = len(ordered) - 1
    if last < 1:
        return np.histogram(ordered, edges)[0].astype(np.float64)
    above = np.searchsorted(ordered, edges).clip(1, last)
    if max(-ordered[0], ordered[-1]) > _LARGE:  # the width of two such numbers may be infinite
        ordered, edges = ordered / 4, edges / 4
    low, high = ordered[above - 1], ordered[above]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        between = np.where(high > low, (edges - low) / (high - low), edges > low)
    below = (above - 1 + between.clip(0, 1)) / last
    below[0], below[-1] = 0.0, 1.0
    return np.diff(below)


_BINS = 50
_LARGE = 1e307
"""The difference of numbers beyond may be infinite; of their quarters it is not."""


HISTOGRAMS = (
    PlotType(
        name="histograms",
        doc="histograms over time: a column for each mark, the colour for how often",
        takes="samples (n,) at every mark; all marks share the bins",
        ranks=("vector",),
        opts=XY | COLOURS | {"numbins"},
        max_traces=1,
        draw=_histograms,
        history=History("matrix", _form, _frequencies),
        shown_as="heatmap",
        side_by_side=subtracted,
    ),
)
