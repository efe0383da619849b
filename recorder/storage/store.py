"""Store, the base class for reading events and columns from the live and the closed layout.

Events are identified by their position in the recorded order, columns by their number in the
schema. A store reads block by block, and keeps no data per event. The public class is in
recording.py; the two layouts are in live_store.py and closed_store.py.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Value
from flexrec.recorder.files.names import is_around
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints

Codes = NDArray[Any]  # of an integer dtype
Part = NDArray[np.float64] | ArrayColumn
What = Literal["all", "times", "values"]  # what to read of rows: steps and times, parts, or all

BLOCK_EVENTS, BLOCK_SLOTS = 1 << 17, 1 << 20  # limits of a block: 4 MiB and 8 MiB
BYTES, INTS, FLOATS = (np.dtype("u1"),), (np.dtype("<i8"),), (np.dtype("<f8"),)
_FEW = 64  # columns that are looked for without sorting
_PARSED = 16  # approximate bytes of memory for a byte of parsed JSON


@dataclass
class Chunk:
    """Consecutive rows of one column: positions, steps, times, and the parts of the values.

    Columns that were added together may share positions, steps and times. Arrays that were not
    asked for are empty.
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
        """The memory that the rows take when they are read, in bytes."""
        return 24 * len(self) + sum(part.nbytes for part in self.parts)

    def values(self, bare: bool) -> Iterator[Value]:
        """Iterate over the rows as values."""
        parts: list[Any] = [p.tolist() if isinstance(p, np.ndarray) else p for p in self.parts]
        return iter(parts[0]) if bare else zip(*parts, strict=True)


class Table(NamedTuple):
    """Consecutive rows of columns of numbers that were only ever added together.

    Attributes:
        positions, step, time: (n,) those of the rows.
        values: (columns, n) their numbers.
    """

    positions: Ints
    step: Ints
    time: NDArray[np.float64]
    values: NDArray[np.float64]


class Finder:
    """Finds the events of signatures: of a few by looking at all events, of many by sorting once.

    Looking at all events for each of many signatures would take time by their product.

    Args:
        codes: those of the events.
        count: the number of signatures that there are.
    """

    def __init__(self, codes: Codes, count: int) -> None:
        self.codes = codes
        self._count = count
        self._asked = 0
        self._sorted: tuple[Ints, Ints] | None = None

    def rows(self, signatures: Sequence[int]) -> Ints:
        """The indices, rising, of the events that have one of these signatures; a new array."""
        self._asked += 1
        if self._asked <= _FEW and len(signatures) == 1:
            return np.flatnonzero(self.codes == signatures[0])
        if self._asked <= _FEW:
            return np.flatnonzero(np.isin(self.codes, signatures))
        if self._sorted is None:
            tally = np.bincount(self.codes[self.codes >= 0], minlength=self._count)
            order = np.argsort(self.codes, kind="stable")
            self._sorted = order[len(order) - tally.sum() :], np.cumsum([0, *tally])
        order, ends = self._sorted
        found = [order[ends[s] : ends[s + 1]] for s in signatures]
        return np.sort(np.concatenate([order[:0], *found]))


