"""Recorder, the class that training code calls. It owns an event queue and a flusher.

Datasets are not its subject (see writing/live_file.py and storage/format.py), nor are meters and
plots.
"""

import json
import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, NoReturn, Self, Unpack

import numpy as np

from flexrec.recorder.errors import (
    DefinitionError,
    ExistsError,
    InputError,
    MissingDependency,
    OutputError,
    RecordingError,
    counted,
    listed,
    warn,
)
from flexrec.recorder.events import (
    Add,
    Event,
    Log,
    Reset,
    log_position,
    named_position,
    normalise_keys,
    whole_step,
)
from flexrec.recorder.files.atomic_write import check_target, clear_litter
from flexrec.recorder.files.lock import PathLock, why_not
from flexrec.recorder.hdf5.interrupts import HeldInterrupts
from flexrec.recorder.layers.models import Models, models_of, with_unwatched, with_watched
from flexrec.recorder.reduction.reducer import Reducer, Rules
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.open_store import RECORDING
from flexrec.recorder.writing import lifetime
from flexrec.recorder.writing.checkpoints import NO_STEP, Checkpoints
from flexrec.recorder.writing.config import Config, as_json
from flexrec.recorder.writing.event_queue import EventQueue
from flexrec.recorder.writing.flusher import Flusher, briefly
from flexrec.recorder.writing.opening.create import Opened, open_new, open_resumed
from flexrec.recorder.writing.opening.facts import gather_facts
from flexrec.recorder.writing.opening.place import check_system, place
from flexrec.recorder.writing.surroundings.companion import Companion
from flexrec.recorder.writing.surroundings.console import Console
from flexrec.recorder.writing.surroundings.monitor import LEAST_SECONDS, Monitor, machine_beside

if TYPE_CHECKING:
    from flexrec.recorder.layers.parameters.optimizers import Optimizers
    from flexrec.recorder.layers.tooled_model import Layers, ModelOptions, Module, TooledModel
    from flexrec.recorder.layers.tracing.trace import Trace

_LEAST_FLUSH_SECONDS = 0.001


