"""What the page's head says of a run, and where its marks are in steps and in time."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.recording import Recording
from flexrec.replay.plots.window import Window

_LONGEST = 20_000
"""The most characters of a config that the page shows."""


class Marks(NamedTuple):
    """Where a run's marks are: (n,) arrays, in the order of x; time in seconds since 1970."""

    x: NDArray[np.float64]
    step: NDArray[np.int64]
    time: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One run of the page.

    Attributes:
        name: its name in legends.
        about: state, started, command and the like: {name: text}.
        config: as it was recorded.
        marks: where its marks are; None if that is not known.
        start: when it began, in seconds since 1970.
    """

    name: str
    about: dict[str, str] | None = None
    config: Any = None
    marks: Marks | None = None
    start: float = 0.0

    @classmethod
    def of(cls, name: str, recording: Recording, *, every: int | None = None) -> "Run":
        """Read a recording's facts and marks; `every` as in `play`."""
        marks, start = _marks(recording, every), recording.created
        if not start:
            start = float(marks.time[0]) if len(marks.time) else 0.0
        return cls(name, _about(recording), _short(recording.config), marks, start)

    def shown(self, windows: Sequence[Window]) -> dict[str, Any]:
        """JSON values for the page's script, with the marks that these windows show."""
        found = {"name": self.name, "about": self.about or {}, "config": self.config}
        if self.marks is None:
            return found
        kept = np.isin(self.marks.x, _positions(windows, self.name))
        seconds = np.round(self.marks.time[kept] - self.start, 3)
        x, step = self.marks.x[kept], self.marks.step[kept]
        told = {"x": x.tolist(), "step": step.tolist(), "seconds": seconds.tolist()}
        return {**found, **told, "start": self.start}


def _marks(run: Recording, every: int | None) -> Marks:
    """The marks at which a replay draws; of several at one x, the last."""
    marks = run.marks
    if every is None and marks.is_log.any():
        log = marks.is_log
        return _last_of_each(Marks(marks.x[log], marks.step[log], marks.time[log]))
    every = every or 1
    blocks = [Marks(np.empty(0), np.empty(0, np.int64), np.empty(0))]
    for block in run.columns.when(run.keys()):
        step = block.step // every * every
        blocks.append(_last_of_each(Marks(step.astype(np.float64), step, block.time)))
    return _last_of_each(Marks(*map(np.concatenate, zip(*blocks, strict=True))))


def _last_of_each(marks: Marks) -> Marks:
    x, place = np.unique(marks.x[::-1], return_index=True)
    return Marks(x, marks.step[::-1][place], marks.time[::-1][place])


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
