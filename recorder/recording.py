"""Recording: what replay and users read. Columns by key, events in order."""

import os
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from heapq import merge
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import RecordingError, counted, nearest
from flexrec.recorder.events import Array, Event, Value
from flexrec.recorder.hdf5.errors import as_recording_error
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints
from flexrec.recorder.storage.open_store import open_store, stored_facts, stored_json
from flexrec.recorder.storage.series import (
    Index,
    Marks,
    Row,
    Series,
    events_of,
    joined,
    marks_of,
    rows_of,
)
from flexrec.recorder.storage.store import Chunk, Store, What

if TYPE_CHECKING:
    from flexrec.recorder.storage.follow import Superseded


Column = tuple[Ints, NDArray[np.float64]]
"""Of a key whose values are all numbers: where they stand among the events, and what they are."""


class ResumePoint(NamedTuple):
    """A resume: where it stands among the events, the first of them that it supersedes, and the
    step that is recorded next."""

    position: int
    first: int
    step: int


class UnknownKeyError(RecordingError, KeyError):
    """The recording has no such key."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class Recording:
    """Read a recording, whether it was closed, is being written, or ended in a kill.

    >>> rec = Recording("run.h5")  # doctest: +SKIP
    >>> rec.keys()  # doctest: +SKIP
    ['train_loss', 'train_mse']
    >>> rec["train_loss"].value  # doctest: +SKIP
    array([2.31, 2.28, ...])

    What a resume superseded is not shown: it stays in the file, and is counted in `superseded`.

    Raises:
        NotARecordingError: the file is not HDF5, or not flexrec's.
        VersionError: a newer flexrec wrote it.
        RecordingError: it does not exist or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store, self.closed = open_store(self.path)
        self.config: Any = stored_json(self._store, self.path, fmt.CONFIG)
        self.facts = stored_facts(self._store, self.path)
        self._columns: dict[str, list[int]] = {}
        with as_recording_error(self.path):
            for i in _by_appearance(self._store):
                self._columns.setdefault(self._store.schema.columns[i].key, []).append(i)

    @cached_property
    def marks(self) -> Marks:
        """The `log` and `reset` calls, in order."""
        with as_recording_error(self.path):
            found = [self._store.marks(*block) for block in self._store.blocks()]
            return marks_of(self._store, found)

    def keys(self) -> list[str]:
        """Every key, in the order of its first appearance."""
        return list(self._columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, key: object) -> bool:
        return key in self._columns

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, key: str) -> Series:
        return self.series([key])[key]

    @property
    def event_count(self) -> int:
        """How many events there are: adds, logs and resets that were not superseded."""
        return self._store.effective_count()

    @property
    def superseded(self) -> int:
        """How many events were taken back when the run was resumed at an earlier step."""
        return sum(view.effective_count() for view in self._store.views()[1:])

    @property
    def resumes(self) -> int:
        """How often the run was resumed; twice with nothing recorded in between is once."""
        return self._store.resumes

    def taken_back(self) -> "Recording":
        """The same recording, of what resumes superseded alone; closing one closes both."""
        other = copy(self)
        other.__dict__.pop("marks", None)  # of what is shown here
        other._store = self._store.superseded()
        return other

    def resume_points(self) -> list[ResumePoint]:
        """Every resume in the order of the file, those taken back by a later one, too."""
        with as_recording_error(self.path):
            store = self._store.recorded()
            found = [store.marks(*block) for block in store.blocks()]
        return [
            ResumePoint(position, int(mark["x"]), int(mark["step"]))
            for where, marks in found
            for position, mark in zip(where.tolist(), marks, strict=True)
            if mark["code"] == fmt.RESUME
        ]

    @property
    def dropped(self) -> int:
        """How many events the recorder says that it could not write."""
        with as_recording_error(self.path):
            found = [self._store.marks(*block)[1] for block in self._store.blocks()]
            return sum(int(marks["x"][marks["code"] == fmt.DROPPED].sum()) for marks in found)

    @property
    def file_bytes(self) -> int:
        """How large the file is."""
        return self._store.file.size

    @property
    def read_bytes(self) -> int:
        """How many bytes of it were read so far; those that were read twice count twice."""
        return self._store.file.read_bytes

    def counts(self, first: int = 0) -> dict[str, int]:
        """How many values each key has, from the event at position `first` on."""
        rows = self._store.row_counts(first)
        return {key: sum(rows[c] for c in columns) for key, columns in self._columns.items()}

    def is_number(self, key: str) -> bool:
        """Whether every value of the key is a single number."""
        return all(self._store.schema.columns[c].is_number for c in self._of(key))

    def kind(self, key: str) -> str:
        """What the key's values are, such as `number` or `(float32:2, int64:1)`."""
        kinds = []
        for c in self._of(key):
            column = self._store.schema.columns[c]
            forms = ", ".join(map(str, column.forms))
            kind = forms if column.bare else f"({forms})"
            kinds.append(f"state of {column.reduction}" if column.reduction else kind)
        return " or ".join(dict.fromkeys(kinds))

    def stored_bytes(self, key: str) -> int:
        """How many bytes of the file its values take: compressed, where the run has ended.

        Steps and times, which keys may share, are not counted, and an array that was given under
        several keys is for the first of them.
        """
        return sum(map(self._store.stored_bytes, self._of(key)))

    @property
    def state(self) -> str:
        """In one line, whether the run ended, and up to where the recording is whole."""
        resumed = f"resumed {self.resumes} times, " if self.resumes > 1 else "resumed once, "
        resumed += f"{counted(self.superseded, 'event')} superseded"
        if self.closed:
            said = (
                "closed, but for its last bytes (flexrec repair)"
                if self._store.file.unclosed
                else "closed"
            )
            return f"{said}; {resumed}" if self.resumes else said
        last = self._store.last_step
        where = "nothing was recorded" if last is None else f"it is whole up to step {last}"
        if self._store.cut:
            why = "was torn by a loss of power" if self._store.is_torn else "is not whole"
            where += f"; what follows, {counted(self._store.cut, 'event')}, {why} and left out"
        damaged = self._store.damaged_from(is_strict=False)
        if damaged is not None:
            where += f"; event {damaged} or one written with it is not as it was: flexrec verify"
        more = f"; {resumed}" if self.resumes else ""
        return f"the run has not ended, or was killed; {where}{more}"

    def series(self, keys: Iterable[str]) -> dict[str, Series]:
        """Several keys in one pass over the file: quicker than one by one."""
        return self._read(keys, "all")

    def groups(self, keys: Iterable[str], most: int = 1 << 22) -> Iterator[list[str]]:
        """The keys, as many at a time as have at most so many values together, or one."""
        counts, group, size = self.counts(), list[str](), 0
        for key in keys:
            if group and size + counts[key] > most:
                yield group
                group, size = [], 0
            group.append(key)
            size += counts[key]
        if group:
            yield group

    def parts(self, keys: Iterable[str], most: int = 1 << 22) -> Iterator[Series]:
        """One key after the other; one with more than `most` values in several parts."""
        counts = self.counts()
        for group in self.groups(keys, most):
            if counts[group[0]] <= most:
                yield from self.series(group).values()
                continue
            with as_recording_error(self.path):
                for chunks in self._store.scan(self._of(group[0])):
                    yield self._series(group[0], [[chunk] for chunk in chunks if len(chunk)], {})

    def columns(self, keys: Iterable[str]) -> dict[str, Column]:
        """Where several keys' numbers stand among the events, and what they are, in one pass.

        Raises:
            RecordingError: not every value of a key is a number.
        """
        found = self._read(map(self._number, keys), "values")
        return {key: (series.position, series.value) for key, series in found.items()}

    def index(self, key: str) -> "Index":
        """When a key's values were added, without reading the values."""
        columns = self._of(key)
        with as_recording_error(self.path):
            blocks = self._store.scan(columns, "times")
            return Index.of([chunk for chunks in blocks for chunk in chunks if len(chunk)])

    def alike(self, key: str, other: "Recording", its: str) -> int:
        """How many of a key's numbers, and their steps, are stored from the first on in the same
        bytes as those of another recording's key; 0 where that cannot be told without reading."""
        mine, theirs = self._of(key), other._of(its)
        if len(mine) != 1 or len(theirs) != 1:
            return 0
        return self._store.alike(mine[0], other._store, theirs[0])

    def added_with(self, key: str) -> frozenset[int]:
        """What tells keys that share their steps from others; empty: nothing is known."""
        columns = self._of(key)
        return self._store.within(columns[0]) if len(columns) == 1 else frozenset()

    def between(self, keys: Sequence[str], first: int, last: int) -> dict[str, Array]:
        """The numbers that were added under the keys from event `first` up to `last`."""
        columns = [column for key in keys for column in self._of(self._number(key))]
        with as_recording_error(self.path):
            chunks = self._store.chunks(columns, first, last, "values")
            return {
                key: np.asarray(chunk.parts[0]) for key, chunk in zip(keys, chunks, strict=True)
            }

    def numbers(self, key: str) -> Iterator[tuple[int, Column]]:
        """A key's column in parts, a bounded number of values in memory at a time.

        Yields:
            The position up to which these are all, and a part of the column.

        Raises:
            RecordingError: not every value of the key is a number.
        """
        column = self._of(self._number(key))
        with as_recording_error(self.path):
            for first, last in self._store.blocks():
                (chunk,) = self._store.chunks(column, first, last, "values")
                yield last, (chunk.positions, np.asarray(chunk.parts[0]))

    def when(self, keys: Iterable[str]) -> Iterator["Index"]:
        """When any of the keys was added, a bounded number of adds in memory at a time."""
        columns = [column for key in keys for column in self._of(key)]
        alone = list({self._store.within(column): column for column in columns}.values())
        with as_recording_error(self.path):
            for chunks in self._store.scan(alone, "times"):
                found = Index.of([chunk for chunk in chunks if len(chunk)])
                position, first = np.unique(found.position, return_index=True)
                yield Index(position, found.step[first], found.time[first])

    def rows(self, key: str) -> Iterator[Row]:
        """One key's values in order, a bounded number of them in memory at a time."""
        columns = self._of(key)
        with as_recording_error(self.path):
            for block in self._store.scan(columns):
                yield from merge(*map(self._rows, block), key=lambda row: row.position)

    def events(self) -> Iterator[Event]:
        """Every event in the recorded order."""
        return events_of(self._store)

    def follow(
        self, *, poll_seconds: float = 0.5, timeout: float | None = None
    ) -> "Iterator[Event | Superseded]":
        """Every event, now and as more are recorded, until the recording is closed.

        >>> for event in Recording("run.h5").follow():  # doctest: +SKIP
        ...     print(event)

        The writer may be killed and resume. Where it resumes at an earlier step, a `Superseded`
        comes among the events: as many of those before it as it says no longer hold.

        Args:
            poll_seconds: how often the file is looked at.
            timeout: end, too, after so many seconds without news; None waits for good.

        Raises:
            RecordingError: the file can no longer be read.
        """
        self._store.file.check_open()
        from flexrec.recorder.storage.follow import follow

        return follow(self.path, poll_seconds=poll_seconds, timeout=timeout)

    def close(self) -> None:
        """Close the file: what would be read of it from then on is a RecordingError."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ inside

    def _of(self, key: str) -> list[int]:
        try:
            return self._columns[key]
        except KeyError:
            raise UnknownKeyError(
                f"{self.path} has no key {key!r}{nearest(key, self._columns)}"
            ) from None

    def _number(self, key: str) -> str:
        if not self.is_number(key):
            raise RecordingError(f"{self.path}: not every value of {key!r} is a number")
        return key

    def _read(self, keys: Iterable[str], what: What) -> dict[str, Series]:
        wanted = {key: self._of(key) for key in keys}
        columns = [column for found in wanted.values() for column in found]
        chunks: dict[int, list[Chunk]] = {column: [] for column in columns}
        with as_recording_error(self.path):
            nbytes = 0
            held: dict[tuple[tuple[int, int], int], ArrayColumn] = {}
            for chunk in self._store.everything(columns, what):
                if len(chunk):
                    nbytes += chunk.nbytes
                    for i, part in enumerate(chunk.parts):
                        if isinstance(part, ArrayColumn):  # read once, where keys share it
                            owner = self._store.linked(chunk.column, i) or (chunk.column, i)
                            whole = held.setdefault((owner, int(chunk.positions[0])), part)
                            if whole is not part:
                                chunk.parts[i], whole.is_kept = whole, True
                                nbytes -= part.nbytes
                    chunks[chunk.column].append(chunk)
                    self._store.file.allow(nbytes, f"all of {len(wanted)} keys at once")
            indices: dict[frozenset[int], Index] = {}
            return {
                key: self._series(key, [chunks[column] for column in found], indices)
                for key, found in wanted.items()
            }

    def _rows(self, chunk: Chunk) -> Iterator[Row]:
        return rows_of(self._store, chunk)

    def _series(
        self, key: str, found: list[list[Chunk]], indices: dict[frozenset[int], Index]
    ) -> Series:
        """The chunks of a key's columns as one; columns added together are indexed once."""
        chunks = [chunk for column in found for chunk in column]
        within = self._store.within(chunks[0].column) if len(found) == 1 and chunks else frozenset()
        index = indices.get(within) or Index.of(chunks)
        if within:
            indices[within] = index
        value: NDArray[np.float64] | list[Value]
        if self.is_number(key):
            value = joined([np.empty(0), *(np.asarray(chunk.parts[0]) for chunk in chunks)])
            value = value if index.order is None else value[index.order]
        else:
            value = [row.value for chunk in chunks for row in self._rows(chunk)]
            value = value if index.order is None else [value[i] for i in index.order.tolist()]
        return Series(key, index.step, index.time, value, index.position)


def _by_appearance(store: Store) -> Sequence[int]:
    """The columns in the order in which their keys first appear, those not superseded first."""
    columns = range(len(store.schema.columns))
    if store.orderly:
        return columns  # as the schema has them: neither superseded nor dropped
    seen = dict[int, None]()
    for block in store.blocks():
        codes, first = np.unique(store.codes(*block), return_index=True)
        seen |= dict.fromkeys(codes[np.argsort(first)].tolist())
    order = dict.fromkeys(c for code in seen if code >= 0 for c in store.schema.signatures[code])
    return [*order, *(c for c in columns if c not in order)]
