"""The live file: created once, then appended to. It buffers nothing and owns no thread.

What the layout rests on was measured: SWMR with every dataset made up front, no chunk cache and
no compression lost nothing in 700 kills, and exits cleanly on a full disk (docs/format.md).
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p

from flexrec.recorder import format as fmt
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.events import Array

__all__ = ["SMALL", "Block", "LiveFile"]

# Elements. HDF5 takes longer to say where a chunk lies the more there are (0.2 µs for each), so
# they are large; what is not yet written of one is a hole, and takes no space on most disks.
_CHUNKS = {
    fmt.SCHEMA: ("u1", 1 << 14),
    fmt.BLOBS: ("u1", 1 << 23),
    fmt.VALUES: ("<f8", 1 << 17),
    fmt.EVENTS: (fmt.EVENT, 1 << 15),
}
SMALL = 1 << 18  # bytes: arrays smaller than this are joined before they are written


@dataclass
class Block:
    """What one flush appends. Offsets in `values` and `events` are absolute."""

    schema: bytes = b""
    blobs: Sequence[Array] = field(default_factory=list)
    values: Array = field(default_factory=lambda: np.empty(0))
    events: Array = field(default_factory=lambda: np.empty(0, fmt.EVENT))


class LiveFile:
    """An HDF5 file in SWMR mode that is appended to, block by block.

    A block that could not be written (a full disk, say) can be given again: positions advance
    only when the whole block is in the file.

    Attributes:
        lengths: of each dataset, how much of it counts.
    """

    def __init__(
        self, path: Path, *, config: Any, facts: Any, created: float | None = None
    ) -> None:
        self.created = time.time() if created is None else created
        self.lengths = dict.fromkeys(_CHUNKS, 0)
        pairs = ((fmt.CONFIG, config), (fmt.FACTS, facts))
        texts = {name: _json_bytes(name, value) for name, value in pairs}  # before a file is made
        self._file = h5py.File(path, "w", libver=fmt.LIBVER, rdcc_nbytes=0, locking=False)
        self._file.attrs.update(fmt.root_attributes(fmt.LIVE, self.created))
        for name, data in texts.items():
            self._file[name] = data
        early = h5p.create(h5p.DATASET_CREATE)
        early.set_alloc_time(h5d.ALLOC_TIME_EARLY)  # resizing makes the chunks
        self._datasets = {
            name: self._file.create_dataset(
                name, (0,), dtype, chunks=(chunk,), maxshape=(None,), fill_time="never", dcpl=early
            )
            for name, (dtype, chunk) in _CHUNKS.items()
        }
        self._places = dict.fromkeys(_CHUNKS, (-1, 0))  # of the chunk that is being filled
        self._file.swmr_mode = True
        self._descriptor: int = self._file.id.get_vfd_handle()

    @property
    def event_count(self) -> int:
        """How many events it holds."""
        return self.lengths[fmt.EVENTS]

    @property
    def value_count(self) -> int:
        """How many values it holds."""
        return self.lengths[fmt.VALUES]

    @property
    def blob_bytes(self) -> int:
        """How many bytes of arrays and texts it holds."""
        return self.lengths[fmt.BLOBS]

    def append(self, block: Block) -> None:
        """Write a block, and let it count."""
        self.lengths = self.write(block)

    def write(self, block: Block) -> dict[str, int]:
        """Write a block: first what its events point at, flushed, then the events.

        Returns:
            What is to become of `lengths`; until then the next block takes the same place.
        """
        ends = {
            fmt.SCHEMA: self._put(fmt.SCHEMA, [np.frombuffer(block.schema, "u1")]),
            fmt.BLOBS: self._put(fmt.BLOBS, _joined(block.blobs)),
            fmt.VALUES: self._put(fmt.VALUES, [block.values]),
        }
        self._file.flush()
        try:
            ends[fmt.EVENTS] = self._put(fmt.EVENTS, [block.events])
        except (OSError, RuntimeError):
            # Rows that were made room for and not written must not come to count.
            with suppress(OSError, RuntimeError):
                self._datasets[fmt.EVENTS].resize((self.event_count,))
            raise
        self._file.flush()
        return ends

    def fsync(self) -> None:
        """Make what was appended survive a loss of power too."""
        os.fsync(self._descriptor)

    def detach(self) -> None:
        """In a forked child: from now on nothing that HDF5 does here reaches the file."""
        if self._descriptor < 0:
            return  # closed: the number may be another file's by now
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._descriptor)
        os.close(null)

    def is_at(self, path: Path) -> bool:
        """Whether it is still the file at this path: nobody deleted, moved or replaced it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except OSError:
            return False

    def duplicate(self) -> int:
        """A descriptor by which it can be read after `close`, even where it was deleted."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Close the file, leaving it in the live layout."""
        self._descriptor = -1
        self._file.close()

    def _put(self, name: str, pieces: Sequence[Array]) -> int:
        """Write pieces behind what a dataset holds; return how long it is then.

        HDF5 only makes room. It would hold Python's lock while the disk is slow, and training
        would wait; there is no cache of chunks that it could write over these bytes.
        """
        dataset, end = self._datasets[name], self.lengths[name]
        total = end + sum(map(len, pieces))
        if total > end:
            dataset.resize((total,))
        chunk = dataset.chunks[0]
        for piece in pieces:
            first = 0
            while first < len(piece):
                start, within = self._place(name, end // chunk), end % chunk
                last = min(first + chunk - within, len(piece))
                data = piece[first:last].view("u1")
                _write(self._descriptor, data, start + within * piece.itemsize)
                end, first = end + last - first, last
        return end

    def _place(self, name: str, number: int) -> int:
        """Where a chunk lies in the file."""
        known, start = self._places[name]
        if known != number:
            dataset = self._datasets[name]
            start = dataset.id.get_chunk_info_by_coord((number * dataset.chunks[0],)).byte_offset
            self._places[name] = number, start
        return start


def _write(descriptor: int, data: Array, offset: int) -> None:
    """Write all of the bytes at a place of the file."""
    rest = data.data
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _json_bytes(name: str, value: Any, *, is_part: bool = False) -> Array:
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
        return np.frombuffer(text.encode(), "u1")
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(value, Mapping) and not is_part:
            for key, part in value.items():  # which of them it is
                _json_bytes(f"{name}[{key!r:.80}]", part, is_part=True)
        raise RecordingError(f"{name} must be plain JSON data: {error}") from None


def _plain(value: object) -> Any:
    """What JSON has in place of a value that it has not."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"JSON has no {type(value).__name__}")


def _joined(arrays: Sequence[Array]) -> list[Array]:
    """The arrays' bytes, small neighbours joined, so that each write is worth its overhead."""
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
