"""A tensor that several parts of a model use: what is blamed if one of them does so differently."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import flexrec
from flexrec.recorder import Recorder

AT = 2
ALL = ("inputs", "outputs", "grad_out", "grad_in", "grad_weights", "weights")
WATCHED: dict[str, dict[str, Any]] = {
    "trace": {"trace": True},
    "default": {},
    "all": {"sources": ALL, "stats": ("mean", "fingerprint")},
}


class Around(nn.Module):
    """Layers in a Sequential, and a connection around them."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.as_tensor(self.f(x))


class Net(nn.Module):
    """With connections around a layer and around blocks, two heads, and experts to choose from."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(Around() for _ in range(2))
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.aux = nn.Linear(6, 3)
        self.fault = ""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x)
        h = self.b(h) + self.used("around_b", h)
        kept = h
        for block in self.blocks:
            h = block(h)
        h = h + self.used("around_blocks", kept)
        h = h + self.experts[2 if self.fault == "expert" else 0](h)
        return self.c(h), self.aux(self.used("aux", h))

    def used(self, fault: str, x: Tensor) -> Tensor:
        """The tensor, without a gradient if there is this fault."""
        return x.detach() if self.fault == fault else x


def trained(path: Path, fault: Callable[[Net], object], **watched: Any) -> Path:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(path, mode="w", facts=False) as rec:
        rec.watch(model, optimizer=optimizer, **watched)
        for step in range(AT + 1):
            if step == AT:
                fault(model)
            x = torch.linspace(-1, 1, 20).view(5, 4) * (step + 1)
            rec.fingerprint(batch=x)
            optimizer.zero_grad()
            one, other = model(x)
            loss = functional.cross_entropy(one, torch.arange(5) % 3) + other.square().mean()
            rec.fingerprint(loss=loss)
            loss.backward()
            optimizer.step()
            rec.step()
    return path


def after_block(model: Net) -> object:
    return model.blocks[0].register_forward_hook(lambda *found: found[2] * 1.01)


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize(
    ("fault", "culprit"),
    [
        ("around_b", "the model"),
        ("around_blocks", "the model"),
        ("aux", "the model"),
        ("expert", "the model"),
        (after_block, "blocks.0"),
    ],
)
def test_whose_code_may_use_it_is_among_the_candidates(
    watched: str, fault: str | Callable[[Net], object], culprit: str, tmp_path: Path
) -> None:
    def plant(model: Net) -> None:
        if isinstance(fault, str):
            model.fault = fault
        else:
            fault(model)

    whole = trained(tmp_path / "a.h5", lambda _: None, **WATCHED[watched])
    bent = trained(tmp_path / "b.h5", plant, **WATCHED[watched])
    culprit = "Net" if (culprit, watched) == ("the model", "trace") else culprit
    for a, b in ((whole, bent), (bent, whole)):
        first = flexrec.diff(a, b).first
        assert first is not None
        assert first.step == AT
        assert culprit in (first.one_of or (first.layer,)), first


class Pair:
    """Two models, the second of which gets the outputs of the first, each with its optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.one = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6))
        self.other = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
        models = self.one, self.other
        self.optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in models]

    def train(self, path: Path, fault: str = "", **watched: Any) -> Path:
        with Recorder(path, mode="w", facts=False) as rec:
            rec.watch(self.one, name="one", optimizer=self.optimizers[0], **watched)
            rec.watch(self.other, name="other", optimizer=self.optimizers[1], **watched)
            for step in range(AT + 1):
                now = fault if step == AT else ""
                x = torch.linspace(-1, 1, 20).view(5, 4) * (step + 1)
                rec.fingerprint(batch=x)
                if now == "hook":
                    self.one[1].register_forward_hook(lambda *found: found[2] * 1.01)
                if now != "kept":
                    self.optimizers[0].zero_grad()
                self.optimizers[1].zero_grad()
                loss = self.other(self.one(x)).square().mean()
                if now == "again":
                    self.other(self.one(x).detach())
                rec.fingerprint(loss=loss)
                loss.backward()
                for parameter in self.one.parameters() if now == "scaled" else ():
                    assert parameter.grad is not None
                    parameter.grad *= 0.5
                for optimizer in self.optimizers:
                    optimizer.step()
                rec.step()
        return path


def test_layers_of_several_models_are_compared_in_the_order_of_the_models(tmp_path: Path) -> None:
    whole = Pair().train(tmp_path / "a.h5")
    first = flexrec.diff(whole, Pair().train(tmp_path / "b.h5", "hook")).first
    assert first is not None
    assert (first.stage, first.layer) == ("forward", "one.1")


@pytest.mark.parametrize("fault", ["scaled", "kept"])
def test_all_gradients_of_a_model_name_no_layer(fault: str, tmp_path: Path) -> None:
    whole = Pair().train(tmp_path / "a.h5", trace=True)
    first = flexrec.diff(whole, Pair().train(tmp_path / "b.h5", fault, trace=True)).first
    assert first is not None
    assert (first.stage, first.layer, first.one_of) == ("backward", None, ())


def test_a_loss_is_no_layer(tmp_path: Path) -> None:
    """One run calls its models again, the other goes on with the loss."""
    whole = Pair().train(tmp_path / "a.h5", trace=True)
    bent = Pair().train(tmp_path / "b.h5", "again", trace=True)
    for runs in ((whole, bent), (bent, whole)):
        first = flexrec.diff(*runs).first
        assert first is not None
        assert "loss" not in (first.layer, *first.one_of)
