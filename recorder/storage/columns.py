"""A recording's values by key: whole, or a bounded number at a time, as replaying reads them.

What users see is in recorder/recording.py. Which columns of the file a key has, is known here.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import RecordingError, UnknownKeyError, nearest
from flexrec.recorder.events import Array, Value
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints
from flexrec.recorder.storage.series import Index, Row, Series, joined, rows_of
from flexrec.recorder.storage.store import Chunk, Store, What

Column = tuple[Ints, NDArray[np.float64]]
"""Of a key whose values are all numbers: where they stand among the events, and what they are."""


class ColumnReader:
    """Reads the values of a recording's keys.

    What its methods raise is what `Recording` does: UnknownKeyError for a key that is not there,
    DamagedError for data that is not as it was written, RecordingError for what cannot be read.

    Attributes:
        of: of each key its columns in the file, in the order in which the keys first appear.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store
        self.of: dict[str, list[int]] = {}
        for i in _by_appearance(store):
            self.of.setdefault(store.schema.columns[i].key, []).append(i)

    @property
    def file_bytes(self) -> int:
        """How large the file is."""
        return self._store.file.size

    @property
    def read_bytes(self) -> int:
        """How many bytes of it were read so far; those that were read twice count twice."""
        return self._store.file.read_bytes

    # ------------------------------------------------------------------ what there is

    def counts(self, first: int = 0) -> dict[str, int]:
        """How many values each key has, from the event at position `first` on."""
        rows = self._store.row_counts(first)
        return {key: sum(rows[c] for c in columns) for key, columns in self.of.items()}

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

    def is_plain(self, key: str) -> bool:
        """Whether every value of the key is a number or a text."""
        return set(self.kind(key).split(" or ")) <= {fmt.NUMBER, fmt.TEXT}

    def stored_bytes(self, key: str) -> int:
        """How many bytes of the file its values take: compressed, where the run has ended.

        Steps and times, which keys may share, are not counted, and an array that was given under
        several keys is for the first of them.
        """
        return sum(map(self._store.stored_bytes, self._of(key)))

    # ------------------------------------------------------------------ whole keys

    def series(self, keys: Iterable[str]) -> dict[str, Series]:
        """All values of several keys, in one pass over the file."""
        return self._read(keys, "all")

    def columns(self, keys: Iterable[str]) -> dict[str, Column]:
        """Where several keys' numbers stand among the events, and what they are, in one pass.

        Raises:
            RecordingError: not every value of a key is a number.
        """
        found = self._read(map(self._number, keys), "values")
        return {key: (series.position, series.value) for key, series in found.items()}

    def index(self, key: str) -> Index:
        """When a key's values were added, without reading the values."""
        blocks = self._store.scan(self._of(key), "times")
        return Index.of([chunk for chunks in blocks for chunk in chunks if len(chunk)])

    # ------------------------------------------------------------------ a part at a time

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
            for chunks in self._store.scan(self._of(group[0])):
                yield self._series(group[0], [[chunk] for chunk in chunks if len(chunk)], {})

    def numbers(self, key: str) -> Iterator[tuple[int, Column]]:
        """A key's column in parts, a bounded number of values in memory at a time.

        Yields:
            The position up to which these are all, and a part of the column.

        Raises:
            RecordingError: not every value of the key is a number.
        """
        column = self._of(self._number(key))
        for first, last in self._store.blocks():
            (chunk,) = self._store.chunks(column, first, last, "values")
            yield last, (chunk.positions, np.asarray(chunk.parts[0]))

    def when(self, keys: Iterable[str]) -> Iterator[Index]:
        """When any of the keys was added, a bounded number of adds in memory at a time."""
        columns = [column for key in keys for column in self._of(key)]
        alone = list({self._store.within(column): column for column in columns}.values())
        for chunks in self._store.scan(alone, "times"):
            found = Index.of([chunk for chunk in chunks if len(chunk)])
            position, first = np.unique(found.position, return_index=True)
            yield Index(position, found.step[first], found.time[first])

    def rows(self, key: str) -> Iterator[Row]:
        """One key's values in order, a bounded number of them in memory at a time."""
        columns = self._of(key)
        for block in self._store.scan(columns):
            rows = (rows_of(self._store, chunk) for chunk in block)
            yield from merge(*rows, key=lambda row: row.position)

    # ------------------------------------------------------------------ two recordings

    def alike(self, key: str, other: "ColumnReader", its: str) -> int:
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
        chunks = self._store.chunks(columns, first, last, "values")
        return {key: np.asarray(chunk.parts[0]) for key, chunk in zip(keys, chunks, strict=True)}

    # ------------------------------------------------------------------ inside

    def _of(self, key: str) -> list[int]:
        try:
            return self.of[key]
        except KeyError:
            raise UnknownKeyError(
                f"{self._path} has no key {key!r}{nearest(key, self.of)}"
            ) from None

    def _number(self, key: str) -> str:
        if not self.is_number(key):
            raise RecordingError(f"{self._path}: not every value of {key!r} is a number")
        return key

    def _read(self, keys: Iterable[str], what: What) -> dict[str, Series]:
        wanted = {key: self._of(key) for key in keys}
        columns = [column for found in wanted.values() for column in found]
        chunks: dict[int, list[Chunk]] = {column: [] for column in columns}
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
            value = [row.value for chunk in chunks for row in rows_of(self._store, chunk)]
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
