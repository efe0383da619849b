"""Outbox: events wait here, and a thread puts them into the file; also when it cannot be written.

What training code calls is in recorder.py, how a file is written in writer.py.
"""

import os
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, time
from typing import Any

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import Buffer, Draft, Slabs, code_word, record_of
from flexrec.recorder.closing import close_recording
from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.events import State, gather
from flexrec.recorder.layouts import ArrayLayout, NumberLayout
from flexrec.recorder.locking import PathLock
from flexrec.recorder.on_device import OnDevice, take
from flexrec.recorder.reducing import Reducer
from flexrec.recorder.resuming import Opened

__all__ = ["Outbox", "briefly"]

_SEAL_BLOBS = 8 << 20  # a buffer with so many bytes of arrays is handed to the writer before its
_SEAL_RECORDS = 2 << 20  # second is over, and so is one with so many of numbers
_MARK = record_of(fmt.MARK_SLOTS)
_MANY_BYTES = 1 << 30  # tensors of one key that are worth a word
_FAILURES = (OSError, RuntimeError, ValueError, KeyError, MemoryError, RecordingError)
"""What a file that cannot be written or read raises, out of HDF5 and of our own."""


class Outbox:
    """Takes events in from any thread, and writes them from one of its own.

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
        self.path, self._target, self._path_lock, self._reducer = path, target, lock, reducer
        self._file = opened.file
        self._flush_seconds, self._fsync_seconds = flush_seconds, fsync_seconds
        self._on_error, self._buffer_bytes = on_error, buffer_bytes

        self._step = 0
        self._schema = schema = opened.schema
        self._columns = {column: i for i, column in enumerate(schema.columns)}
        self._signatures = {columns: i for i, columns in enumerate(schema.signatures)}
        self._keysets = {keys: i for i, keys in enumerate(schema.keysets)}
        self._slots = schema.places()[1]  # by signature, how many an event has
        self._numbers: dict[tuple[str, ...], NumberLayout] = {}  # of adds that came before, by
        self._arrays: dict[tuple[str, ...], ArrayLayout] = {}  # their keys
        self._weights: dict[str, int] = {}  # bytes of tensors, by key
        self._heavy: set[str] = set()  # keys that were said to have many

        self._lock = threading.RLock()  # guards the buffer, the schema and the step
        self._writing = threading.RLock()  # guards the file; never taken while holding _lock
        self._buffer = Buffer(self._file.value_count, self._file.blob_bytes, self._slots, Slabs())
        self._sealed: list[Buffer] = []
        self._refusal: str | None = None  # why calls do nothing: closed, a write error, forked
        self._inert = False  # the copy in a forked child
        self._failing = False
        self._warned = self._missed = False
        self._warnings: list[str] = []  # said by the next call that may speak
        self._dropped = 0  # events, ever
        self._unmarked = 0  # of those, the ones that the recording does not speak of yet
        self._synced = monotonic()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._write_loop, daemon=True, name="flexrec")

    def _refused(self) -> bool:
        """Whether a call does nothing: in a forked child. Raises after a close or a failure."""
        if self._refusal is not None and not self._inert:
            raise RecordingError(self._refusal)
        return self._inert

    def _rewrite(self) -> None:
        """Close the file, and put the closed layout in its place, or where it was deleted."""
        target = self._target
        if self._file.is_at(target):
            self._file.close()
            if not self._sealed:
                close_recording(target, target)
            return
        if target.exists():
            target = target.with_name(f"{target.stem}.{os.getpid()}{target.suffix}")
            self._warn(f"{self.path} is another file now; the recording is in {target}")
        descriptor = self._file.duplicate()
        try:  # a deleted file is there as long as it is open, and has no name but this
            close_recording(Path(f"/proc/self/fd/{descriptor}"), target)
        finally:
            os.close(descriptor)
            self._file.close()

    def _resume(self, first: int, step: int) -> None:
        """Record that events from position `first` on are superseded; go on at `step`."""
        self._mark(fmt.RESUME, float(first), False, None, step, time())
        self._step = step

    def add(self, values: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Record values under their keys, at the current step and time.

        >>> rec.add({"train_loss": 0.5}, lr=1e-3)  # doctest: +SKIP

        A value is what a meter's `add` takes: a number or 0-d tensor, an array or tensor, a
        string, or a tuple or list of those. None means "nothing to add". A tensor's value is
        taken now; on an accelerator it is copied there, without waiting, and fetched at the
        next flush.
        """
        now = time()
        if named or type(values) is not dict:
            values = gather(values, named)
        keys = tuple(values)
        # The hot path: Python's own numbers, under keys that came together before.
        with self._lock:
            known, record = self._numbers.get(keys), None
            if known is not None and known.is_plain and self._refusal is None:
                numbers: Any = values.values()
                try:
                    # A sum is the quickest way to see the types of all: that of Python's own
                    # numbers is one of them, and that of arrays, tensors or numpy's is not.
                    if type(sum(numbers)) is float:
                        record = known.pack(self._step, now, *numbers)
                except Exception:  # noqa: BLE001 - whatever a value raises that cannot be added
                    record = None
                known.is_plain = record is not None
            buffer = self._buffer
            if known is not None and record is not None:
                buffer.records += record
                buffer.codes += known.word
            else:
                self._add(keys, values, self._step, now)
            if len(buffer.records) < _SEAL_RECORDS and buffer.blob_bytes < _SEAL_BLOBS:
                return
        self._full()

    def _add(
        self, keys: tuple[str, ...], values: Mapping[str, object], step: int, now: float
    ) -> None:
        """Buffer values of any kind; the lock is held."""
        if self._refusal is not None and self._refused():
            return
        buffer = self._buffer
        arrays = self._arrays.get(keys)
        if arrays is not None and arrays.put(buffer, step, now, values.values(), self._weights):
            return
        numbers = self._numbers.get(keys)
        if numbers is not None:
            record, waiting = numbers.record(step, now, values.values())
            if record is not None and waiting:
                buffer.append(numbers.word, record, waiting=waiting)
                return
            if record is not None:
                buffer.records += record
                buffer.codes += numbers.word
                return
        self._add_slowly(keys, values, step, now)

    def _add_slowly(
        self, keys: tuple[str, ...], values: Mapping[str, object], step: int, now: float
    ) -> None:
        """Buffer values of any kind, or raise, saying what is wrong; nothing is added then."""
        taken: list[tuple[str, Any]] = []
        for key, value in values.items():
            try:
                fmt.check_key(key)
            except (TypeError, ValueError) as error:
                raise InputError(str(error)) from None
            normal = self._reducer.reduced(key, value) or take(key, value)
            if normal is not None:
                taken.append((key, normal))
        if not taken:
            return
        draft = Draft(self._buffer)
        weights: dict[str, int] = {}
        for key, value in taken:
            before = draft.nbytes
            for part in value if isinstance(value, tuple) else (value,):
                draft.put(part)
            weights[key] = draft.nbytes - before
        columns = [_column_of(key, value) for key, value in taken]
        code = self._signature(tuple(map(self._column, columns)))
        self._buffer.append(
            code_word(code),
            draft.record(step, now),
            draft.blobs,
            draft.nbytes,
            waiting=draft.waiting,
        )
        for key, size in weights.items():
            self._weights[key] = self._weights.get(key, 0) + size
        if len(taken) == len(keys):
            self._learn(keys, code, columns)

    def _learn(self, keys: tuple[str, ...], code: int, columns: list[fmt.Column]) -> None:
        """Remember what an add looks like whose values are recorded as they are."""
        if all(column.is_number for column in columns):
            self._numbers[keys] = NumberLayout(code, len(columns))
        elif not any(
            self._reducer.of(column.key) or any(form.kind == fmt.TEXT for form in column.forms)
            for column in columns
        ):
            self._arrays[keys] = ArrayLayout(code, columns)

    def _weigh(self) -> None:
        """Say once of a key that its tensors have become many."""
        for key, size in self._weights.items():
            if size > _MANY_BYTES and key not in self._heavy and not self._reducer.of(key):
                self._heavy.add(key)
                self._warn(
                    f"{self.path}: {key!r} has passed {_MANY_BYTES / (1 << 30):.3g} GiB of "
                    "tensors; where one meter is enough for it, record what that one remembers "
                    f'in their place: Recorder(…, reduce={{{key!r}: "MSEMeter"}})'
                )

    def _mark(
        self,
        code: int,
        x: float,
        reset: bool,
        keys: tuple[str, ...] | None,
        step: int,
        now: float,
    ) -> None:
        with self._lock:
            if self._refused():
                return
            keyset = fmt.ALL_KEYS if keys is None else self._keyset(keys)
            self._buffer.append(
                code_word(code), _MARK.pack(step, now, x, float(reset), float(keyset))
            )

    # What is new is remembered and written with no call in between: Ctrl-C finds both or neither.

    def _column(self, column: fmt.Column) -> int:
        found = self._columns.get(column)
        if found is None:
            found, line = len(self._columns), fmt.Schema.column_line(column)
            self._columns[column] = found
            self._schema.columns += [column]
            self._buffer.schema += line
        return found

    def _signature(self, columns: tuple[int, ...]) -> int:
        found = self._signatures.get(columns)
        if found is None:
            found, line = len(self._signatures), fmt.Schema.signature_line(columns)
            slots = sum(self._schema.columns[c].slots for c in columns)
            self._signatures[columns] = found
            self._schema.signatures += [columns]
            self._slots += [slots]
            self._buffer.schema += line
        return found

    def _keyset(self, keys: tuple[str, ...]) -> int:
        for key in keys:
            fmt.check_key(key)
        found = self._keysets.get(keys)
        if found is None:
            found, line = len(self._keysets), fmt.Schema.keyset_line(keys)
            self._keysets[keys] = found
            self._buffer.schema += line
        return found

    def _seal(self) -> None:
        """Hand the buffer to the writer, or, where nothing can be written and memory is short,
        drop what it holds but for the schema, which later events refer to."""
        with self._lock:
            buffer = self._buffer
            self._weigh()
            if not buffer and not buffer.schema:
                return
            waiting = sum(sealed.nbytes for sealed in self._sealed)
            if self._failing and waiting + buffer.nbytes > self._buffer_bytes:
                count, following = len(buffer), buffer.emptied()
                self._dropped += count
                self._unmarked += count
            else:
                following = buffer.following()
                self._sealed += [buffer]
            self._buffer = following

    def _full(self) -> None:
        """The buffer is large: seal it; wait for the writer only if far too much is waiting."""
        self._seal()
        self._wake.set()
        if not self._failing and sum(b.nbytes for b in self._sealed) > self._buffer_bytes:
            self._write(fsync=False)

    def _write(self, *, fsync: bool) -> None:
        """Write every sealed buffer and the current one; never raises for a failing file."""
        with self._writing:
            try:
                self._append_sealed()
                if self._unmarked:
                    self._mark(fmt.DROPPED, self._unmarked, False, None, self._step, time())
                    self._unmarked = 0
                    self._append_sealed()
                self._notice_deletion()
                if fsync or monotonic() - self._synced > self._fsync_seconds:
                    self._file.fsync()
                    self._synced = monotonic()
                self._failing = False
            except _FAILURES as error:
                self._failed(error)

    def _append_sealed(self) -> None:
        self._seal()
        while self._sealed:
            buffer = self._sealed[0]
            ends = self._file.write(buffer.block())
            self._file.lengths = ends
            del self._sealed[0]
            buffer.release()

    def _write_loop(self) -> None:
        while not self._stopping:
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
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
                warnings.warn(message, RuntimeWarning, stacklevel=3)
            except RuntimeWarning:
                if threading.current_thread() is not self._thread:
                    raise
                print(f"flexrec: {message}", file=sys.stderr)

    def _finish(self) -> None:
        """Stop the thread, write what is left, and put the closed file in place."""
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._writing:
            self._write(fsync=True)
            self._refusal = self._refusal or f"{self.path} is closed"
            lost = self._dropped + sum(len(buffer) for buffer in self._sealed)
            try:
                self._rewrite()
            except _FAILURES as error:
                self._warn(f"{self.path} was not compressed, it is kept as it was: {error}")
            finally:
                self._path_lock.release()
        if lost:
            self._warn(f"{self.path}: {lost} events could not be written and are lost")
        self._speak()


def briefly(error: Exception) -> str:
    """HDF5's messages go on about addresses; the system's own say it in a few words."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)


def _column_of(key: str, value: Any) -> fmt.Column:
    """The column of a value as `take` or a reduction gives it."""
    parts = value if isinstance(value, tuple) else (value,)
    forms = (part.form if isinstance(part, OnDevice) else fmt.form_of(part) for part in parts)
    reduction = value.reduction if isinstance(value, State) else None
    return fmt.Column(key, tuple(forms), not isinstance(value, tuple), reduction)
