"""Play recordings into windows: fast, over whole columns, or with `plain=True` event by event.

Both ways give the same windows: exactly equal if the meters are fed one value at a time, within a
relative 1e-12 if a meter reduces columns (engine/column_replay.py).
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from flexrec.recorder.errors import DefinitionError, InputError, listed, nearest, warn
from flexrec.recorder.events import Add, Event, Log, Reset, Value
from flexrec.recorder.files.names import is_around
from flexrec.recorder.layers.models import layers_of_all
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.auto import auto_definitions
from flexrec.replay.definitions.definitions import Definitions
from flexrec.replay.definitions.phases import metric_of, split_phase
from flexrec.replay.definitions.presets import preset
from flexrec.replay.engine.column_replay import Block, Points, fed, reduced
from flexrec.replay.engine.engine import Binding, Engine, bind
from flexrec.replay.engine.left_out import LeftOut, LeftOuts
from flexrec.replay.engine.schedule import Schedule, start_of
from flexrec.replay.engine.window_builder import WindowBuilder, classes_of, overlay
from flexrec.replay.plots.window import Window

_WORD = re.compile(r"[_/.\- ]")

_HELD = 1 << 22
"""The most values that are read from a recording at a time."""


class Played(NamedTuple):
    """The result of playing recordings: the windows, and the values left out of them."""

    windows: list[Window]
    left_out: list[LeftOut]


def play(
    recordings: Recording | Sequence[Recording],
    definitions: Definitions | None = None,
    *,
    every: int | None = None,
    env: str | None = None,
    uid: str | None = None,
    plain: bool = False,
    strict: bool = False,
) -> list[Window]:
    """Plot recordings; several are overlaid, with traces named by run.

    >>> windows = play(Recording("run.h5"), preset("loss+MSE"))

    A value that its meter or plot cannot take is left out, with one warning for each meter of a
    key; everything else is drawn.

    Args:
        recordings: one recording, or several.
        definitions: plots and meters, from `preset`, `define` or `load_toml`; by default those of
            the preset `auto`, which draws all keys.
        every: draw a point for every N steps instead of one for each recorded `log`; by default
            the recorded logs, or, if there are none, every step.
        env: the visdom environment of plots that name none.
        uid: a prefix of window ids and titles.
        plain: feed the engine event by event.
        strict: raise at the first value that would be left out.

    Raises:
        InputError: something is not a Recording, such as a path.
        DefinitionError: a recording has none of the keys that the meters take; if `strict`, a
            plot cannot draw its meter's result.
        MeterError: if `strict`, a meter cannot take a recorded value.
    """
    played = play_all(
        recordings, definitions, every=every, env=env, uid=uid, plain=plain, strict=strict
    )
    for left in played.left_out:
        warn(f"left out: {left}")
    return played.windows


def play_all(
    recordings: Recording | Sequence[Recording],
    definitions: Definitions | None = None,
    *,
    every: int | None = None,
    env: str | None = None,
    uid: str | None = None,
    plain: bool = False,
    strict: bool = False,
) -> Played:
    """Like `play`, but return what was left out instead of warning about it."""
    if every is not None and every < 1:
        raise DefinitionError(f"every must be at least 1, got {every}")
    runs = [recordings] if isinstance(recordings, Recording) else recordings
    if isinstance(runs, os.PathLike) or not all(isinstance(run, Recording) for run in runs):
        raise InputError('play takes Recordings, not paths: write play(Recording("run.h5"))')
    definitions = fitting(runs, definitions)
    names = run_names([run.path for run in runs])
    windows, left_out = dict[str, list[Window]](), list[LeftOut]()
    for name, run in zip(names, runs, strict=True):
        if not any(map(definitions.takes, run)):
            raise _none_to_plot(run, definitions)
        windows[name], found = _play(run, definitions, every, env, uid, plain, strict)
        left_out += [replace(left, run=name) for left in found] if len(runs) > 1 else found
    return Played(overlay(windows), left_out)


def fitting(runs: Sequence[Recording], definitions: Definitions | None = None) -> Definitions:
    """The definitions; with the preset `auto`, also plots for the recordings' other keys."""
    definitions = preset("auto") if definitions is None else definitions
    if definitions.auto is None:
        return definitions
    values: dict[str, Value | None] = {}
    for run in runs:
        values |= {key: _one_of(run, key) for key in run if values.get(key) is None}
    return completed(definitions, values)


