"""Nothing is put into a model that is traced, and an optimizer's hooks go with their recorder."""

import copy
import gc
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flexrec.recorder import Recorder
from flexrec.recorder.layers.calls import EagerWhileObserved
from support.tooled_cases import (
    Small,
    deep_copy,
    hooked,
    is_observed,
    normalised,
    of_the_user,
    saved,
)

MODELS = [Small, hooked, normalised, lambda: nn.Linear(3, 2)]


WAYS: dict[str, Callable[[Any], bytes]] = {
    "torch.save": saved,
    "of a deep copy": lambda value: saved(deep_copy(value)),
    "of a copy": lambda value: saved(copy.copy(value)),
    "of the dict of state": lambda value: saved(value.state_dict()),
}
MOMENTS = ["before", "pass", "backward pass", "optimizer's step", "between", "untraced", "closed"]


def trained(
    path: Path, make: Callable[[], nn.Module], when: str, way: Callable[[Any], bytes], watch: bool
) -> list[bytes]:
    """The bytes of model, parameters and optimizer at a moment of training, which goes on."""
    torch.manual_seed(0)
    RemovableHandle.next_id = 0  # the numbers of hooks are pickled
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    found: list[bytes] = []

    def reach(moment: str) -> None:
        if moment == when:
            whole = [model, optimizer] if way is WAYS["of the dict of state"] else everything()
            found.extend(way(each) for each in whole)

    def everything() -> list[Any]:
        return [model, optimizer, *model.parameters()]

    with Recorder(path, facts=False) as rec:
        if watch:
            rec.watch(model, trace=True, optimizer=optimizer, every=2)
        reach("before")
        for step in range(2):
            optimizer.zero_grad()
            output = model(torch.randn(4, 3, requires_grad=True))
            if not step:
                model.register_forward_hook(of_the_user)
                reach("pass")
            output.square().sum().backward()
            if not step:
                reach("backward pass")
            optimizer.step()
            if not step:
                reach("optimizer's step")
            rec.step()
            reach("untraced" if step else "between")
    reach("closed")
    return found


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", MODELS)
def test_what_is_saved_is_that_of_training_never_watched(
    tmp_path: Path, make: Callable[[], nn.Module], way: str, when: str
) -> None:
    traced = trained(tmp_path / "traced.h5", make, when, WAYS[way], watch=True)
    plain = trained(tmp_path / "plain.h5", make, when, WAYS[way], watch=False)
    assert len(traced) >= 2
    assert traced == plain


class Saves(nn.Module):
    """Saves the whole model while it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: list[nn.Module] = []
        self.found: list[bytes] = []

    def forward(self, x: Tensor) -> Tensor:
        self.found.append(saved(self.whole[0]))
        return x * 2


@pytest.mark.parametrize("armed", [False, True])
def test_a_pickle_amid_a_pass_is_that_of_a_model_never_watched(tmp_path: Path, armed: bool) -> None:
    def bytes_of(watch: bool) -> list[bytes]:
        torch.manual_seed(0)
        saves = Saves()
        model = nn.Sequential(nn.Linear(3, 2), saves)
        saves.whole.append(model)
        with Recorder(tmp_path / f"{watch}.h5", facts=False) as rec:
            if watch:
                rec.watch(model, trace=True)
            if armed:
                rec.fingerprint(batch=torch.ones(2, 3))
            model(torch.ones(2, 3)).sum().backward()
            rec.step()
        return saves.found

    traced, plain = bytes_of(True), bytes_of(False)
    assert len(traced) == 1
    assert traced == plain


def test_a_traced_model_loads_with_weights_only(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(model, trace=True)
        model(torch.ones(2, 3)).sum().backward()
        with torch.serialization.safe_globals([nn.Sequential, nn.Linear, nn.ReLU]):
            amid = torch.load(io.BytesIO(saved(model)), weights_only=True)
            rec.step()
            between = torch.load(io.BytesIO(saved(model)), weights_only=True)
    x = torch.randn(4, 3)
    assert torch.equal(amid(x), model(x))
    assert torch.equal(between(x), model(x))


def hooks_on(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """How many there are, of any kind."""
    values = [vars(module) for module in model.modules()] + [vars(optimizer)]
    tables = [value for each in values for name, value in each.items() if "hooks" in name]
    tables += [p._post_accumulate_grad_hooks for p in model.parameters()]
    tables += [p._backward_hooks for p in model.parameters()]
    return sum(len(table) for table in tables if hasattr(table, "__len__"))


@pytest.mark.parametrize("when", ["between", "amid a step"])
@pytest.mark.parametrize("how", ["closed", "unreachable"])
def test_nothing_is_left_on_model_and_optimizer(tmp_path: Path, how: str, when: str) -> None:
    model: Any = Small()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rec = Recorder(tmp_path / "run.h5", facts=False)
    rec.watch(model, trace=True, optimizer=optimizer)
    compiled(torch.ones(2, 3)).sum().backward()
    assert hooks_on(model, optimizer) > 4
    if when == "between":
        rec.step()
        assert hooks_on(model, optimizer) == 4  # the statistics' and the trace's, of the optimizer
    if how == "closed":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # step() may have been left out
            rec.close()
    del rec
    gc.collect()
    assert hooks_on(model, optimizer) == 0
    assert not is_observed()
    assert EagerWhileObserved.holders == 0


class SavesAll(torch.optim.SGD):
    """Pickles all its attributes."""

    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301
)
def test_an_optimizer_that_pickles_all_its_attributes_can_be_copied(
    tmp_path: Path, duplicate: Callable[[Any], Any]
) -> None:
    model = Small()
    optimizer = SavesAll(model.parameters(), 0.1)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(model, trace=True, optimizer=optimizer)
        model(torch.ones(2, 3)).sum().backward()
        twin = duplicate(optimizer)
        twin.step()
        optimizer.step()
        rec.step()
    mine, its = optimizer.param_groups[0]["params"], twin.param_groups[0]["params"]
    assert len(mine) == len(its)
