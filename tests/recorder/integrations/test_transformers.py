"""The adapter to transformers, in a real Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from flexrec.recorder import ExistsError, Recorder, Recording
from flexrec.recorder.integrations.transformers import FlexrecCallback
from support.framework_cases import Net, data, die, killed_while, numbers, run_documented, weights

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
CLOCKS = (  # keys that say how long something took
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
)


class Model(torch.nn.Module):
    """Gives its loss, as a Trainer wants."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net().net

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.net(x) - y).square().mean()}


class DieAt(TrainerCallback):
    """Kill the process in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            die()


def trainer(folder: Path, *callbacks: TrainerCallback, **more: Any) -> Trainer:
    options: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": 4,
        "logging_steps": 1,
        "max_steps": 8,
        "save_steps": 3,
        **more,
    }
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        use_cpu=True,
        report_to=[],
        label_names=["y"],
        disable_tqdm=True,
        per_device_train_batch_size=2,
        **options,
    )
    rows = [
        {"x": x, "y": y} for x, y in zip(*map(torch.cat, zip(*data(), strict=True)), strict=True)
    ]
    return Trainer(
        Model(), arguments, train_dataset=rows, eval_dataset=rows[:4], callbacks=list(callbacks)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    callback = FlexrecCallback(folder / "run.h5", watch={"stats": ("norm",)})
    training = trainer(folder, callback)
    training.train()
    training.evaluate()
    callback.recorder.close()
    return folder / "run.h5"


def test_logs_evaluations_and_layers_are_at_their_steps(whole: Path) -> None:
    found = numbers(whole)
    assert [step for step, _ in found["loss"]] == list(range(1, 9))
    assert [step for step, _ in found["eval_loss"]] == [4, 8, 8]
    layers = ("net.0/grad_out/norm", "net.2/weights/norm", "net.2/grad_in/norm", "net.2/state/norm")
    for key in ("optimizer/group0/lr", *layers):
        assert [step for step, _ in found[key]] == list(range(1, 9)), key
    with Recording(whole) as run:
        assert run.config["max_steps"] == 8


def test_training_is_the_same_to_the_bit(whole: Path, tmp_path: Path) -> None:
    plain, watched = (trainer(tmp_path, max_steps=4) for _ in range(2))
    watched.add_callback(FlexrecCallback(tmp_path / "run.h5", watch=True))
    plain.train()
    watched.train()
    assert weights(plain.model) == weights(watched.model)


def test_gradients_are_those_that_the_optimizer_used(tmp_path: Path) -> None:
    watch: Any = {"sources": ("grad_weights", "updates"), "stats": ("norm",)}
    training = trainer(tmp_path, FlexrecCallback(tmp_path / "run.h5", watch=watch), max_steps=3)
    training.train()
    found = numbers(tmp_path / "run.h5")
    for source in ("grad_weights", "updates"):
        assert all(value > 0 for _, value in found[f"net.0/{source}/norm"])


def test_a_killed_run_continues_at_its_checkpoint(whole: Path, tmp_path: Path) -> None:
    first, second = (
        FlexrecCallback(tmp_path / "run.h5", watch={"stats": ("norm",)}) for _ in range(2)
    )
    killed_while(trainer(tmp_path, first, DieAt(4)).train)
    training = trainer(tmp_path, second)
    training.train(resume_from_checkpoint=True)
    training.evaluate()
    second.recorder.close()
    left_out = (*CLOCKS, "train_loss", "total_flos")  # of the second part alone
    assert numbers(tmp_path / "run.h5", *left_out) == numbers(whole, *left_out)


def test_a_recording_is_not_overwritten(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ExistsError, match="exists already"):
        trainer(tmp_path, FlexrecCallback(whole)).train()


def test_a_recorder_of_ones_own_is_used_and_left_open(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        callback = FlexrecCallback(rec)
        trainer(tmp_path, callback, max_steps=2).train()
        callback.recorder.add(mine=1.0)
    assert [step for step, _ in numbers(rec.path)["loss"]] == [1, 2]


def test_the_documented_lines_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"Trainer": lambda callbacks: trainer(tmp_path, *callbacks, max_steps=2)}
    run_documented("Transformers", names).train()
    assert {"loss", "net.0/grad_out/std"} <= numbers(tmp_path / "run.h5").keys()
