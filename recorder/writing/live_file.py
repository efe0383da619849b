"""LiveFile: an HDF5 file in SWMR mode that is only appended to. No buffering, no threads.

The layout was chosen by measurement: SWMR with all datasets created up front, no chunk cache and
no compression lost nothing in 700 kills, and exits cleanly on a full disk (docs/format.md).
"""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5p

from flexrec.recorder.events import Array
from flexrec.recorder.files.descriptors import sync
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.journal.records import checksum
from flexrec.recorder.storage.summary.contents import live_body
from flexrec.recorder.storage.summary.head import sealed
from flexrec.recorder.writing.config import as_json
from flexrec.recorder.writing.journal_writer import JournalWriter, Slot, write_all
from flexrec.recorder.writing.values.copies import SMALL

_LAYOUT = tuple(fmt.LIVE_LAYOUT.items())
_SCHEMA, _BLOBS, _VALUES, _EVENTS = range(len(_LAYOUT))


@dataclass
class Block:
    """The data that one flush appends. Offsets in `values` and `events` are absolute."""

    schema: bytes = b""
    blobs: Sequence[Array] = field(default_factory=list)
    values: Array = field(default_factory=lambda: np.empty(0))
    events: Array = field(default_factory=lambda: np.empty(0, fmt.EVENT))


class Position(NamedTuple):
    """The end of the data that counts.

    Attributes:
        lengths: the number of elements of each dataset, in the order of format.LIVE_LAYOUT.
        chunks: the number of chunks of each dataset whose addresses are in the journal.
        slot: where the next record of the journal goes.
    """

    lengths: tuple[int, ...]
    chunks: tuple[int, ...]
    slot: Slot


class LiveFile:
    """An HDF5 file in SWMR mode that is appended to, block by block.

    If a block cannot be written, for example on a full disk, it or another block can be written
    again in its place: the position advances only when the whole block is in the file. Datasets are
    never shrunk, so allocated chunks keep their place.

    Attributes:
        position: the end of the data that counts.
        is_sync_lost: whether an fsync ever failed. Data written before it may then never reach the
            disk, even if a later fsync succeeds: the system discards pages it could not write.
    """

    def __init__(
        self, path: Path, *, config: Any, facts: Any, created: float | None = None
    ) -> None:
        self.created = time.time() if created is None else float(created)
        self.is_sync_lost = False
        # Encoded first, so that an error leaves no file.
        pairs = ((fmt.CONFIG, config), (fmt.FACTS, facts))
        texts = {name: as_json(name, value).encode() for name, value in pairs}
        summary = live_body(self.created, texts[fmt.CONFIG], texts[fmt.FACTS])
        texts = {fmt.SUMMARY: sealed(summary, 0), **texts}
        self._file: Any = h5py.File(path, "w", libver=fmt.LIBVER, rdcc_nbytes=0, locking=False)
        try:
            self._begin(texts)
        except BaseException:
            with suppress(OSError, RuntimeError):
                self._file.close()
            raise

    def _begin(self, texts: Mapping[str, bytes]) -> None:
        """Create all attributes and datasets, and start SWMR mode."""
        self._file.attrs.update(fmt.root_attributes(fmt.LIVE, self.created))
        sums = [checksum(texts[name]) << bits for name, bits in ((fmt.CONFIG, 0), (fmt.FACTS, 32))]
        self._file.attrs[fmt.ATTR_TEXT_CHECKSUMS] = np.uint64(sum(sums))
        for name, data in texts.items():
            _write_text(self._file, name, data)
        self._ids = [_growing(self._file, name, dtype, chunk) for name, (dtype, chunk) in _LAYOUT]
        self._descriptor: int = self._file.id.get_vfd_handle()
        os.set_inheritable(self._descriptor, False)  # else a program that is started keeps the file
        self._journal = JournalWriter(self._file)
        none = (0,) * len(_LAYOUT)
        self.position = Position(none, none, self._journal.start)
        self._room = [0] * len(_LAYOUT)  # the datasets' lengths in HDF5
        self._places = [(-1, 0)] * len(_LAYOUT)  # number and address of the chunk being filled
        self._file.swmr_mode = True

    @property
    def event_count(self) -> int:
        """The number of events in the file."""
        return self.position.lengths[_EVENTS]

    @property
    def value_count(self) -> int:
        """The number of values in the file."""
        return self.position.lengths[_VALUES]

    @property
    def blob_bytes(self) -> int:
        """The number of bytes of arrays and strings in the file."""
        return self.position.lengths[_BLOBS]

    def append(self, block: Block) -> None:
        """Write a block and advance the position."""
        self.position = self.write(block)

    def write(self, block: Block) -> Position:
        """Write a block without advancing the position.

        The data that events point at is written and flushed first, then the events, then the
        journal's records, which make the block visible to flexrec's reader.

        Returns:
            The new `position`; until it is set, the next block is written to the same place.
        """
        parts = _Parts(self.position)
        self._put(parts, _SCHEMA, [np.frombuffer(block.schema, "u1")])
        self._put(parts, _BLOBS, _joined(block.blobs))
        self._put(parts, _VALUES, [block.values])
        self._flush()
        self._put(parts, _EVENTS, [block.events])
        self._flush()
        slot = self._journal.write(self.position.slot, parts.places, parts.lengths, parts.checksums)
        return Position(tuple(parts.lengths), tuple(parts.chunks), slot)

    def fsync(self) -> None:
        """Sync the file to disk, so that its data survives a loss of power.

        Raises:
            OSError: this fsync failed.
        """
        slot = self.position.slot
        try:
            sync(self._descriptor)
        except OSError:
            self.is_sync_lost = True
            raise
        if not self.is_sync_lost:
            self._journal.synced = slot.number

    def detach(self) -> None:
        """In a forked child: close the file in this process's HDF5 without writing to it.

        If it stayed open, HDF5 would mistake another file with the same inode number for it.
        """
        if self._descriptor < 0:
            return  # closed: the descriptor may belong to another file by now
        instead = _nowhere(os.fstat(self._descriptor).st_size)
        os.dup2(instead, self._descriptor)
        os.close(instead)
        with suppress(OSError, RuntimeError):
            self.close()

    def is_at(self, path: Path) -> bool:
        """Whether it is still the file at this path, not deleted, moved or replaced."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except OSError:
            return False

    def duplicate(self) -> int:
        """A new descriptor, to read the file after `close` even if it was deleted."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Close the file, leaving it in the live layout; a second call does nothing.

        All h5py objects of the file are closed here, where interrupts can be held back.
        """
        self._descriptor = -1
        if self._file is not None:
            self._file.close()
        self._file, self._ids = None, []
        self._journal.close()

    def _flush(self) -> None:
        """Flush HDF5's structures, retrying once.

        After a failed flush, the next one may fail only because of it ("slist already enabled").
        """
        try:
            self._file.flush()
        except (OSError, RuntimeError) as error:
            try:
                self._file.flush()
            except (OSError, RuntimeError):
                raise error from None

    def _put(self, parts: "_Parts", dataset: int, pieces: Sequence[Array]) -> None:
        """Append pieces to a dataset.

        HDF5 only allocates the chunks; the bytes are written directly. If HDF5 wrote them, it would
        hold the GIL while the disk is slow, and training would wait. There is no chunk cache that
        HDF5 could write over these bytes.
        """
        end, crc = parts.lengths[dataset], 0
        total = end + sum(map(len, pieces))
        if total > self._room[dataset]:
            self._ids[dataset].set_extent((total,))
            self._room[dataset] = total
        chunk = _LAYOUT[dataset][1][1]
        for piece in pieces:
            first = 0
            while first < len(piece):
                start, within = self._place(parts, dataset, end // chunk), end % chunk
                last = min(first + chunk - within, len(piece))
                data = piece[first:last].view("u1").data
                crc = checksum(data, crc)
                write_all(self._descriptor, data, start + within * piece.itemsize)
                end, first = end + last - first, last
        parts.lengths[dataset], parts.checksums[dataset] = end, crc

    def _place(self, parts: "_Parts", dataset: int, number: int) -> int:
        """The address of a chunk in the file; a new chunk is noted for the journal."""
        known, start = self._places[dataset]
        if known != number:
            first = (number * _LAYOUT[dataset][1][1],)
            start = self._ids[dataset].get_chunk_info_by_coord(first).byte_offset
            self._places[dataset] = number, start
        if number == parts.chunks[dataset]:
            parts.chunks[dataset] += 1
            parts.places.append((dataset, number, start))
        return start


def _nowhere(size: int) -> int:
    """A descriptor of an unnamed file of that size, for HDF5 to write to."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("flexrec")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except OSError:  # a file size limit
        os.close(descriptor)
        return os.open(os.devnull, os.O_RDWR)
    return descriptor


