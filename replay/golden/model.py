"""What a comparison found, as plain data. Nothing is compared or told here."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("missing", "extra", "renamed", "reordered", "type", "layout", "values", "left out")
"""What a difference can be, of a window, a trace, a point or a field; or of a value left out."""

ABSENT = "(absent)"
"""What stands for a value where there is none."""

RTOL = 1e-9
"""The tolerance unless told otherwise: what another processor or numpy may change, and no more."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place where two traces differ; None as a value is a gap (NaN)."""

    index: tuple[int, ...]
    x: Any
    golden: Any
    obtained: Any


@dataclass(frozen=True)
class Points:
    """The places of one difference, made when they are asked for: there may be millions."""

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
        """The k-th of them."""
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
    """One thing that is not as it should be.

    Attributes:
        kind: one of `KINDS`.
        window: visdom's window id, as the golden has it; "" for what is of no one window.
        trace: the trace's name, or None where the window itself is meant.
        field: "y", "title", "layout.yaxis.type", …; "" where the whole is meant.
        message: one line that says it, without window, trace and field.
        golden, obtained: both values, at the first place that differs; `ABSENT` for none.
        index: that place: (i,) in a line, (row, column) in a matrix.
        x: that place's x, where the trace has one.
        max_abs, max_rel: the largest errors; None where there is no pair of numbers.
        count, total: how many points differ, and of how many.
        points: all of them.
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
        differences: in the order of the windows; empty where all is equal.
        rtol, atol: the tolerance that was used.
        windows, traces, points: how many the golden has.
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
