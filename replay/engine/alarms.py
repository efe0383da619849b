"""The engine of alarms, live and in replay: meters' results against conditions. It is pure."""

import math
import operator
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import one_line
from flexrec.recorder.events import Add, Event, Log, Reset, Value
from flexrec.replay.definitions.alarms import AlarmDefinition, Alarms, Condition
from flexrec.replay.engine.engine import Binding
from flexrec.replay.engine.left_out import LeftOut, LeftOuts
from flexrec.replay.meters import LastValueMeter

_IS: Mapping[str, Callable[[float], bool]] = {
    "nan": math.isnan,
    "inf": math.isinf,
    "nonfinite": lambda value: not math.isfinite(value),
}
_ARRAYS_IS: Mapping[str, Callable[[Any], Any]] = {
    "nan": np.isnan,
    "inf": np.isinf,
    "nonfinite": lambda values: ~np.isfinite(values),
}
_COLUMNS: Mapping[str, Callable[[Any, Any], Any]] = {
    "is": lambda values, limit: _ARRAYS_IS[limit](values),
    "above": operator.gt,
    "below": operator.lt,
}
_NOWHERE = (0, 0)


@dataclass(frozen=True)
class Alarm:
    """An alarm that went off.

    Attributes:
        name: the alarm's name.
        key: the recorded key.
        step, time: of the value, or of the log, at which it went off; time in seconds since 1970.
        why: what the result was, and the condition.
        value: the result; of an array, None.
        x: the x of the log, for an alarm that is read at logs.
        run: the name of the recording, if there are several.
    """

    name: str
    key: str
    step: int
    time: float
    why: str
    value: float | None = None
    x: float | None = None
    run: str | None = None

    def __str__(self) -> str:
        run = f"{self.run}: " if self.run else ""
        at = f"step {self.step}" + (f", x = {self.x:g}" if self.x is not None else "")
        return one_line(f"{run}{self.name}: {self.key!r} at {at}: {self.why}")


class WatchedKey:
    """An alarm for one key: a meter, its condition, and how often it was met in a row."""

    def __init__(self, definition: AlarmDefinition, key: str, left_out: LeftOuts) -> None:
        self.definition, self.key = definition, key
        # A pattern may match keys of other kinds: what its meter cannot take is no fault.
        self._left_out = LeftOuts() if definition.meter.is_pattern else left_out
        self._binding = Binding(definition.meter, key, _NOWHERE, self._left_out)
        self._test = _Test(definition.condition)
        self._met = 0
        self._is_read_at_logs = definition.at == "log"

    def is_quiet_over(self, values: NDArray[np.float64]) -> bool:
        """Whether it surely cannot go off at any of these numbers; true is never wrong."""
        name, limit = self.definition.condition.name, self.definition.condition.limit
        if not isinstance(self._binding.meter, LastValueMeter) or name not in _COLUMNS:
            return False
        with np.errstate(invalid="ignore"):
            return not _COLUMNS[name](values, limit).any()

    @property
    def is_deaf_to_texts(self) -> bool:
        """Whether it passes over texts, as a pattern's alarm without a meter of its own does."""
        is_pattern = self.definition.meter.is_pattern
        return is_pattern and isinstance(self._binding.meter, LastValueMeter)

    def add(self, value: Value, step: int, time: float) -> Alarm | None:
        """Feed the meter; return the alarm if it goes off."""
        is_taken = self._binding.add(value, step, time)
        return self._read(step, time) if is_taken and not self._is_read_at_logs else None

    def mark(self, event: Log | Reset) -> Alarm | None:
        """Read the meter at a log if this is its time, and reset it; return the alarm if any."""
        binding, found = self._binding, None
        if not binding.selected(event.keys):
            return None
        resets = True
        if isinstance(event, Log):
            if self._is_read_at_logs:
                found = self._read(event.step, event.time, event.x)
            resets = event.reset and binding.definition.reset
        if resets:
            binding.reset(event.time)
        return found

    def _read(self, step: int, time: float, x: float | None = None) -> Alarm | None:
        result = self._binding.read(step if x is None else x, time)
        if result is None:
            return None
        try:
            why = self._test(result)
        except TypeError as error:
            name = self.definition.name
            self._left_out.note((self.key, name), LeftOut(self.key, name, str(error), step, x))
            return None
        self._met = self._met + 1 if why else 0
        if self._met != self.definition.patience:
            return None
        times = f", {self._met} times in a row" if self._met > 1 else ""
        value = None if np.ndim(result) else float(result)
        return Alarm(self.definition.name, self.key, step, time, f"{why}{times}", value, x)


