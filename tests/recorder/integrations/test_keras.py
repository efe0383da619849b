"""The adapter to Keras, in a real training with the backend of torch."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")  # as Keras is imported
import keras
from keras.callbacks import BackupAndRestore, Callback, LearningRateScheduler

from flexrec.recorder import ExistsError, Recorder, Recording
from flexrec.recorder.integrations.keras import FlexrecCallback
from support.framework_cases import (
    BATCHES,
    data,
    die,
    killed_while,
    numbers,
    run_documented,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
EPOCHS = 3


class DieAt(Callback):
    """Kill the process at the end of a batch."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.model.optimizer.iterations == self.step:
            die()


def train(*callbacks: Callback, **more: Any) -> Any:
    """Train for some epochs."""
    keras.utils.set_random_seed(3)
    layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    x, y = map(torch.cat, zip(*data(), strict=True))
    options = {"epochs": EPOCHS, "validation_data": (x, y), "shuffle": False, "verbose": 0, **more}
    model.fit(x, y, batch_size=len(x) // BATCHES, callbacks=list(callbacks), **options)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The recording of a run that nothing interrupted, and the weights it ended with."""
    folder = tmp_path_factory.mktemp("whole")
    callback = FlexrecCallback(folder / "run.h5")
    model = train(callback, BackupAndRestore(folder / "backup"))
    callback.recorder.close()
    return folder / "run.h5", weights(model)


def test_batches_and_validation_are_at_their_steps(whole: tuple[Path, bytes]) -> None:
    found, every = numbers(whole[0]), list(range(1, EPOCHS * BATCHES + 1))
    assert set(found) == {"loss", "mae", "val_loss", "val_mae"}
    for key, values in found.items():
        steps = every[BATCHES - 1 :: BATCHES] if key.startswith("val_") else every
        assert [step for step, _ in values] == steps, key
    with Recording(whole[0]) as run:
        assert run.config["optimizer"]["learning_rate"] == pytest.approx(0.01)


def test_training_is_the_same_to_the_bit(whole: tuple[Path, bytes]) -> None:
    assert weights(train()) == whole[1]


def test_a_killed_run_continues_at_its_checkpoint(
    whole: tuple[Path, bytes], tmp_path: Path
) -> None:
    def callbacks() -> tuple[FlexrecCallback, Callback]:
        return FlexrecCallback(tmp_path / "run.h5"), BackupAndRestore(tmp_path / "backup")

    killed_while(lambda: train(*callbacks(), DieAt(BATCHES + 2)))
    first, second = callbacks()
    train(second, first)  # either may be the first
    first.recorder.close()
    assert numbers(tmp_path / "run.h5") == numbers(whole[0])


def test_training_goes_on_in_the_same_recording(tmp_path: Path) -> None:
    callback = FlexrecCallback(tmp_path / "run.h5")
    model = train(callback, epochs=1)
    x, y = map(torch.cat, zip(*data(), strict=True))
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[callback])
    callback.recorder.close()
    steps = [step for step, _ in numbers(tmp_path / "run.h5")["loss"]]
    assert steps == list(range(1, BATCHES + 2))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(gradient_accumulation_steps=2),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), 2.0**126),
    ],
    ids=["accumulates gradients", "skips batches that overflow"],
)
def test_training_goes_on_though_the_optimizer_counts_fewer_batches(
    tmp_path: Path, optimizer: Any
) -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer=optimizer(), loss="mse")
    x, y = map(torch.cat, zip(*data(), strict=True))
    callback = FlexrecCallback(tmp_path / "run.h5")
    for _ in range(2):
        model.fit(x * 1e4, y, len(x) // BATCHES, epochs=2, verbose=0, callbacks=[callback])
    assert int(model.optimizer.iterations) < 4 * BATCHES
    callback.recorder.close()
    steps = [step for step, _ in numbers(tmp_path / "run.h5")["loss"]]
    assert steps == list(range(1, 4 * BATCHES + 1))


def test_a_killed_run_that_accumulates_gradients_continues_at_its_checkpoint(
    tmp_path: Path,
) -> None:
    def fit(folder: Path, *more: Callback) -> None:
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(optimizer=keras.optimizers.SGD(gradient_accumulation_steps=2), loss="mse")
        x, y = map(torch.cat, zip(*data(), strict=True))
        first = FlexrecCallback(folder / "run.h5")
        backup = BackupAndRestore(folder / "backup")
        options: Any = {"batch_size": len(x) // BATCHES, "shuffle": False, "verbose": 0}
        model.fit(x, y, epochs=3, callbacks=[first, backup, *more], **options)
        first.recorder.close()

    class DieInThird(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                die()

    (tmp_path / "whole").mkdir()
    fit(tmp_path / "whole")
    killed_while(lambda: fit(tmp_path, DieInThird()))
    fit(tmp_path)
    assert numbers(tmp_path / "run.h5") == numbers(tmp_path / "whole/run.h5")


def test_what_other_callbacks_log_is_recorded_in_a_recorder_of_ones_own(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        callback = FlexrecCallback(rec)
        train(LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1)), callback, epochs=2)
        callback.recorder.add(mine=1.0)
    steps, rates = zip(*numbers(rec.path)["learning_rate"], strict=True)
    assert steps == (BATCHES, 2 * BATCHES)
    assert rates == pytest.approx((0.1, 0.05))


def test_a_recording_is_not_overwritten(whole: tuple[Path, bytes]) -> None:
    with pytest.raises(ExistsError, match="exists already"):
        train(FlexrecCallback(whole[0]), epochs=1)


def test_the_documented_lines_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = SimpleNamespace(fit=lambda callbacks: train(*callbacks, epochs=1))
    run_documented("Keras, on torch", {"model": model})
    assert {"loss", "val_loss"} <= numbers(tmp_path / "run.h5").keys()
