"""What the statistics of layers are blamed on where a layer has no weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import flexrec
from flexrec.recorder import Recorder


class Net(nn.Module):
    """A layer without weights in the middle, and what is watched of it."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 4), middle, nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)))


def trained(path: Path, middle: nn.Module, spoil: Callable[[Net], object] | None = None) -> Path:
    """Record three steps; before the last the model is spoilt, or the random state drawn from."""
    torch.manual_seed(0)
    model = Net(middle)
    with Recorder(path) as rec:
        rec.watch(model, sources=("inputs", "outputs"), stats=("mean",))
        for step in range(3):
            if spoil is not None and step == 2:
                spoil(model)
            x = torch.linspace(0, 1, 8).view(2, 4)
            loss = model(x).square().mean()
            rec.fingerprint(loss=loss)
            loss.backward()
            rec.step()
    return path


def test_a_layer_without_weights_is_blamed_alone(tmp_path: Path) -> None:
    def soften(model: Net) -> None:
        model.middle.negative_slope = 0.5  # type: ignore[assignment]

    a = trained(tmp_path / "a.h5", nn.LeakyReLU())
    first = flexrec.diff(a, trained(tmp_path / "b.h5", nn.LeakyReLU(), soften)).first
    assert first is not None
    assert (first.step, first.layer, first.one_of) == (2, "middle", ())


def test_a_dropout_may_have_had_another_random_state(tmp_path: Path) -> None:
    a = trained(tmp_path / "a.h5", nn.Dropout())
    b = trained(tmp_path / "b.h5", nn.Dropout(), lambda _: torch.rand(1))
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.step, first.layer) == (2, "middle")
    assert first.one_of == ("middle", "the random state before middle")


def test_how_far_fingerprints_are_apart_says_nothing(tmp_path: Path) -> None:
    a = trained(tmp_path / "a.h5", nn.LeakyReLU())
    b = trained(tmp_path / "b.h5", nn.LeakyReLU(), lambda model: model.last.bias.data.add_(1))
    found = flexrec.diff(a, b)
    assert "loss/fingerprint" in found.keys.differ
    assert found.crossed == ()
