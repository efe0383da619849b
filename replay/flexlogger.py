"""FlexLogger: live plotting. It feeds the engine, and keeps the current step and the time."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeAlias, TypedDict, Unpack, cast

import numpy as np

from flexrec.recorder.errors import (
    DefinitionError,
    InputError,
    ServerError,
    listed,
    nearest,
    warn,
)
from flexrec.recorder.events import (
    Add,
    Event,
    Known,
    Log,
    Reset,
    Value,
    gather,
    named_position,
    normalise,
    normalise_keys,
    whole_step,
)
from flexrec.recorder.files.names import new_name
from flexrec.recorder.layers.models import Models, with_watched
from flexrec.replay.definitions.alarms import Alarms, as_alarms
from flexrec.replay.definitions.definitions import Definitions, Table, define
from flexrec.replay.definitions.presets import preset
from flexrec.replay.engine.alarms import Alarm, AlarmEngine
from flexrec.replay.engine.engine import Engine
from flexrec.replay.engine.left_out import LeftOut
from flexrec.replay.engine.window_builder import classes_of
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import ChangesSink, ListSink, Sink

if TYPE_CHECKING:
    from flexrec.recorder import Recorder
    from flexrec.recorder.layers.tooled_model import ModelOptions, Module
    from flexrec.replay.sinks.resending import ResendingSink

Position: TypeAlias = float | date | np.datetime64
"""A position on the x axis: a number, or a date, which becomes seconds since 1970."""


class LoggerOptions(TypedDict, total=False):
    """The type of FlexLogger's options, for functions that pass them on; see FlexLogger."""

    env: str
    uid: str | None
    server: str
    port: int
    base_url: str
    username: str | None
    password: str | None
    timeout: float
    sink: Sink | None
    recorder: "Recorder | None"
    alarms: "Alarms | Table"
    on_alarm: "Callable[[Alarm], object] | None"


if TYPE_CHECKING:

    class TooledModelLoggerOptions(LoggerOptions, ModelOptions, total=False):
        """The options of TooledModelLogger: FlexLogger's, and those of TooledModel."""


class _KeepsMethods:
    """A class whose methods cannot be set: `logger.step = 5` says what to write."""

    if not TYPE_CHECKING:  # else type checkers allow setting any attribute

        def __setattr__(self, name: str, value: object) -> None:
            if callable(getattr(type(self), name, None)) and not callable(value):
                call = f"logger.{name}({value!r:.40})"
                raise AttributeError(f"{name} cannot be set; write {call}", name=name, obj=self)
            super().__setattr__(name, value)


