"""Verify a recording, and repair one that a killed run left by closing it.

Reading a damaged file may take for ever or crash, so it is done in a child process with a time
limit.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast

import numpy as np

from flexrec.recorder.errors import (
    DamagedError,
    NotARecordingError,
    OutputError,
    RecordingError,
    VersionError,
)
from flexrec.recorder.files.atomic_write import (
    begin,
    check_source,
    clear_litter,
    keep,
    put_in_place,
)
from flexrec.recorder.files.lock import PathLock, why_not
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn
from flexrec.recorder.storage.closing.compact import write_closed
from flexrec.recorder.storage.open_store import RECORDING, open_store, stored_json
from flexrec.recorder.storage.store import Store

T = TypeVar("T")
State = Literal["whole", "unfinished", "damaged"]
# The time that reading may take, some ten times what it takes on an idle machine.
_SECONDS, _SECONDS_PER_MB, _SECONDS_PER_KEY, _SECONDS_PER_ROW = 60.0, 0.5, 0.02, 5e-6
_ROWS_PER_BYTE = 100  # more rows than a file may hold are not waited for
_CHILD = (  # it imports flexrec from where this process did, even from a zip file
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from flexrec.recorder.maintenance.repair import child; child(*sys.argv[2:])"
)
_RAISED: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (NotARecordingError, VersionError, RecordingError, OutputError, MemoryError)
}
# Signals that end a process after an invalid memory access or similar.
_CRASHES = {
    -getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")
    if hasattr(signal, name)
}
_WINDOWS_CRASHES = 0xC0000000  # the first exit status that means such a crash on Windows


@dataclass(frozen=True)
class Verdict:
    """The result of `verify`.

    Attributes:
        state: "whole": the recording is closed and can be read completely. "unfinished": the run is
            running, or was killed; its events can be read. "damaged": something cannot be read.
        fault: what is damaged and where, in one line; empty if nothing is.
        events: the number of events, including resumes and superseded events; 0 if unknown.
        last_step: the step of the last event of the training in an unfinished recording; None if
            there is none.
        left_out: the number of events at the end that are not whole and are not read.
        is_torn: whether those never reached the disk, torn by a loss of power.
        is_clean: False if only the last bytes of closing are missing, because of a loss of power:
            flexrec can read everything, other HDF5 programs only after `repair`.
    """

    state: State
    fault: str = ""
    events: int = 0
    last_step: int | None = None
    left_out: int = 0
    is_torn: bool = False
    is_clean: bool = True


@dataclass(frozen=True)
class Repaired:
    """The result of `repair`.

    Attributes:
        path: the recording.
        is_changed: whether a closed copy replaced it; False if there was nothing to repair.
        events: the number of its events: adds, logs and resets, including superseded ones.
        left_out: the number of events at the end that were not whole and were left out.
        damage: data that does not match its checksums, in one line; empty if there is none.
        original: the path where the original file is kept; None if it is not kept.
    """

    path: Path
    is_changed: bool
    events: int = 0
    left_out: int = 0
    damage: str = ""
    original: Path | None = None


def verify(path: str | os.PathLike[str], *, seconds: float | None = None) -> Verdict:
    """Read a whole recording and report whether it is whole, unfinished or damaged.

    >>> verify("run.h5").state
    'whole'

    Args:
        path: the recording; it is not changed.
        seconds: a time limit for reading; by default a minute, and more for a large file and for
            each key and value.

    Raises:
        NotARecordingError: the file was not written by flexrec.
        VersionError: a newer flexrec wrote it.
        RecordingError: the file does not exist, is not a regular file, or cannot be read by the
            system.
        MemoryError: there is not enough memory.
    """
    try:
        return Verdict(**_ask("examine", Path(path), seconds=seconds))
    except DamagedError as error:
        return Verdict("damaged", error.message)


def repair(
    path: str | os.PathLike[str], *, keep_original: bool = False, seconds: float | None = None
) -> Repaired:
    """Replace the recording of a killed run, or of an interrupted close, by a closed copy.

    A file that is whole is not changed.

    >>> repair("run.h5").is_changed
    False

    The copy is written beside the file, read again, synced and renamed, so if this is killed, the
    path has the whole old or new file. Events at the end that are not whole are left out. Values
    that do not match their checksums are copied unchanged and reported; config or facts that do not
    are left out and reported. In each case the original is kept, whether or not that was requested.

    Raises:
        DamagedError: the file cannot be read, or not within `seconds`.
        RecordingError: a recorder is writing it; or as for `verify`.
        OSError: there is no room for the copy.
    """
    asked = Path(path)
    check_source(asked)
    path = Path(os.path.realpath(path))
    try:
        lock = PathLock(path)
    except OSError as error:
        raise OutputError(f"{asked} cannot be repaired: {why_not(path, error)}") from error
    try:
        clear_litter(path)
        verdict = verify(path, seconds=seconds)
        if verdict.state == "whole" and verdict.is_clean:
            return Repaired(asked, False, verdict.events)
        closing = begin(path, "closing")
        try:
            try:
                done = _ask("close", path, closing, seconds=seconds)
            except DamagedError as error:
                fault = verdict.fault or error.message
                raise DamagedError(f"{asked} cannot be repaired: {fault}") from error
            is_kept = keep_original or done["left_out"] or done["damage"]
            original = keep(path) if is_kept else None
            put_in_place(closing, path, RECORDING, overwrite=True)
        finally:
            closing.unlink(missing_ok=True)
    finally:
        lock.release()
    return Repaired(asked, True, original=original, **done)


def _ask(task: str, *paths: Path, seconds: float | None) -> dict[str, Any]:
    """Run a task in a child process and return its result; a crash or a timeout means damage."""
    check_source(paths[0])
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), task]
    command += [str(path.absolute()) for path in paths]
    try:
        status, lines, said = _run(command, _Limit(paths[0], seconds))
    except OSError as error:  # no more processes, or memory
        raise RecordingError(f"{paths[0]} cannot be read: {error.strerror}") from error
    try:
        found: dict[str, Any] = json.loads(lines)
    except ValueError:
        raise _ended(paths[0], status, said) from None
    if "error" in found:
        raise _RAISED.get(found["error"], DamagedError)(found["message"])
    return found


class _Limit:
    """How long a child process may take: a while until it says how much work there is, then more.

    With `seconds`, it may take just that.
    """

    def __init__(self, path: Path, seconds: float | None) -> None:
        self._is_fixed, self._size = seconds is not None, path.stat().st_size
        self.seconds = _SECONDS + self._size / 1e6 * _SECONDS_PER_MB
        if seconds is not None:
            self.seconds = seconds
        self._begin = time.monotonic()

    def extend(self, line: bytes) -> bool:
        """Allow more time if the line says how many keys and rows there are; return whether."""
        try:
            keys, rows = (int(number) for number in json.loads(line)["work"])
        except (ValueError, TypeError, LookupError):
            return False
        if not self._is_fixed:
            rows = min(rows, self._size * _ROWS_PER_BYTE)
            self.seconds += keys * _SECONDS_PER_KEY + rows * _SECONDS_PER_ROW
        return True

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(self._begin + self.seconds - time.monotonic(), 0.0)


def _run(command: Sequence[str], limit: _Limit) -> tuple[int, bytes, bytes]:
    """Run a child process: its status, the last line that it printed, and its stderr.

    Raises:
        DamagedError: it did not end within the limit.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as child:  # noqa: S603 - ours
        output, errors = cast("IO[bytes]", child.stdout), cast("IO[bytes]", child.stderr)
        said: list[bytes] = []
        reading = threading.Thread(target=lambda: said.append(errors.read()))
        reading.start()
        try:
            last = _within(limit, child, output.readline)
            if limit.extend(last):
                last = _within(limit, child, output.read)
            status = _within(limit, child, child.wait)
        except BaseException:
            child.kill()
            raise
        reading.join()
        return status, last, b"".join(said)


