"""Bars, boxes and slices: bar, histogram, boxplot and pie."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.replay.plots.colours import written
from flexrec.replay.plots.pairs import overlaid
from flexrec.replay.plots.plot_type import ARRAYS, LAYOUT, XY, Message, PlotType, Traces
from flexrec.replay.plots.ticks import set_ticks
from flexrec.replay.plots.types.curves import names_of
from flexrec.replay.plots.window import Trace


def _columns(
    draw: Callable[..., Any], columns: Sequence[NDArray[Any]], names: list[str], opts: Message
) -> Message:
    """Call `draw` with one column for each trace, of any lengths.

    visdom squeezes single rows and columns: one of each is added here, and removed again.
    """
    colours = opts.pop("markercolor", None)
    matrix = np.full((max(1, *map(len, columns)) + 1, len(columns) + 1), np.nan)
    for k, column in enumerate(columns):
        matrix[: len(column), k] = column
    message: Message
    message, _ = draw(X=matrix, opts={**opts, "legend": [*names, ""]})
    message["opts"]["legend"] = names
    if colours is not None:
        message["layout"]["colorway"] = [written(tuple(colour)) for colour in colours]
    message["data"].pop()
    for drawn, column in zip(message["data"], columns, strict=True):
        drawn["y"] = column.tolist()
    return message


def _bar(client: Any, traces: Traces, opts: Message) -> Message:
    columns = [np.atleast_1d(trace.y) for trace in traces]
    positions = [np.arange(1, len(column) + 1) for column in columns]
    for k, trace in enumerate(traces):
        if trace.x is not None:
            positions[k] = np.atleast_1d(trace.x)
    labels = opts.pop("rownames", None)
    message = _columns(client.bar, columns, names_of(traces, opts), opts)
    if labels is not None:
        if len(labels) != max(map(len, columns)):
            raise ValueError(f"rownames names {len(labels)} bars of {max(map(len, columns))}")
        positions = [np.asarray(labels, dtype=object)] * len(traces)
        message["opts"]["rownames"] = labels
    elif all(np.ndim(trace.y) == 0 and trace.x is None for trace in traces):
        message["layout"].setdefault("xaxis", {}).setdefault("showticklabels", False)
    for drawn, column, position in zip(message["data"], columns, positions, strict=True):
        drawn["x"] = position[: len(column)].tolist()
    return message


def _histogram(client: Any, traces: Traces, opts: Message) -> Message:
    """Draw bars at the bins' centres; visdom would place them from the minimum to the maximum."""
    if any(trace.x is not None for trace in traces):
        return _bar(client, traces, opts)  # counted already
    samples = [np.ravel(trace.y).astype(np.float64) for trace in traces]
    samples = [values[np.isfinite(values)] for values in samples]
    bins = int(opts.setdefault("numbins", min(30, max(1, *map(len, samples)))))
    edges = np.histogram_bin_edges(np.concatenate(samples), bins)
    centres = (edges[:-1] + edges[1:]) / 2
    counted = [
        Trace(trace.name, y=np.histogram(values, edges)[0], x=centres)
        for trace, values in zip(traces, samples, strict=True)
    ]
    message = _bar(client, counted, opts)
    counts = np.concatenate([trace.y for trace in counted])
    set_ticks(message["layout"], "y", counts, opts, are_counts=True)
    return message


def _boxplot(client: Any, traces: Traces, opts: Message) -> Message:
    columns = [np.ravel(trace.y) for trace in traces]
    message = _columns(client.boxplot, columns, names_of(traces, opts), opts)
    if "showlegend" not in opts:
        message["layout"]["showlegend"] = False  # the x axis has the names
    return message


def _pie(client: Any, traces: Traces, opts: Message) -> Message:
    slices = np.concatenate([np.atleast_1d(trace.y) for trace in traces]).astype(np.float64)
    slices = np.where(np.isfinite(slices), slices, 0.0)
    own = [trace.name for trace in traces] if len(slices) == len(traces) else None
    names = opts.pop("legend", own)
    if names is not None and (not isinstance(names, list) or len(names) != len(slices)):
        raise ValueError(f"legend must be a list of {len(slices)} names, not {names!r}")
    named = {} if names is None else {"legend": [*names, ""]}
    # visdom squeezes a single slice: an empty one is added here, and removed again.
    message: Message
    message, _ = client.pie(X=np.append(slices, 0.0), opts={**opts, **named})
    message["data"][0].update(values=slices.tolist(), labels=names, sort=False)
    if names is not None:
        message["opts"]["legend"] = names
    return message


def _are_slices(value: Any) -> bool:
    return np.size(value) > 0 and not (np.asarray(value) < 0).any()


BARS = (
    PlotType(
        name="bar",
        doc="bars, grouped by position (or stacked), in a colour for each meter",
        takes="heights (n,), or one number",
        ranks=("scalar", "vector"),
        opts=XY | {"legend", "markercolor", "rownames", "stacked"},
        draw=_bar,
        shown_as="bar",
        side_by_side=overlaid,
        colour_opt="markercolor",
    ),
    PlotType(
        name="histogram",
        doc="the number of values in each bin; all meters share the bins",
        takes="samples of any shape; or heights (n,) with the bins' centres as the trace's x",
        ranks=ARRAYS,
        opts=XY | {"legend", "markercolor", "numbins", "stacked"},
        draw=_histogram,
        shown_as="bar",
        side_by_side=overlaid,
        colour_opt="markercolor",
    ),
    PlotType(
        name="boxplot",
        doc="median, quartiles, whiskers and outliers, a box for each meter",
        takes="samples of any shape",
        ranks=ARRAYS,
        opts=XY | {"legend", "markercolor"},
        draw=_boxplot,
        shown_as="box",
        colour_opt="markercolor",
    ),
    PlotType(
        name="pie",
        doc="a pie chart",
        takes="slices (n,) of one meter, named by legend; or a number from each meter; never "
        "negative",
        ranks=("scalar", "vector"),
        condition=_are_slices,
        opts=LAYOUT | {"legend"},
        draw=_pie,
        shown_as="pie",
    ),
)
