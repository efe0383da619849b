"""Flusher: a background thread that writes queued events; it retries or drops when it cannot.

recorder.py has what training code calls, event_queue.py turns values into events, and live_file.py
writes the file.
"""

import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Protocol

import numpy as np

from flexrec.recorder.errors import DamagedError, RecordingError, counted, warn
from flexrec.recorder.files.atomic_write import make_folder, unused
from flexrec.recorder.files.lock import PathLock
from flexrec.recorder.hdf5.errors import errno_of, traced
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.closing.compact import close_recording
from flexrec.recorder.storage.open_store import open_store
from flexrec.recorder.storage.store import Codes, of_training, shown
from flexrec.recorder.writing.batches import TOP_WORDS, Batches
from flexrec.recorder.writing.event_queue import EventQueue, mark_event
from flexrec.recorder.writing.notices import HeavyKeys, Places
from flexrec.recorder.writing.opening.create import Opened, Search
from flexrec.recorder.writing.opening.trail import (
    Latest,
    Marked,
    Resume,
    holding,
    marked,
    superseded,
)
from flexrec.recorder.writing.surroundings.companion import Companion
from flexrec.recorder.writing.values.encoders import Queued

_PLENTY = 16 << 20  # waiting bytes from which on `wake` yields to the writer
_TURN = 0.002  # seconds
_OVERHEAD = 160  # approximate memory of an event in bytes, without its record and arrays
_KEPT = (fmt.RESUME, fmt.DROPPED)  # marks never dropped: other events' meaning depends on them
FAILURES = (OSError, RuntimeError, ValueError, KeyError, MemoryError, RecordingError)
"""The exceptions that HDF5 and flexrec raise when a file cannot be written or read."""


class Owner(Protocol):
    """The owner of a flusher: a Recorder."""

    def close(self) -> None:
        """End the recording."""


