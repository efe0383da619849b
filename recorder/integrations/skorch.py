"""FlexrecCallback for skorch. Tested with skorch 1.4."""

from typing import Any, Self

from skorch.callbacks import Callback

from flexrec.recorder.integrations.hooked_recorder import HookedRecorder, Target, Watch
from flexrec.recorder.recorder import Recorder


class FlexrecCallback(Callback):
    """Record the losses of a skorch net's batches, its scores, and the layers of its module.

        net = NeuralNet(Module, callbacks=[FlexrecCallback("run.h5")])

    Steps are training batches, counted on where `load_params(checkpoint=…)` loaded a history.

    Args:
        target: the path of the recording, or a Recorder.
        watch: True, or the arguments of `Recorder.watch`, records the module's layers too.
    """

    def __init__(self, target: Target, watch: Watch = False) -> None:
        self.target, self.watch = target, watch

    @property
    def recorder(self) -> Recorder:
        """The recorder, for values of your own."""
        return self.hooked_.recorder

    def initialize(self) -> Self:
        """Begin another recording."""
        self.hooked_ = HookedRecorder(self.target)
        return self

    def on_train_begin(self, net: Any, *_: Any, **__: Any) -> None:
        """Open the recording, or continue it, and watch the module."""
        self.step_ = sum(epoch.get("train_batch_count", 0) for epoch in net.history)
        self.hooked_.begin(self.step_, net.module_, self.watch, getattr(net, "optimizer_", None))

    def on_batch_begin(self, net: Any, *_: Any, training: bool, **__: Any) -> None:
        """Begin a step."""
        if training:
            self.step_ += 1
            self.hooked_.begin_step(self.step_)

    def on_batch_end(self, net: Any, *_: Any, training: bool, **step: Any) -> None:
        """Record the loss, and end a training step."""
        self.hooked_.add({"train_loss" if training else "valid_loss": step["loss"]}, self.step_)
        if training:
            self.hooked_.end_step(self.step_)

    def on_epoch_end(self, net: Any, *_: Any, **__: Any) -> None:
        """Record the epoch's scores, and write all to the disk: a checkpoint may follow."""
        row = {k: v for k, v in net.history[-1].items() if isinstance(v, (int, float))}
        self.hooked_.add({k: v for k, v in row.items() if not k.endswith("_loss")}, self.step_)
        self.hooked_.flush()
