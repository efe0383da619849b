"""What the two layouts, live and closed, have in common for who reads them: events and columns.

A store knows events by their position in the recorded order, and columns by their number in the
schema. It goes through them block by block, and holds nothing for each event. What users see is in
recording.py; the layouts themselves are in live_store.py and closed_store.py.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Value
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints

Codes = NDArray[Any]  # of an integer dtype
Part = NDArray[np.float64] | ArrayColumn
What = Literal["all", "times", "values"]  # of rows: steps and times, or the parts

BLOCK_EVENTS, BLOCK_SLOTS = 1 << 17, 1 << 20  # of a block, at most: 4 MiB and 8 MiB
BYTES, INTS, FLOATS = (np.dtype("u1"),), (np.dtype("<i8"),), (np.dtype("<f8"),)
_PARSED = 16  # bytes that a byte of JSON takes when it is read, about


@dataclass
class Chunk:
    """Consecutive rows of one column: where and when they were added, and their parts.

    Columns that were added together may share where and when. What was not asked for is empty.
    """

    column: int
    positions: Ints
    step: Ints
    time: NDArray[np.float64]
    parts: list[Part]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def nbytes(self) -> int:
        """What its rows take when they are read: where and when, and their parts."""
        return 24 * len(self) + sum(part.nbytes for part in self.parts)

    def values(self, bare: bool) -> Iterator[Value]:
        """The rows as values, one by one."""
        parts: list[Any] = [p.tolist() if isinstance(p, np.ndarray) else p for p in self.parts]
        return iter(parts[0]) if bare else zip(*parts, strict=True)


class Store(ABC):
    """A recording's events in order, and its columns; without what resumes took back.

    Attributes:
        count: how many events there are, of every code.
        cut: how many events at the end of a live file are not whole, and left out.
        is_torn: whether those were never on the disk: a loss of power tore them.
        last_step: of a live file, the step of the last event; None where there is none.
        mark_count: how many marks there are.
        resumes: how often the run was resumed.
        orderly: whether no event was superseded or dropped.
    """

    file: UntrustedFile
    schema: fmt.Schema
    count: int
    mark_count: int
    resumes: int
    orderly: bool
    last_step: int | None = None
    cut = 0
    is_torn = False
    _root = fmt.SERIES
    _superseded: Sequence[tuple[int, int]] = ()
    _hidden: Sequence[tuple[int, int]] = ()  # ranges of events that this view does not show
    _tally: Ints | None = None

    # ------------------------------------------------------------------ events

    def blocks(self, first: int = 0) -> Iterator[tuple[int, int]]:
        """Go through the events from `first` on: where each block begins and ends."""
        ends = self._block_ends()
        for last in ends[bisect_right(ends, first) :]:
            yield first, last
            first = last

    def codes(self, first: int, last: int) -> Codes:
        """The signature of each add, a negative code for a mark, SUPERSEDED where not shown."""
        codes = self._codes_between(first, last)
        return self._shown(codes, first) if self._hidden else codes

    def sizes(self, codes: Codes) -> Ints:
        """How many slots each event takes, by its code."""
        found: Ints = self._sizes[np.maximum(codes, -1)]
        return found

    def effective(self) -> Ints:
        """The positions of the adds, logs and resets that are shown."""
        found = [np.empty(0, np.int64)]
        for first, last in self.blocks():
            found.append(np.flatnonzero(self.codes(first, last) >= fmt.RESET) + first)
        return np.concatenate(found)

    def effective_count(self) -> int:
        """How many adds, logs and resets are shown."""
        blocks = self.blocks()
        return sum(int((self.codes(*block) >= fmt.RESET).sum()) for block in blocks)

    # ------------------------------------------------------------------ views

    def recorded(self) -> Self:
        """A view of everything, what was superseded too; it has no columns."""
        return self._view(())

    def superseded(self) -> Self:
        """A view of what was superseded, and of nothing else."""
        edges = [0, *(edge for pair in self._superseded for edge in pair), self.count]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        view = self._view([(start, stop) for start, stop in pairs if start < stop])
        view._root = fmt.SUPERSEDED_SERIES
        return view

    def views(self) -> list[Self]:
        """This one, and one of what was superseded if there is such."""
        return [self, self.superseded()] if self._superseded else [self]

    def _view(self, hidden: Sequence[tuple[int, int]]) -> Self:
        view = copy(self)
        view._hidden, view._tally = hidden, None
        return view

    def _shown(self, codes: Codes, first: int) -> Codes:
        codes = codes.copy()
        for start, stop in self._hidden:
            codes[max(start - first, 0) : max(stop - first, 0)] = fmt.SUPERSEDED
        return codes

    def _supersede(self, resumes: Iterable[tuple[int, float]]) -> None:
        """Hide what resumes took back; a resume that is taken back is void.

        Args:
            resumes: of each its position, and the first position that it supersedes.
        """
        try:
            self._superseded = self._hidden = taken_back(list(resumes), self.count)
        except ValueError as error:
            raise self.file.damaged(str(error)) from error

    # ------------------------------------------------------------------ columns

    def tally(self) -> Ints:
        """(signatures,) How many adds of each are shown."""
        if self._tally is None:
            self._tally = self._counted(0)  # only once nothing went wrong
        return self._tally

    def _counted(self, first: int) -> Ints:
        count = len(self.schema.signatures)
        tally = np.zeros(count, np.int64)
        for block in self.blocks(first):
            codes = self.codes(*block)
            tally += np.bincount(codes[codes >= 0], minlength=count)
        return tally

    def row_counts(self, first: int = 0) -> list[int]:
        """How many rows each column has, from the event at position `first` on."""
        tally = (self._counted(first) if first else self.tally()).tolist()
        return [sum(tally[s] for s, _ in places) for places in self._places]

    def columns_held(self) -> list[int]:
        """The columns that have rows."""
        held = np.flatnonzero(self.tally()).tolist()
        return sorted({column for code in held for column in self.schema.signatures[code]})

    def within(self, column: int) -> frozenset[int]:
        """The signatures that have the column."""
        return frozenset(s for s, _ in self._places[column])

    def linked(self, column: int, part: int) -> tuple[int, int] | None:
        """The part of another column that is this one in every row."""
        owner = self.schema.owner(column, part)
        is_another = owner[0] != column and self.within(owner[0]) == self.within(column)
        return owner if is_another else None

    def slot_offsets(self, column: int) -> Ints:
        """For each signature, which of its slots the column's begin at; -1 where it has none.

        One more -1 stands at the end, for marks.
        """
        offsets = np.full(len(self.schema.signatures) + 1, -1, np.int64)
        for s, offset in self._places[column]:
            offsets[s] = offset
        return offsets

    def _rows_in(self, codes: Codes, column: int) -> Ints:
        """Which of the events, by their codes, hold the column."""
        places = self._places[column]
        if len(places) == 1:
            return np.flatnonzero(codes == places[0][0])
        return np.flatnonzero((self.slot_offsets(column) >= 0)[np.maximum(codes, -1)])

    def _decoded(self, text: bytes) -> fmt.Schema:
        """The schema that a text of the file says."""
        try:
            return fmt.Schema.decode(text)
        except ValueError as error:
            raise self.file.damaged(str(error)) from error

    def _measure(self) -> None:
        """Take in how much room the schema gives to signatures."""
        self._places, sizes = self.schema.places()
        self._sizes = np.array([*sizes, fmt.MARK_SLOTS], np.int64)  # a mark's code indexes the last

    # ------------------------------------------------------------------ contents

    @property
    def created(self) -> float:
        """When the recording began, in seconds since 1970; 0 where it does not say."""
        found = self.file.attribute(fmt.ATTR_CREATED)
        return float(found) if isinstance(found, int | float) else 0.0

    def text(self, name: str) -> bytes:
        """A text: the config, which may have changed since the file was made, or the facts."""
        if name == fmt.CONFIG and self.schema.config is not None:
            return self.schema.config.encode()
        found = self.file.dataset(name, BYTES)
        self.file.allow(len(found) * _PARSED, name)
        return found[:].tobytes()

    def scan(self, columns: Sequence[int], what: What = "all") -> Iterator[list[Chunk]]:
        """Go through the events block by block; give each block's rows of each column."""
        for first, last in self.blocks():
            yield self.chunks(columns, first, last, what)

    def everything(self, columns: Sequence[int], what: What = "all") -> Iterator[Chunk]:
        """All rows of the columns; those of each are in order."""
        for chunks in self.scan(columns, what) if columns else ():
            yield from chunks

    def alike(self, column: int, other: "Store", its: int) -> int:
        """How many rows at the start of a column of numbers are stored in the same bytes as those
        of another store's column, their steps too; 0 where that cannot be told."""
        del column, other, its
        return 0

    def damaged_from(self, *, is_strict: bool = True) -> int | None:
        """The position of the first event that is not as it was written, or whose values are not,
        or of one that was written with it. None where all are, or where what HDF5 and zlib check as
        it is read is all there is.

        Args:
            is_strict: look at arrays and texts, too; else what was seen as the file was opened.
        """
        del is_strict
        return None

    def damage(self) -> str | None:
        """In words, what `damaged_from` finds."""
        first = self.damaged_from()
        if first is None:
            return None
        return f"event {first} of {self.count}, or one written with it, is not as it was written"

    def accept_damage(self) -> None:  # noqa: B027 - others raise as they read it
        """Have arrays and texts read as they are, where they do not fit their checksums."""

    @abstractmethod
    def chunks(
        self, columns: Sequence[int], first: int, last: int, what: What = "all"
    ) -> list[Chunk]:
        """The rows that a block's events have of each column."""

    @abstractmethod
    def marks(self, first: int, last: int) -> tuple[Ints, NDArray[Any]]:
        """Where the marks stand among events `first` to `last`, and what they say."""

    @abstractmethod
    def stored_bytes(self, column: int) -> int:
        """How many bytes of the file a column's values take; steps, times and what is another
        column's are not counted."""

    @abstractmethod
    def _codes_between(self, first: int, last: int) -> Codes: ...

    @abstractmethod
    def _block_ends(self) -> Sequence[int]: ...

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def taken_back(resumes: Sequence[tuple[int, float]], count: int) -> list[tuple[int, int]]:
    """Where what resumes took back begins and ends; a resume that is taken back is void.

    Args:
        resumes: of each its position, and the first position that it supersedes.
        count: how many events there are.

    Raises:
        ValueError: they take back what is not there.
    """
    ranges, until = list[tuple[int, int]](), count
    for position, first in reversed(resumes):
        if not (0 <= first <= position and first.is_integer()):
            raise ValueError("a resume supersedes events that are not there")
        if position < until:
            until = int(first)
            if until < position:
                ranges.insert(0, (until, position))
    return ranges


def times_resumed(positions: Sequence[int] | Ints) -> int:
    """How often a run was resumed whose resumes stand at these positions; those with nothing in
    between are one, such as that of the mode and that of `load_state_dict`."""
    return int((np.diff(positions, prepend=-2) != 1).sum())


def block_ends(ends: Ints, first: int, slot: int) -> list[int]:
    """Cut events into blocks.

    Args:
        ends: (n,) how many slots come before the end of each event.
        first: the position of the first of the events.
        slot: how many slots come before it.

    Returns:
        The positions where the blocks end.
    """
    found, begin = list[int](), 0
    while begin < len(ends):
        last = int(np.searchsorted(ends, slot + BLOCK_SLOTS, "right"))
        begin = min(max(last, begin + 1), begin + BLOCK_EVENTS)
        slot = int(ends[begin - 1])
        found.append(first + begin)
    return found
