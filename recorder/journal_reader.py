"""The journal of a live file, as it is read: how much of each dataset is whole, and where it lies.

Nothing that HDF5 rewrites is asked: a loss of power may have torn it. What is whole counts, and
what is not is never taken for data. Whatever is read here may come from anyone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder import format as fmt
from flexrec.recorder.containing import contained
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.events import Array
from flexrec.recorder.guard import GuardedFile
from flexrec.recorder.journal import BLOCK, EXTENT, NEXT, PLACE, RECORD, checksum, is_intact

__all__ = ["Journal", "JournalledDataset", "journal_of"]

_NAMES, _LAYOUT = tuple(fmt.LIVE_LAYOUT), tuple(fmt.LIVE_LAYOUT.values())
_EVENTS = _NAMES.index(fmt.EVENTS)
_PART = 1 << 20  # bytes that are read at a time to take their checksum


class _Extent(NamedTuple):
    """Records that lie end to end, from one on: their number, the extent's address, and they."""

    number: int
    address: int
    records: NDArray[np.void]


class Journal:
    """Follows a live file's journal.

    A block counts when an fsync came after it, as a later record says, or when what it added fits
    the checksums in its record. The first that does neither ends the recording.

    Args:
        file: the file.
        address: where its journal begins.
        identity: the journal's id.
        is_strict: check what blocks added before an fsync, too.

    Attributes:
        path: the file's.
        lengths: how many elements of each dataset count, in the order of format.LIVE_LAYOUT.
        stored: of these, how many at the start lie within the file.
        left_out: how many events follow that do not count.
        is_torn: whether no fsync had come after those: a loss of power tore them. Else they were
            damaged since.
    """

    def __init__(
        self, file: GuardedFile, address: int, identity: int, *, is_strict: bool = False
    ) -> None:
        self.path = file.path
        self._file, self._identity, self._is_strict = file, identity, is_strict
        self._start = address
        self._number, self._extent = 0, address  # of the first record that is not taken yet
        self._synced = 0  # how many records are known to have been on the disk
        self._places: list[list[int]] = [[] for _ in _LAYOUT]  # of each dataset's chunks
        self.lengths, self.stored = [0] * len(_LAYOUT), [0] * len(_LAYOUT)
        self.left_out, self.is_torn = 0, False
        self.refresh()

    @property
    def event_count(self) -> int:
        """How many events count."""
        return self.lengths[_EVENTS]

    def refresh(self) -> None:
        """Take in what was recorded since."""
        with contained(self._file.path):
            self._file.refresh()
            extents = list(self._extents())
            records = np.concatenate([extent.records for extent in extents])
            self._learn_synced(records)
            first = self._number
            taken = self._take(records)
            self._note_rest(records, first, taken)
            self.stored = [self._in_file(dataset) for dataset in range(len(_LAYOUT))]
            if taken:
                self._number = first + taken
                self._extent = next(e.address for e in reversed(extents) if e.number < self._number)

    def strictly(self) -> "Journal":
        """The same, read anew, with every checksum checked."""
        return Journal(self._file, self._start, self._identity, is_strict=True)

    def read(self, dataset: int, first: int, into: Array) -> None:
        """Fill an array with a dataset's elements, from the one numbered `first` on."""
        for address, begin, end in _spans(self._places[dataset], dataset, first, first + len(into)):
            self._file.read_into(into[begin - first : end - first], address)

    # ------------------------------------------------------------------ records

    def _extents(self) -> Iterator[_Extent]:
        """The records from the first on that is not taken yet; most of them are not checked."""
        number, address = self._number, self._extent
        while True:
            skip = number % EXTENT
            begin = address + skip * RECORD.itemsize
            there = (self._file.size - begin) // RECORD.itemsize
            count = min(EXTENT - skip, there) if address > 0 and there > 0 else 0
            data = self._file.pread(count * RECORD.itemsize, begin) if count else b""
            records = np.frombuffer(data, RECORD)
            yield _Extent(number, address, records)
            number += count
            is_last = count < EXTENT - skip or records[-1]["kind"] != NEXT
            if is_last or not self._is_intact(records[-1], number - 1):
                return
            address = int(records[-1]["numbers"][0])

    def _is_intact(self, record: np.void, number: int) -> bool:
        return is_intact(record.tobytes(), self._identity, number)

    def _learn_synced(self, records: NDArray[np.void]) -> None:
        """The last intact record of a block says how many records had been on the disk."""
        for i in np.flatnonzero(records["kind"] == BLOCK)[::-1].tolist():
            if self._is_intact(records[i], self._number + i):
                self._synced = max(self._synced, int(records[i]["synced"]))
                return

    def _take(self, records: NDArray[np.void]) -> int:
        """Count in the blocks that are whole; return how many records they and theirs are."""
        everything = np.arange(len(records))
        if self._is_strict:
            return self._accept(records, everything)
        # Of the records that an fsync covered those of places and the last block's are enough.
        kinds = records["kind"][: max(self._synced - self._number, 0)]
        blocks = np.flatnonzero(kinds == BLOCK)
        if not len(blocks):
            return self._accept(records, everything)
        known = int(blocks[-1])
        enough = [np.flatnonzero(kinds[:known] == PLACE), everything[known:]]
        taken = self._accept(records, np.concatenate(enough))
        return taken or self._accept(records, everything)

    def _accept(self, records: NDArray[np.void], which: NDArray[np.int64]) -> int:
        taken, places = 0, list[tuple[int, int]]()  # of the next block's new chunks
        for i in which.tolist():
            record, number = records[i], self._number + i
            if not self._is_intact(record, number):
                break
            if record["kind"] == PLACE:
                dataset, (chunk, address) = int(record["dataset"]), record["numbers"][:2].tolist()
                coming = sum(other == dataset for other, _ in places)
                if dataset >= len(_LAYOUT) or chunk != len(self._places[dataset]) + coming:
                    break
                places.append((dataset, address))
            elif record["kind"] == BLOCK:
                before = [len(known) for known in self._places]
                for dataset, address in places:
                    self._places[dataset].append(address)
                if not self._is_whole(record, number < self._synced and not self._is_strict):
                    for known, count in zip(self._places, before, strict=True):
                        del known[count:]
                    break
                self.lengths, places, taken = record["numbers"].tolist(), [], i + 1
        return taken

    def _is_whole(self, record: np.void, is_synced: bool) -> bool:
        """Whether what a block added is in the file, or was."""
        lengths, total = record["numbers"].tolist(), 0
        for dataset, (dtype, chunk) in enumerate(_LAYOUT):
            first, last = self.lengths[dataset], lengths[dataset]
            if not first <= last <= len(self._places[dataset]) * chunk:
                return False
            total += last * dtype.itemsize
            wanted = int(record["checksums"][dataset])
            if not is_synced and (
                total > self._file.size or self._checksum(dataset, first, last) != wanted
            ):
                return False
        return True

    def _in_file(self, dataset: int) -> int:
        """How many elements at the start lie within the file: it may have been cut."""
        dtype, chunk = _LAYOUT[dataset]
        starts = np.array(self._places[dataset], np.int64)
        rows = np.clip((self._file.size - starts) // dtype.itemsize, 0, chunk)
        rows[starts < 0] = 0
        cut = np.flatnonzero(rows < chunk)[:1]
        there = int(rows[: int(cut[0]) + 1].sum()) if len(cut) else len(rows) * chunk
        # Places may be forged to lie upon one another: all together are no more than the file.
        return min(there, self.lengths[dataset], self._file.size // dtype.itemsize)

    def _checksum(self, dataset: int, first: int, last: int) -> int:
        """Of the elements `first` to `last`; -1 where they are not all in the file."""
        size, crc = _LAYOUT[dataset][0].itemsize, 0
        for address, begin, end in _spans(self._places[dataset], dataset, first, last):
            stop = address + (end - begin) * size
            if address < 0 or stop > self._file.size:
                return -1
            for at in range(address, stop, _PART):
                crc = checksum(self._file.pread(min(_PART, stop - at), at), crc)
        return crc

    def _note_rest(self, records: NDArray[np.void], first: int, taken: int) -> None:
        """Count the events of blocks that are there and do not count."""
        last, self.is_torn = self.event_count, first + taken >= self._synced
        for i in np.flatnonzero(records["kind"][taken:] == BLOCK).tolist():
            if self._is_intact(records[taken + i], first + taken + i):
                last = max(last, int(records[taken + i]["numbers"][_EVENTS]))
        self.left_out = last - self.event_count


class JournalledDataset:
    """A dataset of a live file, read by what its journal says, as a GuardedDataset is."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal, self._number = journal, _NAMES.index(name)
        self.dtype = _LAYOUT[self._number][0]

    def __len__(self) -> int:
        return self._journal.lengths[self._number]

    def __getitem__(self, rows: slice) -> Array:
        """Rows `first:last`, as in numpy, in memory of their own.

        Raises:
            RecordingError: they are not in the file.
        """
        first, last, _ = rows.indices(len(self))
        if last > max(first, self.stored()):
            raise RecordingError(f"{self._journal.path} is cut short: its data is not all there")
        found: Array = np.empty(max(last - first, 0), self.dtype)
        with contained(self._journal.path):
            self._journal.read(self._number, first, found)
        return found

    def stored(self) -> int:
        """How many rows at the start lie within the file: it may have been cut."""
        return self._journal.stored[self._number]


def journal_of(file: GuardedFile) -> Journal | None:
    """The journal of a live file; None where it was made before there were journals."""
    address, identity = (file.attribute(a) for a in (fmt.ATTR_JOURNAL, fmt.ATTR_JOURNAL_ID))
    if address is None and identity is None:
        return None
    if not (isinstance(address, int) and isinstance(identity, int) and 0 <= identity < 1 << 64):
        raise RecordingError("where its journal begins is not said as it should be")
    if not 0 < address < file.size:
        raise RecordingError("its journal is outside of the file")
    return Journal(file, address, identity)


def _spans(
    places: list[int], dataset: int, first: int, last: int
) -> Iterator[tuple[int, int, int]]:
    """Where elements lie: an address, and the first of those there and the one after the last."""
    dtype, chunk = _LAYOUT[dataset]
    while first < last:
        end = min(first - first % chunk + chunk, last)
        yield places[first // chunk] + first % chunk * dtype.itemsize, first, end
        first = end
