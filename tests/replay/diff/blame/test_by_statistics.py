"""What is blamed where a layer has no weights, and where a step was not traced."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import flexrec
from flexrec.recorder import Recorder
from flexrec.recorder.files.names import ON_ACCELERATOR
from flexrec.recorder.layers.tracing import trace
from flexrec.replay.diff.model import order_of


class Net(nn.Module):
    """A layer without weights in the middle, and what is watched of it."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 4), middle, nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.middle(self.first(x)))
        return y


def trained(
    path: Path,
    middle: nn.Module,
    spoil: Callable[[Net], object] | None = None,
    *,
    at: int = 2,
    stats: tuple[str, ...] = ("mean",),
    sources: tuple[str, ...] = ("inputs", "outputs"),
    **watched: Any,
) -> Path:
    """Record three steps; before one the model is spoilt, or the random state drawn from."""
    torch.manual_seed(0)
    model = Net(middle)
    with Recorder(path, mode="w") as rec:
        rec.watch(model, sources=sources, stats=stats, **watched)
        for step in range(3):
            if spoil is not None and step == at:
                spoil(model)
            x = torch.linspace(0, 1, 8).view(2, 4)
            loss = model(x).square().mean()
            rec.fingerprint(loss=loss)
            loss.backward()
            rec.step()
    return path


def soften(model: Net) -> None:
    model.middle.negative_slope = 0.5  # type: ignore[assignment]


def test_a_layer_without_weights_is_blamed_alone(tmp_path: Path) -> None:
    a = trained(tmp_path / "a.h5", nn.LeakyReLU())
    first = flexrec.diff(a, trained(tmp_path / "b.h5", nn.LeakyReLU(), soften)).first
    assert first is not None
    assert (first.step, first.layer, first.one_of) == (2, "middle", ())


def test_a_dropout_may_have_had_another_random_state(tmp_path: Path) -> None:
    a = trained(tmp_path / "a.h5", nn.Dropout())
    b = trained(tmp_path / "b.h5", nn.Dropout(), lambda _: torch.rand(1))
    found = flexrec.diff(a, b)
    first = found.first
    assert first is not None
    assert (first.step, first.layer) == (2, "middle")
    assert first.one_of == ("middle", "the random state before middle")
    assert ", one of middle, the random state before middle: " in found.headline


def test_a_random_state_is_a_candidate_too_if_outputs_were_not_recorded(tmp_path: Path) -> None:
    a = trained(tmp_path / "a.h5", nn.Dropout(), sources=("inputs",))
    b = trained(tmp_path / "b.h5", nn.Dropout(), lambda _: torch.rand(1), sources=("inputs",))
    first = flexrec.diff(a, b).first
    assert first is not None
    random = "the random state before middle"
    assert first.one_of == ("middle", random, "the model", "a layer in parallel")


def test_how_far_fingerprints_are_apart_says_nothing(tmp_path: Path) -> None:
    a = trained(tmp_path / "a.h5", nn.LeakyReLU())
    b = trained(tmp_path / "b.h5", nn.LeakyReLU(), lambda model: model.last.bias.data.add_(1))
    found = flexrec.diff(a, b)
    assert "loss/fingerprint" in found.keys.differ
    assert found.crossed == ()


def test_the_next_trace_tells_what_is_still_another(tmp_path: Path) -> None:
    """The loss is recorded at every step, and differs before the next step that is traced."""
    a = trained(tmp_path / "a.h5", nn.LeakyReLU(), trace=True, every=2)
    b = trained(tmp_path / "b.h5", nn.LeakyReLU(), soften, at=1, trace=True, every=2)
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.step, first.stage, first.layer) == (1, "loss", None)
    assert first.cause.endswith("at step 2, traced next, middle: negative_slope 0.01 -> 0.5")


def test_inputs_are_equal_to_the_bit_where_their_fingerprints_are(tmp_path: Path) -> None:
    of_bits = "mean", "fingerprint"
    for stats, said in ((("mean",), "as far as recorded"), (of_bits, "to the bit")):
        a = trained(tmp_path / "a.h5", nn.LeakyReLU(), stats=stats)
        first = flexrec.diff(
            a, trained(tmp_path / "b.h5", nn.LeakyReLU(), soften, stats=stats)
        ).first
        assert first is not None
        assert first.cause == f"outputs differ, its inputs are equal {said}"


def test_a_trace_that_was_not_compared_does_not_excuse_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the runs was traced on an accelerator, and only its statistics can be compared."""
    a = trained(tmp_path / "a.h5", nn.LeakyReLU(), trace=True)
    monkeypatch.setattr(trace, "fingerprint", lambda found: ON_ACCELERATOR + int(found.numel()))
    b = trained(tmp_path / "b.h5", nn.LeakyReLU(), soften, trace=True)
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.step, first.stage, first.layer) == (2, "forward", "middle")


def test_a_layer_that_did_not_run_at_first_comes_after_the_one_before_it() -> None:
    layers: dict[str, Any] = {"first": {"order": 0}, "expert": {}, "last": {"order": 1}}
    order = order_of(SimpleNamespace(name="a", config=None, facts=None, layers=layers))
    assert sorted(layers, key=order.__getitem__) == ["first", "expert", "last"]


def test_layers_that_did_not_run_at_first_keep_the_order_of_their_model() -> None:
    layers: dict[str, Any] = {
        "a.first": {"order": 0, "model": 0},
        "a.one": {"model": 0},
        "a.other": {"model": 0},
        "a.last": {"order": 1, "model": 0},
        "b.one": {"model": 1},
        "b.last": {"order": 0, "model": 1},
    }
    order = order_of(SimpleNamespace(name="a", config=None, facts=None, layers=layers))
    for model in "ab":
        places = [order[layer] for layer in layers if layer.startswith(model)]
        assert places == sorted(set(places))


def test_gradients_of_weights_alone_do_not_tell_where_they_come_from(tmp_path: Path) -> None:
    def bend(model: Net) -> None:
        model.middle.register_full_backward_hook(lambda *found: (found[1][0] * 1.1,))

    for sources, candidates in (
        (("grad_weights",), ("first", "the gradients of outputs")),
        (("grad_weights", "grad_out", "grad_in"), None),
    ):
        a, b = (
            trained(tmp_path / f"{i}.h5", nn.LeakyReLU(), spoil, sources=sources)
            for i, spoil in enumerate((None, bend))
        )
        first = flexrec.diff(a, b).first
        assert first is not None
        assert (first.step, first.stage) == (2, "backward")
        if candidates:
            assert first.one_of == candidates
        else:
            assert "middle" in (first.one_of or (first.layer,))
