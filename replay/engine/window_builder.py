"""Build windows from the meters' results. Pure: no events, files, clocks or visdom here."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DefinitionError, one_line
from flexrec.replay.definitions.definitions import (
    Definitions,
    MeterDefinition,
    PlotDefinition,
    expand,
)
from flexrec.replay.engine.left_out import LeftOut, LeftOuts
from flexrec.replay.plots.plot_type import PlotType, rank
from flexrec.replay.plots.registry import crowded, plot_type
from flexrec.replay.plots.window import Trace, Window, says

Place: TypeAlias = tuple[int, int]
"""The order of a trace: its meter's index in the definitions, then its key's in the run."""

_LONGEST = 40  # letters of a class


@dataclass
class _Line:
    """A growing trace: a value for every mark."""

    label: str
    key: str
    meter: str
    x: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def keep(self, x: float, value: Any, earlier: int) -> None:
        """Add a value, and keep some earlier ones: the first, and others evenly spread in x."""
        self.x, self.values = [*self.x, x], [*self.values, value]
        if len(self.values) > earlier + 1:
            apart = [self.x[i + 1] - self.x[i - 1] for i in range(1, len(self.x) - 1)]
            place = 1 + apart.index(min(apart))
            del self.x[place], self.values[place]

    def trim(self) -> None:
        """Drop a position without a value, which a Ctrl-C between the two appends leaves."""
        count = min(len(self.x), len(self.values))
        del self.x[count:], self.values[count:]


@dataclass
class _Plot:
    definition: PlotDefinition
    name: str
    kind: PlotType
    lines: dict[Place, _Line] = field(default_factory=dict)
    axes: set[str | None] = field(default_factory=set)  # the names of its points' x

    def title(self, classes: Mapping[str, str]) -> str:
        """The title of its window; `classes` are those of layers."""
        asked = self.definition.opts.get("title")
        if asked is None:
            return self.name[:1].upper() + self.name[1:]
        # Not the key that was drawn first: a replay draws key by key, not mark by mark.
        return expand(str(asked), self.lines[min(self.lines)].key, classes)


class WindowBuilder:
    """Collects the meters' points of one run, and builds its windows.

    Args:
        definitions: what to draw.
        left_out: collects the values that a plot cannot draw.
        env: the visdom environment of plots that name none.
        uid: a prefix of window ids and titles, so that several loggers can share an environment.
        classes: the classes of layers, which legends and titles name.
    """

    def __init__(
        self,
        definitions: Definitions,
        left_out: LeftOuts,
        *,
        env: str | None = None,
        uid: str | None = None,
        classes: Mapping[str, str] | None = None,
    ) -> None:
        self.definitions, self._env, self._uid = definitions, env, uid
        self.classes = dict(classes or {})
        self._left_out = left_out
        self._plots: dict[tuple[str, str], _Plot] = {}

    def point(
        self,
        meter: MeterDefinition,
        key: str,
        place: Place,
        xs: Sequence[float],
        values: Any,
        *,
        marks: Sequence[float] | None = None,
        axes: Set[str | None] = frozenset(),
    ) -> None:
        """Add a meter's results at one or several marks to every plot that it is drawn in.

        Args:
            meter, key, place: the meter, its key, and the order of its trace.
            xs, values: the points.
            marks: the x that the logs gave, for plots that do not draw over x; by default `xs`.
            axes: the names of x.
        """
        for target in meter.targets:
            plot = self._plot(self.definitions.plots[target], key)
            line = plot.lines.get(place)
            if line is None:
                line = plot.lines[place] = _Line(meter.label_for(key), key, meter.name)
            line.trim()
            plot.axes |= axes
            if plot.kind.history is not None:
                over_marks = plot.kind.history.is_over_marks
                line.x.extend(xs if over_marks or marks is None else marks)
                line.values.extend(values)
            else:
                for x, value in zip(xs, values, strict=True):
                    self._show(plot, line, x, value)

    def windows(self) -> list[Window]:
        """The windows of all plots that are not empty, in the order of the definitions."""
        order = {name: i for i, name in enumerate(self.definitions.plots)}
        plots = sorted(
            self._plots.values(), key=lambda plot: (order[plot.definition.name], min(plot.lines))
        )
        return [window for plot in plots for window in self._windows(plot)]

    def redefine(self, definitions: Definitions) -> None:
        """Change the definitions; traces whose plot and meter stay are kept."""
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
                kept[name, instance] = _Plot(new, instance, plot.kind, lines, plot.axes)
        self.definitions, self._plots = definitions, kept

    def _show(self, plot: _Plot, line: _Line, x: float, value: Any) -> None:
        """Show a value in place of the earlier ones, or beside them if vectors are stacked."""
        if plot.kind.fits(value) and plot.kind.keeps:
            line.keep(x, value, plot.kind.keeps)
        elif plot.kind.fits(value):
            line.x, line.values = [x], [value]
        elif not _stacks(plot.kind, value):
            place = (line.key, line.meter, plot.name)
            self._left_out.note(place, _misfit(plot, line, x, value), DefinitionError)
        elif line.values and not _stacks(plot.kind, line.values[-1]):
            line.x, line.values = [x], [value]
        else:
            line.x.append(x)
            line.values.append(value)

    def _plot(self, definition: PlotDefinition, key: str) -> _Plot:
        name = expand(definition.name, key)
        plot = self._plots.get((definition.name, name))
        if plot is None:
            kind = plot_type(definition.type)
            plot = self._plots[definition.name, name] = _Plot(definition, name, kind)
        return plot

    def _windows(self, plot: _Plot) -> Iterable[Window]:
        lines = [plot.lines[place] for place in sorted(plot.lines)]
        for line in lines:
            line.trim()
        names = self._names(lines)
        drawn = [
            (line, traces)
            for line, name in zip(lines, names, strict=True)
            if (traces := self._traces(plot, line, name))
        ]
        if plot.kind.max_traces == 1 and (len(drawn) > 1 or self._draws_several(plot)):
            labels = Counter(line.label for line in lines)
            for line, traces in drawn:
                title = f"{plot.title(self.classes)}: {traces[0].name}"
                own = line.label if labels[line.label] == 1 else f"{line.label}.{line.key}"
                yield self._window(plot, f"{plot.name}.{own}", title, traces)
        elif every := self._fitting(plot, drawn):
            yield self._window(plot, plot.name, plot.title(self.classes), every)

    def _fitting(self, plot: _Plot, drawn: Sequence[tuple[_Line, list[Trace]]]) -> list[Trace]:
        """Limit the traces to those that the plot draws; a line with more is left out."""
        most, fitting = plot.kind.max_traces, list[Trace]()
        for line, traces in drawn:
            if most is None or len(fitting) + len(traces) <= most:
                fitting += traces
                continue
            why = (
                f"plot {plot.name!r}: a {plot.kind.name} draws 1 to {most} traces, and "
                f"{line.label!r} comes on top of {len(fitting)} with {len(traces)}; draw it in "
                "another plot"
            )
            left = LeftOut(line.key, line.meter, why, x=line.x[0], count=len(line.x))
            self._left_out.put((line.key, line.meter, plot.name, "traces"), left, DefinitionError)
        return fitting

    def _draws_several(self, plot: _Plot) -> bool:
        """Whether a plot that shows one trace may be given several, now or later."""
        feeding = [m for m in self.definitions.meters.values() if plot.definition.name in m.targets]
        return len(feeding) > 1 or feeding[0].is_pattern

    def _traces(self, plot: _Plot, line: _Line, name: str) -> list[Trace]:
        """The traces of a line: its values of the most common form."""
        xs, values = line.x, line.values
        if plot.kind.keeps:
            return _pictures(name, xs, values)
        forms = _forms(plot.kind, values)
        drawn = _commonest(forms)
        odd = [i for i, form in enumerate(forms) if form is None or form != drawn]
        if odd:
            self._leave_out(plot, line, xs[odd[0]], values[odd[0]], len(odd))
            fitting = [i for i, form in enumerate(forms) if form is not None and form == drawn]
            xs, values = [xs[i] for i in fitting], [values[i] for i in fitting]
        centres = self._centres(plot.kind, line.meter, values[-1]) if values else None
        phase = self.definitions.meters[line.meter].phase
        gathered = _gathered(plot, name, xs, values, centres) if values else []
        traces = [replace(trace, phase=phase) for trace in gathered]
        if traces and not plot.kind.condition(traces[0].y):  # for vectors side by side
            self._leave_out(plot, line, xs[-1], traces[0].y, len(xs))
            return []
        return traces

    def _names(self, lines: Sequence[_Line]) -> list[str]:
        """The names of lines in legends, with the keys of lines that would have the same name."""
        meters = self.definitions.meters
        names = [meters[line.meter].label_for(line.key, self.classes) for line in lines]
        keys = {name: set[str]() for name in names}
        for line, name in zip(lines, names, strict=True):
            keys[name].add(line.key)
        return [
            name if len(keys[name]) == 1 else f"{name} ({line.key})"
            for line, name in zip(lines, names, strict=True)
        ]

    def _centres(self, kind: PlotType, meter: str, value: Any) -> NDArray[np.float64] | None:
        """Where the elements of a vector lie, such as the centres of bins; None if unknown."""
        if kind.history is not None or isinstance(value, str) or np.ndim(value) != 1:
            return None
        definition = self.definitions.meters[meter]
        built = definition.build()
        if definition.field not in (None, built.fields[0]) or built.centres is None:
            return None
        return built.centres if len(built.centres) == len(value) else None

    def _leave_out(self, plot: _Plot, line: _Line, x: float, value: Any, count: int) -> None:
        left = replace(_misfit(plot, line, x, value), count=count)
        self._left_out.put((line.key, line.meter, plot.name, "form"), left, DefinitionError)

    def _window(self, plot: _Plot, name: str, title: str, traces: list[Trace]) -> Window:
        own = plot.definition.win  # if the plot makes several windows, all ids begin with it
        if own is None or name != plot.definition.name:
            win = ".".join(filter(None, (own or self._uid, name)))
        else:
            win = own
        if own is None and self._uid:
            title = f"{self._uid}: {title}"
        opts = {**_labels(plot, traces), **plot.definition.opts, "title": title}
        env = plot.definition.env if plot.definition.env is not None else self._env
        kind, opts = crowded(plot.kind, opts, sum(not trace.pale for trace in traces))
        return Window(win, env, kind.name, tuple(traces), opts)


def overlay(runs: Mapping[str, Sequence[Window]]) -> list[Window]:
    """Combine the windows of several runs: each window has the traces of all, named by run.

    A plot that shows one trace at a time (a matrix, an image) becomes a window for each run; the
    windows of one plot then share one scale of colours.
    """
    if len(runs) == 1:
        return list(next(iter(runs.values())))
    merged: dict[tuple[str | None, str], Window] = {}
    names: dict[tuple[str | None, str], set[str]] = {}
    titles: dict[tuple[str | None, str], set[str]] = {}
    shared = _shared_limits(runs)
    for window in (window for windows in runs.values() for window in windows):
        names.setdefault((window.env, window.win), set()).update(t.name for t in window.traces)
        titles.setdefault((window.env, window.win), set()).add(window.title)
    for run, windows in runs.items():
        for window in windows:
            win, opts = window.win, dict(window.opts)
            place, kind = (window.env, window.win), plot_type(window.type)
            common = in_common(titles[place])
            named = _named(window, run, names[place], titles[place])
            if kind.max_traces is not None or not kind.overlays:
                win, opts["title"] = f"{run}.{win}", f"{run}: {window.title}"
                opts = {**shared.get((window.env, window.win, window.type), {}), **opts}
                named = tuple(replace(trace, run=run) for trace in window.traces)
            elif common:
                opts["title"] = common
            before = merged.get((window.env, win))
            traces = before.traces + named if before else named
            merged[window.env, win] = Window(win, window.env, window.type, traces, opts)
    return list(merged.values())


def _named(window: Window, run: str, names: Set[str], titles: Set[str]) -> tuple[Trace, ...]:
    """The traces, named by run, and by their own names too unless the titles have the only one.

    If the runs' titles differ and share words, the others, as a layer's class, are named, and those
    of the title are left out of the names, unless two would then be the same.
    """
    own, common = window.title.split(), in_common(titles).split()
    found = [trace.name for trace in window.traces]
    more = [word for word in own if word not in common] if common else []
    if common:
        short = [" ".join(word for word in name.split() if word not in own) for name in found]
        found = short if len(set(short)) == len(set(found)) else found
    elif len(names) == 1 and all(says(title, min(names)) for title in titles):
        found = [""] * len(found)
    return tuple(
        replace(trace, name=" ".join(filter(None, [run, *more, name])), run=run)
        for trace, name in zip(window.traces, found, strict=True)
    )


def in_common(titles: Iterable[str]) -> str:
    """The words that differing titles share, as where layers differ in class; "" of one title."""
    first, *others = sorted(titles)
    shared = [set(title.split()) for title in others]
    words = [word for word in first.split() if all(word in each for each in shared)]
    return " ".join(words) if others else ""


def classes_of(models: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, str]:
    """The classes of the layers of all models, by the layer's name, from `Recording.models`.

    A layer that is called as its class, as a model of one layer is, is left out; so is one whose
    name is that of a layer of another class.
    """
    found: dict[str, set[str]] = {}
    for name, layer in (pair for layers in models.values() for pair in layers.items()):
        if isinstance(layer.get("class"), str):
            found.setdefault(name, set()).add(layer["class"])
    return {
        name: one_line(*kinds)[:_LONGEST]
        for name, kinds in found.items()
        if len(kinds) == 1 and name.rpartition(".")[2] not in kinds
    }


def _shared_limits(
    runs: Mapping[str, Sequence[Window]],
) -> dict[tuple[str | None, str, str], dict[str, float]]:
    """The limits of the colours that the runs' windows of one plot share, by env, win and type."""
    found: dict[tuple[str | None, str, str], list[tuple[float, float]]] = {}
    for window in (window for windows in runs.values() for window in windows):
        kind = plot_type(window.type)
        if kind.limits is not None:
            limits = found.setdefault((window.env, window.win, window.type), [])
            limits.append(kind.limits(window.traces, window.opts))
    return {
        place: {"xmin": min(low for low, _ in limits), "xmax": max(high for _, high in limits)}
        for place, limits in found.items()
    }