class Recorder:
    """Append metrics, marks and layer statistics to an HDF5 file while training goes on.

    >>> with Recorder("new.h5", config={"lr": 1e-3}) as rec:
    ...     for epoch in range(5):
    ...         for x, y in loader:
    ...             rec.add({"train_loss": loss, "train_mse": (output, target)})
    ...             rec.step()
    ...         rec.log(epoch)

    A background thread writes added values to the file every `flush_seconds`; a killed run loses
    at most the values added since. `close` rewrites the file compressed. A recorder that is no
    longer referenced is closed too. Several threads may add at the same time. A copy (in a forked
    child, by pickle or by `copy.deepcopy`) records nothing.

    Args:
        path: the file to create; missing parent folders are created too. `{rank}` in it is
            replaced by the process's rank (torch.distributed, torchrun, MPI, Flux, SLURM). If the
            path is an existing folder or ends with a slash, a file with a generated name is
            created in that folder; the attribute `path` has its full path.
        mode: "x" refuses an existing file; "w" overwrites a recording; "resume" continues a
            recording after a kill or a close, and creates it if it is missing or an empty file.
        at_step: the last step to keep when resuming: what was recorded after it stays in the file
            but is not replayed. None keeps everything that was recorded.
        next_step: the same, given as the first step that training will record again:
            `next_step=5` means `at_step=4`. Loops that count from 0 and store the next iteration,
            such as nanoGPT's, give `next_step`; loops that record under the number of the step
            just done, such as a Trainer's callback under `global_step`, give `at_step`. Values
            recorded after `step()`, such as an evaluation, belong to the next step: record them
            before `step()`, or resume with `load_state_dict`.
        config: settings to store with the recording: a mapping, an argparse.Namespace, a
            dataclass, or other plain JSON data. Paths, enums, and torch's dtypes and devices in it
            are converted to strings. When resuming, it replaces the stored config. It is available
            as the attribute `config`, and `config.update` changes it later.
        facts: whether to store host, versions, argv, job, rank, git commit and so on too, and the
            first 100 kB of `git diff HEAD`, which says what of the code is not committed;
            "no patch" leaves that out.
        flush_seconds: how long an added value may stay in memory; at least 0.001.
        fsync_seconds: how often the file is synced to disk, to survive a loss of power.
        on_error: what to do when the file cannot be written: "warn" warns once, buffers up to
            `buffer_bytes` and retries; "raise" raises from the next call, and from `close`.
        buffer_bytes: the most bytes to buffer. Beyond it, events are dropped and counted while
            the file cannot be written; while it can, `add` waits.
        reduce: keys, or patterns of keys, whose tensors are not stored, each with the meter that
            will read them: a name, or a name and the constructor's arguments, such as
            `{"train_mse": "MSEMeter", "*_confusion": ("ConfusionMeter", {"k": 10})}`; or
            definitions, such as `preset("MSE")` or `load_toml("plots.toml")`, whose meters with a
            small state are used. The meter's state for each add is recorded in place of the
            tensors: replaying through that meter gives the same result, to the bit, and no other
            meter can read these keys. Reducing a tensor on an accelerator waits for it.
        compress: whether `close` compresses the file, which takes longer and makes it smaller.
        monitor: record the machine's processors, memory, disk, network and GPUs under `system/…`
            every so many seconds, such as 10; needs psutil, and nvidia-ml-py for GPUs.
        console: whether to record the lines printed to sys.stdout and sys.stderr, with their
            times; see docs/monitoring.md.
        created: when the run began, in seconds since 1970; None: now. For values that something
            else recorded earlier. A recording that is continued keeps its own. A checkpoint and a
            follower know a recording by it: at one path, give each another.

    Raises:
        DefinitionError: `reduce` names a meter that has no small state, or wrong arguments.
        MissingDependency: `monitor` is given, and psutil is not installed.
        OutputError: the file cannot be created, is not a recording, or exists (ExistsError, mode
            "x").
        RecordingError: the recording cannot be resumed, or is being written by another recorder;
            config is not plain data; or the system is Windows.
        InputError: a value cannot be recorded; nothing from that call is recorded.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["x", "w", "resume"] = "x",
        at_step: int | None = None,
        next_step: int | None = None,
        config: Any = None,
        facts: "bool | Literal['no patch']" = True,
        flush_seconds: float = 1.0,
        fsync_seconds: float = 30.0,
        on_error: Literal["warn", "raise"] = "warn",
        buffer_bytes: int = 256 << 20,
        reduce: Rules | None = None,
        compress: bool = True,
        monitor: float | None = None,
        console: bool = False,
        created: float | None = None,
    ) -> None:
        check_system()
        if mode not in ("x", "w", "resume"):
            raise ValueError(f"mode must be 'x', 'w' or 'resume', got {mode!r}")
        for name, step in (("at_step", at_step), ("next_step", next_step)):
            if step is not None and mode != "resume":
                raise ValueError(f"{name}={step} needs mode='resume', got mode={mode!r}")
        if at_step is not None and next_step is not None:
            raise ValueError(
                "give at_step, the last step that holds, or next_step, the one after it; "
                f"got at_step={at_step} and next_step={next_step}"
            )
        if not (isinstance(facts, bool) or facts == "no patch"):
            raise ValueError(f"facts must be True, False or 'no patch', got {facts!r}")
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
        at_step = None if at_step is None else whole_step(at_step)
        at_step = at_step if next_step is None else whole_step(next_step) - 1
        for name, number in (
            ("flush_seconds", flush_seconds),
            ("fsync_seconds", fsync_seconds),
            ("buffer_bytes", buffer_bytes),
            *(() if monitor is None else (("monitor", monitor),)),
            *(() if created is None else (("created", created),)),
        ):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not number > 0:
                raise ValueError(f"{name} must be a number above 0, got {number!r}")
        if created is not None and not created <= sys.float_info.max:
            raise ValueError(f"created must be seconds since 1970, got {created!r}")
        if flush_seconds < _LEAST_FLUSH_SECONDS:
            raise ValueError(
                f"flush_seconds must be at least {_LEAST_FLUSH_SECONDS}, got {flush_seconds!r}: "
                "more often, the writer's thread would hardly ever sleep"
            )
        if monitor is not None and not LEAST_SECONDS <= monitor < math.inf:
            raise ValueError(
                f"monitor must be a number of seconds from {LEAST_SECONDS} on, got {monitor!r}"
            )
        for name, choice in (("compress", compress), ("console", console)):
            if not isinstance(choice, bool):
                raise ValueError(f"{name} must be True or False, got {choice!r}")
        self._reducer = Reducer({} if reduce is None else reduce)
        config = json.loads(as_json("config", config))
        self._path = place(path, resumes=mode == "resume")
        machine = None if monitor is None else machine_beside(self._path)
        self._watched: list[TooledModel] = []
        self._trace: Trace | None = None
        self._closing = threading.RLock()
        self._describing = threading.RLock()
        self._took_leave = False
        self._copied: dict[str, Any] | None = None  # in a copy: the state when it was copied
        # An absolute path, so that a later os.chdir does not change where the file is.
        target = Path(os.path.realpath(self._path))
        with HeldInterrupts():
            lock = _locked(self._path, target)
            try:
                gathered = gather_facts(patch=facts != "no patch") if facts else None
                opened = _opened(self._path, target, mode, config, gathered, at_step, created)
            except BaseException:
                lock.release()
                raise
            self._flusher = Flusher(
                self._path,
                target,
                lock,
                opened,
                flush_seconds=flush_seconds,
                fsync_seconds=fsync_seconds,
                on_error=on_error,
                buffer_bytes=buffer_bytes,
                compress=compress,
            )
            latest = -math.inf if opened.resumption is None else opened.resumption.time
            self._queue = EventQueue(self._reducer, self._flusher.wake, since=latest)
            self._config, self._facts = _config(opened.config, self._queue), opened.facts or {}
            self._has_facts = bool(facts)
            self._checkpoints = Checkpoints(
                self._path, self._queue, self._flusher, opened, raises=on_error == "raise"
            )
            self._look_to = self._checkpoints.look_to  # adds up to this step are checked
            companions: list[Companion] = []
            if machine is not None and monitor is not None:
                companions.append(Monitor(self._queue, machine, monitor))
            if console:
                companions.append(Console(self._queue))
            self._flusher.start(self._queue, self, companions)
            lifetime.begin(self._flusher)

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._path

    @property
    def config(self) -> Config:
        """The settings stored with the recording; a change made here is recorded.

        >>> rec.config.update(batch_size=64)

        Raises:
            InputError: the config is not a mapping.
        """
        if self._config is None:
            raise InputError(
                "this recording's config is not a mapping, so single settings cannot be read or set"
            )
        return self._config

    def __repr__(self) -> str:
        step = f"step {self.current_step}"
        if self._queue.is_inert:
            return f"<Recorder {self.path}: a copy, which records nothing; {step}>"
        flusher = self._flusher
        state = "closed" if flusher.has_ended else "recording"
        return f"<Recorder {self.path}: {state}; {step}, {counted(flusher.events, 'event')}>"

    # ------------------------------------------------------------------ recording

    def add(
        self,
        values: Mapping[str, object] | None = None,
        /,
        *extra: Never,
        step: int | None = None,
        **named: object,
    ) -> None:
        """Record values under their keys, at the current step and time.

        >>> rec.add({"train_loss": 0.5}, lr=1e-3)
        >>> rec.add({"train_loss": 0.5}, step=100)

        A value is what a meter's `add` takes: a number or 0-d tensor, an array or tensor, a
        string, or a tuple or list of those. None means "nothing to add". A tensor is copied
        before `add` returns; one on an accelerator is copied there, without waiting, and fetched
        at the next flush.

        Args:
            values: the values by key.
            step: the step that the values belong to; it becomes the current step. Unlike `step()`
                it does not record the watched models' statistics.
            named: more values by key.
        """
        queue = self._queue
        if extra or step is not None:
            self._add_at(values, named, step, extra)
        else:
            queue.add(values, named)
        if queue.step <= self._look_to:
            self._look_to = self._checkpoints.look_at({*(values or ()), *named})

    def _add_at(self, values: Any, named: Mapping[str, object], step: object, extra: Any) -> None:
        if extra:
            key = values if isinstance(values, str) else "loss"
            raise InputError(f'add takes a mapping or keywords: write rec.add({{"{key}": value}})')
        queue, before = self._queue, self._queue.step
        queue.step = whole_step(step)
        try:
            queue.add(values, named)
        except BaseException:  # nothing was added
            queue.step = before
            raise

    def log(
        self,
        x: float | None = None,
        keys: str | Iterable[str] | None = None,
        reset: bool = True,
        **axis: float,
    ) -> None:
        """Record a mark: at replay, the meters are plotted at `x` and then reset.

        >>> rec.log(epoch=3)

        Args:
            x: the position on the plots' x axis; the current step by default.
            keys: only the meters of these keys; all by default.
            reset: whether the meters are reset afterwards.
            axis: `x` given as one keyword, whose name becomes the label of the x axis.
        """
        given, name = named_position(x, axis)
        queue = self._queue
        position = float(queue.step) if given is None else log_position(given, name or "x")
        keys, step, now = normalise_keys(keys), queue.step, queue.now()
        self.record(Log(position, keys, bool(reset), step, now, name))

    def reset(self, keys: str | Iterable[str] | None = None) -> None:
        """Record that the meters of `keys` (all by default) are reset without plotting."""
        self.record(Reset(normalise_keys(keys), self._queue.step, self._queue.now()))

    def record(self, event: Event) -> None:
        """Record an event as it is, with its own step and time."""
        step = whole_step(event.step)
        if isinstance(event, Add):
            self._queue.record(step, event.time, event.values)
            return
        code, x, reset, axis = fmt.RESET, 0.0, True, None
        if isinstance(event, Log):
            code, x, reset, axis = fmt.LOG, event.x, event.reset, event.axis
        keyset = fmt.Keyset(event.keys, axis)
        self._queue.mark(code, x, step=step, now=event.time, reset=reset, keyset=keyset)
        if event.keys is None and (isinstance(event, Reset) or event.reset):
            for tooled in self._watched:
                tooled.reset()  # starts a new window for gradient signal and noise

    def step(self, n: int | None = None) -> None:
        """End the current step: record the watched models' statistics and start step `n`.

        Args:
            n: the number of the next step; by default one more than the current step.
        """
        queue = self._queue
        if n is None and not (self._watched or self._trace) and queue.refusal is None:
            queue.step += 1  # the hot path
            return
        is_inert = queue.refused()
        following = queue.step + 1 if n is None else whole_step(n)
        for tooled in () if is_inert else self._watched:
            statistics = tooled.step()
            if statistics:
                self.add(statistics)
            described = tooled.new_description()
            if described is not None:
                self.describe(described)
        for traced in self._trace.end() if self._trace is not None else ():
            self.add(traced)
        queue.step = following

    def describe(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the description of models' layers, as `watch` does, and what numbers depend on.

        `models` are as `Recording.models` gives them. Layers of `activations` stay.
        """
        if self._queue.refused():
            return
        if self._has_facts:
            with suppress(RuntimeError, ModuleNotFoundError):  # a device fails; there is no torch
                from flexrec.recorder.layers.tracing.environment import environment

                self._facts["numerics"] = environment()
        with self._describing:  # a thread may evaluate a model
            self._set_models(with_watched(models_of(self._facts), models))

    def _set_models(self, models: Models) -> None:
        self._facts["models"] = models
        self._queue.change(fmt.FACTS, as_json("facts", self._facts))

    @property
    def current_step(self) -> int:
        """The step that values added now belong to."""
        return self._queue.step

    def state_dict(self) -> dict[str, Any]:
        """Flush and sync the recording, and return its position as plain data for a checkpoint.

        >>> torch.save({"model": model.state_dict(), "rec": rec.state_dict()}, path)

        Call it after `step()`. In a state taken in the middle of a step, `amid` lists the keys that
        the step already has; if they are added at that step again after loading the state, a
        warning is given. `logs` is the number of logs that were not superseded, `time` the current
        time in seconds since 1970. `events` is the number of events that are on disk. If some
        events cannot be written, a warning says so, `waiting` is their number, and
        `load_state_dict` reports how many never reached the file. The same holds, without the
        warning, in a signal handler that interrupts a write.

        Raises:
            RecordingError: the file could not be written or synced, and `on_error` is "raise".
        """
        if not self._queue.refused():
            return self._checkpoints.state()
        return dict(self._copied or self._checkpoints.state_now())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to the position of a checkpoint: events recorded since are superseded.

        >>> torch.save({"rec": rec.state_dict()}, path)
        >>> rec.load_state_dict(torch.load(path)["rec"])

        The state may be that of another recording, such as rank 0's when each rank has its own.
        Then the events up to the last log that the state counts are kept, and those from the next
        log on are superseded. Between the two logs, events at the state's step or later are
        superseded, except those of the step itself whose keys the state's step already had. If
        this recorder was resumed or went back after the state's `time`, the events from there on
        are superseded, and those before it count as they did then.

        Raises:
            InputError: `state` is not a result of `state_dict`.
            RecordingError: the file cannot be written, and `on_error` is "raise".
        """
        if self._queue.is_inert:
            return
        with HeldInterrupts():
            self._checkpoints.load(state)
        self._look_to = self._checkpoints.look_to

    # ------------------------------------------------------------------ models

    def watch(
        self,
        model: "Module",
        *,
        trace: bool = False,
        **options: "Unpack[ModelOptions]",
    ) -> "TooledModel":
        """Record statistics of a model's layers at every `step`.

        To watch several models, give each a `name`; it becomes the prefix of its layers' names.

        Args:
            model: the model to watch.
            trace: also record a fingerprint of everything that a step computes, in the order of
                computation, for `flexrec diff`; see docs/diff.md for what is traced and its cost.
            options: sources, stats, layers, every, scaler, name and optimizer, as in TooledModel.
                An optimizer is traced too. With `every`, only steps whose number is a multiple of
                it are traced.

        Raises:
            DefinitionError: as TooledModel; or a layer or optimizer of that name is already
                watched; or two models are traced with different values of `every`.
            MissingDependency: torch is not installed.
        """
        with _torch_for("watch"):
            from flexrec.recorder.layers.tooled_model import TooledModel

        tooled = TooledModel(model, **options)
        self._watched = [other for other in self._watched if not other.is_removed]
        taken = {name for other in self._watched for name in _names_in(other)}
        for name in _names_in(tooled):
            if name in taken:
                tooled.remove()
                what = "a layer" if name in tooled.layers else "an optimizer"
                raise DefinitionError(
                    f"{what} {name!r} is watched already; tell the models apart with "
                    'watch(model, name="…"), or call remove() on the result of the first watch'
                )
        self._watched.append(tooled)
        if trace:
            self._trace_model(model, options, list(tooled.optimizers))
        return tooled

    def _trace_model(
        self, model: "Module", options: "ModelOptions", optimizers: "Optimizers"
    ) -> None:
        from flexrec.recorder.layers.tracing.trace import Trace

        every = options.get("every", 1)
        if self._trace is None:
            self._trace = Trace(lambda: self._queue.step, every)
        elif self._trace.every != every:
            raise DefinitionError(
                "all traced models need the same every: "
                f"got every={every} after every={self._trace.every}"
            )
        self._trace.watch(model, options.get("name", ""), optimizers)

    def fingerprint(self, values: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Record fingerprints of values, such as a batch, without storing the values.

        >>> rec.fingerprint(batch=(x, y))

        The key is `name/fingerprint`. `flexrec diff` treats fingerprints recorded before the
        model's first pass as data, and a name that contains `loss` as the loss.

        Args:
            values: by name, tensors, numbers or strings, or tuples, lists and dicts of those.

        Raises:
            InputError: a tensor's elements are not in this process.
            MissingDependency: torch is not installed.
        """
        with _torch_for("fingerprint"):
            from flexrec.recorder.layers.tracing.trace import Trace

        given = {**(values or {}), **named}
        trace = self._trace or Trace(lambda: self._queue.step)
        self.add({f"{name}/fingerprint": each for name, each in trace.mark(given).items()})

    def activations(
        self,
        model: "Module",
        inputs: Any,
        classes: Any,
        *,
        layers: "Layers" = None,
        name: str = "",
    ) -> None:
        """Record the output of each layer for a probe batch, for the preset `infoplane`.

        >>> rec.activations(model, images, labels)

        The key is `layer/activations`, the value the pair (activations (samples, units), classes
        (samples,)). This runs one pass in evaluation mode, without gradients; the model is left
        unchanged.

        Args:
            model: the model; it need not be watched.
            inputs: the model's input: a tensor, a tuple of arguments, or a dict of keywords.
            classes: the samples' classes (samples,), a tensor, array or list.
            layers, name: the layers to record and the model's name, as in TooledModel. A layer
                whose output has another number of rows is left out.

        Raises:
            InputError: no layer's output has as many rows as there are classes.
        """
        from flexrec.recorder.layers.activations import activations, description

        if isinstance(classes, (list, tuple)):
            classes = np.asarray(classes)
        shape = tuple(getattr(classes, "shape", ()))
        found = activations(model, inputs, layers, name)
        fitting = {layer: of for layer, of in found.items() if shape == (len(of.rows),)}
        if not fitting:
            rows = ", ".join(sorted({str(len(of.rows)) for of in found.values()}))
            raise InputError(
                f"classes must be one number per sample; got shape {shape}, and the layers' "
                f"outputs have {rows} rows"
            )
        self.add({f"{layer}/activations": (of.rows, classes) for layer, of in fitting.items()})
        if self._queue.refused():
            return
        with self._describing:
            known = models_of(self._facts)
            every = with_unwatched(known, description(model, name, fitting))
            if every != known:
                self._set_models(every)

    # ------------------------------------------------------------------ to the file

    def flush(self, fsync: bool = False) -> None:
        """Write everything added so far to the file; with `fsync`, sync it to disk, or warn.

        Raises:
            RecordingError: it could not be written, and `on_error` is "raise".
        """
        if not self._queue.refused():
            self._flusher.flush(fsync=fsync)

    def close(self) -> None:
        """Write the remaining events, stop the thread, and rewrite the file compressed.

        Hooks are removed from watched models. If rewriting fails, the file stays as it is, whole
        and readable, and a warning says why. A second call does nothing, unless an interrupt
        ended the first one: then it continues from there.

        Raises:
            RecordingError: events are lost or may not be on disk, and `on_error` is "raise".
                Everything else is done first: the recorder is closed.
        """
        if self._queue.is_inert:
            return
        flusher, queue = self._flusher, self._queue
        if flusher.is_amid(self.close):
            return  # in a signal handler during a write: close runs when the write is done
        with HeldInterrupts():
            with self._closing:
                if flusher.has_ended and not flusher.is_rewriting:
                    flusher.release()  # an interrupt may have prevented it
                if flusher.has_ended:
                    return
                if not self._took_leave:  # else an interrupt ended an earlier call
                    self._take_leave()
                    self._took_leave = True
            flusher.end_companions()
            # Close the queue first, or other threads might add faster than it can be written.
            queue.close(f"{self.path} is closed")
            flusher.finish()

    def _take_leave(self) -> None:
        """Warn about what was not recorded, and remove the hooks."""
        for why in dict.fromkeys(tooled.silence for tooled in self._watched):
            if why:
                self._flusher.warn(f"{self.path}: statistics of a watched model are missing: {why}")
        unused = self._reducer.unused()
        if unused:
            self._flusher.warn(f"{self.path}: reduce= matched no recorded key: {listed(unused)}")
        for tooled in self._watched:
            tooled.remove()
        if self._trace is not None:
            self._trace.remove()

    # ------------------------------------------------------------------ copies and habits

    def __getstate__(self) -> dict[str, Any]:
        if not self._queue.is_inert:
            self._flusher.write()
        state = self._copied or self._checkpoints.state_now()
        config = None if self._config is None else self._config.as_dict()
        return {"path": os.fspath(self._path), "state": state, "config": config}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Set up a copy made by pickle or `copy.copy`; it records nothing."""
        self._path, self._copied = Path(state["path"]), state["state"]
        self._trace, self._took_leave = None, True
        self._reducer, self._watched, self._look_to = Reducer({}), [], NO_STEP
        self._queue = EventQueue(self._reducer, lambda _: None)
        self._queue.silence("this is a copy of a recorder")
        self._queue.step = state["state"]["step"]
        self._config = _config(state["config"], self._queue)

    if not TYPE_CHECKING:  # else type checkers allow setting any attribute

        def __setattr__(self, name: str, value: object) -> None:
            is_method = callable(getattr(Recorder, name, None))
            if name in _WRITE or (is_method and not callable(value)):
                write = _WRITE.get(name, f"rec.{name}({value!r:.40})")
                raise AttributeError(f"{name} cannot be set; write {write}", name=name, obj=self)
            super().__setattr__(name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except RecordingError as failure:
            if error is None:
                raise
            try:  # do not replace the exception that is being raised
                warn(str(failure))
            except RuntimeWarning:
                error.add_note(str(failure))
        except BaseException as interrupt:
            if not self._took_leave:  # it came before `close` could hold it back
                self.__exit__(type(interrupt), interrupt, interrupt.__traceback__)
            raise


_WRITE = {
    "config": "rec.config.update({name: value})",
    "current_step": "rec.step(n), or rec.add(…, step=n)",
    "path": "Recorder(path), for another file",
}
"""The call to make instead of setting an attribute, by the attribute's name."""

