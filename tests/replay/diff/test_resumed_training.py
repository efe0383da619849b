"""What a checkpoint lost is named: the audit of a training that was traced, killed and resumed."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flexrec.recorder import Recorder, Recording
from flexrec.replay.diff.result import RunAudit
from flexrec.replay.diff.resumes import audit
from support.planted_faults import MLP

SAVED, KILLED, END = 4, 8, 12


def step(rec: Recorder, model: Any, optimizer: Any, number: int) -> None:
    """A step of training."""
    g = torch.Generator().manual_seed(number)
    x, y = torch.randn(16, 8, generator=g), torch.randint(0, 3, (16,), generator=g)
    rec.fingerprint(batch=(x, y))
    optimizer.param_groups[0]["lr"] = 0.05 / (1 + rec.current_step)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    rec.fingerprint(loss=loss)
    loss.backward()
    optimizer.step()
    rec.step()


def made() -> tuple[Any, Any]:
    """A model and its optimizer."""
    torch.manual_seed(0)
    model = MLP()
    return model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)


def resumed(
    path: Path, lose: Callable[[dict[str, Any]], object], *, trace: bool = True, every: int = 1
) -> RunAudit:
    """Train, be killed, and go on from a checkpoint that has lost something."""
    model, optimizer = made()
    with Recorder(path, facts=False) as rec:
        rec.watch(model, trace=trace, optimizer=optimizer, every=every)
        for number in range(KILLED):
            if number == SAVED:
                state = {
                    "model": copy.deepcopy(model.state_dict()),
                    "optimizer": copy.deepcopy(optimizer.state_dict()),
                    "random": torch.get_rng_state(),
                    "recorder": rec.state_dict(),
                    "batch": number,
                    "training": True,
                    "mode": True,
                }
            step(rec, model, optimizer, number)
    lose(state)
    model, optimizer = made()
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    model.train(state["mode"])
    model.bn1.train(state["training"])
    torch.set_rng_state(state["random"])
    with Recorder(path, mode="resume", facts=False) as rec:
        rec.load_state_dict(state["recorder"])
        rec.watch(model, trace=trace, optimizer=optimizer, every=every)
        for number in range(state["batch"], END):
            step(rec, model, optimizer, number)
    with Recording(path) as run:
        return audit(run)


def without_state(state: dict[str, Any]) -> None:
    """The optimizer's momentum is lost."""
    state["optimizer"]["state"] = {}


def in_bfloat16(state: dict[str, Any]) -> None:
    """Weights were saved with fewer bits."""
    for name, tensor in state["model"].items():
        if tensor.is_floating_point():
            state["model"][name] = tensor.bfloat16().float()


def without_buffers(state: dict[str, Any]) -> None:
    """What BatchNorm remembers is lost."""
    for name, tensor in made()[0].state_dict().items():
        if "running" in name:
            state["model"][name] = tensor


def without_model(state: dict[str, Any]) -> None:
    """The model is a new one."""
    state["model"] = made()[0].state_dict()


def another_rate(state: dict[str, Any]) -> None:
    """A setting of the optimizer's is another one."""
    state["optimizer"]["param_groups"][0]["momentum"] = 0.8


LOST: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "optimizer": (without_state, "optimizer", "the optimizer's state is not there"),
    "setting": (another_rate, "optimizer", "momentum 0.9 -> 0.8"),
    "weights": (in_bfloat16, "weights", "differ before the forward pass"),
    "buffers": (without_buffers, "weights", "buffers differ before the forward pass"),
    "model": (without_model, "weights", "weights and buffers differ before the forward pass"),
    "batch": (lambda state: state.update(batch=SAVED + 1), "data", "batch differs"),
    "random": (lambda state: state.update(random=torch.Generator().get_state()), "data", "random"),
    "mode": (lambda state: state.update(training=False), "forward", "training True -> False"),
}


def test_a_whole_checkpoint_repeats_to_the_bit(tmp_path: Path) -> None:
    found = resumed(tmp_path / "run.h5", lambda _: None)
    assert found.equal, found
    assert [each.repeated for each in found.resumes] == [KILLED - SAVED]


@pytest.mark.parametrize("what", LOST)
def test_what_was_lost_is_named(what: str, tmp_path: Path) -> None:
    lose, stage, why = LOST[what]
    (only,) = resumed(tmp_path / "run.h5", lose).resumes
    first = only.diff.first
    assert first is not None
    assert (first.step, first.stage) == (SAVED, stage), first
    assert why in first.cause
    blamed = f"one of {', '.join(first.one_of)}:" if first.one_of else f"{first.layer} "
    assert first.layer is None or f"from step {SAVED} on, {blamed}" in str(only)
    lost = {"random": "it was not restored as it was", "batch": "the data do not go on where"}
    assert lost.get(what, "") in str(only)
    assert what == "batch" or "the data do not go on" not in str(only)
    assert what != "model" or {"f0", "f1", "bn0", "bn1", "out"} == set(first.one_of)


@pytest.mark.parametrize("trace", [True, False])
def test_steps_that_were_not_watched_are_no_difference(tmp_path: Path, trace: bool) -> None:
    """Every third step from the start on, and every third from the resume on."""
    found = resumed(tmp_path / "run.h5", lambda _: None, trace=trace, every=3)
    assert found.equal, found


def test_what_was_lost_before_the_first_step_that_is_traced_names_no_layer(tmp_path: Path) -> None:
    (only,) = resumed(tmp_path / "run.h5", without_state, every=5).resumes
    first = only.diff.first
    assert first is not None
    assert (first.step, first.previous_step, first.stage) == (SAVED + 1, SAVED, "weights")
    assert first.layer is None
    assert "in steps that were not traced" in first.cause


@pytest.mark.filterwarnings("ignore:.*statistics of a watched model are missing")
def test_a_model_that_does_not_train_is_no_fault_of_the_data(tmp_path: Path) -> None:
    def left_in_eval(state: dict[str, Any]) -> None:
        state.update(mode=False, training=False)

    (only,) = resumed(tmp_path / "run.h5", left_in_eval, trace=False).resumes
    first = only.diff.first
    assert first is not None
    assert (first.step, first.stage, first.layer) == (SAVED, "forward", None)
    assert "only one run has its layers" in first.cause
