"""Outbox: events wait here, and a thread puts them into the file; also when it cannot be written.

What training code calls is in recorder.py, how a file is written in writer.py.
"""

import os
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import (
    Buffer,
    Slabs,
    column_of_taken,
    plain_arrays,
    plain_numbers,
    take,
)
from flexrec.recorder.closing import close_recording
from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.locking import PathLock
from flexrec.recorder.reducing import Reducer
from flexrec.recorder.resuming import Opened

__all__ = ["Outbox", "briefly"]

_SEAL_BYTES = 8 << 20  # a buffer this large is handed to the writer before its second is over
_SEAL_SLOTS = 1 << 18  # so is one with so many values, which is cheaper to see
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
        self._number_signatures = {
            tuple(schema.columns[c].key for c in columns): i
            for i, columns in enumerate(schema.signatures)
            if all(schema.columns[c].is_number for c in columns)
        }
        self._keysets = {keys: i for i, keys in enumerate(schema.keysets)}
        self._array_signatures: dict[Any, tuple[int, list[str]]] = {}  # by keys and kinds
        self._weights: dict[str, int] = {}  # bytes of tensors, by key
        self._heavy: set[str] = set()  # keys that were said to have many

        self._lock = threading.RLock()  # guards the buffer, the schema and the step
        self._writing = threading.RLock()  # guards the file; never taken while holding _lock
        self._slabs = Slabs()
        self._buffer = Buffer(self._file.value_count, self._file.blob_bytes, self._slabs)
        self._sealed: list[Buffer] = []
        self._refusal: str | None = None  # why calls are refused: closed, or a write error
        self._inert = False  # the copy in a forked child
        self._failing = False
        self._warned = self._missed = False
        self._warnings: list[str] = []  # said by the next call that may speak
        self._dropped = 0  # events, ever
        self._unmarked = 0  # of those, the ones that the recording does not speak of yet
        self._synced = time.monotonic()
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
        self._mark(fmt.RESUME, float(first), False, None, step, time.time())
        self._step = step

    def _add(self, values: Mapping[str, object], step: int | None, now: float) -> None:
        with self._lock:
            if (self._inert or self._refusal is not None) and self._refused():
                return
            step = self._step if step is None else step
            buffer = self._buffer
            keys = tuple(values)
            signature = self._number_signatures.get(keys)
            start = len(buffer.values)
            numbers = None if signature is None else plain_numbers(values.values())
            if numbers is None:
                signature = self._put_arrays(keys, values)
            else:
                try:
                    buffer.values.extend(numbers)
                except (OverflowError, TypeError):  # the slow way names the key
                    del buffer.values[start:]
                    signature = self._put_slowly(values)
            if signature is None:
                return
            buffer.event(signature, start, step, now)
            full = start >= _SEAL_SLOTS or (numbers is None and buffer.nbytes >= _SEAL_BYTES)
        if full:
            self._full()

    def _put_arrays(self, keys: tuple[str, ...], values: Mapping[str, object]) -> int | None:
        """Buffer arrays and numbers as they came before: a fraction of the slow way's work."""
        plain = plain_arrays(values.values())
        if plain is None:
            return self._put_slowly(values)
        parts, kinds = plain
        known = self._array_signatures.get((keys, kinds))
        if known is None:
            signature = self._put_slowly(values)
            self._learn(keys, kinds, parts, signature)
            return signature
        signature, owners = known
        for key, part in zip(owners, parts, strict=True):
            if type(part) is float:
                self._buffer.values.append(part)
            else:
                self._weights[key] += self._buffer.put_array(part)
        return signature

    def _learn(
        self,
        keys: tuple[str, ...],
        kinds: tuple[Any, ...],
        parts: list[Any],
        signature: int | None,
    ) -> None:
        """Remember the signature of arrays that are recorded as they are."""
        if signature is None or any(self._reducer.of(key) for key in keys):
            return
        columns = [self._schema.columns[c] for c in self._schema.signatures[signature]]
        owners = [(column.key, form) for column in columns for form in column.forms]
        if [form for _, form in owners] == [fmt.form_of(part) for part in parts] and all(
            type(part) is float or part.dtype.isnative for part in parts
        ):
            for key in keys:
                self._weights.setdefault(key, 0)
            self._array_signatures[keys, kinds] = signature, [key for key, _ in owners]

    def _put_slowly(self, values: Mapping[str, object]) -> int | None:
        """Buffer values of any kind, or a new set of keys; None where there is nothing to add."""
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
            return None
        columns = tuple(self._column(column_of_taken(key, value)) for key, value in taken)
        for key, value in taken:
            before = self._buffer.blob_bytes
            for part in value if isinstance(value, tuple) else (value,):
                self._buffer.put(part)
            if self._buffer.blob_bytes > before:
                more = self._buffer.blob_bytes - before
                self._weights[key] = self._weights.get(key, 0) + more
        return self._signature(columns, tuple(values))

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
            start = len(self._buffer.values)
            self._buffer.values.extend((x, float(reset), float(keyset)))
            self._buffer.event(code, start, step, now)

    def _column(self, column: fmt.Column) -> int:
        found = self._columns.get(column)
        if found is None:
            found = self._columns[column] = len(self._columns)
            self._schema.columns.append(column)
            self._buffer.schema += fmt.Schema.column_line(column)
        return found

    def _signature(self, columns: tuple[int, ...], keys: tuple[str, ...]) -> int:
        found = self._signatures.get(columns)
        if found is None:
            found = self._signatures[columns] = len(self._signatures)
            self._schema.signatures.append(columns)
            self._buffer.schema += fmt.Schema.signature_line(columns)
            if len(keys) == len(columns) and all(
                self._schema.columns[c].is_number for c in columns
            ):
                self._number_signatures[keys] = found
        return found

    def _keyset(self, keys: tuple[str, ...]) -> int:
        for key in keys:
            fmt.check_key(key)
        found = self._keysets.get(keys)
        if found is None:
            found = self._keysets[keys] = len(self._keysets)
            self._buffer.schema += fmt.Schema.keyset_line(keys)
        return found

    def _seal(self) -> None:
        """Hand the buffer to the writer, or, where nothing can be written and memory is short,
        drop what it holds but for the schema, which later events refer to."""
        with self._lock:
            buffer = self._buffer
            self._weigh()
            if not buffer.codes and not buffer.schema:
                return
            waiting = sum(sealed.nbytes for sealed in self._sealed)
            if self._failing and waiting + buffer.nbytes > self._buffer_bytes:
                self._dropped += len(buffer.codes)
                self._unmarked += len(buffer.codes)
                self._buffer = Buffer(buffer.value_base, buffer.blob_base, self._slabs)
                self._buffer.schema = buffer.schema
                return
            self._sealed.append(buffer)
            self._buffer = Buffer(
                buffer.value_base + len(buffer.values),
                buffer.blob_base + buffer.blob_bytes,
                self._slabs,
            )

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
                    self._mark(fmt.DROPPED, self._unmarked, False, None, self._step, time.time())
                    self._unmarked = 0
                    self._append_sealed()
                self._notice_deletion()
                if fsync or time.monotonic() - self._synced > self._fsync_seconds:
                    self._file.fsync()
                    self._synced = time.monotonic()
                self._failing = False
            except _FAILURES as error:
                self._failed(error)

    def _append_sealed(self) -> None:
        self._seal()
        while self._sealed:
            self._file.append(self._sealed[0].block())
            self._sealed.pop(0).release()

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
            lost = self._dropped + sum(len(buffer.codes) for buffer in self._sealed)
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