def _within(limit: _Limit, child: subprocess.Popen[bytes], wait: Callable[[], T]) -> T:
    """Wait for something of a child process, which is killed at the limit."""
    timer = threading.Timer(limit.left, child.kill)
    timer.start()
    try:
        found = wait()
    finally:
        timer.cancel()
    if not limit.left:
        raise DamagedError(f"reading it did not end within {limit.seconds:g} s")
    return found


def _ended(path: Path, status: int, stderr: bytes) -> RecordingError:
    """The error for a child process that ended without output."""
    if status in _CRASHES or status >= _WINDOWS_CRASHES:
        return DamagedError(f"reading it ended with status {status}")
    if status < 0:
        name = signal.Signals(-status).name
        return RecordingError(f"{path} could not be read to its end: the reader got {name}")
    said = stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no word"]
    return RecordingError(f"{path} was not read: the reader ended with {said[0]:.200}")


# ---------------------------------------------------------------------- in the child


def child(task: str, *paths: str) -> None:
    """Print the result of a task, or its error, as JSON."""
    try:
        work: Callable[..., dict[str, Any]] = _examine if task == "examine" else _close
        found = work(*map(Path, paths), tell=_tell)
    except (RecordingError, OutputError, MemoryError) as error:
        found = {"error": type(error).__name__, "message": str(error)}
    except OSError as error:  # from writing the copy
        found = {"error": "OutputError", "message": f"cannot write {paths[-1]}: {error.strerror}"}
    print(json.dumps(found))


