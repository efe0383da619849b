"""Events of some kinds that are known from their positions, and whether a recording has them.

What a file must hold after a fault need not be remembered: only how many events were promised.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.events import Add, Event
from support.crashing import event_at
from support.event_cases import same_event

__all__ = ["KINDS", "Kind", "LostError", "WrongError", "check", "record_known"]


class LostError(AssertionError):
    """Events that were promised are not there."""


class WrongError(AssertionError):
    """What is read was never added, not at this position."""


@dataclass(frozen=True)
class Kind:
    """What is recorded.

    Attributes:
        event: by its position.
        block: how many events are flushed at a time, at most.
        numbers: whether every event is one number of the key "a", so that many are quickly checked.
        reduce: what is given to the recorder.
        read: the event as it is read, where that is another.
    """

    event: Callable[[int], Event]
    block: int
    numbers: bool = False
    reduce: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[int], Event] | None = None


def _add(position: int, values: dict[str, object]) -> Add:
    return Add(values, position // 3, 1e9 + position)  # type: ignore[arg-type]


def _scalars(position: int) -> Event:
    return _add(position, {"a": float(position)})


def _arrays(position: int) -> Event:
    array = np.full(1 + position * 7 % 301, position, np.float32)
    return _add(position, {"x": array, "y": (f"text {position}", float(position))})


def _big(position: int) -> Event:
    size = 40_000 + position * 7919 % 100_000  # numbers: larger than what is joined, and smaller
    return _add(position, {"x": np.full(size, position + 1, np.float32), "n": float(position)})


def _keys(position: int) -> Event:
    return _add(position, {f"a key that is new {position}": float(position), "n": float(position)})


def _wide(position: int) -> Event:
    return _add(position, {"w": tuple(float(position + i) for i in range(400))})


def _tensors(position: int) -> Event:
    error = np.full(3, position % 50, np.float32)
    return _add(position, {"mse": (error, np.zeros(3, np.float32)), "n": float(position)})


def _reduced(position: int) -> Event:
    return _add(position, {"mse": (3.0 * (position % 50) ** 2, 3.0), "n": float(position)})


def _odd(position: int) -> Event:
    return Add({"a": float(2 * position + 1)}, 2 * position + 1, 1e9 + 2 * position + 1)


def _even(position: int) -> Event:
    return Add({"a": float(2 * position)}, 2 * position, 1e9 + 2 * position)


def _merged(position: int) -> Event:
    return Add({"a": float(position)}, position, 1e9 + position)


KINDS = {
    "scalars": Kind(_scalars, 3000, numbers=True),
    "mixed": Kind(event_at, 60),
    "arrays": Kind(_arrays, 40),
    "big": Kind(_big, 3),
    "keys": Kind(_keys, 3),
    "wide": Kind(_wide, 8),
    "reduced": Kind(_tensors, 40, reduce={"mse": "MSEMeter"}, read=_reduced),
    "odd": Kind(_odd, 60),
    "even": Kind(_even, 60),
    "merged": Kind(_merged, 60),
}


def record_known(rec: Recorder, kind: str, first: int, last: int) -> None:
    """Record the events of positions `first` to `last`."""
    for position in range(first, last):
        rec.record(KINDS[kind].event(position))


def check(path: Path, kind: str, at_least: int = 0, *, most: int | None = None) -> int:
    """Read all of a recording: it holds the first so many events of a kind, and nothing else.

    Returns:
        How many they are.

    Raises:
        LostError: fewer than `at_least`.
        WrongError: it holds something else, or more than `most`, which were added.
    """
    known = KINDS[kind]
    with Recording(path) as run:
        count = run.event_count
        if count < at_least:
            raise LostError(f"{at_least} events were promised, {count} are there")
        if most is not None and count > most:
            raise WrongError(f"{most} events were added, {count} are there")
        if known.numbers:
            _check_numbers(run, count)
            return count
        found = 0
        for found, event in enumerate(run.events(), 1):
            right = (known.read or known.event)(found - 1)
            if known.read and isinstance(event, Add):  # states are tuples that know their meter
                event = replace(event, values={k: _plain(v) for k, v in event.values.items()})
            if not same_event(event, right):
                raise WrongError(f"event {found - 1} is {event!s:.150}")
    if found != count:
        raise WrongError(f"event_count is {count}, and {found} events are given")
    return count


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, tuple) else value


def _check_numbers(run: Recording, count: int) -> None:
    if run.keys() not in ([], ["a"]):
        raise WrongError(f"its keys are {run.keys()}")
    if not count:
        return
    row, positions = run["a"], np.arange(count)
    for name, values, right in (
        ("value", row.value, positions),
        ("step", row.step, positions // 3),
        ("time", row.time, 1e9 + positions),
    ):
        if len(values) != count:
            raise WrongError(f"{count} events have {len(values)} {name}s")
        if not np.array_equal(values, right):
            at = int(np.flatnonzero(np.asarray(values) != right)[0])
            raise WrongError(f"{name} {at} of {count} is {values[at]}")
