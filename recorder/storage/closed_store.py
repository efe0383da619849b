"""Read the closed layout: a dataset for every part of every key.

In memory it keeps only the code of each event.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.hdf5.chunks import Task, share_out
from flexrec.recorder.hdf5.dataset import UntrustedDataset
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints, end_to_end
from flexrec.recorder.storage.store import (
    FLOATS,
    INTS,
    Chunk,
    Codes,
    Part,
    Store,
    What,
    block_ends,
    times_resumed,
)

_CODES = tuple(map(np.dtype, ("i1", "<i2", "<i4", "<i8")))
_NUMBERS = tuple(map(np.dtype, ("<f4", "<f8")))
_PIECE = 1 << 17  # events whose slots are counted at a time
_OPEN = 1024  # most datasets that stay open
_TIMES = 2  # datasets that most columns share: step and time
_ROOM = 4 << 20  # numbers
_AT_ONCE = 32 << 20  # approximate bytes of columns that are read at once
_Rows = tuple[Ints, slice, int]  # positions of events, the column's rows for them, its row count


class ClosedStore(Store):
    """A store of the closed layout: codes and marks, and one dataset per part of a column."""

    def __init__(self, file: UntrustedFile) -> None:
        self.file = file
        self.schema = self._decoded(self.text(fmt.SCHEMA))
        self._measure()
        self._codes = self._read_codes()
        self.count = len(self._codes)
        self._mark_positions = np.flatnonzero(self._codes < 0)
        self._marks = file.dataset(fmt.MARKS, (fmt.MARK,))[:]
        if not np.array_equal(self._marks["code"], self._codes[self._mark_positions]):
            raise self.file.damaged("the table of marks does not fit the events")
        self.mark_count = len(self._marks)
        self.orderly = bool((self._marks["code"] >= fmt.RESET).all())
        resumes = np.flatnonzero(self._marks["code"] == fmt.RESUME)
        where, firsts = self._mark_positions[resumes], self._marks["x"][resumes]
        self.resumes = times_resumed(where)
        self._supersede(zip(where.tolist(), firsts.tolist(), strict=True))
        self._ends: array[int] | None = None
        self._datasets: dict[str, UntrustedDataset] = {}
        self._forms_before = fmt.first_forms(self.schema.columns)
        self._offsets: dict[tuple[str, int, int], Ints] = {}
        self._alike: dict[tuple[ClosedStore, frozenset[int], frozenset[int]], int] = {}
        self._reached: dict[tuple[str, frozenset[int]], tuple[int, int]] = {}  # event, row

    def stored_bytes(self, column: int) -> int:
        """The compressed size of the column's values in the file, in bytes."""
        definition, total = self.schema.columns[column], 0
        for i, form in enumerate(definition.forms):
            if self.linked(column, i):
                continue
            part = f"{self._path(column)}/{fmt.part_name(definition, i)}"
            if form.kind == fmt.NUMBER:
                total += self._column(part, _NUMBERS, None).stored_bytes
                continue
            total += self._column(f"{part}/{fmt.SHAPE}", INTS, None, form.ndim).stored_bytes
            total += self._column(f"{part}/{fmt.DATA}", (form.dtype,), None).stored_bytes
        return total

    def alike(self, column: int, other: Store, its: int) -> int:
        """As Store.alike; compares the compressed chunks."""
        definitions = self.schema.columns[column], other.schema.columns[its]
        if not isinstance(other, ClosedStore) or not all(d.is_number for d in definitions):
            return 0
        paths = self._path(column), other._path(its)
        steps = self.within(column), other.within(its)
        known = self._alike.get((other, *steps))
        if known is None:
            known = self._alike_parts(other, paths, fmt.STEP, INTS)
            self._alike[other, *steps] = known
        part = fmt.part_name(definitions[0], 0)
        return min(known, self._alike_parts(other, paths, part, _NUMBERS)) if known else 0

    def _alike_parts(
        self,
        other: "ClosedStore",
        paths: tuple[str, str],
        name: str,
        dtypes: Sequence[np.dtype[Any]],
    ) -> int:
        mine = self._column(f"{paths[0]}/{name}", dtypes, None)
        return mine.alike(other._column(f"{paths[1]}/{name}", dtypes, None))

    def marks(self, first: int, last: int) -> tuple[Ints, NDArray[Any]]:
        """The positions and rows of the marks among events `first` to `last`."""
        within = slice(*np.searchsorted(self._mark_positions, (first, last)))
        where = self._mark_positions[within]
        shown = self.codes(first, last)[where - first] != fmt.SUPERSEDED
        return where[shown], self._marks[within][shown]

    def chunks(
        self, columns: Sequence[int], first: int, last: int, what: What = "all"
    ) -> list[Chunk]:
        """The rows of each column for the events of a block."""
        return list(self._columns(columns, first, last, what))

    def everything(self, columns: Sequence[int], what: What = "all") -> Iterator[Chunk]:
        """All rows of the columns, one chunk per column."""
        return self._columns(columns, 0, self.count, what)

    # ------------------------------------------------------------------ inside

    def _read_codes(self) -> Codes:
        codes = self.file.dataset(fmt.EVENTS, _CODES)
        self.file.allow(len(codes) * INTS[0].itemsize, "the list of events")
        found = codes[:]
        if len(found) and not (
            found.min() >= fmt.DROPPED and found.max() < len(self.schema.signatures)
        ):
            raise self.file.damaged("an event refers to a signature that is not there")
        return found

    def _codes_between(self, first: int, last: int) -> Codes:
        return self._codes[first:last]

    def _block_ends(self) -> Sequence[int]:
        if self._ends is None:
            found, slot = array("q"), 0
            for first in range(0, self.count, _PIECE):
                ends = np.cumsum(self.sizes(self._codes[first : first + _PIECE])) + slot
                found.extend(block_ends(ends, first, slot))
                slot = int(ends[-1])
            self._ends = found
        return self._ends

    def _path(self, column: int) -> str:
        definition, forms_before = self.schema.columns[column], self._forms_before[column]
        return fmt.series_path(definition, forms_before, self._root)

    def _columns(
        self, columns: Sequence[int], first: int, last: int, what: What
    ) -> Iterator[Chunk]:
        """Iterate over columns, reading several at once on several threads."""
        room, waiting, held = _Room(len(columns) + _TIMES), list[Chunk](), 0
        for chunk in self._unread(columns, first, last, what, room):
            waiting.append(chunk)
            held += chunk.nbytes
            if held > _AT_ONCE:
                yield from self._read(waiting, room)
                waiting, held = [], 0
        yield from self._read(waiting, room)

    def _read(self, chunks: list[Chunk], room: "_Room") -> list[Chunk]:
        tasks, room.tasks = room.tasks, []
        if tasks:
            share_out(tasks)
        return chunks

    def _unread(
        self, columns: Sequence[int], first: int, last: int, what: What, room: "_Room"
    ) -> Iterator[Chunk]:
        """Chunks that are not filled yet; the tasks of `room` fill them."""
        shared: dict[frozenset[int], tuple[_Rows, Ints, NDArray[np.float64]]] = {}
        codes = self.codes(first, last)
        for column in columns:
            within, path = self.within(column), self._path(column)
            if within not in shared:
                where, rows, total = found = self._rows(column, codes, first)
                if not total and self._root != fmt.SERIES:
                    continue  # it has no group there
                when = range(0) if what == "values" else range(rows.start, rows.stop)
                step, time = room.take(len(when)).view(INTS[0]), room.take(len(when))
                for name, kind, into in ((fmt.STEP, INTS, step), (fmt.TIME, FLOATS, time)):
                    self._column(f"{path}/{name}", kind, total).fill(when.start, into, room.tasks)
                shared[within] = found, step, time
            (where, rows, total), step, time = shared[within]
            parts = self._parts(column, path, rows, total, room) if what != "times" else []
            yield Chunk(column, where, step, time, parts)

    def _rows(self, column: int, codes: Codes, first: int) -> _Rows:
        """Find the column's events among `codes`, its rows for them, and its number of rows.

        A scan continues from its last position, so that each event is counted once.
        """
        where = self._rows_in(codes, column)
        where += first
        if len(codes) == self.count:
            return where, slice(0, len(where)), len(where)
        known = self._root, self.within(column)
        event, row = self._reached.get(known, (0, 0))
        if event != first:
            row = len(self._rows_in(self.codes(0, first), column))
        end = row + len(where)
        self._reached[known] = first + len(codes), end
        return where, slice(row, end), self.row_counts()[column]

    def _parts(self, column: int, path: str, rows: slice, total: int, room: "_Room") -> list[Part]:
        parts: list[Part] = []
        definition = self.schema.columns[column]
        for i, form in enumerate(definition.forms):
            part = f"{path}/{fmt.part_name(definition, i)}"
            if form.kind == fmt.NUMBER:
                numbers = room.take(rows.stop - rows.start)
                self._column(part, _NUMBERS, total).fill(rows.start, numbers, room.tasks)
                parts.append(numbers)
                continue
            shapes = self._column(f"{part}/{fmt.SHAPE}", INTS, total, form.ndim)
            data = self._column(f"{part}/{fmt.DATA}", (form.dtype,), None)
            known = (self._root, column, i)
            if known not in self._offsets:
                try:
                    self._offsets[known] = end_to_end(shapes[:], form, len(data))
                except ValueError as error:
                    raise self.file.damaged(str(error)) from error
            parts.append(ArrayColumn(data, form, self._offsets[known][rows], shapes[rows]))
        return parts

    def _column(
        self, path: str, dtypes: Sequence[np.dtype[Any]], rows: int | None, width: int | None = None
    ) -> UntrustedDataset:
        """A dataset of a column; checks that it has the number of rows that the events require."""
        found = self._datasets.get(path)
        if found is None:
            if len(self._datasets) == _OPEN:
                self._datasets.clear()
            found = self._datasets[path] = self.file.dataset(path, dtypes, width)
        if rows is not None and len(found) != rows:
            raise self.file.damaged(f"{path} has {len(found)} rows where the events say {rows}")
        return found


class _Room:
    """Memory for columns that are read together; few large allocations are faster than many.

    Attributes:
        tasks: the read tasks that fill it.
    """

    def __init__(self, columns: int) -> None:
        self.tasks = list[Task]()
        self._columns, self._left = columns, np.empty(0)

    def take(self, count: int) -> NDArray[np.float64]:
        """Allocate memory for `count` numbers."""
        if count > len(self._left):
            self._left = np.empty(max(count, min(count * self._columns, _ROOM)))
        self._columns -= 1
        taken, self._left = self._left[:count], self._left[count:]
        return taken
