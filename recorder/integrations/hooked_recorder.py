"""HookedRecorder and Adapter: a recorder driven by a framework's hooks; all that adapters share.

Nothing in here knows a framework.
"""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from flexrec.recorder.errors import ExistsError, InputError, RecordingError, warn
from flexrec.recorder.events import Add
from flexrec.recorder.recorder import Recorder
from flexrec.recorder.writing.config import as_json

if TYPE_CHECKING:
    from flexrec.recorder.layers.parameters.optimizers import Optimizers
    from flexrec.recorder.layers.tooled_model import ModelOptions, Module, TooledModel

Target: TypeAlias = Recorder | str | os.PathLike[str]
"""Where to record: an open recorder, or the path of a file or folder."""

Watch: TypeAlias = "ModelOptions | bool"
"""Whether to watch the model's layers; a mapping is the arguments of `Recorder.watch`."""

_IN_PLACE = (
    'in place of the path, give Recorder(path, mode="w") to overwrite it, mode="resume" to go on, '
    "or another path"
)


class HookedRecorder:
    """A recorder driven by a framework's hooks, and opened at its first use.

    >>> hooked = HookedRecorder("new.h5")
    >>> hooked.watch(model, {"every": 10})
    >>> hooked.begin_step(1)
    >>> hooked.end_step(1)
    >>> hooked.add({"loss": 0.5}, step=1)

    By the first use a framework has set up its processes. If there are several, each records its
    own file: `run-0.h5`, `run-1.h5` and so on in place of `run.h5`.

    Args:
        target: an open recorder, or the path of one to open: mode "x", or "resume" after `resume`.
    """

    def __init__(self, target: Target) -> None:
        self._recorder = target if isinstance(target, Recorder) else None
        self._path = "" if isinstance(target, Recorder) else os.fspath(target)
        self._mode: Literal["x", "resume"] = "x"
        self._next_step: int | None = None
        self._state: Mapping[str, Any] | None = None
        self._settings = dict[str, Any]()  # until it is opened
        self._tooled: TooledModel | None = None
        self._said = set[str]()

    @property
    def recorder(self) -> Recorder:
        """The recorder; it is opened now if it is not yet."""
        if self._recorder is None:
            path = path_of_rank(self._path)
            self._recorder = self._opened(path)
            self.configure({})
            if self._state:
                self._recorder.load_state_dict(self._state)
        return self._recorder

    def _opened(self, path: str) -> Recorder:
        try:
            return Recorder(path, mode=self._mode, next_step=self._next_step)
        except ExistsError as error:
            raise ExistsError(error.message, hint=_IN_PLACE) from None

    @property
    def is_open(self) -> bool:
        """Whether the recorder is open, as it is from its first use on."""
        return self._recorder is not None

    def resume(self, next_step: int | None = None, state: Mapping[str, Any] | None = None) -> None:
        """Continue the recording of an earlier run; call it before anything is recorded.

        Args:
            next_step: the first step that training will do again: what was recorded at it or later
                is superseded. None supersedes nothing.
            state: in its place, the `state_dict` of a recorder, also that of another rank.
        """
        if self._recorder is None:
            self._mode, self._next_step, self._state = "resume", next_step, state
        elif state:
            self._recorder.load_state_dict(state)
        elif next_step is not None and self._recorder.current_step > next_step:
            self._recorder.load_state_dict({"step": next_step, "events": 0, "created": 0.0})

    def begin(
        self,
        done: int,
        model: "Module | None" = None,
        watch: Watch = False,
        optimizer: "Optimizers" = None,
    ) -> None:
        """Begin training, after `done` steps: continue the recording if there were any, and watch.

        For frameworks that count the steps done, from 1.
        """
        if done:
            self.resume(done + 1)
        if model is not None:
            self.watch(model, watch, optimizer)

    def configure(self, values: Mapping[Any, Any]) -> None:
        """Store settings in the recording's config, once it is open.

        What JSON lacks is stored as its repr.
        """
        self._settings |= {f"{name}": _plain(f"{name}", value) for name, value in values.items()}
        if self._recorder is not None and self._settings:
            self._recorder.config.update(self._settings)
            self._settings = {}

    def add(
        self, values: Mapping[str, Any], step: int | None = None, time: float | None = None
    ) -> None:
        """Record a framework's values, by default at the current step and time.

        A dict in `values` becomes keys such as `outer/inner`. What cannot be recorded is left out,
        and a warning says so once. Values of the step that has just ended do not begin it again.
        """
        flat, now = flattened(values), self.recorder.current_step
        try:
            self._add(flat, step, time)
        except InputError:
            for key, value in flat.items():
                try:
                    self._add({key: value}, step, time)
                except InputError as error:
                    self.warn_once(key, f"{error.message}; it is left out")
        if step == now - 1:
            self.begin_step(now)

    def _add(self, values: dict[str, Any], step: int | None, time: float | None) -> None:
        recorder = self.recorder
        if time is None:
            recorder.add(values, step=step)
        else:
            recorder.add({}, step=step)
            recorder.record(Add(values, recorder.current_step, time))

    def watch(self, model: "Module", watch: Watch, optimizer: "Optimizers" = None) -> None:
        """Record statistics of the model's layers at each step, unless `watch` is False.

        The model that was watched before no longer is. `optimizer` is used unless `watch` names
        others.
        """
        if self._tooled is not None:
            self._tooled.remove()
        if watch is not False:
            options: ModelOptions = {"optimizer": optimizer}
            if watch is not True:
                options.update(cast("ModelOptions", mapping_of("watch", watch, "{'every': 10}")))
            self._tooled = self.recorder.watch(model, **options)

    def begin_step(self, step: int) -> None:
        """Make `step` the step of what is recorded from now on."""
        if self._recorder is not None:
            self._recorder.add({}, step=step)

    def end_step(self, step: int) -> None:
        """Record the watched layers' statistics at `step`.

        Call it after the optimizer's step and before gradients are set to zero.
        """
        if self._recorder is not None:
            self.begin_step(step)  # what was recorded meanwhile may have had another
            self._recorder.step()

    def flush(self) -> None:
        """Write everything recorded so far to the disk, as before a checkpoint."""
        if self._recorder is not None:
            self._recorder.flush(fsync=True)

    def close(self) -> None:
        """Close the recording, unless the recorder was given."""
        if self._recorder is not None and self._path:
            self._recorder.close()
            self._recorder, self._tooled, self._mode = None, None, "resume"
            self._next_step, self._state = None, None

    def warn_once(self, what: str, message: str) -> None:
        """Give a warning about `what`, unless one was given already."""
        if what not in self._said:
            self._said.add(what)
            warn(message)


