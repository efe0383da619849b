"""The plot type `fan`: quantiles over time, as bands around the median."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flexrec.replay.plots.colours import CYCLE
from flexrec.replay.plots.pairs import overlaid
from flexrec.replay.plots.plot_type import XY, Floats, History, Message, PlotType, Traces, rank
from flexrec.replay.plots.ticks import SymmetricLog, set_ticks
from flexrec.replay.plots.types.curves import BELOW, SMALL, names_of, scattered
from flexrec.replay.plots.window import Trace

QUANTILES = {
    "least": 0.0,
    "5 %": 0.05,
    "25 %": 0.25,
    "median": 0.5,
    "75 %": 0.75,
    "95 %": 0.95,
    "greatest": 1.0,
}
"""The rows of a fan."""

_MEDIAN = 3
_BANDS = (  # the rows of the bounds, opacity, and the names of the band and of its lower bound
    (0, 6, 0.12, "least to greatest", "least"),
    (1, 5, 0.2, "5 to 95 %", "5 %"),
    (2, 4, 0.35, "25 to 75 %", "25 %"),
)
_FEW = 2  # the most fans that have all bands; more have only the second


def _fan(client: Any, traces: Traces, opts: Message) -> Message:
    fans = [_rows(trace) for trace in traces]
    every = np.concatenate([rows.ravel() for _, rows in fans])
    axis = _axis(fans, opts)
    opts = {name: item for name, item in opts.items() if axis is None or name != "ytype"}
    names, colours = names_of(traces, opts), opts.pop("linecolor", CYCLE)
    drawn = [(x, rows if axis is None else axis.places(rows)) for x, rows in fans]
    medians = [(x, rows[_MEDIAN]) for x, rows in drawn]
    message = scattered(client, medians, names, {"showlegend": True, **opts, "mode": "lines"})
    bands, lines = _BANDS if len(traces) <= _FEW else _BANDS[1:2], message["data"]
    message["data"] = []
    for k, (line, (x, rows)) in enumerate(zip(lines, drawn, strict=True)):
        colour = ", ".join(map(str, colours[k % len(colours)]))
        line["line"] = {"color": f"rgb({colour})", "width": 2}
        line |= {"legendgroup": names[k]} if len(traces) > 1 else {}
        line["marker"] |= {"color": f"rgb({colour})", "size": SMALL}
        line["mode"] = "lines+markers" if _has_lone(rows) else "lines"
        if axis is not None:  # the values, not their places
            shown = [f"{value:.4g}" for value in fans[k][1][_MEDIAN]]
            line |= {"text": shown, "hoverinfo": "x+text+name"}
        message["data"] += [*_bands(line, x, rows, bands, colour), line]
    message["layout"]["legend"] = dict(BELOW)
    if len(traces) == 1:
        _explain(message)
    if axis is not None and not {"ytickvals", "ytickstep", "ytickmin"} & set(opts):
        message["layout"]["yaxis"] = {**message["layout"].get("yaxis", {}), **axis.ticks(every)}
    set_ticks(message["layout"], "x", np.concatenate([x for x, _ in fans]), opts)
    return message


def _bands(
    median: Message, x: Floats, rows: Floats, bands: Sequence[Any], colour: str
) -> Iterator[Message]:
    """Two lines for each band and part without a gap; plotly fills between neighbours only."""
    common = {key: item for key, item in median.items() if key not in ("text", "mode")}
    common |= {"showlegend": False, "hoverinfo": "skip"}
    for low, high, opacity, name, lower in bands:
        fill = {"fill": "tonexty", "fillcolor": f"rgba({colour}, {opacity})"}
        for part in _parts(rows[_MEDIAN]):
            mode = "markers" if part.stop - part.start == 1 else "lines"
            bound = {**common, "mode": mode, "line": {"width": 0}, "x": x[part].tolist()}
            for row, own, more in ((low, lower, {}), (high, name, fill)):
                y = rows[row][part].tolist()
                yield {**bound, "name": f"{median['name']}, {own}", "y": y, **more}


def _explain(message: Message) -> None:
    """Name the bands of a lone fan in the legend, each once."""
    *bands, line = message["data"]
    shown = {band[3] for band in _BANDS}
    for drawn in bands:
        drawn["name"] = drawn["name"].removeprefix(f"{line['name']}, ")
        drawn["showlegend"] = drawn["name"] in shown
        shown.discard(drawn["name"])
    line["name"] = "median"


def _rows(trace: Trace) -> tuple[Floats, Floats]:
    """The marks (n,) and the quantiles (7, n)."""
    rows = np.asarray(trace.y, np.float64)
    x = np.arange(rows.shape[1]) if trace.x is None else np.asarray(trace.x)
    if rows.shape != (len(QUANTILES), len(x)):
        raise ValueError(f"{trace.name!r} has {rows.shape} values, not 7 quantiles of {len(x)} x")
    return x.astype(np.float64), rows


def _unit(traces: Traces, opts: Mapping[str, Any]) -> float | None:
    axis = _axis([_rows(trace) for trace in traces], opts)
    return None if axis is None else axis.unit


def _axis(fans: Sequence[tuple[Floats, Floats]], opts: Mapping[str, Any]) -> SymmetricLog | None:
    if opts.get("ytype", "symlog") != "symlog":
        return None
    return SymmetricLog(np.concatenate([rows[[2, 4]].ravel() for _, rows in fans]))


def _parts(values: Floats) -> Iterator[slice]:
    """The slices without a gap."""
    known = np.pad(np.isfinite(values), 1).astype(np.int8)
    bounds = np.flatnonzero(np.diff(known)).tolist()
    yield from map(slice, bounds[::2], bounds[1::2])


def _has_lone(rows: Floats) -> bool:
    return any(part.stop - part.start == 1 for part in _parts(rows[_MEDIAN]))


def _form(value: Any) -> bool | None:
    """True for samples of any number: all are drawn together."""
    return rank(value) == "vector" or None


def _quantiles(
    label: str, xs: Sequence[float], values: Sequence[Any], _opts: Mapping[str, Any]
) -> list[Trace]:
    """Make a matrix (7, n): the quantiles of each mark's finite samples; NaN if it has none."""
    columns = [np.asarray(value, np.float64) for value in values]
    columns = [column[np.isfinite(column)] for column in columns]
    found = np.full((len(columns), len(QUANTILES)), np.nan)
    for row, column in zip(found, columns, strict=True):
        if len(column):
            row[:] = np.quantile(column, list(QUANTILES.values()))
    return [Trace(label, found.T, np.array(xs, np.float64))]


FANS = (
    PlotType(
        name="fan",
        doc="quantiles over time: the median in bands of 25 to 75 %, 5 to 95 % and all values",
        takes="samples (n,) at every mark; the y axis is logarithmic on both sides of 0, unless "
        "ytype is linear or log",
        ranks=("vector",),
        opts=XY | {"legend", "linecolor"},
        draw=_fan,
        history=History("matrix", _form, _quantiles, is_joint=True),
        shown_as="scatter",
        side_by_side=overlaid,
        colour_opt="linecolor",
        rows=tuple(QUANTILES),
        unit=_unit,
    ),
)
