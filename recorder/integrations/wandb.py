"""The calls of wandb that most scripts make: init, log, config, finish. wandb is not needed.

from flexrec.recorder.integrations import wandb
"""

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from flexrec.recorder.errors import InputError, warn
from flexrec.recorder.events import Array, State, array_of, is_tensor
from flexrec.recorder.files.names import file_name
from flexrec.recorder.files.remote import check_path
from flexrec.recorder.integrations.hooked_recorder import (
    Adapter,
    HookedRecorder,
    flattened,
    mapping_of,
)
from flexrec.recorder.reduction.reductions import Bins

_BINS = Bins()
run: "Run | None" = None


class Config(MutableMapping[str, Any]):
    """A run's config, whose settings are attributes too: `wandb.config.lr`."""

    def __init__(self, hooked: HookedRecorder) -> None:
        self.__dict__["_hooked"] = hooked

    def update(self, values: Any = (), /, allow_val_change: Any = None, **named: Any) -> None:
        """Set several settings: a mapping, or a Namespace."""
        if isinstance(values, Mapping):
            given: Mapping[Any, Any] = values
        elif hasattr(values, "__dict__"):
            given = vars(values)
        else:
            given = _pairs(values)
        self._hooked.configure({**given, **named})

    def __setitem__(self, name: str, value: Any) -> None:
        self._hooked.configure({name: value})

    def __getitem__(self, name: str) -> Any:
        return self._hooked.recorder.config[name]

    def __delitem__(self, name: str) -> None:
        del self._hooked.recorder.config[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hooked.recorder.config)

    def __len__(self) -> int:
        return len(self._hooked.recorder.config)

    def __reduce__(self) -> tuple[Any, ...]:
        return Config, (self._hooked,)  # a bare one would look for `_hooked` in its settings

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"config has no {name}", name=name, obj=self) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Run(Adapter):
    """What `init` returns.

    Attributes:
        config: the settings.
        summary: a dict; `finish` records it under keys such as `summary/best`.
        name, id, project: as given to `init`, or the name of the recording.
        resumed: whether the recording of an earlier run continues.
    """

    def __init__(self, path: str, name: str, project: str | None, is_resumed: bool) -> None:
        self._hooked = HookedRecorder(path)
        if is_resumed:
            self._hooked.resume()
        self.name, self.id, self.project = name, name, project
        self.resumed = is_resumed
        self._last: int | None = None  # the last step whose layers are recorded
        self.config, self.summary = Config(self._hooked), dict[str, Any]()

    @property
    def dir(self) -> str:
        """The recording's folder, for files of your own."""
        return str(self.recorder.path.parent)

    @property
    def step(self) -> int:
        """The step that is logged next."""
        return self.recorder.current_step

    def log(
        self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        """Record values, at `step` or at the current one, which then ends unless `commit=False`.

        A `step` that is given does not end, as more may be logged at it; the first log at it
        records the layers' statistics.
        """
        values = flattened(mapping_of("log", data))
        kept = {key: value for key, value in values.items() if not isinstance(value, _LeftOut)}
        self._hooked.add(kept, step)
        if commit is False:
            return
        at, ends = self.step if step is None else step, bool(commit) or step is None
        has_layers, self._last = at == self._last, at
        if not has_layers:
            self._hooked.end_step(at)
        if ends or not has_layers:
            self._hooked.begin_step(at + ends)

    def watch(self, models: Any, *_: Any, log_freq: int = 1000, **__: Any) -> None:
        """Record statistics of the model's layers, once in `log_freq` logs."""
        self._hooked.watch(models, {"every": log_freq})

    def finish(self, exit_code: int | None = None) -> None:
        """Record the summary, and close the recording."""
        global run
        if self.summary:
            self._hooked.add({"summary": self.summary})
        self._hooked.close()
        run = None if run is self else run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def __getattr__(self, name: str) -> "_LeftOut":
        if name.startswith("_"):
            raise AttributeError(name)
        return _LeftOut(name)


def init(
    project: str | None = None,
    config: Any = None,
    *,
    dir: str | None = None,  # noqa: A002 - wandb's name
    id: str | None = None,  # noqa: A002
    name: str | None = None,
    resume: Any = None,
    **others: Any,
) -> Run:
    """Begin a run: the recording `runs/project/name.h5`.

    Args:
        project, name, id: the names of its folder and its file; a name that is taken is numbered.
            What a file's name cannot have, such as slashes, becomes `_`; long ones are shortened.
        config: the settings.
        dir: the folder, in place of `runs`.
        resume: continue the recording that `id` or `name` names, if it is there.
        others: what else wandb takes; not needed.

    Raises:
        OutputError: dir is a URL.
    """
    global run
    if run is not None:
        run.finish()
    check_path(dir or "")
    folder = Path(dir or "runs") / (file_name(project) if project else "")
    wanted = file_name(id or name or "run")
    path, number = folder / f"{wanted}.h5", 1
    while not resume and path.exists():
        number += 1
        path = folder / f"{wanted}_{number}.h5"
    run = Run(f"{path}", name or path.stem, project, bool(resume) and path.exists())
    if config is not None:
        run.config.update(config)
    return run


def _pairs(values: Any) -> dict[Any, Any]:
    try:
        return dict(values)
    except (TypeError, ValueError):
        return dict(mapping_of("config", values))


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
    """Record values in the current run, as `Run.log` does."""
    _current().log(data, step, commit)


def watch(models: Any, *_: Any, log_freq: int = 1000, **__: Any) -> None:
    """Record statistics of the model's layers in the current run, as `Run.watch` does."""
    _current().watch(models, log_freq=log_freq)


def finish(exit_code: int | None = None) -> None:
    """Close the current run, if there is one."""
    if run is not None:
        run.finish()


def Image(data: Any, *_: Any, **__: Any) -> Array:  # noqa: N802 - wandb's name
    """A picture (H, W), (H, W, C) or (C, H, W): an array, a tensor, or PIL's."""
    return array_of("Image", data) if is_tensor(data) else np.asarray(data)


def Histogram(sequence: Any = (), *_: Any, **__: Any) -> State:  # noqa: N802 - wandb's name
    """The distribution of numbers, for HistogramMeter; it has 64 bins."""
    return State(_BINS.state_of(Image(sequence)), _BINS)


def _current() -> Run:
    if run is None:
        raise InputError("there is no run: call init() first")
    return run


_said = set[str]()


class _LeftOut:
    """What flexrec cannot record: its calls and attributes are left out too, and it is false."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: Any, **__: Any) -> Self:
        if self._name not in _said:
            _said.add(self._name)
            warn(f"{self._name}: flexrec cannot record this; it is left out")
        return self

    def __getattr__(self, name: str) -> Self:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _: Any) -> Self:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def __getattr__(name: str) -> Any:
    if name in ("config", "summary"):
        return getattr(_current(), name)
    if name.startswith("_"):
        raise AttributeError(name)
    return _LeftOut(name)