class AlarmEngine:
    """Turns events into alarms.

    >>> engine = AlarmEngine(define_alarms({"nan": {"key": "loss", "is": "nan"}}))
    >>> print(*engine.feed(Add({"loss": float("nan")}, 3, 0.0)))
    nan: 'loss' at step 3: nan

    An alarm goes off once when its condition has been met `patience` times in a row, and again
    only after a result that did not meet it.

    Args:
        alarms: the definitions.
        strict: raise at the first value that a meter cannot take.
    """

    def __init__(self, alarms: Alarms, *, strict: bool = False) -> None:
        self._alarms, self.left_out = alarms, LeftOuts(strict=strict)
        self._watched: dict[str, list[WatchedKey]] = {}

    def wants(self, key: str) -> bool:
        """Whether some alarm watches the key."""
        return any(alarm.meter.matches(key) for alarm in self._alarms)

    def watched(self, key: str) -> list[WatchedKey]:
        """The alarms for a key, in the order of their definitions."""
        if key not in self._watched:
            self._watched[key] = [
                WatchedKey(alarm, key, self.left_out)
                for alarm in self._alarms
                if alarm.meter.matches(key)
            ]
        return self._watched[key]

    def feed(self, event: Event) -> list[Alarm]:
        """Process the next event; return the alarms that go off, in the order of definitions."""
        if isinstance(event, Add):
            found = self._add(event)
        else:
            every = [each for watched in self._watched.values() for each in watched]
            found = [alarm for each in every if (alarm := each.mark(event))]
        return sorted(found, key=self.order) if len(found) > 1 else found

    def order(self, alarm: Alarm) -> tuple[int, str]:
        """The place of an alarm among those that go off at the same event."""
        names = [definition.name for definition in self._alarms]
        return names.index(alarm.name), alarm.key

    def _add(self, event: Add) -> list[Alarm]:
        return [
            alarm
            for key, value in event.values.items()
            for each in self.watched(key)
            if (alarm := each.add(value, event.step, event.time))
        ]


class _Test:
    """A condition, and the results that `rises` and `falls` compare with."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._test: Callable[[float], str] = {
            "is": self._is,
            "above": self._above,
            "below": self._below,
            "rises": self._departs,
            "falls": self._departs,
        }[condition.name]
        self._before: deque[float] = deque(maxlen=condition.over)

    def __call__(self, result: Any) -> str:
        """Why the result meets the condition; empty if it does not.

        Raises:
            TypeError: the result is none that the condition can judge.
        """
        if isinstance(result, (float, int)):
            return self._test(float(result))
        array = np.asarray(result)
        if array.dtype.kind not in "biuf" or (array.ndim and self._test == self._departs):
            what = f"an array of shape {array.shape}" if array.ndim else f"{result!r:.40}"
            raise TypeError(f"{self._condition.name} takes numbers, got {what}")
        elements = map(float, array.flat)
        return next((why for element in elements if (why := self._test(element))), "")

    def _is(self, result: float) -> str:
        return f"{result:g}" if _IS[self._condition.limit](result) else ""

    def _above(self, result: float) -> str:
        limit = self._condition.limit
        return f"{result:g} is above {limit:g}" if result > limit else ""

    def _below(self, result: float) -> str:
        limit = self._condition.limit
        return f"{result:g} is below {limit:g}" if result < limit else ""

    def _departs(self, result: float) -> str:
        """Whether it is further from the mean of the results before than the factor allows."""
        name, factor, before = self._condition.name, self._condition.limit, self._before
        if len(before) == self._condition.over:
            mean = sum(before) / len(before)
            limit = mean + (factor - 1) * abs(mean)  # of a negative mean, too, it is upwards
            if result > limit if name == "rises" else result < limit:
                side = "above" if name == "rises" else "below"
                return f"{result:g} is {side} {factor:g} times {mean:g}, the mean before"
        if math.isfinite(result):
            before.append(result)
        return ""
