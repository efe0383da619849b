"""Reading the two layouts, live and closed, through one interface: `open_store`.

A store knows events by their position in the recorded order, and columns by their number in the
schema. What users see is in reader.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from flexrec.recorder import format as fmt
from flexrec.recorder.errors import NotARecordingError, RecordingError, VersionError
from flexrec.recorder.events import Array, Value

__all__ = ["Chunk", "Ragged", "Store", "open_store"]

Ints = NDArray[np.int64]

_BLOCK_SLOTS = 1 << 21  # values that a scan holds at a time (16 MiB)
_RUN_BYTES, _GAP_BYTES = 8 << 20, 1 << 16  # arrays are read in runs this long, over gaps this wide
_MOST = 2.0**53  # no offset, length or size is as large


@dataclass
class Ragged:
    """Arrays of one dtype and rank, each of its own shape, read when they are iterated over."""

    source: h5py.Dataset
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

    file: h5py.File
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
        sizes = [self.schema.slots(s) for s in range(len(self.schema.signatures))]
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

    def effective(self) -> Ints:
        """The positions of the adds, logs and resets that were not superseded."""
        return np.flatnonzero(self.codes >= fmt.RESET)

    def positions(self, column: int, first: int = 0, last: int | None = None) -> Ints:
        """Which events of `first` to `last` hold the column."""
        has = np.array([column in s for s in self.schema.signatures] + [False])
        return np.flatnonzero(has[np.maximum(self.codes[first:last], -1)]) + first

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
    def _chunks(self, columns: Sequence[int], first: int, last: int) -> list[Chunk]: ...

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class LiveStore(Store):
    """The live layout: what a running, killed or cleanly stopped writer left."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        # One handle for each dataset: of two, SWMR lets one see stale values.
        self._events, self._schema_text = file[fmt.EVENTS], file[fmt.SCHEMA]
        self._values, self._blobs = file[fmt.VALUES], file[fmt.BLOBS]
        self.schema, self._schema_bytes = fmt.Schema(), 0
        self._load(0, 0)
        self._supersede()

    def tail(self) -> "LiveStore":
        """What was appended since this was read, as a store of its own; resumes have no effect."""
        for dataset in (self._events, self._schema_text, self._blobs, self._values):
            dataset.refresh()
        new = copy(self)
        new._load(self._first + len(self.codes), self._slot + int(self._slots_before[-1]))
        new.recorded = new.codes
        return new

    def _load(self, first: int, slot: int) -> None:
        """Read the events from `first` on, the first of them having its values at `slot`."""
        self._first, self._slot = first, slot
        events = self._events[first:]  # first: what these rows point at is in the file already
        if len(self._schema_text) > self._schema_bytes:
            text = bytes(self._schema_text[:])
            self.schema, self._schema_bytes = fmt.Schema.decode(text), len(text)
        signatures = len(self.schema.signatures)
        known = (events["code"] < signatures) & (events["code"] >= fmt.DROPPED)
        self._take(events[: _leading(known)])
        ends = self._slots_before + slot
        whole = _leading((self._starts == ends[:-1]) & (ends[1:] <= len(self._values)))
        if whole < len(self.codes):
            self._take(events[:whole])
        self.cut = len(events) - whole
        self.last_step = int(self._steps[-1]) if whole else None
        self.marks = self._read_marks()

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
        codes, starts = self.codes[first:last], self._starts[first:last]
        low = int(starts.min())
        high = int((starts + np.diff(self._slots_before[first : last + 1])).max())
        values = self._values[low:high]
        chunks = []
        for column in columns:
            offset = np.full(len(self.schema.signatures) + 1, -1, np.int64)
            for s, signature in enumerate(self.schema.signatures):
                if column in signature:
                    before = signature[: signature.index(column)]
                    offset[s] = sum(self.schema.columns[c].slots for c in before)
            at = offset[np.maximum(codes, -1)]
            rows = np.flatnonzero(at >= 0)
            slots = starts[rows] - low + at[rows]
            where = rows + first
            parts = self._parts(self.schema.columns[column].forms, values, slots)
            chunks.append(Chunk(column, where, self._steps[where], self._times[where], parts))
        return chunks

    def _parts(
        self, forms: Sequence[fmt.Form], values: NDArray[np.float64], slots: Ints
    ) -> list[NDArray[np.float64] | Ragged]:
        parts: list[NDArray[np.float64] | Ragged] = []
        for form in forms:
            if form.kind == fmt.NUMBER:
                parts.append(values[slots])
            else:
                rows = values[slots[:, None] + np.arange(form.slots)]
                sizes = _checked_sizes(rows, form, len(self._blobs))
                parts.append(Ragged(self._blobs, form, sizes[:, 0], sizes[:, 1:]))
            slots = slots + form.slots
        return parts


