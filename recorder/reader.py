"""Recording: what replay and users read. Columns by key, events in order."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder import format as fmt
from flexrec.recorder.errors import RecordingError, nearest
from flexrec.recorder.events import Add, Event, Log, Reset, State, Value
from flexrec.recorder.guard import contained
from flexrec.recorder.store import Chunk, Ints, Store, open_store

if TYPE_CHECKING:
    from flexrec.recorder.following import Superseded

__all__ = ["Index", "Marks", "Recording", "Row", "Series", "UnknownKeyError", "events_of"]


class UnknownKeyError(RecordingError, KeyError):
    """The recording has no such key."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


@dataclass(frozen=True)
class Series:
    """Everything that was added under one key, in order.

    Attributes:
        key: the key.
        step: (n,) int64, the step of each add.
        time: (n,) float64, its time, in seconds since 1970.
        value: (n,) float64 where every value is a number; else a list of the values: numbers,
            texts, arrays, and tuples of those.
        position: (n,) int64, where each add stands among the events.
    """

    key: str
    step: Ints
    time: NDArray[np.float64]
    value: Any  # either of two: a union would have every caller ask which
    position: Ints

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Index:
    """Where and when values were added: (n,) arrays, in order."""

    position: Ints
    step: Ints
    time: NDArray[np.float64]
    order: Ints  # of the chunks' rows laid end to end

    @classmethod
    def of(cls, chunks: list[Chunk]) -> "Index":
        """The rows of chunks, put in the recorded order."""
        if not chunks:
            none = np.empty(0, np.int64)
            return cls(none, none, np.empty(0), none)
        position = np.concatenate([chunk.positions for chunk in chunks])
        step = np.concatenate([chunk.step for chunk in chunks])
        time = np.concatenate([chunk.time for chunk in chunks])
        if (position[1:] > position[:-1]).all():  # of one column they are, and sorting is slow
            return cls(position, step, time, np.arange(len(position)))
        order = np.argsort(position, kind="stable")
        return cls(position[order], step[order], time[order], order)


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a key."""

    position: int
    step: int
    time: float
    value: Value


@dataclass(frozen=True)
class Marks:
    """The `log` and `reset` calls, in order: one array element each.

    Attributes:
        position: where each stands among the events.
        is_log: whether it plots (else it only resets).
        x: the position on the plots' x axis.
        reset: whether the meters start anew.
        keys: the meters' names, or None for all.
        step, time: when.
    """

    position: Ints
    is_log: NDArray[np.bool_]
    x: NDArray[np.float64]
    reset: NDArray[np.bool_]
    keys: list[tuple[str, ...] | None]
    step: Ints
    time: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.position)


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
        self.config: Any = self._json(fmt.CONFIG)
        self.facts: dict[str, Any] | None = self._json(fmt.FACTS)
        if not isinstance(self.facts, dict | None):
            raise RecordingError(f"{self.path} is damaged: facts: they are no object")
        self._columns: dict[str, list[int]] = {}
        with contained(self.path):
            for i in _by_appearance(self._store):
                self._columns.setdefault(self._store.schema.columns[i].key, []).append(i)
            self.marks = _marks_of(self._store, self.path)

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
        return len(self._store.effective())

    @property
    def superseded(self) -> int:
        """How many events were taken back when the run was resumed at an earlier step."""
        return int((self._store.superseded().codes >= fmt.RESET).sum())

    @property
    def resumes(self) -> int:
        """How often the run was resumed."""
        return int((self._store.recorded == fmt.RESUME).sum())

    @property
    def dropped(self) -> int:
        """How many events the recorder says that it could not write."""
        codes = self._store.codes[self._store.mark_positions]
        with contained(self.path):
            return int(self._store.marks["x"][codes == fmt.DROPPED].sum())

    def counts(self) -> dict[str, int]:
        """How many values each key has."""
        rows = self._store.row_counts()
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
        return " or ".join(kinds)

    def stored_bytes(self, key: str) -> int:
        """How many bytes of the file its values take: compressed, where the run has ended.

        Steps and times, which keys may share, are not counted.
        """
        return sum(map(self._store.stored_bytes, self._of(key)))

    @property
    def state(self) -> str:
        """In one line, whether the run ended, and up to where the recording is whole."""
        resumed = f"resumed {self.resumes} times, " if self.resumes > 1 else "resumed once, "
        resumed += f"{self.superseded} events superseded"
        if self.closed:
            return f"closed; {resumed}" if self.resumes else "closed"
        last = self._store.last_step
        where = "nothing was recorded" if last is None else f"it is whole up to step {last}"
        if self._store.cut:
            where += f"; what follows, {self._store.cut} events, is not whole and left out"
        more = f"; {resumed}" if self.resumes else ""
        return f"the run has not ended, or was killed; {where}{more}"

    def series(self, keys: Iterable[str]) -> dict[str, Series]:
        """Several keys in one pass over the file: quicker than one by one."""
        wanted = {key: self._of(key) for key in keys}
        columns = [column for found in wanted.values() for column in found]
        chunks: dict[int, list[Chunk]] = {column: [] for column in columns}
        with contained(self.path):
            nbytes = 0
            for block in self._store.scan(columns) if columns else ():
                for chunk in block:
                    if len(chunk):
                        chunks[chunk.column].append(chunk)
                        nbytes += chunk.nbytes
                self._store.file.allow(nbytes, f"all of {len(wanted)} keys at once")
            return {
                key: self._series(key, [chunk for column in found for chunk in chunks[column]])
                for key, found in wanted.items()
            }

    def index(self, key: str) -> "Index":
        """When a key's values were added, without reading the values."""
        columns = self._of(key)
        with contained(self.path):
            return Index.of([c for block in self._store.scan(columns) for c in block if len(c)])

    def rows(self, key: str) -> Iterator[Row]:
        """One key's values in order, a bounded number of them in memory at a time."""
        columns = self._of(key)
        with contained(self.path):
            for block in self._store.scan(columns):
                yield from (
                    sorted(
                        (row for chunk in block for row in self._rows(chunk)),
                        key=lambda row: row.position,
                    )
                    if len(block) > 1
                    else self._rows(block[0])
                )

    def events(self) -> Iterator[Event]:
        """Every event in the recorded order."""
        return events_of(self._store, marks=self.marks)

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
        from flexrec.recorder.following import follow

        return follow(self.path, poll_seconds=poll_seconds, timeout=timeout)

    def close(self) -> None:
        """Close the file."""
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

    def _rows(self, chunk: Chunk) -> Iterator[Row]:
        return _rows_of(self._store, chunk)

    def _series(self, key: str, chunks: list[Chunk]) -> Series:
        index = Index.of(chunks)
        value: NDArray[np.float64] | list[Value]
        if not self.is_number(key):
            values = [row.value for chunk in chunks for row in self._rows(chunk)]
            value = [values[i] for i in index.order.tolist()]
        elif chunks:
            value = np.concatenate([np.asarray(chunk.parts[0]) for chunk in chunks])[index.order]
        else:
            value = np.empty(0)
        return Series(key, index.step, index.time, value, index.position)

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._store.text(name))
        except (ValueError, RecursionError) as error:
            raise RecordingError(f"{self.path} is damaged: {name}: {error!s:.80}") from None