def completed(definitions: Definitions, values: Mapping[str, Value | None]) -> Definitions:
    """The definitions; with the preset `auto`, also plots for keys that no meter takes."""
    if definitions.auto is None:
        return definitions
    left = {key: value for key, value in values.items() if not definitions.takes(key)}
    found = auto_definitions(left, definitions.auto)
    return replace(definitions, auto=None) + found.beside(definitions)


def missing_keys(recording: Recording, definitions: Definitions) -> list[str]:
    """The keys and patterns of meters that the recording does not have."""
    return definitions.missing(recording.keys())


def undrawn_keys(
    recording: Recording, definitions: Definitions, *, alike: bool = True
) -> list[str]:
    """The keys that no meter takes; with `alike`, only those that contain the name of a metric.

    Keys of the usual phases do not count as alike: a user who named other phases left them out.

    >>> undrawn_keys(Recording("run.h5"), preset("loss"), alike=False)
    ['train_mse']
    """
    meters = definitions.meters.values()
    wanted = {metric_of(meter.key).lower() for meter in meters if meter.is_phased}
    unlimited = {name: replace(meter, only=()) for name, meter in definitions.meters.items()}
    every = replace(definitions, meters=unlimited)
    left = [key for key in recording if not every.takes(key)]
    if not alike:
        return left
    named = [key for key in left if split_phase(key)[1].lower() not in wanted]
    return [key for key in named if wanted & set(_WORD.split(key.lower()))]


def _none_to_plot(run: Recording, definitions: Definitions) -> DefinitionError:
    """The error for a recording of whose keys no meter takes any."""
    if not len(run):
        return DefinitionError(f"{run.path} holds no values: there is nothing to plot")
    there = listed(run)
    if not definitions.meters:
        return DefinitionError(
            f"{run.path}: nothing to plot: no meter is defined that takes its keys; there are "
            f"{there}"
        )
    asked = definitions.asked()
    only, near = listed(asked), "".join(nearest(name, run) for name in asked)
    return DefinitionError(
        f"{run.path} has none of the keys that are to be plotted; wanted are "
        f"{listed(definitions.wanted())}"
        + (f", and of these only {only}" if only else "")
        + f"; there are {there}{near}"
    )


def _one_of(run: Recording, key: str) -> Value | None:
    """A value of the key: a number if it has any, or else the first."""
    if "number" in run.kind(key).split(" or "):
        return 0.0
    return next((row.value for row in run.rows(key)), None)


def count_unlogged(recording: Recording, definitions: Definitions) -> int:
    """Count the values for meters that were added after the last log or reset of their meters.

    What is around the training, such as samples of the machine, does not count.
    0 for a recording without logs: it is drawn step by step.
    """
    ends: dict[str | None, int] = {}
    for position, keys in zip(recording.marks.position.tolist(), recording.marks.keys, strict=True):
        ends |= dict.fromkeys(keys if keys is not None else (None,), position)
    if not recording.marks.is_log.any():
        return 0
    counts: dict[int, dict[str, int]] = {}
    total = 0
    for key in recording:
        names = [meter.name for _, meter in definitions.taking(key)]
        if names and not is_around(key):
            end = max(ends.get(name, 0) for name in (None, key, *names))
            if end not in counts:
                counts[end] = recording.counts(end)
            total += counts[end][key]
    return total


