"""FlexrecCallback for Keras, with the backend of torch. Tested with keras 3.15.

`_iterations` is private to Keras; `iterations` is less if gradients are accumulated.
"""

from typing import Any

from keras.callbacks import Callback

from flexrec.recorder.integrations.hooked_recorder import Adapter, HookedRecorder, Target


class FlexrecCallback(Adapter, Callback):
    """Record what Keras logs for each batch and epoch, and the optimizer's settings.

        model.fit(x, y, callbacks=[FlexrecCallback("run.h5")])

    Values are recorded at the number of the batch just done. If the optimizer's state was loaded,
    as BackupAndRestore and `load_model` do, the recording continues there. What Keras logs for a
    batch is the mean of the epoch so far. Layers are not recorded: Keras keeps them in lists of its
    own, where torch does not find them.

    Args:
        target: the path of the recording, or a Recorder.
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._hooked, self._step, self._of_batches = HookedRecorder(target), 0, set[str]()
        self._counted: int | None = None  # by the optimizer, at the last epoch's end

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Open the recording, or continue it, now that every callback has loaded what it loads."""
        done = self._batches()
        if done != self._counted:
            self._step = done
            self._hooked.begin(done)
            self._hooked.configure({"optimizer": self.model.optimizer.get_config()})

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin a step."""
        self._step += 1
        self._hooked.begin_step(self._step)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the batch's losses and metrics, and end the step."""
        self._of_batches.update(logs or {})
        self._hooked.add(logs or {}, self._step)
        self._hooked.end_step(self._step)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the validation, and what other callbacks add; write it to the disk."""
        others = {k: v for k, v in (logs or {}).items() if k not in self._of_batches}
        self._hooked.add(others, self._step)
        self._hooked.flush()
        self._counted = self._batches()

    def _batches(self) -> int:
        optimizer: Any = self.model.optimizer
        return int(getattr(optimizer, "inner_optimizer", optimizer)._iterations)
