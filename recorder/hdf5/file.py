"""Between a file of unknown origin and whoever reads it. Nothing here knows what a recording holds.

HDF5 is asked only where things lie. Links, types, layouts, filters and sizes are checked before
anything is followed or memory is taken; the data itself is read and inflated here, chunk by chunk,
so that no filter, cache or conversion of HDF5's runs on it (docs/hostile_files.md).
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
from flexrec.recorder.hdf5.dataset import UntrustedDataset
from flexrec.recorder.hdf5.errors import HDF5_ERRORS, read_error
from flexrec.recorder.hdf5.superblock import SIGNATURE, SIZE, Superblock, UnclosedFile

_ROOM, _ROOM_RATIO = 256 << 20, 64  # bytes that one thing may take, at least; and per byte of file
_ATTRIBUTE_BYTES = 1 << 10
_NO_CACHE = {"rdcc_nslots": 1, "rdcc_nbytes": 0}  # of chunks: HDF5 reads none


class UntrustedFile:
    """An HDF5 file, read without trusting it.

    Attributes:
        size: its bytes.
        read_bytes: how many were read so far; those that were read twice count twice.
        unclosed: whether its first bytes say that a writer has it open, or had when it ended.
        cut_short: whether its first bytes say that it was longer.
        only_checked: whether data without a checksum is refused; may be set.

    Raises:
        NotARecordingError: it is not HDF5, or not of the kind that flexrec writes.
        RecordingError: it is not there, cut short or damaged; or, of every method but `close`, it
            was closed.
    """

    only_checked = False

    def __init__(self, path: Path) -> None:
        self.path, self.read_bytes = path, 0
        check_source(path)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RecordingError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            self.size: int = os.fstat(self._descriptor).st_size
            self._open()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._trail: list[tuple[bytes, Any]] = []  # the groups gone through last, by their names
        # Also before the interpreter ends: HDF5 would close an UnclosedFile when it is gone.
        self._close = weakref.finalize(self, _close, self._file, self._descriptor)

    def _open(self) -> None:
        head = self._pread(SIZE, 0)
        block = Superblock.parse(head)
        if not head.startswith(SIGNATURE):
            raise NotARecordingError(f"{self.path} is not an HDF5 file")
        if block is None:
            raise NotARecordingError(
                f"{self.path} is an HDF5 file, but not a recording of flexrec's"
            )
        if not block.sound:
            raise DamagedError.of(self.path, "its first bytes are not as written")
        self.unclosed = bool(block.flags)
        self.cut_short = self.size < block.end
        file = None
        try:
            # Never by its path: so no lock is asked for, an error where there are none, and whoever
            # else in this process has HDF5 open the file may do so in another way.
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
        """Close it; a second call does nothing."""
        self._descriptor = -1  # the number may soon be another file's
        self._close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._descriptor < 0

    def check_open(self) -> None:
        """Before anything is read: HDF5 and the system do not know a closed file from another.

        Raises:
            RecordingError: it was closed.
        """
        if self._descriptor < 0:
            raise RecordingError(f"{self.path} is closed; open it anew to read more of it")

    def refresh(self) -> None:
        """Look how large the file is now."""
        self.check_open()
        self.size = os.fstat(self._descriptor).st_size

    def attribute(self, name: str) -> bytes | int | float | None:
        """A root attribute: one number or one short text; None where there is none.

        Raises:
            RecordingError: it is something else.
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
        """A dataset of rows: of one of the dtypes, and of so many columns (None: of none).

        Raises:
            RecordingError: there is none, or it is not what it should be.
        """
        self.check_open()
        try:
            return UntrustedDataset(self, path, self._object(path), dtypes, width)
        except HDF5_ERRORS as error:
            raise read_error(self.path, error) from error

    def allow(self, nbytes: int, what: str) -> None:
        """Refuse to take so much memory where the file is far smaller.

        Raises:
            RecordingError: it is out of proportion.
        """
        if nbytes > max(_ROOM, _ROOM_RATIO * self.size):
            raise DamagedError(
                f"{self.path} is out of proportion: {what} would take {nbytes:,} bytes of memory, "
                f"from a file of {self.size:,}"
            )

    def damaged(self, what: str) -> DamagedError:
        """The error that names the file, and says what is wrong in it."""
        return DamagedError.of(self.path, what)

    def pread(self, size: int, offset: int) -> bytes:
        """Bytes of the file, all of them there."""
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
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise read_error(self.path, error) from error

    def read_into(self, into: Array, offset: int) -> None:
        """Fill a whole array with bytes of the file, all of them there."""
        self.check_open()
        if offset < 0 or offset + into.nbytes > self.size:
            raise self.damaged(f"{into.nbytes:,} bytes at {offset:,} are outside of the file")
        view = into.reshape(-1).view(np.uint8).data
        self.read_bytes += into.nbytes
        try:
            count = os.preadv(self._descriptor, [view], offset)
        except OSError as error:
            raise read_error(self.path, error) from error
        if count < into.nbytes:
            raise self.damaged("the file became shorter while it was read")

    def _object(self, path: str) -> h5d.DatasetID:
        """Go to a dataset by hard links alone: no other file is opened, no loop is followed."""
        found, trail = self._root, list[tuple[bytes, Any]]()
        for depth, name in enumerate(path.encode().split(b"/")):
            if not isinstance(found, h5g.GroupID):
                raise self.damaged(f"{path} is missing")
            if self._trail[depth : depth + 1] and self._trail[depth][0] == name:
                found = self._trail[depth][1]  # where the last dataset was reached through
            else:
                self._trail = []
                found = self._step(found, name, path)
            trail.append((name, found))
        self._trail = trail[:-1]
        if not isinstance(found, h5d.DatasetID):
            raise self.damaged(f"{path} is not a dataset")
        return found

    def _step(self, group: h5g.GroupID, name: bytes, path: str) -> Any:
        """What a group has under a name."""
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
