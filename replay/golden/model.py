"""The results of a comparison as plain data. Nothing is compared or printed here."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("missing", "extra", "renamed", "reordered", "type", "layout", "values", "left out")
"""The kinds of differences: of a window, a trace, a point, a field, or a value left out."""

ABSENT = "(absent)"
"""Stands for a missing value."""

RTOL = 1e-9
"""The default tolerance: allows for other processors and versions of numpy, but no more."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place where two traces differ; None as a value is a gap (NaN)."""

    index: tuple[int, ...]
    x: Any
    golden: Any
    obtained: Any


@dataclass(frozen=True)
class Points:
    """The points of one difference, created on access since there may be millions."""

    where: Sequence[int] = ()
    shape: tuple[int, ...] = ()
    x: Sequence[Any] | None = None
    golden: Sequence[Any] = ()
    obtained: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.where)

    def __iter__(self) -> Iterator[Point]:
        return map(self.at, range(len(self)))

    def at(self, k: int) -> Point:
        """The k-th point."""
        flat = int(self.where[k])
        index, rest = [], flat
        for size in reversed(self.shape):
            rest, place = divmod(rest, size)
            index.append(place)
        x = self.x[flat] if self.x is not None and len(self.shape) == 1 else None
        values = [side[flat] if side else ABSENT for side in (self.golden, self.obtained)]
        return Point(tuple(reversed(index)), x, *values)


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        kind: one of `KINDS`.
        window: visdom's window id in the golden file; "" if it concerns no single window.
        trace: the trace's name, or None if it concerns the window itself.
        field: "y", "title", "layout.yaxis.type", …; "" if it concerns the whole.
        message: one line that describes it, without window, trace and field.
        golden, obtained: both values, at the first index that differs; `ABSENT` for none.
        index: the first index that differs: (i,) in a line, (row, column) in a matrix.
        x: the x at that index, if the trace has one.
        max_abs, max_rel: the largest errors; None if there is no pair of numbers.
        count, total: the number of points that differ, and of all points.
        points: all points that differ.
    """

    kind: str
    window: str
    trace: str | None
    field: str
    message: str
    golden: Any
    obtained: Any
    index: tuple[int, ...] | None = None
    x: Any = None
    max_abs: float | None = None
    max_rel: float | None = None
    count: int = 1
    total: int = 1
    points: Points = dataclasses.field(default_factory=Points, repr=False, compare=False)


@dataclass(frozen=True)
class Comparison:
    """Whether two documents are equal within a tolerance, and what differs if not.

        if not compare(golden, obtained):
            ...

    Attributes:
        differences: in the order of the windows; empty if all is equal.
        rtol, atol: the tolerance that was used.
        windows, traces, points: their numbers in the golden file.
    """

    differences: tuple[Difference, ...]
    rtol: float
    atol: float
    windows: int
    traces: int
    points: int

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def __bool__(self) -> bool:
        return self.equal