class FlexLogger(_KeepsMethods):
    """Feed meters while training, and plot their results at every `log`.

    >>> logger = FlexLogger(
    ...     {"loss": {"type": "line"}},
    ...     {"train_loss": {"type": "AverageValueMeter", "target": "loss"}},
    ... )
    >>> logger.add({"train_loss": 0.5})
    >>> logger.log(epoch)

    A background thread sends the windows. A server that is absent, dies, hangs or is slow never
    blocks training: there is one warning, the windows stay in memory, and all are sent when it is
    back. Use the logger in a `with` block, or call `close` at the end: it waits until all is sent.

    A forked process opens its own connection and draws into the same windows: give its logger an
    `env` or a `uid`. A spawned process gets a copy of the logger, which starts empty. A logger is
    not thread safe: only one thread at a time may use it.

    Args:
        plots, meters: as in `define`; or `plots` alone, as Definitions.
        env: the visdom environment of plots that name none.
        uid: a prefix of window ids and titles, so that several loggers and runs can share an
            environment. In it, `{run}` stands for a name of this run's own: that of the recorder's
            file, or else the time and a few random digits. By default a run replaces the windows
            of the one before.
        server, port, base_url: where visdom listens; the connection is made at the first `log`.
        username, password: for a server that asks for a login; by default the environment
            variables VISDOM_USERNAME and VISDOM_PASSWORD.
        timeout: seconds without an answer after which a request to the server has failed.
        sink: receives the windows instead of visdom, in the calling thread.
        recorder: a Recorder that records everything too; keys that no meter takes are then only
            recorded.
        alarms: from `define_alarms` or `load_alarms`, or dicts as `define_alarms` takes them.
        on_alarm: called with each Alarm that goes off; by default it is given as a warning. An
            exception that it raises becomes a warning: an alarm never ends training.

    Raises:
        DefinitionError: a definition is wrong.
        ServerError: the address is invalid, or visdom is not installed.
    """

    def __init__(
        self,
        plots: Table | Definitions,
        meters: Table | None = None,
        *,
        env: str = "main",
        uid: str | None = None,
        server: str = "http://localhost",
        port: int = 8097,
        base_url: str = "",
        username: str | None = None,
        password: str | None = None,
        timeout: float = 5.0,
        sink: Sink | None = None,
        recorder: "Recorder | None" = None,
        alarms: "Alarms | Table" = (),
        on_alarm: "Callable[[Alarm], object] | None" = None,
    ) -> None:
        checked = plots if isinstance(plots, Definitions) else define(plots, meters or {})
        if checked.auto is not None:
            raise DefinitionError(
                "the preset auto draws what a recording holds, and a logger cannot know beforehand "
                "which keys will come: name presets, such as loss+acc, or record, and replay"
            )
        if uid is not None and "{run}" in uid:
            uid = uid.replace("{run}", recorder.path.stem if recorder is not None else new_name())
        self._engine, self._alarms = Engine(checked, uid=uid), AlarmEngine(as_alarms(alarms))
        self._on_alarm = on_alarm
        self._options = LoggerOptions(
            env=env,
            uid=uid,
            server=server,
            port=port,
            base_url=base_url,
            username=username,
            password=password,
            timeout=timeout,
            sink=sink,
            recorder=recorder,
            alarms=as_alarms(alarms),
            on_alarm=on_alarm,
        )
        self._sink: ChangesSink | ResendingSink
        if sink is not None:
            self._sink = ChangesSink(sink)
        elif alarms and not checked.plots:
            self._sink = ChangesSink(ListSink())  # nothing to draw: no visdom is needed
        else:
            self._sink = _visdom(self._options)
        self._recorder = recorder
        self._step: int | None = None  # None until step() is called
        self._logs = 0
        self._models: Models = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy_of, (type(self), self._engine.definitions, self._options)

    def __repr__(self) -> str:
        plots = listed(self._engine.definitions.plots)
        return f"<FlexLogger of {plots or 'no plots'} in {self._sink}>"

    def takes(self, key: str) -> bool:
        """Whether a meter or an alarm takes the key; with a recorder, which records any, true."""
        return self._recorder is not None or self._engine.wants(key) or self._alarms.wants(key)

    def add(
        self,
        values: Mapping[str, object] | None = None,
        /,
        *extra: Never,
        step: int | None = None,
        **named: object,
    ) -> None:
        """Feed values to meters, by key; each value is what the `add` of its meter takes.

        A value that its meter cannot take is left out, with one warning for each meter.

        With `step`, the values belong to that step, which becomes the current one.

        Raises:
            DefinitionError: no meter takes a key, and there is no recorder.
            InputError: a value has a type that no meter takes; nothing is added.
        """
        if extra:
            key = values if isinstance(values, str) else "loss"
            raise InputError(f'add takes a mapping or keywords: write add({{"{key}": value}})')
        normal: dict[str, Value] = {}
        arrays: Known = {}  # the same pair for several meters stays the same
        for key, value in gather(values, named).items():
            if not isinstance(key, str):
                raise InputError(f"keys must be strings, got {type(key).__name__}")
            if not self.takes(key):
                known = self._engine.definitions.wanted()
                raise DefinitionError(
                    f"no meter takes {key!r}{nearest(key, known)} (there are {listed(known)})"
                )
            taken = normalise(key, value, arrays)
            if taken is not None:
                normal[key] = taken
        if step is not None:
            self._go_to(step)
        if normal:
            self._take(Add(normal, self.current_step, time.time()))

    def log(
        self,
        x: Position | None = None,
        keys: str | Iterable[str] | None = None,
        reset: bool = True,
        **axis: Position,
    ) -> None:
        """Plot the meters at `x`, and reset them.

            >>> logger.log(epoch=3)

        Args:
            x: the position on the x axis: a number, or a date, which is drawn as seconds since
                1970, for plots with the opt `xtype="date"`; a date without a time zone is UTC. By
                default the step, or, if `step` was never called, the number of logs so far.
            keys: only these meters; all by default.
            reset: whether to reset the meters.
            axis: `x` as a named argument, such as `epoch=3`; the name labels the plots' x axis.
        """
        given, name = named_position(x, axis)
        if given is None:
            counted = self._step is None and self._recorder is None
            given = self._logs if counted else self.current_step
        position, names = _position(given, name or "x"), self._checked(keys)
        self._logs += 1
        self._take(Log(position, names, bool(reset), self.current_step, time.time(), name))
        self.show()

    def describe(self, models: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Name the classes of models' layers in legends, and record them if there is a recorder.

        `models` are as `Recording.models` gives them.
        """
        self._models = with_watched(self._models, models)
        self._engine.board.classes = classes_of(self._models)
        if self._recorder is not None:
            self._recorder.describe(models)

    def reset(self, keys: str | Iterable[str] | None = None) -> None:
        """Reset the meters of `keys` (all by default) without plotting."""
        self._take(Reset(self._checked(keys), self.current_step, time.time()))

    def step(self, n: int | None = None) -> None:
        """Go on to step `n`, by default the next; the recorder's step is set too."""
        step = self.current_step + 1 if n is None else whole_step(n)
        if self._recorder is not None:
            self._recorder.step(n)
        self._step = step

    @property
    def current_step(self) -> int:
        """The step of values that are added now."""
        if self._recorder is not None:
            return self._recorder.current_step
        return self._step or 0

    def windows(self) -> list[Window]:
        """The windows as they are plotted now."""
        windows = self._engine.windows()
        self._warn()
        return windows

    @property
    def left_out(self) -> list[LeftOut]:
        """The values that meters and plots could not take so far."""
        return [*self._engine.left_out, *self._alarms.left_out]

    def log_point(self, plot: str, x: Position, y: float, *, name: str | None = None) -> None:
        """Draw one point of a line as given, without a meter.

        >>> logger.log_point("learning rate", epoch, 1e-3)

        Args:
            plot: the plot; if there is none of that name, a line plot is made.
            x, y: the point.
            name: the line's name, for several lines in one plot; by default the plot's.
        """
        _position(x)  # refused before anything is defined
        meter = name or plot
        tables = self._engine.definitions.tables()
        table = {"type": "LastValueMeter", "target": plot}
        if tables["meters"].get(meter, table) != table:
            raise DefinitionError(f"{meter!r} is a meter already: give the line another name")
        if plot not in tables["plots"]:
            self.add_plot(plot, {"type": "line"})
        if meter not in tables["meters"]:
            self.add_meter(meter, table)
        self.add({meter: y})
        self.log(x, meter)

    def value(self, name: str) -> Any:
        """The result of a meter: of the values since its last reset, or else its last result.

            >>> logger.value("train_loss")
            0.125

        Args:
            name: the meter, or a key that feeds one.

        Returns:
            A number, array or text: the field that is drawn; {key: value} for a meter whose key is
            a pattern; None if nothing was added so far.

        Raises:
            DefinitionError: there is no such meter.
            MeterError: the meter fails.
        """
        (name,) = self._checked(name) or ()
        found = self._engine.values(name)
        meter = self._engine.definitions.meters.get(name)
        if meter is not None and meter.is_pattern:
            return found
        return next(iter(found.values()), None)

    def values(self) -> dict[str, Any]:
        """The results of the meters that were fed, {meter: value}; a pattern gives {key: value}."""
        found: dict[str, Any] = {}
        for name, meter in self._engine.definitions.meters.items():
            for key, value in self._engine.values(name).items():
                found[key if meter.is_pattern else name] = value
        return found

    def print_meters(self, *names: str) -> None:
        """Print the results of these meters, or of all: a line of numbers and texts, then arrays.

        >>> logger.print_meters("train_loss", "test_loss")
        train_loss 0.125  test_loss 0.25
        """
        chosen = {name: self.value(name) for name in names} if names else self.values()
        short = {name: value for name, value in chosen.items() if not np.ndim(value)}
        words = (f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in short.items())
        print("  ".join(words))
        for name in chosen.keys() - short.keys():
            print(f"{name}\n{chosen[name]}")

    def show(self) -> None:
        """Send the windows that have changed, and remove those that are gone."""
        self._sink.show(self.windows())

    def save(self) -> None:
        """Make visdom write its environments to its folder, once all windows are sent.

        Warns if the server fails.
        """
        self.show()
        try:
            self._sink.save(dict.fromkeys(window.env for window in self.windows()))
        except ServerError as error:
            warn(str(error))

    def get_definitions(self) -> dict[str, list[str]]:
        """The names of each plot's meters; optional ones are listed once they are fed.

        >>> get_preset_logger("loss+MSE").get_definitions()
        {'loss': ['train_loss', 'test_loss'], 'mse': ['train_mse', 'test_mse']}
        """
        return self._engine.definitions.by_plot(self._engine.keys())

    def draws(self, definitions: Definitions) -> bool:
        """Whether its plots and meters are those of the definitions."""
        keys = self._engine.keys()
        return definitions.by_plot(keys) == self._engine.definitions.by_plot(keys)

    def add_plot(self, name: str, table: Table) -> None:
        """Add a plot while running; it shows its meters' results from the next `log` on."""
        self._redefine(plots={name: table})

    def add_meter(self, name: str, table: Table) -> None:
        """Add a meter while running; it starts empty."""
        self._redefine(meters={name: table})

    def update_definition(self, name: str, table: Table) -> None:
        """Change some keys of a plot or meter while running.

        Lines stay, except in a plot whose type changes; a meter whose type, args or key change
        starts empty.
        """
        tables = self._engine.definitions.tables()
        part = next((part for part in ("plots", "meters") if name in tables[part]), None)
        if part is None:
            known = [*tables["plots"], *tables["meters"]]
            raise DefinitionError(f"no plot or meter {name!r}{nearest(name, known)}")
        old = tables[part][name]
        merged = {**old, **table}
        if part == "plots" and "opts" in table:
            merged["opts"] = {**old.get("opts", {}), **table["opts"]}
        self._redefine(**{part: {name: merged}})

    def close(self) -> None:
        """Send all unsent windows, within half a minute, and warn about those that could not be."""
        self.show()  # a Ctrl-C may have interrupted an earlier call
        try:
            self._sink.close()
        except ServerError as error:
            warn(str(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _go_to(self, step: int) -> None:
        """Set the step of the values that are added from now on, for the recorder too."""
        self._step = whole_step(step)
        if self._recorder is not None:
            self._recorder.add({}, step=step)

    def _take(self, event: Event) -> None:
        if self._recorder is not None:
            self._recorder.record(event)
        self._engine.feed(event)
        alarms = self._alarms.feed(event)
        self._warn()
        for alarm in alarms:
            self._sound(alarm)

    def _sound(self, alarm: Alarm) -> None:
        if self._on_alarm is None:
            _tell(f"alarm {alarm}")
            return
        try:
            self._on_alarm(alarm)
        except Exception as error:  # noqa: BLE001 - the caller's; training goes on
            _tell(f"alarm {alarm}; on_alarm failed: {type(error).__name__}: {error}")

    def _warn(self) -> None:
        for left in self._engine.left_out.news():
            warn(f"left out: {left}")
        for left in self._alarms.left_out.news():
            _tell(f"left out: {left}")

    def _checked(self, keys: str | Iterable[str] | None) -> tuple[str, ...] | None:
        names = normalise_keys(keys)
        for name in names or ():
            if name not in self._engine.definitions.meters and not (
                self._engine.wants(name) or self._alarms.wants(name)
            ):
                known = list(self._engine.definitions.meters)
                raise DefinitionError(f"no meter {name!r}{nearest(name, known)}")
        return names

    def _redefine(self, plots: Table | None = None, meters: Table | None = None) -> None:
        if self._options["sink"] is None and plots and isinstance(self._sink, ChangesSink):
            self._sink = _visdom(self._options)
        tables = self._engine.definitions.tables()
        changed = define(
            {**tables["plots"], **(plots or {})}, {**tables["meters"], **(meters or {})}
        )
        self._engine.redefine(replace(changed, x=self._engine.definitions.x))
        if self._logs:
            self.show()  # removes windows that are no longer drawn


class TooledModelLogger(_KeepsMethods):
    """Plot the statistics of a model's layers while training.

    >>> logger = TooledModelLogger(model, mode="by_source")
    >>> model(x).sum().backward()
    >>> logger.step(log=True)

    Args:
        model: the model to watch, through a TooledModel.
        mode: "by_layer" draws a plot for each layer, "by_source" one for each source and
            statistic, with a line for each layer.
        options: env, uid, server and the other options of FlexLogger; sources, stats, layers,
            every, scaler and name, as in TooledModel.
    """

    def __init__(
        self,
        model: "Module",
        mode: Literal["by_layer", "by_source"] = "by_layer",
        **options: "Unpack[TooledModelLoggerOptions]",
    ) -> None:
        from flexrec.recorder.layers.tooled_model import TooledModel  # needs torch

        presets = {"by_layer": "layers", "by_source": "sources"}
        if mode not in presets:
            raise DefinitionError(f"mode must be 'by_layer' or 'by_source', got {mode!r}")
        known = LoggerOptions.__annotations__
        logger = {key: value for key, value in options.items() if key in known}
        tooled = {key: value for key, value in options.items() if key not in known}
        self.logger = get_preset_logger(presets[mode], **cast(LoggerOptions, logger))
        self.tooled: TooledModel = TooledModel(model, **cast("ModelOptions", tooled))

    def add(self) -> None:
        """Feed the meters the statistics of the step that has just run, if they are drawn."""
        statistics = self.tooled.step()
        described = self.tooled.new_description()
        if described is not None:
            self.logger.describe(described)
        drawn = {key: value for key, value in statistics.items() if self.logger.takes(key)}
        if drawn:
            self.logger.add(drawn)

    def log(
        self,
        x: Position | None = None,
        keys: str | Iterable[str] | None = None,
        reset: bool = True,
        **axis: Position,
    ) -> None:
        """Plot the meters at `x`, by default the step, and reset them."""
        self.logger.log(x, keys, reset, **axis)
        if reset and keys is None:
            self.tooled.reset()

    def reset(self, keys: str | Iterable[str] | None = None) -> None:
        """Reset the meters of `keys`; without keys, all meters and the window of snr."""
        self.logger.reset(keys)
        if keys is None:
            self.tooled.reset()

    def step(self, log: bool = False) -> None:
        """Call `add`, plot if `log` is true, and go on to the next step."""
        self.add()
        if log:
            self.log(self.logger.current_step)
        self.logger.step()

    def close(self) -> None:
        """Remove the hooks from the model, and close the sink."""
        self.tooled.remove()
        self.logger.close()


def get_preset_logger(
    name: str, *, phases: Iterable[str] = (), **options: Unpack[LoggerOptions]
) -> FlexLogger:
    """Make a FlexLogger with a preset's definitions.

    >>> logger = get_preset_logger("loss+MSE", env="my_env")

    Args:
        name, phases: as in `preset`.
        options: env, server and the other options of FlexLogger.
    """
    return FlexLogger(preset(name, phases=phases), **options)


def _visdom(options: LoggerOptions) -> "ResendingSink":
    from flexrec.replay.sinks.resending import ResendingSink  # imports visdom
    from flexrec.replay.sinks.visdom import VisdomSink

    own = ("env", "server", "port", "base_url", "username", "password", "timeout")
    chosen = {key: value for key, value in options.items() if key in own}
    return ResendingSink(VisdomSink(**cast(Any, chosen), retries=0))


def _tell(message: str) -> None:
    """Give a warning; where warnings are errors, print it: no alarm ends training."""
    try:
        warn(message)
    except RuntimeWarning:
        with suppress(Exception):
            print(f"flexrec: {message}", file=sys.stderr)


def _copy_of(
    kind: type[FlexLogger], definitions: Definitions, options: LoggerOptions
) -> FlexLogger:
    """Make a logger's copy: the same definitions and options, and no values."""
    return kind(definitions, **options)


def _position(x: object, name: str = "x") -> float:
    """Convert a position on the x axis to a number, a date to seconds since 1970."""
    if isinstance(x, np.datetime64):
        x = x.astype("datetime64[us]").item()  # None for NaT
    if isinstance(x, date) and not isinstance(x, datetime):
        x = datetime(x.year, x.month, x.day)
    if isinstance(x, datetime):
        x = (x if x.tzinfo else x.replace(tzinfo=UTC)).timestamp()
    position = None if isinstance(x, bool) else normalise(name, x)
    if not isinstance(position, float):
        raise InputError(f"{name} must be a number or a date, got {type(x).__name__}")
    if not math.isfinite(position):
        raise InputError(f"{name} must be a finite number, got {position}: it could not be drawn")
    return position
