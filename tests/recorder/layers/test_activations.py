"""Activations on a probe batch, and the information plane from file to window."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from flexrec.recorder import DefinitionError, InputError, Recorder, Recording
from flexrec.replay import play, preset
from flexrec.replay.diff.compare import diff

pytest.importorskip("torch")
import torch

from flexrec.recorder.layers.activations import activations

ROOT = Path(__file__).resolve().parents[3]


def net() -> "torch.nn.Sequential":
    """A network whose training and evaluation differ."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 2))


def test_layers_give_what_they_give_in_evaluation() -> None:
    model, inputs = net(), torch.randn(6, 4)
    found = activations(model, inputs)
    assert list(found) == ["0", "1", "2", "3"]
    hidden = torch.tanh(model[0](inputs))
    assert torch.equal(found["1"].rows, hidden.detach())
    assert torch.equal(found["2"].rows, hidden.detach()), "no dropout"
    assert not found["3"].rows.requires_grad


def test_the_model_is_left_as_it_was() -> None:
    model = net()
    model[1].eval()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    activations(model, torch.randn(6, 4, generator=torch.Generator()), layers="1")
    assert torch.equal(before, torch.get_rng_state())
    assert [module.training for module in model] == [True, False, True, True]
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        activations(model, torch.randn(6, 5))
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_images_are_flattened_and_arguments_are_passed_on() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 3)
            self.index = torch.nn.Identity()

        def forward(self, x: "torch.Tensor", *, scale: float = 1.0) -> "torch.Tensor":
            self.index(torch.arange(3))
            return self.conv(x * scale)

    found = activations(Two(), {"x": torch.randn(5, 1, 4, 4), "scale": 2.0})
    assert {name: tuple(of.rows.shape) for name, of in found.items()} == {"conv": (5, 8)}


def test_what_cannot_be_recorded_is_told() -> None:
    with pytest.raises(DefinitionError, match="no layer 'fc'"):
        activations(net(), torch.randn(2, 4), "fc")
    with pytest.raises(InputError, match="no layer returned a floating tensor"):
        activations(torch.nn.Sequential(torch.nn.Identity()), torch.arange(3))


def test_the_information_plane_from_file_to_window(tmp_path: Path) -> None:
    bits = torch.arange(64)[:, None] >> torch.arange(6) & 1
    model = torch.nn.Sequential(torch.nn.Linear(6, 2), torch.nn.Tanh())
    with Recorder(tmp_path / "run.h5") as rec:
        for epoch, weights in enumerate((0.0, 9.0)):
            torch.nn.init.zeros_(model[0].bias)
            torch.nn.init.zeros_(model[0].weight)
            model[0].weight.data[0, 0] = weights
            rec.activations(model, 2.0 * bits - 1, bits[:, 0], layers="1")
            rec.log(epoch)
    with Recording(tmp_path / "run.h5") as run:
        (window,) = play(run, preset("infoplane"))
    (trace,) = window.traces
    assert trace.name == "1 Tanh"
    assert trace.x.tolist() == [0.0, 1.0], "I(X;T): nothing, then one bit"
    assert trace.y.tolist() == [0.0, 1.0], "I(T;Y) likewise"
    assert trace.marks.tolist() == [0.0, 1.0]


def test_the_example_shows_layers_losing_what_the_next_does_not_get(tmp_path: Path) -> None:
    out = tmp_path / "plane.h5"
    subprocess.run(
        [
            *(sys.executable, ROOT / "examples" / "infoplane.py", "--out", out),
            *("--epochs", "20", "--marks", "5"),
        ],
        check=True,
        capture_output=True,
    )
    with Recording(out) as run:
        plane, *others = play(run, preset("infoplane+snr"))
    assert [trace.name for trace in plane.traces] == [f"{i} Tanh" for i in (1, 3, 5, 7, 9)]
    for trace in plane.traces:
        assert ((trace.y >= 0) & (trace.y <= 1)).all(), "I(T;Y) is at most H(Y), one bit"
        assert (trace.x <= 12).all(), "I(X;T) is at most H(X), twelve bits"
        assert (trace.y <= trace.x + 1e-9).all()
    for before, after in pairwise(plane.traces):
        assert (after.x <= before.x + 1.0).all(), "data processing, up to the binning"
    assert plane.traces[-1].y[-1] > plane.traces[-1].y[0], "training teaches the last layer of Y"
    assert len(others) == 2  # signal and noise in one