_ELSEWHERE = {
    **dict.fromkeys(
        ("add_image", "add_scalar", "add_scalars", "add_text"), "rec.add({tag: value}, step=n)"
    ),
    "add_histogram": "rec.add({tag: tensor}, step=n), or rec.watch(model) for layers",
    "end": "rec.close()",
    "finish": "rec.close()",
    "log_dict": "rec.add(values, step=n)",
    "log_hyperparams": "rec.config.update(values)",
    "log_metric": "rec.add({key: value}, step=n)",
    "log_metrics": "rec.add(values, step=n)",
    "log_param": "rec.config.update({name: value})",
    "log_params": "rec.config.update(values)",
    "save": "rec.flush(); what is added is in the file within a second",
    "stop": "rec.close()",
    "track": "rec.add({key: value}, step=n)",
}
"""The call to make instead of another tool's method, by the method's name."""


class _Elsewhere:
    """A method that only other tools have; reading it raises AttributeError.

    A `__getattr__` would slow down every attribute.
    """

    def __init__(self, name: str, write: str) -> None:
        self._name, self._message = name, f"a Recorder has no {name}; write {write}"

    def __get__(self, recorder: Recorder | None, _: type[Recorder]) -> NoReturn:
        raise AttributeError(self._message, name=self._name, obj=recorder)


