"""Decide when meters are read and reset: at recorded marks, or every N steps. No meters here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.series import Marks
from flexrec.replay.engine.engine import Binding
from flexrec.replay.engine.positions import LABELS

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Schedule:
    """Marks in order; all rows with a position below that of a mark come before it.

    Points are drawn at `x`, which `axis` names; `mark` is the x that the log gave.
    """

    position: Ints
    is_log: NDArray[np.bool_]
    x: NDArray[np.float64]
    mark: NDArray[np.float64]
    step: Ints
    reset: NDArray[np.bool_]
    time: NDArray[np.float64]
    keys: Sequence[tuple[str, ...] | None]
    axis: NDArray[np.object_]

    @classmethod
    def recorded(cls, marks: Marks) -> Self:
        """A schedule of the recorded logs and resets."""
        at_step = (marks.x == marks.step).tolist()  # see Log.axis_name
        named = zip(marks.axis, at_step, strict=True)
        axis = [name or ("step" if is_step else None) for name, is_step in named]
        return cls(
            marks.position,
            marks.is_log,
            marks.x,
            marks.x,
            marks.step,
            marks.reset,
            marks.time,
            marks.keys,
            np.array(axis, object),
        )

    @classmethod
    def every(cls, run: Recording, keys: Sequence[str], every: int) -> Self:
        """A schedule with a log after the last event of every N steps, and the recorded resets.

        Args:
            keys: the keys whose events count.
        """
        order, group, time = _last_adds(run, keys, every)
        n, marks = len(order), run.marks
        resets = np.flatnonzero(~marks.is_log)
        where = np.concatenate([order + 1, marks.position[resets]])
        sort = np.argsort(where, kind="stable")
        named = [*[None] * n, *(marks.keys[i] for i in resets)]
        x = np.concatenate([group * float(every), np.zeros(len(resets))])[sort]
        return cls(
            where[sort],
            np.concatenate([np.ones(n, bool), np.zeros(len(resets), bool)])[sort],
            x,
            x,
            x.astype(np.int64),
            np.ones(n + len(resets), bool),
            np.concatenate([time, marks.time[resets]])[sort],
            [named[i] for i in sort],
            np.full(len(sort), "step", object),
        )

    def along(self, x: str, start: float) -> "Schedule":
        """The marks with points elsewhere along the x axis; see `position`."""
        if x == "mark":
            return self
        if x == "step":
            places = np.where(self.axis == "step", self.x, self.step)
        else:
            places = self.time - (start if x == "relative" else 0.0)
        return replace(self, x=places, axis=np.full(len(places), LABELS[x], object))

    def of(self, binding: Binding) -> "Schedule":
        """The marks that apply to this meter."""
        reset = self.reset if binding.definition.reset else self.reset & ~self.is_log
        if self.keys.count(None) == len(self.keys):
            return replace(self, reset=reset)
        meant = np.array([binding.selected(keys) for keys in self.keys], bool)
        return Schedule(
            self.position[meant],
            self.is_log[meant],
            self.x[meant],
            self.mark[meant],
            self.step[meant],
            reset[meant],
            self.time[meant],
            [keys for keys, is_meant in zip(self.keys, meant, strict=True) if is_meant],
            self.axis[meant],
        )


def start_of(run: Recording) -> float:
    """The time of the run's first event; 0 if there is none."""
    marks, adds = run.marks, next(iter(run.columns.when(run.keys())), None)
    if adds is None or not len(adds.position):
        return float(marks.time[0]) if len(marks) else 0.0
    is_mark = len(marks) > 0 and marks.position[0] < adds.position[0]
    return float(marks.time[0] if is_mark else adds.time[0])


def _last_adds(
    run: Recording, keys: Sequence[str], every: int
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """The position of the last add of every N steps, the index of these steps, and its time."""
    none = np.empty(0, np.int64)
    found, held = list[tuple[Ints, Ints, NDArray[np.float64]]](), (none, none, np.empty(0))
    for block in run.columns.when(keys):
        position = np.concatenate([held[0], block.position])
        group = np.concatenate([held[1], block.step // every])
        time = np.concatenate([held[2], block.time])
        last = np.flatnonzero(group[1:] != group[:-1])
        found.append((position[last], group[last], time[last]))
        held = position[-1:], group[-1:], time[-1:]  # more adds of these steps may follow
    order, group, time = map(np.concatenate, zip(*found, held, strict=True))
    return order, group, time