class Store(ABC):
    """A recording's events in order, and its columns, without superseded events.

    Attributes:
        count: the number of events of every code.
        cut: the number of events at the end of a live file that are not whole and left out.
        is_torn: whether those never reached the disk, torn by a loss of power.
        last_step: the step of a live file's last event of the training; None if there is none.
        mark_count: the number of marks.
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
        """Iterate over the blocks from event `first` on: the first position and the end of each."""
        ends = self._block_ends()
        for last in ends[bisect_right(ends, first) :]:
            yield first, last
            first = last

    def codes(self, first: int, last: int) -> Codes:
        """The signature of each add, a negative code for a mark, SUPERSEDED where not shown."""
        codes = self._codes_between(first, last)
        return shown(codes, first, self._hidden) if self._hidden else codes

    def sizes(self, codes: Codes) -> Ints:
        """The number of slots of each event, given by its code."""
        found: Ints = self._sizes[np.maximum(codes, -1)]
        return found

    def effective(self) -> Ints:
        """The positions of the adds, logs and resets that are shown."""
        found = [np.empty(0, np.int64)]
        for first, last in self.blocks():
            found.append(np.flatnonzero(self.codes(first, last) >= fmt.RESET) + first)
        return np.concatenate(found)

    def effective_count(self) -> int:
        """The number of adds, logs and resets that are shown."""
        blocks = self.blocks()
        return sum(int((self.codes(*block) >= fmt.RESET).sum()) for block in blocks)

    # ------------------------------------------------------------------ views

    def recorded(self) -> Self:
        """A view of all events, including superseded ones; it has no columns."""
        return self.hiding(())

    def superseded(self) -> Self:
        """A view of the superseded events only."""
        edges = [0, *(edge for pair in self._superseded for edge in pair), self.count]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        view = self.hiding([(start, stop) for start, stop in pairs if start < stop])
        view._root = fmt.SUPERSEDED_SERIES
        return view

    def views(self) -> list[Self]:
        """This view, and one of the superseded events if there are any."""
        return [self, self.superseded()] if self._superseded else [self]

    def hiding(self, hidden: Sequence[tuple[int, int]]) -> Self:
        """A view without the events in some ranges of positions, but with superseded ones."""
        view = copy(self)
        view._hidden, view._tally = hidden, None
        return view

    def _supersede(self, resumes: Iterable[tuple[int, float]]) -> None:
        """Hide the events that resumes superseded; a superseded resume has no effect.

        Args:
            resumes: for each resume its position, and the first position that it supersedes.
        """
        try:
            self._superseded = self._hidden = taken_back(list(resumes), self.count)
        except ValueError as error:
            raise self.file.damaged(str(error)) from error

    # ------------------------------------------------------------------ columns

    def tally(self) -> Ints:
        """(signatures,) The number of shown adds of each signature."""
        if self._tally is None:
            self._tally = self._counted(0)  # set only if that raised no error
        return self._tally

    def _counted(self, first: int) -> Ints:
        count = len(self.schema.signatures)
        tally = np.zeros(count, np.int64)
        for block in self.blocks(first):
            codes = self.codes(*block)
            tally += np.bincount(codes[codes >= 0], minlength=count)
        return tally

    def row_counts(self, first: int = 0) -> list[int]:
        """The number of rows of each column, from the event at position `first` on."""
        tally = (self._counted(first) if first else self.tally()).tolist()
        return [sum(tally[s] for s, _ in places) for places in self._places]

    def row_count(self, column: int) -> int:
        """The number of rows of a column."""
        tally = self.tally()
        return sum(int(tally[s]) for s, _ in self._places[column])

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

    def slot_offsets(self, column: int, codes: Codes) -> Ints:
        """(n,) The slot where the column begins in each of some adds, given by their codes.

        All of them must have the column.
        """
        signatures, slots = np.array(self._places[column], np.int64).reshape(-1, 2).T
        found: Ints = slots[np.searchsorted(signatures, codes)]
        return found

    def _finder(self, codes: Codes) -> Finder:
        """A finder of events, given by their codes, to be asked for every column."""
        return Finder(codes, len(self.schema.signatures))

    def _rows_in(self, finder: Finder, column: int) -> Ints:
        """The indices of the finder's events that have the column."""
        return finder.rows([s for s, _ in self._places[column]])

    def _decoded(self, text: bytes) -> fmt.Schema:
        """Parse the schema in the file."""
        try:
            return fmt.Schema.decode(text)
        except ValueError as error:
            raise self.file.damaged(str(error)) from error

    def _measure(self) -> None:
        """Compute the number of slots of each signature in the schema."""
        self._places, sizes = self.schema.places()
        self._sizes = np.array([*sizes, fmt.MARK_SLOTS], np.int64)  # a mark's code indexes the last

    # ------------------------------------------------------------------ contents

    @property
    def created(self) -> float:
        """The creation time of the recording in seconds since 1970; 0 if it has none."""
        found = self.file.attribute(fmt.ATTR_CREATED)
        return float(found) if isinstance(found, int | float) else 0.0

    def text(self, name: str) -> bytes:
        """A text of the recording, the config or the facts, as last changed."""
        if name != fmt.SCHEMA and name in self.schema.texts:
            return self.schema.texts[name].encode()
        found = self.file.dataset(name, BYTES)
        self.file.allow(len(found) * _PARSED, name)
        return found[:].tobytes()

    def scan(self, columns: Sequence[int], what: What = "all") -> Iterator[list[Chunk]]:
        """Iterate over the events block by block, yielding each block's rows of each column."""
        for first, last in self.blocks():
            yield self.chunks(columns, first, last, what)

    def everything(self, columns: Sequence[int], what: What = "all") -> Iterator[Chunk]:
        """All rows of the columns, in order for each column."""
        for chunks in self.scan(columns, what) if columns else ():
            yield from chunks

    def alike(self, column: int, other: "Store", its: int) -> int:
        """The number of leading rows stored in the same bytes as another column's, steps too.

        `its` is a column of numbers of `other`. 0 if that is unknown.
        """
        del column, other, its
        return 0

    def damaged_from(self, *, is_strict: bool = True) -> int | None:
        """The position of the first damaged event, or of an event written in the same block.

        None if there is no damage, or if the file has no checksums but those that HDF5 and zlib
        check while reading.

        Args:
            is_strict: whether to check arrays and strings too; if not, only report damage found
                when the file was opened.
        """
        del is_strict
        return None

    def damage(self) -> str | None:
        """A message for the result of `damaged_from`; None if there is no damage."""
        first = self.damaged_from()
        if first is None:
            return None
        return f"event {first} of {self.count}, or one written with it, is not as it was written"

    def accept_damage(self) -> None:  # noqa: B027 - other stores raise when reading damaged data
        """Read arrays and strings even if they do not match their checksums."""

    @abstractmethod
    def chunks(
        self, columns: Sequence[int], first: int, last: int, what: What = "all"
    ) -> list[Chunk]:
        """The rows of each column for the events of a block."""

    def tables(self, groups: Sequence[Sequence[int]], first: int, last: int) -> list[Table]:
        """The rows of groups of columns for the events of a block.

        Args:
            groups: each of columns of numbers that were only ever added together.
        """
        every = [column for group in groups for column in group]
        chunks = self.chunks(every, first, last) if every else []
        found, none = {chunk.column: chunk for chunk in chunks}, np.empty(0, np.int64)
        tables = []
        for group in groups:
            one = found.get(group[0], Chunk(group[0], none, none, np.empty(0), [np.empty(0)]))
            values = np.empty((len(group), len(one)))
            for i, column in enumerate(group if len(one) else ()):
                values[i] = np.asarray(found[column].parts[0])
            tables.append(Table(one.positions, one.step, one.time, values))
        return tables

    @abstractmethod
    def marks(self, first: int, last: int) -> tuple[Ints, NDArray[Any]]:
        """The positions and rows of the marks among events `first` to `last`."""

    @abstractmethod
    def stored_bytes(self, column: int) -> int:
        """The size of a column's values in the file in bytes, without steps, times and parts
        shared with another column."""

    @abstractmethod
    def _codes_between(self, first: int, last: int) -> Codes: ...

    @abstractmethod
    def _block_ends(self) -> Sequence[int]: ...

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def of_training(codes: Codes, keys_of: Callable[[int], Iterable[str]]) -> NDArray[np.bool_]:
    """Whether each event is of the training and not of what is around it; see `is_around`.

    Args:
        codes: the code of each event; adds have codes from 0 on, and marks are of the training.
        keys_of: returns the keys of adds with a code.
    """
    adds = np.unique(codes[codes >= 0]).tolist()
    around = [code for code in adds if all(map(is_around, keys_of(code)))]
    if not around:
        return np.ones(len(codes), bool)
    mask: NDArray[np.bool_] = ~np.isin(codes, around)
    return mask


def shown(codes: Codes, first: int, hidden: Sequence[tuple[int, int]]) -> Codes:
    """The codes of the events from position `first` on, with SUPERSEDED in the hidden ranges."""
    codes = codes.copy()
    for start, stop in hidden:
        codes[max(start - first, 0) : max(stop - first, 0)] = fmt.SUPERSEDED
    return codes


def taken_back(resumes: Sequence[tuple[int, float]], count: int) -> list[tuple[int, int]]:
    """The ranges of events superseded by resumes; a superseded resume has no effect.

    Args:
        resumes: for each resume its position, and the first position that it supersedes.
        count: the number of events.

    Raises:
        ValueError: a resume supersedes events that do not exist.
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
    """The number of resumes, given their positions; those with no event in between count once.

    For example, mode="resume" followed by `load_state_dict` records two marks of one resume.
    """
    return int((np.diff(positions, prepend=-2) != 1).sum())


def block_ends(ends: Ints, first: int, slot: int) -> list[int]:
    """Cut events into blocks.

    Args:
        ends: (n,) the number of slots up to the end of each event.
        first: the position of the first event.
        slot: the number of slots before it.

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
