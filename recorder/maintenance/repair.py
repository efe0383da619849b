"""Is a recording whole? And a closed copy in the place of one that a killed run left.

Reading a file of unknown state may take for ever or crash, so it is done in a child process with
a time limit.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

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
from flexrec.recorder.storage.compact import write_closed
from flexrec.recorder.storage.open_store import RECORDING, open_store
from flexrec.recorder.storage.store import Store

State = Literal["whole", "unfinished", "damaged"]
_SECONDS, _SECONDS_PER_MB = 60.0, 0.5
_CHILD = (  # it finds flexrec where this process did, be that a zip or a folder of sys.path alone
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from flexrec.recorder.maintenance.repair import child; child(*sys.argv[2:])"
)
_RAISED: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (NotARecordingError, VersionError, RecordingError, OutputError, MemoryError)
}
# What a process that reads what it should not ends with.
_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        state: "whole": closed, and all of it can be read. "unfinished": the run is going on, or
            was killed; what was recorded can be read. "damaged": something cannot be read.
        fault: of what is damaged, what and where, in one line; else empty.
        events: how many events there are, resumes and what they took back among them; 0 where that
            cannot be told.
        last_step: of what is unfinished, the step of the last event; None where there is none.
        left_out: how many events at the end are not whole, and are not read.
        is_torn: whether a loss of power tore those: they never were on the disk.
        is_clean: False where only the last bytes of closing are missing, as a loss of power leaves
            it: everything can be read, but by other HDF5 programs only after `repair`.
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
    """What `repair` did.

    Attributes:
        path: the recording.
        is_changed: whether a closed copy took its place; False where there was nothing to repair.
        events: how many events it has now: adds, logs and resets, what was superseded among them.
        left_out: how many events at the end were not whole, and are not in it.
        damage: what does not fit its checksums and was taken as it is, in one line; else empty.
        original: where the file as it was is kept; None where it is not.
    """

    path: Path
    is_changed: bool
    events: int = 0
    left_out: int = 0
    damage: str = ""
    original: Path | None = None


def verify(path: str | os.PathLike[str], *, seconds: float | None = None) -> Verdict:
    """Read all of a recording, and say in which state it is.

    >>> verify("run.h5").state
    'whole'

    Args:
        path: the recording; it is not changed.
        seconds: after which reading it is given up; by default a minute, and more for large files.

    Raises:
        NotARecordingError, VersionError: it is none of ours.
        RecordingError: it does not exist, is a folder or no regular file, or the system cannot read
            it.
        MemoryError: there is too little of it.
    """
    try:
        return Verdict(**_ask("examine", Path(path), seconds=seconds))
    except DamagedError as error:
        return Verdict("damaged", error.message)


def repair(
    path: str | os.PathLike[str], *, keep_original: bool = False, seconds: float | None = None
) -> Repaired:
    """Put a closed copy in the place of what a killed run left, or a loss of power as it closed.

    A file that is whole is left alone.

    >>> repair("run.h5").is_changed
    False

    The copy is made beside it, read again, synced and renamed: whenever this is killed, the path
    holds the old file or the new one, whole. Events at the end that are not whole are left out, and
    what does not fit its checksums is taken as it is, and named; the original is then kept, asked
    or not.

    Raises:
        DamagedError: it cannot be read, or not in `seconds`.
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
    """What a child of ours finds; its crash or silence is damage."""
    check_source(paths[0])
    if seconds is None:
        seconds = _SECONDS + paths[0].stat().st_size / 1e6 * _SECONDS_PER_MB
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), task]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [*command, *(str(path.absolute()) for path in paths)],
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DamagedError(f"reading it did not end within {seconds:g} s") from error
    except OSError as error:  # no more processes, or memory
        raise RecordingError(f"{paths[0]} cannot be read: {error.strerror}") from error
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise _ended(paths[0], done.returncode, done.stderr) from None
    if "error" in found:
        raise _RAISED.get(found["error"], DamagedError)(found["message"])
    return found


def _ended(path: Path, status: int, stderr: bytes) -> RecordingError:
    """What it means that the child ended without a word on stdout."""
    if -status in _CRASHES:
        return DamagedError(f"reading it ended with status {status}")
    if status < 0:
        name = signal.Signals(-status).name
        return RecordingError(f"{path} could not be read to its end: the reader got {name}")
    said = stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no word"]
    return RecordingError(f"{path} was not read: the reader ended with {said[0]:.200}")


# ---------------------------------------------------------------------- in the child


def child(task: str, *paths: str) -> None:
    """Print as JSON what was found of the paths, or the error that came up."""
    try:
        found = _examine(Path(paths[0])) if task == "examine" else _close(*map(Path, paths))
    except (RecordingError, OutputError, MemoryError) as error:
        found = {"error": type(error).__name__, "message": str(error)}
    except OSError as error:  # of the copy
        found = {"error": "OutputError", "message": f"cannot write {paths[-1]}: {error.strerror}"}
    print(json.dumps(found))


def _examine(path: Path) -> dict[str, Any]:
    store, closed = open_store(path)
    try:
        for view in store.views():
            _read_all(view, view.columns_held())
        for text in (fmt.CONFIG, fmt.FACTS):
            store.text(text)
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
        DamagedError: some cannot be read; it names their key.
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


def _close(path: Path, closing: Path) -> dict[str, Any]:
    """Write the closed copy, and read it again."""
    store, _ = open_store(path)
    try:
        damage = store.damage()
        store.accept_damage()
        write_closed(store, closing)
        copy, _ = open_store(closing)
        try:
            columns = copy.columns_held()
            _read_all(copy, columns)
            if not _same_events(copy.recorded(), store.recorded()):
                raise DamagedError("the copy does not hold the same events")
            if columns != store.columns_held() or copy.schema != store.schema:
                raise DamagedError("the copy does not hold the same keys")
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
