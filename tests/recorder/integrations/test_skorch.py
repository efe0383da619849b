"""The adapter to skorch, with a real net."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint

from flexrec.recorder import ExistsError
from flexrec.recorder.integrations.skorch import FlexrecCallback
from support.framework_cases import Net, data, die, killed_while, numbers, run_documented, weights

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
WATCH: Any = {"sources": ("grad_out", "grad_weights", "updates"), "stats": ("norm",)}
BATCHES = 4  # of an epoch: a fifth is for validation


class DieAt(Callback):
    """Kill the process in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_batch_end(self, net: Any, *_: Any, training: bool, **__: Any) -> None:
        if len(net.history) == self.epoch and training:
            die()


def rows() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x, y = (torch.cat(each).numpy() for each in zip(*data(), strict=True))
    return x, y


def net(*callbacks: Callback, epochs: int = 3) -> NeuralNetRegressor:
    return NeuralNetRegressor(
        Net,
        max_epochs=epochs,
        batch_size=4,
        lr=0.05,
        iterator_train__shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).initialize()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The recording of a run that nothing interrupted, and the weights it ended with."""
    path = tmp_path_factory.mktemp("whole") / "run.h5"
    fitted = net(FlexrecCallback(path, WATCH)).partial_fit(*rows())
    return path, weights(fitted.module_)


def test_losses_scores_and_layers_are_at_their_steps(whole: tuple[Path, bytes]) -> None:
    found = numbers(whole[0])
    every = list(range(1, 3 * BATCHES + 1))
    for key in (
        "train_loss",
        "optimizer/group0/lr",
        *(f"net.0/{source}/norm" for source in WATCH["sources"]),
    ):
        assert [step for step, _ in found[key]] == every, key
    assert [step for step, _ in found["valid_loss"]] == [4, 8, 12]
    assert [step for step, _ in found["dur"]] == [4, 8, 12]
    assert all(value > 0 for _, value in found["net.0/grad_weights/norm"])


def test_training_is_the_same_to_the_bit(whole: tuple[Path, bytes]) -> None:
    assert weights(net().partial_fit(*rows()).module_) == whole[1]


def test_a_killed_run_continues_at_its_checkpoint(
    whole: tuple[Path, bytes], tmp_path: Path
) -> None:
    saves = Checkpoint(dirname=str(tmp_path), monitor=None)
    path = tmp_path / "run.h5"
    killed_while(lambda: net(FlexrecCallback(path, WATCH), saves, DieAt(3)).partial_fit(*rows()))
    second = FlexrecCallback(path, WATCH)
    resumed = net(second, epochs=1)
    resumed.load_params(checkpoint=saves)
    resumed.partial_fit(*rows())
    second.recorder.close()
    assert weights(resumed.module_) == whole[1]
    assert numbers(path, "dur", "event_cp") == numbers(whole[0], "dur")


def test_clones_record_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for each in (clone(net(FlexrecCallback(tmp_path / "runs"), epochs=1)) for _ in range(2)):
        each.fit(*rows())
    assert len(list((tmp_path / "runs").glob("*.h5"))) == 2


def test_a_recording_is_not_overwritten(whole: tuple[Path, bytes]) -> None:
    with pytest.raises(ExistsError, match="exists already"):
        net(FlexrecCallback(whole[0])).fit(*rows())


def test_the_documented_lines_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"NeuralNet": lambda callbacks: net(*callbacks, epochs=1)}
    run_documented("skorch", names).partial_fit(*rows())
    assert {"train_loss", "valid_loss", "net.0/grad_out/std"} <= numbers(Path("run.h5")).keys()