def _labels(plot: _Plot, traces: Sequence[Trace]) -> dict[str, str]:
    """The label of the x axis, if it shows the marks' x and all marks give it the same name."""
    history = plot.kind.history
    is_matrix = "matrix" in plot.kind.ranks and traces[0].x is not None
    if (
        not (is_matrix if history is None else history.is_over_marks)
        or "xlabel" not in plot.kind.opts
        or len(plot.axes) != 1
    ):
        return {}
    (axis,) = plot.axes
    return {"xlabel": axis} if axis else {}


def _stacks(kind: PlotType, value: Any) -> bool:
    """Whether vectors are drawn side by side, a column for each mark, as in a histogram heatmap."""
    return "matrix" in kind.ranks and "vector" not in kind.ranks and rank(value) == "vector"


def _forms(kind: PlotType, values: Sequence[Any]) -> Sequence[Hashable]:
    """The form of each value; values of equal form are drawn together. None: cannot be drawn."""
    form = np.shape if kind.history is None else kind.history.form
    if set(map(type, values)) == {float}:
        return [form(values[0])] * len(values)
    return [form(value) for value in values]


def _commonest(forms: Sequence[Hashable]) -> Hashable:
    """The most common form; None if no value can be drawn."""
    count = Counter(forms)
    del count[None]
    return count.most_common(1)[0][0] if count else None


