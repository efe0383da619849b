"""UntrustedDataset: read rows of a dataset in an untrusted file. See `UntrustedFile.dataset`.

Layout, type, filters and sizes are checked before anything is read. Chunks are read and inflated
here and in chunks.py, never by HDF5.
"""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from h5py import h5d, h5z

from flexrec.recorder.errors import DamagedError
from flexrec.recorder.events import Array
from flexrec.recorder.hdf5.chunks import FILTERS, Places, Task, inflated, share_out, unshuffle
from flexrec.recorder.hdf5.errors import HDF5_ERRORS, read_error

_MOST_DEFLATED = 1032  # deflate's highest compression ratio
_CHUNK_BYTES = 16 << 20  # recorders write no larger chunks
_SHARED_BYTES = 1 << 15, 1 << 20  # sizes of chunks that are inflated in parallel
_ENTRY_BYTES = 8  # the least size of a chunk in a file: its address


class Source(Protocol):
    """The file of a dataset, as far as a dataset uses it; see file.UntrustedFile."""

    only_checked: bool
    path: Path
    size: int

    def allow(self, nbytes: int, what: str) -> None:
        """Refuse to allocate memory out of proportion to the size of the file."""

    def damaged(self, what: str) -> DamagedError:
        """A DamagedError that names the file; `what` says what is wrong in it."""

    def check_open(self) -> None:
        """Raise RecordingError if the file is closed."""

    def pread(self, size: int, offset: int) -> bytes:
        """Read exactly `size` bytes at an offset."""

    def read_into(self, into: Array, offset: int) -> None:
        """Fill an array with the bytes at an offset."""

    def refresh(self) -> None:
        """Update the size of the file."""


