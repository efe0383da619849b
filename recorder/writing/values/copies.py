"""Copies of arrays that wait to be written, in memory that is used again.

Fresh memory costs more than the copy into it.
"""

import threading
from collections.abc import Iterable

import numpy as np

from flexrec.recorder.events import Array

SMALL = 1 << 18  # bytes: arrays smaller than this are joined before they are written
_SLAB = 12 << 20  # bytes of memory that large arrays are copied to
_PAGE = 2 << 20  # bytes of a huge page: new memory comes at twice the pace in whole ones
_SPARE = 8  # slabs that are kept for later


class Slab:
    """Memory for several copies.

    Attributes:
        room: the memory.
        used: how many bytes of it are taken.
        copies: how many copies in it are waited for.
    """

    def __init__(self) -> None:
        fresh = np.empty(_SLAB + _PAGE, "u1")
        begin = -fresh.ctypes.data % _PAGE
        self.room: Array = fresh[begin : begin + _SLAB]
        self.used = self.copies = 0


class Copier:
    """Copies arrays; threads and signal handlers may ask at the same time.

    An interrupt amid a call may cost a slab, never a copy.
    """

    def __init__(self) -> None:
        self._spare: list[Slab] = []
        self._slab: Slab | None = None
        self._lock = threading.RLock()

    def copy(self, array: Array) -> tuple[bytes | Array, Slab | None]:
        """A copy of an array, in C order, and the slab to `release` when it is written."""
        size = array.nbytes
        if size < SMALL or size > _SLAB:
            return array.tobytes(), None
        with self._lock:
            slab = self._slab
            if slab is None or slab.used + size > _SLAB:
                slab = self._spare.pop() if self._spare else Slab()
                slab.used = 0
                self._slab = slab
            # A signal's handler may copy too: what follows is taken from here on.
            begin = slab.used
            slab.used = begin + -(-size // 64) * 64
            slab.copies += 1
        room = slab.room[begin : begin + size]
        room.view(array.dtype).reshape(array.shape)[...] = array
        return room, slab

    def release(self, slabs: Iterable[Slab | None]) -> None:
        """Copies were written, or dropped: once for each of them."""
        with self._lock:
            for slab in slabs:
                if slab is None:
                    continue
                slab.copies -= 1
                if not slab.copies and slab is not self._slab and len(self._spare) < _SPARE:
                    self._spare.append(slab)
