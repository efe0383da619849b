"""Close recorders at exit, when they are garbage-collected, and silence them in forked children.

This module holds no reference to a recorder. It lists flushers that have not ended; a flusher ends
by itself when its recorder is no longer referenced.
"""

import atexit
import gc
import os
import sys
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from pathlib import Path

from flexrec.recorder.writing.flusher import Flusher

_running: dict[Flusher, Finalize | None] = {}
"""What multiprocessing calls at a child's end: a child that was forked runs no `atexit`."""


def begin(flusher: Flusher) -> None:
    """Register a flusher until it has ended."""
    flusher.on_end = end
    is_child = parent_process() is not None
    _running[flusher] = Finalize(None, flusher.leave, exitpriority=0) if is_child else None
    atexit.register(flusher.leave)


def end(flusher: Flusher) -> None:
    """Unregister a flusher that has ended; a second call does nothing."""
    atexit.unregister(flusher.leave)
    finalizer = _running.pop(flusher, None)
    if finalizer is not None:
        finalizer.cancel()


def let_go(target: Path) -> None:
    """End an unreferenced recorder of a path, so that the path can be recorded again."""
    for collects in (False, True):
        found = [flusher for flusher in list(_running) if flusher.target == target]
        if found and collects:
            gc.collect()  # the recorder may be part of a reference cycle
        for flusher in found:
            flusher.let_go()


def _silence_copies() -> None:
    """In a forked child: stop recording, and keep HDF5 from writing to the parent's files."""
    for flusher in _running:
        flusher.forget()
    _running.clear()


if sys.platform != "win32":  # which cannot fork
    os.register_at_fork(after_in_child=_silence_copies)
