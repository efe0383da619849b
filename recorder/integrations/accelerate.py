"""FlexrecTracker for Accelerate. Tested with accelerate 1.15."""

from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, on_main_process

from flexrec.recorder.integrations.hooked_recorder import HookedRecorder, Target
from flexrec.recorder.recorder import Recorder


class FlexrecTracker(GeneralTracker):
    """Record what an Accelerator logs, and the config given to `init_trackers`.

        accelerator = Accelerator(log_with=FlexrecTracker("run.h5"))

    `accelerator.register_for_checkpointing(tracker)` has the recording continue at a checkpoint
    that `load_state` loads, in every rank.

    Args:
        target: the path of the recording, or a Recorder.
    """

    name, requires_logging_directory = "flexrec", False

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._hooked = HookedRecorder(target)

    @property
    def tracker(self) -> Recorder:
        """The recorder, for values of your own."""
        return self._hooked.recorder

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Store settings in the recording's config."""
        self._hooked.configure(values)

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Record values."""
        self._hooked.add(values, step)

    def finish(self) -> None:
        """Close the recording of this process, if it has one."""
        self._hooked.close()

    def state_dict(self) -> dict[str, Any]:
        """The recorder's position, for a checkpoint; {} in other ranks that have no recording."""
        return self.tracker.state_dict() if self._has_recording() else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue this rank's recording at the position of a checkpoint, which rank 0 saved."""
        self._hooked.resume(state=state)
        if self._has_recording():
            _ = self.tracker  # opens it

    def _has_recording(self) -> bool:
        return self._hooked.is_open or PartialState().is_main_process