def events_of(store: Store, first: int = 0, *, marks: Marks | None = None) -> Iterator[Event]:
    """A store's events from position `first` on, in order, but for those superseded."""
    with contained(store.file.path):
        schema = store.schema
        marks = _marks_of(store, store.file.path) if marks is None else marks
        mark = int(np.searchsorted(marks.position, first))
        for block in store.scan(range(len(schema.columns)), first):
            rows = {chunk.column: _rows_of(store, chunk) for chunk in block}
            last = store.block_end(first)
            for code in store.codes[first:last].tolist():
                if code >= 0:
                    found = schema.signatures[code]
                    added = [(schema.columns[c].key, next(rows[c])) for c in found]
                    values = {key: row.value for key, row in added}
                    yield Add(values, added[0][1].step, added[0][1].time)
                elif code >= fmt.RESET:
                    yield _mark_event(marks, mark)
                    mark += 1
            first = last


def _mark_event(marks: Marks, i: int) -> Event:
    step, time, keys = int(marks.step[i]), float(marks.time[i]), marks.keys[i]
    if marks.is_log[i]:
        return Log(float(marks.x[i]), keys, bool(marks.reset[i]), step, time)
    return Reset(keys, step, time)


def _marks_of(store: Store, path: Path) -> Marks:
    """The logs and resets, but for those superseded."""
    which = np.isin(store.codes[store.mark_positions], (fmt.LOG, fmt.RESET))
    marks, keysets = store.marks[which], store.schema.keysets
    if len(marks) and not fmt.ALL_KEYS <= marks["keys"].min() <= marks["keys"].max() < max(
        1, len(keysets)
    ):
        raise RecordingError(f"{path} is damaged: a mark names unknown keys")
    return Marks(
        store.mark_positions[which],
        marks["code"] == fmt.LOG,
        marks["x"],
        marks["reset"] != 0,
        [None if k == fmt.ALL_KEYS else keysets[k] for k in marks["keys"].tolist()],
        marks["step"],
        marks["time"],
    )


def _by_appearance(store: Store) -> Sequence[int]:
    """The columns in the order in which their keys first appear, those not superseded first."""
    columns = range(len(store.schema.columns))
    if (store.recorded >= fmt.RESET).all():
        return columns  # as the schema has them: neither superseded nor dropped
    codes, first = np.unique(store.codes, return_index=True)
    seen = [int(code) for code in codes[np.argsort(first)] if code >= 0]
    order = dict.fromkeys(c for code in seen for c in store.schema.signatures[code])
    return [*order, *(c for c in columns if c not in order)]


def _rows_of(store: Store, chunk: Chunk) -> Iterator[Row]:
    column = store.schema.columns[chunk.column]
    where, step, time = chunk.positions.tolist(), chunk.step.tolist(), chunk.time.tolist()
    values = chunk.values(column.bare)
    if column.reduction is not None:
        values = (State(parts, column.reduction) for parts in values)  # type: ignore[arg-type]
    return map(Row, where, step, time, values)
