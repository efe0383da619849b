"""How visdom's client is asked for each plot type, with a client that is handed in.

visdom is not imported here and nothing is sent: the client only builds its message. What it
would refuse or draw wrongly (curves of unequal length, a lone bar, NaN) is settled around it.
"""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.replay.pictures import grid, pixels
from flexrec.replay.window import Trace

__all__ = ["DRAW"]

MAX_TICKS = 20
SMALL = 6  # pixels of a line's points, where they are marked so that each is seen
PICTURE_SIDE = 256  # pixels that a small picture is enlarged to, or nearly
PANE_WIDTH = 120  # pixels that a window's bar needs for a title
PANE_BAR, CAPTION = 10, 12  # pixels that visdom cuts off a picture's height, and does not add

Message = dict[str, Any]
Traces = Sequence[Trace]


def _names(traces: Traces, opts: Message) -> list[str]:
    names = opts.get("legend", [trace.name for trace in traces])
    if not isinstance(names, list) or len(names) != len(traces):
        raise ValueError(f"legend must be a list of {len(traces)} names, not {names!r}")
    return [str(name) for name in names]


def _curve(trace: Trace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y, of one length; no points at all are one gap, since visdom refuses an empty trace."""
    y = np.asarray(trace.y, dtype=np.float64)
    x = np.arange(len(y)) if trace.x is None else np.asarray(trace.x)
    if x.shape != y.shape:
        raise ValueError(f"{trace.name!r} has {x.shape} positions for {y.shape} values")
    if len(y) == 0:
        return np.array([np.nan]), np.array([np.nan])
    return x.astype(np.float64), y


def _scattered(client: Any, curves: Sequence[Any], names: list[str], opts: Message) -> Message:
    """One trace a curve: visdom tells them apart by labels from 1."""
    for colours in ("linecolor", "markercolor", "dash"):
        if colours in opts:
            opts[colours] = np.asarray(opts[colours])
    points = np.concatenate([np.column_stack(curve) for curve in curves])
    labels = np.repeat(np.arange(1, len(curves) + 1), [len(x) for x, _ in curves])
    message: Message
    message, _ = client.scatter(X=points, Y=labels, opts={**opts, "legend": names})
    return message


def _line(client: Any, traces: Traces, opts: Message) -> Message:
    # What visdom's own `line` does before it calls `scatter`, which alone takes curves that
    # differ in length.
    asked = {"fillarea": False, "markers": False, **opts}
    asked["mode"] = "lines+markers" if asked["markers"] else "lines"
    curves = [_curve(trace) for trace in traces]
    message = _scattered(client, curves, _names(traces, asked), asked)
    for drawn, curve in zip(message["data"], curves, strict=True):
        if "markers" not in opts and drawn["mode"] == "lines" and _has_lone_point(*curve):
            drawn["mode"] = "lines+markers"
            drawn["marker"]["size"] = opts.get("markersize", SMALL)
    for axis in ("xaxis", "yaxis"):
        if message["layout"].get(axis, {}).get("type") == "log":
            message["layout"][axis]["exponentformat"] = "power"  # not m, n, G, as of units
    if opts.get("ytype") == "log":
        message["data"] += _zeros(traces, curves)
    return message


def _zeros(traces: Traces, curves: Sequence[Any]) -> list[Message]:
    """Marks below all that a logarithmic axis can show, for the zeros that it cannot: a layer whose
    gradient is 0 must not look as if it were not there."""
    kept = [(x[y == 0], trace.name) for trace, (x, y) in zip(traces, curves, strict=True)]
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


def _has_lone_point(x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """Whether a point has a gap or nothing on both sides: no line shows it."""
    known = np.pad(np.isfinite(x) & np.isfinite(y), 1)
    return bool((known[1:-1] & ~known[:-2] & ~known[2:]).any())


def _scatter(client: Any, traces: Traces, opts: Message) -> Message:
    return _scattered(client, [_curve(trace) for trace in traces], _names(traces, opts), opts)


def _plane(client: Any, traces: Traces, opts: Message) -> Message:
    colours = opts.pop("colormap", "Viridis")
    joined = "lines" in opts.pop("mode", "markers")
    title, is_log = opts.pop("zlabel", ""), opts.pop("ztype", None) == "log"
    curves = [_curve(trace) for trace in traces]
    message = _scattered(client, curves, _names(traces, opts), {**opts, "mode": "markers"})
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
            "colorbar": {  # the legend is right
                "thickness": 12,
                "x": -0.2,
                "xanchor": "right",
                **bar,
                **({"title": {"text": title}} if title else {}),
            },
        }
    if joined:
        message["data"].insert(0, _paths(traces, curves, marks))  # first: the dots lie above it
    return message


def _ticks(marks: NDArray[np.float64]) -> Message:
    """Of a bar whose colours follow log(1 + mark): the first mark, powers of ten, and the last."""
    low, high = float(marks.min()), float(marks.max())
    tens = [10.0**k for k in range(19) if low < 10.0**k < high]
    values = np.unique([low, *tens, high])
    return {
        "tickmode": "array",
        "tickvals": np.log1p(values).tolist(),
        "ticktext": [f"{value:g}" for value in values],
    }


def _paths(traces: Traces, curves: Sequence[Any], marks: Sequence[NDArray[np.float64]]) -> Message:
    """A thin line for each mark of a run, through the places of all its traces in their order."""
    stops: dict[tuple[str | None, float], list[Any]] = {}
    for trace, (x, y), found in zip(traces, curves, marks, strict=True):
        for place in zip(found.tolist(), x.tolist(), y.tolist(), strict=False):  # none has a gap
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


def _marks(trace: Trace) -> NDArray[np.float64]:
    marks = np.arange(len(trace.y)) if trace.marks is None else np.asarray(trace.marks)
    return marks.astype(np.float64)


_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "pentagon", "star")


def _stem(client: Any, traces: Traces, opts: Message) -> Message:
    # As visdom's own `stem` does: up from zero, then a gap.
    curves = []
    for trace in traces:
        x, y = _curve(trace)
        gap = np.full_like(x, np.nan)
        curves.append((np.stack([x, x, gap], 1).ravel(), np.stack([0 * x, y, gap], 1).ravel()))
    return _scattered(client, curves, _names(traces, opts), {**opts, "mode": "lines"})


def _dual_axis_lines(client: Any, traces: Traces, opts: Message) -> Message:
    # The default colour is misspelt in 0.2.4; and both lines must have one x there.
    defaults = {"color_title_y2": "rgb(148, 103, 189)"}
    defaults |= {f"name_y{k}": trace.name for k, trace in enumerate(traces, 1)}
    spot = np.zeros(1)
    message: Message
    message, _ = client.dual_axis_lines(X=spot, Y1=spot, Y2=spot, opts={**defaults, **opts})
    del message["data"][len(traces) :]  # the second meter may have said nothing yet
    message["layout"]["legend"] = {"orientation": "h", "x": 0, "y": 1.15}  # off the right axis
    for drawn, trace in zip(message["data"], traces, strict=True):
        drawn["x"], drawn["y"] = (values.tolist() for values in _curve(trace))
    return message


def _columns(
    draw: Callable[..., Any], columns: Sequence[NDArray[Any]], names: list[str], opts: Message
) -> Message:
    """`draw` of one column a trace, of any lengths.

    visdom squeezes a lone row and a lone column away: one of each is added here, and cut off.
    """
    matrix = np.full((max(1, *map(len, columns)) + 1, len(columns) + 1), np.nan)
    for k, column in enumerate(columns):
        matrix[: len(column), k] = column
    message: Message
    message, _ = draw(X=matrix, opts={**opts, "legend": [*names, ""]})
    message["opts"]["legend"] = names
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
    message = _columns(client.bar, columns, _names(traces, opts), opts)
    if labels is not None:
        if len(labels) != max(map(len, columns)):
            raise ValueError(f"rownames names {len(labels)} bars of {max(map(len, columns))}")
        positions = [np.asarray(labels, dtype=object)] * len(traces)
        message["opts"]["rownames"] = labels
    for drawn, column, position in zip(message["data"], columns, positions, strict=True):
        drawn["x"] = position[: len(column)].tolist()
    return message


def _histogram(client: Any, traces: Traces, opts: Message) -> Message:
    """Bars at the bins' centres; visdom's own spreads them from the least to the greatest value."""
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
    return _bar(client, counted, opts)


def _boxplot(client: Any, traces: Traces, opts: Message) -> Message:
    columns = [np.ravel(trace.y) for trace in traces]
    return _columns(client.boxplot, columns, _names(traces, opts), opts)


def _pie(client: Any, traces: Traces, opts: Message) -> Message:
    slices = np.concatenate([np.atleast_1d(trace.y) for trace in traces]).astype(np.float64)
    slices = np.where(np.isfinite(slices), slices, 0.0)
    own = [trace.name for trace in traces] if len(slices) == len(traces) else None
    names = opts.pop("legend", own)
    if names is not None and (not isinstance(names, list) or len(names) != len(slices)):
        raise ValueError(f"legend must be a list of {len(slices)} names, not {names!r}")
    named = {} if names is None else {"legend": [*names, ""]}
    # visdom squeezes a lone slice away: an empty one is added here, and cut off.
    message: Message
    message, _ = client.pie(X=np.append(slices, 0.0), opts={**opts, **named})
    message["data"][0].update(values=slices.tolist(), labels=names)
    if names is not None:
        message["opts"]["legend"] = names
    return message


def _heatmap(client: Any, traces: Traces, opts: Message) -> Message:
    matrix = np.asarray(traces[0].y)
    message: Message
    message, _ = client.heatmap(X=matrix + 0 if matrix.dtype == bool else matrix, opts=opts)
    if traces[0].x is None and traces[0].rows is None:
        _read_as_matrix(message["layout"], matrix.shape, opts)
    return message if "columnnames" in opts else _placed(message, traces[0])


def _read_as_matrix(layout: Message, shape: tuple[int, ...], opts: Message) -> None:
    """Row 0 at the top, as a matrix is written, and a tick for each class of a few."""
    if "ytickmin" not in opts:
        layout.setdefault("yaxis", {}).setdefault("autorange", "reversed")
    for axis, length in (("y", shape[0]), ("x", shape[1])):
        if length <= MAX_TICKS and not {f"{axis}tickvals", f"{axis}tickstep"} & set(opts):
            layout.setdefault(f"{axis}axis", {}).setdefault("dtick", 1)


def _histograms(client: Any, traces: Traces, opts: Message) -> Message:
    opts.pop("numbins", None)  # the bins were chosen with the marks at hand
    return _heatmap(client, traces, {"colormap": "Viridis", **opts})


def _surface(name: str) -> Callable[[Any, Traces, Message], Message]:
    def draw(client: Any, traces: Traces, opts: Message) -> Message:
        matrix = np.asarray(traces[0].y, dtype=np.float64)
        if min(matrix.shape) < 2:
            raise ValueError(f"a surface has at least 2 by 2 values, not {matrix.shape}")
        # 0.2.4 takes the extremes with NaN in them.
        finite = matrix[np.isfinite(matrix)] if np.isfinite(matrix).any() else np.zeros(1)
        limits = {"xmin": float(finite.min()), "xmax": float(finite.max())}
        message: Message
        message, _ = getattr(client, name)(X=matrix, opts={**limits, **opts})
        return _placed(message, traces[0])

    return draw


def _placed(message: Message, trace: Trace) -> Message:
    """The matrix with its columns at the trace's x, where it has one."""
    if trace.x is not None:
        if np.shape(trace.x) != np.shape(trace.y)[1:]:
            raise ValueError(f"{np.shape(trace.x)} positions for columns of {np.shape(trace.y)}")
        for drawn in message["data"]:
            drawn["x"] = np.asarray(trace.x).tolist()
    if trace.rows is not None:
        if np.shape(trace.rows) != np.shape(trace.y)[:1]:
            raise ValueError(f"{np.shape(trace.rows)} positions for rows of {np.shape(trace.y)}")
        for drawn in message["data"]:
            drawn["y"] = np.asarray(trace.rows).tolist()
    return message


def _image(client: Any, traces: Traces, opts: Message) -> Message:
    return _picture(client, pixels(traces[0].y), opts)


def _images(client: Any, traces: Traces, opts: Message) -> Message:
    layout = {name: int(opts.pop(name)) for name in ("nrow", "padding") if name in opts}
    return _picture(client, grid(traces[0].y, **layout), opts)


def _picture(client: Any, picture: NDArray[np.uint8], opts: Message) -> Message:
    if len(picture) == 4:
        opts.pop("jpgquality", None)  # JPEG has no alpha
    opts = {**_pane(picture.shape[1], picture.shape[2], opts), **opts}
    message: Message
    message, _ = client.image(img=picture, opts=opts)
    return message


def _pane(height: int, width: int, opts: Message) -> dict[str, int]:
    """The size of a window that shows the whole picture in its proportions."""
    beside = PANE_BAR + (CAPTION if opts.get("caption") else 0)
    if "width" in opts:
        scale = float(opts["width"]) / width
    elif "height" in opts:
        scale = max(1.0, float(opts["height"]) - beside) / height
    else:
        scale = max(1, PICTURE_SIDE // max(height, width))
    return {
        "width": max(PANE_WIDTH, round(width * scale)),
        "height": round(height * scale) + beside,
    }


def _text(client: Any, traces: Traces, opts: Message) -> Message:
    shown = "<br>".join(html.escape(line) for line in traces[0].y.splitlines())
    message: Message
    message, _ = client.text(text=shown, opts=opts)
    return message


DRAW: dict[str, Callable[[Any, Traces, Message], Message]] = {
    "bar": _bar,
    "boxplot": _boxplot,
    "contour": _surface("contour"),
    "dual_axis_lines": _dual_axis_lines,
    "heatmap": _heatmap,
    "histogram": _histogram,
    "histograms": _histograms,
    "image": _image,
    "images": _images,
    "line": _line,
    "pie": _pie,
    "plane": _plane,
    "scatter": _scatter,
    "stem": _stem,
    "surf": _surface("surf"),
    "text": _text,
}
