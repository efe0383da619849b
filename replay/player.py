"""Recordings → windows. The quick way over whole columns; `plain=True` is the engine itself.

Both give the same windows: exactly where the meters are fed one by one, within 1e-12 relative
where a meter reduces a whole column at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.events import Add, Event, Log, Reset
from flexrec.recorder.reader import Marks, Recording
from flexrec.replay.board import Board, overlay
from flexrec.replay.definitions import Definitions
from flexrec.replay.engine import Binding, Engine, bind
from flexrec.replay.window import Window

__all__ = ["EverySteps", "missing_keys", "play", "run_names"]

Ints = NDArray[np.int64]

_HELD = 1 << 22
"""How many values are read from a recording at a time, at most, but for those of one key."""


@dataclass(frozen=True)
class _Schedule:
    """When the meters are read and reset: positions in the recorded order, the rows below it
    belonging before."""

    position: Ints
    is_log: NDArray[np.bool_]
    x: NDArray[np.float64]
    reset: NDArray[np.bool_]
    time: NDArray[np.float64]
    keys: Sequence[tuple[str, ...] | None]

    def of(self, binding: Binding) -> "_Schedule":
        """The part that means this meter."""
        if all(keys is None for keys in self.keys):
            return self
        meant = np.array([binding.selected(keys) for keys in self.keys], bool)
        return _Schedule(
            self.position[meant],
            self.is_log[meant],
            self.x[meant],
            self.reset[meant],
            self.time[meant],
            [keys for keys, is_meant in zip(self.keys, meant, strict=True) if is_meant],
        )


def play(
    recordings: Recording | Sequence[Recording],
    definitions: Definitions,
    *,
    every: int | None = None,
    env: str | None = None,
    uid: str | None = None,
    plain: bool = False,
) -> list[Window]:
    """Run recordings through definitions; several are overlaid, their traces named by run.

    >>> windows = play(Recording("run.h5"), preset("loss+MSE"))  # doctest: +SKIP

    Args:
        recordings: one, or several.
        definitions: plots and meters, from `preset`, `define` or `load_toml`.
        every: a point for every N steps instead of one for each recorded `log`; the default is
            the recorded marks, or, where there are none, every step.
        env: visdom's environment for plots that name none of their own.
        uid: put before window ids.
        plain: feed the engine event by event.

    Raises:
        DefinitionError: a recording has none of the keys that the meters want, or a plot cannot
            draw what its meter gives.
        MeterError: a meter cannot take a recorded value.
    """
    if every is not None and every < 1:
        raise DefinitionError(f"every must be at least 1, got {every}")
    runs = [recordings] if isinstance(recordings, Recording) else list(recordings)
    names = run_names([run.path for run in runs])
    played = {}
    for name, run in zip(names, runs, strict=True):
        wanted = definitions.wanted()
        if len(missing_keys(run, definitions)) == len(wanted):
            there = ", ".join(run.keys()) or "none at all"
            raise DefinitionError(
                f"{run.path} has none of the keys that are to be plotted; "
                f"wanted are {', '.join(wanted)}; there are {there:.600}"
            )
        played[name] = _play(run, definitions, every, env, uid, plain)
    return overlay(played)


def missing_keys(recording: Recording, definitions: Definitions) -> list[str]:
    """The keys and patterns that meters want and that the recording does not have."""
    missing = {
        meter.key: not any(map(meter.matches, recording.keys()))
        for meter in definitions.meters.values()
    }
    return [key for key, is_missing in missing.items() if is_missing]


def run_names(paths: Sequence[Path]) -> list[str]:
    """What runs are called in legends: the file's name, with as many folders as tell them apart.

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
) -> list[Window]:
    if every is None and not run.marks.is_log.any():
        every = 1
    if plain:
        engine = Engine(definitions, env=env, uid=uid)
        steps = EverySteps(engine, every) if every else None
        for event in run.events():
            (steps or engine).feed(event)
        if steps:
            steps.end()
        return engine.windows()
    board = Board(definitions, env=env, uid=uid)
    bindings = {key: bind(definitions, key, i) for i, key in enumerate(run.keys())}
    bound = [key for key, found in bindings.items() if found]
    schedule = _every(run, bound, every) if every else _recorded(run.marks)
    reducible = [key for key in bound if run.is_number(key)]
    for keys in _groups(run, reducible):
        for key, series in run.series(keys).items():
            for binding in bindings[key]:
                points = _reduce(binding, series.position, series.value, schedule.of(binding))
                xs, values = points if points else _feed(binding, run, schedule.of(binding))
                _draw(board, binding, xs, values)
    for key in bound:
        if key not in reducible:
            for binding in bindings[key]:
                _draw(board, binding, *_feed(binding, run, schedule.of(binding)))
    return board.windows()