class ClosedStore(Store):
    """The closed layout: a dataset for every part of every key."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.schema = fmt.Schema.decode(bytes(file[fmt.SCHEMA][:]))
        self.codes = file[fmt.EVENTS][:].astype(np.int64)
        if len(self.codes) and not (
            self.codes.min() >= fmt.DROPPED and self.codes.max() < len(self.schema.signatures)
        ):
            raise RecordingError("an event refers to a signature that is not there")
        self._index()
        self.marks = file[fmt.MARKS][:]
        if not np.array_equal(self.marks["code"], self.codes[self.mark_positions]):
            raise RecordingError("the table of marks does not fit the events")
        self._supersede()
        counts = fmt.first_forms(self.schema.columns)
        self._forms_before = counts
        self._offsets: dict[tuple[str, int, int], Ints] = {}

    def _path(self, column: int) -> str:
        definition, forms_before = self.schema.columns[column], self._forms_before[column]
        return fmt.series_path(definition, forms_before, self._root)

    def _chunks(self, columns: Sequence[int], first: int, last: int) -> list[Chunk]:
        shared: dict[frozenset[int], tuple[Ints, int, Ints, NDArray[np.float64]]] = {}
        chunks = []
        for column in columns:
            within = frozenset(s for s, c in enumerate(self.schema.signatures) if column in c)
            group = self.file[self._path(column)]
            if within not in shared:
                where = self.positions(column, first, last)
                row = len(self.positions(column, 0, first)) if first else 0
                rows = slice(row, row + len(where))
                shared[within] = (where, row, group[fmt.STEP][rows], group[fmt.TIME][rows])
            where, row, step, time = shared[within]
            parts = self._parts(column, group, row, row + len(where))
            chunks.append(Chunk(column, where, step, time, parts))
        return chunks

    def _parts(
        self, column: int, group: h5py.Group, first: int, last: int
    ) -> list[NDArray[np.float64] | Ragged]:
        parts: list[NDArray[np.float64] | Ragged] = []
        definition = self.schema.columns[column]
        for i, form in enumerate(definition.forms):
            item = group[fmt.part_name(definition, i)]
            if form.kind == fmt.NUMBER:
                parts.append(item[first:last].astype(np.float64))
                continue
            known = (self._root, column, i)
            if known not in self._offsets:
                shapes = item[fmt.SHAPE][:]
                ends = np.cumsum(shapes.prod(axis=1))
                self._offsets[known] = np.concatenate([[0], ends])
            offsets = self._offsets[known][first:last]
            parts.append(Ragged(item[fmt.DATA], form, offsets, item[fmt.SHAPE][first:last]))
        return parts


def open_store(path: Path) -> tuple[Store, bool]:
    """Open a recording; the flag says whether it was closed.

    Raises:
        NotARecordingError, VersionError, RecordingError: see their names.
    """
    file = _open(path)
    try:
        if file.attrs.get(fmt.ATTR_FORMAT) != fmt.MAGIC:
            raise NotARecordingError(f"{path} is an HDF5 file, but not a recording of flexrec's")
        version = int(file.attrs.get(fmt.ATTR_VERSION, 0))
        if version > fmt.VERSION:
            raise VersionError(
                f"{path} has format version {version}, this flexrec reads up to {fmt.VERSION}; "
                "install a newer flexrec"
            )
        closed = file.attrs.get(fmt.ATTR_STATE) == fmt.CLOSED
        return (ClosedStore(file) if closed else LiveStore(file)), closed
    except (KeyError, TypeError, ValueError, IndexError, OSError, RuntimeError) as error:
        file.close()
        raise RecordingError(f"{path} is damaged: {error}") from None
    except RecordingError as error:
        file.close()
        raise type(error)(_named(path, error)) from None


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise RecordingError(f"{path} {kind}; give the path of a recording")
    if not h5py.is_hdf5(path):
        raise NotARecordingError(f"{path} is not an HDF5 file")
    try:
        return h5py.File(path, "r")
    except OSError:  # a live or killed writer's file opens as SWMR only
        try:
            return h5py.File(path, "r", swmr=True, locking=False)
        except OSError as error:
            raise RecordingError(f"{path} cannot be opened: {error}") from None


def _leading(true: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(true) if true.all() else int(true.argmin())


def _named(path: Path, error: RecordingError) -> str:
    message = str(error)
    return message if message.startswith(str(path)) else f"{path} is damaged: {message}"


def _checked_sizes(rows: NDArray[np.float64], form: fmt.Form, available: int) -> Ints:
    """Offsets and shapes as integers, none of them pointing outside of the blobs."""
    # In floating point: the product of absurd shapes must not wrap around.
    with np.errstate(invalid="ignore", over="ignore"):
        widths = np.maximum(rows[:, 1:], 1).prod(
            axis=1
        )  # numpy bounds the axes of empty arrays too
        ends = rows[:, 0] + rows[:, 1:].prod(axis=1) * form.dtype.itemsize
        if not ((rows >= 0) & (rows < _MOST)).all() or not (widths < _MOST).all():
            raise RecordingError("an array's shape is absurd")
    if not (ends <= available).all():
        raise RecordingError("an array's place is outside of the file")
    return rows.astype(np.int64)
