"""Matrices: heatmap, contour and surf."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flexrec.replay.plots.pairs import subtracted
from flexrec.replay.plots.plot_type import (
    LAYOUT,
    XY,
    Draw,
    Floats,
    Message,
    PlotType,
    Traces,
    axes,
)
from flexrec.replay.plots.ticks import set_ticks
from flexrec.replay.plots.window import Trace

MAX_TICKS = 20
_CAMERA = {"eye": {"x": 1.6, "y": 1.6, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.2}}
PALE_TO_BLUE = [[0, "#f4f6fb"], [1, "#2a5fd0"]]
COLOURS = frozenset({"colormap", "xmin", "xmax"})


def finite_limits(values: Floats) -> tuple[float, float]:
    """The least and the greatest finite value; (0, 1) if there is none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _limits(traces: Traces, _opts: Mapping[str, Any]) -> tuple[float, float]:
    values = [np.ravel(trace.y).astype(np.float64) for trace in traces]
    return finite_limits(np.concatenate(values))


def heatmap(client: Any, traces: Traces, opts: Message) -> Message:
    """Draw a colour for each cell of the first trace's matrix."""
    matrix = np.asarray(traces[0].y)
    numbered = _numbered(np.asarray(matrix, np.float64), opts) if opts.get("numbers") else {}
    message: Message
    message, _ = client.heatmap(X=matrix + 0 if matrix.dtype == bool else matrix, opts=opts)
    message["data"][0] |= numbered
    if traces[0].x is None and traces[0].rows is None:
        _read_as_matrix(message["layout"], matrix.shape, opts)
    if traces[0].x is not None:
        set_ticks(message["layout"], "x", np.asarray(traces[0].x, np.float64), opts)
    placed = replace(traces[0], rows=None) if "rownames" in opts else traces[0]
    return message if "columnnames" in opts else _placed(message, placed)


def _numbered(matrix: Any, opts: Message) -> Message:
    """Write the values into the cells, fractions in percent, in colours that text is legible on."""
    scale = {} if "colormap" in opts else {"colorscale": PALE_TO_BLUE}
    if max(matrix.shape) > MAX_TICKS:
        return scale
    factor = 100 if np.nanmax(matrix, initial=0) <= 1 else 1
    text = [
        [f"{factor * cell:.0f}" if np.isfinite(cell) and cell else "" for cell in row]
        for row in matrix.tolist()
    ]
    return {**scale, "text": text, "texttemplate": "%{text}", "xgap": 1, "ygap": 1}


def _read_as_matrix(layout: Message, shape: tuple[int, ...], opts: Message) -> None:
    """Put row 0 at the top, as in a written matrix, and a tick at each class if there are few."""
    if "ytickmin" not in opts:
        layout.setdefault("yaxis", {}).setdefault("autorange", "reversed")
    for axis, length in (("y", shape[0]), ("x", shape[1])):
        if length <= MAX_TICKS and not {f"{axis}tickvals", f"{axis}tickstep"} & set(opts):
            layout.setdefault(f"{axis}axis", {}).setdefault("dtick", 1)
        if opts.get("numbers"):  # the grid would show in the gaps between cells
            layout.setdefault(f"{axis}axis", {}).setdefault("zeroline", False)


def _is_surface(matrix: Any) -> bool:
    return all(length >= 2 for length in np.shape(matrix))


def _surface(name: str, **margins: int) -> Draw:
    def draw(client: Any, traces: Traces, opts: Message) -> Message:
        matrix = np.asarray(traces[0].y, dtype=np.float64)
        if not _is_surface(matrix):
            raise ValueError(f"a surface has at least 2 by 2 values, not {matrix.shape}")
        # 0.2.4 does not leave NaN out of the extremes.
        finite = matrix[np.isfinite(matrix)] if np.isfinite(matrix).any() else np.zeros(1)
        limits = {"xmin": float(finite.min()), "xmax": float(finite.max())}
        message: Message
        message, _ = getattr(client, name)(X=matrix, opts={**limits, **margins, **opts})
        if margins:
            message["data"][0]["colorbar"] = {"len": 0.8, "thickness": 12}
            message["layout"].setdefault("scene", {}).setdefault("camera", _CAMERA)
        return _placed(message, traces[0])

    return draw


def _placed(message: Message, trace: Trace) -> Message:
    """Place the matrix's columns at the trace's x, and its rows at the trace's rows, if given."""
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


MATRICES = (
    PlotType(
        name="heatmap",
        doc="a colour for each cell; row 0 at the top (at the bottom if columns have an x)",
        takes="a matrix (rows, columns), its columns at the trace's x if it has one",
        ranks=("matrix",),
        opts=XY | COLOURS | {"columnnames", "rownames", "nancolor", "numbers"},
        max_traces=1,
        draw=heatmap,
        shown_as="heatmap",
        side_by_side=subtracted,
        limits=_limits,
    ),
    PlotType(
        name="contour",
        doc="lines of equal value",
        takes="a matrix (rows, columns) of at least 2 by 2",
        ranks=("matrix",),
        condition=_is_surface,
        opts=XY | COLOURS,
        max_traces=1,
        draw=_surface("contour"),
        shown_as="contour",
        side_by_side=subtracted,
        limits=_limits,
    ),
    PlotType(
        name="surf",
        doc="a surface in three dimensions that can be rotated with the mouse",
        takes="a matrix (rows, columns) of at least 2 by 2",
        ranks=("matrix",),
        condition=_is_surface,
        opts=LAYOUT | axes("xyz") | COLOURS,
        max_traces=1,
        draw=_surface("surf", margintop=50, marginleft=20, marginbottom=20),
        shown_as="surface",
        side_by_side=subtracted,
        limits=_limits,
    ),
)