def _gathered(
    plot: _Plot,
    label: str,
    xs: Sequence[float],
    values: Sequence[Any],
    centres: NDArray[np.float64] | None,
) -> list[Trace]:
    """Make traces from values of one form; `centres` are where the elements of vectors lie."""
    if plot.kind.history is not None:
        return plot.kind.history.gather(label, xs, values, plot.definition.opts)
    last = values[-1]
    if _stacks(plot.kind, last):
        return [Trace(label, np.stack(values, axis=1), np.array(xs), rows=centres)]
    x = centres if plot.kind.shown_as == "bar" else None
    return [Trace(label, last if isinstance(last, str) else np.asarray(last), x)]


def _pictures(label: str, xs: Sequence[float], values: Sequence[Any]) -> list[Trace]:
    """A trace with the latest picture, and the earlier ones beside it."""
    every = [np.asarray(value) for value in values]
    earlier = tuple(zip(xs[:-1], every[:-1], strict=True))
    return [Trace(label, every[-1], earlier=earlier)] if every else []


def _misfit(plot: _Plot, line: _Line, x: float, value: Any) -> LeftOut:
    came = rank(value)
    shape = "" if isinstance(value, str) or not np.ndim(value) else f" of shape {np.shape(value)}"
    why = (
        f"plot {plot.name!r}: a {plot.kind.name} takes {plot.kind.takes}; {line.label!r} gives a "
        f"{came}{shape}; choose another plot type, meter or field"
    )
    return LeftOut(line.key, line.meter, why, x=x)
