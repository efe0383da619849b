"""FlexrecTracker for Accelerate. Tested with accelerate 1.15."""

from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from flexrec.recorder.integrations.hooked_recorder import HookedRecorder, Target
from flexrec.recorder.recorder import Recorder


class FlexrecTracker(GeneralTracker):
    """Record what an Accelerator logs, and the config given to `init_trackers`.

        accelerator = Accelerator(log_with=FlexrecTracker("run.h5"))

    `accelerator.register_for_checkpointing(tracker)` has the recording continue at a checkpoint
    that `load_state` loads.

    Args:
        target: the path of the recording, or a Recorder.
    """

    name = "flexrec"
    requires_logging_directory = False

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._hooked = HookedRecorder(target)

    @property
    def tracker(self) -> Recorder:
        """The recorder, for values of your own: `accelerator.get_tracker("flexrec").tracker`."""
        return self._hooked.recorder

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Store settings in the recording's config."""
        self._hooked.configure(values)

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Record values."""
        self._hooked.add(values, step)

    @on_main_process
    def finish(self) -> None:
        """Close the recording."""
        self._hooked.close()

    @on_main_process
    def state_dict(self) -> dict[str, Any]:
        """The recorder's position, for a checkpoint."""
        return self.tracker.state_dict()

    @on_main_process
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the recording at the position of a checkpoint."""
        self._hooked.resume()
        self.tracker.load_state_dict(state)
