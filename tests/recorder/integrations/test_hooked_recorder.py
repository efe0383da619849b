"""What the adapters share, without a framework."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from flexrec.recorder import ExistsError, InputError, Recorder, Recording
from flexrec.recorder.integrations.hooked_recorder import HookedRecorder, path_of_rank
from support.framework_cases import Net, data, numbers, page_blocks


def test_nothing_is_opened_before_it_is_needed(path: Path) -> None:
    hooked = HookedRecorder(path)
    hooked.configure({"lr": 0.1})
    hooked.begin_step(1)
    hooked.end_step(1)
    hooked.watch(Net(), False)
    hooked.flush()
    hooked.close()
    assert not path.exists()


def test_an_existing_file_is_refused_with_what_an_adapter_accepts(path: Path) -> None:
    """An adapter has no `mode`."""
    Recorder(path).close()
    with pytest.raises(ExistsError) as found:
        HookedRecorder(path).add({"a": 1.0})
    assert "give Recorder(path, mode=" in str(found.value)
    assert "pass mode=" not in str(found.value)


def test_settings_wait_until_it_is_opened(path: Path) -> None:
    hooked = HookedRecorder(path)
    hooked.configure({"lr": 0.1, 3: {"inner": [1]}})
    hooked.configure({"loss": nn.MSELoss()})  # JSON has no such thing
    hooked.add({"a": 1.0})
    hooked.configure({"lr": 0.2})
    hooked.close()
    with Recording(path) as run:
        assert run.config == {"lr": 0.2, "3": {"inner": [1]}, "loss": "MSELoss()"}


def test_statistics_are_at_the_step_that_ended_whatever_was_recorded_meanwhile(path: Path) -> None:
    hooked, model = HookedRecorder(path), Net()
    hooked.watch(model, {"sources": ("weights",), "stats": ("norm",)})
    for step, (x, _) in enumerate(data()):
        hooked.begin_step(step)
        hooked.recorder.add(mine=float(step))
        model(x).sum().backward()
        hooked.add({"metric": 1.0}, step=100)
        hooked.end_step(step)
    hooked.close()
    found = numbers(path)
    for key in ("mine", "net.0/weights/norm"):
        assert [step for step, _ in found[key]] == [0, 1, 2, 3], key


def test_values_of_a_step_that_ended_do_not_begin_it_again(path: Path) -> None:
    """As a loop that calls `recorder.step()` itself, and logs after it."""
    hooked, model = HookedRecorder(path), Net()
    hooked.watch(model, {"sources": ("weights",), "stats": ("norm",)})
    for step, (x, _) in enumerate(data()):
        model(x).sum().backward()
        hooked.recorder.step()
        hooked.add({"metric": 1.0}, step=step)
    hooked.close()
    found = numbers(path)
    for key in ("metric", "net.0/weights/norm"):
        assert [step for step, _ in found[key]] == [0, 1, 2, 3], key


def test_what_watch_does_not_take_is_an_error(path: Path) -> None:
    with pytest.raises(InputError, match=r"watch takes a dict, such as .*'every'"):
        HookedRecorder(path).watch(Net(), "all")  # type: ignore[arg-type]
    assert not path.exists()


def test_another_model_may_be_watched_and_none(path: Path) -> None:
    hooked = HookedRecorder(path)
    first, second = Net(), Net()
    for model in (first, second):
        hooked.watch(model, True)
    hooked.watch(first, False)
    assert not first.net[0]._forward_hooks
    assert not second.net[0]._forward_hooks
    hooked.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_what_was_recorded_from_the_next_step_on_is_superseded(path: Path, is_open: bool) -> None:
    with Recorder(path, facts=False) as rec:
        for step in range(1, 8):
            rec.add({"a": float(step)}, step=step)
    hooked = HookedRecorder(Recorder(path, mode="resume") if is_open else path)
    hooked.resume(5)
    hooked.add({"a": 50.0}, step=5)
    hooked.recorder.close()
    assert numbers(path)["a"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 50.0)]


def test_it_continues_after_a_close(path: Path) -> None:
    hooked = HookedRecorder(path)
    for step in range(2):
        hooked.add({"a": 1.0}, step=step)
        hooked.close()
    assert numbers(path)["a"] == [(0, 1.0), (1, 1.0)]


def test_a_given_recorder_stays_open(path: Path) -> None:
    with Recorder(path, facts=False) as rec:
        HookedRecorder(rec).close()
        rec.add(a=1.0)


def test_what_cannot_be_recorded_is_left_out_and_said_once(path: Path) -> None:
    hooked = HookedRecorder(path)
    with pytest.warns(RuntimeWarning, match=r"'a/odd': cannot record.*; it is left out"):
        hooked.add({"a": {"odd": object(), "even": 2}})
    hooked.add({"a": {"odd": object(), "even": 2}})  # a warning is an error here
    hooked.close()
    assert numbers(path) == {"a/even": [(0, 2.0), (0, 2.0)]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("run.h5", "run-{rank}.h5"),
        ("a.b/run", "a.b/run-{rank}"),
        ("{rank}/run.h5", "{rank}/run.h5"),
        ("runs/", "runs/"),
    ],
)
def test_ranks_have_their_own_files(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    several: Any = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 2
    )
    monkeypatch.setitem(sys.modules, "torch.distributed", several)
    assert path_of_rank(name) == expected
    several.get_world_size = lambda: 1
    assert path_of_rank(name) == name


def test_the_documented_code_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tensorboard, wandb, adapter = page_blocks()
    names = dict[str, Any]()
    for block in (tensorboard, wandb, adapter):
        exec(block, names)  # noqa: S102 - our own document
    (first,) = Path("runs/first").glob("*.h5")
    assert numbers(first) == {"Loss/train": [(1, 0.5)]}
    assert numbers(Path("runs/digits/first.h5")) == {"loss": [(0, 0.5)]}
    callback, trainer = (
        names["FlexrecCallback"]("run.h5", True),
        SimpleNamespace(step=0, model=Net()),
    )
    optimizer = torch.optim.SGD(trainer.model.parameters(), 0.1)
    callback.on_train_begin(trainer)
    for x, y in data():
        callback.on_step_begin(trainer)
        loss = (trainer.model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        callback.on_optimizer_step(trainer)
        optimizer.zero_grad()
        trainer.step += 1
        callback.on_log(trainer, {"loss": loss.item()})
    callback.on_save(trainer)
    callback.recorder.close()
    found = numbers(Path("run.h5"))
    for key in ("loss", "net.0/grad_out/std"):
        assert [step for step, _ in found[key]] == [1, 2, 3, 4], key
