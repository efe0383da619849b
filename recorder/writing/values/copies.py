"""Copy arrays that wait to be written into reused memory.

Allocating fresh memory would take longer than the copy itself.
"""

import threading
from collections.abc import Iterable

import numpy as np

from flexrec.recorder.events import Array

SMALL = 1 << 18  # bytes: arrays smaller than this are joined before they are written
_SLAB = 12 << 20  # bytes of memory that large arrays are copied to
_PAGE = 2 << 20  # bytes of a huge page: memory in whole huge pages is allocated twice as fast
_SPARE = 8  # free slabs that are kept for reuse


class Slab:
    """Memory for several copies.

    Attributes:
        room: the memory.
        used: the number of bytes in use.
        copies: the number of copies in it that are not released yet.
    """

    def __init__(self) -> None:
        fresh = np.empty(_SLAB + _PAGE, "u1")
        begin = -fresh.ctypes.data % _PAGE
        self.room: Array = fresh[begin : begin + _SLAB]
        self.used = self.copies = 0


class Copier:
    """Copies arrays; safe to call from several threads and from signal handlers.

    An interrupt during a call may lose a slab, but never a copy.
    """

    def __init__(self) -> None:
        self._spare: list[Slab] = []
        self._slab: Slab | None = None
        self._lock = threading.RLock()

    def copy(self, array: Array) -> tuple[bytes | Array, Slab | None]:
        """Copy an array in C order; returns the copy and the slab to `release` once written."""
        size = array.nbytes
        if size < SMALL or size > _SLAB:
            return array.tobytes(), None
        with self._lock:
            slab = self._slab
            if slab is None or slab.used + size > _SLAB:
                slab = self._spare.pop() if self._spare else Slab()
                slab.used = 0
                self._slab = slab
            # A signal handler may copy too, so the space is reserved before it is filled.
            begin = slab.used
            slab.used = begin + -(-size // 64) * 64
            slab.copies += 1
        room = slab.room[begin : begin + size]
        room.view(array.dtype).reshape(array.shape)[...] = array
        return room, slab

    def release(self, slabs: Iterable[Slab | None]) -> None:
        """Release the slabs of copies that were written or dropped, once per copy."""
        with self._lock:
            for slab in slabs:
                if slab is None:
                    continue
                slab.copies -= 1
                if not slab.copies and slab is not self._slab and len(self._spare) < _SPARE:
                    self._spare.append(slab)
