"""FlexLogger: the engine, live. It keeps the step and the time; the engine has neither."""

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, Unpack

from flexrec.recorder.errors import DefinitionError, InputError, listed, nearest, warn
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
)
from flexrec.replay.definitions.definitions import Definitions, Table, define
from flexrec.replay.definitions.presets import preset
from flexrec.replay.engine.engine import Engine
from flexrec.replay.engine.left_out import LeftOut
from flexrec.replay.plots.window import Window, equal
from flexrec.replay.sinks.base import Sink
from flexrec.replay.sinks.resending import ResendingSink

if TYPE_CHECKING:
    from flexrec.recorder import Recorder
    from flexrec.recorder.layers.tooled_model import ModelOptions, Module


class FlexLogger:
    """Feed meters while training, and plot them at every `log`.

    >>> logger = FlexLogger(  # doctest: +SKIP
    ...     {"loss": {"type": "line"}},
    ...     {"train_loss": {"type": "AverageValueMeter", "target": "loss"}},
    ... )
    >>> logger.add({"train_loss": 0.5})  # doctest: +SKIP
    >>> logger.log(epoch)  # doctest: +SKIP

    A server that is absent or dies never stops training: one warning, the windows stay in
    memory, and go out whole when it is back.

    Args:
        plots, meters: as in `define`; or checked definitions as `plots` alone.
        env: visdom's environment, for plots that name none of their own.
        uid: put before window ids, so that several loggers can share an environment.
        server, port: where visdom listens; the connection is made at the first `log`.
        sink: where windows go instead of visdom.
        recorder: record everything too; keys that no meter takes are then recorded alone.

    Raises:
        DefinitionError: a definition is wrong.
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
        sink: Sink | None = None,
        recorder: "Recorder | None" = None,
    ) -> None:
        checked = plots if isinstance(plots, Definitions) else define(plots, meters or {})
        if checked.auto is not None:
            raise DefinitionError(
                "the preset auto draws what a recording holds, and a logger cannot know beforehand "
                "what it will be given: name presets, such as loss+acc, or record, and replay"
            )
        self._engine = Engine(checked, uid=uid)
        self._sink = sink if sink is not None else ResendingSink(_visdom(server, port, env))
        self._recorder = recorder
        self._step: int | None = None  # None until step() is called
        self._logs = 0
        self._shown: dict[tuple[str | None, str], Window] = {}

    def takes(self, key: str) -> bool:
        """Whether a meter takes the key, or a recorder, which keeps any."""
        return self._recorder is not None or self._engine.wants(key)

    def add(self, values: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Feed meters: a key for each, its value what the meter's `add` takes.

        A value that its meter cannot take is left out, with one warning for each meter.

        Raises:
            DefinitionError: no meter takes a key (and there is no recorder to keep it).
            InputError: a value is of no kind that meters take; nothing is added.
        """
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
        if normal:
            self._take(Add(normal, self.current_step, time.time()))

    def log(
        self,
        x: float | None = None,
        keys: str | Iterable[str] | None = None,
        reset: bool = True,
        **axis: float,
    ) -> None:
        """Plot the meters at `x`, and reset them.

            >>> logger.log(epoch=3)  # doctest: +SKIP

        Args:
            x: the position on the x axis; by default the step, or, where `step` was never
                called, the number of logs so far.
            keys: only these meters; all by default.
            reset: whether the meters start anew.
            axis: `x` under a name of its own, which the plots' axis is labelled with.
        """
        position, name = named_position(x, axis)
        if position is None:
            counted = self._step is None and self._recorder is None
            position = float(self._logs if counted else self.current_step)
        names = self._checked(keys)
        self._logs += 1
        self._take(Log(position, names, bool(reset), self.current_step, time.time(), name))
        self.show()

    def reset(self, keys: str | Iterable[str] | None = None) -> None:
        """Start the meters of `keys` (all by default) anew, without plotting."""
        self._take(Reset(self._checked(keys), self.current_step, time.time()))

    def step(self, n: int | None = None) -> None:
        """Go on to step `n`, by default the next; a recorder goes along."""
        if self._recorder is not None:
            self._recorder.step(n)
        self._step = self.current_step + 1 if n is None else n

    @property
    def current_step(self) -> int:
        """The step that what is added now belongs to."""
        if self._recorder is not None:
            return self._recorder.current_step
        return self._step or 0

    def windows(self) -> list[Window]:
        """What is plotted now."""
        windows = self._engine.windows()
        self._warn()
        return windows

    @property
    def left_out(self) -> list[LeftOut]:
        """What meters and plots could not take so far."""
        return list(self._engine.left_out)

    def show(self) -> None:
        """Send the windows that have changed since they were last sent."""
        changed = []
        for window in self.windows():
            before = self._shown.get((window.env, window.win))
            if before is None or not equal(before, window):
                self._shown[window.env, window.win] = window
                changed.append(window)
        self._sink.show(changed)

    def get_definitions(self) -> dict[str, list[str]]:
        """Each plot's meters; optional ones once they are fed.

        >>> get_preset_logger("loss+MSE").get_definitions()  # doctest: +SKIP
        {'loss': ['train_loss', 'test_loss'], 'mse': ['train_mse', 'test_mse']}
        """
        return self._engine.definitions.by_plot(self._engine.keys())

    def draws(self, definitions: Definitions) -> bool:
        """Whether its plots have the meters that these definitions have."""
        keys = self._engine.keys()
        return definitions.by_plot(keys) == self._engine.definitions.by_plot(keys)

    def add_plot(self, name: str, table: Table) -> None:
        """Add a plot while running; it shows what its meters say from the next `log` on."""
        self._redefine(plots={name: table})

    def add_meter(self, name: str, table: Table) -> None:
        """Add a meter while running; it starts empty."""
        self._redefine(meters={name: table})

    def update_definition(self, name: str, table: Table) -> None:
        """Change some keys of a plot or meter while running.

        Lines stay, but those of a plot whose type changes; a meter whose type, args or key change
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
        """Send what has not been sent, and close the sink."""
        self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, event: Event) -> None:
        if self._recorder is not None:
            self._recorder.record(event)
        self._engine.feed(event)
        self._warn()

    def _warn(self) -> None:
        for left in self._engine.left_out.news():
            warn(f"left out: {left}")

    def _checked(self, keys: str | Iterable[str] | None) -> tuple[str, ...] | None:
        names = normalise_keys(keys)
        for name in names or ():
            if name not in self._engine.definitions.meters and not self._engine.wants(name):
                known = list(self._engine.definitions.meters)
                raise DefinitionError(f"no meter {name!r}{nearest(name, known)}")
        return names

    def _redefine(self, plots: Table | None = None, meters: Table | None = None) -> None:
        tables = self._engine.definitions.tables()
        self._engine.redefine(
            define({**tables["plots"], **(plots or {})}, {**tables["meters"], **(meters or {})})
        )


class TooledModelLogger:
    """Chart the statistics of a model's layers while training.

    >>> logger = TooledModelLogger(model, mode="by_source")  # doctest: +SKIP
    >>> loss.backward()  # doctest: +SKIP
    >>> logger.step(log=True)  # doctest: +SKIP

    Args:
        model: the model to watch; a TooledModel is made of it.
        mode: "by_layer" makes a chart for each layer, "by_source" one for each source and
            statistic, with a line for each layer.
        env, uid, server, port, sink, recorder: as in FlexLogger.
        options: sources, stats, layers, every, scaler and name, as in TooledModel.
    """

    def __init__(
        self,
        model: "Module",
        mode: Literal["by_layer", "by_source"] = "by_layer",
        *,
        env: str = "main",
        uid: str | None = None,
        server: str = "http://localhost",
        port: int = 8097,
        sink: Sink | None = None,
        recorder: "Recorder | None" = None,
        **options: "Unpack[ModelOptions]",
    ) -> None:
        from flexrec.recorder.layers.tooled_model import TooledModel  # needs torch

        presets = {"by_layer": "layers", "by_source": "sources"}
        if mode not in presets:
            raise DefinitionError(f"mode must be 'by_layer' or 'by_source', got {mode!r}")
        self.logger = get_preset_logger(
            presets[mode],
            env=env,
            uid=uid,
            server=server,
            port=port,
            sink=sink,
            recorder=recorder,
        )
        self.tooled: TooledModel = TooledModel(model, **options)

    def add(self) -> None:
        """Feed the meters the statistics of the step that has just run, those that are drawn."""
        statistics = self.tooled.step()
        drawn = {key: value for key, value in statistics.items() if self.logger.takes(key)}
        if drawn:
            self.logger.add(drawn)

    def log(
        self,
        x: float | None = None,
        keys: str | Iterable[str] | None = None,
        reset: bool = True,
        **axis: float,
    ) -> None:
        """Plot the meters at `x`, by default the step, and reset them."""
        self.logger.log(x, keys, reset, **axis)
        if reset and keys is None:
            self.tooled.reset()

    def reset(self, keys: str | Iterable[str] | None = None) -> None:
        """Start the meters of `keys` anew; without keys all, and the window of snr."""
        self.logger.reset(keys)
        if keys is None:
            self.tooled.reset()

    def step(self, log: bool = False) -> None:
        """`add`, plot if `log`, and go on to the next step."""
        self.add()
        if log:
            self.log(self.logger.current_step)
        self.logger.step()

    def close(self) -> None:
        """Take the hooks off the model, and close the sink."""
        self.tooled.remove()
        self.logger.close()


def get_preset_logger(
    name: str,
    *,
    phases: Iterable[str] = (),
    env: str = "main",
    uid: str | None = None,
    server: str = "http://localhost",
    port: int = 8097,
    sink: Sink | None = None,
    recorder: "Recorder | None" = None,
) -> FlexLogger:
    """A FlexLogger of a preset's definitions; the arguments are `preset`'s and FlexLogger's.

    >>> logger = get_preset_logger("loss+MSE")  # doctest: +SKIP
    """
    return FlexLogger(
        preset(name, phases=phases),
        env=env,
        uid=uid,
        server=server,
        port=port,
        sink=sink,
        recorder=recorder,
    )


def _visdom(server: str, port: int, env: str) -> Callable[[], Sink]:
    def connect() -> Sink:
        from flexrec.replay.sinks.visdom import VisdomSink  # imports visdom

        # A server that hangs may hold training up for seconds, not for a minute.
        return VisdomSink(server=server, port=port, env=env, timeout=5, retries=1)

    return connect
