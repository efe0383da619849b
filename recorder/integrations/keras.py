"""FlexrecCallback for Keras, with the backend of torch. Tested with keras 3.15."""

from typing import Any

from keras.callbacks import Callback

from flexrec.recorder.integrations.hooked_recorder import Adapter, HookedRecorder, Target


class FlexrecCallback(Adapter, Callback):
    """Record what Keras logs for each batch and epoch, and the optimizer's settings.

        model.fit(x, y, callbacks=[FlexrecCallback("run.h5")])

    Values are recorded at the optimizer's iteration, the number of the batch just done. If its
    state was loaded, as BackupAndRestore and `load_model` do, the recording continues there. What
    Keras logs for a batch is the mean of the epoch so far. Layers are not recorded: Keras keeps
    them in lists of its own, where torch does not find them.

    Args:
        target: the path of the recording, or a Recorder.
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._hooked, self._step, self._is_begun = HookedRecorder(target), 0, False
        self._of_batches = set[str]()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin once every callback has loaded what it loads."""
        self._is_begun = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Open the recording, or continue it."""
        if self._is_begun:
            return
        self._step, self._is_begun = int(self.model.optimizer.iterations), True
        self._hooked.begin(self._step)
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
