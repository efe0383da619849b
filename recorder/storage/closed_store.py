"""Read the closed layout: a dataset for every part of a key, or a row of a table.

In memory it keeps only the code of each event.
"""

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Array
from flexrec.recorder.hdf5.chunks import Task, share_out
from flexrec.recorder.hdf5.dataset import UntrustedDataset
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints, end_to_end
from flexrec.recorder.storage.store import (
    BYTES,
    FLOATS,
    INTS,
    Chunk,
    Codes,
    Finder,
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
_HELD, _TABLE_CHUNK = 16, 1 << 20  # most chunks of tables that are kept; most bytes of one
_PARSED = 16  # approximate bytes of memory for a byte of a table's keys
_Rows = tuple[Ints, slice, int]  # positions of events, the column's rows for them, its row count


class _Place(NamedTuple):
    """Where a column's numbers are, if they are in a table.

    Attributes:
        path: the table's group.
        row: the column's row in it.
        keys: the number of its rows.
    """

    path: str
    row: int
    keys: int


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
        self._tabled: dict[str, dict[int, _Place]] = {}
        self._held: dict[tuple[str, int], Array] = {}
        self._shares: dict[str, int] = {}

    def stored_bytes(self, column: int) -> int:
        """The compressed size of the column's values, in bytes; its share if in a table."""
        definition, total = self.schema.columns[column], 0
        place = self._place(column)
        if place is not None:
            return self._share(place, self.row_count(column))
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
        places = self._place(column), other._place(its)
        paths = self._path(column), other._path(its)
        steps = self.within(column), other.within(its)
        known = self._alike.get((other, *steps))
        if known is None:
            known = self._alike_parts(other, paths, fmt.STEP, INTS)
            self._alike[other, *steps] = known
        if places[0] and places[1]:
            rows = self.row_count(column), other.row_count(its)
            mine, theirs = self._table(places[0], rows[0]), other._table(places[1], rows[1])
            return known if _alike_rows(mine, places[0].row, theirs, places[1].row) else 0
        if places[0] or places[1]:
            return 0
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
        """The group of the column's steps and times: its own, or a table."""
        place = self._place(column)
        if place is not None:
            return place.path
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
        finder = self._finder(self.codes(first, last))
        before = cache(lambda: self._finder(self.codes(0, first)))
        for column in columns:
            within, path = self.within(column), self._path(column)
            if within not in shared:
                where, rows, total = found = self._rows(column, finder, first, before)
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

    def _rows(self, column: int, finder: Finder, first: int, before: Callable[[], Finder]) -> _Rows:
        """Find the column's events from `first` on, its rows for them, and its number of rows.

        A scan continues from its last position, so that each event is counted once.
        """
        codes, where = finder.codes, self._rows_in(finder, column)
        where += first
        if len(codes) == self.count:
            return where, slice(0, len(where)), len(where)
        known = self._root, self.within(column)
        event, row = self._reached.get(known, (0, 0))
        if event != first:
            row = len(self._rows_in(before(), column))
        end = row + len(where)
        self._reached[known] = first + len(codes), end
        return where, slice(row, end), self.row_count(column)

    def _parts(self, column: int, path: str, rows: slice, total: int, room: "_Room") -> list[Part]:
        place = self._place(column)
        if place is not None:
            return [self._numbers(place, rows, total, room)]
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

    # ------------------------------------------------------------------ tables

    def _place(self, column: int) -> _Place | None:
        if self._root not in self._tabled:
            self._tabled[self._root] = self._places_in_tables()
        return self._tabled[self._root].get(column)

    def _places_in_tables(self) -> dict[int, _Place]:
        """The places of the columns that are in tables."""
        name, columns = fmt.TABLES[self._root], self.schema.columns
        count = self.file.attribute(name) or 0
        if not isinstance(count, int) or not 0 <= count <= len(columns):
            raise self.file.damaged(f"it claims {count!r:.40} {name}")
        numbers = {each.key: i for i, each in enumerate(columns) if each.is_number and count}
        places = dict[int, _Place]()
        for path in (fmt.table_path(number, self._root) for number in range(count)):
            keys = self._keys_of(path)
            for row, key in enumerate(keys):
                column = numbers.get(key, -1)
                if column < 0 or column in places:
                    raise self.file.damaged(f"{path} has a key that no number has, or one twice")
                places[column] = _Place(path, row, len(keys))
        return places

    def _keys_of(self, path: str) -> list[str]:
        """The keys of a table."""
        text = self.file.dataset(f"{path}/{fmt.KEYS}", BYTES)
        self.file.allow(len(text) * _PARSED, f"{path}/{fmt.KEYS}")
        try:
            keys = json.loads(text[:].tobytes())
        except (ValueError, RecursionError):
            keys = None
        if not isinstance(keys, list) or not keys or not all(type(key) is str for key in keys):
            raise self.file.damaged(f"{path}/{fmt.KEYS} is no list of keys")
        return keys

    def _table(self, place: _Place, rows: int) -> UntrustedDataset:
        """The numbers of a table: (keys, rows)."""
        path = f"{place.path}/{fmt.BARE}"
        found = self._column(path, _NUMBERS, None, rows)
        size = found.chunk_rows * rows * found.dtype.itemsize
        if len(found) != place.keys or size > _TABLE_CHUNK:
            raise self.file.damaged(
                f"{path} has {len(found)} rows for {place.keys} keys, in chunks of {size:,} bytes"
            )
        return found

    def _numbers(self, place: _Place, rows: slice, total: int, room: "_Room") -> Part:
        """Some numbers of a row of a table."""
        data, numbers = self._table(place, total), room.take(rows.stop - rows.start)
        each = max(data.chunk_rows, 1)
        if each == 1 and len(numbers) == total:
            data.fill(place.row, numbers.reshape(1, -1), room.tasks)
            return numbers
        chunk, row = divmod(place.row, each)
        held = self._held.get((place.path, chunk))
        if held is None:
            if len(self._held) == _HELD:
                self._held.clear()
            held = data[chunk * each : (chunk + 1) * each]
            self._held[place.path, chunk] = held
        numbers[:] = held[row, rows]
        return numbers

    def _share(self, place: _Place, rows: int) -> int:
        """The share of a row in the compressed size of its table, in bytes."""
        if place.path not in self._shares:
            stored = self._table(place, rows).stored_bytes
            self._shares[place.path] = -(-stored // place.keys)
        return self._shares[place.path]

    # ------------------------------------------------------------------ datasets

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


def _alike_rows(a: UntrustedDataset, row: int, b: UntrustedDataset, its: int) -> bool:
    """Whether two rows are at the same place of chunks that are stored in the same bytes."""
    each = a.chunk_rows
    is_there = each and each == b.chunk_rows and row % each == its % each
    return bool(is_there) and a.same_chunk(row // each, b, its // each)


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
