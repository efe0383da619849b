"""The engine of live plotting and of replay: feeds events to meters, and their results to windows.

It is pure: steps, times and order come from the events. player/player.py has a fast path over whole
columns; a property test checks that both give equal windows.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Add, Event, Log, State, Value
from flexrec.replay.definitions.definitions import Definitions, MeterDefinition
from flexrec.replay.engine.left_out import LeftOut, LeftOuts
from flexrec.replay.engine.positions import position
from flexrec.replay.engine.window_builder import Place, WindowBuilder
from flexrec.replay.meters import Meter
from flexrec.replay.plots.window import Window


class Binding:
    """A meter and the key that feeds it. Its errors are collected in `left_out`."""

    def __init__(
        self, definition: MeterDefinition, key: str, place: Place, left_out: LeftOuts
    ) -> None:
        self.definition, self.key, self.place = definition, key, place
        self.meter = definition.build()
        self._has_data, self._left_out = False, left_out
        self._last: Any = None

    def begin(self) -> None:
        """Start empty: no values, and nothing left out."""
        self._left_out.forget((self.key, self.definition.name))
        self.reset(0.0)

    def add(self, value: Value, step: int, time: float) -> bool:
        """Feed the meter; return whether it took the value, which else is left out."""
        try:
            self._tick(time)
            self._take(value)
        except Exception as error:  # noqa: BLE001 - the meter may be a user's
            self._leave_out(self._refusal(value, error), step=step)
            return False
        self._has_data = True
        return True

    def add_numbers(self, values: NDArray[np.float64]) -> None:
        """Feed many numbers at once, to a meter that reduces columns and uses no times.

        Raises:
            Exception: the meter's error.
        """
        if len(values):
            self.meter.add_all(values)
            self._has_data = True

    def read(self, x: float, time: float) -> Any:
        """The value to draw at x; None if nothing was added since the last reset."""
        if not self._has_data:
            return None
        try:
            self._tick(time)
            self._last = self.chosen(self.meter.value())
        except Exception as error:  # noqa: BLE001 - as above
            self._leave_out(f"{self._name} gives no value: {_describe_error(error)}", x=x)
            return None
        return self._last

    def latest(self) -> Any:
        """The meter's result for the values since the last reset, or else its last result.

        Raises:
            MeterError: the meter fails.
        """
        if not self._has_data:
            return self._last
        try:
            return self.chosen(self.meter.value())
        except Exception as error:  # the meter may be a user's
            why = f"{self._name} gives no value: {_describe_error(error)}"
            raise MeterError(f"{self.key!r}: {why}") from error

    def reset(self, time: float) -> None:
        """Reset the meter."""
        self._has_data = False
        try:
            self._tick(time)
            self.meter.reset()
        except Exception as error:  # noqa: BLE001 - as above
            self._leave_out(f"{self._name} cannot be reset: {_describe_error(error)}")

    def selected(self, keys: Sequence[str] | None) -> bool:
        """Whether `log(keys=…)` or `reset(keys=…)` includes this meter."""
        return keys is None or self.definition.name in keys or self.key in keys

    def chosen(self, value: Any) -> Any:
        """The field that the definition names, if the meter has several."""
        fields = self.meter.fields
        if len(fields) > 1:
            value = value[fields.index(self.definition.field) if self.definition.field else 0]
        return value.copy() if isinstance(value, np.ndarray) else value

    @property
    def _name(self) -> str:
        return type(self.meter).__name__

    def _take(self, value: Value) -> None:
        if isinstance(value, State) and not self.meter.counts_only:
            self._merge(value)
        else:
            self.meter.add(*_arguments(value))

    def _merge(self, state: State) -> None:
        """Merge a recorded state into the meter; MeterError if it is of another kind of meter."""
        own = self.meter.reduction
        if own is None or not state.reduction.serves(own):
            raise MeterError(
                f"it was recorded with reduce=, which kept only what {state.reduction} remembers "
                f"of the values; {own or self._name} cannot be computed from that"
            )
        try:
            self.meter.merge(*state)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise MeterError(f"a damaged state: {error}") from None

    def _refusal(self, value: Value, error: Exception) -> str:
        """A message that says why the meter does not take the value."""
        if isinstance(value, State):
            return _describe_error(error)
        args = _arguments(value)
        came = ", ".join(map(_describe, args))
        return (
            f"{self._name} was given {came}: {_takes(self.meter, args) or _describe_error(error)}"
        )

    def _leave_out(self, why: str, *, step: int | None = None, x: float | None = None) -> None:
        name = self.definition.name
        self._left_out.note((self.key, name), LeftOut(self.key, name, why, step, x))

    def _tick(self, time: float) -> None:
        if self.meter.uses_time:
            self.meter.tick(time)


def bind(definitions: Definitions, key: str, order: int, left_out: LeftOuts) -> list[Binding]:
    """Make a binding for every meter that the key feeds; `order` is the key's index in the run."""
    return [Binding(meter, key, (i, order), left_out) for i, meter in definitions.taking(key)]


