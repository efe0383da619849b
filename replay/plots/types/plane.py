"""The plot type `plane`: a point for each mark, coloured by the mark, as in information planes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flexrec.replay.plots.pairs import overlaid
from flexrec.replay.plots.plot_type import (
    LAYOUT,
    Floats,
    History,
    Message,
    PlotType,
    Traces,
    axes,
    rank,
)
from flexrec.replay.plots.types.curves import curve, names_of, scattered
from flexrec.replay.plots.window import Trace


def _plane(client: Any, traces: Traces, opts: Message) -> Message:
    colours = opts.pop("colormap", "Viridis")
    joined = "lines" in opts.pop("mode", "markers")
    title, is_log = opts.pop("zlabel", ""), opts.pop("ztype", None) == "log"
    curves = [curve(trace) for trace in traces]
    message = scattered(client, curves, names_of(traces, opts), {**opts, "mode": "markers"})
    marks = [_marks(trace) for trace in traces]
    shades, bar, every = marks, Message(), np.concatenate(marks)
    if is_log and len(every) and every.min() >= 0:
        shades, bar, every = [np.log1p(found) for found in marks], _ticks(every), np.log1p(every)
    limits = {"cmin": float(every.min()), "cmax": float(every.max())} if len(every) else {}
    for k, (drawn, shade) in enumerate(zip(message["data"], shades, strict=True)):
        drawn["marker"] |= {
            **limits,
            "color": shade.tolist(),
            "colorscale": colours,
            "symbol": _SYMBOLS[k % len(_SYMBOLS)],
            "showscale": k == 0,
            "colorbar": {
                "thickness": 12,
                **bar,
                **({"title": {"text": title}} if title else {}),
            },
        }
    layout = message["layout"]
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    for axis in ("xaxis", "yaxis"):  # 1 bit is not 0.9999999999999996
        layout[axis] = {"tickformat": ".3~g", **layout.get(axis, {})}
    if joined:
        message["data"].insert(
            0, _paths(traces, curves, marks)
        )  # first, so that the dots are drawn above it
    return message


def _ticks(marks: Floats) -> Message:
    """Ticks of a colour bar over log(1 + mark): at the first mark, powers of ten that have room,
    and at the last."""
    low, high = float(marks.min()), float(marks.max())
    room = _ROOM * (math.log1p(high) - math.log1p(low))
    tens = [10.0**k for k in range(19) if low < 10.0**k < high]
    ends = [math.log1p(low), math.log1p(high)]
    apart = [ten for ten in tens if min(abs(math.log1p(ten) - end) for end in ends) > room]
    values = np.unique([low, *apart, high])
    return {
        "tickmode": "array",
        "tickvals": np.log1p(values).tolist(),
        "ticktext": [f"{value:g}" for value in values],
    }


def _paths(traces: Traces, curves: Sequence[Any], marks: Sequence[Floats]) -> Message:
    """Draw a thin line for each mark of a run, through the points of all its traces in order."""
    stops: dict[tuple[str | None, float], list[Any]] = {}
    for trace, (x, y), found in zip(traces, curves, marks, strict=True):
        for place in zip(found.tolist(), x.tolist(), y.tolist(), strict=False):  # no point is a gap
            stops.setdefault((trace.run, place[0]), []).append(place[1:])
    gap = (math.nan, math.nan)
    every = [place for path in stops.values() for place in (*path, gap)]
    xs, ys = zip(*every, strict=True) if every else ((), ())
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "joined",
        "x": [x if math.isfinite(x) else None for x in xs],
        "y": [y if math.isfinite(y) else None for y in ys],
        "line": {"color": "rgba(128, 128, 128, 0.4)", "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _marks(trace: Trace) -> Floats:
    marks = np.arange(len(trace.y)) if trace.marks is None else np.asarray(trace.marks)
    return marks.astype(np.float64)


_ROOM = 0.08  # of the bar, between its ends and other ticks
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "pentagon", "star")


def _form(value: Any) -> bool | None:
    """True for pairs, the only values that are drawn."""
    return (rank(value) == "vector" and len(value) == 2) or None


def _places(
    label: str, xs: Sequence[float], values: Sequence[Any], _opts: Mapping[str, Any]
) -> list[Trace]:
    """Make a trace of the points of all marks, with the marks for the colour."""
    places = np.array(values, np.float64)
    return [Trace(label, places[:, 1], places[:, 0], marks=np.array(xs))]


PLANES = (
    PlotType(
        name="plane",
        doc="a dot at the pair of each mark, coloured by the mark's x",
        takes="a pair (x, y) at every mark",
        ranks=("vector",),
        opts=LAYOUT | axes("xy") | {"legend", "markersize", "colormap", "mode", "zlabel", "ztype"},
        draw=_plane,
        history=History("vector", _form, _places, is_over_marks=False),
        shown_as="scatter",
        side_by_side=overlaid,
        overlays=False,  # the colours tell the marks, so none are left for runs
    ),
)
