"""Plots of many runs: a line for each, or the mean and a band for each group of them.

One recording is open at a time, so memory holds the points that are drawn and nothing else. Workers
may play them; what comes of several runs is made here, in the order of the paths.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexrec.recorder.errors import DefinitionError, FlexrecError, RecordingError, counted, listed
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.definitions import Definitions
from flexrec.replay.engine.left_out import LeftOut
from flexrec.replay.engine.window_builder import in_common, overlay
from flexrec.replay.player.player import count_unlogged, fitting, play_all
from flexrec.replay.plots.colours import CYCLE, GREY, paler, ramp
from flexrec.replay.plots.registry import TYPES
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.runs.comparing.bands import Curve, mean_of
from flexrec.replay.runs.row import Cell
from flexrec.replay.runs.workers.spread import Workers, spread

_LINES = "line"  # the plot type of which means are drawn
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class Member:
    """A run that is drawn.

    Attributes:
        path: the recording.
        name: its name in the legend: that of its group, if there are groups.
        value: the value that chooses its colour.
        note: what the legend says behind its name.
        is_muted: whether it is drawn in grey.
    """

    path: Path
    name: str
    value: Cell = None
    note: str = ""
    is_muted: bool = False


@dataclass(frozen=True)
class Settings:
    """How runs are played, as in `play`; and whether each run has a colour by its value."""

    definitions: Definitions | None = None
    every: int | None = None
    env: str | None = None
    uid: str | None = None
    strict: bool = False
    is_coloured: bool = False


class PlayedRuns(NamedTuple):
    """The result of playing many runs.

    Attributes:
        windows: the windows.
        left_out: values that could not be drawn.
        notes: what else is not drawn: runs, windows, and values after the last log.
        unread: the recordings that cannot be read.
    """

    windows: list[Window]
    left_out: list[LeftOut]
    notes: list[str]
    unread: Collection[Path]

    @property
    def is_whole(self) -> bool:
        """Whether every recording could be read."""
        return not self.unread


Tell = Callable[[int, int], None]
Place = tuple[str | None, str]


def play_runs(
    members: Sequence[Member], settings: Settings, tell: Tell, *, workers: Workers | None = None
) -> PlayedRuns:
    """Draw a line for each run; those that are muted first, below the others.

    Raises:
        DefinitionError: no run has a key that is to be drawn.
        RecordingError: no run can be read.
    """
    played = _Played(settings, tell, workers)
    found = {member.name: windows for member, windows in played.each(members)}
    muted = {member.name for member in members if member.is_muted}
    ordered = sorted(found, key=lambda name: name not in muted)
    windows = overlay({name: found[name] for name in ordered})
    if settings.is_coloured or muted:
        colours = _colours(members, is_coloured=settings.is_coloured)
        notes = {member.name: member.note for member in members if not member.is_muted}
        phases = _places(windows)
        windows = [_coloured(window, colours, notes, muted, phases) for window in windows]
    return played.result(windows)


def play_groups(
    members: Sequence[Member],
    settings: Settings,
    tell: Tell,
    *,
    band: str = "std",
    workers: Workers | None = None,
) -> PlayedRuns:
    """Draw the mean of each group of runs of one name, with a band, in line plots.

    Raises:
        DefinitionError: no run has a key that is to be drawn.
        RecordingError: no run can be read.
    """
    played, skipped = _Played(settings, tell, workers), Counter[str]()
    groups: dict[str, dict[Place, _Means]] = {member.name: {} for member in members}
    for member, windows in played.each(members):
        for window in windows:
            if window.type == _LINES:
                place = window.env, window.win
                groups[member.name].setdefault(place, _Means(window, {}, {}, set())).take(window)
            else:
                skipped[window.title] += 1
    found = {name: [each.window(band) for each in means.values()] for name, means in groups.items()}
    if skipped:
        played.notes.append(f"means are drawn of lines alone; not drawn: {listed(skipped)}")
    return played.result(overlay({name: windows for name, windows in found.items() if windows}))


class _Means(NamedTuple):
    """A window of a group: one of its runs' windows, the curves of all by name, and the titles."""

    first: Window
    curves: dict[str, list[Curve]]
    phases: dict[str, str]
    titles: set[str]

    def take(self, window: Window) -> None:
        self.titles.add(window.title)
        for trace in window.traces:
            if not trace.pale:
                self.phases[trace.name] = trace.phase
                y = np.asarray(trace.y, np.float64)
                x = np.arange(len(y)) if trace.x is None else np.asarray(trace.x)
                self.curves.setdefault(trace.name, []).append((x.astype(np.float64), y))

    def window(self, band: str) -> Window:
        traces = list[Trace]()
        for name, curves in self.curves.items():
            found = mean_of(curves, band)
            trace = Trace(name, found.y, found.x, band=found.band, note=found.note)
            traces.append(replace(trace, phase=self.phases[name]))
        title = in_common(self.titles) or self.first.title
        return replace(self.first, traces=tuple(traces), opts={**self.first.opts, "title": title})


