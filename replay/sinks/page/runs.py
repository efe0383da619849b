"""What the page's head shows of a run: its facts, and the steps and times of its marks."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.recording import Recording
from flexrec.replay.engine.schedule import Schedule, start_of
from flexrec.replay.plots.window import Window

_LONGEST = 20_000
"""The most characters of a config that the page shows."""

_EXACT = 2**53
"""Below it a float holds every whole number."""


class Marks(NamedTuple):
    """Where a run's marks are: (n,) arrays, in the order of `at`.

    `at` is where the windows draw a mark, `mark` the x that the log gave; `seconds` count from the
    run's start. `step` is None for a group whose runs have a mark at different steps.
    """

    at: NDArray[np.float64]
    mark: NDArray[np.float64]
    step: NDArray[np.int64] | None
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One run of the page, or one group of runs whose mean is drawn.

    Attributes:
        name: its name in legends.
        about: state, started, command and the like: {name: text}.
        config: as it was recorded; of a group, what is the same in all its runs.
        marks: where its marks are; None if that is not known.
        start: when it began, in seconds since 1970; None for a group.
        axis: the name of the marks' x, if they have one.
    """

    name: str
    about: dict[str, str] | None = None
    config: Any = None
    marks: Marks | None = None
    start: float | None = None
    axis: str | None = None

    @classmethod
    def of(
        cls, name: str, recording: Recording, *, every: int | None = None, x: str = "mark"
    ) -> Self:
        """Read a recording's facts and marks; `every` and `x` as in `play` and its definitions."""
        schedule = _schedule(recording, every)
        log, at = schedule.is_log, schedule.along(x, start_of(recording)).x
        start = recording.created or (float(schedule.time[log][0]) if log.any() else 0.0)
        marks = Marks(at[log], schedule.mark[log], schedule.step[log], schedule.time[log] - start)
        axis = _only(schedule.axis[log].tolist())
        about, config = _about(recording), _short(recording.config)
        return cls(name, about, config, _last_of_each(marks), start, axis)

    @classmethod
    def group(cls, name: str, runs: Sequence[Self]) -> Self:
        """What several runs have in common, and the mean of the times of their marks."""
        about = {"runs": str(len(runs)), **_common([run.about for run in runs])}
        config = _common([run.config for run in runs])
        marks = _mean([run.marks for run in runs if run.marks is not None])
        return cls(name, about, config, marks, axis=_only([run.axis for run in runs]))

    def shown(self, windows: Sequence[Window]) -> dict[str, Any]:
        """JSON values for the page's script, with the marks that these windows show.

        `mark` is left out where it is the same as `at`, as it is unless x is a step or a time.
        """
        found = {"name": self.name, "about": self.about or {}, "config": self.config}
        if self.marks is None:
            return found
        kept = np.isin(self.marks.at, _positions(windows, self.name))
        told = {name: part[kept] for name, part in self.marks._asdict().items() if part is not None}
        told["seconds"] = np.round(told["seconds"], 3)
        if np.array_equal(told["at"], told["mark"]):
            del told["mark"]
        lists = {name: _short_list(part) for name, part in told.items()}
        return {**found, **lists, "start": self.start, "axis": self.axis}


def _short_list(numbers: NDArray[np.float64] | NDArray[np.int64]) -> list[float]:
    """The numbers as they are shortest in JSON: whole ones without a fraction."""
    is_whole = (np.abs(numbers) < _EXACT).all() and (numbers == np.floor(numbers)).all()
    found: list[float] = (numbers.astype(np.int64) if is_whole else numbers).tolist()
    return found


def _schedule(run: Recording, every: int | None) -> Schedule:
    """The marks at which a replay draws."""
    if every is None and run.marks.is_log.any():
        return Schedule.recorded(run.marks)
    return Schedule.every(run, run.keys(), every or 1)


def _last_of_each(marks: Marks) -> Marks:
    """The last of several marks at one place."""
    at, place = np.unique(marks.at[::-1], return_index=True)
    step = None if marks.step is None else marks.step[::-1][place]
    return Marks(at, marks.mark[::-1][place], step, marks.seconds[::-1][place])


def _mean(runs: Sequence[Marks]) -> Marks | None:
    """The marks of all runs: the mean of their times, and their step where all agree."""
    if not runs:
        return None
    at = np.unique(np.concatenate([marks.at for marks in runs]))
    rows = [np.searchsorted(at, marks.at) for marks in runs]

    def mean(part: str) -> NDArray[np.float64]:
        total, count = np.zeros(len(at)), np.zeros(len(at))
        for marks, row in zip(runs, rows, strict=True):
            total[row] += getattr(marks, part)
            count[row] += 1
        return total / count

    steps = mean("step")
    agree = all((steps[row] == m.step).all() for m, row in zip(runs, rows, strict=True))
    return Marks(at, mean("mark"), steps.astype(np.int64) if agree else None, mean("seconds"))


def _only(axes: Sequence[str | None]) -> str | None:
    """The name, if all axes have the same."""
    return axes[0] if len(set(axes)) == 1 else None


def _common(values: Sequence[Any]) -> Any:
    """What is equal in all values; of dicts the items that are."""
    first, *others = values
    if not all(isinstance(value, dict) for value in values):
        return first if all(other == first for other in others) else None
    shared = [key for key in first if all(key in other for other in others)]
    found = {key: _common([value[key] for value in values]) for key in shared}
    return {key: item for key, item in found.items() if item is not None}


def _positions(windows: Sequence[Window], run: str) -> NDArray[np.float64]:
    """Every x of this run that the windows show."""
    found = [
        np.asarray(trace.x, np.float64)
        for window in windows
        for trace in window.traces
        if trace.x is not None and trace.run in (None, run)
    ]
    return np.unique(np.concatenate([np.empty(0), *found]))


def _about(run: Recording) -> dict[str, str]:
    """What is known of a run besides its config, as texts."""
    facts, about = run.facts or {}, {"state": run.state}
    if run.dropped:
        about["dropped events"] = str(run.dropped)
    if facts.get("started"):
        about["started"] = str(facts["started"]).replace("T", " ")
    if facts.get("host"):
        about["host"] = str(facts["host"])
    argv = facts.get("argv")
    if isinstance(argv, list):
        about["command"] = shlex.join(map(str, argv))
    if facts.get("git_commit"):
        about["commit"] = str(facts["git_commit"])
    packages = facts.get("packages")
    if isinstance(packages, dict):
        about["packages"] = ", ".join(f"{name} {version}" for name, version in packages.items())
    return {name: text[:_LONGEST] for name, text in about.items()}


def _short(config: Any) -> Any:
    """The config in strict JSON; the beginning of its text, if it is too long for a page."""
    text = json.dumps(config)
    if len(text) > _LONGEST:
        return f"{text[:_LONGEST]}…"
    return json.loads(text, parse_constant=str)  # NaN and infinities as texts
