"""Curves over the marks' x: line, scatter, stem and dual_axis_lines.

Works around what visdom's client refuses or draws wrongly: curves of unequal length, and NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flexrec.replay.plots.colours import CYCLE
from flexrec.replay.plots.pairs import overlaid
from flexrec.replay.plots.plot_type import (
    PANE,
    XY,
    Floats,
    History,
    Message,
    PlotType,
    Traces,
    rank,
)
from flexrec.replay.plots.smoothing import smoothed
from flexrec.replay.plots.ticks import set_ticks
from flexrec.replay.plots.types.bands import with_bands
from flexrec.replay.plots.window import Trace, legend_names, says

PALE = 0.3  # opacity of the original values of a smoothed line
BELOW = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}
"""The place of a legend below the plot, where it takes no width."""

_LONG = 16  # letters of a name; longer ones stand below the plot, not beside it
SMALL = 6  # size of points in pixels, if a line's points are marked
_SYMBOLS = {
    "dash": "square",
    "dot": "diamond",
    "dashdot": "triangle-up",
    "longdash": "cross",
    "longdashdot": "x",
}
"""The points of lines that are not solid, which tell phases apart where there is no line."""


def names_of(traces: Traces, opts: Message) -> list[str]:
    """The names in the legend: from the opts, or the traces' names without the title's words."""
    listed = legend_names([t for t in traces if not t.pale], str(opts.get("title", "")))
    names = opts.get("legend", listed)
    if not isinstance(names, list) or len(names) != len(listed):
        raise ValueError(f"legend must be a list of {len(listed)} names, not {names!r}")
    left = [str(name) for name in names]
    # A pale trace comes before its smoothed line, and has the same name.
    return [left[0] if trace.pale else left.pop(0) for trace in traces]


def curve(trace: Trace) -> tuple[Floats, Floats]:
    """x and y, of equal length; a gap if there are no points: visdom refuses an empty trace."""
    y = np.asarray(trace.y, dtype=np.float64)
    x = np.arange(len(y)) if trace.x is None else np.asarray(trace.x)
    if x.shape != y.shape:
        raise ValueError(f"{trace.name!r} has {x.shape} positions for {y.shape} values")
    if len(y) == 0:
        return np.array([np.nan]), np.array([np.nan])
    return x.astype(np.float64), y


def scattered(client: Any, curves: Sequence[Any], names: list[str], opts: Message) -> Message:
    """Draw one trace for each curve; visdom tells them apart by labels from 1."""
    for colours in ("linecolor", "markercolor", "dash"):
        if colours in opts:
            opts[colours] = np.asarray(opts[colours])
    points = np.concatenate([np.column_stack(xy) for xy in curves])
    labels = np.repeat(np.arange(1, len(curves) + 1), [len(x) for x, _ in curves])
    message: Message
    message, _ = client.scatter(X=points, Y=labels, opts={**opts, "legend": names})
    return message


def _line(client: Any, traces: Traces, opts: Message) -> Message:
    # This does what visdom's `line` does before it calls `scatter`: only `scatter` takes curves of
    # different lengths.
    asked = {"fillarea": False, "markers": False, **opts}
    asked["mode"] = "lines+markers" if asked["markers"] else "lines"
    lines, asked = with_bands(traces, names_of(traces, asked), asked)
    traces = [line.trace for line in lines]
    curves = [curve(trace) for trace in traces]
    message = scattered(client, curves, [line.name for line in lines], asked)
    for drawn, trace in zip(message["data"], traces, strict=True):
        if trace.pale:
            drawn |= {"opacity": PALE, "showlegend": False, "hoverinfo": "skip"}
    is_log = opts.get("ytype") == "log"
    for drawn, (x, y) in zip(message["data"], curves, strict=True):
        shown = np.where(y > 0, y, np.nan) if is_log else y
        if "markers" not in opts and drawn["mode"] == "lines" and _has_lone_point(x, shown):
            drawn["mode"] = "lines+markers"
            drawn["marker"]["size"] = opts.get("markersize", SMALL)
            symbol = _SYMBOLS.get(drawn.get("line", {}).get("dash"))
            if symbol and "markersymbol" not in opts:
                drawn["marker"]["symbol"] = symbol
    for drawn, line in zip(message["data"], lines, strict=True):
        shape = {**drawn.get("line", {}), **line.style.get("line", {})}
        drawn |= {**line.style, **({"line": shape} if shape else {})}
    if max(len(drawn["name"]) for drawn in message["data"]) > _LONG:
        message["layout"]["legend"] = dict(BELOW)
    if "showlegend" not in opts and "legend" not in opts:
        _spare_legend(message, str(opts.get("title", "")))
    _set_ticks(message, curves, opts)
    xs, ys = (np.concatenate(values) for values in zip(*curves, strict=True))
    if len(set(ys[np.isfinite(ys)].tolist())) == 1:  # plotly would show it between -1 and 1
        message["layout"].setdefault("yaxis", {}).setdefault("rangemode", "tozero")
    if opts.get("ytype") == "log":
        message["data"] += _zeros(traces, curves)
    if "guide" in opts:
        message["data"] += _guide(float(opts["guide"]), xs)
    return message


def _guide(value: float, xs: Floats) -> list[Message]:
    """A grey horizontal line along all x."""
    finite = xs[np.isfinite(xs)]
    if not len(finite):
        return []
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{value:g}",
            "x": [float(finite.min()), float(finite.max())],
            "y": [value, value],
            "line": {"color": "#888", "width": 1, "dash": "dot"},
            "hoverinfo": "name",
            "showlegend": False,
        }
    ]


def _spare_legend(message: Message, title: str) -> None:
    """Hide the legend if there is one line, and the title already names it."""
    names = {drawn["name"] for drawn in message["data"]}
    if len(names) == 1 and says(title, names.pop()):
        message["layout"]["showlegend"] = False


def _zeros(traces: Traces, curves: Sequence[Any]) -> list[Message]:
    """Marks at the lower end of a logarithmic axis for zeros, which it cannot show: a layer whose
    gradient is 0 must not look absent."""
    drawn = [(t, xy) for t, xy in zip(traces, curves, strict=True) if not t.pale]
    kept = [(x[y == 0], trace.name) for trace, (x, y) in drawn]
    if not any(len(x) for x, _ in kept):
        return []
    every = np.concatenate([y for _, y in curves])
    above = every[np.isfinite(every) & (every > 0)]
    xs = np.concatenate([x for x, _ in kept])
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "exactly 0",
            "x": xs.tolist(),
            "y": [float(above.min()) / 3 if len(above) else 1.0] * len(xs),
            "marker": {"symbol": "triangle-down-open", "size": 8, "color": "#888"},
            "text": [name for x, name in kept for _ in range(len(x))],
            "hoverinfo": "x+text",
        }
    ]


def _has_lone_point(x: Floats, y: Floats) -> bool:
    """Whether no line shows a point: on both sides it has a gap, or only equal points."""
    is_first = np.ones(len(x), bool)  # of points at one place
    is_first[1:] = (x[1:] != x[:-1]) | (y[1:] != y[:-1])
    known = np.pad((np.isfinite(x) & np.isfinite(y))[is_first], 1)
    return bool((known[1:-1] & ~known[:-2] & ~known[2:]).any())


def _scatter(client: Any, traces: Traces, opts: Message) -> Message:
    curves = [curve(trace) for trace in traces]
    message = scattered(client, curves, names_of(traces, opts), opts)
    _set_ticks(message, curves, opts)
    return message


def _stem(client: Any, traces: Traces, opts: Message) -> Message:
    # As in visdom's `stem`: up from zero, then a gap. Dots at the tips keep the last one inside the
    # plot; of stems at the same x, the first are the widest.
    curves = [curve(trace) for trace in traces]
    stems = []
    for x, y in curves:
        gap = np.full_like(x, np.nan)
        stems.append((np.stack([x, x, gap], 1).ravel(), np.stack([0 * x, y, gap], 1).ravel()))
    asked = {**opts, "mode": "lines+markers"}
    message = scattered(client, stems, names_of(traces, opts), asked)
    tip = opts.get("markersize", SMALL)
    for k, (drawn, (x, _)) in enumerate(zip(message["data"], curves, strict=True)):
        drawn["marker"] |= {"size": [0, tip, 0] * len(x)}
        drawn["line"] = {**drawn.get("line", {}), "width": 2 * (len(curves) - k)}
    _set_ticks(message, curves, opts)
    return message


def _set_ticks(message: Message, curves: Sequence[tuple[Floats, Floats]], opts: Message) -> None:
    for axis, values in zip("xy", zip(*curves, strict=True), strict=True):
        set_ticks(message["layout"], axis, np.concatenate(values), opts)


def _dual_axis_lines(client: Any, traces: Traces, opts: Message) -> Message:
    # In 0.2.4 the default colour is misspelt, and both lines must have the same x.
    defaults: Message = {"showlegend": False}  # the axes have the lines' names and colours
    for k, name in enumerate(names_of(traces, {"title": opts.get("title", "")}), 1):
        colour = f"rgb{CYCLE[k - 1]}"
        defaults |= {f"name_y{k}": name, f"color_title_y{k}": colour, f"color_tick_y{k}": colour}
    spot = np.zeros(1)
    over = {"title": opts.pop("xlabel", None), "type": opts.pop("xtype", None)}
    message: Message
    message, _ = client.dual_axis_lines(X=spot, Y1=spot, Y2=spot, opts={**defaults, **opts})
    del message["data"][len(traces) :]  # the second meter may have no result yet
    message["layout"]["legend"] = {"orientation": "h", "x": 0, "y": 1.15}  # off the right axis
    curves = [curve(trace) for trace in traces]
    for k, (drawn, points) in enumerate(zip(message["data"], curves, strict=True)):
        drawn["x"], drawn["y"] = (values.tolist() for values in points)
        drawn |= {"mode": "lines+markers" if _has_lone_point(*points) else "lines"}
        drawn["line"] = {"color": f"rgb{CYCLE[k]}"}
    message["layout"]["xaxis"] = {name: item for name, item in over.items() if item}
    xtype = {"xtype": over["type"]} if over["type"] else {}
    set_ticks(message["layout"], "x", np.concatenate([x for x, _ in curves]), xtype)
    return message


def _form(value: Any) -> tuple[int, ...] | None:
    """The shape; a vector of one component counts as a number, since both are drawn alike."""
    if type(value) is float or rank(value) == "scalar":
        return (1,)
    return np.shape(value) if rank(value) == "vector" and len(value) else None


def _points(
    label: str, xs: Sequence[float], values: Sequence[Any], _opts: Mapping[str, Any]
) -> list[Trace]:
    """Make a line for numbers, or a line for each component of vectors."""
    x = np.array(xs, np.float64)
    if set(map(type, values)) != {float}:
        values = [np.ravel(value) for value in values]
    columns = np.array(values, np.float64).reshape(len(x), -1).T
    names = [f"{label} {i}" for i in range(len(columns))] if len(columns) > 1 else [label]
    return [Trace(name, y, x) for name, y in zip(names, columns, strict=True)]


def _line_points(
    label: str, xs: Sequence[float], values: Sequence[Any], opts: Mapping[str, Any]
) -> list[Trace]:
    """The same; with the opt `smooth`, each line is pale, and its smoothed line follows."""
    found, weight = _points(label, xs, values, opts), opts.get("smooth", 0)
    if not weight:
        return found
    pairs = ((replace(t, pale=True), replace(t, y=smoothed(t.y, weight))) for t in found)
    return [trace for pair in pairs for trace in pair]


POINTS = History("vector", _form, _points, is_curve=True)
_OPTS = XY | {
    *("legend", "markersymbol", "markersize", "markercolor", "markerborderwidth"),
    *("linecolor", "dash", "fillarea", "traceopts", "webgl"),
}
_DUAL = PANE | {
    *("xlabel", "xtype"),
    *("name_y1", "name_y2", "color_title_y1", "color_tick_y1", "color_title_y2"),
    *("color_tick_y2", "side", "showlegend", "top", "bottom", "right", "left"),
}

CURVES = (
    PlotType(
        name="line",
        doc="a line for each meter, over the marks' x",
        takes="a number at every mark; NaN and infinities draw a gap",
        ranks=("scalar",),
        opts=_OPTS | {"guide", "heat_above", "markers", "smooth"},
        draw=_line,
        history=History("vector", _form, _line_points, is_curve=True),
        shown_as="scatter",
        side_by_side=overlaid,
        colour_opt="linecolor",
    ),
    PlotType(
        name="scatter",
        doc="a dot for each mark, in a colour for each meter",
        takes="a number at every mark",
        ranks=("scalar",),
        opts=_OPTS | {"mode"},
        draw=_scatter,
        history=POINTS,
        shown_as="scatter",
        side_by_side=overlaid,
        colour_opt="markercolor",
    ),
    PlotType(
        name="stem",
        doc="a vertical line from zero to the value for each mark",
        takes="a number at every mark",
        ranks=("scalar",),
        opts=_OPTS - {"dash"},
        draw=_stem,
        history=POINTS,
        shown_as="scatter",
        side_by_side=overlaid,
        colour_opt="linecolor",
    ),
    PlotType(
        name="dual_axis_lines",
        doc="two lines, the second with its own y axis on the right",
        takes="a number at every mark, from two meters",
        ranks=("scalar",),
        opts=_DUAL,
        max_traces=2,
        draw=_dual_axis_lines,
        history=POINTS,
        shown_as="scatter",
        side_by_side=overlaid,
    ),
)