def _tell(store: Store) -> None:
    """Print how much there is to read, by which the parent limits the time."""
    rows = sum(sum(view.row_counts()) for view in store.views())
    print(json.dumps({"work": [len(store.schema.columns), rows]}), flush=True)


def _silent(_: Store) -> None:
    """Tell nothing."""


def _examine(path: Path, *, tell: Callable[[Store], None] = _silent) -> dict[str, Any]:
    store, closed = open_store(path)
    try:
        tell(store)
        for view in store.views():
            _read_all(view, view.columns_held())
        for name in (fmt.CONFIG, fmt.FACTS):
            stored_json(store, path, name)
        if closed:
            return asdict(Verdict("whole", events=store.count, is_clean=not store.file.unclosed))
        fault, damaged_from = "", store.damaged_from()
        if damaged_from is not None:
            fault = f"event {damaged_from} of {store.count} events is not as it was written"
        elif store.cut and not store.is_torn:
            fault = f"{store.count} events are whole; {store.cut} at the end are not"
        return asdict(
            Verdict(
                "damaged" if fault else "unfinished",
                fault,
                store.count,
                store.last_step,
                store.cut,
                bool(store.cut) and store.is_torn,
            )
        )
    finally:
        store.close()


def _read_all(store: Store, columns: Sequence[int]) -> None:
    """Read all values of the columns.

    Raises:
        DamagedError: a value cannot be read; the message names its key.
    """
    try:
        for chunks in store.scan(columns) if columns else ():
            for chunk in chunks:
                rows = len(chunk.positions)
                parts = [chunk.step, chunk.time, *chunk.parts]
                if any(len(part) != rows for part in parts):
                    raise store.file.damaged(f"{rows} values should be there, and are not")
                for part in chunk.parts:
                    for _ in part if isinstance(part, ArrayColumn) else ():
                        continue
    except DamagedError as error:
        if len(columns) == 1:
            key = store.schema.columns[columns[0]].key
            raise DamagedError(f"{key}: {error!s:.300}") from error
        for column in columns:
            _read_all(store, [column])
        raise


def _close(path: Path, closing: Path, *, tell: Callable[[Store], None] = _silent) -> dict[str, Any]:
    """Write the closed copy and read it again."""
    store, _ = open_store(path)
    try:
        tell(store)
        damage = store.damage()
        store.accept_damage()
        write_closed(store, closing)
        copy, _ = open_store(closing)
        try:
            columns = copy.columns_held()
            _read_all(copy, columns)
            if not _same_events(copy.recorded(), store.recorded()):
                raise DamagedError("the copy does not hold the same events")
            # Without its texts, which in a live file are those that changed.
            if columns != store.columns_held() or copy.schema.encode() != store.schema.encode():
                raise DamagedError("the copy does not hold the same keys")
            if any(copy.text(name) != store.text(name) for name in (fmt.CONFIG, fmt.FACTS)):
                raise DamagedError("the copy does not hold the same config and facts")
            for name in (fmt.CONFIG, fmt.FACTS):
                stored_json(copy, path, name)
        finally:
            copy.close()
        events = store.recorded().effective_count()
        return {"events": events, "left_out": store.cut, "damage": damage or ""}
    finally:
        store.close()


def _same_events(a: Store, b: Store) -> bool:
    """Whether two stores have the same codes in the same order."""
    blocks = a.blocks()
    return a.count == b.count and all(np.array_equal(a.codes(*at), b.codes(*at)) for at in blocks)