def _groups(run: Recording, keys: Sequence[str]) -> Iterator[list[str]]:
    """The keys, as many at a time as have few enough values to hold in memory at once."""
    counts, group, size = run.counts(), list[str](), 0
    for key in keys:
        if group and size + counts[key] > _HELD:
            yield group
            group, size = [], 0
        group.append(key)
        size += counts[key]
    yield group


def _draw(board: Board, binding: Binding, xs: Sequence[float], values: Any) -> None:
    if len(xs):
        board.point(binding.definition, binding.key, binding.place, xs, values)


def _recorded(marks: Marks) -> _Schedule:
    return _Schedule(marks.position, marks.is_log, marks.x, marks.reset, marks.time, marks.keys)


def _every(run: Recording, keys: Sequence[str], every: int) -> _Schedule:
    """A mark after the last event of every N steps, among the recorded resets."""
    columns = [run.index(key) for key in keys]
    position = np.concatenate([column.position for column in columns])
    order, first = np.unique(position, return_index=True)
    step = np.concatenate([column.step for column in columns])[first]
    time = np.concatenate([column.time for column in columns])[first]
    group = step // every
    last = np.flatnonzero(np.append(group[1:] != group[:-1], len(group) > 0)[: len(group)])
    n, marks = len(last), run.marks
    resets = np.flatnonzero(~marks.is_log)
    where = np.concatenate([order[last] + 1, marks.position[resets]])
    sort = np.argsort(where, kind="stable")
    named = [*[None] * n, *(marks.keys[i] for i in resets)]
    return _Schedule(
        where[sort],
        np.concatenate([np.ones(n, bool), np.zeros(len(resets), bool)])[sort],
        np.concatenate([group[last] * float(every), np.zeros(len(resets))])[sort],
        np.ones(n + len(resets), bool),
        np.concatenate([time[last], marks.time[resets]])[sort],
        [named[i] for i in sort],
    )


class EverySteps:
    """Puts a mark after every N steps, in place of the recorded logs.

    Args:
        engine: what the events are for: adds that it does not want count for nothing.
        every: N.
    """

    def __init__(self, engine: Engine, every: int) -> None:
        self._engine, self._every = engine, every
        self._last: Add | None = None
        self._resets: list[Event] = []  # since the last add: the mark, if any, comes before

    def feed(self, event: Event) -> None:
        """Feed the engine what matters of an event, and before it the mark that is due."""
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
        """Feed the engine the mark that ends the steps so far."""
        if self._last is not None:
            x = float(self._last.step // self._every * self._every)
            self._engine.feed(Log(x, None, True, self._last.step, self._last.time))


def _reduce(
    binding: Binding, position: Ints, values: Any, schedule: _Schedule
) -> tuple[list[float], list[Any]] | None:
    """All points of a meter that reduces columns, or None."""
    reads = np.flatnonzero(schedule.is_log)
    before = np.searchsorted(position, schedule.position)  # rows before each mark
    resets = np.flatnonzero(schedule.reset)
    latest = np.searchsorted(resets, reads)  # how many resets come before each read
    starts = np.concatenate([[0], before[resets]])[latest]
    stops = before[reads]
    filled = stops > starts
    if not filled.any():
        return [], []
    columns = binding.meter.reduce(values, starts[filled], stops[filled])
    if columns is None:
        return None
    chosen = columns[0] if len(columns) == 1 else binding.chosen(columns)
    return schedule.x[reads][filled].tolist(), chosen.tolist()


def _feed(binding: Binding, run: Recording, schedule: _Schedule) -> tuple[list[float], list[Any]]:
    """All points of a meter that is fed one by one, as the engine would."""
    xs: list[float] = []
    values: list[Any] = []
    binding.reset(0.0)

    def mark(i: int) -> None:
        if schedule.is_log[i]:
            value = binding.read(float(schedule.time[i]))
            if value is not None:
                xs.append(float(schedule.x[i]))
                values.append(value)
        if schedule.reset[i]:
            binding.reset(float(schedule.time[i]))

    at, marks = 0, schedule.position.tolist()
    for row in run.rows(binding.key):
        while at < len(marks) and marks[at] <= row.position:
            mark(at)
            at += 1
        binding.add(row.value, row.step, row.time)
    for i in range(at, len(marks)):
        mark(i)
    return xs, values
