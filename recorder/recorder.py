"""Recorder: what training code calls. It has a queue of events and a flusher, which writes them.

It knows nothing of datasets (writing/live_file.py, storage/format.py) and nothing of meters and
plots.
"""

import atexit
import operator
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex, Unpack

import numpy as np

from flexrec.recorder.errors import (
    DefinitionError,
    InputError,
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
    named_position,
    normalise,
    normalise_keys,
)
from flexrec.recorder.files.atomic_write import ExistsError, check_name, check_target, clear_litter
from flexrec.recorder.files.lock import PathLock, why_not
from flexrec.recorder.reduction.reducer import Reducer, Rules
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.open_store import RECORDING
from flexrec.recorder.writing.create import Opened, Search, open_new, open_resumed
from flexrec.recorder.writing.event_queue import EventQueue
from flexrec.recorder.writing.facts import gather_facts, rank
from flexrec.recorder.writing.flusher import FAILURES, Flusher, briefly

if TYPE_CHECKING:
    from flexrec.recorder.layers.tooled_model import Layers, ModelOptions, Module, TooledModel


_NO_STEP = fmt.STEPS[0] - 1


class Recorder:
    """Append metrics, marks and layer statistics to an HDF5 file while training goes on.

    >>> with Recorder("run.h5", config={"lr": 1e-3}) as rec:  # doctest: +SKIP
    ...     for epoch in range(5):
    ...         for x, y in loader:
    ...             rec.add({"train_loss": loss, "train_mse": (output, target)})
    ...             rec.step()
    ...         rec.log(epoch)

    What is added reaches the file within `flush_seconds`, by a thread of its own; a kill loses
    nothing older. `close` rewrites the file compressed. Threads may add at the same time; the
    copy in a forked child records nothing.

    Args:
        path: the file to make; `{rank}` in it becomes the process's rank (torchrun, SLURM, MPI).
        mode: "x" refuses an existing file, "w" overwrites a recording, "resume" goes on with one
            after a kill or a close, or makes it where there is none, or an empty file.
        at_step: where to resume, the last step that holds: what was recorded after it stays in
            the file and is not replayed. None goes on after all that was recorded.
        next_step: the same, said by the first number that training will record again:
            `next_step=5` is `at_step=4`. Loops that number from 0 and store the next iteration, as
            nanoGPT's, give `next_step`; those that record under the number of the step
            just done, as a Trainer's callback does under `global_step`, give `at_step`. What is
            recorded after `step()`, such as an evaluation, belongs to the next step: record it
            before, or resume by `load_state_dict`.
        config: plain JSON data to keep with the recording; paths become texts. Where it resumes,
            it replaces the one that is there.
        facts: keep host, versions, argv, job, rank and git commit too.
        flush_seconds: how long an added value may stay in memory.
        fsync_seconds: how often the file is made to survive a loss of power.
        on_error: when the file cannot be written, "warn" warns once, goes on buffering up to
            `buffer_bytes` and retries; "raise" raises from the next call, and from `close`.
        buffer_bytes: what is buffered at most; beyond it events are dropped, and counted, while
            the file cannot be written, and `add` waits while it can.
        reduce: keys, or patterns of keys, whose tensors are not to be kept, and the meter that
            they are for: a name, or a name and the constructor's arguments, such as
            `{"train_mse": "MSEMeter", "*_confusion": ("ConfusionMeter", {"k": 10})}`; or
            definitions, `preset("MSE")` or `load_toml("plots.toml")`, of whose meters it is those
            that keep a small state. What the meter remembers of each add is recorded in
            place of the tensors: replaying through that meter gives the same, to the bit, and no
            other meter can be asked. A tensor on an accelerator is waited for.

    Raises:
        DefinitionError: `reduce` names a meter that keeps no small state, or wrong arguments.
        RecordingError: the file exists (mode "x"), is no recording (every mode), cannot be made
            or resumed, or another recorder is writing it.
        InputError: a value cannot be recorded; nothing of that call is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["x", "w", "resume"] = "x",
        at_step: int | None = None,
        next_step: int | None = None,
        config: Any = None,
        facts: bool = True,
        flush_seconds: float = 1.0,
        fsync_seconds: float = 30.0,
        on_error: Literal["warn", "raise"] = "warn",
        buffer_bytes: int = 256 << 20,
        reduce: Rules | None = None,
    ) -> None:
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
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
        at_step = None if at_step is None else _whole(at_step)
        at_step = at_step if next_step is None else _whole(next_step) - 1
        for name, number in (
            ("flush_seconds", flush_seconds),
            ("fsync_seconds", fsync_seconds),
            ("buffer_bytes", buffer_bytes),
        ):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not number > 0:
                raise ValueError(f"{name} must be a number above 0, got {number!r}")
        reducer = Reducer({} if reduce is None else reduce)
        name = os.fspath(path).replace("{rank}", str(rank()))
        check_name(name)
        self.path = Path(name)
        # Where it is does not change when the program changes its folder.
        target = Path(os.path.realpath(self.path))
        lock = _locked(self.path, target)
        try:
            gathered = gather_facts() if facts else None
            opened = _opened(self.path, target, mode, config, gathered, at_step)
        except BaseException:
            lock.release()
            raise
        self._raises = on_error == "raise"
        self._flusher = Flusher(
            self.path,
            target,
            lock,
            opened,
            flush_seconds=flush_seconds,
            fsync_seconds=fsync_seconds,
            on_error=on_error,
            buffer_bytes=buffer_bytes,
        )
        self._queue = EventQueue(reducer, self._flusher.wake)
        self._reducer = reducer
        self._watched: list[TooledModel] = []
        self._closing = threading.RLock()
        self._took_leave = False
        self._found = opened.file.event_count  # events that were there at first
        self._resumed = 0  # marks of resumes since
        # The last step that earlier runs recorded and that holds; none has it where that is not
        # known, or where steps that come again were warned of.
        self._held_to = _NO_STEP
        # The step amid which the state that was loaded was taken, and the keys that it had.
        self._amid: tuple[int, frozenset[str]] = _NO_STEP, frozenset()
        self._queue.step = opened.step
        if opened.resumption is not None:
            self._go_on(opened.resumption.first, opened.resumption.step)
            if opened.resumption.held is not None:
                self._held_to = opened.resumption.held
        self._look_to = self._held_to  # up to which step adds are looked at for that
        _recorders.add(self)
        atexit.register(self.close)
        self._flusher.start(self._queue)

    # ------------------------------------------------------------------ recording

    def add(self, values: Mapping[str, object] | None = None, /, **named: object) -> None:
        """Record values under their keys, at the current step and time.

        >>> rec.add({"train_loss": 0.5}, lr=1e-3)  # doctest: +SKIP

        A value is what a meter's `add` takes: a number or 0-d tensor, an array or tensor, a
        string, or a tuple or list of those. None means "nothing to add". A tensor's value is
        taken now; on an accelerator it is copied there, without waiting, and fetched at the
        next flush.
        """
        self._queue.add(values, named)
        if self._queue.step <= self._look_to:
            self._look_at({*(values or ()), *named})

    def log(
        self,
        x: float | None = None,
        keys: str | Iterable[str] | None = None,
        reset: bool = True,
        **axis: float,
    ) -> None:
        """Record a mark: at replay, plot the meters here, at `x`, and reset them.

            >>> rec.log(epoch=3)  # doctest: +SKIP

        Args:
            x: the position on the plots' x axis; the current step by default.
            keys: only these meters; all by default.
            reset: whether the meters start anew after it.
            axis: `x` under a name of its own, which the plots' axis is labelled with.
        """
        x, name = named_position(x, axis)
        step = self._queue.step
        position = float(step) if x is None else x
        self.record(Log(position, normalise_keys(keys), bool(reset), step, time(), name))

    def reset(self, keys: str | Iterable[str] | None = None) -> None:
        """Record that the meters of `keys` (all by default) start anew, without plotting."""
        self.record(Reset(normalise_keys(keys), self._queue.step, time()))

    def record(self, event: Event) -> None:
        """Record an event as it is, with its own step and time."""
        step = _whole(event.step)
        if isinstance(event, Add):
            self._queue.add_at(step, event.time, event.values)
            return
        code, x, reset, axis = fmt.RESET, 0.0, True, None
        if isinstance(event, Log):
            code, x, reset, axis = fmt.LOG, event.x, event.reset, event.axis
        keyset = fmt.Keyset(event.keys, axis)
        self._queue.mark(code, x, step=step, now=event.time, reset=reset, keyset=keyset)
        if event.keys is None and (isinstance(event, Reset) or event.reset):
            for tooled in self._watched:
                tooled.reset()  # the window over which gradients' signal and noise are taken

    def step(self, n: int | None = None) -> None:
        """End the current step: record the watched models' statistics, go on to step `n`.

        Args:
            n: the number of the next step; one more than the current by default.
        """
        queue = self._queue
        if n is None and not self._watched and queue.refusal is None:
            queue.step += 1  # the hot path
            return
        queue.refused()
        following = queue.step + 1 if n is None else _whole(n)
        for tooled in self._watched:
            statistics = tooled.step()
            if statistics:
                self.add(statistics)
        queue.step = following

    @property
    def current_step(self) -> int:
        """The step that what is added now belongs to."""
        return self._queue.step

    def state_dict(self) -> dict[str, Any]:
        """Where the recording is, as plain data for a checkpoint; flushed and synced first.

        >>> torch.save({"model": model.state_dict(), "rec": rec.state_dict()}, path)
        ... # doctest: +SKIP

        Take it after `step()`: of a state from amid a step, `amid` names the keys that the step has
        already, and a warning comes where they are added there again after it was loaded. `logs`
        counts the logs that hold. Its `events` are in the file and on the disk. Where some cannot
        be brought there, a warning says so, `waiting` counts them, and `load_state_dict` says how
        many never came. So it is, without a warning, in a signal's handler that comes amid a write.

        Raises:
            RecordingError: it could not be written or synced, and `on_error` is "raise".
        """
        flusher, queue = self._flusher, self._queue
        is_done = not queue.refused() and flusher.write(fsync=True)
        waiting = 0 if is_done else max(flusher.count() - flusher.safe, 0)
        if waiting and flusher.failure and queue.refusal is None:
            flusher.warn(
                f"{self.path}: a checkpoint's state was asked for, and {counted(waiting, 'event')} "
                f"before it could not be brought to the disk: {flusher.failure}"
            )
        flusher.speak()
        queue.refused()
        events = flusher.safe
        return {
            "step": queue.step,
            "events": events,
            "waiting": waiting,
            "created": flusher.created,
            "logs": len(flusher.logs(events + waiting)),
            "amid": sorted(self._keys_here()),
        }

    def _keys_here(self) -> frozenset[str]:
        """What was added at the current step already."""
        step, latest, (loaded, keys) = self._queue.step, self._flusher.latest(), self._amid
        found = latest.keys if latest.step == step else frozenset[str]()
        return found | keys if loaded == step else found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where a checkpoint was made: what was recorded since is superseded.

        >>> rec = Recorder("run.h5", mode="resume")  # doctest: +SKIP
        >>> rec.load_state_dict(torch.load(path)["rec"])  # doctest: +SKIP

        With the state of another recording, as that of rank 0 where each rank has its own, what
        comes before the last log that the state counts holds, what comes from the next log on is
        superseded, and in between what was recorded at the state's step or after it; of that step
        itself, what has keys that the state's had already holds.

        Raises:
            InputError: it is not what `state_dict` gives.
            RecordingError: the file cannot be written, and `on_error` is "raise".
        """
        try:
            step, created = _whole(state["step"]), float(state["created"])
            events, waiting = operator.index(state["events"]), state.get("waiting", 0)
            events += operator.index(waiting)
            logs = None if state.get("logs") is None else operator.index(state["logs"])
            amid = frozenset(map(str, state.get("amid", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not the state of a recorder: {error!r}") from None
        if self._queue.refused():
            return
        self.flush()
        if created == self._flusher.created and events >= 0:
            self._go_on(self._up_to(events), step)
        else:
            first = self._first_from(step, logs, amid)
            # Where nothing is superseded there is no mark: it would hide what is added meanwhile.
            if first is not None:
                self._go_on(first, step)
            self._queue.step = step
        self._held_to = min(self._held_to, step - 1)
        self._amid = step, amid
        self._look_to = step if amid else self._held_to
        self.flush()

    def _go_on(self, first: int, step: int) -> None:
        """Take back the events from position `first` on; go on at the step."""
        self._queue.mark(fmt.RESUME, float(first), step=step, now=time())
        self._queue.step = step
        self._resumed += 1

    def _up_to(self, events: int) -> int:
        """The position after so many events, or, where there are fewer, after those."""
        count = self._flusher.count()
        # The marks of this run's resumes are none of an earlier run's events.
        held = self._found if count == self._found + self._resumed else count
        if events > held:
            self._flusher.warn(
                f"{self.path} has {counted(held, 'event')}, and the checkpoint was made after "
                f"{events:,}: the last {events - held:,} before it are missing, for they never "
                "reached the file"
            )
        return min(events, held)

    def _first_from(self, step: int, logs: int | None, amid: frozenset[str]) -> int | None:
        """The position of the first event that another recording's state supersedes, if any."""
        held = self._flusher.logs()
        search = Search(step if amid else step - 1, amid=amid)
        if logs is not None:
            search.begin = held[min(logs, len(held)) - 1] + 1 if logs > 0 and held else 0
            search.end = held[logs] if 0 <= logs < len(held) else None
        try:
            count = self._flusher.seen(search)
        except FAILURES as error:
            message = f"cannot read what was recorded at step {step} or after it: {briefly(error)}"
            if self._raises:
                raise RecordingError(f"{self.path}: {message}") from None
            self._flusher.warn(f"{self.path}: {message}; it is not superseded")
            return None
        found = search.found(count)
        missing = found.gap
        if not missing and logs is not None and 0 < len(held) < logs:
            missing = (
                f"it has {counted(len(held), 'log')}, and the checkpoint was made after {logs:,}"
            )
        if missing:
            self._flusher.warn(
                f"{self.path}: {missing}; at a checkpoint every rank calls flush(), before it is "
                "saved"
            )
        if found.mix:
            self._flusher.warn(f"{self.path}: {found.mix}")
        return found.first if found.first < count else None

    def _look_at(self, keys: set[str]) -> None:
        """Warn once of what was added at a step that is recorded already."""
        step, (loaded, known) = self._queue.step, self._amid
        if step <= self._held_to:
            self._warn_of_repeats()
        elif step == loaded and not known.isdisjoint(keys):
            self._look_to = self._held_to
            self._flusher.warn(
                f"{self.path}: the checkpoint was made amid step {step}, and what was added there "
                "already is added again: where training does that step anew, it is there twice, "
                "and later ones have too high a number; take state_dict() after step()"
            )
            self._flusher.speak()

    def _warn_of_repeats(self) -> None:
        held, self._held_to, self._look_to = self._held_to, _NO_STEP, _NO_STEP
        step = self._queue.step
        self._flusher.warn(
            f"{self.path}: step {step} is recorded already, as are those up to {held}: from now on "
            "it is there twice; where training goes on with it again, say so with "
            f'mode="resume", next_step={step}, or with load_state_dict'
        )
        self._flusher.speak()

    def watch(self, model: "Module", **options: "Unpack[ModelOptions]") -> "TooledModel":
        """Record statistics of a model's layers at every `step`.

        Where several are watched, each has a `name`, with which its layers' names begin.

        Args:
            model: the model to watch.
            options: sources, stats, layers, every, scaler and name, as in TooledModel.

        Raises:
            DefinitionError: as TooledModel, or a layer of that name is watched already.
        """
        from flexrec.recorder.layers.tooled_model import TooledModel

        tooled = TooledModel(model, **options)
        self._watched = [other for other in self._watched if not other.is_removed]
        taken = {layer for other in self._watched for layer in other.layers}
        for layer in tooled.layers:
            if layer in taken:
                tooled.remove()
                raise DefinitionError(
                    f"a layer {layer!r} is watched already; tell the models apart with "
                    'watch(model, name="…"), or remove() what the first watch gave'
                )
        self._watched.append(tooled)
        return tooled

    def activations(
        self,
        model: "Module",
        inputs: Any,
        classes: Any,
        *,
        layers: "Layers" = None,
        name: str = "",
    ) -> None:
        """Record what each layer gives for a probe batch, for the preset `infoplane`.

        >>> rec.activations(model, images, labels)  # doctest: +SKIP

        The key is `layer/activations`, the value the pair (activations (samples, units), classes
        (samples,)). One pass in evaluation mode, without gradients; the model stays as it was.

        Args:
            model: the model; it need not be watched.
            inputs: what it is called with: a tensor, a tuple of arguments, or a dict of keywords.
            classes: the samples' classes (samples,), a tensor, array or list.
            layers, name: which layers, and of which model, as in TooledModel. One that gives
                another number of rows is left out.

        Raises:
            InputError: no layer gives as many rows as there are classes.
        """
        from flexrec.recorder.layers.activations import activations

        if isinstance(classes, (list, tuple)):
            classes = np.asarray(classes)
        shape = tuple(getattr(classes, "shape", ()))
        found = activations(model, inputs, layers, name)
        fitting = {layer: rows for layer, rows in found.items() if shape == (len(rows),)}
        if not fitting:
            rows = ", ".join(sorted({str(len(rows)) for rows in found.values()}))
            raise InputError(
                f"classes must be a number for each sample; their shape is {shape}, and layers "
                f"give {rows} rows"
            )
        self.add({f"{layer}/activations": (rows, classes) for layer, rows in fitting.items()})

    # ------------------------------------------------------------------ to the file

    def flush(self, fsync: bool = False) -> None:
        """Write everything that was added so far; with `fsync`, onto the disk itself, or warn.

        Raises:
            RecordingError: it could not be written, and `on_error` is "raise".
        """
        flusher, queue = self._flusher, self._queue
        if queue.refused():
            return
        has_told = flusher.has_told
        is_done = flusher.write(fsync=fsync)
        if fsync and not is_done and has_told:
            left = counted(flusher.count() - flusher.safe, "event")
            flusher.warn(f"{self.path}: {left} could not be brought to the disk: {flusher.failure}")
        flusher.speak()
        queue.refused()

    def close(self) -> None:
        """Write what is left, stop the thread, and rewrite the file compressed.

        A second call goes on where an interrupt ended the first; else it does nothing. Watched
        models lose their hooks. Where the rewriting fails, the file stays as it is, whole and
        readable, and a warning says why.

        Raises:
            RecordingError: something is lost, or not surely on the disk, and `on_error` is
                "raise". All else is done first: the recorder is closed.
        """
        flusher, queue = self._flusher, self._queue
        if flusher.is_amid(self.close):
            return  # in a signal's handler: when what is being written is
        with self._closing:
            if flusher.has_ended and not flusher.is_rewriting:
                flusher.release()  # an interrupt may have come before that
            if flusher.has_ended or queue.is_inert:
                return
            if not self._took_leave:  # else an interrupt came amid an earlier call
                self._take_leave()
                self._took_leave = True
        # First of all, so that no thread goes on adding more than is written meanwhile.
        queue.close(f"{self.path} is closed")
        try:
            flusher.finish()
        except RecordingError:
            atexit.unregister(self.close)
            raise
        atexit.unregister(self.close)

    def _take_leave(self) -> None:
        """Speak of what came to nothing, and take the hooks off."""
        for why in dict.fromkeys(tooled.silence for tooled in self._watched):
            if why:
                self._flusher.warn(f"{self.path}: a watched model told less than it could: {why}")
        unused = self._reducer.unused()
        if unused:
            self._flusher.warn(
                f"{self.path}: nothing came under what reduce= names: {listed(unused)}"
            )
        for tooled in self._watched:
            tooled.remove()

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
            try:  # the exception that is under way counts for more
                warn(str(failure))
            except RuntimeWarning:
                error.add_note(str(failure))


def _whole(step: object) -> int:
    if isinstance(step, SupportsIndex) and not isinstance(step, bool):
        whole = operator.index(step)
        if whole in fmt.STEPS:
            return whole
    raise InputError(f"a step is a whole number of 64 bits, got {step!r:.40}")


def _number(name: str, value: object) -> float:
    number = normalise(name, value)
    if not isinstance(number, float):
        raise InputError(f"{name} must be a number, got {type(value).__name__}")
    return number


def _locked(path: Path, target: Path) -> PathLock:
    try:
        return PathLock(target)
    except OSError as error:
        raise RecordingError(f"cannot make {path}: {why_not(target, error)}") from None


def _opened(
    path: Path, target: Path, mode: str, config: Any, facts: Any, at_step: int | None
) -> Opened:
    try:
        clear_litter(target)
        is_empty = target.is_file() and not target.stat().st_size
        if mode == "resume" and target.exists() and not is_empty:
            return open_resumed(target, config=config, facts=facts, at_step=at_step)
        overwrite = mode == "w" or (mode == "resume" and is_empty)
        check_target(path, RECORDING, overwrite=overwrite)
        return open_new(target, config=config, facts=facts, at_step=at_step, overwrite=overwrite)
    except ExistsError:
        is_empty = not target.stat().st_size
        state, going_on = (", empty", "") if is_empty else ("", 'mode="resume" to go on, ')
        hint = f'pass mode="w" to overwrite it, {going_on}or choose another path'
        raise RecordingError(f"{path} exists already{state}; {hint}") from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        doing = "resume" if mode == "resume" else "make"
        raise RecordingError(f"cannot {doing} {path}: {briefly(error)}") from None


_recorders: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def _silence_in_child() -> None:
    """In a forked child: record nothing, and let nothing of HDF5 reach the parent's file."""
    for recorder in list(_recorders):
        recorder._queue.is_inert = True
        recorder._queue.refusal = "this is the copy in a forked child"
        recorder._closing = threading.RLock()
        recorder._flusher.forget()


os.register_at_fork(after_in_child=_silence_in_child)
