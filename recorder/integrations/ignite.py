"""FlexrecHandler for PyTorch-Ignite. Tested with pytorch-ignite 0.5.5."""

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events

from flexrec.recorder.integrations.hooked_recorder import Adapter, HookedRecorder, Target, Watch


class FlexrecHandler(Adapter):
    """Record what an Ignite engine's steps return, its metrics, and those of its evaluators.

        FlexrecHandler("run.h5").attach(trainer, model, val=evaluator)

    Values are recorded at the trainer's iteration, the number of the step just done. If its state
    was loaded, the recording continues there. A step that returns a number is recorded as
    `train_loss`, one that returns a dict under its keys.

    Args:
        target: the path of the recording, or a Recorder.
        watch: True, or the arguments of `Recorder.watch`, records the model's layers too.
    """

    def __init__(self, target: Target, watch: Watch = False) -> None:
        self._hooked, self._watch = HookedRecorder(target), watch

    def attach(self, trainer: Engine, model: Any = None, **evaluators: Engine) -> None:
        """Record a trainer, its model, and evaluators, whose names their keys begin with."""
        hooked = self._hooked

        def begin() -> None:
            hooked.begin(trainer.state.iteration, model, self._watch)
            if trainer.has_event_handler(record_metrics, Events.EPOCH_COMPLETED):
                trainer.remove_event_handler(record_metrics, Events.EPOCH_COMPLETED)
            # It comes after metrics that were attached since.
            trainer.add_event_handler(Events.EPOCH_COMPLETED, record_metrics, "train")

        def end_step() -> None:
            output, step = trainer.state.output, trainer.state.iteration
            hooked.add(output if isinstance(output, Mapping) else {"train_loss": output}, step)
            hooked.end_step(step)

        def record_metrics(engine: Engine, name: str) -> None:
            metrics = {f"{name}_{key}": value for key, value in engine.state.metrics.items()}
            hooked.add(metrics, trainer.state.iteration)
            hooked.flush()

        trainer.add_event_handler(Events.STARTED, begin)
        trainer.add_event_handler(
            Events.ITERATION_STARTED, lambda: hooked.begin_step(trainer.state.iteration)
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED, end_step)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, hooked.flush)  # a checkpoint may follow
        trainer.add_event_handler(Events.COMPLETED, hooked.flush)
        for name, evaluator in evaluators.items():
            evaluator.add_event_handler(Events.COMPLETED, record_metrics, name)