class Engine:
    """Turns events into windows.

    >>> engine = Engine(preset("loss"))
    >>> for event in recording.events():
    ...     engine.feed(event)
    >>> engine.windows()
    [<Window 'loss': line, 1 trace (train)>]

    A value that its meter or plot cannot take is left out, and listed in `left_out`; everything
    else is drawn.

    Args:
        definitions: what to draw.
        env: the visdom environment of plots that name none.
        uid: a prefix of window ids and titles.
        strict: raise at the first value that would be left out.
        classes: the classes of layers, which legends name.
    """

    def __init__(
        self,
        definitions: Definitions,
        *,
        env: str | None = None,
        uid: str | None = None,
        strict: bool = False,
        classes: Mapping[str, str] | None = None,
    ) -> None:
        self.left_out = LeftOuts(strict=strict)
        self.board = WindowBuilder(definitions, self.left_out, env=env, uid=uid, classes=classes)
        self._bindings: dict[str, list[Binding]] = {}
        self._start: float | None = None

    @property
    def definitions(self) -> Definitions:
        """The plots and meters."""
        return self.board.definitions

    def begin(self, time: float) -> None:
        """Set the time of the run's first event, unless it is known."""
        if self._start is None:
            self._start = time

    def feed(self, event: Event) -> None:
        """Process the next event.

        Raises:
            MeterError: a meter fails, if the engine is strict.
        """
        self.begin(event.time)
        if isinstance(event, Add):
            self._add(event)
            return
        for bindings in self._bindings.values():
            for binding in bindings:
                if not binding.selected(event.keys):
                    continue
                if isinstance(event, Log):
                    value = binding.read(event.x, event.time)
                    if value is not None:
                        x, axis = position(event, self.definitions.x, self._start or 0.0)
                        self.board.point(
                            *(binding.definition, binding.key, binding.place),
                            *([x], [value]),
                            marks=[event.x],
                            axes={axis},
                        )
                if not isinstance(event, Log) or (event.reset and binding.definition.reset):
                    binding.reset(event.time)

    def windows(self) -> list[Window]:
        """The windows that have something to show.

        Raises:
            DefinitionError: a plot cannot draw its meter's result, if the engine is strict.
        """
        return self.board.windows()

    def values(self, name: str) -> dict[str, Any]:
        """The results of the meter of that name, by key; or of the meters that a key feeds."""
        bindings = [binding for found in self._bindings.values() for binding in found]
        named = [binding for binding in bindings if binding.definition.name == name]
        named = named or [binding for binding in bindings if binding.key == name][:1]
        return {binding.key: binding.latest() for binding in named}

    def wants(self, key: str) -> bool:
        """Whether some meter takes the key."""
        return self.definitions.takes(key)

    def keys(self) -> list[str]:
        """The keys so far, in order."""
        return list(self._bindings)

    def redefine(self, definitions: Definitions) -> None:
        """Change the definitions; meters and plots that stay the same keep their values.

        A new meter starts empty, and draws from the next mark on.
        """
        old = {
            (binding.definition.name, binding.key): binding
            for bindings in self._bindings.values()
            for binding in bindings
        }
        self.board.redefine(definitions)
        for order, key in enumerate(self._bindings):
            bindings = bind(definitions, key, order, self.left_out)
            for i, binding in enumerate(bindings):
                before = old.get((binding.definition.name, key))
                if before is not None and _same_meter(before.definition, binding.definition):
                    before.definition, before.place = binding.definition, binding.place
                    bindings[i] = before
            self._bindings[key] = bindings

    def _add(self, event: Add) -> None:
        for key, value in event.values.items():
            bindings = self._bindings.get(key)
            if bindings is None:
                order = len(self._bindings)
                bindings = self._bindings[key] = bind(self.definitions, key, order, self.left_out)
            for binding in bindings:
                binding.add(value, event.step, event.time)


def _same_meter(a: MeterDefinition, b: MeterDefinition) -> bool:
    return (a.key, a.type, a.args) == (b.key, b.type, b.args)


def _arguments(value: Value) -> tuple[Any, ...]:
    """The arguments of the meter's `add` for a value."""
    return value if isinstance(value, tuple) else (value,)


def _describe_error(error: Exception) -> str:
    """An error in one line, with its type unless flexrec's own meters raise that type."""
    text = " ".join(str(error).split())
    return (
        text
        if text and isinstance(error, (TypeError, ValueError))
        else (f"{type(error).__name__}: {text}".removesuffix(": "))
    )


def _takes(meter: Meter, args: tuple[Any, ...]) -> str | None:
    """The parameters of the meter's `add`, if the number of arguments is wrong; else None."""
    try:
        wanted = inspect.signature(meter.add)
    except ValueError:  # not written in Python
        return None
    try:
        wanted.bind(*args)
    except TypeError:
        is_number = len(args) == 1 and not isinstance(args[0], str) and np.ndim(args[0]) == 0
        other = "; AverageValueMeter takes a number as it is" if is_number else ""
        return f"it takes ({', '.join(wanted.parameters)}){other}"
    return None


def _describe(part: Any) -> str:
    if isinstance(part, np.ndarray):
        return f"{part.dtype}{list(part.shape)}"
    return repr(part) if isinstance(part, float) else f"the text {part!r:.40}"
