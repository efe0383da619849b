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
from flexrec.replay.plots.types.matrices import COLOURS, PALE_TO_BLUE, heatmap
from flexrec.replay.plots.window import Trace


def _histograms(client: Any, traces: Traces, opts: Message) -> Message:
    opts.pop("numbins", None)  # the bins were chosen when the traces were made
    low, high = _limits(traces, opts)
    pale = "colormap" not in opts
    message = heatmap(client, traces, {"xmin": low, "xmax": high, **opts})
    if pale:
        message["data"][0]["colorscale"] = PALE_TO_BLUE
    return message


def _limits(traces: Traces, _opts: Mapping[str, Any]) -> tuple[float, float]:
    """From 0 to a frequency that few cells exceed, so that a single peak does not hide the rest."""
    cells = np.concatenate([np.ravel(trace.y).astype(np.float64) for trace in traces])
    filled = cells[np.isfinite(cells) & (cells > 0)]
    return 0.0, float(np.quantile(filled, _SHOWN)) if len(filled) else 1.0


def _form(value: Any) -> bool | None:
    """True for samples of any number: all are drawn together."""
    return rank(value) == "vector" or None


def _frequencies(
    label: str, xs: Sequence[float], values: Sequence[Any], opts: Mapping[str, Any]
) -> list[Trace]:
    """Make a matrix with a column of frequencies for each mark, all over the same bins."""
    columns = [np.asarray(value, np.float64) for value in values]
    columns = [column[np.isfinite(column)] for column in columns]
    edges = edges_of(_central(np.concatenate(columns)), opts.get("numbins", _BINS))
    heights = np.stack([shares(column, edges) for column in columns], axis=1)
    return [Trace(label, heights, np.array(xs), rows=(edges[:-1] + edges[1:]) / 2)]


def _central(samples: Floats) -> Floats:
    """The samples without the most distant ones, if there are many."""
    if len(samples) < _MANY:
        return samples
    low, high = np.quantile(samples, [1 - _SHOWN, _SHOWN])
    central: Floats = samples[(low <= samples) & (samples <= high)]
    return central


def edges_of(samples: Floats, bins: int) -> Floats:
    """The edges (bins + 1,) of bins of equal width from the minimum to the maximum of the samples;
    samples that are almost equal lie in the middle of bins that float64 can tell apart."""
    low, high = (float(samples.min()), float(samples.max())) if len(samples) else (0.0, 1.0)
    finest = 4 * bins * float(np.spacing(max(abs(low), abs(high))))
    if high - low < finest:
        low, high = low - max(0.5, finest), high + max(0.5, finest)
    edges: Floats = 4 * np.linspace(low / 4, high / 4, bins + 1)  # see _LARGE
    return edges


def shares(samples: Floats, edges: Floats) -> Floats:
    """Estimate the fraction of a distribution in each bin from samples. Between neighbouring
    samples it is assumed to be even, so that a few samples, such as bounds of bins, suffice."""
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
_MANY = 200  # samples of which the most distant are left out of the range
_SHOWN = 0.99
_LARGE = 1e307
"""The difference of larger numbers may be infinite; that of their quarters is not."""


HISTOGRAMS = (
    PlotType(
        name="histograms",
        doc="histograms over time: a column for each mark, with frequencies as colours",
        takes="samples (n,) at every mark; all marks share the bins, and the most distant 1 % of "
        "values on each side count in the outermost ones",
        ranks=("vector",),
        opts=XY | COLOURS | {"numbins"},
        max_traces=1,
        draw=_histograms,
        history=History("matrix", _form, _frequencies),
        shown_as="heatmap",
        side_by_side=subtracted,
        limits=_limits,
    ),
)