class _Played:
    """Plays runs, one by one or in workers, and collects what is not drawn."""

    def __init__(self, settings: Settings, tell: Tell, workers: Workers | None) -> None:
        self._settings, self._tell, self._workers = settings, tell, workers
        self._left_out: dict[tuple[str, str], LeftOut] = {}
        self._without: list[DefinitionError] = []
        self._failed: dict[Path, str] = {}
        self._count = self._unlogged = self._unlogged_runs = 0
        self.notes: list[str] = []

    def each(self, members: Sequence[Member]) -> Iterator[tuple[Member, list[Window]]]:
        """The windows of each run that can be drawn."""
        paths = [os.path.abspath(member.path) for member in members]
        play = partial(_play, settings=self._settings)
        with closing(spread(play, paths, self._workers, reads=str)) as found:
            for member, path, played in zip(members, paths, found, strict=True):
                if isinstance(played, _One):
                    self._unlogged += played.unlogged
                    self._unlogged_runs += played.unlogged > 0
                    self._leave_out(member, played.left_out)
                    yield member, played.windows
                else:
                    self._fail(played, member, path)
                self._count += 1
                self._tell(self._count, len(members))
        if members and len(self._without) + len(self._failed) == self._count:
            raise self._nothing()

    def _nothing(self) -> FlexrecError:
        """The error that no run can be drawn."""
        first = next(iter(self._failed.values()), "")
        unread = f"{counted(len(self._failed), 'run')} cannot be read: {first}"
        if not self._without:
            return RecordingError(unread)
        error = self._without[0]
        if self._failed:
            error.args = (f"{error.message}; {unread}",)
        return error

    def _fail(self, error: FlexrecError, member: Member, path: str) -> None:
        error.args = (error.message.replace(path, str(member.path)),)
        if self._settings.strict:
            raise error
        if isinstance(error, DefinitionError):
            self._without.append(error)
        else:
            self._failed[member.path] = str(error)

    def _leave_out(self, member: Member, left_out: Sequence[LeftOut]) -> None:
        """Count what is left out for each meter of a key, in all runs together."""
        for left in left_out:
            place = left.key, left.meter
            first, count = self._left_out.get(place), left.count
            if first is None:
                first, count = replace(left, run=member.name), 0
            self._left_out[place] = replace(first, count=first.count + count)

    def result(self, windows: list[Window]) -> PlayedRuns:
        """The result, with these windows."""
        if self._without:
            verb = "has" if len(self._without) == 1 else "have"
            runs = counted(len(self._without), "run")
            self.notes.append(f"{runs} {verb} none of the keys that are to be plotted")
        self.notes += list(self._failed.values())[:3]
        if len(self._failed) > 3:
            more = counted(len(self._failed) - 3, "more run")
            self.notes.append(f"{more} cannot be read")
        if self._unlogged:
            verb = "is" if self._unlogged == 1 else "are"
            self.notes.append(
                f"{counted(self._unlogged, 'value')} of {counted(self._unlogged_runs, 'run')} "
                f"after the last log {verb} not plotted: call log() after all adds of an epoch, or "
                "draw by step with every"
            )
        left_out = list(self._left_out.values())
        return PlayedRuns(windows, left_out, self.notes, self._failed.keys())