for _name, _write in _ELSEWHERE.items():
    setattr(Recorder, _name, _Elsewhere(_name, _write))


@contextmanager
def _torch_for(method: str) -> Iterator[None]:
    """Context manager of an import: raise MissingDependency if torch is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependency.of(method, "torch") from error


def _config(data: Any, queue: EventQueue) -> Config | None:
    """The Config of `data`; None if `data` is not a mapping."""
    data = {} if data is None else data
    return Config(data, partial(queue.change, fmt.CONFIG)) if isinstance(data, dict) else None


def _names_in(tooled: "TooledModel") -> tuple[str, ...]:
    """The names with which the keys of a watched model begin."""
    return (*tooled.layers, *tooled.optimizers.values())


def _locked(path: Path, target: Path) -> PathLock:
    lifetime.let_go(target)
    try:
        return PathLock(target)
    except OSError as error:
        raise OutputError(f"cannot create {path}: {why_not(target, error)}") from error


def _opened(
    path: Path,
    target: Path,
    mode: str,
    config: Any,
    facts: Any,
    at_step: int | None,
    created: float | None,
) -> Opened:
    try:
        clear_litter(target)
        is_empty = target.is_file() and not target.stat().st_size
        if mode == "resume" and target.exists() and not is_empty:
            return open_resumed(target, config=config, facts=facts, at_step=at_step)
        overwrite = mode == "w" or (mode == "resume" and is_empty)
        check_target(path, RECORDING, overwrite=overwrite)
        return open_new(
            target,
            config=config,
            facts=facts,
            at_step=at_step,
            created=created,
            overwrite=overwrite,
        )
    except ExistsError:
        is_empty = not target.stat().st_size
        state, going_on = (", empty", "") if is_empty else ("", 'mode="resume" to go on, ')
        hint = f'pass mode="w" to overwrite it, {going_on}or choose another path'
        raise ExistsError(f"{path} exists already{state}", hint=hint) from None
    except OutputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if mode == "resume":
            raise RecordingError(f"cannot resume {path}: {briefly(error)}") from error
        raise OutputError(f"cannot create {path}: {briefly(error)}") from error
