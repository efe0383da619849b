"""Locate and inflate a dataset's chunks, several of them in parallel.

This module opens no files. The size of a chunk's data is known before it is inflated.
"""

import os
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from h5py import h5d, h5z
from numpy.typing import NDArray

from flexrec.recorder.events import Array
from flexrec.recorder.hdf5.errors import HDF5_ERRORS, is_damage

Task = Callable[[], None]

FILTERS = (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE)  # in this order
_WORKERS = min(4, os.cpu_count() or 1)
_WORTH_SHARING = 16  # fewest tasks per thread
_FEW = 2  # up to this many chunks are looked up one by one
_FAR = 1 << 62  # larger than any file


class Places:
    """The places of a dataset's chunks in the file.

    HDF5 finds a chunk by searching from the first one on. So for more than a few chunks, it is
    asked once for the places of all.
    """

    def __init__(self, found: h5d.DatasetID, rows: int, rank: int) -> None:
        self._id, self._rows, self._rank = found, rows, rank
        self._table = np.empty((0, 3), np.int64)

    def of(self, first: int, last: int, most: int) -> NDArray[np.int64]:
        """(n, 3) Offset, stored size in bytes, and filter mask of chunks `first` to `last`.

        The rows end before the first chunk that is not in the file.

        Args:
            first, last: the numbers of the chunks, from 0.
            most: the most chunks that a file of this size can hold.

        Raises:
            Exception: one of HDF5_ERRORS; the system cannot read the file, or this is a bug.
        """
        if last - first > _FEW and hasattr(self._id, "chunk_iter"):  # missing before HDF5 1.12.3
            if last > len(self._table):
                self._sweep(most)
            return self._table[first:last]
        if last <= len(self._table):
            return self._table[first:last]
        places = []
        for chunk in range(first, min(last, first + most)):
            try:
                where = (chunk * self._rows, *[0] * (self._rank - 1))
                info = self._id.get_chunk_info_by_coord(where)
            except HDF5_ERRORS as error:
                if not is_damage(error):
                    raise
                break
            if info.byte_offset is None or max(info.byte_offset, info.size) > _FAR:
                break
            places.append((info.byte_offset, info.size, info.filter_mask))
        return np.array(places, np.int64).reshape(-1, 3)

    def _sweep(self, most: int) -> None:
        found = array("q")

        def note(info: Any) -> bool | None:
            where = -1 if info.byte_offset is None else info.byte_offset
            place = info.chunk_offset[0] // self._rows, where, info.size, info.filter_mask
            if max(place) > _FAR or len(found) > 4 * most:
                return True  # ends the sweep
            found.extend(place)
            return None

        try:
            self._id.chunk_iter(note)
        except HDF5_ERRORS as error:  # the chunks found before it are valid
            if not is_damage(error):
                raise
            del found[len(found) // 4 * 4 :]
        rows = np.frombuffer(found, np.int64).reshape(-1, 4).copy()
        wrong = (rows[:, 0] != np.arange(len(rows))) | (rows[:, 1] < 0)
        self._table = rows[: int(wrong.argmax()) if wrong.any() else len(rows), 1:]


def inflated(data: bytes, whole: int) -> bytes | None:
    """Inflate a chunk to at most `whole` bytes; None if its data does not end within them.

    So memory is bounded, whatever the data would inflate to. Also None if zlib's checksum does not
    match.
    """
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, whole + 1)
    except zlib.error:
        return None
    return found if stream.eof else None


def unshuffle(data: bytes, first: int, into: Array) -> None:
    """Copy elements of a shuffled chunk, from element `first` on, into a flat array.

    In a shuffled chunk the first bytes of all elements come first, then all second bytes, ….
    """
    itemsize = into.dtype.itemsize
    lanes = np.frombuffer(data, np.uint8).reshape(itemsize, -1)[:, first : first + len(into)]
    elements = into.view(np.uint8).reshape(-1, itemsize)
    for i in range(itemsize):  # four times as fast as transposing
        elements[:, i] = lanes[i]


def share_out(tasks: Sequence[Task], least: int = 0) -> None:
    """Run all tasks, on several threads if each gets at least `least` tasks.

    With `least` 0 a default for short tasks is used. Threads help because zlib and numpy release
    the GIL. Tasks are started in order; of several errors, the first in that order is raised. If
    no more threads can be started, all tasks are run again without them.
    """
    workers = min(_WORKERS, len(tasks) // (least or _WORTH_SHARING))
    if workers > 1:
        try:
            # Once the interpreter shuts down, this import raises, too.
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(workers) as pool:
                deque(pool.map(_run, tasks), maxlen=0)
        except RuntimeError:
            pass
        else:
            return
    for task in tasks:
        task()


def _run(task: Task) -> None:
    task()
