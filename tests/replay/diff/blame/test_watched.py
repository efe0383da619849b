"""What is known of watched layers, their classes and the order in which they ran, is used."""

from pathlib import Path

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
