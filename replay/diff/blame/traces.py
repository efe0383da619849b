"""Read the traces of two runs, step by step, up to the first step that differs."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.files.names import ON_ACCELERATOR
from flexrec.recorder.layers.tracing.format import (
    ATTRIBUTES,
    ENVIRONMENT,
    NUMBERS,
    ORDER,
    VALUES,
    Event,
)
from flexrec.recorder.storage.series import Row
from flexrec.replay.diff.blame.settings import changes
from flexrec.replay.diff.model import Change
from flexrec.replay.diff.run import Run

Key = tuple[str, str, str, int]
Attributes = Mapping[str, Mapping[str, str]]

SIDE = ("attributes", "random", "again_random", "grad_norm")
"""Kinds of events that explain a difference, but are not a difference by themselves."""


class TracedStep(NamedTuple):
    """The trace of a step.

    Attributes:
        events: the events in the order of time.
        values: (n,) int64, the value of each event.
        attributes: the attributes of layers, optimizers and the environment at that step.
    """

    step: int
    events: tuple[Event, ...]
    values: NDArray[np.int64]
    attributes: Attributes

    def has_order_of(self, other: "TracedStep") -> bool:
        """Whether both have the same events in the same order, be it of other tensors."""
        if self.events == other.events:
            return True
        return [event.key for event in self.events] == [event.key for event in other.events]

    def by_key(self) -> dict[Key, int]:
        """The values by the keys of their events."""
        return dict(zip((event.key for event in self.events), self.values.tolist(), strict=True))


@dataclass(frozen=True)
class TracedPair:
    """A step that both runs traced and that differs.

    Attributes:
        a, b: the step in each run.
        previous: the last earlier step that both traced; None: there is none.
        first_step: the first step that both traced.
        side: for kinds that only explain, the step since which each differs.
        had_environment: whether the environment was the same at the previous step.
    """

    a: TracedStep
    b: TracedStep
    previous: int | None
    first_step: int
    side: Mapping[Key, int]
    had_environment: bool

    def environment(self) -> tuple[Change, ...]:
        """The entries of the environment that differ."""
        one, other = (step.attributes.get(ENVIRONMENT, {}) for step in (self.a, self.b))
        return changes(one, other)


def traced_steps(run: Run) -> Iterator[TracedStep]:
    """The traced steps of a run, in the recorded order."""
    if VALUES not in run:
        return
    texts = {ORDER: "[]", ATTRIBUTES: "{}"}
    read: dict[str, Any] = {}
    keys = [key for key in (ORDER, ATTRIBUTES, VALUES) if key in run]
    for row, key in merge(*(_rows(run, key) for key in keys), key=lambda pair: pair[0].position):
        if key != VALUES:
            texts[key], read = str(row.value), {}
            continue
        if not read:
            read = {ORDER: _events(texts[ORDER], run), ATTRIBUTES: _object(texts[ATTRIBUTES], run)}
        values: Any = row.value
        is_array = isinstance(values, np.ndarray) and values.dtype == np.int64
        if not is_array or values.shape != (len(read[ORDER]),):
            raise RecordingError(f"{run.name}: the trace of step {row.step} does not fit its order")
        yield TracedStep(row.step, read[ORDER], values, read[ATTRIBUTES])


def _rows(run: Run, key: str) -> Iterator[tuple[Row, str]]:
    """A key's rows; texts that describe the values may come before the run's own part."""
    for row in run.rows(key, everywhere=key != VALUES):
        yield row, key


def first_pair(
    pairs: Iterable[tuple[TracedStep, TracedStep]], side_kinds: Collection[str] = SIDE
) -> TracedPair | None:
    """The first pair of steps that differ; None: there is none.

    Args:
        pairs: steps of two runs with the same number, as `in_step` gives them.
        side_kinds: the kinds of events that are no difference by themselves.
    """
    previous, first_step, same = None, None, True
    side: dict[Key, int] = {}
    for one, other in pairs:
        first_step = one.step if first_step is None else first_step
        are_in_order = one.has_order_of(other)
        if not (are_in_order and np.array_equal(one.values, other.values)):
            differ = differing(one, other)
            for key in differ:
                if key[0] in SIDE:
                    side.setdefault(key, one.step)
            if not are_in_order or any(key[0] not in side_kinds for key in differ):
                return TracedPair(one, other, previous, first_step, side, same)
        same = one.attributes.get(ENVIRONMENT) == other.attributes.get(ENVIRONMENT)
        previous = one.step
    return None


def differing(one: TracedStep, other: TracedStep) -> set[Key]:
    """The keys of events that differ between two steps, or that only one has."""
    a, b = one.by_key(), other.by_key()
    unlike = unlike_fingerprints(one, other)
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key) and key not in unlike}


def unlike_fingerprints(one: TracedStep, other: TracedStep) -> set[Key]:
    """The keys of fingerprints of which one is of the CPU and the other of an accelerator."""
    a, b = one.by_key(), other.by_key()
    shared = (key for key in a.keys() & b.keys() if key[0] not in NUMBERS)
    return {key for key in shared if (a[key] >= ON_ACCELERATOR) != (b[key] >= ON_ACCELERATOR)}


def in_step(run_a: Run, run_b: Run) -> Iterator[tuple[TracedStep, TracedStep]]:
    """The traced steps of two runs that have the same number; both runs' steps ascend."""
    a, b = traced_steps(run_a), traced_steps(run_b)
    one, other = next(a, None), next(b, None)
    while one is not None and other is not None:
        if one.step == other.step:
            yield one, other
            one, other = next(a, None), next(b, None)
        elif one.step < other.step:
            one = next(a, None)
        else:
            other = next(b, None)


class TracedPairs:
    """The pairs of `in_step`, to be iterated over once.

    Attributes:
        are_unlike: whether a pair so far has fingerprints of which one is of the CPU and the other
            of an accelerator.
    """

    def __init__(self, a: Run, b: Run) -> None:
        self._runs, self.are_unlike = (a, b), False

    def __iter__(self) -> Iterator[tuple[TracedStep, TracedStep]]:
        for one, other in in_step(*self._runs):
            if not (self.are_unlike or np.array_equal(one.values, other.values)):
                self.are_unlike = bool(unlike_fingerprints(one, other))
            yield one, other


def _events(text: str, run: Run) -> tuple[Event, ...]:
    rows = _read(text, run)
    found = [Event(*row) for row in (rows if isinstance(rows, list) else ()) if _is_event(row)]
    return tuple(
        event._replace(layer=run.layer(event.layer), parent=run.layer(event.parent))
        for event in found
    )


def _is_event(found: Any) -> bool:
    """Whether it has an event's members; skipping others leaves fewer events than values."""
    types = (str, str, str, int, str, int)
    return (
        isinstance(found, list) and len(found) == len(types) and all(map(isinstance, found, types))
    )


def _object(text: str, run: Run) -> Attributes:
    found = _read(text, run)
    return {
        run.layer(name): {str(key): str(value) for key, value in attributes.items()}
        for name, attributes in (found.items() if isinstance(found, dict) else ())
        if isinstance(attributes, dict)
    }


def _read(text: str, run: Run) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{run.name}: its trace cannot be read: {error}") from None
