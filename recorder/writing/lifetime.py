"""What becomes of recorders that are not closed: at exit, in a forked child, out of reach.

Nothing here holds a recorder. Its flusher is listed until it has ended; it ends by itself when
nothing can reach the recorder any more.
"""

import atexit
import gc
import os
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from pathlib import Path

from flexrec.recorder.writing.flusher import Flusher

_running: dict[Flusher, Finalize | None] = {}
"""What multiprocessing calls at a child's end: a child that was forked runs no `atexit`."""


def begin(flusher: Flusher) -> None:
    """See to a flusher until it has ended."""
    flusher.on_end = end
    is_child = parent_process() is not None
    _running[flusher] = Finalize(None, flusher.leave, exitpriority=0) if is_child else None
    atexit.register(flusher.leave)


def end(flusher: Flusher) -> None:
    """A flusher has ended; a second call does nothing."""
    atexit.unregister(flusher.leave)
    finalizer = _running.pop(flusher, None)
    if finalizer is not None:
        finalizer.cancel()


def let_go(target: Path) -> None:
    """End the recorder of a path where nothing can reach it, so that the path is free."""
    for collects in (False, True):
        found = [flusher for flusher in list(_running) if flusher.target == target]
        if found and collects:
            gc.collect()  # the recorder may be part of a reference cycle
        for flusher in found:
            flusher.let_go()


def _silence_copies() -> None:
    """In a forked child: record nothing, and let nothing of HDF5 reach the parent's files."""
    for flusher in _running:
        flusher.forget()
    _running.clear()


os.register_at_fork(after_in_child=_silence_copies)
