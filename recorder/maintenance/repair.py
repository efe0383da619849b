"""Is a recording whole? And a closed copy in the place of one that a killed run left.

Reading a file of unknown state may take for ever or crash, so it is done in a child process with
a time limit: `python -m flexrec.recorder.maintenance.repair` is that child.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flexrec.recorder.errors import NotARecordingError, RecordingError, VersionError
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
_RAISED: dict[str, type[RecordingError]] = {
    error.__name__: error for error in (NotARecordingError, VersionError)
}


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        state: "whole": closed, and all of it can be read. "unfinished": the run is going on, or
            was killed; what was recorded can be read. "damaged": something cannot be read.
        detail: in one line, what and where.
        clean: False where only the last bytes of closing are missing, as a loss of power leaves
            it: everything can be read, but by other HDF5 programs only after `repair`.
    """

    state: State
    detail: str
    clean: bool = True


def verify(path: str | os.PathLike[str], *, seconds: float | None = None) -> Verdict:
    """Read all of a recording, and say in which state it is.

    >>> verify("run.h5").state  # doctest: +SKIP
    'whole'

    Args:
        path: the recording; it is not changed.
        seconds: after which reading it is given up; by default a minute, and more for large files.

    Raises:
        NotARecordingError, VersionError: it is none of ours.
        RecordingError: it does not exist, or is no regular file.
    """
    return Verdict(**_ask("examine", Path(path), seconds=seconds))


def repair(
    path: str | os.PathLike[str], *, keep_original: bool = False, seconds: float | None = None
) -> str:
    """Put a closed copy in the place of what a killed run left, or a loss of power as it closed.

    A file that is whole is left alone.

    >>> repair("run.h5", keep_original=True)  # doctest: +SKIP
    'run.h5 is closed now: 1200 events; the original is run.original.h5'

    The copy is made beside it, read again, synced and renamed: whenever this is killed, the path
    holds the old file or the new one, whole. Events at the end that are not whole are left out, and
    what does not fit its checksums is taken as it is, and named; the original is then kept, asked
    or not.

    Returns:
        What was done, in one line.

    Raises:
        RecordingError: a recorder is writing it, or it cannot be read, or not in `seconds`.
        OSError: there is no room for the copy.
    """
    asked = Path(path)
    check_source(asked)
    path = Path(os.path.realpath(path))
    try:
        lock = PathLock(path)
    except OSError as error:
        raise RecordingError(f"{asked} cannot be repaired: {why_not(path, error)}") from None
    try:
        clear_litter(path)
        verdict = verify(path, seconds=seconds)
        if verdict.state == "whole" and verdict.clean:
            return f"{asked} is whole: nothing to repair"
        closing = begin(path, "closing")
        try:
            done = _ask("close", path, closing, seconds=seconds)
            if done["state"] == "damaged":
                fault = verdict.detail if verdict.state == "damaged" else done["detail"]
                raise RecordingError(f"{asked} cannot be repaired: {fault}")
            original = keep(path) if keep_original or done["is_bent"] else None
            put_in_place(closing, path, RECORDING, overwrite=True)
        finally:
            closing.unlink(missing_ok=True)
    finally:
        lock.release()
    kept = f"; the original is {original}" if original else ""
    return f"{asked} is closed now: {done['detail']}{kept}"


def _ask(task: str, *paths: Path, seconds: float | None) -> dict[str, Any]:
    """What a child of ours finds; its crash or silence is a finding too."""
    check_source(paths[0])
    if seconds is None:
        seconds = _SECONDS + paths[0].stat().st_size / 1e6 * _SECONDS_PER_MB
    command = [sys.executable, "-P", "-m", "flexrec.recorder.maintenance.repair", task]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [*command, *(str(path.absolute()) for path in paths)],
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"state": "damaged", "detail": f"reading it did not end within {seconds:g} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no word"]
        detail = f"reading it ended with status {done.returncode}: {told[0]:.200}"
        return {"state": "damaged", "detail": detail}
    if "error" in found:
        raise _RAISED[found["error"]](found["detail"])
    return found


# ---------------------------------------------------------------------- in the child


def _main(task: str, *paths: str) -> None:
    try:
        found = _examine(Path(paths[0])) if task == "examine" else _close(*map(Path, paths))
    except (NotARecordingError, VersionError) as error:
        found = {"error": type(error).__name__, "detail": str(error)}
    except (RecordingError, OSError, MemoryError) as error:
        found = {"state": "damaged", "detail": str(error) or type(error).__name__}
    print(json.dumps(found))


def _examine(path: Path) -> dict[str, Any]:
    store, closed = open_store(path)
    try:
        for view in store.views():
            fault = _fault(view, view.columns_held())
            if fault:
                return {"state": "damaged", "detail": fault}
        for text in (fmt.CONFIG, fmt.FACTS):
            store.text(text)
        events = f"{store.count} events"
        if closed and store.file.unclosed:
            detail = f"{events}; closing it was not finished: flexrec repair does that"
            return {"state": "whole", "detail": detail, "clean": False}
        if closed:
            return {"state": "whole", "detail": events}
        last = "" if store.last_step is None else f", up to step {store.last_step}"
        damaged_from = store.damaged_from()
        if damaged_from is not None:
            detail = f"event {damaged_from} of {events} is not as it was written"
            return {"state": "damaged", "detail": detail}
        if store.cut and not store.is_torn:
            detail = f"{events} are whole{last}; {store.cut} at the end are not"
            return {"state": "damaged", "detail": detail}
        if store.cut:
            events += f"{last}; {store.cut} after the last sync were torn by a loss of power"
        else:
            events += last
        detail = f"{events}; where its run is over, flexrec repair closes it"
        return {"state": "unfinished", "detail": detail}
    finally:
        store.close()


def _fault(store: Store, columns: Sequence[int]) -> str | None:
    """The first thing that cannot be read."""
    try:
        for chunks in store.scan(columns) if columns else ():
            for chunk in chunks:
                rows = len(chunk.positions)
                parts = [chunk.step, chunk.time, *chunk.parts]
                if any(len(part) != rows for part in parts):
                    raise RecordingError(f"{rows} values should be there, and are not")
                for part in chunk.parts:
                    for _ in part.flat() if isinstance(part, ArrayColumn) else ():
                        continue
    except (RecordingError, OSError, RuntimeError, KeyError, ValueError, MemoryError) as error:
        if len(columns) == 1:
            return f"{store.schema.columns[columns[0]].key}: {error!s:.300}"
        faults = (_fault(store, [column]) for column in columns)
        return next(filter(None, faults), f"{error!s:.300}")
    return None


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
            fault = _fault(copy, columns)
            if not _same_events(copy.recorded(), store.recorded()):
                fault = "the copy does not hold the same events"
            if columns != store.columns_held() or copy.schema != store.schema:
                fault = "the copy does not hold the same keys"
        finally:
            copy.close()
        left_out = f"; {store.cut} that were not whole are left out" if store.cut else ""
        count = store.recorded().effective_count()
        done = f"{count} events{left_out}" + (f"; {damage}" if damage else "")
        is_bent = bool(store.cut or damage)
    finally:
        store.close()
    return {"state": "damaged" if fault else "whole", "detail": fault or done, "is_bent": is_bent}


def _same_events(a: Store, b: Store) -> bool:
    """Whether two stores have the same codes in the same order."""
    blocks = a.blocks()
    return a.count == b.count and all(np.array_equal(a.codes(*at), b.codes(*at)) for at in blocks)


if __name__ == "__main__":
    _main(*sys.argv[1:])
