"""The plot type `heat`: a row for each meter, such as a layer, over time; its values as colours."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flexrec.replay.plots.pairs import subtracted
from flexrec.replay.plots.plot_type import XY, Floats, History, Message, PlotType, Traces
from flexrec.replay.plots.ticks import power_texts, set_ticks
from flexrec.replay.plots.types.curves import POINTS, curve, names_of
from flexrec.replay.plots.types.matrices import COLOURS, finite_limits

_MOST_NAMES = 30  # rows that are all named
_ROW, _FRAME = 14, 170  # pixels: the least height of a row; what is above and below the rows
_WIDTH, _HEIGHT = 720, 360
_NAN = "#d4d4d4"


def _heat(client: Any, traces: Traces, opts: Message) -> Message:
    shown = [trace for trace in traces if not trace.pale]
    names = names_of(shown, opts)
    x, values = _matrix(shown)
    found = dict(zip(("xmin", "xmax"), _limits(shown, opts), strict=True)) | opts
    title, is_log = opts.pop("zlabel", ""), opts.pop("ztype", None) == "log"
    low, high = _scale(found["xmin"], found["xmax"], is_log)
    cells, bar = values, Message(title={"text": title, "side": "right"}) if title else Message()
    if is_log and low > 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            cells = np.where(values == 0, math.log10(low), np.log10(values))
        low, high = math.log10(low), math.log10(high)
        bar |= _decades(low, high)
    cells = np.where(np.isfinite(cells), cells, np.nan)
    opts = {"nancolor": _NAN, **_size(len(names)), **opts, "xmin": low, "xmax": high}
    message: Message
    message, _ = client.heatmap(X=cells, opts=opts)
    for layer in message["data"]:  # the colour of NaN is in one below
        layer |= {"x": x.tolist(), "y": list(range(len(names)))}
    message["data"][-1] |= {
        "colorbar": {"thickness": 12, **bar},
        "hoverinfo": "x+text",
        "text": [
            [f"{name}: {value:.4g}" for value in row]
            for name, row in zip(names, values.tolist(), strict=True)
        ],
    }
    _name_rows(message["layout"], names)
    set_ticks(message["layout"], "x", x, opts)
    return message


def _name_rows(layout: Message, names: list[str]) -> None:
    """A tick for each row, or for some of many; the first row is on top."""
    stride = math.ceil(len(names) / _MOST_NAMES)
    layout["yaxis"] = {
        "tickmode": "array",
        "tickvals": list(range(len(names)))[::stride],
        "ticktext": names[::stride],
        "autorange": "reversed",
        "automargin": True,
        "zeroline": False,
        "showgrid": False,
        **layout.get("yaxis", {}),
    }
    layout["showlegend"] = False


def _matrix(traces: Traces) -> tuple[Floats, Floats]:
    """All marks (n,), in order, and the values (rows, n) there; NaN where a row has none."""
    curves = [curve(trace) for trace in traces]
    every = np.concatenate([x for x, _ in curves])
    x = np.unique(every[np.isfinite(every)])
    values = np.full((len(curves), len(x)), np.nan)
    for row, (own, y) in zip(values, curves, strict=True):
        known = np.isfinite(own)
        row[np.searchsorted(x, own[known])] = y[known]
    return x, values


def _limits(traces: Traces, opts: Mapping[str, Any]) -> tuple[float, float]:
    """The least and greatest value; with logarithmic colours the least above 0."""
    values = np.concatenate([np.ravel(trace.y) for trace in traces if not trace.pale])
    return finite_limits(values[values > 0] if opts.get("ztype") == "log" else values)


def _scale(low: float, high: float, is_log: bool) -> tuple[float, float]:
    """The limits, apart: of equal values plotly would make a scale around them."""
    if low < high:
        return low, high
    return (high / 10, high) if is_log else (min(high, 0.0), max(high, 0.0) or 1.0)


def _size(rows: int) -> dict[str, int]:
    return {"width": _WIDTH, "height": max(_HEIGHT, _FRAME + _ROW * min(rows, 2 * _MOST_NAMES))}


def _decades(low: float, high: float) -> Message:
    """Ticks of a colour bar over logarithms, labelled with the values."""
    powers = range(math.ceil(low), math.floor(high) + 1)
    if len(powers) >= 2:
        ticks = [float(power) for power in powers[:: math.ceil(len(powers) / 8)]]
    else:
        ticks = np.linspace(low, high, 4).tolist()
    return {
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": power_texts([float(f"{10.0**tick:.2g}") for tick in ticks]),
    }


HEAT = PlotType(
    name="heat",
    doc="a row for each meter, such as a layer, over the marks' x, with values as colours",
    takes="a number at every mark; NaN and infinities are grey, and the first meter is on top",
    ranks=("scalar",),
    opts=XY | COLOURS | {"legend", "nancolor", "zlabel", "ztype"},
    draw=_heat,
    history=History("vector", POINTS.form, POINTS.gather, is_joint=True),
    shown_as="heatmap",
    side_by_side=subtracted,
    limits=_limits,
    overlays=False,
)
