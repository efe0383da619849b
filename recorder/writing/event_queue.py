"""EventQueue: what training code adds, from any thread, on its way to the file.

What is added is one tuple, and comes in by one `deque.append`, which Python documents as
thread-safe: there is nothing that another thread or a signal's handler could find half done. Which
number a signature has in the file is decided when events are taken out (batches.py).
"""

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
from flexrec.recorder.writing.accelerator import OnDevice, gathered, take
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

_PLENTY_BYTES = 8 << 20  # that are worth waking the writer

_END: Queued = (0, b"", b"", 0, None)
"""What comes before it in the queue is recorded, and what comes after it is refused."""

Signature = tuple[fmt.Column, ...]
"""The columns of an add, in order. Where a part is another column's, `same` says the place of that
one among these."""


class EventQueue:
    """Takes events in, in the order in which they come; `take` takes them out.

    Args:
        reducer: keeps meters' states in place of some values.
        wake: called when about so many bytes came that they should be written.

    Attributes:
        step: the step that what is added now belongs to.
        refusal: why calls raise: closed, or a write error; None: they do not.
        is_inert: whether calls do nothing: a copy, such as a forked child's.
        signatures: the columns of adds, by the numbers that queued events have; several numbers may
            have the same.
        keysets: the key sets of marks, by the numbers that queued marks have.
        configs: what the config became, each time it changed, as JSON text.
    """

    def __init__(self, reducer: Reducer, wake: Callable[[int], None]) -> None:
        self._reducer, self._wake, self._sharing = reducer, wake, Sharing()
        self.step = 0
        self.refusal: str | None = None
        self.is_inert = False
        self.signatures: dict[int, Signature] = {}
        self.keysets: dict[int, fmt.Keyset] = {}
        self.configs: list[str] = []
        # Times are the clock's at the start and what has passed since: so they never go back.
        self._epoch = time() - monotonic()
        self._events: deque[Queued] = deque()
        self._numbers = count()
        self._encoders: dict[tuple[str, ...], Encoder] = {}
        self._known: dict[Signature | tuple[str, ...], int] = {}
        self._copier = Copier()
        # Whoever has this lock waits for nothing: a signal's handler may want it amid a close.
        self._cutting, self._is_cut = threading.RLock(), False
        self._told = self._array_bytes = 0  # events that the writer was woken for; what came since

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
                # A sum is the quickest way to see the types of all: that of Python's own numbers is
                # one of them, and that of arrays, tensors or numpy's is not.
                kind = type(sum(numbers))
                if kind is float or kind is int:
                    event = known.number, known.pack(self.step, now, *numbers), b"", 0, None
            except Exception:  # noqa: BLE001 - whatever a value raises that cannot be added
                event = None
            if event is None:
                known.slow_down()
        if event is None:
            event = known.encode(self.step, now, values.values())
        if event is None:
            self.add_at(self.step, now, values)
            return
        self._events.append(event)
        if len(self._events) - self._told > known.plenty or event[3]:
            self._weigh(event)
        if self.refusal is not None:
            self._check_in_time(event)

    def now(self) -> float:
        """The time of what comes now, in seconds since 1970; it never goes back."""
        return monotonic() + self._epoch

    def configure(self, text: str) -> None:
        """Take in what the config has become, as JSON text."""
        if not self.refused():
            self.configs.append(text)

    def add_at(self, step: int, now: float, values: Mapping[str, object]) -> None:
        """Add values of any kind, at a step and time. Raises, saying what is wrong."""
        if self.refused():
            return
        check_step(step)
        for key in values:
            _check_key(key)
        same = self._sharing.of({k: v for k, v in values.items() if self._reducer.of(k) is None})
        taken: dict[str, Any] = {}
        for key, value in values.items():
            normal = self._reducer.reduced(key, value) or _taken(key, value, same)
            if normal is not None:
                taken[key] = normal
        if not taken:
            return
        signature = _signature_of(taken)
        number = self._number(signature, self.signatures)
        if len(taken) == len(values):
            self._learn(number, signature, values, same)
        self._put(self._event(number, step, now, taken.values()))

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
        """Add a mark: a log, a reset, or where a resume goes on."""
        if self.refused():
            return
        check_step(step)
        for key in (*(keyset.keys or ()), keyset.axis or ""):
            _check_key(key)
        every = keyset == fmt.EVERY_KEY
        number = fmt.ALL_KEYS if every else self._number(keyset, self.keysets)
        self._put(mark_event(code, step, now, x, reset, number))

    def take(self, into: list[Queued]) -> None:
        """Move all that came to the end of a list: nothing can come in between."""
        self._told = self._array_bytes = 0
        if not self._is_cut or _END in self._events:
            into.extend(islice(iter(self._events.popleft, _END), len(self._events)))

    def close(self, refusal: str) -> None:
        """Take nothing more in; what came before can still be taken out."""
        with self._cutting:
            if not self._is_cut:
                self.refusal = self.refusal or refusal
                self._events.append(_END)
                self._is_cut = True

    def silence(self, why: str) -> None:
        """Have all calls do nothing from now on."""
        self.is_inert, self.refusal = True, why

    def release(self, events: Iterable[Queued]) -> None:
        """Events that were taken are written, or dropped: their memory may be used again."""
        for event in events:
            if event[4] is not None:
                self._copier.release(event[4].slabs)

    def refused(self) -> bool:
        """Whether a call does nothing: in a copy. Raises after a close or a failure."""
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
        """The queue was closed amid this call: raise where the event came too late."""
        with self._cutting:
            if self._is_cut:
                for other in reversed(list(self._events)):
                    if other is _END:
                        return
                    if other is event:
                        self.refused()

    def _weigh(self, event: Queued) -> None:
        """Wake the writer where much came."""
        self._array_bytes += event[3]
        events = len(self._events) - self._told
        records = events * len(event[1])  # about
        size = records + self._array_bytes
        if size > _PLENTY_BYTES or records > RECORD_BYTES:
            self._told, self._array_bytes = len(self._events), 0
            self._wake(size)

    def _number(self, what: Any, numbered: dict[int, Any]) -> int:
        """The number of a signature or of a mark's keys; where two threads meet, it has two."""
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
        """Remember what an add looks like whose values are recorded as they are."""
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
        """An event of values as `_taken` or a reduction gives them."""
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
    """A mark on its way to the file."""
    return code, pack_record(step, now, (x, float(reset), float(keyset))), b"", 0, None


def check_step(step: int) -> None:
    """Raise InputError for what is no step."""
    if step not in STEPS:
        raise InputError(f"step {step} has more than 64 bits")


def _check_key(key: str) -> None:
    try:
        fmt.check_key(key)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None


@dataclass(frozen=True, slots=True)
class _Shared:
    """A part that is an earlier one."""

    owner: Part


def _taken(key: str, value: Any, same: Mapping[Part, Part]) -> Any:
    """A value as `take` gives it, in place of shared parts whose they are."""
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
    """The columns of values as `_taken` or a reduction gives them."""
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