def run_names(paths: Sequence[Path]) -> list[str]:
    """The names of runs in legends: the file's name, with enough folders to make it unique.

    >>> run_names([Path("a/run.h5"), Path("b/run.h5")])
    ['a/run', 'b/run']
    """
    whole = [path.absolute().with_suffix("") for path in paths]
    for depth in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-depth:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} {i}" for i, path in enumerate(whole)]  # the same file, given twice


def _play(
    run: Recording,
    definitions: Definitions,
    every: int | None,
    env: str | None,
    uid: str | None,
    plain: bool,
    strict: bool,
) -> Played:
    if every is None and not run.marks.is_log.any():
        every = 1
    classes = classes_of(layers_of_all(run.facts or {}))
    if plain:
        engine = Engine(definitions, env=env, uid=uid, strict=strict, classes=classes)
        steps = EverySteps(engine, every) if every else None
        for event in run.events():
            (steps or engine).feed(event)
        if steps:
            steps.end()
        return Played(engine.windows(), list(engine.left_out))
    left_out = LeftOuts(strict=strict)
    board = WindowBuilder(definitions, left_out, env=env, uid=uid, classes=classes)
    bindings = {key: bind(definitions, key, i, left_out) for i, key in enumerate(run.keys())}
    bound = {key: found for key, found in bindings.items() if found}
    schedule = Schedule.every(run, list(bound), every) if every else Schedule.recorded(run.marks)
    start = start_of(run) if definitions.x == "relative" else 0.0
    schedule = schedule.along(definitions.x, start)
    numbers = [key for key in bound if run.is_number(key)]
    for keys in run.columns.groups(numbers, _HELD):
        for key, blocks, is_single in _columns(run, keys):
            plans = [(binding, schedule.of(binding)) for binding in bound[key]]
            found = reduced(plans, blocks, is_single=is_single)
            for (binding, meant), points in zip(plans, found, strict=True):
                points = fed(binding, run, meant) if points is None else points
                _draw(board, binding, points)
    for key in bound:
        if not run.is_number(key):
            for binding in bound[key]:
                _draw(board, binding, fed(binding, run, schedule.of(binding)))
    return Played(board.windows(), list(left_out))


def _columns(run: Recording, keys: Sequence[str]) -> Iterator[tuple[str, Iterable[Block], bool]]:
    """The blocks of each key's numbers, and whether they are a single block (not for long keys)."""
    if len(keys) == 1 and run.counts()[keys[0]] > _HELD:
        yield keys[0], run.columns.numbers(keys[0]), False
        return
    for key, column in run.columns.columns(keys).items():
        yield key, [(sys.maxsize, column)], True


def _draw(board: WindowBuilder, binding: Binding, points: Points) -> None:
    if len(points.x):
        board.point(
            *(binding.definition, binding.key, binding.place),
            *(points.x, points.values),
            marks=points.marks,
            axes=points.axes,
        )


class EverySteps:
    """Feeds an engine with a log after every N steps, in place of the recorded logs.

    Args:
        engine: the engine; adds of keys that it does not take are not counted.
        every: the number of steps, N.
    """

    def __init__(self, engine: Engine, every: int) -> None:
        self._engine, self._every = engine, every
        self._last: Add | None = None
        self._resets: list[Event] = []  # since the last add; a mark that is due comes before them

    def feed(self, event: Event) -> None:
        """Feed the engine the mark that is due, if any, and then the event if it takes it."""
        self._engine.begin(event.time)
        if isinstance(event, Reset):
            self._resets.append(event)
        if not isinstance(event, Add) or not any(map(self._engine.wants, event.values)):
            return
        if self._last is not None and event.step // self._every != self._last.step // self._every:
            self.end()
        for reset in self._resets:
            self._engine.feed(reset)
        self._engine.feed(event)
        self._last, self._resets = event, []

    def end(self) -> None:
        """Feed the engine the mark of the last steps."""
        if self._last is not None:
            x = float(self._last.step // self._every * self._every)
            self._engine.feed(Log(x, None, True, self._last.step, self._last.time, "step"))
