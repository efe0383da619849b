"""Intake: what training code adds, from any thread, becomes events in a buffer.

How a buffer reaches the file is in outbox.py; what adds of one kind look like in layouts.py.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from time import time
from typing import Any, cast

from flexrec.recorder import format as fmt
from flexrec.recorder.buffer import Buffer, Draft, Entry, Slabs, code_word, record_of
from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.events import State, gather
from flexrec.recorder.layouts import ONE_THREAD_AT_A_TIME, ArrayLayout, Layout, NumberLayout
from flexrec.recorder.on_device import OnDevice, take
from flexrec.recorder.reducing import Reducer
from flexrec.recorder.resuming import Opened
from flexrec.recorder.sharing import Part, Sharing

__all__ = ["Intake", "mark_entry"]

_FULL_BLOBS = 8 << 20  # a buffer with so many bytes of arrays is handed on before its second is
_FULL_RECORDS = 2 << 20  # over, and so is one with so many of numbers
_MARK = record_of(fmt.MARK_SLOTS)


class Intake(ABC):
    """Takes events in, and knows the keys that came so far.

    Args:
        opened: the file, and what it knows.
        reducer: keeps meters' states in place of some values.
    """

    def __init__(self, opened: Opened, reducer: Reducer) -> None:
        self._reducer, self._sharing = reducer, Sharing()
        self._step = 0
        self._schema = schema = opened.schema
        # By number; how many there are is counted, as to ask is a call: see _column.
        self._columns = {column: i for i, column in enumerate(schema.columns)}
        self._lines = {fmt.Schema.column_line(column): i for column, i in self._columns.items()}
        self._signatures = {columns: i for i, columns in enumerate(schema.signatures)}
        self._keysets = {keys: i for i, keys in enumerate(schema.keysets)}
        self._column_count = len(schema.columns)
        self._signature_count = len(schema.signatures)
        self._keyset_count = len(schema.keysets)
        self._slots = [schema.slots_of(columns) for columns in schema.signatures]
        # Adds that came before, by their keys.
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._weights: dict[str, int] = {}  # bytes of tensors, by key
        self._lock = threading.RLock()  # for one thread at a time to make parts of events
        # Handing on a buffer needs no lock, but where threads really run at once.
        self._sealing = nullcontext() if ONE_THREAD_AT_A_TIME else self._lock
        self._buffer = Buffer(self._slots, Slabs())
        self._refusal: str | None = None  # why calls do nothing: closed, a write error, forked
        self._inert = False  # the copy in a forked child
        # The last step that earlier runs recorded and that holds; none has it where that is not
        # known, or where steps that come again were warned of.
        self._held_to = fmt.STEPS[0] - 1

    def add(self, values: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Record values under their keys, at the current step and time.

        >>> rec.add({"train_loss": 0.5}, lr=1e-3)  # doctest: +SKIP

        A value is what a meter's `add` takes: a number or 0-d tensor, an array or tensor, a
        string, or a tuple or list of those. None means "nothing to add". A tensor's value is
        taken now; on an accelerator it is copied there, without waiting, and fetched at the
        next flush.
        """
        now = time()
        if named or type(values) is not dict:
            values = named if values is None else gather(values, named)
        keys = tuple(values)
        known = self._layouts.get(keys)
        # The hot path: numbers, or small arrays, under keys that came together before. A lock would
        # take as long as all of this. None is needed: the interpreter lets another thread go on, or
        # a signal's handler in, at a call or a jump back, and there is none from the last check to
        # the last append; see Buffer.
        if known is None:
            pass
        elif known.is_quick:
            try:
                numbers: Any = values.values()
                if known.read is not None:
                    numbers = known.read(numbers)
                # A sum is the quickest way to see the types of all: that of Python's own numbers
                # is one of them, and that of arrays, tensors or numpy's is not.
                kind = type(sum(numbers))
                are_numbers = kind is float or kind is int
                record = known.pack(self._step, now, *numbers) if are_numbers else b""
            except Exception:  # noqa: BLE001 - whatever a value raises that cannot be added
                record = b""
            if record and self._refusal is None:
                self._buffer.records += record; self._buffer.codes += known.word  # noqa: E702  # fmt: skip
                if len(self._buffer.records) >= _FULL_RECORDS:
                    self._full()
                return
            if not record:
                known.slow_down()
        elif known.is_light:
            event = known.light(self._step, now, values.values())
            if event is not None and self._refusal is None:
                record, word, small, nbytes, _ = event
                buffer = self._buffer; buffer.tail += small; buffer.blob_bytes += nbytes; buffer.records += record; buffer.codes += word  # noqa: E501, E702  # fmt: skip
                if buffer.blob_bytes >= _FULL_BLOBS or len(buffer.records) >= _FULL_RECORDS:
                    self._full()
                return
        self._add(keys, values, self._step, now)
        if self._step <= self._held_to:
            self._repeated()

    def _add(
        self, keys: tuple[str, ...], values: Mapping[str, object], step: int, now: float
    ) -> None:
        """Buffer values of any kind."""
        with self._lock:
            is_in = False
            while not is_in:  # again where the buffer was handed on meanwhile
                if self._refusal is not None and self._refused():
                    return
                known, buffer = self._layouts.get(keys), self._buffer
                entry = known.entry(buffer, step, now, values.values()) if known else None
                if entry is None:
                    entry = self._slow_entry(buffer, keys, values, step, now)
                    if entry is None:
                        return
                is_in = buffer.append(entry)
            is_full = buffer.blob_bytes >= _FULL_BLOBS or len(buffer.records) >= _FULL_RECORDS
        if is_full:
            self._full()

    def _slow_entry(
        self,
        buffer: Buffer,
        keys: tuple[str, ...],
        values: Mapping[str, object],
        step: int,
        now: float,
    ) -> Entry | None:
        """An event with values of any kind; None: there are none. Raises, saying what is wrong."""
        _check_step(step)
        for key in keys:
            _check_key(key)
        same = self._sharing.of({k: v for k, v in values.items() if self._reducer.of(k) is None})
        taken: list[tuple[str, Any]] = []
        for key, value in values.items():
            normal = self._reducer.reduced(key, value) or _taken(key, value, same)
            if normal is not None:
                taken.append((key, normal))
        if not taken:
            return None
        draft = Draft(buffer)
        weights: dict[str, int] = {}
        for key, value in taken:
            before = draft.nbytes
            for part in value if isinstance(value, tuple) else (value,):
                if not isinstance(part, _Shared):
                    draft.put(part)
            weights[key] = draft.nbytes - before
        columns = dict[str, fmt.Column]()
        numbers = dict[str, int]()
        for key, value in taken:
            columns[key] = column = _column_of(key, value, columns, numbers)
            numbers[key] = self._column(column)
        code = self._signature(tuple(numbers.values()))
        for key, size in weights.items():
            self._weights[key] = self._weights.get(key, 0) + size
        if len(taken) == len(keys):
            self._learn(keys, code, list(columns.values()), values, same)
        return draft.entry(code, step, now)

    def _learn(
        self,
        keys: tuple[str, ...],
        code: int,
        columns: list[fmt.Column],
        values: Mapping[str, object],
        same: Mapping[Part, Part],
    ) -> None:
        """Remember what an add looks like whose values are recorded as they are."""
        known = self._layouts.get(keys)
        if known is not None:
            known.weigh()
        if all(column.is_number for column in columns):
            self._layouts[keys] = NumberLayout(code, values.values())
        elif not any(
            column.reduction
            or self._reducer.of(column.key)
            or any(form.kind == fmt.TEXT for form in column.forms)
            for column in columns
        ):
            self._layouts[keys] = ArrayLayout(code, columns, same, self._weights)

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
            _check_step(step)
            keyset = fmt.ALL_KEYS if keys is None else self._keyset(keys)
            entry = mark_entry(code, step, now, x, reset, keyset)
            # Without the mark of a resume, what it took back would hold again.
            kept = [entry] if code == fmt.RESUME else []
            while not self._buffer.append(entry, kept):
                if self._refused():
                    return

    def _resume(self, first: int, step: int) -> None:
        """Record that events from position `first` on are superseded; go on at `step`."""
        self._mark(fmt.RESUME, float(first), False, None, step, time())
        self._step = step

    def _beware(self) -> None:
        """Have the next add of any keys go the slow way, which looks at the step."""
        with self._lock:
            for layout in list(self._layouts.values()):
                layout.weigh()
            self._layouts.clear()

    # What is new is remembered and written with no call in between: Ctrl-C finds both or neither,
    # and a signal's handler that adds finds it new or known.

    def _column(self, column: fmt.Column) -> int:
        if column not in self._columns:
            line = fmt.Schema.column_line(column)
            # To look a column up may be a call, of the hash of its reduction; bytes need none.
            if line not in self._lines:
                self._lines[line] = self._column_count
                self._column_count += 1
                self._schema.columns += [column]
                self._buffer.schema += line
            self._columns[column] = self._lines[line]
        return self._columns[column]

    def _signature(self, columns: tuple[int, ...]) -> int:
        if columns not in self._signatures:
            line, slots = fmt.Schema.signature_line(columns), self._schema.slots_of(columns)
            if columns not in self._signatures:
                self._signatures[columns] = self._signature_count
                self._signature_count += 1
                self._schema.signatures += [columns]
                self._slots += [slots]
                self._buffer.schema += line
        return self._signatures[columns]

    def _keyset(self, keys: tuple[str, ...]) -> int:
        for key in keys:
            _check_key(key)
        if keys not in self._keysets:
            line = fmt.Schema.keyset_line(keys)
            if keys not in self._keysets:
                self._keysets[keys] = self._keyset_count
                self._keyset_count += 1
                self._buffer.schema += line
        return self._keysets[keys]

    def _refused(self) -> bool:
        """Whether a call does nothing: in a forked child. Raises after a close or a failure."""
        if self._refusal is not None and not self._inert:
            raise RecordingError(self._refusal)
        return self._inert

    @abstractmethod
    def _full(self) -> None:
        """The buffer is large enough to be handed on."""

    @abstractmethod
    def _repeated(self) -> None:
        """What was added is at a step that an earlier run recorded."""


