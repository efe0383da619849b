"""What is known of watched layers, their classes and the order in which they ran, is used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexrec
from flexrec.recorder import Recorder


class Backwards(nn.Module):
    """Whose layers run in another order than they were made in."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm, self.body = nn.Linear(4, 2), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.body(x)))
        return found


def trained(path: Path, eps: float = 1e-5, seed: int | None = None) -> Path:
    """A run in which the epsilon of the norm changes at step 6; noisy if it has a seed."""
    torch.manual_seed(0)
    model, batches = Backwards(), torch.randn(20, 8, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    noise = None if seed is None else torch.Generator().manual_seed(seed)
    with Recorder(path, facts=False) as rec:
        rec.watch(model, sources=("inputs", "outputs", "weights"), optimizer=optimizer)
        for step, batch in enumerate(batches):
            model.norm.eps = eps if step >= 6 else 1e-5
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            for parameter in model.parameters() if noise else ():
                assert parameter.grad is not None
                parameter.grad.mul_(1 + 1e-5 * torch.randn(parameter.shape, generator=noise))
            optimizer.step()
            rec.step()
    return path


def test_statistics_come_in_the_order_in_which_layers_ran(tmp_path: Path) -> None:
    first = flexrec.diff(trained(tmp_path / "a.h5"), trained(tmp_path / "b.h5", 1e-3)).first
    assert first is not None
    assert (first.step, first.stage, first.layer, first.kind) == (6, "forward", "norm", "LayerNorm")
    assert first.one_of == ()


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_by_the_spread_of_references(tmp_path: Path, eps: float) -> None:
    runs = [trained(tmp_path / f"{i}.h5", seed=i) for i in range(3)]
    found = flexrec.diff(runs[0], trained(tmp_path / "b.h5", eps, seed=9), noise=runs[1:])
    if eps == 1e-5:
        assert found.equal
        return
    assert found.first is not None
    assert (found.first.step, found.first.stage) == (6, "forward")
    assert (found.first.layer, found.first.kind) == ("norm", "LayerNorm")


def stepped(path: Path, change: Callable[[Any], object], sources: tuple[str, ...] = ()) -> Path:
    """A run whose optimizer is changed at step 6; it is not traced."""
    torch.manual_seed(0)
    model, batches = Backwards(), torch.randn(10, 8, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with Recorder(path, facts=False) as rec:
        options: Any = {"sources": sources} if sources else {}
        rec.watch(model, optimizer=optimizer, **options)
        for step, batch in enumerate(batches):
            if step == 6:
                change(optimizer)
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            rec.step()
    return path


def no_change(_: Any) -> None:
    """Leave the optimizer as it is."""


def setting(name: str, value: object) -> Callable[[Any], object]:
    """Change a setting of the optimizer."""
    return lambda optimizer: optimizer.param_groups[0].update({name: value})


MORE = ("inputs", "outputs", "grad_out", "grad_in", "grad_weights", "updates", "weights")
CHANGES: list[tuple[Callable[[Any], object], tuple[str, ...], str]] = [
    (setting("lr", 0.05), (), "optimizer/group0/lr 0.1 -> 0.05"),
    (
        lambda optimizer: optimizer.state.clear(),
        (),
        "state of the optimizer differs; gradients of weights were not recorded",
    ),
    (
        lambda optimizer: optimizer.state.clear(),
        MORE,
        "state of the optimizer differs, though gradients agree",
    ),
    (
        setting("nesterov", True),
        MORE,
        "weights differ, though gradients and the optimizer's state agree",
    ),
]


@pytest.mark.parametrize(
    ("change", "sources", "cause"), CHANGES, ids=["rate", "state", "state, by gradients", "weights"]
)
def test_what_an_optimizer_lost_is_named_without_a_trace(
    change: Callable[[Any], object], sources: tuple[str, ...], cause: str, tmp_path: Path
) -> None:
    a = stepped(tmp_path / "a.h5", no_change, sources)
    first = flexrec.diff(a, stepped(tmp_path / "b.h5", change, sources)).first
    assert first is not None
    assert (first.step, first.stage, first.layer) == (6, "optimizer", None)
    assert first.cause == cause
    is_unsure = "not recorded" in cause
    assert first.one_of == (("the gradients", "the optimizer") if is_unsure else ())


@pytest.mark.parametrize(("sources", "stage"), [((), "optimizer"), (MORE, "backward")])
def test_a_gradient_that_was_not_recorded_may_be_the_cause(
    sources: tuple[str, ...], stage: str, tmp_path: Path
) -> None:
    def scale(optimizer: Any) -> None:
        weight = optimizer.param_groups[0]["params"][0]
        weight.register_hook(lambda gradient: gradient * 1.5)

    a = stepped(tmp_path / "a.h5", no_change, sources)
    first = flexrec.diff(a, stepped(tmp_path / "b.h5", scale, sources)).first
    assert first is not None
    assert (first.step, first.stage, first.layer) == (6, stage, "head")
    assert first.one_of == (() if sources else ("the gradients of head", "the optimizer"))
