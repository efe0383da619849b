"""Flusher: a thread that writes what is in the queue to the file, and what it does when it cannot.

What training code calls is in recorder.py, how its values become events in event_queue.py, how a
file is written in live_file.py.
"""

import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Protocol

import numpy as np

from flexrec.recorder.errors import RecordingError, counted, warn
from flexrec.recorder.files.atomic_write import unused
from flexrec.recorder.files.lock import PathLock
from flexrec.recorder.hdf5.errors import errno_of, traced
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.compact import close_recording
from flexrec.recorder.storage.open_store import open_store
from flexrec.recorder.storage.store import Codes
from flexrec.recorder.writing.batches import TOP_WORDS, Batches
from flexrec.recorder.writing.event_queue import EventQueue, mark_event
from flexrec.recorder.writing.notices import HeavyKeys, Places
from flexrec.recorder.writing.opening.create import Opened, Search
from flexrec.recorder.writing.opening.trail import Latest, Marked, marked
from flexrec.recorder.writing.values.encoders import Queued

_PLENTY = 16 << 20  # bytes that wait, from which on the writer is given a turn
_TURN = 0.002  # seconds
_OVERHEAD = 160  # bytes of memory that an event takes beside its record and its arrays, about
_KEPT = (fmt.RESUME, fmt.DROPPED)  # marks without which what they speak of would be wrong
FAILURES = (OSError, RuntimeError, ValueError, KeyError, MemoryError, RecordingError)
"""What a file that cannot be written or read raises, out of HDF5 and of our own."""


class Owner(Protocol):
    """Whose flusher it is: a Recorder."""

    def close(self) -> None:
        """End the recording."""


