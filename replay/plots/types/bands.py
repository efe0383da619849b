"""Bands around lines, notes in the legend, and muted lines: plain traces, for every sink."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from flexrec.replay.plots.colours import CYCLE
from flexrec.replay.plots.plot_type import Floats, Message, Traces
from flexrec.replay.plots.window import Trace

_OPACITY = 0.2
_MUTED = [205, 205, 205]
_PER_TRACE = ("linecolor", "markercolor", "dash")


class Drawn(NamedTuple):
    """A trace as plotly draws it: its name, and what is changed in visdom's message for it."""

    trace: Trace
    name: str
    style: Message


def with_bands(traces: Traces, names: Sequence[str], opts: Message) -> tuple[list[Drawn], Message]:
    """The traces with the edges of their bands before them, and the opts of all these.

    plotly fills a trace to the one before it: the edges and the line stay together.

    Args:
        traces, names: the lines, and their names in the legend.
        opts: visdom's opts; lists of one entry for each line are changed into ones of one entry for
            each trace that is drawn.
    """
    if not any(trace.band or trace.note or trace.muted for trace in traces):
        return [Drawn(trace, name, {}) for trace, name in zip(traces, names, strict=True)], opts
    colours = opts.get("linecolor", [list(CYCLE[k % len(CYCLE)]) for k in range(len(traces))])
    colours = [_MUTED if t.muted else c for t, c in zip(traces, colours, strict=True)]
    opts, own = {**opts, "linecolor": colours}, list[int]()
    found = list[Drawn]()
    for k, (trace, name) in enumerate(zip(traces, names, strict=True)):
        found += _drawn(trace, _noted(name, trace.note, opts.get("title")), colours[k], opts)
        own += [k] * (len(found) - len(own))
    for opt in _PER_TRACE:
        if opt in opts and len(opts[opt]) == len(traces):
            opts[opt] = [opts[opt][k] for k in own]
    return found, opts


def _noted(name: str, note: str, title: str | None) -> str:
    """The name of a line with its note in the legend, which does not repeat the title."""
    if not note:
        return name
    return note if name == title else f"{name} ({note})"


def _drawn(trace: Trace, name: str, colour: Sequence[int], opts: Message) -> Iterator[Drawn]:
    """The edges of a line's band, if it has one, and the line."""
    group = {"legendgroup": name} if trace.band else {}
    fill = {"fill": "tonexty", "fillcolor": f"rgba({', '.join(map(str, colour))}, {_OPACITY})"}
    edge = {"mode": "lines", "line": {"width": 0}, "opacity": 1, **group}
    x, low, high = _edges(trace)
    for part in _parts(low, high, is_log=opts.get("ytype") == "log"):
        for y, more in ((low, {}), (high, fill)):
            yield Drawn(Trace(name, y[part], x[part], pale=True), name, edge | more)
    muted = {"showlegend": False, "hoverinfo": "name", "line": {"color": _rgb(_MUTED), "width": 1}}
    yield Drawn(replace(trace, band=None), name, {**group, **(muted if trace.muted else {})})


def _rgb(colour: Sequence[int]) -> str:
    return f"rgb({', '.join(map(str, colour))})"


def _edges(trace: Trace) -> tuple[Floats, Floats, Floats]:
    """x, the lower and the upper edge; empty if the line has no band."""
    if trace.band is None:
        return np.empty(0), np.empty(0), np.empty(0)
    low, high = (np.asarray(edge, np.float64) for edge in trace.band)
    x = np.arange(len(low)) if trace.x is None else np.asarray(trace.x)
    return x.astype(np.float64), low, high


def _parts(low: Floats, high: Floats, *, is_log: bool) -> Iterator[slice]:
    """The stretches over which a band can be filled."""
    known = np.isfinite(low) & np.isfinite(high)
    if is_log:
        known &= low > 0
    bounds = np.flatnonzero(np.diff(np.pad(known, 1).astype(np.int8))).tolist()
    yield from map(slice, bounds[::2], bounds[1::2])
