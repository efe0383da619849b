"""Opening a recording to write: a new one, or one that goes on where an earlier run ended.

Whatever is made is made beside the path, and put there whole: a kill leaves what was there before.
An earlier run's file is never appended to; its events are copied to a new live file.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.events import Array
from flexrec.recorder.reader import Recording
from flexrec.recorder.store import Chunk, Ints, Ragged, Store
from flexrec.recorder.writer import Block, LiveFile

__all__ = [
    "Opened",
    "Resumption",
    "clear_litter",
    "keep",
    "open_new",
    "open_resumed",
    "put_in_place",
]

_BLOB_BYTES = 8 << 20  # bytes of arrays that are held at a time


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on.

    Attributes:
        first: the position of the first event that is superseded; no event has it where none is.
        step: the step that is recorded next.
    """

    first: int
    step: int


@dataclass(frozen=True)
class Opened:
    """A live file, ready for more, and what it knows already."""

    file: LiveFile
    schema: fmt.Schema = field(default_factory=fmt.Schema)
    resumption: Resumption | None = None


def open_new(path: Path, *, config: Any, facts: Any) -> Opened:
    """A new, empty recording at the path, in place of what is there."""
    return _made(path, lambda making: Opened(LiveFile(making, config=config, facts=facts)))


def open_resumed(path: Path, *, config: Any, facts: Any, at_step: int | None) -> Opened:
    """A live recording at the path with all that was recorded there, live or closed.

    Args:
        config: replaces the recorded one, unless it is None.
        facts: of this run; they are added to those of the first.
        at_step: the last step that holds; None: all that was recorded does.
    """
    with Recording(path) as run:
        store, old = run._store, run.facts
        if old is not None:
            resumed = [*old.get("resumed", []), *([facts] if facts else [])]
            facts = {**old, "resumed": resumed} if resumed else old
        config = run.config if config is None else config
        created = store.created

        def make(making: Path) -> Opened:
            file = LiveFile(making, config=config, facts=facts, created=created)
            steps = _copy_events(store, file)
            return Opened(file, store.schema, _resumption(store, steps, at_step))

        if store.cut:
            warnings.warn(
                f"{path}: {store.cut} events at its end are not whole, and left out; "
                f"the file as it was is {keep(path)}",
                RuntimeWarning,
                stacklevel=5,
            )
        return _made(path, make)


def clear_litter(path: Path) -> None:
    """Remove what a killed recorder was about to put at the path; the lock must be held."""
    for ending in ("making", "closing"):
        path.with_name(f".{path.name}.{ending}").unlink(missing_ok=True)


def keep(path: Path) -> Path:
    """Give the file a second name, `run.original.h5`, before another takes its place."""
    names = (f"{path.stem}.original{i or ''}{path.suffix}" for i in range(10_000))
    original = next(n for n in map(path.with_name, names) if not n.exists())
    try:
        os.link(path, original)
    except OSError:  # a file system without hard links
        shutil.copy2(path, original)
    return original


def put_in_place(made: Path, path: Path) -> None:
    """Rename over the path, for good: it holds the old file or the new one, whole."""
    os.replace(made, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _made(path: Path, make: Callable[[Path], Opened]) -> Opened:
    making = path.with_name(f".{path.name}.making")
    opened = None
    try:
        opened = make(making)
        opened.file.fsync()
        put_in_place(making, path)
    except BaseException:
        if opened is not None:
            opened.file.close()
        making.unlink(missing_ok=True)
        raise
    return opened


def _resumption(store: Store, steps: Ints, at_step: int | None) -> Resumption:
    count, left = len(store.recorded), store.effective()
    adds = left[store.codes[left] >= 0]
    if at_step is not None:
        # What follows the last event up to the step is superseded from the first add on: a log
        # after the last step belongs to it.
        kept = left[steps[left] <= at_step]
        last = int(kept[-1]) if len(kept) else -1
        late = adds[np.searchsorted(adds, last, "right") :]
        return Resumption(int(late[0]) if len(late) else count, at_step + 1)
    step = int(steps[adds[-1]]) + 1 if len(adds) else 0
    return Resumption(count, max(step, int(steps[left[-1]])) if len(left) else 0)


def _copy_events(store: Store, file: LiveFile) -> Ints:
    """Append all of a store's events, superseded ones too; return their steps."""
    file.append(Block(store.schema.encode()))
    count = len(store.recorded)
    offsets = [store.slot_offsets(column) for column in range(len(store.schema.columns))]
    views = [store] if (store.codes == store.recorded).all() else [store, store.superseded()]
    scans = [view.scan(view.columns_held()) for view in views]
    steps, first = np.empty(count, np.int64), 0
    while first < count:
        last = store.block_end(first)
        slots = store.slots_before(first, last)
        events = np.zeros(last - first, fmt.EVENT)
        events["code"], events["start"] = store.recorded[first:last], slots[:-1]
        values = np.zeros(int(slots[-1] - slots[0]))
        _copy_marks(store, first, last, events, values)
        for scan in scans:
            for chunk in next(scan):
                rows = chunk.positions - first
                events["step"][rows], events["time"][rows] = chunk.step, chunk.time
                at = offsets[chunk.column][events["code"][rows]]
                at += events["start"][rows] - slots[0]
                _copy_parts(store.schema.columns[chunk.column], chunk, at, values, file)
        file.append(Block(values=values, events=events))
        steps[first:last] = events["step"]
        first = last
    return steps


def _copy_marks(store: Store, first: int, last: int, events: Array, values: Array) -> None:
    within = slice(*np.searchsorted(store.mark_positions, (first, last)))
    marks, rows = store.marks[within], store.mark_positions[within] - first
    at = events["start"][rows] - (events["start"][0] if len(events) else 0)
    for i, name in enumerate(("x", "reset", "keys")):
        values[at + i] = marks[name]
    events["step"][rows], events["time"][rows] = marks["step"], marks["time"]


def _copy_parts(column: fmt.Column, chunk: Chunk, at: Ints, values: Array, file: LiveFile) -> None:
    """Put a column's rows into the values, and their arrays into the file."""
    for form, part in zip(column.forms, chunk.parts, strict=True):
        if isinstance(part, Ragged):
            sizes = part.shapes.prod(axis=1) * form.dtype.itemsize
            values[at] = file.blob_bytes + np.concatenate([[0], np.cumsum(sizes)])[:-1]
            values[at[:, None] + np.arange(1, form.slots)] = part.shapes
            _copy_arrays(part, file)
        else:
            values[at] = part
        at = at + form.slots


def _copy_arrays(part: Ragged, file: LiveFile) -> None:
    waiting: list[Array] = []
    size = 0
    for array in part.flat():
        waiting.append(array)
        size += array.nbytes
        if size >= _BLOB_BYTES:
            file.append(Block(blobs=waiting))
            waiting, size = [], 0
    file.append(Block(blobs=waiting))
