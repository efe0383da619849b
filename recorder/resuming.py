"""Opening a recording to write: a new one, or one that goes on where an earlier run ended.

Whatever is made is made beside the path, and put there whole: a kill leaves what was there before.
An earlier run's file is never appended to; its events are copied to a new live file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.events import Array
from flexrec.recorder.opening import RECORDING
from flexrec.recorder.ragged import Ints, Ragged
from flexrec.recorder.reader import Recording
from flexrec.recorder.replacing import begin, keep, put_in_place
from flexrec.recorder.store import Chunk, Codes, Store
from flexrec.recorder.wording import counted, warn
from flexrec.recorder.writer import Block, LiveFile

__all__ = [
    "Opened",
    "Resumption",
    "Search",
    "open_new",
    "open_resumed",
]

_BLOB_BYTES = 8 << 20  # bytes of arrays that are held at a time
_HINT = "at_step is the last step that holds, next_step the one that training goes on with"


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on.

    Attributes:
        first: the position of the first event that is superseded; no event has it where none is.
        step: the step that is recorded next.
        held: the last step that holds; None where there is none, or where steps do not rise.
        gap: where steps between what is recorded and `step` are missing, what to say of it.
    """

    first: int
    step: int
    held: int | None = None
    gap: str = ""


@dataclass(frozen=True)
class Opened:
    """A live file, ready for more, and what it knows already.

    Attributes:
        resumption: where what is recorded goes on; None: nothing is recorded.
        step: the step that is recorded first, where nothing is recorded.
    """

    file: LiveFile
    schema: fmt.Schema = field(default_factory=fmt.Schema)
    resumption: Resumption | None = None
    step: int = 0


def open_new(
    path: Path, *, config: Any, facts: Any, at_step: int | None = None, overwrite: bool = False
) -> Opened:
    """A new, empty recording at the path.

    Args:
        config, facts, at_step: as for `open_resumed`, where there is nothing to resume.
        overwrite: in place of the recording that may be there.
    """
    found = Search(at_step).found(0)
    if found.gap:
        warn(f"{path} is new: {found.gap}; {_HINT}")

    def make(making: Path) -> Opened:
        return Opened(LiveFile(making, config=config, facts=facts), step=found.step)

    return _made(path, make, overwrite=overwrite)


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
            return Opened(file, store.schema, _copy_events(store, file, at_step))

        faults = [f"{store.cut} events at its end are not whole, and left out"] * bool(store.cut)
        damage = store.damage()
        if damage:
            store.accept_damage()
            faults.append(damage)
        if faults:
            warn(f"{path}: {'; '.join(faults)}; the file as it was is {keep(path)}")
        return _made(path, make, overwrite=True)


def _made(path: Path, make: Callable[[Path], Opened], *, overwrite: bool) -> Opened:
    making = begin(path, "making")
    opened = None
    try:
        opened = make(making)
        if opened.resumption is not None and opened.resumption.gap:
            warn(f"{path}: {opened.resumption.gap}; {_HINT}")
        put_in_place(making, path, RECORDING, overwrite=overwrite)
    except BaseException:
        if opened is not None:
            opened.file.close()
        making.unlink(missing_ok=True)
        raise
    return opened


