"""Between a file of unknown origin and whoever reads it. Nothing here knows what a recording holds.

HDF5 is asked only where things lie. Links, types, layouts, filters and sizes are checked before
anything is followed or memory is taken; the data itself is read and inflated here, chunk by chunk,
so that no filter, cache or conversion of HDF5's runs on it (docs/hostile_files.md).
"""

import os
import struct
import weakref
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5z

from flexrec.recorder.errors import NotARecordingError, RecordingError
from flexrec.recorder.events import Array
from flexrec.recorder.superblock import SIGNATURE, SIZE, Superblock, UnclosedFile

__all__ = ["GuardedDataset", "GuardedFile", "contained"]

# What h5py, numpy, zlib and Python raise over data that is not what it should be.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_MOST_DEFLATED = 1032  # deflate stores no more than so many bytes in one
_ROOM, _ROOM_RATIO = 256 << 20, 64  # bytes that one thing may take, at least; and per byte of file
_CHUNK_BYTES = 16 << 20  # no recorder makes larger chunks
_ATTRIBUTE_BYTES = 1 << 10
_FILTERS = (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE)  # in this order


@contextmanager
def contained(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is a RecordingError that names the file."""
    try:
        yield
    except RecordingError as error:
        message = str(error)
        if str(path) in message:
            raise
        raise type(error)(f"{path} is damaged: {message}") from None
    except _FAILURES as error:
        raise RecordingError(f"{path} is damaged: {_told(error)}") from None


def _told(error: BaseException) -> str:
    """What an error says, without the quotes that KeyError puts around it."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return said[:200] or type(error).__name__


class GuardedFile:
    """An HDF5 file, read without trusting it.

    Raises:
        NotARecordingError: it is not HDF5, or not of the kind that flexrec writes.
        RecordingError: it is not there, cut short or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            kind = "is not a file" if path.exists() and not path.is_dir() else kind
            raise RecordingError(f"{path} {kind}; give the path of a recording")
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RecordingError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            self.size: int = os.fstat(self._descriptor).st_size
            self._open()
        except BaseException:
            os.close(self._descriptor)
            raise
        # Also before the interpreter ends: HDF5 would close an UnclosedFile when it is gone.
        self._close = weakref.finalize(self, _close, self._file, self._descriptor)

    def _open(self) -> None:
        head = os.pread(self._descriptor, SIZE, 0)
        block = Superblock.parse(head)
        if not head.startswith(SIGNATURE):
            raise NotARecordingError(f"{self.path} is not an HDF5 file")
        if block is None:
            raise NotARecordingError(
                f"{self.path} is an HDF5 file, but not a recording of flexrec's"
            )
        if not block.sound:
            raise RecordingError(f"{self.path} is damaged: its first bytes are not as written")
        self.unclosed = bool(block.flags)
        self.cut_short = self.size < block.end and not block.flags
        file = None
        try:
            file = self._file = self._hdf5()
            self._root = h5o.open(file.id, b"/")
        except _FAILURES as error:
            if file is not None:
                file.close()
            told = _told(error)
            if self.cut_short:
                told = f"it is cut short, {self.size:,} bytes of {block.end:,} are left"
            raise RecordingError(f"{self.path} is damaged: {told}") from None

    def _hdf5(self) -> h5py.File:
        if not self.unclosed and not self.cut_short:
            file = h5py.File(self.path, "r")
            if os.path.sameopenfile(file.id.get_vfd_handle(), self._descriptor):
                return file
            file.close()  # another file was renamed to the path meanwhile
        return h5py.File(UnclosedFile(self._descriptor), "r", locking=False)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._close()

    def refresh(self) -> None:
        """Look how large the file is now."""
        self.size = os.fstat(self._descriptor).st_size

    def attribute(self, name: str) -> bytes | int | float | None:
        """A root attribute: one number or one short text; None where there is none.

        Raises:
            RecordingError: it is something else.
        """
        with contained(self.path):
            if not h5a.exists(self._root, name.encode()):
                return None
            found = h5a.open(self._root, name.encode())
            dtype = found.dtype
            if found.shape != () or dtype.kind not in "iufS" or dtype.itemsize > _ATTRIBUTE_BYTES:
                raise RecordingError(f"the attribute {name!r} is no number and no short text")
            value = np.empty((), dtype)
            found.read(value)
            item: bytes | int | float = value.item()
            return item

    def dataset(
        self, path: str, dtypes: Collection[np.dtype[Any]], width: int | None = None
    ) -> "GuardedDataset":
        """A dataset of rows: of one of the dtypes, and of so many columns (None: of none).

        Raises:
            RecordingError: there is none, or it is not what it should be.
        """
        with contained(self.path):
            return GuardedDataset(self, path, self._object(path), dtypes, width)

    def allow(self, nbytes: int, what: str) -> None:
        """Refuse to take so much memory where the file is far smaller.

        Raises:
            RecordingError: it is out of proportion.
        """
        if nbytes > max(_ROOM, _ROOM_RATIO * self.size):
            raise RecordingError(
                f"{self.path} is out of proportion: {what} would take {nbytes:,} bytes of memory, "
                f"from a file of {self.size:,}"
            )

    def pread(self, size: int, offset: int) -> bytes:
        """Bytes of the file, all of them there."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise RecordingError(f"{size:,} bytes at {offset:,} are outside of the file")
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:
            raise RecordingError("the file became shorter while it was read")
        return data

    def _object(self, path: str) -> h5d.DatasetID:
        """Go to a dataset by hard links alone: no other file is opened, no loop is followed."""
        found = self._root
        for name in path.encode().split(b"/"):
            if not isinstance(found, h5g.GroupID):
                raise RecordingError(f"{path} is missing")
            links = found.links
            try:
                kind = links.get_info(name).type
            except (KeyError, RuntimeError):
                if links.exists(name):
                    raise
                raise RecordingError(f"{path} is missing") from None
            if kind != h5l.TYPE_HARD:
                raise RecordingError(f"{path} is a link to elsewhere: it is not followed")
            found = h5o.open(found, name)
        if not isinstance(found, h5d.DatasetID):
            raise RecordingError(f"{path} is not a dataset")
        return found


class GuardedDataset:
    """Rows of one dtype: `dataset[first:last]`. Made by `GuardedFile.dataset`."""

    def __init__(
        self,
        file: GuardedFile,
        path: str,
        found: h5d.DatasetID,
        dtypes: Collection[np.dtype[Any]],
        width: int | None,
    ) -> None:
        self._file, self._path, self._id = file, path, found
        plan = found.get_create_plist()
        self._contiguous = plan.get_layout() == h5d.CONTIGUOUS
        if not self._contiguous and plan.get_layout() != h5d.CHUNKED:
            raise RecordingError(f"{path} is laid out in a way that is not read (virtual, compact)")
        if self._contiguous and plan.get_external_count():
            raise RecordingError(f"{path} lies in another file, which is not read")
        self.dtype: np.dtype[Any] = found.dtype
        if self.dtype not in dtypes:
            wanted = " or ".join(map(str, dtypes))
            raise RecordingError(f"{path} holds {self.dtype!s:.80}, not {wanted}")
        self._width = width
        self._row: int = (1 if width is None else width) * self.dtype.itemsize  # bytes
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        if filters != [code for code in _FILTERS if code in filters]:
            raise RecordingError(f"{path} is compressed in a way that is not read: {filters}")
        self._filters = filters
        self._length = self._measured()
        self._chunk = 0 if self._contiguous else self._chunk_rows(plan)
        self._known = 0  # chunks at the start that lie whole in the file, as `stored` found
        logical = self._length * self._row
        if self._filters and logical > _MOST_DEFLATED * file.size:
            raise RecordingError(f"{path} claims {logical:,} bytes, more than the file can hold")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: slice) -> Array:
        """Rows `first:last`, as in numpy, in memory of their own.

        Raises:
            RecordingError: they are not in the file, or damaged.
        """
        first, last, _ = rows.indices(self._length)
        with contained(self._file.path):
            return self._rows(first, max(first, last))

    @property
    def stored_bytes(self) -> int:
        """How many bytes of the file it takes."""
        return int(self._id.get_storage_size())

    def stored(self) -> int:
        """How many rows at the start lie within the file; of an uncompressed dataset.

        A file that was cut short, or killed before all was written, claims more.
        """
        if self._contiguous:
            place: int | None = self._id.get_offset()
            there = 0 if place is None else max(self._file.size - place, 0) // self._row
            return min(there, self._length)
        while self._known * self._chunk < self._length:
            try:
                start, size, mask = self._place(self._known)
            except (RecordingError, OSError, RuntimeError, ValueError):
                break
            if size != self._chunk * self._row or mask:
                break
            if start + size > self._file.size:
                there = max(self._file.size - start, 0) // self._row
                return min(self._known * self._chunk + there, self._length)
            self._known += 1
        return min(self._known * self._chunk, self._length)

    def refresh(self) -> None:
        """Look how long the dataset is now, while it is being written."""
        with contained(self._file.path):
            self._id.refresh()
            self._file.refresh()
            self._length = self._measured()

    # ------------------------------------------------------------------ inside

    def _rows(self, first: int, last: int) -> Array:
        count = last - first
        shape = (count,) if self._width is None else (count, self._width)
        nbytes = count * self._row
        if not nbytes:
            return np.empty(shape, self.dtype)
        if self._filters:
            self._file.allow(nbytes, self._path)
        elif nbytes > self._file.size:
            raise RecordingError(f"{self._path} claims more than the file holds")
        flat = np.empty((count, self._row), np.uint8)
        if self._contiguous:
            start = self._id.get_offset()
            if start is None:
                raise RecordingError(f"{self._path} is not in the file")
            flat[:] = self._bytes(self._file.pread(nbytes, start + first * self._row))
        else:
            self._read_chunks(first, last, flat)
        return flat.reshape(-1).view(self.dtype).reshape(shape)

    def _measured(self) -> int:
        shape: tuple[int, ...] = self._id.shape or ()
        wanted = () if self._width is None else (self._width,)
        if len(shape) != 1 + len(wanted) or shape[1:] != wanted:
            raise RecordingError(f"{self._path} has the shape {shape!s:.80}")
        return int(shape[0])

    def _chunk_rows(self, plan: Any) -> int:
        chunk: tuple[int, ...] = plan.get_chunk()
        if len(chunk) != len(self._id.shape) or chunk[1:] != self._id.shape[1:] or not self._row:
            raise RecordingError(f"{self._path} has chunks of {chunk!s:.80}")
        if not 0 < chunk[0] * self._row <= _CHUNK_BYTES:
            raise RecordingError(f"{self._path} has chunks of {chunk[0] * self._row:,} bytes")
        return int(chunk[0])

    def _place(self, chunk: int) -> tuple[int, int, int]:
        """Where a chunk lies, its bytes there, and which filters were left out for it."""
        where = (chunk * self._chunk, 0)[: 1 if self._width is None else 2]
        info = self._id.get_chunk_info_by_coord(where)
        if info.byte_offset is None:
            raise RecordingError(f"a part of {self._path} is not in the file")
        return int(info.byte_offset), int(info.size), int(info.filter_mask)

    def _read_chunks(self, first: int, last: int, flat: Array) -> None:
        whole = self._chunk * self._row
        for chunk in range(first // self._chunk, -(-last // self._chunk)):
            base = chunk * self._chunk
            low, high = max(first, base), min(last, base + self._chunk)
            start, size, mask = self._place(chunk)
            into = flat[low - first : high - first]
            if not self._filters:
                if size != whole:
                    raise RecordingError(f"a part of {self._path} has another size than it should")
                offset = start + (low - base) * self._row
                into[:] = self._bytes(self._file.pread(into.nbytes, offset))
                continue
            if size > whole + whole // 1000 + 64:
                raise RecordingError(f"a part of {self._path} is larger than what it holds")
            data = self._unfiltered(self._file.pread(size, start), mask, whole)
            into[:] = data[low - base : high - base]

    def _bytes(self, data: bytes) -> Array:
        return np.frombuffer(data, np.uint8).reshape(-1, self._row)

    def _unfiltered(self, data: bytes, mask: int, whole: int) -> Array:
        """A chunk's rows; memory is bounded by what a chunk holds, whatever it inflates to.

        zlib checks a checksum of what it inflated.
        """
        used = [code for i, code in enumerate(self._filters) if not mask >> i & 1]
        if h5z.FILTER_DEFLATE in used:
            stream = zlib.decompressobj()
            data = stream.decompress(data, whole + 1)
            if not stream.eof:
                raise RecordingError(
                    f"a part of {self._path} does not inflate to what it should hold"
                )
        if len(data) != whole:
            raise RecordingError(f"a part of {self._path} has another size than it should")
        itemsize = self.dtype.itemsize
        if h5z.FILTER_SHUFFLE in used and itemsize > 1:
            shuffled = np.frombuffer(data, np.uint8).reshape(itemsize, -1)
            return np.ascontiguousarray(shuffled.T).reshape(-1, self._row)
        return self._bytes(data)


def _close(file: h5py.File, descriptor: int) -> None:
    file.close()
    os.close(descriptor)