class _Parts:
    """The state of a block while it is written."""

    def __init__(self, position: Position) -> None:
        self.lengths, self.chunks = list(position.lengths), list(position.chunks)
        self.checksums = [0] * len(_LAYOUT)
        self.places: list[tuple[int, int, int]] = []  # of new chunks: dataset, number, address


def _write_text(file: h5py.File, name: str, data: bytes) -> None:
    """Create a dataset of bytes. HDF5 only allocates it, as in `LiveFile._put`.

    If HDF5 wrote the bytes and failed when the dataset is closed, h5py would report no error, and
    HDF5 would crash later.
    """
    early = h5p.create(h5p.DATASET_CREATE)
    early.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    made = file.create_dataset(name, (len(data),), "u1", fill_time="never", dcpl=early)
    write_all(file.id.get_vfd_handle(), data, made.id.get_offset())


def _growing(file: h5py.File, name: str, dtype: np.dtype[Any], chunk: int) -> h5d.DatasetID:
    """Create a dataset whose chunks are allocated when it is extended."""
    early = h5p.create(h5p.DATASET_CREATE)
    early.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    made = file.create_dataset(
        name, (0,), dtype, chunks=(chunk,), maxshape=(None,), fill_time="never", dcpl=early
    )
    return made.id


def _joined(arrays: Sequence[Array]) -> list[Array]:
    """The arrays' bytes, with small neighbours joined so that there are fewer writes."""
    pieces: list[Array] = []
    small: list[bytes] = []
    size = 0
    for array in arrays:
        if array.nbytes >= SMALL:
            if small:
                pieces.append(np.frombuffer(b"".join(small), "u1"))
                small, size = [], 0
            pieces.append(array.reshape(-1).view("u1"))
        else:
            small.append(array.tobytes())
            size += array.nbytes
            if size >= SMALL:
                pieces.append(np.frombuffer(b"".join(small), "u1"))
                small, size = [], 0
    if small:
        pieces.append(np.frombuffer(b"".join(small), "u1"))
    return pieces
