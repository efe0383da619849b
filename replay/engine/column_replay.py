"""Compute the points of a meter: from columns of numbers, block by block, or value by value.

A meter that reduces columns is given slices, from the latest reset to each mark. The parts of a
slice in earlier blocks are kept until it is complete; a meter with longer slices is fed all numbers
between two marks at once.
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
"""A part of a key's column, and the position up to which the column is complete."""

_LONGEST = 1 << 18
"""The most events between a reset and a mark for which a slice is kept until it is complete."""


@dataclass
class Points:
    """The results of a meter at the marks where it has data."""

    x: list[float] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    axes: set[str | None] = field(default_factory=set)


def reduced(
    plans: Sequence[tuple[Binding, Schedule]], blocks: Iterable[Block], *, is_single: bool
) -> list[Points | None]:
    """Compute all points of the meters of one key; None for a meter that takes single values.

    Args:
        plans: the meters, and when they are read and reset.
        blocks: the blocks of the key's numbers, in order.
        is_single: whether there is only one block.
    """
    columns = [_column(binding, schedule, is_single) for binding, schedule in plans]
    for last, (position, values) in blocks:
        unfinished = [column for column in columns if column is not None and column.wants_more]
        if not unfinished:
            break
        for column in unfinished:
            column.take(last, position, values)
    return [column.points if column is not None else None for column in columns]


def fed(binding: Binding, run: Recording, schedule: Schedule) -> Points:
    """Compute all points of a meter by feeding it value by value, as the engine does."""
    marks = _Marks(binding, schedule)
    at, positions = 0, schedule.position.tolist()
    for row in run.rows(binding.key):
        while at < len(positions) and positions[at] <= row.position:
            marks.apply_mark(at)
            at += 1
        binding.add(row.value, row.step, row.time)
    for i in range(at, len(positions)):
        marks.apply_mark(i)
    return marks.points


def _column(binding: Binding, schedule: Schedule, is_single: bool) -> "_Column | None":
    meter = binding.meter
    if type(meter).reduce_slices is Meter.reduce_slices:
        return None
    sliced = _Sliced(binding, schedule)
    if is_single or sliced.longest <= _LONGEST:
        return sliced
    return None if meter.uses_time else _Between(binding, schedule)


class _Column(ABC):
    """A meter's points, computed block by block; `wants_more` while it needs more blocks."""

    points: Points | None
    wants_more: bool

    @abstractmethod
    def take(self, last: int, position: Ints, values: Floats) -> None:
        """Take in the next block."""


class _Sliced(_Column):
    """Points from slices, each reduced as soon as it is complete."""

    def __init__(self, binding: Binding, schedule: Schedule) -> None:
        self._binding = binding
        reads, resets = np.flatnonzero(schedule.is_log), np.flatnonzero(schedule.reset)
        latest = np.searchsorted(resets, reads)  # the number of resets before each read
        self._starts = np.concatenate([[0], schedule.position[resets]])[latest]
        self._stops, self._x = schedule.position[reads], schedule.x[reads]
        self._mark, self._axis = schedule.mark[reads], schedule.axis[reads]
        self.longest = int((self._stops - self._starts).max(initial=0))
        self._waiting: list[tuple[Ints, Floats]] = []
        self._at = 0  # the first slice that is not complete
        self.points, self.wants_more = Points(), len(reads) > 0

    def take(self, last: int, position: Ints, values: Floats) -> None:
        """Take in the next block."""
        wanted = np.searchsorted(position, self._starts[self._at])
        if wanted < len(position):
            self._waiting.append((position[wanted:], values[wanted:]))
        end = int(np.searchsorted(self._stops, last, "right"))
        if end == self._at:
            return
        parts = self._waiting or [(position[:0], values[:0])]
        combined = map(np.concatenate, zip(*parts, strict=True))
        position, values = parts[0] if len(parts) == 1 else combined
        if not self._reduce(slice(self._at, end), position, values):
            self.points, self.wants_more = None, False
        self._at, self.wants_more = end, self.wants_more and end < len(self._stops)
        kept = np.searchsorted(position, self._starts[end]) if self.wants_more else len(position)
        self._waiting = [(position[kept:].copy(), values[kept:].copy())] if self.wants_more else []

    def _reduce(self, which: slice, position: Ints, values: Floats) -> bool:
        """Reduce these slices to points; return whether the meter could."""
        starts = np.searchsorted(position, self._starts[which])
        stops = np.searchsorted(position, self._stops[which])
        filled = stops > starts
        if not filled.any():
            return True
        binding = self._binding
        try:
            columns = binding.meter.reduce_slices(values, starts[filled], stops[filled])
        except Exception:  # noqa: BLE001 - any meter's error: feeding single values tells more
            return False
        if columns is None or self.points is None:
            return False
        chosen = columns[0] if len(columns) == 1 else binding.chosen(columns)
        self.points.x += self._x[which][filled].tolist()
        self.points.marks += self._mark[which][filled].tolist()
        self.points.values += chosen.tolist()
        self.points.axes |= set(self._axis[which][filled].tolist())
        return True


class _Between(_Column):
    """Points of a meter that is fed all numbers between two marks at once."""

    def __init__(self, binding: Binding, schedule: Schedule) -> None:
        self._binding, self._positions = binding, schedule.position
        self._marks, self._at = _Marks(binding, schedule), 0
        self.points, self.wants_more = self._marks.points, True

    def take(self, last: int, position: Ints, values: Floats) -> None:
        """Take in the next block."""
        end = int(np.searchsorted(self._positions, last, "right"))
        before = np.searchsorted(position, self._positions[self._at : end])  # rows before a mark
        row = 0
        for i, stop in enumerate(before.tolist(), self._at):
            self._add(values[row:stop])
            self._marks.apply_mark(i)
            row = stop
        self._add(values[row:])
        self._at = end

    def _add(self, values: Floats) -> None:
        try:
            self._binding.add_numbers(values)
        except Exception:  # noqa: BLE001 - as above
            self.points, self.wants_more = None, False


class _Marks:
    """Reads and resets a meter at its marks, and keeps its results."""

    def __init__(self, binding: Binding, schedule: Schedule) -> None:
        self.points = Points()
        self._binding, self._schedule = binding, schedule
        binding.begin()

    def apply_mark(self, i: int) -> None:
        """Read and reset the meter as mark `i` says."""
        schedule = self._schedule
        if schedule.is_log[i]:
            mark = float(schedule.mark[i])
            value = self._binding.read(mark, float(schedule.time[i]))
            if value is not None:
                self.points.x.append(float(schedule.x[i]))
                self.points.marks.append(mark)
                self.points.values.append(value)
                self.points.axes.add(schedule.axis[i])
        if schedule.reset[i]:
            self._binding.reset(float(schedule.time[i]))
