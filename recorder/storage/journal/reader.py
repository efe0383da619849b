"""Read the journal of a live file: how much of each dataset is whole, and where it lies.

HDF5's own structures are not read, since a loss of power may have torn them. Only data that is
whole counts. All of it is untrusted.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DamagedError
from flexrec.recorder.events import Array
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.journal.records import (
    BLOCK,
    EXTENT,
    NEXT,
    PLACE,
    RECORD,
    checksum,
    is_intact,
)

_NAMES, _LAYOUT = tuple(fmt.LIVE_LAYOUT), tuple(fmt.LIVE_LAYOUT.values())
_BLOBS, _EVENTS = _NAMES.index(fmt.BLOBS), _NAMES.index(fmt.EVENTS)
_PART = 1 << 18  # bytes that are read at a time for a checksum


class _Extent(NamedTuple):
    """Records of one extent: the number of the first, the extent's address, and the records."""

    number: int
    address: int
    records: NDArray[np.void]


class Journal:
    """Follows a live file's journal.

    A block counts if its data matches the checksums in its record. The first block that does not
    match ends the recording. Arrays and strings of a synced block (followed by an fsync) are
    checked when they are read.

    Args:
        file: the file.
        address: the address of its journal.
        identity: the journal's id.
        is_strict: whether to check arrays and strings at once too.

    Attributes:
        path: the file's path.
        lengths: the number of elements of each dataset that count, in the order of
            format.LIVE_LAYOUT.
        stored: how many of these, from the start, lie within the file.
        damaged: the position of the first event of a synced block that does not match its
            checksums although later blocks do; None if there is none.
        left_out: the number of events after the end that do not count.
        is_torn: whether those were not synced, so that a loss of power tore them. If False, they
            were damaged later.
    """

    def __init__(
        self, file: UntrustedFile, address: int, identity: int, *, is_strict: bool = False
    ) -> None:
        self.path = file.path
        self._file, self._identity, self._is_strict = file, identity, is_strict
        self._start = address
        self._number, self._extent = 0, address  # of the first record not counted yet
        self._synced = 0  # the number of records known to be synced
        self._places: list[list[int]] = [[] for _ in _LAYOUT]  # addresses of each dataset's chunks
        self.lengths, self.stored = [0] * len(_LAYOUT), [0] * len(_LAYOUT)
        self.left_out, self.is_torn = 0, False
        self.damaged: int | None = None
        # For each block the end of its arrays in the blobs, their checksum, and whether it matches.
        self._arrays = array("q"), array("L"), bytearray()
        self.refresh()

    @property
    def event_count(self) -> int:
        """The number of events that count."""
        return self.lengths[_EVENTS]

    def refresh(self) -> None:
        """Read the records added since the last call."""
        self._file.refresh()
        extents = list(self._extents())
        # Data is written before its record, so the file has at least that size by now.
        self._file.refresh()
        records = np.concatenate([extent.records for extent in extents])
        intact = self._intact(records)
        known = self._last_known(records, intact)
        if known is not None:
            self._synced = max(self._synced, int(known["synced"]))
        first = self._number
        taken = self._take(records[:intact])
        self.stored = [self._in_file(dataset) for dataset in range(len(_LAYOUT))]
        if taken:
            self._number = first + taken
            self._extent = next(e.address for e in reversed(extents) if e.number < self._number)
        there = 0 if known is None else int(known["numbers"][_EVENTS])
        self.left_out = max(there - self.event_count, 0)
        self.is_torn = self._number >= self._synced

    def strictly(self) -> "Journal":
        """The journal read again, with every checksum checked."""
        return Journal(self._file, self._start, self._identity, is_strict=True)

    def accept_arrays(self) -> None:
        """Read arrays and strings without checking their checksums."""
        checked = self._arrays[2]
        checked[:] = b"\1" * len(checked)

    def read(self, dataset: int, first: int, into: Array) -> None:
        """Fill an array with a dataset's elements, from element `first` on."""
        if dataset == _BLOBS and len(into):
            self._check_arrays(first, first + len(into))
        for address, begin, end in _spans(self._places[dataset], dataset, first, first + len(into)):
            self._file.read_into(into[begin - first : end - first], address)

    # ------------------------------------------------------------------ records

    def _extents(self) -> Iterator[_Extent]:
        """Iterate over the records not counted yet; most of them are not checked."""
        number, address = self._number, self._extent
        room = self._file.size // RECORD.itemsize  # a limit, since forged extents may overlap
        while True:
            skip = number % EXTENT
            begin = address + skip * RECORD.itemsize
            there = min((self._file.size - begin) // RECORD.itemsize, room)
            count = min(EXTENT - skip, there) if address > 0 and there > 0 else 0
            data = self._file.pread(count * RECORD.itemsize, begin) if count else b""
            records = np.frombuffer(data, RECORD)
            yield _Extent(number, address, records)
            number, room = number + count, room - count
            is_last = count < EXTENT - skip or records[-1]["kind"] != NEXT
            if is_last or not is_intact(records[-1].tobytes(), self._identity, number - 1):
                return
            address = int(records[-1]["numbers"][0])

    def _intact(self, records: NDArray[np.void]) -> int:
        """The number of undamaged records at the start."""
        data, size = memoryview(records.tobytes()), RECORD.itemsize
        for i in range(len(records)):
            if not is_intact(data[i * size : (i + 1) * size], self._identity, self._number + i):
                return i
        return len(records)

    def _last_known(self, records: NDArray[np.void], intact: int) -> np.void | None:
        """The last record of a block, even after a damaged record."""
        for i in np.flatnonzero(records["kind"] == BLOCK)[::-1].tolist():
            if i < intact or is_intact(records[i].tobytes(), self._identity, self._number + i):
                found: np.void = records[i]
                return found
        return None

    def _take(self, records: NDArray[np.void]) -> int:
        """Count the blocks that are whole; return the number of their records."""
        records = records[: self._orderly_places(records)]
        kinds = records["kind"]
        blocks, places = np.flatnonzero(kinds == BLOCK), np.flatnonzero(kinds == PLACE)
        lengths = np.concatenate([[self.lengths], records["numbers"][blocks]])
        is_fit = np.asarray((np.diff(lengths, axis=0) >= 0).all(axis=1))
        for dataset, (_, chunk) in enumerate(_LAYOUT):
            is_new = (kinds == PLACE) & (records["dataset"] == dataset)
            known = len(self._places[dataset]) + np.cumsum(is_new)[blocks]
            is_fit &= lengths[1:, dataset] <= known * chunk
        count = _leading(is_fit)
        before = [len(known) for known in self._places]
        self._learn_places(records[places])
        synced = int(np.searchsorted(blocks, self._synced - self._number))
        count = self._whole(lengths[: count + 1], records["checksums"][blocks[:count]], synced)
        taken = int(blocks[count - 1]) + 1 if count else 0
        for chunks, length in zip(self._places, before, strict=True):
            del chunks[length:]
        self._learn_places(records[places[places < taken]])
        self.lengths = lengths[count].tolist()
        return taken

    def _orderly_places(self, records: NDArray[np.void]) -> int:
        """The number of records before the first PLACE that is not the next chunk's."""
        known = [len(places) for places in self._places]
        for i in np.flatnonzero(records["kind"] == PLACE).tolist():
            dataset = int(records["dataset"][i])
            if dataset >= len(_LAYOUT) or int(records["numbers"][i][0]) != known[dataset]:
                return i
            known[dataset] += 1
        return len(records)

    def _learn_places(self, records: NDArray[np.void]) -> None:
        for record in records:
            self._places[record["dataset"]].append(int(record["numbers"][1]))

    def _whole(self, lengths: Array, wanted: Array, synced: int) -> int:
        """The number of blocks that count.

        The first block that does not match its checksums ends the recording. Synced blocks are an
        exception: they end it only at the very end.

        Args:
            lengths: (blocks + 1, datasets) the numbers of elements before and after each block.
            wanted: (blocks, datasets) the checksums.
            synced: the number of synced blocks.
        """
        fits = np.ones(len(wanted), bool)
        for dataset in range(len(_LAYOUT)):
            first = 0 if self._is_strict or dataset != _BLOBS else synced
            self._compare(dataset, lengths[:, dataset], wanted[:, dataset], first, synced, fits)
        count = min(synced, len(fits))
        count += _leading(fits[count:])
        while count and not fits[count - 1]:
            count -= 1
        damaged = np.flatnonzero(~fits[:count])
        if len(damaged) and self.damaged is None:
            self.damaged = int(lengths[damaged[0], _EVENTS])
        ends, checksums, are_checked = self._arrays
        ends.extend(lengths[1 : count + 1, _BLOBS].tolist())
        checksums.extend(wanted[:count, _BLOBS].tolist())
        are_checked += bytes(min(synced, count)) + b"\1" * max(count - synced, 0)
        return count

    def _compare(
        self, dataset: int, lengths: Array, wanted: Array, first: int, synced: int, fits: Array
    ) -> None:
        """Find the blocks from `first` on that do not match their checksums.

        Synced data beyond the end of the file is not checked: the file was cut, and the data that
        is left counts.
        """
        size = _LAYOUT[dataset][0].itemsize
        grown = first + np.flatnonzero(lengths[first + 1 :] > lengths[first:-1])
        data, begun, ended = memoryview(b""), 0, 0  # bytes of elements begun to ended
        for i in grown.tolist():
            begin, end = int(lengths[i]), int(lengths[i + 1])
            if _PART < (end - begin) * size <= end * size <= self._file.size:
                found, is_there = self._checksum(dataset, begin, end)
                if is_there or i >= synced:
                    fits[i] &= is_there and found == int(wanted[i])
                continue
            if not begun <= begin < end <= ended:
                begun, ended = begin, max(end, min(begin + _PART // size, int(lengths[-1])))
                # Limit the total to the size of the file, since forged places may overlap.
                is_there = end * size <= self._file.size
                data = self._bytes(dataset, begun, ended) if is_there else memoryview(b"")
            part = data[(begin - begun) * size : (end - begun) * size]
            if len(part) == (end - begin) * size:
                fits[i] &= checksum(part) == int(wanted[i])
            elif i >= synced:
                fits[i] = False
                return

    def _bytes(self, dataset: int, first: int, last: int) -> memoryview:
        """The bytes of elements `first` to `last`, as far as they are in the file."""
        size, parts = _LAYOUT[dataset][0].itemsize, list[bytes]()
        for address, begin, end in _spans(self._places[dataset], dataset, first, last):
            wanted = (end - begin) * size
            there = min(wanted, self._file.size - address) if address >= 0 else 0
            parts.append(self._file.pread(max(there, 0), max(address, 0)) if there > 0 else b"")
            if there < wanted:
                break
        return memoryview(b"".join(parts))

    def _checksum(self, dataset: int, first: int, last: int) -> tuple[int, bool]:
        """The checksum of elements `first` to `last`, and whether all of them are in the file."""
        step, crc = max(_PART // _LAYOUT[dataset][0].itemsize, 1), 0
        for at in range(first, last, step):
            end = min(at + step, last)
            part = self._bytes(dataset, at, end)
            if len(part) < (end - at) * _LAYOUT[dataset][0].itemsize:
                return crc, False
            crc = checksum(part, crc)
        return crc, True

    def _check_arrays(self, first: int, last: int) -> None:
        """Check the arrays and strings of the blocks that contain these bytes."""
        ends, checksums, are_checked = self._arrays
        for i in range(bisect_right(ends, first), bisect_left(ends, last) + 1):
            begin = ends[i - 1] if i else 0
            if are_checked[i] or begin == ends[i]:
                continue
            found, is_there = self._checksum(_BLOBS, begin, ends[i])
            if is_there and found != checksums[i]:
                raise self._file.damaged("arrays or texts in it are not as they were written")
            are_checked[i] = 1

    def _in_file(self, dataset: int) -> int:
        """The number of elements within the file, which may have been cut."""
        dtype, chunk = _LAYOUT[dataset]
        starts = np.array(self._places[dataset], np.int64)
        rows = np.clip((self._file.size - starts) // dtype.itemsize, 0, chunk)
        rows[starts < 0] = 0
        cut = np.flatnonzero(rows < chunk)[:1]
        there = int(rows[: int(cut[0]) + 1].sum()) if len(cut) else len(rows) * chunk
        # Limit the total to the size of the file, since forged places may overlap.
        return min(there, self.lengths[dataset], self._file.size // dtype.itemsize)


class JournalledDataset:
    """A dataset of a live file, read through its journal; used like an UntrustedDataset."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal, self._number = journal, _NAMES.index(name)
        self.dtype = _LAYOUT[self._number][0]

    def __len__(self) -> int:
        return self._journal.lengths[self._number]

    def __getitem__(self, rows: slice) -> Array:
        """A copy of rows `first:last`, with numpy's slicing rules.

        Raises:
            RecordingError: they are not in the file.
        """
        first, last, _ = rows.indices(len(self))
        if last > max(first, self.stored()):
            raise DamagedError(f"{self._journal.path} is cut short: some of its data is missing")
        found: Array = np.empty(max(last - first, 0), self.dtype)
        self._journal.read(self._number, first, found)
        return found

    def damaged(self, what: str) -> DamagedError:
        """A DamagedError that names the file; `what` says what is wrong in it."""
        return DamagedError.of(self._journal.path, what)

    def stored(self) -> int:
        """The number of rows within the file, which may have been cut."""
        return self._journal.stored[self._number]


def journal_of(file: UntrustedFile) -> Journal | None:
    """The journal of a live file; None if the file's format had no journals yet."""
    address, identity = (file.attribute(a) for a in (fmt.ATTR_JOURNAL, fmt.ATTR_JOURNAL_ID))
    if address is None and identity is None:
        return None
    if not (isinstance(address, int) and isinstance(identity, int) and 0 <= identity < 1 << 64):
        raise file.damaged("the address or the id of its journal is invalid")
    if not 0 < address < file.size:
        raise file.damaged("its journal is outside of the file")
    return Journal(file, address, identity)


def _spans(
    places: list[int], dataset: int, first: int, last: int
) -> Iterator[tuple[int, int, int]]:
    """The spans of the elements in the file: address, first element, and end."""
    dtype, chunk = _LAYOUT[dataset]
    while first < last:
        end = min(first - first % chunk + chunk, last)
        yield places[first // chunk] + first % chunk * dtype.itemsize, first, end
        first = end


def _leading(true: NDArray[np.bool_]) -> int:
    """The number of leading true values."""
    return len(true) if true.all() else int(true.argmin())