@dataclass
class Search:
    """Where the run goes on, found while its events go by."""

    at_step: int | None
    after_add: int = 0  # the step after that of the last add
    last: int | None = None  # the step of the last event
    late: int | None = None  # the first add after the last event up to `at_step`
    stride: int = 1  # by how much steps rise from an event to the next, at most
    falls: bool = False  # whether they fall somewhere

    @classmethod
    def through(cls, store: Store, at_step: int) -> "Search":
        """One that has seen all events of a store."""
        search, columns = cls(at_step), store.columns_held()
        for first, last in store.blocks():
            steps = np.zeros(last - first, np.int64)
            where, marks = store.marks(first, last)
            steps[where - first] = marks["step"]
            for chunk in store.chunks(columns, first, last, "times"):
                steps[chunk.positions - first] = chunk.step
            search.see(store.codes(first, last), steps, first)
        return search

    def see(self, codes: Codes, steps: Ints, first: int) -> None:
        """Take in the events from `first` on; those with a code of SUPERSEDED do not count."""
        left = np.flatnonzero(codes >= fmt.RESET)
        adds = left[codes[left] >= 0]
        if len(left):
            known = steps[left]
            rises = np.diff(known, prepend=known[0] if self.last is None else self.last)
            self.stride = max(self.stride, int(rises.max()))
            self.falls = self.falls or bool((rises < 0).any())
            self.last = int(known[-1])
        self.after_add = int(steps[adds[-1]]) + 1 if len(adds) else self.after_add
        if self.at_step is None:
            return
        kept = left[steps[left] <= self.at_step]
        if len(kept):
            self.late, adds = None, adds[adds > kept[-1]]
        if self.late is None and len(adds):
            self.late = first + int(adds[0])

    def found(self, count: int) -> Resumption:
        """What follows the last event up to the step is superseded from the first add on.

        For a log after the last step belongs to it.
        """
        step = max(self.after_add, self.last or 0) if self.at_step is None else self.at_step + 1
        return Resumption(
            first=count if self.late is None else self.late,
            step=min(step, fmt.STEPS[-1]),
            held=None if self.falls or not self.after_add else min(self.after_add, step) - 1,
            gap=self._gap(),
        )

    def _gap(self) -> str:
        """Steps need not follow one another; but so far apart no two of them were."""
        last = -1 if self.last is None else self.last
        missing = 0 if self.at_step is None else self.at_step - last
        if self.late is not None or missing < self.stride:
            return ""
        ends = (
            "nothing is recorded" if self.last is None else f"what is recorded ends at step {last}"
        )
        return (
            f"{ends}, and training goes on with step {last + missing + 1}; "
            f"{counted(missing, 'step')} between are missing"
        )


def _copy_events(store: Store, file: LiveFile, at_step: int | None) -> Resumption:
    """Append all of a store's events, superseded ones too; find where the run goes on."""
    file.append(Block(store.schema.encode()))
    offsets = [store.slot_offsets(column) for column in range(len(store.schema.columns))]
    views = store.views()
    columns = [view.columns_held() for view in views]
    recorded, search, slot = store.recorded(), Search(at_step), 0
    for first, last in store.blocks():
        codes = recorded.codes(first, last)
        ends = np.cumsum(store.sizes(codes))
        events = np.zeros(last - first, fmt.EVENT)
        events["code"], events["start"][1:] = codes, ends[:-1]
        values = np.zeros(int(ends[-1]))
        _copy_marks(recorded, first, last, events, values)
        for view, held in zip(views, columns, strict=True):
            for chunk in view.chunks(held, first, last):
                rows = chunk.positions - first
                events["step"][rows], events["time"][rows] = chunk.step, chunk.time
                at = offsets[chunk.column][events["code"][rows]] + events["start"][rows]
                _copy_parts(store.schema.columns[chunk.column], chunk, at, values, file)
        search.see(store.codes(first, last), events["step"], first)
        events["start"] += slot
        slot += len(values)
        file.append(Block(values=values, events=events))
    return search.found(store.count)


def _copy_marks(store: Store, first: int, last: int, events: Array, values: Array) -> None:
    where, marks = store.marks(first, last)
    rows = where - first
    for i, name in enumerate(("x", "reset", "keys")):
        values[events["start"][rows] + i] = marks[name]
    events["step"][rows], events["time"][rows] = marks["step"], marks["time"]


def _copy_parts(column: fmt.Column, chunk: Chunk, at: Ints, values: Array, file: LiveFile) -> None:
    """Put a column's rows into the values, and their arrays into the file."""
    for i, (form, part) in enumerate(zip(column.forms, chunk.parts, strict=True)):
        if column.shares(i):
            continue
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