class Adapter:
    """What has a HookedRecorder, `_hooked`, and gives its recorder to the user."""

    _hooked: HookedRecorder

    @property
    def recorder(self) -> Recorder:
        """The recorder, for values of your own."""
        return self._hooked.recorder


def path_of_rank(name: str) -> str:
    """The path as it is, or as `run-{rank}.h5` if torch.distributed has several processes."""
    distributed = sys.modules.get("torch.distributed")
    is_alone = (
        distributed is None
        or not (distributed.is_available() and distributed.is_initialized())
        or distributed.get_world_size() == 1
    )
    if is_alone or "{rank}" in name or name.endswith(os.sep) or os.path.isdir(name):
        return name
    stem, ending = os.path.splitext(name)
    return f"{stem}-{{rank}}{ending}"


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The values of nested mappings, under keys such as `outer/inner`."""
    flat = dict[str, Any]()
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{before}{name}/")
        else:
            flat[f"{before}{name}"] = value
    return flat


def mapping_of(what: str, values: Any, such_as: str = "{'name': 0.5}") -> Mapping[Any, Any]:
    """The values, if they are a mapping.

    Raises:
        InputError: they are not; `what` says in the message who takes them.
    """
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        raise InputError(f"{what} takes a dict, such as {such_as}; it was given a {kind}")
    return values


def _plain(name: str, value: Any) -> Any:
    try:
        as_json(name, value)
    except RecordingError:
        return repr(value)
    return value
