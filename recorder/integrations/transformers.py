"""FlexrecCallback for transformers.Trainer. Tested with transformers 5.24."""

from typing import Any

from transformers import TrainerCallback

from flexrec.recorder.integrations.hooked_recorder import Adapter, HookedRecorder, Target, Watch


class FlexrecCallback(Adapter, TrainerCallback):
    """Record what a transformers.Trainer logs, its arguments, and the layers of its model.

        trainer = Trainer(model, args, callbacks=[FlexrecCallback("run.h5")])

    Values are recorded at `global_step`, the number of the step just done. After
    `train(resume_from_checkpoint=…)` the recording continues at the checkpoint's step.

    Args:
        target: the path of the recording, or a Recorder.
        watch: True, or the arguments of `Recorder.watch`, records the model's layers too.
    """

    def __init__(self, target: Target, watch: Watch = False) -> None:
        self._hooked, self._watch = HookedRecorder(target), watch

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Open the recording, or continue it, and watch the model."""
        self._hooked.configure(args.to_dict())
        self._hooked.begin(state.global_step, given["model"], self._watch, given.get("optimizer"))

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin a step."""
        self._hooked.begin_step(state.global_step + 1)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End the step: before on_step_end, where gradients are zero already."""
        self._hooked.end_step(state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Record what the trainer logs; evaluations are logged too."""
        self._hooked.add(given["logs"], step=state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write what is recorded to the disk, as the checkpoint is."""
        self._hooked.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write what is recorded to the disk; evaluations may follow."""
        self._hooked.flush()
