"""Events → meters → board, one event at a time: the one engine of live plotting and of replay.

Pure: steps and times come from the events, order is their order. player/player.py has the quick way
over whole columns; a property test holds the two together.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Add, Event, Log, State, Value
from flexrec.replay.definitions.definitions import Definitions, MeterDefinition
from flexrec.replay.engine.window_builder import Place, WindowBuilder
from flexrec.replay.meters import Meter
from flexrec.replay.plots.window import Window


class Binding:
    """A meter bound to the key that feeds it."""

    def __init__(self, definition: MeterDefinition, key: str, place: Place) -> None:
        self.definition, self.key, self.place = definition, key, place
        self.meter = definition.build()
        self._has_data = False

    def add(self, value: Value, step: int, time: float) -> None:
        """Feed the meter; MeterError names the key, the step and what came."""
        args = value if isinstance(value, tuple) else (value,)
        self._tick(time)
        if isinstance(value, State) and not self.meter.counts_only:
            self._merge(value, step)
            return
        try:
            self.meter.add(*args)
        except (TypeError, ValueError) as error:
            name = type(self.meter).__name__
            came = ", ".join(map(_describe, args))
            why = _takes(self.meter, args) or error
            raise MeterError(
                f"{self.key!r} at step {step}: {name} was given {came}: {why}"
            ) from None
        self._has_data = True

    def add_numbers(self, values: NDArray[np.float64]) -> None:
        """Feed the meter many numbers; for one that reduces columns and has no use for time."""
        if len(values):
            self.meter.add_all(values)
            self._has_data = True

    def _merge(self, state: State, step: int) -> None:
        """Take in what a meter remembered; MeterError where it was another kind of meter."""
        own = self.meter.reduction
        if own is None or not state.reduction.serves(own):
            asked = own or type(self.meter).__name__
            raise MeterError(
                f"{self.key!r} was recorded with reduce=: the values were not kept, but what "
                f"{state.reduction} remembers of them; {asked} cannot be computed from that"
            )
        try:
            self.meter.merge(*state)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise MeterError(f"{self.key!r} at step {step}: a damaged state: {error}") from None
        self._has_data = True

    def read(self, time: float) -> Any:
        """What is to be drawn now, or None where nothing was added since the last reset."""
        if not self._has_data:
            return None
        self._tick(time)
        return self.chosen(self.meter.value())

    def reset(self, time: float) -> None:
        """Start the meter anew."""
        self._tick(time)
        self.meter.reset()
        self._has_data = False

    def selected(self, keys: Sequence[str] | None) -> bool:
        """Whether `log(keys=…)` or `reset(keys=…)` means this meter."""
        return keys is None or self.definition.name in keys or self.key in keys

    def chosen(self, value: Any) -> Any:
        """The field that the definition chose, of a meter that gives several."""
        fields = self.meter.fields
        if len(fields) > 1:
            value = value[fields.index(self.definition.field) if self.definition.field else 0]
        return value.copy() if isinstance(value, np.ndarray) else value

    def _tick(self, time: float) -> None:
        if self.meter.uses_time:
            self.meter.tick(time)


def bind(definitions: Definitions, key: str, order: int) -> list[Binding]:
    """A binding for every meter that the key feeds; `order` is the key's place in the run."""
    return [
        Binding(meter, key, (i, order))
        for i, meter in enumerate(definitions.meters.values())
        if meter.matches(key)
    ]


class Engine:
    """Feed it events; ask it for windows.

    >>> engine = Engine(preset("loss"))  # doctest: +SKIP
    >>> for event in recording.events():  # doctest: +SKIP
    ...     engine.feed(event)
    >>> engine.windows()  # doctest: +SKIP
    """

    def __init__(
        self, definitions: Definitions, *, env: str | None = None, uid: str | None = None
    ) -> None:
        self.board = WindowBuilder(definitions, env=env, uid=uid)
        self._bindings: dict[str, list[Binding]] = {}

    @property
    def definitions(self) -> Definitions:
        """What is drawn."""
        return self.board.definitions

    def feed(self, event: Event) -> None:
        """Take in the next event.

        Raises:
            MeterError: a meter cannot take a value; the other meters have theirs.
        """
        if isinstance(event, Add):
            self._add(event)
            return
        for bindings in self._bindings.values():
            for binding in bindings:
                if not binding.selected(event.keys):
                    continue
                if isinstance(event, Log):
                    value = binding.read(event.time)
                    if value is not None:
                        self.board.point(
                            binding.definition, binding.key, binding.place, [event.x], [value]
                        )
                if not isinstance(event, Log) or event.reset:
                    binding.reset(event.time)

    def windows(self) -> list[Window]:
        """Every window that has something to show."""
        return self.board.windows()

    def wants(self, key: str) -> bool:
        """Whether some meter takes the key."""
        return any(meter.matches(key) for meter in self.definitions.meters.values())

    def redefine(self, definitions: Definitions) -> None:
        """Go on with other definitions; meters and plots that stay the same keep what they have.

        A new meter starts empty, and draws from the next mark on.
        """
        old = {
            (binding.definition.name, binding.key): binding
            for bindings in self._bindings.values()
            for binding in bindings
        }
        self.board.redefine(definitions)
        for order, key in enumerate(self._bindings):
            bindings = bind(definitions, key, order)
            for i, binding in enumerate(bindings):
                before = old.get((binding.definition.name, key))
                if before is not None and _same_meter(before.definition, binding.definition):
                    before.definition, before.place = binding.definition, binding.place
                    bindings[i] = before
            self._bindings[key] = bindings

    def _add(self, event: Add) -> None:
        failure: MeterError | None = None
        for key, value in event.values.items():
            bindings = self._bindings.get(key)
            if bindings is None:
                bindings = self._bindings[key] = bind(self.definitions, key, len(self._bindings))
            for binding in bindings:
                try:
                    binding.add(value, event.step, event.time)
                except MeterError as error:
                    failure = failure or error
        if failure is not None:
            raise failure


def _same_meter(a: MeterDefinition, b: MeterDefinition) -> bool:
    return (a.key, a.type, a.args) == (b.key, b.type, b.args)


def _takes(meter: Meter, args: tuple[Any, ...]) -> str | None:
    """What the meter takes, where it is another number of arguments."""
    try:
        wanted = inspect.signature(meter.add)
    except ValueError:  # of one that is not written in Python
        return None
    try:
        wanted.bind(*args)
    except TypeError:
        return f"it takes ({', '.join(wanted.parameters)})"
    return None


def _describe(part: Any) -> str:
    if isinstance(part, np.ndarray):
        return f"{part.dtype}{list(part.shape)}"
    return repr(part) if isinstance(part, float) else f"the text {part!r:.40}"
