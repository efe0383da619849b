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
from flexrec.recorder.opening import open_store
from flexrec.recorder.reducing import Reducer, advice
from flexrec.recorder.replacing import unused
from flexrec.recorder.resuming import Opened, Search
from flexrec.recorder.wording import warn

__all__ = ["FAILURES", "Outbox", "briefly"]

_PLENTY = 16 << 20  # bytes of numbers that wait, from which on the writer is given a turn
_TURN = 0.002  # seconds
_MANY_BYTES = 1 << 30  # tensors of one key that are worth a word
FAILURES = (OSError, RuntimeError, ValueError, KeyError, MemoryError, RecordingError)
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
        self._failure = ""  # why writing or syncing failed last
        self._safe = opened.file.event_count  # events that are on the disk itself
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
        """Hand the buffer to the writer."""
        self._weigh()
        with self._sealing:
            buffer = self._buffer
            if not buffer and not buffer.schema:
                return
            following = buffer.following()
            # Others may add or seal at any call: from the check on there is none.
            if self._buffer is buffer:
                following.is_sealed = buffer.is_sealed  # closed: nothing more comes in
                buffer.is_sealed = True
                self._sealed += [buffer]
                self._buffer = following

    def _full(self) -> None:
        """The buffer is large: seal it; wait for the writer only if far too much is waiting."""
        self._seal()
        self._wake()
        if sum(b.nbytes for b in self._sealed) > self._buffer_bytes:
            self._write(fsync=False)  # which drops it where the file cannot be written
        elif not self._failing and sum(len(b.records) for b in self._sealed) > _PLENTY:
            sleep(_TURN)  # a loop that does nothing but add hardly lets the writer run

    def _write(self, *, fsync: bool) -> bool:
        """Write every sealed buffer and the current one; never raises for a failing file.

        Returns:
            Whether all is in the file and, with `fsync`, on the disk itself.
        """
        if self._writer == threading.get_ident():
            self._seal()  # in a signal's handler: what was begun goes on when that returns
            return False
        is_done = False
        with self._writing:
            if self._has_ended:
                return False
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
                    if not self._file.is_sync_lost:
                        self._safe = self._file.event_count
                is_done = True
            except FAILURES as error:
                self._failed(error)
            finally:
                self._writer = 0
        if self._closes_later:
            self._closes_later = False
            self.close()
        return is_done

    def _append_sealed(self) -> None:
        self._seal()
        while self._sealed:
            buffer = self._sealed[0]
            if buffer.is_torn:
                self._drop(0)
                continue
            end = self._file.write(buffer.block(self._file.value_count, self._file.blob_bytes))
            self._file.position = end
            del self._sealed[0]
            buffer.release()

    def _shed(self) -> None:
        """Drop what is more than may wait, the latest of it.

        What stays once stays for good: whether a buffer does depends on those before it alone.
        So the positions of events that wait are known, as of those in the file.
        """
        place = total = 0
        while place < len(self._sealed):  # others may add more at its end
            buffer = self._sealed[place]
            if buffer.is_torn or total + buffer.nbytes > self._buffer_bytes:
                place += self._drop(place)
            else:
                place += 1
                total += buffer.nbytes

    def _drop(self, place: int) -> int:
        """Drop a sealed buffer, but for what is to be kept; how many are in its place: 0 or 1."""
        buffer = self._sealed[place]
        empty = buffer.emptied()
        left = [empty] if empty or empty.schema else []
        count, kept = len(buffer) - len(empty), len(left)
        # With no call in between, for an interrupt to find all of it done or nothing.
        self._sealed[place : place + 1] = left
        self._dropped += count
        self._unmarked += count
        return kept

    def _mark_dropped(self) -> None:
        """Record how many events were dropped, unless the recorder was closed meanwhile."""
        count = self._unmarked
        entry = mark_entry(fmt.DROPPED, self._step, time(), count)
        with self._sealing:
            if self._buffer.append(entry, [entry]):
                self._unmarked -= count

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and end."""

    def _count(self) -> int:
        """How many events are in the file or were handed on to it."""
        with self._writing:
            return self._file.event_count + sum(map(len, self._sealed))

    def _seen(self, at_step: int) -> tuple[Search, int]:
        """What a search for `at_step` finds in all that was recorded, and how many events that is.

        Raises:
            any of `FAILURES`: it cannot be read.
        """
        with self._writing:
            descriptor = self._file.duplicate()
            is_there = self._file.is_at(self._target)
            try:
                store, _ = open_store(self._target if is_there else _open_as(descriptor))
                try:
                    search = Search.through(store, at_step)
                finally:
                    store.close()
            finally:
                os.close(descriptor)
            count = self._file.event_count
            for buffer in list(self._sealed):  # what could not be written
                search.see(*buffer.steps(), count)
                count += len(buffer)
            return search, count

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
        self._failing, self._failure = True, briefly(error)
        message = f"cannot write {self.path}: {self._failure}"
        if self._on_error == "raise":
            self._refusal = message  # no more comes: all that waits is kept
            return
        with suppress(MemoryError):
            self._shed()
        if not self._warned:
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

        Raises:
            RecordingError: at the very end, where something is lost or not surely on the disk, and
                `on_error` is "raise".
        """
        # First of all, so that no thread goes on adding more than is written meanwhile.
        self._refusal = self._refusal or f"{self.path} is closed"
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._writing:
            is_synced = self._write(fsync=True)
            with self._sealing:
                self._buffer.is_sealed = True  # who is amid an add is refused
            if self._buffer or self._sealed:  # another thread's, added meanwhile
                is_synced = self._write(fsync=True)
            if self._has_ended:  # a signal's handler closed meanwhile
                return
            losses = list[str]()
            lost = self._dropped + sum(len(buffer) for buffer in self._sealed)
            if lost:
                losses.append(f"{lost} events could not be written and are lost")
            is_there = self._file.is_at(self._target)
            try:
                self._has_ended = self._is_rewriting = True
                self._rewrite()
            except FAILURES as error:
                if not is_there:
                    losses.append(str(error))
                else:
                    self._warn(f"{self.path} was not compressed, it is kept as it was: {error}")
                    if not (is_synced or lost):
                        losses.append("its end may not be on the disk")
            finally:
                self._is_rewriting = False
                self._path_lock.release()
        raises = self._on_error == "raise" and bool(losses)
        for loss in () if raises else losses:
            self._warn(f"{self.path}: {loss}")
        try:
            self._speak()
        finally:
            if raises:
                why = f" ({self._failure})" if self._failure else ""
                raise RecordingError(f"{self.path}: {'; '.join(losses)}{why}")

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
            close_recording(_open_as(descriptor), target)
            if target != self._target:
                self._warn(f"{self.path} is another file now; the recording is in {target}")
        except FAILURES as error:
            is_lost = not os.fstat(descriptor).st_nlink
            state = "is lost" if is_lost else "is where it was moved to, not compressed"
            raise RecordingError(
                f"{target} cannot be written: {error}; what was recorded {state}"
            ) from error
        finally:
            os.close(descriptor)
            self._file.close()


def _open_as(descriptor: int) -> Path:
    """A path to what is open, even where it has no other."""
    return Path(f"/proc/self/fd/{descriptor}")


def briefly(error: Exception) -> str:
    """HDF5's messages go on about addresses; the system's own say it in a few words."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
