"""The adapter to Ignite, with real engines."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Average, MeanSquaredError
from torch import nn

from flexrec.recorder.integrations.ignite import FlexrecHandler
from support.framework_cases import (
    BATCHES,
    Net,
    data,
    die,
    killed_while,
    numbers,
    run_documented,
    weights,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
WATCH: Any = {"sources": ("grad_out", "grad_weights", "updates"), "stats": ("norm",)}


def train(
    folder: Path, *, is_recorded: bool = True, checkpoint: Path | None = None, dies_at: int = -1
) -> nn.Module:
    """Train for three epochs, with a checkpoint after each."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    evaluator = create_supervised_evaluator(model, {"mse": MeanSquaredError()})
    handler = FlexrecHandler(folder / "run.h5", WATCH)
    if is_recorded:
        handler.attach(trainer, model, val=evaluator)

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate() -> None:
        evaluator.run(data())

    @trainer.on(Events.ITERATION_COMPLETED(once=dies_at) if dies_at > 0 else Events.TERMINATE)
    def end() -> None:
        die()

    kept: dict[str, Any] = {"model": model, "optimizer": optimizer, "trainer": trainer}
    saver = Checkpoint(kept, DiskSaver(str(folder), create_dir=False, require_empty=False))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)
    if checkpoint is not None:
        Checkpoint.load_objects(kept, torch.load(checkpoint))
    trainer.run(data(), max_epochs=3)
    if is_recorded:
        handler.recorder.close()
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The recording of a run that nothing interrupted, and the weights it ended with."""
    folder = tmp_path_factory.mktemp("whole")
    model = train(folder)
    return folder / "run.h5", weights(model)


def test_losses_metrics_and_layers_are_at_their_steps(whole: tuple[Path, bytes]) -> None:
    found = numbers(whole[0])
    every = list(range(1, 3 * BATCHES + 1))
    for key in ("train_loss", *(f"net.0/{source}/norm" for source in WATCH["sources"])):
        assert [step for step, _ in found[key]] == every, key
    assert [step for step, _ in found["val_mse"]] == every[BATCHES - 1 :: BATCHES]
    assert all(value > 0 for _, value in found["net.0/updates/norm"])


def test_training_is_the_same_to_the_bit(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    assert weights(train(tmp_path, is_recorded=False)) == whole[1]


def test_a_killed_run_continues_at_its_checkpoint(
    whole: tuple[Path, bytes], tmp_path: Path
) -> None:
    killed_while(lambda: train(tmp_path, dies_at=6))
    (saved,) = tmp_path.glob("*.pt")
    train(tmp_path, checkpoint=saved)
    assert numbers(tmp_path / "run.h5") == numbers(whole[0])


def test_a_step_may_return_a_dict(tmp_path: Path) -> None:
    trainer = Engine(lambda _, batch: {"loss": float(batch), "text": "a"})
    handler = FlexrecHandler(tmp_path / "run.h5")
    handler.attach(trainer)
    trainer.run([1, 2])
    handler.recorder.close()
    assert numbers(tmp_path / "run.h5")["loss"] == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("is_attached_first", [False, True])
def test_the_trainers_metrics_are_those_of_their_epoch(
    tmp_path: Path, is_attached_first: bool
) -> None:
    trainer, mean = Engine(lambda _, batch: float(batch)), Average()
    handler = FlexrecHandler(tmp_path / "run.h5")
    if is_attached_first:
        handler.attach(trainer)
    mean.attach(trainer, "mean")
    if not is_attached_first:
        handler.attach(trainer)
    trainer.run([1, 2, 3], max_epochs=1)
    trainer.run([3, 4, 5], max_epochs=3)
    handler.recorder.close()
    assert numbers(tmp_path / "run.h5")["train_mean"] == [(3, 2.0), (6, 4.0), (9, 4.0)]


def test_metrics_attached_between_runs_are_those_of_their_epoch(tmp_path: Path) -> None:
    trainer, handler = Engine(lambda _, batch: float(batch)), FlexrecHandler(tmp_path / "run.h5")
    handler.attach(trainer)
    trainer.run([1, 2, 3], max_epochs=1)
    Average().attach(trainer, "mean")
    trainer.run([3, 4, 5], max_epochs=2)
    trainer.run([6, 7, 8], max_epochs=3)
    handler.recorder.close()
    assert numbers(tmp_path / "run.h5")["train_mean"] == [(6, 4.0), (9, 7.0)]


def test_the_documented_lines_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    evaluator = create_supervised_evaluator(model, {"mse": MeanSquaredError()})
    run_documented("Ignite", {"trainer": trainer, "model": model, "evaluator": evaluator})
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(data()))
    trainer.run(data())
    assert {"train_loss", "val_mse", "net.0/grad_out/std"} <= numbers(tmp_path / "run.h5").keys()