class Flusher:
    """Writes queued events from a background thread, as long as its owner is referenced.

    Args:
        path: the file's name in messages.
        target: the file's absolute path; also an attribute.
        lock: the lock on the path.
        opened: the open file, and its schema and trail.
        flush_seconds, fsync_seconds, on_error, buffer_bytes, compress: as for Recorder.

    Attributes:
        has_ended: whether the file was closed.
        is_rewriting: whether the file is being closed, or closing it was interrupted.
        is_failing: whether the last write failed; `failure` has the reason of the last failure.
        has_warned: whether the one warning about a failed write was given.
        safe: the number of events synced to disk.
        on_end: called when the flusher has ended.
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
        self.has_ended = self.is_rewriting = self.is_failing = self.has_warned = False
        self.failure = ""
        # Guards the file. Never wait for another lock while holding it: a signal handler may
        # need it.
        self._writing = threading.RLock()
        self._writer = 0  # the id of the thread that is writing
        self._afterwards: Callable[[], None] | None = None
        self._waiting: list[Queued] = []  # taken from the queue, but not in the file yet
        self._announced = 0  # approximate bytes added since the queue was last empty
        self._heavy, self._places = HeavyKeys(), Places()
        self._missed = False
        self._warnings: list[str] = []  # given by the next call of `speak`
        self._dropped = 0  # dropped events in total
        self._unmarked = 0  # dropped events that no mark in the recording counts yet
        self._synced = monotonic()
        # Putting an item here wakes the thread. threading.Event is written in Python: an interrupt
        # inside it could leave its lock held for ever.
        self._wakes = SimpleQueue[object]()
        # Filled when the owner is gone. Calling `_owner` to find out would keep the owner alive in
        # this thread, and another one that ends it just then would find its path in use.
        self._gone: list[object] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._write_loop, daemon=True, name="flexrec")

    def start(self, queue: EventQueue, owner: Owner, companions: Sequence[Companion] = ()) -> None:
        """Start writing the events of a queue; end when the owner is no longer referenced.

        Args:
            companions: what runs beside the recording, in the writer's thread.
        """
        self._companions = companions
        self._queue, self._batches = queue, Batches(queue, self._schema)
        # C functions as the callbacks: an interrupt in a Python callback would be lost.
        self._owner = weakref.ref(owner, self._wakes.put)
        self._end_of_owner = weakref.ref(owner, self._gone.append)
        self._thread.start()
        for companion in companions:
            notice = companion.start()
            if notice is not None:
                self.warn(f"{self._path}: {notice}")

    # ------------------------------------------------------------------ for the recorder

    def wake(self, nbytes: int) -> None:
        """Wake the writer; wait for it only if more than `buffer_bytes` is waiting.

        Args:
            nbytes: approximate bytes added since the last call.
        """
        self._announced += nbytes
        self._rouse()
        if self._announced > self._buffer_bytes:
            self.write()  # drops events if the file cannot be written
        elif not self.is_failing and self._announced > _PLENTY:
            sleep(_TURN)  # else a loop that only adds would hardly let the writer run

    def write(self, *, fsync: bool = False) -> bool:
        """Write all queued events; never raises if the file cannot be written.

        Returns:
            Whether all events are in the file and, with `fsync`, synced to disk.
        """
        if self._writer == threading.get_ident():
            return False  # in a signal handler: the write continues when the handler returns
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
        """Whether a signal handler calls this during a write.

        If so, `afterwards` is called when the write is done.
        """
        if self._writer != threading.get_ident():
            return False
        self._afterwards = afterwards
        return True

    def flush(self, *, fsync: bool = False) -> None:
        """Write all queued events; warn or raise if they could not be written.

        Raises:
            RecordingError: they could not be written, and `on_error` is "raise".
        """
        has_warned = self.has_warned
        is_done = self.write(fsync=fsync)
        if fsync and not is_done and has_warned:
            left = counted(self.count() - self.safe, "event")
            self.warn(f"{self._path}: {left} could not be written to disk: {self.failure}")
        self.speak()
        self._queue.refused()

    @property
    def events(self) -> int:
        """The approximate number of events added; does not wait for the writer."""
        return self._file.event_count + len(self._waiting) + len(self._queue)

    def count(self) -> int:
        """The number of events in the file or taken from the queue to be written."""
        with self._writing:
            return self._file.event_count + len(self._waiting)

    def latest(self) -> Latest:
        """The keys at the step of the last add, without events still in the queue."""
        with self._writing:
            codes, steps, _ = self._waiting_events()
            return self._latest.after(codes, steps, self._keys_of)

    def logs(self, until: int | None = None) -> list[int]:
        """The positions of logs not superseded, without events still in the queue.

        Args:
            until: consider only this many events; None: all.
        """
        with self._writing:
            return holding(self._marked(), self.count() if until is None else until)

    def resumes(self) -> list[Resume]:
        """The resumes, also those superseded, without events still in the queue."""
        with self._writing:
            return self._marked().resumes

    def _marked(self) -> Marked:
        return self._trail.through(self._file.event_count, self._waiting_events()[2])

    def seen(self, search: Search, until: int) -> None:
        """Pass the events before a position that held there to a search.

        Raises:
            any of `FAILURES`: the file cannot be read.
        """
        with self._writing:
            hidden = [*superseded(self._marked().resumes, until), (until, self.count())]
            descriptor = self._file.duplicate()
            is_there = self._file.is_at(self.target)
            try:
                store, _ = open_store(self.target if is_there else _open_as(descriptor))
                try:
                    search.through(store.hiding(hidden))
                finally:
                    store.close()
            finally:
                os.close(descriptor)
            codes, steps, _ = self._waiting_events()
            first = self._file.event_count
            search.see(shown(codes, first, hidden), steps, first, self._keys_of)

    def _waiting_events(self) -> tuple[Codes, Ints, Marked]:
        """The queue's numbers, the steps, and the logs and resumes of events not yet written."""
        first, waiting = self._file.event_count, self._waiting.copy()
        marks = [(i, event) for i, event in enumerate(waiting, first) if event[0] < 0]
        logs = [i for i, event in marks if event[0] == fmt.LOG]
        resumes = [(i, event) for i, event in marks if event[0] == fmt.RESUME]
        words = [(i, np.frombuffer(event[1], "<f8")) for i, event in resumes]
        found = [Resume(i, float(each[TOP_WORDS]), float(each[1])) for i, each in words]
        steps = np.frombuffer(b"".join([event[1][:8] for event in waiting]), "<i8")
        codes = np.array([event[0] for event in waiting], np.int64)
        return codes, steps, Marked(logs, found)

    def _keys_of(self, number: int) -> list[str]:
        """The keys of an add, by its number in the queue."""
        return [column.key for column in self._queue.signatures[number]]

    def warn(self, message: str) -> None:
        """Store a warning for the next call of `speak`."""
        self._warnings.append(message)

    def speak(self) -> None:
        """Give the stored warnings; if a filter turns them into errors, the thread survives."""
        while self._warnings:
            message = self._warnings.pop(0)
            try:
                warn(message)
            except RuntimeWarning:
                if threading.current_thread() is not self._thread:
                    raise
                print(f"flexrec: {message}", file=sys.stderr)

    def forget(self) -> None:
        """In a forked child: stop recording, and leave the parent's file and lock untouched."""
        for companion in self._companions:
            companion.forget()
        self._queue.silence("this is the copy in a forked child")
        self._writing = threading.RLock()
        self._file.detach()
        self._path_lock.forget()

    def end_companions(self) -> None:
        """End what runs beside the recording; a second call does nothing."""
        for companion in self._companions:
            companion.close()

    def release(self) -> None:
        """Release the lock on the path; a second call does nothing."""
        self._path_lock.release()
        self.on_end(self)

    def leave(self) -> None:
        """At interpreter exit: close the owner, or end the flusher if the owner is gone."""
        owner = self._owner()
        if owner is None:
            self.let_go()
        else:
            owner.close()

    def let_go(self) -> None:
        """Write all events and end, if the owner is no longer referenced."""
        if not self._gone:
            return
        self.end_companions()
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
            count, known, written = batch.events, self._batches.written, batch.written
            done = self._waiting[:count]
            first, rows = self._file.event_count, batch.block.events
            end = self._file.write(batch.block)
            self._trail.note(marked(rows, batch.block.values, first), first)
            keys_of = self._batches.schema.keys_of
            latest = self._latest.after(rows["code"], rows["step"], keys_of)
            # No calls in these lines, so that an interrupt cannot separate them.
            self._file.position = end
            self._batches.written = written
            self._latest = latest
            del self._waiting[:count]
            self._queue.release(done)
            self._queue.forget_texts(known.texts, written.texts)
            is_training = of_training(rows["code"], keys_of)
            self._places.see(rows, batch.block.values, is_training)
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
        """Drop the latest of the waiting events if they exceed `buffer_bytes`.

        Whether an event is kept depends only on the events before it, so a kept event is never
        dropped later. Hence the positions of waiting events are as final as of those in the file.
        """
        sizes = np.cumsum([len(event[1]) + event[3] + _OVERHEAD for event in self._waiting])
        first = int(np.searchsorted(sizes, self._buffer_bytes, "right"))
        beyond = self._waiting[first:]
        kept = [event for event in beyond if event[0] in _KEPT]
        lost = [event for event in beyond if event[0] not in _KEPT]
        count = len(lost)
        # No calls in these three lines, so that an interrupt cannot separate them.
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
            self._queue.refusal = message  # no more events are accepted; those waiting are kept
            return
        with suppress(MemoryError):
            self._shed()
        # A failure while closing only matters if something is lost in the end; `_say` tells that.
        if not self.has_warned and not self._stopping:
            self.has_warned = True
            self.warn(f"{message}; recording goes on in memory, and writing is tried again")

    def _notice_deletion(self) -> None:
        if not self._missed and not self._file.is_at(self.target):
            self._missed = True
            self.warn(
                f"{self._path} was deleted, moved or replaced; recording goes on, "
                "and close() writes the file again"
            )

    def _rouse(self) -> None:
        if self._wakes.empty():
            self._wakes.put(None)

    def _write_loop(self) -> None:
        seconds = (self._flush_seconds, *(one.seconds for one in self._companions))
        timeout = min(*seconds, threading.TIMEOUT_MAX)
        while not self._stopping:
            with suppress(Empty):
                self._wakes.get(timeout=timeout)
            if not self._stopping:
                for companion in self._companions:
                    notice = companion.tick()
                    if notice is not None:
                        self.warn(f"{self._path}: {notice}")
                self.write()
                self.speak()
                self.let_go()

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """Stop the thread, write the remaining events, and put the closed file in place.

        After an interrupt it can be called again, until the closed file is in place.

        Raises:
            RecordingError: events are lost or may not be on disk, and `on_error` is "raise". It is
                raised after everything else is done.
        """
        self._stopping = True
        self._rouse()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._writing:
            is_synced = self.write(fsync=True)
            # What failed is tried once more; or another thread added events meanwhile.
            if self._waiting or len(self._queue) or self._batches.is_behind:
                is_synced = self.write(fsync=True)
            if self.has_ended:  # a signal handler closed it meanwhile
                return
            losses = list[str]()
            lost = self._dropped + len(self._waiting)
            if lost:
                losses.append(f"{lost} events could not be written and are lost")
            if self._batches.is_behind:
                losses.append("changed config or facts could not be written and are lost")
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
                    why = briefly(error)
                    if self.is_failing and isinstance(error, RuntimeError):
                        # HDF5 cannot close a file that it could not write, and says only that.
                        why = self.failure
                    kept = f"was not compressed and is kept as it was: {why}"
                    if isinstance(error, DamagedError):  # another program changed the file
                        losses.append(f"it {kept}")
                    else:
                        self.warn(f"{self._path} {kept}")
                    if not (is_synced or lost):
                        losses.append("its end may not be on the disk")
            finally:
                self.is_rewriting = False
                self.release()
        self._say(losses)

    def _say(self, losses: list[str]) -> None:
        raises = self._on_error == "raise" and bool(losses)
        why = f" ({self.failure})" if self.failure and not self.has_warned else ""
        for loss in () if raises else losses:
            self.warn(f"{self._path}: {loss}{why}")
        try:
            self.speak()
        finally:
            if raises:
                raise RecordingError(f"{self._path}: {'; '.join(losses)}{why}")

    def _rewrite(self) -> None:
        """Close the file, and replace it (or recreate it, if deleted) in the closed layout."""
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
        try:  # a deleted file exists while it is open; the descriptor is its only name
            make_folder(target.parent)
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
    """A path to the file of a descriptor, even if it was deleted."""
    folder = Path("/proc/self/fd")
    return (folder if folder.is_dir() else Path("/dev/fd")) / str(descriptor)


def briefly(error: Exception) -> str:
    """The system's short message for an error, if it has an errno, instead of HDF5's long one."""
    number = errno_of(error)
    return os.strerror(number) if number else str(error)
