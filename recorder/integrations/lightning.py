"""FlexrecLogger and FlexrecCallback for Lightning. Tested with lightning 2.6.

`_batches_that_stepped` is private to Lightning; it is the step that it gives to loggers.
"""

from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.integrations.hooked_recorder import Adapter, HookedRecorder, Target, Watch


class FlexrecLogger(Adapter, Logger):
    """Record what a LightningModule logs, and its hyperparameters.

        trainer = Trainer(logger=FlexrecLogger("run.h5"), callbacks=[FlexrecCallback()])

    Values are recorded at the step that Lightning gives to loggers.

    Args:
        target: the path of the recording, or a Recorder.
    """

    name, version = "flexrec", ""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._hooked = HookedRecorder(target)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record metrics."""
        self._hooked.add(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Store hyperparameters in the recording's config."""
        self._hooked.configure(params if isinstance(params, dict) else vars(params))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Write what is recorded to the disk, as the checkpoint is."""
        self._hooked.flush()

    def finalize(self, status: str) -> None:
        """Write what is recorded to the disk; a test may follow."""
        self._hooked.flush()


class FlexrecCallback(Callback):
    """Continue the FlexrecLogger's recording after a checkpoint, and record the model's layers.

    Args:
        watch: True, or the arguments of `Recorder.watch`, records the LightningModule's layers.
    """

    def __init__(self, watch: Watch = False) -> None:
        self._watch, self._next_step, self._seen, self._has_saved = watch, 0, 0, False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find the logger."""
        loggers = [each for each in trainer.loggers if isinstance(each, FlexrecLogger)]
        if not loggers:
            raise DefinitionError(
                "FlexrecCallback needs a FlexrecLogger: Trainer(logger=FlexrecLogger(path))"
            )
        self._hooked = loggers[0]._hooked
        if stage != "fit":
            self._hooked.resume()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Continue the recording after a checkpoint, and watch the model."""
        self._seen = trainer.global_step
        if self._next_step:
            self._hooked.resume(self._next_step)
        self._hooked.watch(pl_module, self._watch, trainer.optimizers)

    def on_train_epoch_start(self, *_: Any) -> None:
        """Write what was logged at the last epoch's end, after its checkpoint, to the disk."""
        self._hooked.flush()

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """Begin a step, or go on with one that accumulates gradients."""
        if self._has_saved:  # Lightning logs the values of a step after its checkpoint
            self._hooked.flush()
            self._has_saved = False
        self._hooked.begin_step(trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """End the step, if the optimizer took one."""
        if trainer.global_step != self._seen:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            self._seen, self._next_step = trainer.global_step, step + 1
            self._hooked.end_step(step)

    def on_save_checkpoint(self, *_: Any) -> None:
        """Write what this rank recorded to the disk; Lightning tells only rank 0's logger."""
        self._hooked.flush()
        self._has_saved = True

    def state_dict(self) -> dict[str, Any]:
        """The first step after the checkpoint."""
        return {"next_step": self._next_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the step of a checkpoint."""
        self._next_step = state["next_step"]
