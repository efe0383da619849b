"""UntrustedFile: read an HDF5 file of unknown origin safely, whatever it contains.

HDF5 only locates objects. Links, types, layouts, filters and sizes are checked before a link is
followed or memory is allocated. flexrec reads and inflates the data itself, chunk by chunk, so
that none of HDF5's filters, caches or conversions run on it (docs/hostile_files.md).
"""

import os
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o

from flexrec.recorder.errors import DamagedError, NotARecordingError, RecordingError
from flexrec.recorder.events import Array
from flexrec.recorder.files.atomic_write import check_source
from flexrec.recorder.files.descriptors import open_binary, read_at, read_into
from flexrec.recorder.hdf5.dataset import UntrustedDataset
from flexrec.recorder.hdf5.errors import HDF5_ERRORS, read_error
from flexrec.recorder.hdf5.superblock import SIGNATURE, SIZE, Superblock, UnclosedFile

_ROOM, _ROOM_RATIO = 256 << 20, 64  # memory always allowed, in bytes; and per byte of the file
_ATTRIBUTE_BYTES = 1 << 10
_NO_CACHE = {"rdcc_nslots": 1, "rdcc_nbytes": 0}  # no chunk cache: HDF5 reads no chunks


class UntrustedFile:
    """An HDF5 file, read without trusting it.

    Attributes:
        size: the size of the file in bytes.
        read_bytes: the number of bytes read so far, counting repeated reads.
        unclosed: whether its first bytes say that a writer has it open, or had when it was killed.
        cut_short: whether its first bytes say that it was longer.
        only_checked: whether data without a checksum is refused; may be set.

    Raises:
        NotARecordingError: the file is not HDF5, or not of the kind that flexrec writes.
        RecordingError: the file does not exist, or is cut short or damaged. Also raised by every
            method but `close` after the file was closed.
    """

    only_checked = False

    def __init__(self, path: Path) -> None:
        self.path, self.read_bytes = path, 0
        check_source(path)
        try:
            self._descriptor = open_binary(path, os.O_RDONLY)
        except OSError as error:
            raise RecordingError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            self.size: int = os.fstat(self._descriptor).st_size
            self._open()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._trail: list[tuple[bytes, Any]] = []  # names and groups of the last path
        # Also at interpreter exit: HDF5 would close an UnclosedFile after it was freed.
        self._close = weakref.finalize(self, _close, self._file, self._descriptor)

    def _open(self) -> None:
        head = self._pread(SIZE, 0)
        block = Superblock.parse(head)
        if not head.startswith(SIGNATURE):
            raise NotARecordingError(f"{self.path} is not an HDF5 file")
        if block is None:
            raise NotARecordingError(f"{self.path} is an HDF5 file, but not a flexrec recording")
        if not block.sound:
            raise DamagedError.of(self.path, "its first bytes are not as written")
        self.unclosed = bool(block.flags)
        self.cut_short = self.size < block.end
        file = None
        try:
            # Not by its path, so that HDF5 requests no lock, which fails on file systems without
            # locks, and the file may be open in this process with other HDF5 settings.
            shown = UnclosedFile(self._descriptor)
            file = self._file = h5py.File(shown, "r", locking=False, **_NO_CACHE)
            self._root = h5o.open(file.id, b"/")
        except HDF5_ERRORS as error:
            if file is not None:
                file.close()
            found = read_error(self.path, error)
            if self.cut_short and isinstance(found, DamagedError):
                left = f"it is cut short, {self.size:,} bytes of {block.end:,} are left"
                found = DamagedError.of(self.path, left)
            raise found from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._descriptor = -1  # the number may be reused for another file
        self._close()

    @property
    def is_closed(self) -> bool:
        """Whether the file was closed."""
        return self._descriptor < 0

    def check_open(self) -> None:
        """Raise if the file was closed; HDF5 and the system might read another file instead.

        Raises:
            RecordingError: the file was closed.
        """
        if self._descriptor < 0:
            raise RecordingError(f"{self.path} is closed; open it anew to read more of it")

    def refresh(self) -> None:
        """Update `size`."""
        self.check_open()
        self.size = os.fstat(self._descriptor).st_size

    def attribute(self, name: str) -> bytes | int | float | None:
        """A root attribute, a number or a short string; None if it does not exist.

        Raises:
            RecordingError: the attribute has another type.
        """
        self.check_open()
        try:
            if not h5a.exists(self._root, name.encode()):
                return None
            found = h5a.open(self._root, name.encode())
            dtype = found.dtype
            if found.shape != () or dtype.kind not in "iufS" or dtype.itemsize > _ATTRIBUTE_BYTES:
                raise self.damaged(f"the attribute {name!r} is no number and no short text")
            value = np.empty((), dtype)
            found.read(value)
        except HDF5_ERRORS as error:
            raise read_error(self.path, error) from error
        item: bytes | int | float = value.item()
        return item

    def dataset(
        self, path: str, dtypes: Collection[np.dtype[Any]], width: int | None = None
    ) -> UntrustedDataset:
        """A dataset of one of the dtypes, with rows of a given width (None: one-dimensional).

        Raises:
            RecordingError: the dataset does not exist, or has another type or shape.
        """
        self.check_open()
        try:
            return UntrustedDataset(self, path, self._object(path), dtypes, width)
        except HDF5_ERRORS as error:
            raise read_error(self.path, error) from error

    def allow(self, nbytes: int, what: str) -> None:
        """Refuse to allocate memory out of proportion to the size of the file.

        Raises:
            RecordingError: `nbytes` is too large.
        """
        if nbytes > max(_ROOM, _ROOM_RATIO * self.size):
            raise DamagedError(
                f"{self.path} is out of proportion: {what} would take {nbytes:,} bytes of memory, "
                f"from a file of {self.size:,}"
            )

    def damaged(self, what: str) -> DamagedError:
        """A DamagedError that names the file; `what` says what is wrong in it."""
        return DamagedError.of(self.path, what)

    def pread(self, size: int, offset: int) -> bytes:
        """Read exactly `size` bytes at an offset."""
        self.check_open()
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self.damaged(f"{size:,} bytes at {offset:,} are outside of the file")
        data = self._pread(size, offset)
        self.read_bytes += len(data)
        if len(data) < size:
            raise self.damaged("the file became shorter while it was read")
        return data

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return read_at(self._descriptor, size, offset)
        except OSError as error:
            raise read_error(self.path, error) from error

    def read_into(self, into: Array, offset: int) -> None:
        """Fill an array with the bytes at an offset."""
        self.check_open()
        if offset < 0 or offset + into.nbytes > self.size:
            raise self.damaged(f"{into.nbytes:,} bytes at {offset:,} are outside of the file")
        view = into.reshape(-1).view(np.uint8).data
        self.read_bytes += into.nbytes
        try:
            count = read_into(self._descriptor, view, offset)
        except OSError as error:
            raise read_error(self.path, error) from error
        if count < into.nbytes:
            raise self.damaged("the file became shorter while it was read")

    def _object(self, path: str) -> h5d.DatasetID:
        """Open a dataset by hard links only, so that no other file is opened or loop followed."""
        found, trail = self._root, list[tuple[bytes, Any]]()
        for depth, name in enumerate(path.encode().split(b"/")):
            if not isinstance(found, h5g.GroupID):
                raise self.damaged(f"{path} is missing")
            if self._trail[depth : depth + 1] and self._trail[depth][0] == name:
                found = self._trail[depth][1]  # reuse the groups of the last dataset's path
            else:
                self._trail = []
                found = self._step(found, name, path)
            trail.append((name, found))
        self._trail = trail[:-1]
        if not isinstance(found, h5d.DatasetID):
            raise self.damaged(f"{path} is not a dataset")
        return found

    def _step(self, group: h5g.GroupID, name: bytes, path: str) -> Any:
        """The object with a name in a group."""
        links = group.links
        try:
            kind = links.get_info(name).type
        except (KeyError, RuntimeError) as error:
            if links.exists(name):
                raise
            raise self.damaged(f"{path} is missing") from error
        if kind != h5l.TYPE_HARD:
            raise self.damaged(f"{path} is a link to elsewhere: it is not followed")
        return h5o.open(group, name)


def _close(file: h5py.File, descriptor: int) -> None:
    file.close()
    os.close(descriptor)
