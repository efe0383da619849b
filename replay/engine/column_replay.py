"""The points of a meter: from columns of numbers, block by block, or from values one by one.

A meter that reduces columns is given slices, from the latest reset to each mark. What a slice
needs of earlier blocks is kept until it is complete; a meter whose slices are too long for that is
fed all numbers between two marks at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.columns import Column
from flexrec.replay.engine.engine import Binding
from flexrec.replay.engine.schedule import Ints, Schedule
from flexrec.replay.meters import Meter

Floats: TypeAlias = NDArray[np.float64]
Block: TypeAlias = tuple[int, Column]
"""A part of a key's column, and the position up to which it is all of it."""

_LONGEST = 1 << 18
"""Events between a reset and a mark, at most, where a slice waits until it is complete."""


@dataclass
class Points:
    """What a meter says at the marks where it has data."""

    x: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    axes: set[str | None] = field(default_factory=set)


def reduced(
    plans: Sequence[tuple[Binding, Schedule]], blocks: Iterable[Block], *, at_once: bool
) -> list[Points | None]:
    """All points of meters of one key; None for a meter that has to be fed one by one.

    Args:
        plans: the meters, and when they are read and reset.
        blocks: of the key's numbers, in order.
        at_once: there is one block alone.
    """
    columns = [_column(binding, schedule, at_once) for binding, schedule in plans]
    for last, (position, values) in blocks:
        going = [column for column in columns if column is not None and column.going]
        if not going:
            break
        for column in going:
            column.take(last, position, values)
    return [column.points if column is not None else None for column in columns]


def fed(binding: Binding, run: Recording, schedule: Schedule) -> Points:
    """All points of a meter that is fed one by one, as the engine would."""
    marks = _Marks(binding, schedule)
    at, positions = 0, schedule.position.tolist()
    for row in run.rows(binding.key):
        while at < len(positions) and positions[at] <= row.position:
            marks.pass_by(at)
            at += 1
        binding.add(row.value, row.step, row.time)
    for i in range(at, len(positions)):
        marks.pass_by(i)
    return marks.points


def _column(binding: Binding, schedule: Schedule, at_once: bool) -> "_Column | None":
    meter = binding.meter
    if type(meter).reduce_slices is Meter.reduce_slices:
        return None
    sliced = _Sliced(binding, schedule)
    if at_once or sliced.longest <= _LONGEST:
        return sliced
    return None if meter.uses_time else _Between(binding, schedule)


class _Column(ABC):
    """A meter's points, growing with the blocks; `going` while more blocks are wanted."""

    points: Points | None
    going: bool

    @abstractmethod
    def take(self, last: int, position: Ints, values: Floats) -> None:
        """Take in the next block."""


class _Sliced(_Column):
    """Slices that are reduced as soon as they are complete."""

    def __init__(self, binding: Binding, schedule: Schedule) -> None:
        self._binding = binding
        reads, resets = np.flatnonzero(schedule.is_log), np.flatnonzero(schedule.reset)
        latest = np.searchsorted(resets, reads)  # how many resets come before each read
        self._starts = np.concatenate([[0], schedule.position[resets]])[latest]
        self._stops, self._x = schedule.position[reads], schedule.x[reads]
        self._axis = schedule.axis[reads]
        self.longest = int((self._stops - self._starts).max(initial=0))
        self._waiting: list[tuple[Ints, Floats]] = []
        self._at = 0  # the first slice that is not complete
        self.points, self.going = Points(), len(reads) > 0

    def take(self, last: int, position: Ints, values: Floats) -> None:
        """Take in a block."""
        wanted = np.searchsorted(position, self._starts[self._at])
        if wanted < len(position):
            self._waiting.append((position[wanted:], values[wanted:]))
        end = int(np.searchsorted(self._stops, last, "right"))
        if end == self._at:
            return
        parts = self._waiting or [(position[:0], values[:0])]
        joined = map(np.concatenate, zip(*parts, strict=True))
        position, values = parts[0] if len(parts) == 1 else joined
        if not self._reduce(slice(self._at, end), position, values):
            self.points, self.going = None, False
        self._at, self.going = end, self.going and end < len(self._stops)
        kept = np.searchsorted(position, self._starts[end]) if self.going else len(position)
        self._waiting = [(position[kept:].copy(), values[kept:].copy())] if self.going else []

    def _reduce(self, which: slice, position: Ints, values: Floats) -> bool:
        """Whether the meter could reduce these slices to points."""
        starts = np.searchsorted(position, self._starts[which])
        stops = np.searchsorted(position, self._stops[which])
        filled = stops > starts
        if not filled.any():
            return True
        binding = self._binding
        try:
            columns = binding.meter.reduce_slices(values, starts[filled], stops[filled])
        except Exception:  # noqa: BLE001 - a meter may be anyone's: fed one by one, it says more
            return False
        if columns is None or self.points is None:
            return False
        chosen = columns[0] if len(columns) == 1 else binding.chosen(columns)
        self.points.x += self._x[which][filled].tolist()
        self.points.values += chosen.tolist()
        self.points.axes |= set(self._axis[which][filled].tolist())
        return True


class _Between(_Column):
    """A meter that is fed the numbers between two marks at once."""

    def __init__(self, binding: Binding, schedule: Schedule) -> None:
        self._binding, self._positions = binding, schedule.position
        self._marks, self._at = _Marks(binding, schedule), 0
        self.points, self.going = self._marks.points, True

    def take(self, last: int, position: Ints, values: Floats) -> None:
        """Take in a block."""
        end = int(np.searchsorted(self._positions, last, "right"))
        before = np.searchsorted(position, self._positions[self._at : end])  # rows before a mark
        row = 0
        for i, stop in enumerate(before.tolist(), self._at):
            self._add(values[row:stop])
            self._marks.pass_by(i)
            row = stop
        self._add(values[row:])
        self._at = end

    def _add(self, values: Floats) -> None:
        try:
            self._binding.add_numbers(values)
        except Exception:  # noqa: BLE001 - as above: fed one by one, it says at which
            self.points, self.going = None, False


class _Marks:
    """Reads and resets a meter at its marks, and keeps what it says."""

    def __init__(self, binding: Binding, schedule: Schedule) -> None:
        self.points = Points()
        self._binding, self._schedule = binding, schedule
        binding.begin()

    def pass_by(self, i: int) -> None:
        """Do what a mark asks for."""
        schedule = self._schedule
        if schedule.is_log[i]:
            x = float(schedule.x[i])
            value = self._binding.read(x, float(schedule.time[i]))
            if value is not None:
                self.points.x.append(x)
                self.points.values.append(value)
                self.points.axes.add(schedule.axis[i])
        if schedule.reset[i]:
            self._binding.reset(float(schedule.time[i]))
