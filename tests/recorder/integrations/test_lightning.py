"""The adapter to Lightning, in a real Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from flexrec.recorder import DefinitionError, ExistsError, Recorder, Recording
from flexrec.recorder.integrations.lightning import FlexrecCallback, FlexrecLogger
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
LAYERS = ("net.0/grad_out/norm", "net.0/updates/norm", "net.2/grad_weights/norm")
WATCH: Any = {"sources": ("grad_out", "grad_weights", "updates"), "stats": ("norm",)}


class Module(LightningModule):
    """Calls a part of itself, as most do."""

    def __init__(self, width: int = 3, unit: str = "tanh") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Net().net

    def training_step(self, batch: Any, i: int) -> torch.Tensor:
        loss: torch.Tensor = (self.net(batch[0]) - batch[1]).square().mean()
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, i: int) -> None:
        self.log("val_loss", (self.net(batch[0]) - batch[1]).abs().mean())

    def test_step(self, batch: Any, i: int) -> None:
        self.log("test_loss", (self.net(batch[0]) - batch[1]).abs().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), 1e-2)


class DieAt(Callback):
    """Kill the process at the end of a batch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.logger.recorder.flush()  # what was added within the last second may be lost
            die()


def trainer(folder: Path, logger: Any, *callbacks: Callback, **more: Any) -> Trainer:
    options: dict[str, Any] = {"max_epochs": 3, "log_every_n_steps": 1, **more}
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=logger,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def batches() -> DataLoader[Any]:
    return DataLoader(data(), batch_size=None)  # type: ignore[arg-type]


def fit(folder: Path, *callbacks: Callback, ckpt: Path | None = None, **more: Any) -> Module:
    """Train with the adapter, watching the layers."""
    model, logger = Module(), FlexrecLogger(folder / "run.h5")
    training = trainer(folder, logger, FlexrecCallback(WATCH), *callbacks, **more)
    training.fit(model, batches(), batches(), ckpt_path=ckpt)
    training.test(model, batches(), verbose=False)
    logger.recorder.close()
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    fit(folder, enable_checkpointing=False)
    return folder / "run.h5"


def test_metrics_and_layers_are_at_their_steps(whole: Path) -> None:
    found = numbers(whole)
    every = list(range(3 * BATCHES))
    for key in ("train_loss_step", "optimizer/group0/lr", "net.0/state/norm", *LAYERS):
        assert [step for step, _ in found[key]] == every, key
    for key in ("val_loss", "train_loss_epoch"):
        assert [step for step, _ in found[key]] == [3, 7, 11], key
    assert [step for step, _ in found["test_loss"]] == [12]
    with Recording(whole) as run:
        assert run.config == {"width": 3, "unit": "tanh"}


def test_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    plain = Module()
    off: dict[str, Any] = {"enable_checkpointing": False, "gradient_clip_val": 0.5}
    trainer(tmp_path, False, **off).fit(plain, batches(), batches())
    assert weights(fit(tmp_path, **off)) == weights(plain)


@pytest.mark.parametrize(
    "checkpoint",
    [{"every_n_train_steps": 5}, {"every_n_epochs": 1, "save_top_k": -1}],
    ids=["in an epoch", "after one"],
)
def test_a_killed_run_continues_at_its_checkpoint(
    whole: Path, tmp_path: Path, checkpoint: Any
) -> None:
    saves = ModelCheckpoint(tmp_path, filename="{step}", **checkpoint)
    killed_while(lambda: fit(tmp_path, saves, DieAt(7)))
    (saved,) = tmp_path.glob("step=*.ckpt")
    fit(tmp_path, ckpt=saved, enable_checkpointing=False)
    found, expected = numbers(tmp_path / "run.h5"), numbers(whole)
    assert found.keys() == expected.keys()
    for key in ("train_loss_step", *LAYERS):
        assert [step for step, _ in found[key]] == [step for step, _ in expected[key]], key
    if "every_n_epochs" in checkpoint:  # within an epoch, the loader begins anew
        assert found == expected


def test_a_kill_loses_nothing_of_an_epoch_that_ended(whole: Path, tmp_path: Path) -> None:
    """Lightning logs an epoch's means after its checkpoint, and never again."""

    class DieAtOnce(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.current_epoch == 1:
                die()

    saves = ModelCheckpoint(tmp_path, filename="{step}", every_n_epochs=1)
    killed_while(lambda: fit(tmp_path, saves, DieAtOnce()))
    (saved,) = tmp_path.glob("step=*.ckpt")
    fit(tmp_path, ckpt=saved, enable_checkpointing=False)
    assert numbers(tmp_path / "run.h5") == numbers(whole)


def test_a_kill_after_a_checkpoint_loses_nothing_of_its_step(tmp_path: Path) -> None:
    """Lightning logs a step's values after a checkpoint within the epoch, and never again."""

    class DieAtOnce(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                die()

    saves = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2)
    killed_while(lambda: fit(tmp_path, saves, DieAtOnce()))
    assert list(tmp_path.glob("step=*.ckpt"))
    found = numbers(tmp_path / "run.h5")
    for key in ("train_loss_step", *LAYERS):
        assert [step for step, _ in found[key]] == [0, 1], key


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    fit(tmp_path, enable_checkpointing=False, accumulate_grad_batches=2, max_epochs=1)
    found = numbers(tmp_path / "run.h5")
    assert [step for step, _ in found[LAYERS[0]]] == [0, 1]


def test_what_is_there_is_not_overwritten(whole: Path, tmp_path: Path) -> None:
    training = trainer(tmp_path, FlexrecLogger(whole), enable_checkpointing=False)
    with pytest.raises(ExistsError, match="exists already"):
        training.fit(Module(), batches())
    with pytest.raises(DefinitionError, match="needs a FlexrecLogger"):
        trainer(tmp_path, False, FlexrecCallback()).fit(Module(), batches())


def test_a_recorder_of_ones_own_is_used_and_left_open(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        training = trainer(tmp_path, FlexrecLogger(rec), max_epochs=1, enable_checkpointing=False)
        training.fit(Module(), batches())
        rec.add(mine=1.0)
    assert [step for step, _ in numbers(rec.path)["train_loss_step"]] == [0, 1, 2, 3]


class Look(Callback):
    """Read the recording of this rank while a checkpoint is saved."""

    def on_save_checkpoint(self, trainer: Any, *_: Any) -> None:
        steps = [step for step, _ in numbers(trainer.logger.recorder.path)[LAYERS[0]]]
        assert steps == list(range(trainer.global_step))


def test_each_rank_records_its_own_file(tmp_path: Path) -> None:
    logger = FlexrecLogger(tmp_path / "run.h5")
    training = trainer(
        tmp_path,
        logger,
        FlexrecCallback(WATCH),
        Look(),
        strategy="ddp_fork",
        devices=2,
        max_epochs=1,
    )
    training.fit(Module(), batches())
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == ["run-0.h5", "run-1.h5"]
    first, second = (numbers(tmp_path / f"run-{rank}.h5") for rank in (0, 1))
    assert "train_loss_step" in first
    assert "train_loss_step" not in second
    for key in LAYERS:
        assert len(first[key]) == len(second[key]) > 0


def test_the_documented_lines_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        "Trainer": lambda logger, callbacks: trainer(tmp_path, logger, *callbacks, max_epochs=1)
    }
    training = run_documented("Lightning", names)
    training.fit(Module(), batches())
    training.logger.recorder.close()
    assert {"train_loss_step", "net.0/grad_out/std"} <= numbers(tmp_path / "run.h5").keys()
