"""Open a recording for writing: a new one, or one that continues an earlier run.

The new file is written beside the path and then renamed, so a kill leaves the old file in place.
An earlier run's file is never appended to; its events are copied to a new live file.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder.errors import counted, warn
from flexrec.recorder.events import STEPS, Array
from flexrec.recorder.files.atomic_write import begin, keep, put_in_place
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints
from flexrec.recorder.storage.open_store import RECORDING, open_store, stored_facts, stored_json
from flexrec.recorder.storage.store import Chunk, Codes, Store, of_training
from flexrec.recorder.writing.live_file import Block, LiveFile
from flexrec.recorder.writing.opening.trail import Trail, marked

_BLOB_BYTES = 8 << 20  # bytes of arrays in memory at a time
_HINT = "at_step is the last step that holds, next_step the one that training goes on with"


@dataclass(frozen=True)
class Resumption:
    """Where a resumed run continues.

    Attributes:
        first: the position of the first superseded event; beyond the last event if there is none.
        step: the step that is recorded next.
        held: the last step that is not superseded; None if there is none, or if steps ever fall.
        gap: a warning if steps between the recorded ones and `step` are missing; else empty.
        mix: a warning if events of later steps are kept because kept events follow them; else
            empty.
        time: the time of the latest event; -inf if there is none.
    """

    first: int
    step: int
    held: int | None = None
    gap: str = ""
    mix: str = ""
    time: float = -math.inf

    def doubts(self) -> list[str]:
        """The warnings to give if the step was given by `at_step` or `next_step`."""
        return [*([f"{self.gap}; {_HINT}"] if self.gap else []), *([self.mix] if self.mix else [])]


@dataclass(frozen=True)
class Opened:
    """A live file, open for appending, and what it already contains.

    Attributes:
        resumption: where the run continues; None if nothing is recorded yet.
        step: the first step to record, if nothing is recorded yet.
        trail: the logs and resumes in the file.
        config, facts: those in the file, as plain JSON data.
    """

    file: LiveFile
    schema: fmt.Schema = field(default_factory=fmt.Schema)
    resumption: Resumption | None = None
    step: int = 0
    trail: Trail = field(default_factory=Trail)
    config: Any = None
    facts: Any = None


def open_new(
    path: Path,
    *,
    config: Any,
    facts: Any,
    at_step: int | None = None,
    created: float | None = None,
    overwrite: bool = False,
) -> Opened:
    """Create a new, empty recording at the path.

    Args:
        config, facts, at_step: as for `open_resumed`.
        created: when the run began; None: now.
        overwrite: whether to replace an existing recording.
    """
    found = Search(at_step).found(0)
    for doubt in found.doubts():
        warn(f"{path} is new: {doubt}")

    with _made(path, config, facts, created=created, overwrite=overwrite) as file:
        return Opened(file, step=found.step, config=config, facts=facts)


def open_resumed(path: Path, *, config: Any, facts: Any, at_step: int | None) -> Opened:
    """Resume the recording at the path, in the live or closed layout, as a new live file.

    Args:
        config: replaces the recorded config, unless it is None.
        facts: the facts of this run, which are added to those of the first.
        at_step: the last step to keep; None keeps everything.
    """
    store, _ = open_store(path)
    with closing(store):
        faults = [f"{store.cut} events at its end are not whole, and left out"] * bool(store.cut)
        damage = store.damage()
        if damage:
            store.accept_damage()
            faults.append(damage)
        old = stored_facts(store, path)
        if old is not None:
            before = old.get("resumed")
            earlier = before if isinstance(before, list) else []
            resumed = [*earlier, *([_without_known_patch(facts, [old, *earlier])] if facts else [])]
            facts = {**old, "resumed": resumed} if resumed else old
        config = stored_json(store, path, fmt.CONFIG) if config is None else config
        if faults:
            warn(f"{path}: {'; '.join(faults)}; the file as it was is {keep(path)}")
        with _made(path, config, facts, created=store.created, overwrite=True) as file:
            trail = Trail()
            resumption = _copy_events(store, file, at_step, trail)
            for doubt in resumption.doubts():
                warn(f"{path}: {doubt}")
            return Opened(file, store.schema, resumption, trail=trail, config=config, facts=facts)


def _without_known_patch(facts: dict[str, Any], earlier: Iterable[Any]) -> dict[str, Any]:
    """The facts of a resume; a patch that an earlier run has is left to its checksum."""
    patch = facts.get("git_patch", {})
    known = [each.get("git_patch") for each in earlier if isinstance(each, dict)]
    if any(isinstance(each, dict) and each.get("sha256") == patch.get("sha256") for each in known):
        patch = {name: value for name, value in patch.items() if name != "text"}
    return {**facts, "git_patch": patch} if patch else facts


@contextmanager
def _made(
    path: Path, config: Any, facts: Any, *, created: float | None = None, overwrite: bool
) -> Iterator[LiveFile]:
    """Create a live file, and put it in place if the block succeeds; else leave nothing of it."""
    making = begin(path, "making")
    with ExitStack() as undo:
        undo.callback(making.unlink, missing_ok=True)
        file = LiveFile(making, config=config, facts=facts, created=created)
        undo.callback(_abandon, file)
        yield file
        put_in_place(making, path, RECORDING, overwrite=overwrite)
        undo.pop_all()


def _abandon(file: LiveFile) -> None:
    """Close a file that is not needed; writing it may have failed, and then this fails too."""
    with suppress(OSError, RuntimeError):
        file.close()


@dataclass
class Search:
    """Finds where a run continues, in one pass over its events.

    Attributes:
        at_step: the last step to keep; None keeps everything.
        begin: events before this position are kept, whatever their step.
        end: events from this position on are superseded, whatever their step; None: no limit.
        amid: the keys to keep of the step `at_step` itself; empty: all.
    """

    at_step: int | None
    begin: int = 0
    end: int | None = None
    amid: frozenset[str] = frozenset()
    after_add: int = 0  # the step after that of the last add
    last: int | None = None  # the step of the last event
    lowest: int = STEPS[-1]
    highest: int = STEPS[0]
    late: int | None = None  # the first event of a later step after the last kept event
    is_mixed: bool = False  # whether there are also events of later steps before it
    stride: int = 1  # the largest rise of the step from one event to the next
    falls: bool = False  # whether the step ever falls

    def through(self, store: Store) -> "Search":
        """Pass all events of a store to `see`, and return self."""
        columns = store.columns_held()
        for first, last in store.blocks():
            steps = np.zeros(last - first, np.int64)
            where, marks = store.marks(first, last)
            steps[where - first] = marks["step"]
            for chunk in store.chunks(columns, first, last, "times"):
                steps[chunk.positions - first] = chunk.step
            self.see(store.codes(first, last), steps, first, store.schema.keys_of)
        return self

    def see(
        self, codes: Codes, steps: Ints, first: int, keys_of: Callable[[int], Iterable[str]]
    ) -> None:
        """Take account of the events from position `first` on, except those coded SUPERSEDED.

        What is around the training is at its steps, but makes none.

        Args:
            keys_of: returns the keys of adds with a code.
        """
        left = np.flatnonzero((codes >= fmt.RESET) & of_training(codes, keys_of))
        if not len(left):
            return
        known, adds = steps[left], codes[left] >= 0
        rises = np.diff(known, prepend=known[0] if self.last is None else self.last)
        self.stride = max(self.stride, int(rises.max()))
        self.falls = self.falls or bool((rises < 0).any())
        self.last = int(known[-1])
        self.lowest = min(self.lowest, int(known.min()))
        self.highest = max(self.highest, int(known.max()))
        self.after_add = int(known[adds][-1]) + 1 if adds.any() else self.after_add
        if self.at_step is None:
            return
        # A log right after the end of the last step to keep has the next step's number; keep it.
        is_late = (known > self.at_step) & (adds | (known > self.at_step + 1))
        holds = known <= self.at_step
        if self.amid:
            for code in np.unique(codes[left[adds & (known == self.at_step)]]).tolist():
                if self.amid.isdisjoint(keys_of(code)):
                    others = (codes[left] == code) & (known == self.at_step)
                    is_late, holds = is_late | others, holds & ~others
        places = left + first
        among = places >= self.begin
        if self.end is not None:
            among &= places < self.end
        self._cut(places[holds & among], places[is_late & among])

    def _cut(self, kept: Ints, late: Ints) -> None:
        if len(kept):
            self.is_mixed |= self.late is not None or bool((late < kept[-1]).any())
            self.late, late = None, late[late > kept[-1]]
        if self.late is None and len(late):
            self.late = int(late[0])

    def found(self, count: int) -> Resumption:
        """The result: events are superseded from the first later one after the last kept one."""
        step = max(self.after_add, self.last or 0) if self.at_step is None else self.at_step + 1
        end = count if self.end is None else min(self.end, count)
        return Resumption(
            first=end if self.late is None else self.late,
            step=min(step, STEPS[-1]),
            held=None if self.falls or not self.after_add else min(self.after_add, step) - 1,
            gap=self._gap() if self.end is None else "",
            mix=self._mix(),
        )

    def _gap(self) -> str:
        """A warning if the next step is farther from the last than any two recorded steps are.

        With a single recorded step the usual distance is unknown, and there is no warning.
        """
        if self.at_step is None or self.late is not None or self.is_mixed:
            return ""
        last = -1 if self.last is None else self.highest
        missing = self.at_step - bool(self.amid) - last
        if missing < self.stride or (self.last is not None and self.lowest == self.highest):
            return ""
        ends = (
            "nothing is recorded" if self.last is None else f"what is recorded ends at step {last}"
        )
        return (
            f"{ends}, and training continues with step {last + missing + 1}; "
            f"{counted(missing, 'step')} in between are missing"
        )

    def _mix(self) -> str:
        if not self.is_mixed:
            return ""
        return (
            f"step numbers go down in this recording, so events of steps after {self.at_step} that "
            "were recorded before events of earlier steps cannot be superseded and are kept; use "
            "load_state_dict(state_dict()) instead of at_step"
        )


def _copy_events(store: Store, file: LiveFile, at_step: int | None, trail: Trail) -> Resumption:
    """Append all of a store's events, also superseded ones; find where the run continues."""
    file.append(Block(store.schema.encode()))
    views = store.views()
    columns = [view.columns_held() for view in views]
    recorded, search, slot, latest = store.recorded(), Search(at_step), 0, -math.inf
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
                slots = store.slot_offsets(chunk.column, events["code"][rows])
                at = slots + events["start"][rows]
                _copy_parts(store.schema.columns[chunk.column], chunk, at, values, file)
        search.see(store.codes(first, last), events["step"], first, store.schema.keys_of)
        trail.note(marked(events, values, first), first)
        times = events["time"]
        latest = times.max(initial=latest, where=np.isfinite(times))
        events["start"] += slot
        slot += len(values)
        file.append(Block(values=values, events=events))
    return replace(search.found(store.count), time=float(latest))


