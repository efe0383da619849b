"""Reading the two layouts, live and closed, through one interface: `open_store`.

A store knows events by their position in the recorded order, and columns by their number in the
schema. What users see is in reader.py.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder import format as fmt
from flexrec.recorder.errors import NotARecordingError, RecordingError, VersionError
from flexrec.recorder.events import Array, Value
from flexrec.recorder.guard import GuardedDataset, GuardedFile, contained

__all__ = ["Chunk", "Ragged", "Store", "open_store"]

Ints = NDArray[np.int64]

_BLOCK_SLOTS = 1 << 21  # values that a scan holds at a time (16 MiB)
_RUN_BYTES, _GAP_BYTES = 8 << 20, 1 << 16  # arrays are read in runs this long, over gaps this wide
_MOST = 2.0**53  # no offset, length or size is as large
_PAUSES, _FRESH = (0.005, 0.02, 0.05), 5.0  # seconds: of patience, and what may be being written
_PARSED = 16  # bytes that a byte of JSON takes when it is read, about
_BYTES = (np.dtype("u1"),)
_CODES = tuple(map(np.dtype, ("i1", "<i2", "<i4", "<i8")))
_NUMBERS = tuple(map(np.dtype, ("<f4", "<f8")))
_INTS, _FLOATS = (np.dtype("<i8"),), (np.dtype("<f8"),)


@dataclass
class Ragged:
    """Arrays of one dtype and rank, each of its own shape, read when they are iterated over."""

    source: GuardedDataset
    form: fmt.Form
    offsets: Ints  # in elements of `source`, which are bytes where it is the blobs
    shapes: Ints  # (n, ndim)

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[str | Array]:
        for piece, shape in zip(self.flat(), self.shapes.tolist(), strict=True):
            if self.form.kind == fmt.TEXT:
                yield piece.tobytes().decode("utf-8", "surrogatepass")
            else:
                yield piece.reshape(shape).copy()

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take together."""
        return int(self.shapes.prod(axis=1).sum()) * self.form.dtype.itemsize

    def flat(self) -> Iterator[Array]:
        """The arrays flattened, as views of what was read at once."""
        counts = self.shapes.prod(axis=1) * (self.form.dtype.itemsize // self._unit)
        for first, last in self._runs(counts):
            low = int(self.offsets[first])
            data = self.source[low : int(self.offsets[last - 1] + counts[last - 1])]
            for i in range(first, last):
                start = int(self.offsets[i]) - low
                yield data[start : start + int(counts[i])].view(self.form.dtype)

    @property
    def _unit(self) -> int:
        return int(self.source.dtype.itemsize)

    def _runs(self, counts: Ints) -> Iterator[tuple[int, int]]:
        """Split into runs of neighbours that are worth reading at once."""
        ends = self.offsets + counts
        gaps = (self.offsets[1:] - ends[:-1]) * self._unit
        first, n = 0, len(ends)
        for i in range(1, n + 1):
            if (
                i == n
                or not 0 <= gaps[i - 1] <= _GAP_BYTES
                or (ends[i] - self.offsets[first]) * self._unit > _RUN_BYTES
            ):
                yield first, i
                first = i


@dataclass
class Chunk:
    """Consecutive rows of one column: where and when they were added, and their parts."""

    column: int
    positions: Ints
    step: Ints
    time: NDArray[np.float64]
    parts: list[NDArray[np.float64] | Ragged]

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
    """A recording's events in order, and its columns.

    Attributes:
        recorded: (events,) the signature of each add, or a negative code for a mark.
        codes: (events,) the same, but for the events that a resume superseded.
        cut: how many events at the end of a live file are not whole, and left out.
        last_step: of a live file, the step of the last event; None where there is none.
        marks: (marks,) what the marks say, in order; `mark_positions` says where they stand.
    """

    file: GuardedFile
    schema: fmt.Schema
    recorded: Ints
    codes: Ints
    marks: NDArray[Any]
    mark_positions: Ints
    last_step: int | None = None
    cut = 0
    _root = fmt.SERIES

    def _index(self) -> None:
        """Work out where the marks stand, and how many slots come before every event."""
        self.mark_positions = np.flatnonzero(self.codes < 0)
        self._places, sizes = self.schema.places()
        slots = np.array([*sizes, fmt.MARK_SLOTS], np.int64)  # a mark's code indexes the last
        self._slots_before = np.concatenate([[0], np.cumsum(slots[np.maximum(self.codes, -1)])])

    def _supersede(self) -> None:
        """Take out of `codes` what resumes took back; a resume that is taken back is void."""
        self.recorded = self.codes
        resumes = np.flatnonzero(self.marks["code"] == fmt.RESUME)
        if not len(resumes):
            return
        self.codes, until = self.recorded.copy(), len(self.recorded)
        for i in resumes[::-1].tolist():
            position, first = int(self.mark_positions[i]), float(self.marks["x"][i])
            if not (0 <= first <= position and first.is_integer()):
                raise RecordingError("a resume supersedes events that are not there")
            if position < until:
                until = int(first)
                self.codes[until:position] = fmt.SUPERSEDED

    def superseded(self) -> Self:
        """A view of what was superseded, and of nothing else."""
        view = copy(self)
        view.codes = np.where(self.codes == fmt.SUPERSEDED, self.recorded, fmt.SUPERSEDED)
        view._root = fmt.SUPERSEDED_SERIES
        return view

    def columns_held(self) -> list[int]:
        """The columns that have rows."""
        held = {int(code) for code in np.unique(self.codes) if code >= 0}
        return sorted({column for code in held for column in self.schema.signatures[code]})

    def effective(self) -> Ints:
        """The positions of the adds, logs and resets that were not superseded."""
        return np.flatnonzero(self.codes >= fmt.RESET)

    def positions(self, column: int, first: int = 0, last: int | None = None) -> Ints:
        """Which events of `first` to `last` hold the column."""
        has = self.slot_offsets(column) >= 0
        return np.flatnonzero(has[np.maximum(self.codes[first:last], -1)]) + first

    def row_counts(self) -> list[int]:
        """How many rows each column has."""
        adds = np.bincount(self.codes[self.codes >= 0], minlength=len(self.schema.signatures))
        return [int(sum(adds[s] for s, _ in places)) for places in self._places]

    def within(self, column: int) -> frozenset[int]:
        """The signatures that have the column."""
        return frozenset(s for s, _ in self._places[column])

    @property
    def created(self) -> float:
        """When the recording began, in seconds since 1970; 0 where it does not say."""
        found = self.file.attribute(fmt.ATTR_CREATED)
        return float(found) if isinstance(found, int | float) else 0.0

    def text(self, name: str) -> bytes:
        """A dataset of bytes: the config or the facts."""
        found = self.file.dataset(name, _BYTES)
        self.file.allow(len(found) * _PARSED, name)
        return found[:].tobytes()

    def slot_offsets(self, column: int) -> Ints:
        """For each signature, which of its slots the column's begin at; -1 where it has none.

        One more -1 stands at the end, for marks.
        """
        offsets = np.full(len(self.schema.signatures) + 1, -1, np.int64)
        for s, offset in self._places[column]:
            offsets[s] = offset
        return offsets

    def slots_before(self, first: int, last: int) -> Ints:
        """How many slots come before each of the events `first` to `last`, and after them."""
        return self._slots_before[first : last + 1]

    def scan(self, columns: Sequence[int], first: int = 0) -> Iterator[list[Chunk]]:
        """Go through the events block by block; give each block's rows of each column."""
        while first < len(self.codes):
            last = self.block_end(first)
            yield self._chunks(columns, first, last)
            first = last

    def block_end(self, first: int) -> int:
        """Where the block of a scan ends that begins at event `first`."""
        room = self._slots_before[first] + _BLOCK_SLOTS
        last = int(np.searchsorted(self._slots_before, room, "right")) - 1
        return min(max(last, first + 1), len(self.codes))

    @abstractmethod
    def stored_bytes(self, column: int) -> int:
        """How many bytes of the file a column's values take; steps and times are not counted."""

    @abstractmethod
    def _chunks(self, columns: Sequence[int], first: int, last: int) -> list[Chunk]: ...

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class LiveStore(Store):
    """The live layout: what a running, killed or cleanly stopped writer left."""

    def __init__(self, file: GuardedFile) -> None:
        self.file = file
        self._events = file.dataset(fmt.EVENTS, (fmt.EVENT,))
        self._schema_text = file.dataset(fmt.SCHEMA, _BYTES)
        self._values = file.dataset(fmt.VALUES, _FLOATS)
        self._blobs = file.dataset(fmt.BLOBS, _BYTES)
        file.refresh()  # a writer may have added to it meanwhile
        self.schema, self._schema_bytes = fmt.Schema(), 0
        self._load(0, 0)
        self._supersede()
        left = self.effective()
        self.last_step = int(self._steps[left[-1]]) if len(left) else None

    def tail(self) -> "LiveStore":
        """What was appended since this was read, as a store of its own; resumes have no effect."""
        for dataset in (self._events, self._schema_text, self._blobs, self._values):
            dataset.refresh()
        new = copy(self)
        new._load(self._first + len(self.codes), self._slot + int(self._slots_before[-1]))
        new.recorded = new.codes
        return new

    def stored_bytes(self, column: int) -> int:
        """As they lie there: uncompressed."""
        definition = self.schema.columns[column]
        total = 8 * definition.slots * len(self.positions(column))
        for (chunk,) in self.scan([column]) if definition.has_arrays else ():
            for form, part in zip(definition.forms, chunk.parts, strict=True):
                if isinstance(part, Ragged):
                    total += int(part.shapes.prod(axis=1).sum()) * form.dtype.itemsize
        return total

    def has_resumes(self) -> bool:
        """Whether a resume is among the events."""
        return bool((self.codes == fmt.RESUME).any())

    def _load(self, first: int, slot: int) -> None:
        """Read the events from `first` on, the first of them having its values at `slot`."""
        self._first, self._slot = first, slot
        # First the events: what these rows point at is in the file already.
        events = self._events[first : self._events.stored()]
        missing = max(len(self._events) - first, 0) - len(events)
        if len(self._schema_text) > self._schema_bytes:
            text = self._schema_text[: self._schema_text.stored()].tobytes()
            self.schema, self._schema_bytes = fmt.Schema.decode(text), len(text)
        signatures = len(self.schema.signatures)
        known = (events["code"] < signatures) & (events["code"] >= fmt.DROPPED)
        self._take(events[: _leading(known)])
        ends = self._slots_before + slot
        whole = _leading((self._starts == ends[:-1]) & (ends[1:] <= self._values.stored()))
        if whole < len(self.codes):
            self._take(events[:whole])
        whole = self._reachable()
        if whole < len(self.codes):
            self._take(events[:whole])
        self.cut = len(events) + missing - whole
        self.marks = self._read_marks()

    def _reachable(self) -> int:
        """How many events at the start have their arrays and texts in the file."""
        ragged = [i for i, column in enumerate(self.schema.columns) if column.has_arrays]
        stored, first, total = self._blobs.stored(), 0, 0.0
        while ragged and first < len(self.codes):
            last = self.block_end(first)
            values, low = self._block(first, last)
            ends = []
            for column in ragged:
                rows, slots = self._slots(column, first, last, low)
                for form in self.schema.columns[column].forms:
                    if form.kind != fmt.NUMBER:
                        sizes = _gather(values, slots, form)
                        whole = _leading(_sizes_fit(sizes, form, stored))
                        ends += [int(rows[whole])] if whole < len(rows) else []
                        total += sizes[:whole, 1:].prod(axis=1).sum() * form.dtype.itemsize
                    slots = slots + form.slots
            if total > stored:
                raise RecordingError("arrays lie upon one another")
            if ends:
                return first + min(ends)
            first = last
        return len(self.codes)

    def _take(self, events: NDArray[Any]) -> None:
        self.codes, self._starts = events["code"].copy(), events["start"].copy()
        self._steps, self._times = events["step"].copy(), events["time"].copy()
        self._index()

    def _read_marks(self) -> NDArray[Any]:
        where = self.mark_positions
        marks = np.empty(len(where), fmt.MARK)
        starts = self._starts[where]
        rows = np.empty((len(where), fmt.MARK_SLOTS))
        first = 0
        while first < len(where):  # the marks within a block of values, in one read
            low = int(starts[first])
            last = int(np.searchsorted(starts, low + _BLOCK_SLOTS, "right"))
            values = self._values[low : int(starts[last - 1]) + fmt.MARK_SLOTS]
            rows[first:last] = values[starts[first:last, None] - low + np.arange(fmt.MARK_SLOTS)]
            first = last
        marks["code"], marks["step"] = self.codes[where], self._steps[where]
        marks["time"] = self._times[where]
        for i, name in enumerate(("x", "reset", "keys")):
            marks[name] = rows[:, i]
        return marks

    def _chunks(self, columns: Sequence[int], first: int, last: int) -> list[Chunk]:
        values, low = self._block(first, last)
        shared: dict[frozenset[int], tuple[Ints, Ints, NDArray[np.float64]]] = {}
        chunks = []
        for column in columns:
            within = self.within(column)
            if within not in shared:
                where = self._slots(column, first, last, low)[0] + first
                shared[within] = where, self._steps[where], self._times[where]
            where, step, time = shared[within]
            slots = self._starts[where] - low + self.slot_offsets(column)[self.codes[where]]
            parts = self._parts(self.schema.columns[column].forms, values, slots)
            chunks.append(Chunk(column, where, step, time, parts))
        return chunks

    def _block(self, first: int, last: int) -> tuple[NDArray[np.float64], int]:
        """The values of the events `first` to `last`, and where the first of them stands."""
        low = int(self._starts[first])
        sizes = np.diff(self._slots_before[first : last + 1])
        high = int((self._starts[first:last] + sizes).max())
        return self._values[low:high], low

    def _slots(self, column: int, first: int, last: int, low: int) -> tuple[Ints, Ints]:
        """Which events of a block hold a column, and where its slots begin, both from 0."""
        at = self.slot_offsets(column)[np.maximum(self.codes[first:last], -1)]
        rows = np.flatnonzero(at >= 0)
        return rows, self._starts[first:last][rows] - low + at[rows]

    def _parts(
        self, forms: Sequence[fmt.Form], values: NDArray[np.float64], slots: Ints
    ) -> list[NDArray[np.float64] | Ragged]:
        parts: list[NDArray[np.float64] | Ragged] = []
        for form in forms:
            if form.kind == fmt.NUMBER:
                parts.append(values[slots])
            else:
                rows = _gather(values, slots, form)
                if not _sizes_fit(rows, form, len(self._blobs)).all():
                    raise RecordingError("an array lies outside of the file")
                sizes = rows.astype(np.int64)
                parts.append(Ragged(self._blobs, form, sizes[:, 0], sizes[:, 1:]))
            slots = slots + form.slots
        return parts


class ClosedStore(Store):
    """The closed layout: a dataset for every part of every key."""

    def __init__(self, file: GuardedFile) -> None:
        self.file = file
        self.schema = fmt.Schema.decode(self.text(fmt.SCHEMA))
        codes = file.dataset(fmt.EVENTS, _CODES)
        file.allow(len(codes) * _INTS[0].itemsize, "the list of events")
        self.codes = codes[:].astype(np.int64)
        if len(self.codes) and not (
            self.codes.min() >= fmt.DROPPED and self.codes.max() < len(self.schema.signatures)
        ):
            raise RecordingError("an event refers to a signature that is not there")
        self._index()
        self.marks = file.dataset(fmt.MARKS, (fmt.MARK,))[:]
        if not np.array_equal(self.marks["code"], self.codes[self.mark_positions]):
            raise RecordingError("the table of marks does not fit the events")
        self._supersede()
        self._forms_before = fmt.first_forms(self.schema.columns)
        self._offsets: dict[tuple[str, int, int], Ints] = {}
        self._totals: dict[tuple[str, frozenset[int]], int] = {}
        self._reached: dict[tuple[str, frozenset[int]], tuple[int, int]] = {}  # event, row

    def stored_bytes(self, column: int) -> int:
        """As they lie there: compressed."""
        definition, total = self.schema.columns[column], 0
        for i, form in enumerate(definition.forms):
            part = f"{self._path(column)}/{fmt.part_name(definition, i)}"
            if form.kind == fmt.NUMBER:
                total += self._column(part, _NUMBERS, None).stored_bytes
                continue
            total += self._column(f"{part}/{fmt.SHAPE}", _INTS, None, form.ndim).stored_bytes
            total += self._column(f"{part}/{fmt.DATA}", (form.dtype,), None).stored_bytes
        return total

    def _path(self, column: int) -> str:
        definition, forms_before = self.schema.columns[column], self._forms_before[column]
        return fmt.series_path(definition, forms_before, self._root)

    def _chunks(self, columns: Sequence[int], first: int, last: int) -> list[Chunk]:
        shared: dict[frozenset[int], tuple[Ints, slice, int, Ints, NDArray[np.float64]]] = {}
        chunks = []
        for column in columns:
            within, path = self.within(column), self._path(column)
            if within not in shared:
                where, rows, total = self._rows(column, first, last)
                if not total and self._root != fmt.SERIES:
                    continue  # it has no group there
                step = self._column(f"{path}/{fmt.STEP}", _INTS, total)[rows]
                time = self._column(f"{path}/{fmt.TIME}", _FLOATS, total)[rows]
                shared[within] = where, rows, total, step, time
            where, rows, total, step, time = shared[within]
            parts = self._parts(column, path, rows, total)
            chunks.append(Chunk(column, where, step, time, parts))
        return chunks

    def _rows(self, column: int, first: int, last: int) -> tuple[Ints, slice, int]:
        """The column's events of `first` to `last`, which of its rows these are, and of how many.

        A scan goes on where it was: it counts each event once.
        """
        known = self._root, self.within(column)
        if known not in self._totals:
            self._totals[known] = len(self.positions(column))
        event, row = self._reached.get(known, (0, 0))
        if event != first:
            row = len(self.positions(column, 0, first))
        where = self.positions(column, first, last)
        self._reached[known] = last, row + len(where)
        return where, slice(row, row + len(where)), self._totals[known]

    def _parts(
        self, column: int, path: str, rows: slice, total: int
    ) -> list[NDArray[np.float64] | Ragged]:
        parts: list[NDArray[np.float64] | Ragged] = []
        definition = self.schema.columns[column]
        for i, form in enumerate(definition.forms):
            part = f"{path}/{fmt.part_name(definition, i)}"
            if form.kind == fmt.NUMBER:
                parts.append(self._column(part, _NUMBERS, total)[rows].astype(np.float64))
                continue
            shapes = self._column(f"{part}/{fmt.SHAPE}", _INTS, total, form.ndim)
            data = self._column(f"{part}/{fmt.DATA}", (form.dtype,), None)
            known = (self._root, column, i)
            if known not in self._offsets:
                self._offsets[known] = _offsets(shapes[:], form, len(data))
            parts.append(Ragged(data, form, self._offsets[known][rows], shapes[rows]))
        return parts

    def _column(
        self, path: str, dtypes: Sequence[np.dtype[Any]], rows: int | None, width: int | None = None
    ) -> GuardedDataset:
        """A dataset of a column, as long as the events say."""
        found = self.file.dataset(path, dtypes, width)
        if rows is not None and len(found) != rows:
            raise RecordingError(f"{path} has {len(found)} rows where the events say {rows}")
        return found


def open_store(path: Path) -> tuple[Store, bool]:
    """Open a recording; the flag says whether it was closed.

    Raises:
        NotARecordingError, VersionError, RecordingError: see their names.
    """
    for pause in _PAUSES:
        try:
            return _open(path)
        except (NotARecordingError, VersionError):
            raise
        except RecordingError:  # torn by a writer at this very moment, perhaps
            if not path.is_file() or time.time() - path.stat().st_mtime > _FRESH:
                raise
            time.sleep(pause)
    return _open(path)


def _open(path: Path) -> tuple[Store, bool]:
    file = GuardedFile(path)
    try:
        with contained(path):
            if file.attribute(fmt.ATTR_FORMAT) != fmt.MAGIC.encode():
                raise NotARecordingError(
                    f"{path} is an HDF5 file, but not a recording of flexrec's"
                )
            version = file.attribute(fmt.ATTR_VERSION)
            if not isinstance(version, int):
                raise RecordingError(f"its version is {version!r:.40}")
            if version > fmt.VERSION:
                raise VersionError(
                    f"{path} has format version {version}, this flexrec reads up to "
                    f"{fmt.VERSION}; install a newer flexrec"
                )
            closed = file.attribute(fmt.ATTR_STATE) == fmt.CLOSED.encode()
            if closed and (file.unclosed or file.cut_short):
                raise RecordingError("it was closed, and its end is missing since")
            return (ClosedStore(file) if closed else LiveStore(file)), closed
    except BaseException:
        file.close()
        raise


def _leading(true: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(true) if true.all() else int(true.argmin())


def _gather(values: NDArray[np.float64], slots: Ints, form: fmt.Form) -> NDArray[np.float64]:
    """(n, slots) The slots of a form, a row for each of the places where they begin."""
    rows: NDArray[np.float64] = values[slots[:, None] + np.arange(form.slots)]
    return rows


def _sizes_fit(rows: NDArray[np.float64], form: fmt.Form, available: int) -> NDArray[np.bool_]:
    """Which offsets and shapes are whole numbers that point at nothing outside of the blobs."""
    # In floating point: the product of absurd shapes must not wrap around.
    with np.errstate(invalid="ignore", over="ignore"):
        whole = ((rows >= 0) & (rows < _MOST) & (rows == np.floor(rows))).all(axis=1)
        # numpy bounds the axes of empty arrays too.
        widths = np.maximum(rows[:, 1:], 1).prod(axis=1) * form.dtype.itemsize
        ends = rows[:, 0] + rows[:, 1:].prod(axis=1) * form.dtype.itemsize
        fit: NDArray[np.bool_] = whole & (widths < _MOST) & (ends <= available)
    return fit


def _offsets(shapes: Ints, form: fmt.Form, available: int) -> Ints:
    """Where each array begins among the elements, which must be all there are."""
    sized = np.concatenate([np.zeros((len(shapes), 1)), shapes], axis=1)
    if not _sizes_fit(sized, form, available * form.dtype.itemsize).all():
        raise RecordingError("an array's shape is absurd")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(shapes.prod(axis=1))])
    # An overflow of the sum would show: no array is larger than all of the elements.
    if (np.diff(offsets) < 0).any() or offsets[-1] != available:
        raise RecordingError("the arrays' shapes do not fit their elements")
    return offsets