@pytest.mark.parametrize("name", ["", "net"])
def test_the_layers_are_described_beside_those_that_are_watched(tmp_path: Path, name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    inputs, classes = torch.randn(6, 4), torch.arange(6) % 2
    path, before = tmp_path / "run.h5", f"{name}." * bool(name)
    with Recorder(path) as rec:
        rec.activations(model, inputs, classes, layers=["0", "1"], name=name)
        rec.watch(model, layers=["0", "2"], name=name)
        model(inputs).sum().backward()
        rec.step()  # describes the watched layers
    with Recorder(path, mode="resume") as rec:
        rec.watch(model, layers=["0", "2"], name=name)
        model(inputs).sum().backward()
        rec.step()
        rec.activations(model, inputs, classes, layers="1", name=name)
    with Recording(path) as run:
        ((model_name, layers),) = run.models.items()
        (window,) = play(run, preset("infoplane"))
    assert model_name == (name or "Sequential")
    assert {n.removeprefix(before): (of["class"], of["order"]) for n, of in layers.items()} == {
        "0": ("Linear", 0),
        "2": ("Linear", 1),
        "1": ("Tanh", None),
    }
    assert layers[f"{before}1"]["calls"] is None
    assert [trace.name for trace in window.traces] == [f"{before}0 Linear", f"{before}1 Tanh"]


def test_the_layers_of_earlier_parts_stay_described_and_new_classes_replace_old(
    tmp_path: Path,
) -> None:
    model, inputs, classes = net(), torch.randn(6, 4), torch.arange(6) % 2
    path = tmp_path / "run.h5"
    with Recorder(path) as rec:
        rec.activations(model, inputs, classes)
        model[1] = torch.nn.ReLU()
        rec.activations(model, inputs, classes, layers=iter(["1"]))  # it is used up at once
    with Recorder(path, mode="resume") as rec:
        rec.watch(model, layers=["0"])
        model(inputs).sum().backward()
        rec.step()
    with Recording(path) as run:
        (layers,) = run.models.values()
    found = {name: (of["class"], of["calls"]) for name, of in layers.items()}
    unwatched = {"1": ("ReLU", None), "2": ("Dropout", None), "3": ("Linear", None)}
    assert found == {"0": ("Linear", 1), **unwatched}


def test_a_layer_that_the_pass_removes_or_leaves_without_shape_is_described(
    tmp_path: Path,
) -> None:
    class Once(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.UninitializedParameter()
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            out = self.head(x)
            del self.head
            return out

    with Recorder(tmp_path / "run.h5") as rec:
        rec.activations(Once(), torch.randn(2, 4), [0, 1], name="net")
    with Recording(tmp_path / "run.h5") as run:
        found = {name: (of["class"], of["parameters"]) for name, of in run.models["net"].items()}
        assert len(run) == 2
    assert found == {"net.Once": ("Once", 0), "net.head": ("Linear", 10)}


def test_threads_describe_their_models_at_the_same_time(tmp_path: Path) -> None:
    inputs, before = torch.randn(2, 4), sys.getswitchinterval()

    def evaluate(name: str) -> None:
        for number in range(20):
            rec.activations(torch.nn.Linear(4, 2), inputs, [0, 1], name=f"{name}{number}")

    sys.setswitchinterval(1e-6)
    try:
        with Recorder(tmp_path / "run.h5", facts=False) as rec, ThreadPoolExecutor(4) as pool:
            evaluations = [pool.submit(evaluate, name) for name in "abcd"]
            while not all(each.done() for each in evaluations):
                rec.describe({"watched": {"0": {"class": "Linear", "calls": 1}}})
            for each in evaluations:
                each.result()
    finally:
        sys.setswitchinterval(before)
    with Recording(tmp_path / "run.h5") as run:
        assert len(run.models) == 81


def test_a_copy_records_no_activations(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        copied = pickle.loads(pickle.dumps(rec))  # noqa: S301
        copied.activations(torch.nn.Linear(4, 2), torch.randn(2, 4), [0, 1])
        copied.describe({"net": {}})
    with Recording(tmp_path / "run.h5") as run:
        assert run.models == {}


def test_a_diff_says_the_same_with_activations_and_without(tmp_path: Path) -> None:
    def record(name: str, *probes: str, scale: float = 1.0) -> Path:
        torch.manual_seed(0)
        models, inputs, sources = {each: net() for each in "ab"}, torch.randn(6, 4), ("outputs",)
        with Recorder(tmp_path / name) as rec:
            for each in probes:
                rec.activations(models[each], inputs, [0, 1] * 3, name=each)
                rec.activations(models[each], inputs, [0, 1] * 3)
            for each, model in models.items():
                rec.watch(model, layers=["0", "1"], sources=sources, name=each)
            for model in models.values():
                model(scale * inputs).sum().backward()
            rec.step()
        return tmp_path / name

    def said(one: Path, other: Path) -> str:
        text = str(diff(one, other, keys="*/outputs/*"))
        return text.replace(one.name, "one").replace(other.name, "other")

    plain = record("plain.h5"), record("plain-2.h5", scale=2.0)
    probed = record("probed.h5", "b", "a"), record("probed-2.h5", "b", scale=2.0)
    assert "differ" in said(*plain)
    assert said(probed[0], probed[1]) == said(plain[0], probed[1]) == said(*plain)
    assert "are equal" in said(plain[0], probed[0])


def test_a_run_without_facts_has_none_because_of_activations(tmp_path: Path) -> None:
    for name, facts in (("full.h5", True), ("bare.h5", False), ("probed.h5", False)):
        with Recorder(tmp_path / name, facts=facts) as rec:
            rec.add(loss=1.0)
            if name == "probed.h5":
                rec.activations(net(), torch.randn(6, 4), [0, 1] * 3)
    plain = str(diff(tmp_path / "bare.h5", tmp_path / "full.h5", keys="loss"))
    assert "are equal" in plain
    probed = str(diff(tmp_path / "probed.h5", tmp_path / "full.h5", keys="loss"))
    assert probed.replace("probed.h5", "bare.h5") == plain


def test_classes_are_checked_before_anything_is_recorded(tmp_path: Path) -> None:
    class Folds(torch.nn.Module):
        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            return x.reshape(-1, 2)

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), Folds(), torch.nn.Linear(2, 2))
    inputs = torch.randn(6, 4)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for wrong in (torch.zeros(7), torch.zeros(6, 2), 3, [0, 1]):
            with pytest.raises(InputError, match=r"one number per sample.* have 12, 6 rows"):
                rec.activations(model, inputs, wrong)
        rec.activations(model, inputs, [0, 1] * 3)
    with Recording(tmp_path / "run.h5") as run:
        assert run.keys() == ["0/activations"]  # the others have no row for each sample


def test_a_layer_that_diverged_leaves_the_others_on_the_plane(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    inputs, classes = torch.randn(6, 4), torch.arange(6) % 2
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for epoch in range(3):
            if epoch == 2:
                torch.nn.init.constant_(model[2].weight, float("nan"))
            rec.activations(model, inputs, classes)
            rec.log(epoch)
    with Recording(tmp_path / "run.h5") as run:
        (window,) = play(run, preset("infoplane"))
    assert [len(trace.y) for trace in window.traces] == [3, 3, 3]
    assert [int(np.isnan(trace.y).sum()) for trace in window.traces] == [0, 0, 1]