class _One(NamedTuple):
    """The result of playing one run; how many of its values came after the last log."""

    windows: list[Window]
    left_out: list[LeftOut]
    unlogged: int


def _play(path: str, settings: Settings) -> _One | FlexrecError:
    """Play a recording; also a worker calls this."""
    try:
        with Recording(path) as run:
            played = play_all(
                run,
                settings.definitions,
                every=settings.every,
                env=settings.env,
                uid=settings.uid,
                strict=settings.strict,
            )
            unlogged = 0
            if settings.every is None:
                unlogged = count_unlogged(run, fitting([run], settings.definitions))
            return _One(*played, unlogged)
    except FlexrecError as error:
        return error


def _colours(members: Sequence[Member], *, is_coloured: bool) -> dict[str, list[int]]:
    """The colour of each run: along a ramp by the rank of its value, or one after the other."""
    if not is_coloured:
        shown = [member.name for member in members if not member.is_muted]
        return {name: list(CYCLE[k % len(CYCLE)]) for k, name in enumerate(shown)}
    ranks = sorted({member.value for member in members}, key=by_value)
    return {m.name: ramp(ranks.index(m.value) / max(1, len(ranks) - 1)) for m in members}


def by_value(value: Cell) -> tuple[int, float, str]:
    """The key to sort cells by: numbers, then texts, then runs without a value."""
    if isinstance(value, str):
        return 1, 0.0, value
    return (2, 0.0, "") if value is None else (0, float(value), "")


def _coloured(
    window: Window,
    colours: Mapping[str, list[int]],
    notes: Mapping[str, str],
    muted: set[str],
    phases: Mapping[str, int],
) -> Window:
    """A window with a colour for each run; of lines also with a note for each, and dashes."""
    kind = TYPES[window.type]
    if kind.colour_opt is None or kind.colour_opt in window.opts:
        return window
    shown = {run: colour for run, colour in colours.items() if run not in muted}
    if window.type != _LINES:
        return _with_colours(window, kind.colour_opt, shown)
    traces = [t for t in window.traces if not (t.pale and t.run in muted)]
    dashes = [_DASHES[place % len(_DASHES)] for place in _dashes(traces, phases)]
    opts: dict[str, object] = {"dash": dashes} if set(dashes) != {_DASHES[0]} else {}
    opts |= {"linecolor": [shown.get(str(trace.run), list(GREY)) for trace in traces]}
    drawn = tuple(
        replace(trace, muted=trace.run in muted, note=notes.get(str(trace.run), ""))
        for trace in traces
    )
    return replace(window, traces=drawn, opts={**opts, **window.opts})


def _with_colours(window: Window, opt: str, colours: Mapping[str, list[int]]) -> Window:
    """The window with the colours of its runs; of several traces of a run, later ones are paler."""
    names = [trace.name.removeprefix(trace.run or "").strip() for trace in window.traces]
    order = list(dict.fromkeys(names))
    found = [
        paler(colours[str(trace.run)], order.index(name) / max(1, len(order) - 1))
        if trace.run in colours
        else list(GREY)
        for trace, name in zip(window.traces, names, strict=True)
    ]
    return replace(window, opts={opt: found, **window.opts})


def _places(windows: Sequence[Window]) -> dict[str, int]:
    """The number of each phase's dash, in all windows: 0 of training, then as they appear."""
    every = dict.fromkeys(trace.phase for window in windows for trace in window.traces)
    others = [phase for phase in every if phase and not phase.startswith("train")]
    return {phase: others.index(phase) + 1 if phase in others else 0 for phase in every}


def _dashes(traces: Sequence[Trace], phases: Mapping[str, int]) -> list[int]:
    """The number of each line's dash: its phase's, unless other lines of the run have the same."""
    names = [trace.name.removeprefix(trace.run or "").strip() for trace in traces]
    places = [phases[trace.phase] for trace in traces]
    if len(set(places)) < len(set(names)):
        order = sorted(dict.fromkeys(names), key=lambda name: not name.startswith("train"))
        places = [order.index(name) for name in names]
    return places