class Flusher:
    """Writes what waits, from a thread of its own, as long as its owner can be reached.

    Args:
        path: what the file is called in messages.
        target: where it is; also an attribute.
        lock: the right to write it.
        opened: the file, and what it knows.
        flush_seconds, fsync_seconds, on_error, buffer_bytes, compress: as for Recorder.

    Attributes:
        has_ended: whether the file was closed.
        is_rewriting: whether it is being closed, or an interrupt came amid that.
        is_failing: whether the last write failed; `failure` says why the last that did.
        has_told: whether a warning said so, of which there is one.
        safe: how many events are on the disk itself.
        on_end: called when it has ended.
    """

    on_end: "Callable[[Flusher], None]"

    def __init__(
        self,
        path: Path,
        target: Path,
        lock: PathLock,
        opened: Opened,
        *,
        flush_seconds: float,
        fsync_seconds: float,
        on_error: str,
        buffer_bytes: int,
        compress: bool,
    ) -> None:
        self._path, self.target, self._path_lock = path, target, lock
        self._file, self._schema = opened.file, opened.schema
        self._trail, self._latest = opened.trail, Latest()
        self._flush_seconds, self._fsync_seconds = flush_seconds, fsync_seconds
        self._on_error, self._buffer_bytes, self._compress = on_error, buffer_bytes, compress
        self.created, self.safe = opened.file.created, opened.file.event_count
        self.has_ended = self.is_rewriting = self.is_failing = self.has_told = False
        self.failure = ""
        # Guards the file. Who has it waits for no other lock: a signal's handler may want it.
        self._writing = threading.RLock()
        self._writer = 0  # the thread that writes now
        self._afterwards: Callable[[], None] | None = None
        self._waiting: list[Queued] = []  # taken out of the queue, and not in the file yet
        self._announced = 0  # bytes that came since the queue was last empty, about
        self._heavy, self._places = HeavyKeys(), Places()
        self._missed = False
        self._warnings: list[str] = []  # said by the next call that may speak
        self._dropped = 0  # events, ever
        self._unmarked = 0  # of those, the ones that the recording does not speak of yet
        self._synced = monotonic()
        # What is put here has the thread look at once. An Event would be held for good by an
        # interrupt that comes amid its Python.
        self._wakes = SimpleQueue[object]()
        self._stopping = False
        self._thread = threading.Thread(target=self._write_loop, daemon=True, name="flexrec")

    def start(self, queue: EventQueue, owner: Owner) -> None:
        """Begin to write what comes into a queue; end when nothing can reach the owner."""
        self._queue, self._batches = queue, Batches(queue, self._schema)
        # Of the callbacks of weak references only those in C lose no interrupt.
        self._owner = weakref.ref(owner, self._wakes.put)
        self._thread.start()

    # ------------------------------------------------------------------ what others ask

    def wake(self, nbytes: int) -> None:
        """Have the writer look at once; wait for it only if far too much is waiting.

        Args:
            nbytes: how much has come since the last call, about.
        """
        self._announced += nbytes
        self._rouse()
        if self._announced > self._buffer_bytes:
            self.write()  # which drops it where the file cannot be written
        elif not self.is_failing and self._announced > _PLENTY:
            sleep(_TURN)  # a loop that does nothing but add hardly lets the writer run

    def write(self, *, fsync: bool = False) -> bool:
        """Write all that came; never raises for a failing file.

        Returns:
            Whether all is in the file and, with `fsync`, on the disk itself.
        """
        if self._writer == threading.get_ident():
            return False  # in a signal's handler: what was begun goes on when that returns
        is_done = False
        with self._writing:
            if self.has_ended:
                return False
            self._writer = threading.get_ident()
            try:
                self._append()
                self.is_failing = False
                if self._unmarked:
                    self._mark_dropped()
                    self._append()
                self._notice_deletion()
                is_done = True
                if fsync or monotonic() - self._synced > self._fsync_seconds:
                    is_done = False
                    is_done = self._fsync()
            except FAILURES as error:
                self._failed(error)
            finally:
                self._writer = 0
        afterwards, self._afterwards = self._afterwards, None
        if afterwards is not None:
            afterwards()
        return is_done

    def is_amid(self, afterwards: Callable[[], None]) -> bool:
        """Whether this is called by a signal's handler amid a write; then something is called when
        the write is done."""
        if self._writer != threading.get_ident():
            return False
        self._afterwards = afterwards
        return True

    def flush(self, *, fsync: bool = False) -> None:
        """Write all that came; warn, or raise where that was asked for, of what could not be.

        Raises:
            RecordingError: it could not be written, and `on_error` is "raise".
        """
        has_told = self.has_told
        is_done = self.write(fsync=fsync)
        if fsync and not is_done and has_told:
            left = counted(self.count() - self.safe, "event")
            self.warn(f"{self._path}: {left} could not be brought to the disk: {self.failure}")
        self.speak()
        self._queue.refused()

    @property
    def events(self) -> int:
        """How many events were added, about: nothing waits for the writer to say so."""
        return self._file.event_count + len(self._waiting) + len(self._queue)

    def count(self) -> int:
        """How many events are in the file or on their way to it, without those in the queue."""
        with self._writing:
            return self._file.event_count + len(self._waiting)

    def latest(self) -> Latest:
        """What is recorded at the step of the last add, without what is in the queue."""
        with self._writing:
            codes, steps, _ = self._that_waits()
            return self._latest.after(codes, steps, self._keys_of)

    def logs(self, until: int | None = None) -> list[int]:
        """The positions of the logs that hold, of so many events; without those in the queue."""
        with self._writing:
            count = self._file.event_count
            more = self._that_waits()[2]
            return self._trail.holding(count, more, self.count() if until is None else until)

    def seen(self, search: Search) -> int:
        """Have a search see all that was recorded, and return how many events that is.

        Raises:
            any of `FAILURES`: it cannot be read.
        """
        with self._writing:
            descriptor = self._file.duplicate()
            is_there = self._file.is_at(self.target)
            try:
                store, _ = open_store(self.target if is_there else _open_as(descriptor))
                try:
                    search.through(store)
                finally:
                    store.close()
            finally:
                os.close(descriptor)
            codes, steps, _ = self._that_waits()
            search.see(codes, steps, self._file.event_count, self._keys_of)
            return self.count()

    def _that_waits(self) -> tuple[Codes, Ints, Marked]:
        """Of the events that were taken, and are not in the file, the queue's numbers and steps;
        their logs and resumes."""
        first, waiting = self._file.event_count, self._waiting.copy()
        marks = [(i, event) for i, event in enumerate(waiting, first) if event[0] < 0]
        logs = [i for i, event in marks if event[0] == fmt.LOG]
        resumes = [(i, event) for i, event in marks if event[0] == fmt.RESUME]
        firsts = [(i, float(np.frombuffer(event[1], "<f8")[TOP_WORDS])) for i, event in resumes]
        steps = np.frombuffer(b"".join([event[1][:8] for event in waiting]), "<i8")
        codes = np.array([event[0] for event in waiting], np.int64)
        return codes, steps, Marked(logs, firsts)

    def _keys_of(self, number: int) -> list[str]:
        """The keys of an add by the queue's number."""
        return [column.key for column in self._queue.signatures[number]]

    def warn(self, message: str) -> None:
        """Have it said by the next call that may speak."""
        self._warnings.append(message)

    def speak(self) -> None:
        """Give the warnings; where they are made errors, the thread that writes lives on."""
        while self._warnings:
            message = self._warnings.pop(0)
            try:
                warn(message)
            except RuntimeWarning:
                if threading.current_thread() is not self._thread:
                    raise
                print(f"flexrec: {message}", file=sys.stderr)

    def forget(self) -> None:
        """In a forked child: record nothing, and let nothing reach the parent's file or lock."""
        self._queue.silence("this is the copy in a forked child")
        self._writing = threading.RLock()
        self._file.detach()
        self._path_lock.forget()

    def release(self) -> None:
        """Give the path up; a second call does nothing."""
        self._path_lock.release()
        self.on_end(self)

    def leave(self) -> None:
        """Before the interpreter ends: close the owner, or what is left of it."""
        owner = self._owner()
        if owner is None:
            self.let_go()
        else:
            owner.close()

    def let_go(self) -> None:
        """End, where nothing can reach the owner; what was added is written."""
        if self._owner() is not None:
            return
        self._queue.close(f"{self._path} is closed")
        try:
            self.finish()
        except RecordingError as error:
            self.warn(str(error))
            self.speak()

    # ------------------------------------------------------------------ writing

    def _append(self) -> None:
        self._queue.take(self._waiting)
        while self._waiting or self._batches.is_behind:
            batch = self._batches.of(self._waiting, self._file)
            count, written = batch.events, batch.written
            done = self._waiting[:count]
            first, rows = self._file.event_count, batch.block.events
            end = self._file.write(batch.block)
            self._trail.note(marked(rows, batch.block.values, first), first)
            keys_of = self._batches.schema.keys_of
            latest = self._latest.after(rows["code"], rows["step"], keys_of)
            # With no call in between, for an interrupt to find all of it done or nothing.
            self._file.position = end
            self._batches.written = written
            self._latest = latest
            del self._waiting[:count]
            self._queue.release(done)
            self._places.see(rows, batch.block.values)
            for notice in self._heavy.weigh(batch.weights, self._batches.schema.columns):
                self.warn(f"{self._path}: {notice}")
        self._announced = 0

    def _fsync(self) -> bool:
        self._file.fsync()
        self._synced = monotonic()
        if self._file.is_sync_lost:
            return False
        self.safe = self._file.event_count
        return True

    def _shed(self) -> None:
        """Drop what is more than may wait, the latest of it.

        What stays once stays for good: whether an event does depends on those before it alone. So
        the positions of events that wait are known, as of those in the file.
        """
        sizes = np.cumsum([len(event[1]) + event[3] + _OVERHEAD for event in self._waiting])
        first = int(np.searchsorted(sizes, self._buffer_bytes, "right"))
        beyond = self._waiting[first:]
        kept = [event for event in beyond if event[0] in _KEPT]
        lost = [event for event in beyond if event[0] not in _KEPT]
        count = len(lost)
        # With no call in between, as above.
        self._waiting[first:] = kept
        self._dropped += count
        self._unmarked += count
        self._announced = int(sizes[first - 1]) if first else 0
        self._queue.release(lost)

    def _mark_dropped(self) -> None:
        """Record how many events were dropped."""
        count = self._unmarked
        mark = [mark_event(fmt.DROPPED, self._queue.step, self._queue.now(), count)]
        self._waiting += mark
        self._unmarked -= count

    def _failed(self, error: Exception) -> None:
        self.is_failing, self.failure = True, briefly(error)
        message = f"cannot write {self._path}: {self.failure}"
        if self._on_error == "raise":
            self._queue.refusal = message  # no more comes: all that waits is kept
            return
        with suppress(MemoryError):
            self._shed()
        if not self.has_told:
            self.has_told = True
            self.warn(f"{message}; recording goes on in memory, and writing is tried again")

    def _notice_deletion(self) -> None:
        if not self._missed and not self._file.is_at(self.target):
            self._missed = True
            self.warn(
                f"{self._path} was deleted, moved or replaced; recording goes on, "
                "and close() writes it anew"
            )

    def _rouse(self) -> None:
        if self._wakes.empty():
            self._wakes.put(None)

    def _write_loop(self) -> None:
        while not self._stopping:
            with suppress(Empty):
                self._wakes.get(timeout=min(self._flush_seconds, threading.TIMEOUT_MAX))
            if not self._stopping:
                self.write()
                self.speak()
                self.let_go()

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """Stop the thread, write what is left, and put the closed file in place.

        An interrupt leaves what can be begun again, up to where the file is put in place.

        Raises:
            RecordingError: at the very end, where something is lost or not surely on the disk, and
                `on_error` is "raise".
        """
        self._stopping = True
        self._rouse()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._writing:
            is_synced = self.write(fsync=True)
            if self._waiting or len(self._queue):  # another thread's, added meanwhile
                is_synced = self.write(fsync=True)
            if self.has_ended:  # a signal's handler closed meanwhile
                return
            losses = list[str]()
            lost = self._dropped + len(self._waiting)
            if lost:
                losses.append(f"{lost} events could not be written and are lost")
            if self._batches.is_behind:
                losses.append("what the config was changed to could not be written and is lost")
            notice = self._places.notice()
            if notice:
                self.warn(f"{self._path}: {notice}")
            is_there = self._file.is_at(self.target)
            try:
                self.has_ended = self.is_rewriting = True
                self._rewrite()
            except FAILURES as error:
                if not is_there:
                    losses.append(str(error))
                else:
                    self.warn(f"{self._path} was not compressed, it is kept as it was: {error}")
                    if not (is_synced or lost):
                        losses.append("its end may not be on the disk")
            finally:
                self.is_rewriting = False
                self.release()
        self._say(losses)

    def _say(self, losses: list[str]) -> None:
        raises = self._on_error == "raise" and bool(losses)
        for loss in () if raises else losses:
            self.warn(f"{self._path}: {loss}")
        try:
            self.speak()
        finally:
            if raises:
                why = f" ({self.failure})" if self.failure else ""
                raise RecordingError(f"{self._path}: {'; '.join(losses)}{why}")

    def _rewrite(self) -> None:
        """Close the file, and put the closed layout in its place, or where it was deleted."""
        target = self.target
        if self._file.is_at(target):
            with traced():
                self._file.close()
            if not self._waiting:
                close_recording(target, target, compress=self._compress)
            return
        if os.path.lexists(target):
            target = unused(target, str(os.getpid()))
        descriptor = self._file.duplicate()
        try:  # a deleted file is there as long as it is open, and has no name but this
            target.parent.mkdir(parents=True, exist_ok=True)
            close_recording(_open_as(descriptor), target, compress=self._compress)
            if target != self.target:
                self.warn(f"{self._path} is another file now; the recording is in {target}")
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
    number = errno_of(error)
    return os.strerror(number) if number else str(error)
