"""Draw a comparison: how far apart the layers are, by step, and the metrics over each other."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from flexrec.recorder.files.names import is_fingerprint
from flexrec.recorder.storage.arrays import Ints
from flexrec.replay.diff.blame.places import is_of_the_clock, layers_of, place_of
from flexrec.replay.diff.columns import Matcher
from flexrec.replay.diff.noise.judge import measure, spread_of
from flexrec.replay.diff.noise.spread import Floats
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.diff.run import Run
from flexrec.replay.plots.window import Trace, Window

_COLUMNS = 200  # most columns of the heat; each has the largest value of as many recorded steps
# What is drawn, and its least and largest value.
_RELATIVE = "the relative difference", 1e-17, 1e3
_SPREAD = "how many times the spread b is outside it", 1e-2, 1e3
_METRICS = 40  # most windows of metrics
_ROW, _FRAME, _WIDTH = 16, 160, 900  # pixels: of a layer; above and below; of the heat


class Heat(NamedTuple):
    """How far apart layers are.

    Attributes:
        layers: the names of the layers.
        step: (columns,) the first step of each column at which a layer was recorded.
        apart: (layers, columns) 0 if they are equal, NaN where nothing was recorded.
    """

    layers: list[str]
    step: Ints
    apart: Floats


def windows_of(
    found: RunDiff, a: Run, b: Run, *references: Run, patterns: Sequence[str] = ()
) -> list[Window]:
    """Draw a comparison.

    Args:
        found: the comparison.
        a, b: the runs.
        references: the references other than `a`, by whose spread `b` was judged.
        patterns: names and patterns of the keys that were compared; empty means all.

    Returns:
        A window with the report, one with the layers if there are any, and one for each loss and
        metric, those that differ first.
    """
    runs = (a, b, *references)
    keys = [k for k in a if all(k in run and run.is_number(k) for run in runs)]
    if patterns:
        keys = [k for k in keys if any(k == each or fnmatchcase(k, each) for each in patterns)]
    of_layers = [k for k in keys if place_of(k).layer and not is_fingerprint(k)]
    drawn = [Window("diff/report", None, "text", (Trace("report", str(found)),), _REPORT)]
    if of_layers:
        is_judged = found.noise is not None and not found.noise.exact
        values = _by_spread(runs, of_layers) if is_judged else _relative(a, b, of_layers)
        heat = _heat(layers_of(of_layers), _steps(a, of_layers), values)
        drawn.append(_heat_window(heat, found))
    metrics = [k for k in keys if _is_metric(k)]
    metrics.sort(key=lambda key: key not in found.keys.differ)
    return drawn + [_metric(key, runs) for key in metrics[:_METRICS]]


def _is_metric(key: str) -> bool:
    is_number = not (is_of_the_clock(key) or is_fingerprint(key))
    return is_number and place_of(key).stage in ("loss", "metric")


_REPORT = {"title": "what differs", "width": _WIDTH, "height": 260}


# ---------------------------------------------------------------- layers


def _relative(a: Run, b: Run, keys: Sequence[str]) -> Iterator[tuple[str, Ints, Floats]]:
    """Each key, its steps, and the difference of its values relative to their size in a."""
    matcher = Matcher()
    for group in a.groups(keys):
        one, other = a.numbers(group), b.numbers(group)
        for key in group:
            x, y = one[key], other[key]
            rows = matcher.match(x.step, y.step)
            p = x.value if rows.a is None else x.value[rows.a]
            q = y.value if rows.b is None else y.value[rows.b]
            size = p
            if (spread := spread_of(key, one)) is not None and one[spread].step is x.step:
                width = one[spread].value
                size = np.hypot(p, width if rows.a is None else width[rows.a])
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                apart = np.abs(q - p) / np.abs(size)
            apart = np.nan_to_num(apart, nan=np.inf, posinf=np.inf)
            yield key, rows.step, np.where((p == q) | (np.isnan(p) & np.isnan(q)), 0, apart)


def _by_spread(runs: Sequence[Run], keys: Sequence[str]) -> Iterator[tuple[str, Ints, Floats]]:
    """Each key, its steps, and how far it lies outside the spread of the references."""
    a, b, *references = runs
    found = measure((b, a, *references), keys)
    for i, key in enumerate(found.keys):
        rows = found.rows[i]
        yield key, found.step[rows], found.excess[rows, i].astype(np.float64)


def _steps(run: Run, keys: Sequence[str]) -> Ints:
    """Every step at which one of the keys was recorded, in order."""
    steps = [run.steps(key) for key in run.apart(keys)]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *steps]))


def _heat(layers: Sequence[str], steps: Ints, values: Iterable[tuple[str, Ints, Floats]]) -> Heat:
    """The largest value of each layer in each column, which is as many steps as the others."""
    begins = steps[:: max(1, -(-len(steps) // _COLUMNS))]
    apart = np.full((len(layers), len(begins)), np.nan)
    for key, step, value in values:
        row = apart[layers.index(place_of(key).layer)]
        np.fmax.at(row, np.searchsorted(begins, step, side="right") - 1, value)
    return Heat(list(layers), begins, apart)


def _heat_window(heat: Heat, found: RunDiff) -> Window:
    """The heat as a window, in which the first difference is marked."""
    what, least, most = _RELATIVE if found.noise is None or found.noise.exact else _SPREAD
    apart = heat.apart[(heat.apart > 0) & (heat.apart <= most)]
    least = max(least, apart.min() / 10) if len(apart) else least  # stands for 0
    colours = np.log10(np.clip(heat.apart, least, most))
    trace = Trace("layers", colours, x=heat.step)
    layout: dict[str, Any] = {"yaxis": {"autorange": "reversed", "automargin": True}}
    title = f"log10 of {what}, by layer and step"
    if found.first is not None:
        step, layer = found.first.step, found.first.layer
        title += f"; first: step {step}" + (f", {layer}" if layer else "")
        at = int(np.searchsorted(heat.step, step, side="right")) - 1
        column = int(heat.step[max(at, 0)])
        layout["shapes"] = [
            {"type": "line", "x0": column, "x1": column, "yref": "paper", "y0": 0, "y1": 1, **_LINE}
        ]
        if layer in heat.layers:
            layout["annotations"] = [{"x": column, "y": layer, "text": "first", **_ARROW}]
    opts = {
        "title": title,
        "rownames": heat.layers,
        "xlabel": "step",
        "width": _WIDTH,
        "height": _FRAME + _ROW * len(heat.layers),
        "layoutopts": {"plotly": layout},
    }
    return Window("diff/layers", None, "heatmap", (trace,), opts)


_LINE = {"line": {"color": "#d62728", "dash": "dot", "width": 1}}
_ARROW = {"showarrow": True, "arrowcolor": "#d62728", "font": {"color": "#d62728"}}


# ---------------------------------------------------------------- metrics


def _metric(key: str, runs: Sequence[Run]) -> Window:
    """A metric of all runs in one window."""
    columns = [(run.name, run.numbers([key])[key]) for run in runs]
    traces = tuple(Trace(f"{name} {key}", c.value, c.step, run=name) for name, c in columns)
    opts = {"title": key, "xlabel": "step"}
    return Window(f"diff/{key}", None, "line", traces, opts)
