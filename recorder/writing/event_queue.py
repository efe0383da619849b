"""EventQueue: a queue of added events, fed from any thread and emptied by the flusher.

Each event is one tuple, added by a single `deque.append`, which Python documents as thread-safe:
no other thread and no signal handler can see a half-added event. batches.py gives signatures
their numbers in the file when it reads the events.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count, islice
from time import monotonic, time
from typing import Any, cast

import numpy as np

from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.events import STEPS, State, gather
from flexrec.recorder.reduction.reducer import Reducer
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.writing.values.accelerator import OnDevice, gathered, take
from flexrec.recorder.writing.values.copies import SMALL, Copier, Slab
from flexrec.recorder.writing.values.encoders import (
    RECORD_BYTES,
    ArrayEncoder,
    Blob,
    Encoder,
    Held,
    NumberEncoder,
    Queued,
    pack_record,
)
from flexrec.recorder.writing.values.shared_arrays import Part, Sharing

_PLENTY_BYTES = 8 << 20  # queued bytes at which the writer is woken

_END: Queued = (0, b"", b"", 0, None)
"""Marks the end of a closed queue: events before it are recorded, events after it refused."""

Signature = tuple[fmt.Column, ...]
"""The columns of an add, in order. For a part shared with another column, `same` has that column's
place in this tuple."""


class EventQueue:
    """A first-in, first-out queue of events; `take` removes them.

    Args:
        reducer: replaces some values by meters' states.
        wake: called with an approximate number of bytes when enough are queued to be written.
        since: the time of the last event of a resumed recording; no event is earlier.

    Attributes:
        step: the current step, which added values belong to.
        refusal: the error message with which calls are refused (closed, or a write error); None if
            they are accepted.
        is_inert: whether calls do nothing, as in a forked child's copy.
        signatures: the columns of adds, by the numbers in queued events; two numbers may have equal
            columns.
        keysets: the key sets of marks, by the numbers in queued marks.
        texts: the config and the facts after each change: their name and JSON text, emptied once
            they are in the file.
    """

    def __init__(
        self, reducer: Reducer, wake: Callable[[int], None], since: float = -math.inf
    ) -> None:
        self._reducer, self._wake, self._sharing = reducer, wake, Sharing()
        self.step = 0
        self.refusal: str | None = None
        self.is_inert = False
        self.signatures: dict[int, Signature] = {}
        self.keysets: dict[int, fmt.Keyset] = {}
        self.texts: list[tuple[str, str]] = []
        # Times are the start time plus the monotonic time since, so they never go back.
        self._epoch = max(time(), since) - monotonic()
        self._events: deque[Queued] = deque()
        self._numbers = count()
        self._encoders: dict[tuple[str, ...], Encoder] = {}
        self._known: dict[Signature | tuple[str, ...], int] = {}
        self._notes: dict[str, int] = {}  # the signatures of texts, by key
        self._copier = Copier()
        # Never wait for anything while holding this lock: a signal handler that interrupts a
        # close may need it.
        self._cutting, self._is_cut = threading.RLock(), False
        # Events that the writer was woken for, and the bytes of arrays added since.
        self._announced = self._array_bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, values: Mapping[str, object] | None, named: Mapping[str, object]) -> None:
        """Add values under their keys, at the current step and time."""
        now = monotonic() + self._epoch
        if named or type(values) is not dict:
            values = dict(named) if values is None else gather(values, named)
        keys = tuple(values)
        known, refusal = self._encoders.get(keys), self.refusal
        if known is None or refusal is not None:
            self.add_at(self.step, now, values)
            return
        event: Queued | None = None
        if known.is_quick:
            try:
                numbers: Any = values.values()
                if known.read is not None:
                    numbers = known.read(numbers)
                # A sum checks all types at once: it is a float or an int for Python numbers, but
                # not for arrays, tensors or numpy's numbers.
                kind = type(sum(numbers))
                if kind is float or kind is int:
                    event = known.number, known.pack(self.step, now, *numbers), b"", 0, None
            except Exception:  # noqa: BLE001 - a value that cannot be summed may raise anything
                event = None
            if event is None:
                known.slow_down()
        if event is None:
            event = known.encode(self.step, now, values.values())
        if event is None:
            self.add_at(self.step, now, values)
            return
        self._events.append(event)
        if len(self._events) - self._announced > known.plenty or event[3]:
            self._weigh(event)
        if self.refusal is not None:
            self._check_in_time(event)

    def now(self) -> float:
        """The current time in seconds since 1970; it never goes back."""
        return monotonic() + self._epoch

    def change(self, name: str, text: str) -> None:
        """Record the changed config or facts, given as JSON text."""
        if self.refused():  # in a forked child, the lock may be held for good
            return
        with self._cutting:  # else a close may come between
            if not self.refused():
                self.texts.append((name, text))

    def forget_texts(self, first: int, end: int) -> None:
        """Free the texts from number `first` to `end`, which are in the file."""
        self.texts[first:end] = [("", "")] * (end - first)

    def record(self, step: int, now: float, values: Mapping[str, object]) -> None:
        """Add values at a step and time; quick if such values were added before."""
        known = self._encoders.get(tuple(values)) if self.refusal is None else None
        event = known.encode(step, now, values.values()) if known is not None else None
        if event is None:
            self.add_at(step, now, values)
        else:
            self._put(event)

    def note(self, key: str, text: str) -> None:
        """Add a text at the current step and time; short ones quickly."""
        now, data = self.now(), text.encode("utf-8", "surrogatepass")
        if self.refusal is not None or not 0 < len(data) < SMALL:
            self.add_at(self.step, now, {key: text})
            return
        number = self._notes.get(key)
        if number is None:
            number = self._number(_signature_of({key: text}), self.signatures)
            self._notes[key] = number
        record = pack_record(self.step, now, (0, len(data)))
        self._put((number, record, data, len(data), None))

    def add_at(self, step: int, now: float, values: Mapping[str, object]) -> None:
        """Add values of any kind at a step and time; raises InputError if one is wrong."""
        if self.refused():
            return
        check_step(step)
        for key in values:
            _check_key(key)
        same = self._sharing.of({k: v for k, v in values.items() if self._reducer.of(k) is None})
        converted: dict[str, Any] = {}
        for key, value in values.items():
            normal = self._reducer.reduced(key, value) or _convert(key, value, same)
            if normal is not None:
                converted[key] = normal
        if not converted:
            return
        signature = _signature_of(converted)
        number = self._number(signature, self.signatures)
        if len(converted) == len(values):
            self._learn(number, signature, values, same)
        self._put(self._event(number, step, now, converted.values()))

    def mark(
        self,
        code: int,
        x: float,
        *,
        step: int,
        now: float,
        reset: bool = False,
        keyset: fmt.Keyset = fmt.EVERY_KEY,
    ) -> None:
        """Add a mark: a log, a reset, or a resume."""
        if self.refused():
            return
        check_step(step)
        for key in (*(keyset.keys or ()), keyset.axis or ""):
            _check_key(key)
        every = keyset == fmt.EVERY_KEY
        number = fmt.ALL_KEYS if every else self._number(keyset, self.keysets)
        self._put(mark_event(code, step, now, x, reset, number))

    def take(self, into: list[Queued]) -> None:
        """Move all queued events to the end of a list, in one uninterruptible call."""
        self._announced = self._array_bytes = 0
        if not self._is_cut or _END in self._events:
            into.extend(islice(iter(self._events.popleft, _END), len(self._events)))

    def close(self, refusal: str) -> None:
        """Refuse further events; those already queued can still be taken."""
        with self._cutting:
            if not self._is_cut:
                self.refusal = self.refusal or refusal
                self._events.append(_END)
                self._is_cut = True

    def silence(self, why: str) -> None:
        """Make all further calls do nothing."""
        self.is_inert, self.refusal = True, why

    def release(self, events: Iterable[Queued]) -> None:
        """Release the memory of events that were written or dropped, for reuse."""
        for event in events:
            if event[4] is not None:
                self._copier.release(event[4].slabs)

    def refused(self) -> bool:
        """Whether calls do nothing, as in a copy; raises after a close or a failure."""
        if self.refusal is not None and not self.is_inert:
            raise RecordingError(self.refusal)
        return self.is_inert

    # ------------------------------------------------------------------ inside

    def _put(self, event: Queued) -> None:
        self._events.append(event)
        self._weigh(event)
        if self.refusal is not None:
            self._check_in_time(event)

    def _check_in_time(self, event: Queued) -> None:
        """Raise if the queue was closed during this call and before the event was added."""
        with self._cutting:
            if self._is_cut:
                # Without a GIL, only `copy` sees a deque as it is at one moment.
                for other in reversed(self._events.copy()):
                    if other is _END:
                        return
                    if other is event:
                        self.refused()

    def _weigh(self, event: Queued) -> None:
        """Wake the writer if enough bytes are queued."""
        self._array_bytes += event[3]
        events = len(self._events) - self._announced
        records = events * len(event[1])  # approximately
        size = records + self._array_bytes
        if size > _PLENTY_BYTES or records > RECORD_BYTES:
            self._announced, self._array_bytes = len(self._events), 0
            self._wake(size)

    def _number(self, what: Any, numbered: dict[int, Any]) -> int:
        """The number of a signature or key set; two threads at the same time may give it two."""
        number = self._known.get(what)
        if number is None:
            number = next(self._numbers)
            numbered[number] = what
            self._known[what] = number
        return number

    def _learn(
        self,
        number: int,
        signature: Signature,
        values: Mapping[str, object],
        same: Mapping[Part, Part],
    ) -> None:
        """Store an encoder for adds of these keys, if their values are recorded unchanged."""
        keys = tuple(values)
        if all(column.is_number for column in signature):
            self._encoders[keys] = NumberEncoder(number, values.values())
        elif not any(
            column.reduction
            or self._reducer.of(column.key)
            or any(form.kind == fmt.TEXT for form in column.forms)
            for column in signature
        ):
            self._encoders[keys] = ArrayEncoder(number, signature, same, self._copier)

    def _event(self, number: int, step: int, now: float, values: Iterable[Any]) -> Queued:
        """The event of values converted by `_convert` or reduced."""
        slots: list[float] = []
        blobs: list[Blob] = []
        slabs: list[Slab | None] = []
        waiting: list[tuple[int, Any]] = []
        nbytes = 0
        for value in values:
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, _Shared):
                    continue
                if isinstance(part, float):
                    slots.append(part)
                elif isinstance(part, OnDevice) and not part.shape:
                    waiting.append((len(slots), part.tensor))
                    slots.append(0.0)
                else:
                    if isinstance(part, str):
                        part = np.frombuffer(part.encode("utf-8", "surrogatepass"), "u1")
                    slots += [nbytes, *part.shape]
                    nbytes += part.nbytes
                    is_there = isinstance(part, OnDevice)
                    blob, slab = (part, None) if is_there else self._copier.copy(part)
                    blobs.append(blob)
                    slabs.append(slab)
        record = pack_record(step, now, slots)
        if not waiting and nbytes < SMALL and all(isinstance(blob, bytes) for blob in blobs):
            return number, record, b"".join(cast("list[bytes]", blobs)), nbytes, None
        held = Held(blobs, slabs, gathered(waiting) if waiting else ())
        return number, record, b"", nbytes, held


def mark_event(
    code: int, step: int, now: float, x: float, reset: bool = False, keyset: int = fmt.ALL_KEYS
) -> Queued:
    """The queued event of a mark."""
    return code, pack_record(step, now, (x, float(reset), float(keyset))), b"", 0, None


def check_step(step: int) -> None:
    """Raise InputError if a step does not fit 64 bits."""
    if step not in STEPS:
        raise InputError(f"step {step} has more than 64 bits")


def _check_key(key: str) -> None:
    try:
        fmt.check_key(key)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None


@dataclass(frozen=True, slots=True)
class _Shared:
    """A part that is the same object as an earlier part of the add."""

    owner: Part


def _convert(key: str, value: Any, same: Mapping[Part, Part]) -> Any:
    """Convert a value as `take` does, but replace shared parts by `_Shared`."""
    is_tuple = isinstance(value, (tuple, list))
    places = range(len(value) if is_tuple else 1)
    shared = {i: _Shared(same[key, i]) for i in places if (key, i) in same}
    if not shared:
        return take(key, value)
    if not is_tuple:
        return shared[0]
    own = [part for i, part in enumerate(value) if i not in shared]
    normal = iter(cast("tuple[Any, ...]", take(key, own)) if own else ())
    return tuple([shared[i] if i in shared else next(normal) for i in places])


def _signature_of(values: Mapping[str, Any]) -> Signature:
    """The columns of values converted by `_convert` or reduced."""
    places = {key: place for place, key in enumerate(values)}
    columns: list[fmt.Column] = []
    for key, value in values.items():
        is_tuple = type(value) is tuple or isinstance(value, State)
        forms: list[fmt.Form] = []
        same: list[tuple[int, int] | None] = []
        for part in value if is_tuple else (value,):
            whose = None
            if isinstance(part, _Shared):
                name, place = part.owner
                whose = places[name], place
                forms.append(columns[whose[0]].forms[place])
            else:
                forms.append(part.form if isinstance(part, OnDevice) else fmt.form_of(part))
            same.append(whose)
        reduction = value.reduction if isinstance(value, State) else None
        shared = tuple(same) if any(same) else ()
        columns.append(fmt.Column(key, tuple(forms), not is_tuple, reduction, shared))
    return tuple(columns)
