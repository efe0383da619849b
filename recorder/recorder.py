"""Recorder: what training code calls. It buffers events and hands them to a thread that writes.

It knows nothing of datasets (writer.py, format.py) and nothing of meters and plots.
"""

import atexit
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import Buffer, column_of_taken, plain_numbers, take
from flexrec.recorder.closing import close_in_place
from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.events import (
    Add,
    Event,
    Log,
    gather,
    normalise,
    normalise_keys,
)
from flexrec.recorder.facts import gather_facts, rank
from flexrec.recorder.writer import LiveFile

if TYPE_CHECKING:
    import torch

    from flexrec.recorder.tooled_model import TooledModel

__all__ = ["Recorder"]

_SEAL_BYTES = 8 << 20  # a buffer this large is handed to the writer before its second is over


class Recorder:
    """Append metrics, marks and layer statistics to an HDF5 file while training goes on.

    >>> with Recorder("run.h5", config={"lr": 1e-3}) as rec:  # doctest: +SKIP
    ...     for epoch in range(5):
    ...         for x, y in loader:
    ...             rec.add({"train_loss": loss, "train_mse": (output, target)})
    ...             rec.step()
    ...         rec.log(epoch)

    What is added reaches the file within `flush_seconds`, by a thread of its own; a kill loses
    nothing older. `close` rewrites the file compressed. Threads may add at the same time; the
    copy in a forked child records nothing.

    Args:
        path: the file to make; `{rank}` in it becomes the process's rank (torchrun, SLURM, MPI).
        mode: "x" refuses an existing file, "w" overwrites it.
        config: plain JSON data to keep with the recording.
        facts: keep host, versions, argv, job, rank and git commit too.
        flush_seconds: how long an added value may stay in memory.
        fsync_seconds: how often the file is made to survive a loss of power.
        on_error: when the file cannot be written, "warn" warns once, goes on buffering up to
            `buffer_bytes` and retries; "raise" raises from the next call.
        buffer_bytes: what is buffered at most; beyond it events are dropped, and counted, while
            the file cannot be written, and `add` waits while it can.

    Raises:
        RecordingError: the file exists (mode "x") or cannot be made.
        InputError: a value cannot be recorded; nothing of that call is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["x", "w"] = "x",
        config: Any = None,
        facts: bool = True,
        flush_seconds: float = 1.0,
        fsync_seconds: float = 30.0,
        on_error: Literal["warn", "raise"] = "warn",
        buffer_bytes: int = 256 << 20,
    ) -> None:
        if mode not in ("x", "w"):
            raise ValueError(f"mode must be 'x' or 'w', got {mode!r}")
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
        self.path = Path(os.fspath(path).replace("{rank}", str(rank())))
        self._file = _create(self.path, mode, config, gather_facts() if facts else None)
        self._flush_seconds, self._fsync_seconds = flush_seconds, fsync_seconds
        self._on_error, self._buffer_bytes = on_error, buffer_bytes

        self._step = 0
        self._schema = fmt.Schema()
        self._columns: dict[fmt.Column, int] = {}
        self._signatures: dict[tuple[int, ...], int] = {}
        self._number_signatures: dict[tuple[str, ...], int] = {}
        self._keysets: dict[tuple[str, ...], int] = {}
        self._watched: list[TooledModel] = []

        self._lock = threading.RLock()  # guards the buffer, the schema and the step
        self._writing = threading.RLock()  # guards the file; never taken while holding _lock
        self._buffer = Buffer(0, 0)
        self._sealed: list[Buffer] = []
        self._refusal: str | None = None  # why calls are refused: closed, or a write error
        self._inert = False  # the copy in a forked child
        self._failing = False
        self._warned = False
        self._dropped = 0  # events, ever
        self._unmarked = 0  # of those, the ones that the recording does not speak of yet
        self._synced = time.monotonic()
        self._wake = threading.Event()
        self._stopping = False
        _recorders.add(self)
        atexit.register(self.close)
        self._thread = threading.Thread(target=self._write_loop, daemon=True, name="flexrec")
        self._thread.start()

    # ------------------------------------------------------------------ recording

    def add(self, values: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Record values under their keys, at the current step and time.

        >>> rec.add({"train_loss": 0.5}, lr=1e-3)  # doctest: +SKIP

        A value is what a meter's `add` takes: a number or 0-d tensor, an array or tensor, a
        string, or a tuple or list of those. None means "nothing to add". A tensor's value is
        taken now; on an accelerator it is copied there, without waiting, and fetched at the
        next flush.
        """
        self._add(gather(values, named), None, time.time())

    def log(
        self,
        x: float | None = None,
        keys: str | Iterable[str] | None = None,
        reset: bool = True,
    ) -> None:
        """Record a mark: at replay, plot the meters here, at `x`, and reset them.

        Args:
            x: the position on the plots' x axis; the current step by default.
            keys: only these meters; all by default.
            reset: whether the meters start anew after it.
        """
        position = float(self._step) if x is None else _number("x", x)
        self._mark(fmt.LOG, position, bool(reset), normalise_keys(keys), self._step, time.time())

    def reset(self, keys: str | Iterable[str] | None = None) -> None:
        """Record that the meters of `keys` (all by default) start anew, without plotting."""
        self._mark(fmt.RESET, 0.0, True, normalise_keys(keys), self._step, time.time())

    def record(self, event: Event) -> None:
        """Record an event as it is, with its own step and time."""
        if isinstance(event, Add):
            self._add(event.values, event.step, event.time)
        elif isinstance(event, Log):
            self._mark(fmt.LOG, event.x, event.reset, event.keys, event.step, event.time)
        else:
            self._mark(fmt.RESET, 0.0, True, event.keys, event.step, event.time)

    def step(self, n: int | None = None) -> None:
        """End the current step: record the watched models' statistics, go on to step `n`.

        Args:
            n: the number of the next step; one more than the current by default.
        """
        if n is not None and (isinstance(n, bool) or not hasattr(n, "__index__")):
            raise InputError(f"a step is a whole number, got {n!r:.40}")
        following = self._step + 1 if n is None else n.__index__()
        for tooled in self._watched:
            statistics = tooled.step()
            if statistics:
                self.add(statistics)
        self._step = following

    @property
    def current_step(self) -> int:
        """The step that what is added now belongs to."""
        return self._step

    def watch(
        self,
        model: "torch.nn.Module",
        *,
        sources: Sequence[str] = ("grad_in", "grad_out", "inputs", "weights"),
        stats: Sequence[str | Callable[..., Any]] = ("mean", "std"),
        layers: Any = None,
        every: int = 1,
    ) -> "TooledModel":
        """Record statistics of a model's layers at every `step`; arguments as for TooledModel."""
        from flexrec.recorder.tooled_model import TooledModel

        tooled = TooledModel(model, sources, stats, layers=layers, every=every)
        self._watched.append(tooled)
        return tooled

    # ------------------------------------------------------------------ to the file

    def flush(self, fsync: bool = False) -> None:
        """Write everything that was added so far; with `fsync`, onto the disk itself.

        Raises:
            RecordingError: it could not be written, and `on_error` is "raise".
        """
        if self._refused():
            return
        self._write(fsync=fsync)
        self._refused()

    def close(self) -> None:
        """Write what is left, stop the thread, and rewrite the file compressed.

        A second call does nothing. Watched models lose their hooks. Where the rewriting fails,
        the file stays as it is, whole and readable, and a warning says why.
        """
        with self._lock:
            if self._stopping or self._inert:
                return
            self._stopping = True
            for tooled in self._watched:
                tooled.remove()
        atexit.unregister(self.close)
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._writing:
            self._write(fsync=True)
            self._refusal = self._refusal or f"{self.path} is closed"
            lost = self._dropped + sum(len(buffer.codes) for buffer in self._sealed)
            try:
                self._file.close()
                if not self._sealed:
                    close_in_place(self.path)
            except (OSError, RuntimeError, RecordingError) as error:
                self._warn(f"{self.path} was not compressed, it is kept as it was: {error}")
        if lost:
            self._warn(f"{self.path}: {lost} events could not be written and are lost")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ inside

    def _refused(self) -> bool:
        """Whether a call does nothing: in a forked child. Raises after a close or a failure."""
        if self._refusal is not None and not self._inert:
            raise RecordingError(self._refusal)
        return self._inert

    def _add(self, values: Mapping[str, object], step: int | None, now: float) -> None:
        with self._lock:
            if self._refused():
                return
            step = self._step if step is None else step
            buffer = self._buffer
            signature = self._number_signatures.get(tuple(values))
            start = len(buffer.values)
            numbers = None if signature is None else plain_numbers(values.values())
            if numbers is None:
                signature = self._put_slowly(values)
            else:
                try:
                    buffer.values.extend(numbers)
                except (OverflowError, TypeError):  # the slow way names the key
                    del buffer.values[start:]
                    signature = self._put_slowly(values)
            if signature is None:
                return
            buffer.event(signature, start, step, now)
            full = buffer.nbytes >= _SEAL_BYTES
        if full:
            self._full()

    def _put_slowly(self, values: Mapping[str, object]) -> int | None:
        """Buffer values of any kind, or a new set of keys; None where there is nothing to add."""
        taken: list[tuple[str, Any]] = []
        for key, value in values.items():
            try:
                fmt.check_key(key)
            except (TypeError, ValueError) as error:
                raise InputError(str(error)) from None
            normal = take(key, value)
            if normal is not None:
                taken.append((key, normal))
        if not taken:
            return None
        columns = tuple(self._column(column_of_taken(key, value)) for key, value in taken)
        for _, value in taken:
            for part in value if isinstance(value, tuple) else (value,):
                self._buffer.put(part)
        return self._signature(columns, tuple(values))

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
            if not buffer.codes and not buffer.schema:
                return
            waiting = sum(sealed.nbytes for sealed in self._sealed)
            if self._failing and waiting + buffer.nbytes > self._buffer_bytes:
                self._dropped += len(buffer.codes)
                self._unmarked += len(buffer.codes)
                self._buffer = Buffer(buffer.value_base, buffer.blob_base)
                self._buffer.schema = buffer.schema
                return
            self._sealed.append(buffer)
            self._buffer = Buffer(
                buffer.value_base + len(buffer.values), buffer.blob_base + buffer.blob_bytes
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
                if fsync or time.monotonic() - self._synced > self._fsync_seconds:
                    self._file.fsync()
                    self._synced = time.monotonic()
                self._failing = False
            except (OSError, RuntimeError) as error:
                self._failed(error)

    def _append_sealed(self) -> None:
        self._seal()
        while self._sealed:
            self._file.append(self._sealed[0].block())
            self._sealed.pop(0)

    def _write_loop(self) -> None:
        while not self._stopping:
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            if not self._stopping:
                self._write(fsync=False)

    def _failed(self, error: Exception) -> None:
        self._failing = True
        message = f"cannot write {self.path}: {error}"
        if self._on_error == "raise":
            self._refusal = message
        elif not self._warned:
            self._warned = True
            self._warn(f"{message}; recording goes on in memory, and writing is tried again")

    def _warn(self, message: str) -> None:
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _number(name: str, value: object) -> float:
    number = normalise(name, value)
    if not isinstance(number, float):
        raise InputError(f"{name} must be a number, got {type(value).__name__}")
    return number


def _create(path: Path, mode: str, config: Any, facts: Any) -> LiveFile:
    try:
        return LiveFile(path, overwrite=mode == "w", config=config, facts=facts)
    except FileExistsError:
        hint = 'pass mode="w" to overwrite it, or choose another path'
        raise RecordingError(f"{path} exists already; {hint}") from None
    except OSError as error:
        raise RecordingError(f"cannot make {path}: {error}") from None


_recorders: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def _silence_in_child() -> None:
    """In a forked child: record nothing, and let nothing of HDF5 reach the parent's file."""
    for recorder in list(_recorders):
        recorder._inert = True
        recorder._lock = threading.RLock()
        recorder._writing = threading.RLock()
        recorder._file.detach()


os.register_at_fork(after_in_child=_silence_in_child)
