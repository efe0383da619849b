"""The adapter to Accelerate, in a real loop."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, PartialState, debug_launcher
from accelerate.state import AcceleratorState
from torch.multiprocessing.spawn import ProcessExitedException

from flexrec.recorder import ExistsError, Recording
from flexrec.recorder.integrations.accelerate import FlexrecTracker
from support.framework_cases import Net, data, die, killed_while, numbers, run_documented, weights

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


def train(
    folder: Path, *, is_tracked: bool = True, resumes: bool = False, dies_at: int = -1
) -> torch.nn.Module:
    """Train for 10 steps, with a checkpoint after each third."""
    tracker = FlexrecTracker(folder / "run.h5")
    accelerator = Accelerator(cpu=True, log_with=tracker if is_tracked else [])
    accelerator.init_trackers("project", config={"lr": 0.1, "device": accelerator.device})
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(tracker)
    if is_tracked and not resumes:
        tracker.tracker.watch(model, stats=("norm",), optimizer=optimizer)
    done = 0
    if resumes:
        accelerator.load_state(str(folder / "checkpoint"))
        tracker.tracker.watch(model, stats=("norm",), optimizer=optimizer)
        done = tracker.tracker.current_step
    for step in range(done, 10):
        x, y = data()[step % 4]
        loss = (model(x) - y).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        accelerator.log({"train_loss": loss.item(), "nested": {"one": step}}, step=step)
        if is_tracked:
            tracker.tracker.step()
        optimizer.zero_grad()
        if is_tracked and step == 5:
            accelerator.save_state(str(folder / "checkpoint"))
        if step == dies_at:
            tracker.tracker.flush()
            die()
    accelerator.end_training()
    kept: torch.nn.Module = accelerator.unwrap_model(model)
    return kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The recording of a run that nothing interrupted, and the weights it ended with."""
    folder = tmp_path_factory.mktemp("whole")
    model = train(folder)
    return folder / "run.h5", weights(model)


def test_values_and_config_are_recorded(whole: tuple[Path, bytes]) -> None:
    found = numbers(whole[0])
    for key in ("train_loss", "nested/one", "net.0/weights/norm", "optimizer/group0/lr"):
        assert [step for step, _ in found[key]] == list(range(10)), key
    with Recording(whole[0]) as run:
        assert run.complete
        assert run.config == {"lr": 0.1, "device": "cpu"}


def test_training_is_the_same_to_the_bit(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    assert weights(train(tmp_path, is_tracked=False)) == whole[1]
    assert not (tmp_path / "run.h5").exists()


def test_a_killed_run_continues_at_its_checkpoint(
    whole: tuple[Path, bytes], tmp_path: Path
) -> None:
    killed_while(lambda: train(tmp_path, dies_at=7))
    assert [step for step, _ in numbers(tmp_path / "run.h5")["train_loss"]] == list(range(8))
    train(tmp_path, resumes=True)
    assert numbers(tmp_path / "run.h5") == numbers(whole[0])


def test_each_rank_continues_at_the_checkpoint_of_rank_0(tmp_path: Path) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    on_two_ranks(unbroken)
    with pytest.raises(ProcessExitedException):
        on_two_ranks(killed, dies_at=7)
    on_two_ranks(killed, resumes=True)
    for rank in (0, 1):
        found = numbers(killed / f"run-{rank}.h5")
        assert found == numbers(unbroken / f"run-{rank}.h5")
        assert [step for step, _ in found["net.0/weights/norm"]] == list(range(10))


def on_two_ranks(folder: Path, **options: Any) -> None:
    """Train in two processes."""

    def work() -> None:
        AcceleratorState._reset_state(True)  # what this process has of other tests
        train(folder, **options)

    folder.mkdir(exist_ok=True)
    debug_launcher(work)


def test_a_rank_that_records_nothing_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartialState, "is_main_process", False)
    tracker = FlexrecTracker(tmp_path / "run.h5")
    assert tracker.state_dict() == {}
    tracker.load_state_dict({"step": 3, "events": 4, "created": 0.0})
    tracker.finish()
    assert not list(tmp_path.iterdir())


def test_a_recording_is_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(ExistsError, match="exists already"):
        train(tmp_path)


def test_what_cannot_be_recorded_is_said_once(tmp_path: Path) -> None:
    tracker: Any = FlexrecTracker(tmp_path / "run.h5")
    with pytest.warns(RuntimeWarning, match="'odd': cannot record a object"):
        tracker.log({"loss": 1.0, "odd": object()}, step=0)
    for step in (1, 2):
        tracker.log({"loss": 1.0, "odd": object()}, step=step)  # a warning is an error here
    tracker.finish()
    assert numbers(tmp_path / "run.h5") == {"loss": [(0, 1.0), (1, 1.0), (2, 1.0)]}


def test_the_documented_lines_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    accelerator = run_documented("Accelerate", {"Accelerator": partial(Accelerator, cpu=True)})
    accelerator.init_trackers("project")
    accelerator.log({"loss": 1.0}, step=0)
    accelerator.end_training()
    assert numbers(tmp_path / "run.h5") == {"loss": [(0, 1.0)]}
