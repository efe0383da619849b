"""Convert windows to plain data for the page's script: plotly's traces and layout.

Texts are given as they are; figure.js escapes what plotly would read as markup.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from flexrec.replay.definitions.phases import PHASES, phase_in
from flexrec.replay.plots.colours import CYCLE, written
from flexrec.replay.plots.registry import plot_type
from flexrec.replay.plots.window import Trace, Window

_Item = TypeVar("_Item")
_AXIS = re.compile(r"[xyz]axis\d*")
_BY_TRACE = ("linecolor", "markercolor", "dash")  # opts with an entry for each trace


def shown(
    window: Window, runs: Sequence[str], *, pictures_bytes: float = math.inf
) -> dict[str, Any]:
    """The data of a window; `runs` are the names of the runs that the page shows, in order.

    Lines are given unsmoothed and with linear axes, with `smooth` and `log` beside them: the page
    lets its reader choose both.

    Returns:
        JSON values: title, width and height, and either text, or src and caption of a picture and
        the frames of earlier ones, up to `pictures_bytes` of these, or data and layout for plotly.
        `curves`: its traces are points over x; `marks`: its x are those
        of marks; `run`: the index of the run that it shows alone, and of each trace in data;
        `unit`: that of a fan's symmetric-log axis, or None;
        `label`: a trace's name without that of its run and its `note`; `phase`: the phase in it.

    Raises:
        DefinitionError: the window cannot be drawn.
    """
    from flexrec.replay.sinks.visdom import payload  # takes its time to import visdom

    kind = plot_type(window.type)
    drawn = _unsmoothed(window) if kind.accumulates else window
    opts = {name: value for name, value in drawn.opts.items() if name != "ytype"}
    message = payload(replace(drawn, opts=opts) if kind.accumulates else drawn)
    told, first = message["opts"], message["data"][0]
    found = {"title": told["title"], "width": told.get("width"), "height": told.get("height")}
    found["run"] = _only([_index(runs, trace.run) for trace in drawn.traces])
    if first["type"] == "text":
        return {**found, "text": window.traces[0].y}
    if first["type"] == "image":
        content = first["content"]
        frames = _frames(drawn, pictures_bytes)
        return {**found, "src": content["src"], "caption": content.get("caption"), **frames}
    first_trace = drawn.traces[0]
    over_marks = first_trace.x is not None and first_trace.marks is None
    over_marks &= kind.history is not None or kind.max_traces == 1
    return {
        **found,
        "curves": kind.accumulates,
        "marks": over_marks,
        "smooth": window.opts.get("smooth", 0) if "smooth" in kind.opts else None,
        "unit": kind.unit(drawn.traces, drawn.opts) if kind.unit else None,
        "log": kind.accumulates and window.opts.get("ytype") == "log",
        "data": [_trace(trace, i, drawn.traces, runs) for i, trace in enumerate(message["data"])],
        "layout": _layout(message["layout"], drawn),
    }


def _frames(window: Window, most: float) -> dict[str, Any]:
    """The pictures of earlier marks, evenly chosen so that they have at most `most` bytes."""
    from flexrec.replay.sinks.visdom import payload

    (trace,) = window.traces
    found = []
    for x, y in trace.earlier:
        once = replace(window, traces=(replace(trace, y=y, earlier=()),))
        found.append({"x": x, "src": payload(once)["data"][0]["content"]["src"]})
    size = sum(len(frame["src"]) for frame in found)
    kept = len(found) if size <= most else int(len(found) * most / size)
    if not kept:
        return {}
    chosen = np.unique(np.linspace(0, len(found) - 1, kept).round().astype(int))
    return {"frames": [found[i] for i in chosen]}


def side_by_side(windows: Sequence[Window]) -> list[Window]:
    """The windows, with those of one plot for each of several runs next to each other."""
    places = dict[tuple[str | None, str], int]()
    for window in windows:
        places.setdefault((window.env, _plot(window)), len(places))
    return sorted(windows, key=lambda window: places[window.env, _plot(window)])


def _plot(window: Window) -> str:
    """The id of a window, without the name of the run if it shows one run alone."""
    run = _only([trace.run for trace in window.traces])
    return window.win if run is None else window.win.removeprefix(f"{run}.")


def _unsmoothed(window: Window) -> Window:
    """The window without smoothed lines: their originals come before them."""
    pale = [trace.pale for trace in window.traces]
    kept = [i for i in range(len(pale)) if not (i and pale[i - 1])]
    opts = dict(window.opts)
    for name in {*_BY_TRACE} & {*opts}:
        if len(opts[name]) == len(pale):
            opts[name] = [opts[name][i] for i in kept]
    traces = tuple(replace(window.traces[i], pale=False) for i in kept)
    return replace(window, traces=traces, opts=opts)


def _trace(
    trace: Mapping[str, Any], place: int, traces: Sequence[Trace], runs: Sequence[str]
) -> dict[str, Any]:
    """A trace for plotly; lines and dots have a colour, so that others may be left out."""
    run, name = _run(trace, place, traces, runs), str(trace.get("name", ""))
    note = next((t.note for t in traces if t.note and _has_note(name, t.note)), "")
    named = runs[run] if run is not None and len(runs) > 1 else ""
    label = "" if name == note else name.removesuffix(f" ({note})").removeprefix(named).strip()
    phases = dict.fromkeys(t.phase for t in traces if t.phase)
    phase = phase_in(label, (*phases, *PHASES))
    made = {**trace, "run": run, "label": label, "phase": phase, "note": note}
    if trace["type"] == "scattergl":
        # plotly's WebGL lines create code from text, which the page's policy forbids.
        made["type"] = "scatter"
    if made["type"] == "scatter":
        part = "line" if "lines" in trace.get("mode", "") else "marker"
        made[part] = {"color": written(CYCLE[place % len(CYCLE)]), **trace.get(part, {})}
    return made


def _has_note(name: str, note: str) -> bool:
    """Whether this name in the legend ends with the note, or is the note alone."""
    return name == note or name.endswith(f" ({note})")


def _run(
    drawn: Mapping[str, Any], place: int, traces: Sequence[Trace], runs: Sequence[str]
) -> int | None:
    """The index of the run that a drawn trace is of, by its name, or else by its place."""
    alone = _only([_index(runs, trace.run) for trace in traces])
    if alone is not None or len(runs) < 2:
        return alone
    name = str(drawn.get("name"))  # that of a band or a mean may say more than the trace's
    named = [trace for trace in traces if name.startswith(trace.name)]
    if named:
        return _index(runs, max(named, key=lambda trace: len(trace.name)).run)
    return _index(runs, traces[place].run) if place < len(traces) else None


def _index(runs: Sequence[str], run: str | None) -> int | None:
    """The index of a run; if the page shows one run alone, its traces do not name it."""
    if run in runs:
        return runs.index(run)
    return 0 if run is None and len(runs) == 1 else None


def _only(items: Sequence[_Item]) -> _Item | None:
    """The item, if all are equal; else None."""
    return items[0] if len(set(items)) == 1 else None


def _layout(layout: Mapping[str, Any], window: Window) -> dict[str, Any]:
    """plotly's layout, without the title and what the page decides unless the user has."""
    left_out = {"title", "legend"}
    if not any(name.startswith("margin") for name in window.opts):
        left_out.add("margin")
    return {name: item for name, item in _renewed(layout).items() if name not in left_out}


def _renewed(layout: Mapping[str, Any]) -> dict[str, Any]:
    """Convert visdom's layout from plotly.js 2 to later versions: titles become objects."""
    renewed: dict[str, Any] = {}
    for name, value in layout.items():
        if name == "scene":
            renewed[name] = _renewed(value)
        elif _AXIS.fullmatch(name) and isinstance(value, Mapping):
            axis = {key: item for key, item in value.items() if key not in ("title", "titlefont")}
            axis["title"] = {"text": value.get("title") or "", "font": value.get("titlefont") or {}}
            renewed[name] = axis
        else:
            renewed[name] = value
    return renewed