class UntrustedDataset:
    """Rows of one dtype: `dataset[first:last]`."""

    def __init__(
        self,
        file: "Source",
        path: str,
        found: h5d.DatasetID,
        dtypes: Collection[np.dtype[Any]],
        width: int | None,
    ) -> None:
        self._file, self._path, self._id = file, path, found
        plan = found.get_create_plist()
        layout = plan.get_layout()
        self._contiguous = layout == h5d.CONTIGUOUS
        if not self._contiguous and layout != h5d.CHUNKED:
            raise self._file.damaged(
                f"{path} is laid out in a way that is not read (virtual, compact)"
            )
        if self._contiguous and plan.get_external_count():
            raise self._file.damaged(f"{path} lies in another file, which is not read")
        self.dtype: np.dtype[Any] = found.dtype
        if self.dtype not in dtypes:
            wanted = " or ".join(map(str, dtypes))
            raise self._file.damaged(f"{path} holds {self.dtype!s:.80}, not {wanted}")
        self._width = width
        self._row: int = (1 if width is None else width) * self.dtype.itemsize  # bytes
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        if filters != [code for code in FILTERS if code in filters]:
            raise self._file.damaged(f"{path} is compressed in a way that is not read: {filters}")
        self._filters = filters
        self._length = self._measured()
        self._chunk = 0 if self._contiguous else self._chunk_rows(plan)
        self._places = Places(found, self._chunk, 1 if width is None else 2)
        self._known = 0  # leading chunks that `stored` found to be whole in the file
        logical = self._length * self._row
        if self._filters and logical > _MOST_DEFLATED * file.size:
            raise self._file.damaged(
                f"{path} claims {logical:,} bytes, more than the file can hold"
            )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: slice) -> Array:
        """A copy of rows `first:last`, with numpy's slicing rules.

        Raises:
            RecordingError: the rows are not in the file, or damaged.
        """
        first, last, _ = rows.indices(self._length)
        count, tasks = max(last - first, 0), list[Task]()
        self._file.check_open()
        self._allow(count, self.dtype)
        found = np.empty(count if self._width is None else (count, self._width), self.dtype)
        self._fill(first, found, tasks)
        if tasks:
            share_out(tasks)
        return found

    def fill(self, first: int, into: Array, tasks: list[Task]) -> None:
        """Fill an array, of this dtype or one that can hold it, with rows from `first` on.

        The array is filled once the tasks added to `tasks` are done; several datasets may share
        the list.

        Raises:
            RecordingError: the rows are not in the file, or damaged.
        """
        self._file.check_open()
        if first + len(into) > self._length:
            raise self._file.damaged(f"{self._path} has but {self._length} rows")
        self._allow(len(into), into.dtype)
        self._fill(first, into, tasks)

    def damaged(self, what: str) -> DamagedError:
        """A DamagedError that names the file; `what` says what is wrong in it."""
        return self._file.damaged(what)

    @property
    def chunk_rows(self) -> int:
        """The number of rows of a chunk; 0 if the dataset has no chunks."""
        return self._chunk

    @property
    def stored_bytes(self) -> int:
        """The size of the dataset in the file, in bytes."""
        self._file.check_open()
        try:
            return int(self._id.get_storage_size())
        except HDF5_ERRORS as error:
            raise read_error(self._file.path, error) from error

    def stored(self) -> int:
        """The number of leading rows within the file, for an uncompressed dataset.

        The dataset may claim more if the file was cut short, or its writer was killed.
        """
        self._file.check_open()
        if self._contiguous:
            place = self._offset()
            there = 0 if place is None else max(self._file.size - place, 0) // self._row
            return min(there, self._length)
        chunks = -(-self._length // self._chunk)
        start, size, mask = self._placed(self._known, chunks).T
        left = np.clip((self._file.size - start) // self._row, 0, self._chunk)
        rows = np.where((size == self._chunk * self._row) & (mask == 0), left, 0)
        cut = np.flatnonzero(rows < self._chunk)[:1]
        self._known += int(cut[0]) if len(cut) else len(rows)
        return min(self._known * self._chunk + int(rows[cut].sum()), self._length)

    def alike(self, other: "UntrustedDataset") -> int:
        """The number of leading rows stored in the same bytes as those of another dataset.

        Compares compressed chunks; 0 if the two datasets cannot be compared like that.
        """
        if not self._is_comparable(other):
            return 0
        count = -(-min(len(self), len(other)) // self._chunk)
        ours, theirs = self._placed(0, count), other._placed(0, count)
        for i, (one, two) in enumerate(zip(ours.tolist(), theirs.tolist(), strict=False)):
            if not self._same_bytes(one, other, two):
                return i * self._chunk
        return min(len(self), len(other), min(len(ours), len(theirs)) * self._chunk)

    def same_chunk(self, chunk: int, other: "UntrustedDataset", its: int) -> bool:
        """Whether a chunk, given by its number, is stored in the same bytes as another's."""
        if not self._is_comparable(other):
            return False
        ours, theirs = self._placed(chunk, chunk + 1), other._placed(its, its + 1)
        pairs = zip(ours.tolist(), theirs.tolist(), strict=False)
        return any(self._same_bytes(one, other, two) for one, two in pairs)

    def _is_comparable(self, other: "UntrustedDataset") -> bool:
        """Whether equal bytes of chunks mean equal rows."""
        mine, its = ((d._chunk, d.dtype, d._row, d._filters) for d in (self, other))
        return mine == its and not self._contiguous and bool(self._filters)

    def _same_bytes(self, place: list[int], other: "UntrustedDataset", its: list[int]) -> bool:
        (start, size, mask), (its_start, *rest) = place, its
        if [size, mask] != rest or size > 2 * self._chunk * self._row:
            return False
        return self._file.pread(size, start) == other._file.pread(size, its_start)

    def refresh(self) -> None:
        """Update the dataset's length while it is being written."""
        self._file.refresh()
        try:
            self._id.refresh()
            self._length = self._measured()
        except HDF5_ERRORS as error:
            raise read_error(self._file.path, error) from error

    # ------------------------------------------------------------------ inside

    def _allow(self, count: int, dtype: np.dtype[Any]) -> None:
        """Refuse to read rows out of proportion to the size of the file."""
        if self._filters:
            self._file.allow(count * self._row // self.dtype.itemsize * dtype.itemsize, self._path)
        elif count * self._row > self._file.size:
            raise self._file.damaged(f"{self._path} claims more than the file holds")

    def _fill(self, first: int, rows: Array, tasks: list[Task]) -> None:
        if not rows.nbytes:
            return
        if not self._contiguous:
            self._read_chunks(first, first + len(rows), rows, tasks)
            return
        start = self._offset()
        if start is None:
            raise self._file.damaged(f"{self._path} is not in the file")
        self._read_plain(start + first * self._row, rows)

    def _offset(self) -> int | None:
        """The address of a dataset without chunks."""
        try:
            place: int | None = self._id.get_offset()
        except HDF5_ERRORS as error:
            raise read_error(self._file.path, error) from error
        return place

    def _measured(self) -> int:
        shape: tuple[int, ...] = self._id.shape or ()
        wanted = () if self._width is None else (self._width,)
        if len(shape) != 1 + len(wanted) or shape[1:] != wanted:
            raise self._file.damaged(f"{self._path} has the shape {shape!s:.80}")
        return int(shape[0])

    def _chunk_rows(self, plan: Any) -> int:
        chunk: tuple[int, ...] = plan.get_chunk()
        if chunk[1:] != (() if self._width is None else (self._width,)) or not self._row:
            raise self._file.damaged(f"{self._path} has chunks of {chunk!s:.80}")
        if not 0 < chunk[0] * self._row <= _CHUNK_BYTES:
            raise self._file.damaged(f"{self._path} has chunks of {chunk[0] * self._row:,} bytes")
        return int(chunk[0])

    def _placed(self, first: int, last: int) -> Array:
        try:
            return self._places.of(first, last, self._file.size // _ENTRY_BYTES)
        except HDF5_ERRORS as error:
            raise read_error(self._file.path, error) from error

    def _read_chunks(self, first: int, last: int, rows: Array, tasks: list[Task]) -> None:
        begin, end = first // self._chunk, -(-last // self._chunk)
        places = self._placed(begin, end).tolist()
        if len(places) < end - begin:
            raise self._file.damaged(f"a part of {self._path} is not in the file")
        least, most = _SHARED_BYTES
        later = self._filters and least <= self._chunk * self._row <= most
        for i, place in enumerate(places, begin):
            base = i * self._chunk
            low, high = max(first, base), min(last, base + self._chunk)
            read = partial(self._read_chunk, place, low - base, rows[low - first : high - first])
            if later:
                tasks.append(read)
            else:
                read()

    def _read_chunk(self, place: list[int], skip: int, into: Array) -> None:
        """Fill `into` with a chunk's rows from row `skip` on."""
        start, size, mask = place
        whole = self._chunk * self._row
        if not self._filters:
            if size != whole:
                raise self._file.damaged(f"a part of {self._path} has another size than it should")
            self._read_plain(start + skip * self._row, into)
            return
        if size > whole + whole // 8 + 64:  # zlib-ng may enlarge noise by an eighth
            raise self._file.damaged(f"a part of {self._path} is larger than what it holds")
        raw = self._file.pread(size, start)
        used = [code for i, code in enumerate(self._filters) if not mask >> i & 1]
        data = inflated(raw, whole) if h5z.FILTER_DEFLATE in used else raw
        if h5z.FILTER_DEFLATE not in used:
            self._refuse_unchecked()
        if data is None:
            raise self._file.damaged(
                f"a part of {self._path} does not inflate to what it should hold"
            )
        if len(data) != whole:
            raise self._file.damaged(f"a part of {self._path} has another size than it should")
        flat = into.reshape(-1)
        first = skip * (self._row // self.dtype.itemsize)
        if h5z.FILTER_SHUFFLE not in used or self.dtype.itemsize == 1:
            flat[:] = np.frombuffer(data, self.dtype)[first : first + len(flat)]
        elif flat.dtype == self.dtype:
            unshuffle(data, first, flat)
        else:
            same = np.empty(len(flat), self.dtype)
            unshuffle(data, first, same)
            flat[:] = same

    def _read_plain(self, offset: int, into: Array) -> None:
        """Fill `into` with rows that are stored uncompressed."""
        self._refuse_unchecked()
        if into.dtype == self.dtype:
            self._file.read_into(into, offset)
        else:
            same = np.empty(into.shape, self.dtype)
            self._file.read_into(same, offset)
            into[:] = same

    def _refuse_unchecked(self) -> None:
        if self._file.only_checked:
            raise self._file.damaged(
                f"{self._path} has no checksum: whether it is whole cannot be told, as the file "
                "was not closed to the end"
            )