def mark_entry(
    code: int, step: int, time: float, x: float, reset: bool = False, keyset: int = fmt.ALL_KEYS
) -> Entry:
    """A mark, for a buffer to append."""
    record = _MARK.pack(step, time, x, float(reset), float(keyset))
    return record, code_word(code), b"", 0, None


def _check_key(key: str) -> None:
    try:
        fmt.check_key(key)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None


def _check_step(step: int) -> None:
    if step not in fmt.STEPS:
        raise InputError(f"step {step} has more than 64 bits")


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


def _column_of(
    key: str, value: Any, columns: Mapping[str, fmt.Column], numbers: Mapping[str, int]
) -> fmt.Column:
    """The column of a value as `_taken` or a reduction gives it; those before it in the add, and
    their numbers, are given."""
    is_tuple = type(value) is tuple or isinstance(value, State)
    forms: list[fmt.Form] = []
    same: list[tuple[int, int] | None] = []
    for part in value if is_tuple else (value,):
        whose = None
        if isinstance(part, _Shared):
            name, place = part.owner
            whose = numbers[name], place
            forms.append(columns[name].forms[place])
        else:
            forms.append(part.form if isinstance(part, OnDevice) else fmt.form_of(part))
        same.append(whose)
    reduction = value.reduction if isinstance(value, State) else None
    return fmt.Column(key, tuple(forms), not is_tuple, reduction, tuple(same) if any(same) else ())
