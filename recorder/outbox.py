"""Outbox: a thread puts what was taken in into the file; also when it cannot be written.

What training code calls is in recorder.py, how its values become events in intake.py, how a file
is written in writer.py.
"""

import os
import sys
import threading
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep, time

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import Buffer
from flexrec.recorder.closing import close_recording
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.intake import Intake, mark_entry
from flexrec.recorder.locking import PathLock
from flexrec.recorder.reducing import Reducer, advice
from flexrec.recorder.replacing import unused
from flexrec.recorder.resuming import Opened
from flexrec.recorder.wording import warn

__all__ = ["Outbox", "briefly"]

_PLENTY = 16 << 20  # bytes of numbers that wait, from which on the writer is given a turn
_TURN = 0.002  # seconds
_MANY_BYTES = 1 << 30  # tensors of one key that are worth a word
_FAILURES = (OSError, RuntimeError, ValueError, KeyError, MemoryError, RecordingError)
"""What a file that cannot be written or read raises, out of HDF5 and of our own."""


class Outbox(Intake):
    """Writes what was taken in, from a thread of its own.

    Args:
        path: what the file is called in messages.
        target: where it is.
        lock: the right to write it.
        opened: the file, and what it knows.
        reducer: keeps meters' states in place of some values.
        flush_seconds, fsync_seconds, on_error, buffer_bytes: as for Recorder.
    """

    def __init__(
        self,
        path: Path,
        target: Path,
        lock: PathLock,
        opened: Opened,
        *,
        reducer: Reducer,
        flush_seconds: float,
        fsync_seconds: float,
        on_error: str,
        buffer_bytes: int,
    ) -> None:
        super().__init__(opened, reducer)
        self.path, self._target, self._path_lock = path, target, lock
        self._file = opened.file
        self._flush_seconds, self._fsync_seconds = flush_seconds, fsync_seconds
        self._on_error, self._buffer_bytes = on_error, buffer_bytes

        # Guards the file. Who has it waits for no other lock: a signal's handler may want it
        # amid an add, which has the lock for that.
        self._writing = threading.RLock()
        self._writer = 0  # the thread that writes now
        self._closes_later = False  # a handler that came amid a write said so
        self._has_ended = self._is_rewriting = False
        self._sealed: list[Buffer] = []
        self._heavy: set[str] = set()  # keys that were said to have many bytes
        self._failing = False
        self._warned = self._missed = False
        self._warnings: list[str] = []  # said by the next call that may speak
        self._dropped = 0  # events, ever
        self._unmarked = 0  # of those, the ones that the recording does not speak of yet
        self._synced = monotonic()
        # Held while there is nothing to do at once. An Event would be held for good by an interrupt
        # that comes amid its Python.
        self._sleep = threading.Lock()
        self._sleep.acquire()
        self._stopping = False
        self._thread = threading.Thread(target=self._write_loop, daemon=True, name="flexrec")

    def _weigh(self) -> None:
        """Say once of a key that its tensors have become many."""
        for layout in list(self._layouts.values()):
            layout.weigh()
        for key, size in list(self._weights.items()):
            if size > _MANY_BYTES and key not in self._heavy and not self._reducer.of(key):
                self._heavy.add(key)
                column = next(c for c in reversed(self._schema.columns) if c.key == key)
                meter = advice(key, column.forms)
                self._warn(
                    f"{self.path}: {key!r} has passed {_MANY_BYTES / (1 << 30):.3g} GiB of tensors"
                    + (
                        "; where one meter is enough for it, record what that one remembers in "
                        f'their place, as with Recorder(…, reduce={{{key!r}: "{meter}"}})'
                        if meter
                        else ""
                    )
                )

    def _seal(self) -> None:
        """Hand the buffer to the writer, or, where nothing can be written and memory is short,
        drop what it holds but for the schema, which later events refer to."""
        self._weigh()
        with self._sealing:
            buffer = self._buffer
            if not buffer and not buffer.schema:
                return
            following, is_dropped = buffer.following(), False
            waiting = sum(sealed.nbytes for sealed in self._sealed)
            is_short = self._failing and waiting + buffer.nbytes > self._buffer_bytes
            # Others may add or seal at any call: from the check on there is none.
            if self._buffer is buffer:
                following.is_sealed = buffer.is_sealed  # closed: nothing more comes in
                buffer.is_sealed = True
                if is_short:
                    following.schema = buffer.schema
                    is_dropped = True
                else:
                    self._sealed += [buffer]
                self._buffer = following
            if is_dropped:
                self._drop(buffer)

    def _full(self) -> None:
        """The buffer is large: seal it; wait for the writer only if far too much is waiting."""
        self._seal()
        self._wake()
        if self._failing:
            return
        if sum(b.nbytes for b in self._sealed) > self._buffer_bytes:
            self._write(fsync=False)
        elif sum(len(b.records) for b in self._sealed) > _PLENTY:
            sleep(_TURN)  # a loop that does nothing but add hardly lets the writer run

    def _write(self, *, fsync: bool) -> None:
        """Write every sealed buffer and the current one; never raises for a failing file."""
        if self._writer == threading.get_ident():
            self._seal()  # in a signal's handler: what was begun goes on when that returns
            return
        with self._writing:
            if self._has_ended:
                return
            self._writer = threading.get_ident()
            try:
                self._append_sealed()
                self._failing = False
                if self._unmarked:
                    self._mark_dropped()
                    self._append_sealed()
                self._notice_deletion()
                if fsync or monotonic() - self._synced > self._fsync_seconds:
                    self._file.fsync()
                    self._synced = monotonic()
            except _FAILURES as error:
                self._failed(error)
            finally:
                self._writer = 0
        if self._closes_later:
            self._closes_later = False
            self.close()

    def _append_sealed(self) -> None:
        self._seal()
        while self._sealed:
            buffer = self._sealed[0]
            if buffer.is_torn:
                self._drop(buffer)
                buffer = self._sealed[0] = buffer.emptied()
            ends = self._file.write(buffer.block(self._file.value_count, self._file.blob_bytes))
            self._file.lengths = ends
            del self._sealed[0]
            buffer.release()

    def _drop(self, buffer: Buffer) -> None:
        count = len(buffer)
        self._dropped += count
        self._unmarked += count

    def _mark_dropped(self) -> None:
        """Record how many events were dropped, unless the recorder was closed meanwhile."""
        count = self._unmarked
        entry = mark_entry(fmt.DROPPED, self._step, time(), count)
        with self._sealing:
            if self._buffer.append(entry):
                self._unmarked -= count

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and end."""

    def _count(self) -> int:
        """How many events came so far."""
        with self._writing:
            waiting = *self._sealed, self._buffer
            return self._file.event_count + sum(map(len, waiting))

    def _wake(self) -> None:
        """Have the writer look at once."""
        with suppress(RuntimeError):  # it is about to
            self._sleep.release()

    def _write_loop(self) -> None:
        while not self._stopping:
            self._sleep.acquire(timeout=min(self._flush_seconds, threading.TIMEOUT_MAX))
            if not self._stopping:
                self._write(fsync=False)
                self._speak()

    def _failed(self, error: Exception) -> None:
        self._failing = True
        message = f"cannot write {self.path}: {briefly(error)}"
        if self._on_error == "raise":
            self._refusal = message
        elif not self._warned:
            self._warned = True
            self._warn(f"{message}; recording goes on in memory, and writing is tried again")

    def _notice_deletion(self) -> None:
        if not self._missed and not self._file.is_at(self._target):
            self._missed = True
            self._warn(
                f"{self.path} was deleted, moved or replaced; recording goes on, "
                "and close() writes it anew"
            )

    def _warn(self, message: str) -> None:
        self._warnings.append(message)

    def _speak(self) -> None:
        """Give the warnings; where they are made errors, the thread that writes lives on."""
        while self._warnings:
            message = self._warnings.pop(0)
            try:
                warn(message)
            except RuntimeWarning:
                if threading.current_thread() is not self._thread:
                    raise
                print(f"flexrec: {message}", file=sys.stderr)

    def _finish(self) -> None:
        """Stop the thread, write what is left, and put the closed file in place.

        An interrupt leaves what can be begun again, up to where the file is put in place.
        """
        # First of all, so that no thread goes on adding more than is written meanwhile.
        self._refusal = self._refusal or f"{self.path} is closed"
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._writing:
            self._write(fsync=True)
            with self._sealing:
                self._buffer.is_sealed = True  # who is amid an add is refused
            if self._buffer or self._sealed:  # another thread's, added meanwhile
                self._write(fsync=True)
            if self._has_ended:  # a signal's handler closed meanwhile
                return
            lost = self._dropped + sum(len(buffer) for buffer in self._sealed)
            try:
                self._has_ended = self._is_rewriting = True
                self._rewrite()
            except _FAILURES as error:
                self._warn(f"{self.path} was not compressed, it is kept as it was: {error}")
            finally:
                self._is_rewriting = False
                self._path_lock.release()
        if lost:
            self._warn(f"{self.path}: {lost} events could not be written and are lost")
        self._speak()

    def _rewrite(self) -> None:
        """Close the file, and put the closed layout in its place, or where it was deleted."""
        target = self._target
        if self._file.is_at(target):
            self._file.close()
            if not self._sealed:
                close_recording(target, target)
            return
        if os.path.lexists(target):
            target = unused(target, str(os.getpid()))
        descriptor = self._file.duplicate()
        try:  # a deleted file is there as long as it is open, and has no name but this
            target.parent.mkdir(parents=True, exist_ok=True)
            close_recording(Path(f"/proc/self/fd/{descriptor}"), target)
            if target != self._target:
                self._warn(f"{self.path} is another file now; the recording is in {target}")
        except _FAILURES as error:
            is_lost = not os.fstat(descriptor).st_nlink
            state = "is lost" if is_lost else "is where it was moved to, not compressed"
            self._warn(f"{target} cannot be written: {error}; what was recorded {state}")
        finally:
            os.close(descriptor)
            self._file.close()


def briefly(error: Exception) -> str:
    """HDF5's messages go on about addresses; the system's own say it in a few words."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