def _copy_marks(store: Store, first: int, last: int, events: Array, values: Array) -> None:
    where, marks = store.marks(first, last)
    rows = where - first
    for i, name in enumerate(("x", "reset", "keys")):
        values[events["start"][rows] + i] = marks[name]
    events["step"][rows], events["time"][rows] = marks["step"], marks["time"]


def _copy_parts(column: fmt.Column, chunk: Chunk, at: Ints, values: Array, file: LiveFile) -> None:
    """Copy a column's rows to the values, and append their arrays to the file."""
    for i, (form, part) in enumerate(zip(column.forms, chunk.parts, strict=True)):
        if column.shares(i):
            continue
        if isinstance(part, ArrayColumn):
            sizes = part.shapes.prod(axis=1) * form.dtype.itemsize
            values[at] = file.blob_bytes + np.concatenate([[0], np.cumsum(sizes)])[:-1]
            values[at[:, None] + np.arange(1, form.slots)] = part.shapes
            _copy_arrays(part, file)
        else:
            values[at] = part
        at = at + form.slots


def _copy_arrays(part: ArrayColumn, file: LiveFile) -> None:
    waiting: list[Array] = []
    size = 0
    for array in part.flat():
        waiting.append(array)
        size += array.nbytes
        if size >= _BLOB_BYTES:
            file.append(Block(blobs=waiting))
            waiting, size = [], 0
    file.append(Block(blobs=waiting))
