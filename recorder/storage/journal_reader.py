"""The journal of a live file, as it is read: how much of each dataset is whole, and where it lies.

Nothing that HDF5 rewrites is asked: a loss of power may have torn it. What is whole counts, and
what is not is never taken for data. Whatever is read here may come from anyone.
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
from flexrec.recorder.storage.journal import BLOCK, EXTENT, NEXT, PLACE, RECORD, checksum, is_intact

_NAMES, _LAYOUT = tuple(fmt.LIVE_LAYOUT), tuple(fmt.LIVE_LAYOUT.values())
_BLOBS, _EVENTS = _NAMES.index(fmt.BLOBS), _NAMES.index(fmt.EVENTS)
_PART = 1 << 18  # bytes that are read at a time to take their checksum


class _Extent(NamedTuple):
    """Records that lie end to end, from one on: their number, the extent's address, and they."""

    number: int
    address: int
    records: NDArray[np.void]


class Journal:
    """Follows a live file's journal.

    A block counts when what it added fits the checksums in its record; its arrays and texts, where
    an fsync came after it, are checked when they are read. The first block that does not fit ends
    the recording.

    Args:
        file: the file.
        address: where its journal begins.
        identity: the journal's id.
        is_strict: check arrays and texts at once, too.

    Attributes:
        path: the file's.
        lengths: how many elements of each dataset count, in the order of format.LIVE_LAYOUT.
        stored: of these, how many at the start lie within the file.
        damaged: the position of the first event of a block that an fsync came after and that does
            not fit its checksums now, but others after it do; None where there is none.
        left_out: how many events follow that do not count.
        is_torn: whether no fsync had come after those: a loss of power tore them. Else they were
            damaged since.
    """

    def __init__(
        self, file: UntrustedFile, address: int, identity: int, *, is_strict: bool = False
    ) -> None:
        self.path = file.path
        self._file, self._identity, self._is_strict = file, identity, is_strict
        self._start = address
        self._number, self._extent = 0, address  # of the first record that is not taken yet
        self._synced = 0  # how many records are known to have been on the disk
        self._places: list[list[int]] = [[] for _ in _LAYOUT]  # of each dataset's chunks
        self.lengths, self.stored = [0] * len(_LAYOUT), [0] * len(_LAYOUT)
        self.left_out, self.is_torn = 0, False
        self.damaged: int | None = None
        # Of each block where its arrays end among the blobs, their checksum, and whether it fits.
        self._arrays = array("q"), array("L"), bytearray()
        self.refresh()

    @property
    def event_count(self) -> int:
        """How many events count."""
        return self.lengths[_EVENTS]

    def refresh(self) -> None:
        """Take in what was recorded since."""
        self._file.refresh()
        extents = list(self._extents())
        # What a record speaks of was written before it: the file is as long as that by now.
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
        """The same, read anew, with every checksum checked."""
        return Journal(self._file, self._start, self._identity, is_strict=True)

    def accept_arrays(self) -> None:
        """Have arrays and texts read as they are."""
        checked = self._arrays[2]
        checked[:] = b"\1" * len(checked)

    def read(self, dataset: int, first: int, into: Array) -> None:
        """Fill an array with a dataset's elements, from the one numbered `first` on."""
        if dataset == _BLOBS and len(into):
            self._check_arrays(first, first + len(into))
        for address, begin, end in _spans(self._places[dataset], dataset, first, first + len(into)):
            self._file.read_into(into[begin - first : end - first], address)

    # ------------------------------------------------------------------ records

    def _extents(self) -> Iterator[_Extent]:
        """The records from the first on that is not taken yet; most of them are not checked."""
        number, address = self._number, self._extent
        room = self._file.size // RECORD.itemsize  # extents that lie upon one another are forged
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
        """How many records at the start are as they were written."""
        data, size = memoryview(records.tobytes()), RECORD.itemsize
        for i in range(len(records)):
            if not is_intact(data[i * size : (i + 1) * size], self._identity, self._number + i):
                return i
        return len(records)

    def _last_known(self, records: NDArray[np.void], intact: int) -> np.void | None:
        """The last record of a block, also one behind a record that is damaged."""
        for i in np.flatnonzero(records["kind"] == BLOCK)[::-1].tolist():
            if i < intact or is_intact(records[i].tobytes(), self._identity, self._number + i):
                found: np.void = records[i]
                return found
        return None

    def _take(self, records: NDArray[np.void]) -> int:
        """Count in the blocks that are whole; return how many records they and theirs are."""
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
        """How many records there are before the first place that is not the next chunk's."""
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
        """How many blocks count: the first that does not fit its checksums ends the recording, but
        for those of which an fsync said that they were whole; these do only at the very end.

        Args:
            lengths: (blocks + 1, datasets) how many elements there were before and after each.
            wanted: (blocks, datasets) the checksums.
            synced: how many of the blocks were on the disk.
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
        """Find which blocks, from `first` on, do not fit their checksums.

        What was on the disk and lies beyond the end of the file is not looked at: the file was
        cut, and as much as is left counts.
        """
        size = _LAYOUT[dataset][0].itemsize
        grown = first + np.flatnonzero(lengths[first + 1 :] > lengths[first:-1])
        data, begun, ended = memoryview(b""), 0, 0  # the bytes of elements from one to another
        for i in grown.tolist():
            begin, end = int(lengths[i]), int(lengths[i + 1])
            if _PART < (end - begin) * size <= end * size <= self._file.size:
                found, is_there = self._checksum(dataset, begin, end)
                if is_there or i >= synced:
                    fits[i] &= is_there and found == int(wanted[i])
                continue
            if not begun <= begin < end <= ended:
                begun, ended = begin, max(end, min(begin + _PART // size, int(lengths[-1])))
                # All together are no more than the file: places may be forged to lie upon another.
                is_there = end * size <= self._file.size
                data = self._bytes(dataset, begun, ended) if is_there else memoryview(b"")
            part = data[(begin - begun) * size : (end - begun) * size]
            if len(part) == (end - begin) * size:
                fits[i] &= checksum(part) == int(wanted[i])
            elif i >= synced:
                fits[i] = False
                return

    def _bytes(self, dataset: int, first: int, last: int) -> memoryview:
        """The elements `first` to `last`, or as many as are in the file."""
        size, parts = _LAYOUT[dataset][0].itemsize, list[bytes]()
        for address, begin, end in _spans(self._places[dataset], dataset, first, last):
            wanted = (end - begin) * size
            there = min(wanted, self._file.size - address) if address >= 0 else 0
            parts.append(self._file.pread(max(there, 0), max(address, 0)) if there > 0 else b"")
            if there < wanted:
                break
        return memoryview(b"".join(parts))

    def _checksum(self, dataset: int, first: int, last: int) -> tuple[int, bool]:
        """Of the elements `first` to `last`, and whether all of them are in the file."""
        step, crc = max(_PART // _LAYOUT[dataset][0].itemsize, 1), 0
        for at in range(first, last, step):
            end = min(at + step, last)
            part = self._bytes(dataset, at, end)
            if len(part) < (end - at) * _LAYOUT[dataset][0].itemsize:
                return crc, False
            crc = checksum(part, crc)
        return crc, True

    def _check_arrays(self, first: int, last: int) -> None:
        """Check the arrays and texts of the blocks that have these bytes of them."""
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
        """How many elements at the start lie within the file: it may have been cut."""
        dtype, chunk = _LAYOUT[dataset]
        starts = np.array(self._places[dataset], np.int64)
        rows = np.clip((self._file.size - starts) // dtype.itemsize, 0, chunk)
        rows[starts < 0] = 0
        cut = np.flatnonzero(rows < chunk)[:1]
        there = int(rows[: int(cut[0]) + 1].sum()) if len(cut) else len(rows) * chunk
        # Places may be forged to lie upon one another: all together are no more than the file.
        return min(there, self.lengths[dataset], self._file.size // dtype.itemsize)


class JournalledDataset:
    """A dataset of a live file, read by what its journal says, as a UntrustedDataset is."""

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
            raise DamagedError(f"{self._journal.path} is cut short: its data is not all there")
        found: Array = np.empty(max(last - first, 0), self.dtype)
        self._journal.read(self._number, first, found)
        return found

    def damaged(self, what: str) -> DamagedError:
        """The error that names the file, and says what is wrong in it."""
        return DamagedError.of(self._journal.path, what)

    def stored(self) -> int:
        """How many rows at the start lie within the file: it may have been cut."""
        return self._journal.stored[self._number]


def journal_of(file: UntrustedFile) -> Journal | None:
    """The journal of a live file; None where it was made before there were journals."""
    address, identity = (file.attribute(a) for a in (fmt.ATTR_JOURNAL, fmt.ATTR_JOURNAL_ID))
    if address is None and identity is None:
        return None
    if not (isinstance(address, int) and isinstance(identity, int) and 0 <= identity < 1 << 64):
        raise file.damaged("where its journal begins is not said as it should be")
    if not 0 < address < file.size:
        raise file.damaged("its journal is outside of the file")
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


def _leading(true: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(true) if true.all() else int(true.argmin())
