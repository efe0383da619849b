"""The file that is written: datasets in compressed chunks, and links. Knows no columns."""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from flexrec.recorder.events import Array
from flexrec.recorder.hdf5.chunks import share_out
from flexrec.recorder.storage import format as fmt

ROWS = 1 << 14
"""The most rows of a chunk."""

DATA_BYTES = 1 << 20
"""The most bytes of a chunk of array data."""

_AT_ONCE = 4 << 20  # approximate bytes of chunks that are compressed at once, on several threads
_LARGE, _CHUNKS = 1 << 15, 2  # size in bytes and number of chunks from which threads pay off
# A limit on the compression ratio of large array data, so that readers that limit their memory by
# the size of the file, such as flexrec's own, can read it.
_PLENTY, _DENSEST = 64 << 20, 32


class Output:
    """The output file, and chunks waiting for it; several chunks are compressed at once."""

    def __init__(self, file: h5f.FileID, deflate: Callable[[Array, int], bytes]) -> None:
        self.file, self._deflated = file, deflate
        self._waiting: list[tuple[h5d.DatasetID, tuple[int, ...], Array, int]] = []
        self._size = 0

    def create(
        self, path: str, dtype: np.dtype[Any], shape: tuple[int, ...], chunk: tuple[int, ...]
    ) -> h5d.DatasetID:
        """Create a dataset, and the groups on its path; contiguous if a chunk holds nothing."""
        plan, kind, space = _layout(*chunk), _kind(dtype), _space(*shape)
        return h5d.create(self.file, path.encode(), kind, space, plan, _links())

    def reserve(self, name: str, size: int) -> int:
        """Create a dataset of bytes that HDF5 only allocates; return its place in the file."""
        plan = h5p.create(h5p.DATASET_CREATE)
        plan.set_obj_track_times(False)
        plan.set_layout(h5d.CONTIGUOUS)
        plan.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5d.FILL_TIME_NEVER)
        kind, space = _kind(np.dtype("u1")), _space(size)
        place: int = h5d.create(self.file, name.encode(), kind, space, plan, _links()).get_offset()
        return place

    def link(self, path: str, there: str) -> None:
        """Create a hard link from `path` to the object at `there`."""
        self.file.links.create_hard(path.encode(), self.file, there.encode(), _links())

    def put(
        self, dataset: h5d.DatasetID, place: tuple[int, ...], chunk: Array, least: int = 0
    ) -> None:
        """Queue a chunk; large ones are written when there are several, or by `flush`.

        The chunk is stored in at least the given number of bytes.
        """
        if chunk.nbytes < _LARGE:
            dataset.write_direct_chunk(place, self._deflated(chunk, least))
            return
        self._waiting.append((dataset, place, chunk, least))
        self._size += chunk.nbytes
        if self._size > _AT_ONCE:
            self.flush()

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write a dataset of bytes."""
        rows = Rows(self, name, np.dtype("u1"), len(data))
        rows.append(np.frombuffer(data, "u1"))
        rows.finish()

    def flush(self) -> None:
        """Write all waiting chunks."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        found = dict[int, bytes]()

        def deflate(i: int) -> None:
            *_, chunk, least = waiting[i]
            found[i] = self._deflated(chunk, least)

        share_out([partial(deflate, i) for i in range(len(waiting))], _CHUNKS)
        for i, (dataset, place, _, _) in enumerate(waiting):
            dataset.write_direct_chunk(place, found.pop(i))


class Rows:
    """Fills a dataset from its start in whole chunks, so that each is compressed once."""

    def __init__(
        self, output: Output, path: str, dtype: np.dtype[Any], rows: int, *width: int
    ) -> None:
        is_data = path.endswith(f"/{fmt.DATA}")
        limit = DATA_BYTES // dtype.itemsize if is_data else ROWS
        self._chunk, self._width, self._dtype = min(rows, limit), width, dtype
        is_plenty = is_data and rows * dtype.itemsize >= _PLENTY
        self._least = self._chunk * dtype.itemsize // _DENSEST if is_plenty else 0
        self._output = output
        self._dataset = output.create(path, dtype, (rows, *width), (self._chunk, *width))
        self._end = 0
        self._waiting: list[Array] = []
        self._count = 0

    def append(self, rows: Array) -> None:
        # A copy, so that a larger base array can be freed.
        self._waiting.append(rows.astype(self._dtype, "C"))
        self._count += len(rows)
        if self._count >= self._chunk > 0:
            self._write(self._count - self._count % self._chunk)

    def finish(self) -> None:
        self._write(self._count)

    def _write(self, count: int) -> None:
        if not count:
            return
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        for first in range(0, count if rows.size else 0, self._chunk):
            chunk = filled_up(rows[first : min(first + self._chunk, count)], self._chunk)
            place = (self._end + first, *(0 for _ in self._width))
            self._output.put(self._dataset, place, chunk, self._least)
        self._end += count
        self._waiting, self._count = [rows[count:].copy()], self._count - count


def filled_up(rows: Array, count: int) -> Array:
    """A copy of the rows with zeros after them, `count` rows in all: a whole chunk."""
    chunk = np.zeros((count, *rows.shape[1:]), rows.dtype)
    chunk[: len(rows)] = rows
    return chunk


@cache
def _links() -> h5p.PropLCID:
    """Link creation properties: create missing groups on the path."""
    plan = h5p.create(h5p.LINK_CREATE)
    plan.set_char_encoding(h5t.CSET_UTF8)
    plan.set_create_intermediate_group(True)
    return plan


@lru_cache(64)
def _layout(*chunk: int) -> h5p.PropDCID:
    """Dataset creation properties: compressed chunks of this shape; contiguous without one."""
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)
    if 0 in chunk:
        return plan
    plan.set_chunk(chunk)
    plan.set_shuffle()
    plan.set_deflate(1)
    return plan


@lru_cache(64)
def _space(*shape: int) -> h5s.SpaceID:
    """HDF5's form of a shape."""
    return h5s.create_simple(shape)


@lru_cache(64)
def _kind(dtype: np.dtype[Any]) -> h5t.TypeID:
    """HDF5's type of a dtype."""
    return h5t.py_create(dtype, logical=True)
