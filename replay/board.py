"""What the meters said, gathered into windows. Pure: no events, files, clocks or visdom here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.definitions import Definitions, MeterDefinition, PlotDefinition, expand
from flexrec.replay.plots import PlotType, plot_type, rank
from flexrec.replay.window import Trace, Window

__all__ = ["Board", "Place", "overlay"]

Floats: TypeAlias = NDArray[np.float64]
Place: TypeAlias = tuple[int, int]
"""Where a trace stands: its meter's place in the definitions, then its key's in the run."""


@dataclass
class _Line:
    """One trace in the making: a value for every mark."""

    label: str
    x: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


@dataclass
class _Plot:
    definition: PlotDefinition
    name: str
    kind: PlotType
    key: str  # that it was first drawn of, for its title
    lines: dict[Place, _Line] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What its window's bar says."""
        asked = self.definition.opts.get("title")
        if asked is None:
            return self.name[:1].upper() + self.name[1:]
        return expand(str(asked), self.key)


class Board:
    """The plots of one run, filled with points by the meters.

    Args:
        definitions: what to draw.
        env: visdom's environment for plots that name none of their own.
        uid: put before window ids, so that several loggers can share an environment.
    """

    def __init__(
        self, definitions: Definitions, *, env: str | None = None, uid: str | None = None
    ) -> None:
        self.definitions, self._env, self._uid = definitions, env, uid
        self._plots: dict[tuple[str, str], _Plot] = {}

    def point(
        self, meter: MeterDefinition, key: str, place: Place, xs: Sequence[float], values: Any
    ) -> None:
        """Add what a meter said at one or several marks to every plot that it is drawn in."""
        for target in meter.targets:
            plot = self._plot(self.definitions.plots[target], key)
            line = plot.lines.get(place)
            if line is None:
                line = plot.lines[place] = _Line(meter.label_for(key))
            line.x.extend(xs)
            line.values.extend(values)
            if not _keeps_all(plot.kind, line.values[-1]):
                del line.x[:-1], line.values[:-1]

    def windows(self) -> list[Window]:
        """Every plot that something was drawn in, in the order of the definitions."""
        order = {name: i for i, name in enumerate(self.definitions.plots)}
        plots = sorted(
            self._plots.values(), key=lambda plot: (order[plot.definition.name], min(plot.lines))
        )
        return [window for plot in plots for window in self._windows(plot)]

    def redefine(self, definitions: Definitions) -> None:
        """Go on with other definitions: what is drawn stays where its plot and meter stay."""
        meters = list(self.definitions.meters)
        index = {name: i for i, name in enumerate(definitions.meters)}
        kept = {}
        for (name, instance), plot in self._plots.items():
            new = definitions.plots.get(name)
            if new is None or new.type != plot.definition.type:
                continue
            lines = {
                (index[meters[i]], order): line
                for (i, order), line in plot.lines.items()
                if meters[i] in index and name in definitions.meters[meters[i]].targets
            }
            if lines:
                kept[name, instance] = _Plot(new, instance, plot.kind, plot.key, lines)
        self.definitions, self._plots = definitions, kept

    def _plot(self, definition: PlotDefinition, key: str) -> _Plot:
        name = expand(definition.name, key)
        plot = self._plots.get((definition.name, name))
        if plot is None:
            kind = plot_type(definition.type)
            plot = self._plots[definition.name, name] = _Plot(definition, name, kind, key)
        return plot

    def _windows(self, plot: _Plot) -> Iterable[Window]:
        lines = [plot.lines[place] for place in sorted(plot.lines)]
        if plot.kind.max_traces == 1 and self._draws_several(plot):
            for line in lines:
                title = f"{plot.title}: {line.label}"
                yield self._window(plot, f"{plot.name}.{line.label}", title, [line])
        else:
            yield self._window(plot, plot.name, plot.title, lines)

    def _draws_several(self, plot: _Plot) -> bool:
        """Whether a plot that shows one trace may be asked for several, now or later."""
        feeding = [m for m in self.definitions.meters.values() if plot.definition.name in m.targets]
        return len(feeding) > 1 or feeding[0].is_pattern

    def _window(self, plot: _Plot, name: str, title: str, lines: list[_Line]) -> Window:
        traces = [trace for line in lines for trace in _traces(plot, line)]
        own = plot.definition.win  # where the plot makes several windows, all ids begin with it
        if own is None or name != plot.definition.name:
            win = ".".join(filter(None, (own or self._uid, name)))
        else:
            win = own
        opts = {**plot.definition.opts, "title": title}
        env = plot.definition.env if plot.definition.env is not None else self._env
        return Window(win, env, plot.kind.name, tuple(traces), opts)


def overlay(runs: Mapping[str, Sequence[Window]]) -> list[Window]:
    """The windows of several runs in one: traces side by side, named by run.

    Plots that show one trace at a time (a matrix, an image) become a window for each run.
    """
    if len(runs) == 1:
        return list(next(iter(runs.values())))
    merged: dict[tuple[str | None, str], Window] = {}
    for run, windows in runs.items():
        for window in windows:
            win, opts = window.win, dict(window.opts)
            if plot_type(window.type).max_traces is not None:
                win, opts["title"] = f"{run}.{win}", f"{run}: {window.title}"
            named = tuple(replace(t, name=f"{run} {t.name}", run=run) for t in window.traces)
            before = merged.get((window.env, win))
            traces = before.traces + named if before else named
            merged[window.env, win] = Window(win, window.env, window.type, traces, opts)
    return list(merged.values())


