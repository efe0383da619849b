"""Merge the recordings of one run's processes: match their marks and write the result.

merge_order.py puts the events in order; merged_store.py reads them in that order.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder.errors import DamagedError, ExistsError, OutputError, RecordingError, counted
from flexrec.recorder.files.atomic_write import (
    begin,
    check_target,
    clear_litter,
    put_in_place,
    writing,
)
from flexrec.recorder.files.lock import PathLock, locked, why_not
from flexrec.recorder.hdf5.errors import first_line
from flexrec.recorder.maintenance.merge_order import LEAST, Source
from flexrec.recorder.maintenance.merged_store import MergedStore
from flexrec.recorder.maintenance.shards import sharded_keys
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.closing.compact import write_closed
from flexrec.recorder.storage.open_store import RECORDING
from flexrec.recorder.storage.series import Marks

_PIECE = 1 << 17  # events that are checked at a time


@dataclass(frozen=True)
class Merged:
    """The result of `merge_recordings`.

    Attributes:
        path: the merged recording.
        recordings: the number of recordings that were merged.
        events: the number of its events: adds, logs and resets.
    """

    path: Path
    recordings: int
    events: int


def merge_recordings(
    recordings: Iterable[Recording | str | os.PathLike[str]],
    into: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Merged:
    """Merge the recordings of several processes into one, as if one process had recorded it all.

    >>> merge_recordings(["run-0.h5", "run-1.h5"], "all.h5")
    Merged(path=PosixPath('all.h5'), recordings=2, events=42)

    The first marks (`log` or `reset`) of all recordings are matched, then the second ones, and so
    on. Matched marks must be equal except for step and time, and become one mark, with the step and
    time of the first recording that has it. The events between two marks are merged in the order of
    their steps; at the same step, in the order of the recordings. Events of one recording stay in
    their order. Steps, times and values are not changed, except that statistics of parameters that
    were sharded over the processes are combined; docs/merging.md says which.

    A recording that ended early may have fewer marks. The events of a recording without marks are
    assigned by step: an event goes before the first mark of a later step. It also goes before a
    mark of its own step if, in the recording with the most marks, an add of that step does. If the
    run ended with its last `log`, events of later steps go before that `log`: the recording was
    longer than the others at the end, or killed before its first mark. A run ended with its last
    `log` if a recording with all marks was closed, and no recording with all marks has adds after
    that `log`.

    Superseded events are left out. The config is that of the first recording; `facts["merged"]` has
    each recording's file, facts, and config if it differs. The recordings are not changed. They may
    be of running or killed runs, and are read as far as they are whole.

    Args:
        recordings: the recordings, or their paths.
        into: the file to create, in the closed layout; it is written whole or not at all.
        overwrite: whether an existing recording may be overwritten.

    Raises:
        RecordingError: the recordings' marks differ, a recording is given twice or cannot be read,
            or a recorder is writing `into`.
        OutputError: `into` exists, is one of the recordings, is another kind of file, or cannot be
            written.
    """
    given = list(recordings)
    paths = [run.path if isinstance(run, Recording) else Path(run) for run in given]
    _check(paths)
    with writing(into):
        there = [path for path in paths if path.exists()]
        try:
            target = check_target(into, RECORDING, overwrite=overwrite, inputs=there)
        except ExistsError:
            target = Path(os.path.realpath(into))
            with suppress(RecordingError, OSError), locked(target):
                clear_litter(target)  # a killed merge may have left the file's first name
            raise
    try:
        lock = PathLock(target)
    except OSError as error:
        raise OutputError(f"cannot write {into}: {why_not(target, error)}") from error
    try:
        with writing(into), ExitStack() as stack:
            clear_litter(target)
            runs = [
                run if isinstance(run, Recording) else stack.enter_context(Recording(run))
                for run in given
            ]
            for run in runs:
                damage = run._store.damage()
                if damage:
                    raise DamagedError.of(run.path, f"{damage}; repair it first: that keeps a copy")
            merged = MergedStore(_sources(runs), _texts(runs), sharded_keys(runs))
            closing = begin(target, "closing")
            stack.callback(closing.unlink, missing_ok=True)
            write_closed(merged, closing)
            put_in_place(closing, target, RECORDING, overwrite=overwrite)
            return Merged(Path(into), len(runs), merged.effective_count())
    except RuntimeError as error:  # raised by HDF5 on a full disk
        raise OutputError(f"cannot write {into}: {first_line(error)}") from error
    finally:
        lock.release()


def _check(paths: Sequence[Path]) -> None:
    """Refuse an empty list, and recordings that are given twice."""
    if not paths:
        raise RecordingError("there is nothing to merge: give the paths of recordings")
    seen = dict[object, Path]()
    for path in paths:
        known = _identity(path)
        if known in seen:
            raise RecordingError(f"{seen[known]} and {path} are one file: it would count twice")
        seen[known] = path


def _identity(path: Path) -> object:
    """What is the same for all names of a file."""
    try:
        status = path.stat()
    except OSError:  # reading it raises the error
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _texts(runs: Sequence[Recording]) -> dict[str, bytes]:
    """The config and facts of the merged recording, as they are stored."""
    first, merged = runs[0], list[dict[str, Any]]()
    for run in runs:
        merged.append({"file": str(run.path), "facts": run.facts})
        if run.config != first.config:
            merged[-1]["config"] = run.config
    facts = {**(first.facts or {}), "merged": merged}
    return {fmt.CONFIG: first._store.text(fmt.CONFIG), fmt.FACTS: json.dumps(facts).encode()}


# ---------------------------------------------------------------------- marks


def _sources(runs: Sequence[Recording]) -> list[Source]:
    """The recordings as sources, and which of their marks are used.

    Raises:
        RecordingError: their marks differ.
    """
    marks = [run.marks for run in runs]
    longest = max(range(len(runs)), key=lambda i: len(marks[i]))
    sources, taken = list[Source](), 0
    for run, own in zip(runs, marks, strict=True):
        _match(run, own, runs[longest], marks[longest])
        first = int(own.position[taken]) if len(own) > taken else run._store.count
        sources.append(Source(run._store, first))
        taken = max(taken, len(own))
    unmarked = [source for source, own in zip(sources, marks, strict=True) if not len(own)]
    if taken and unmarked:
        cuts = _cuts(sources[longest], marks[longest])
        complete = [run for run, own in zip(runs, marks, strict=True) if len(own) == taken]
        end = _end(complete, marks[longest])
        if end is not None:
            cuts = cuts[: int(np.searchsorted(cuts, cuts[end]))]  # later events go before it
        for source in unmarked:
            source.cuts = cuts
    return sources


def _match(run: Recording, marks: Marks, other: Recording, others: Marks) -> None:
    """Refuse marks that differ from the first marks of the other recording."""
    for number, (mark, its) in enumerate(
        zip(_descriptions(marks), _descriptions(others), strict=False), 1
    ):
        if mark != its:
            raise RecordingError(
                f"{run.path} and {other.path} cannot be merged: mark {number} is {mark} "
                f"in the one and {its} in the other. The first has {_places(marks, number)}, "
                f"the second {_places(others, number)}. If only one was resumed, or they were "
                "resumed at different checkpoints, resume both at the same checkpoint before that "
                'mark, with Recorder(path, mode="resume") and load_state_dict(state), and record '
                "again what came after it"
            )


def _places(marks: Marks, number: int) -> str:
    """The number of marks, and the x of the logs near mark `number`, for a message."""
    near = slice(max(number - 4, 0), number + 3)
    logs = [f"{x:g}" for x in marks.x[near][marks.is_log[near]].tolist()]
    return f"{counted(len(marks), 'mark')} (near it, logs at x = {', '.join(logs) or 'nowhere'})"


def _descriptions(marks: Marks) -> Iterator[str]:
    """Describe marks by everything that must be equal in all recordings."""
    columns = (marks.is_log.tolist(), marks.x.tolist(), marks.reset.tolist(), marks.keys)
    for is_log, x, reset, keys in zip(*columns, strict=True):
        yield f"log(x={x!r}, keys={keys!r}, reset={reset})" if is_log else f"reset(keys={keys!r})"


def _cuts(source: Source, marks: Marks) -> Ints:
    """For each mark of a source, the last step whose unmarked events go before it."""
    high, highest = LEAST, [np.empty(0, np.int64)]
    for first in range(0, source.store.count, _PIECE):
        last = min(first + _PIECE, source.store.count)
        steps = np.maximum.accumulate(source.steps(first, last)).clip(high)
        high = int(steps[-1])
        highest.append(
            steps[marks.position[slice(*np.searchsorted(marks.position, (first, last)))] - first]
        )
    # With `step(); log()` a mark has the step of the next add, with `log(); step()` of the last.
    cuts = np.where(np.concatenate(highest) >= marks.step, marks.step, marks.step - 1)
    return np.maximum.accumulate(cuts)


def _end(complete: Sequence[Recording], marks: Marks) -> int | None:
    """The number of the log that a run ended with; None if the run went on, or may have.

    Args:
        complete: the recordings that have all marks.
        marks: the marks of one of them.
    """
    logs = np.flatnonzero(marks.is_log)
    if not len(logs) or not any(run.complete for run in complete):
        return None
    last = int(logs[-1])
    return (
        None if any(_adds_after(run, int(run.marks.position[last])) for run in complete) else last
    )


def _adds_after(run: Recording, position: int) -> bool:
    """Whether there is an add after a position, not counting superseded ones."""
    return any((run._store.codes(*block) >= 0).any() for block in run._store.blocks(position + 1))