def _keeps_all(kind: PlotType, value: Any) -> bool:
    """Whether the values of all marks are drawn, not the latest alone."""
    return kind.accumulates or kind.history is not None or _stacks(kind, value)


def _stacks(kind: PlotType, value: Any) -> bool:
    """Whether vectors are laid side by side, one column for each mark: a heatmap of histograms."""
    return "matrix" in kind.ranks and "vector" not in kind.ranks and rank(value) == "vector"


def _traces(plot: _Plot, line: _Line) -> list[Trace]:
    last = line.values[-1]
    if plot.kind.accumulates:
        return _lines(plot, line)
    if plot.kind.history:
        return [_HISTORIES[plot.kind.name](plot, line)]
    if _stacks(plot.kind, last):
        if len({np.shape(value) for value in line.values}) > 1:
            raise _misfit(plot, line, "vectors whose length changes")
        return [Trace(line.label, np.stack(line.values, axis=1), np.array(line.x))]
    if rank(last) not in plot.kind.ranks:
        raise _misfit(plot, line, f"a {rank(last)}")
    return [Trace(line.label, last if isinstance(last, str) else np.asarray(last))]


def _lines(plot: _Plot, line: _Line) -> list[Trace]:
    """A line for a number, and for a vector one a component."""
    x = np.array(line.x, np.float64)
    try:
        y = np.array(line.values, np.float64)
    except (ValueError, TypeError):
        raise _misfit(plot, line, "texts, or arrays whose shape changes") from None
    if y.ndim == 1:
        return [Trace(line.label, y, x)]
    if y.ndim == 2:
        return [Trace(f"{line.label} {i}", y[:, i], x) for i in range(y.shape[1])]
    raise _misfit(plot, line, f"arrays of shape {y.shape[1:]}")


def _plane(plot: _Plot, line: _Line) -> Trace:
    """The places of all marks, and the marks for the colour."""
    if any(np.shape(value) != (2,) for value in line.values):
        raise _misfit(plot, line, f"values of shape {np.shape(line.values[-1])}")
    places = np.array(line.values, np.float64)
    return Trace(line.label, places[:, 1], places[:, 0], marks=np.array(line.x))


def _histograms(plot: _Plot, line: _Line) -> Trace:
    """A column of frequencies for each mark, all over the same bins."""
    if any(rank(value) != "vector" for value in line.values):
        raise _misfit(plot, line, f"a {rank(line.values[-1])}")
    columns = [np.asarray(value, np.float64) for value in line.values]
    columns = [column[np.isfinite(column)] for column in columns]
    every = np.concatenate(columns)
    edges = _edges(every, plot.definition.opts.get("numbins", _BINS))
    shares = [_shares(column, edges) for column in columns]
    middles = (edges[:-1] + edges[1:]) / 2
    return Trace(line.label, np.stack(shares, axis=1), np.array(line.x), rows=middles)


def _edges(samples: Floats, bins: int) -> Floats:
    """(bins + 1,): bins of equal width from the least to the greatest of the samples; those that
    are as good as one value lie in the middle of bins that can be told apart."""
    low, high = (float(samples.min()), float(samples.max())) if len(samples) else (0.0, 1.0)
    finest = 4 * bins * float(np.spacing(max(abs(low), abs(high))))
    if high - low < finest:
        low, high = low - max(0.5, finest), high + max(0.5, finest)
    edges: Floats = 4 * np.linspace(low / 4, high / 4, bins + 1)  # see _LARGE
    return edges


def _shares(samples: Floats, edges: Floats) -> Floats:
    """Which share of a distribution lies in each bin, as far as samples tell: between neighbours
    it is taken to be even, so few samples, such as bounds of bins, are as good as many."""
    ordered = np.sort(samples)
    last = len(ordered) - 1
    if last < 1:
        return np.histogram(ordered, edges)[0].astype(np.float64)
    above = np.searchsorted(ordered, edges).clip(1, last)
    if max(-ordered[0], ordered[-1]) > _LARGE:  # the width of two such numbers may be infinite
        ordered, edges = ordered / 4, edges / 4
    low, high = ordered[above - 1], ordered[above]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        between = np.where(high > low, (edges - low) / (high - low), edges > low)
    below = (above - 1 + between.clip(0, 1)) / last
    below[0], below[-1] = 0.0, 1.0
    return np.diff(below)


_HISTORIES = {"plane": _plane, "histograms": _histograms}
_BINS = 50
_LARGE = 1e307
"""The difference of numbers beyond may be infinite; of their quarters it is not."""


def _misfit(plot: _Plot, line: _Line, came: str) -> DefinitionError:
    return DefinitionError(
        f"plot {plot.name!r}: a {plot.kind.name} takes {plot.kind.takes}; "
        f" {line.label!r} gives {came}; choose another plot type, meter or field"
    )
