"""Models whose parts are called, or replaced; and tensors of which one cannot be measured."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from flexrec.recorder import Recorder, Recording, TooledModel
from flexrec.recorder.layers.measuring.statistics import SOURCES, STATISTICS
from support.tooled_cases import ALL, sources_of, step_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- parts that are called


class Trained(nn.Module):
    """As a LightningModule: its methods call its parts, nobody calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))

    def training_step(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


def by_parts(model: Any) -> Tensor:
    return model.training_step(X)


def by_layers(model: Any) -> Tensor:
    x = X
    for layer in [*model.net, model.head]:
        x = layer(x)
    return x


def by_checkpoint(model: Any) -> Tensor:
    return model.head(checkpoint.checkpoint(model.net, X, use_reentrant=False))


@pytest.mark.parametrize("call", [by_parts, by_layers, by_checkpoint])
def test_parts_that_are_called_give_what_the_whole_gives(call: Callable[[Any], Tensor]) -> None:
    model = Trained()
    expected = step_of(model, X)
    model.zero_grad()
    with TooledModel(model, ALL) as tooled:
        call(model).square().sum().backward()
        assert tooled.step() == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_a_dict_of_modules_is_recorded_from_the_first_step_on(tmp_path: Path) -> None:
    model = nn.ModuleDict({"enc": nn.Linear(4, 3), "dec": nn.Linear(3, 4)})
    with warnings.catch_warnings(action="error"), Recorder(tmp_path / "run.h5") as rec:
        rec.watch(model, sources=("inputs",), stats=("mean",))
        for _ in range(3):
            model["dec"](model["enc"](X)).sum().backward()
            rec.step()
    with Recording(tmp_path / "run.h5") as run:
        assert {name: list(run[name].step) for name in run.keys()} == {  # noqa: SIM118
            "enc/inputs/mean": [0, 1, 2],
            "dec/inputs/mean": [0, 1, 2],
        }


def test_several_passes_through_parts_are_pooled() -> None:
    model = nn.ModuleDict({"enc": nn.Linear(4, 3)})
    with TooledModel(model, ("inputs",), ("mean",)) as tooled:
        for shift in (1.0, 3.0):
            model["enc"](torch.full((2, 4), shift)).sum().backward()
        assert tooled.step() == {"enc/inputs/mean": 2.0}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_parts_in_evaluation_do_not_count(moment: str) -> None:
    model = Trained()
    with TooledModel(model, ("inputs",), ("mean",)) as tooled:

        def evaluate() -> None:
            model.eval()
            model.training_step(X + 100)
            with torch.no_grad():
                model.train().training_step(X + 100)

        if moment == "before":
            evaluate()
        model.training_step(X).sum().backward()
        if moment == "after":
            evaluate()
        assert tooled.step()["net.0/inputs/mean"] == pytest.approx(X.mean().item())


def test_a_part_that_evaluates_inside_a_training_pass_counts() -> None:
    model = Trained()
    model.net[2].eval()
    values = step_of(model, X)
    assert sources_of(values, "net.2") >= {"inputs", "outputs"}


@pytest.mark.parametrize("watched", [False, True])
def test_a_generator_and_its_critic_train_as_without(watched: bool) -> None:
    def trained(watch: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.ModuleDict({"gen": Trained(), "critic": nn.Linear(2, 1)})
        optimizers = {k: torch.optim.Adam(part.parameters()) for k, part in model.items()}
        tooled = TooledModel(model, SOURCES, list(STATISTICS), every=2) if watch else None
        losses = []
        for _ in range(5):
            for name, optimizer in optimizers.items():
                optimizer.zero_grad()
                loss = model["critic"](model["gen"](X)).mean() * (1 if name == "gen" else -1)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            if tooled is not None:
                tooled.step()
        return losses

    assert trained(watched) == trained(False)


# ---------------------------------------------------------------- layers that are replaced


def trained_step(model: nn.Module, tooled: TooledModel, x: Tensor = X) -> dict[str, Any]:
    model.zero_grad()
    model(x).square().sum().backward()
    return tooled.step()


def test_a_layer_that_is_replaced_is_followed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    sources = ("weights", "updates", "outputs", "grad_out", "grad_weights")
    with TooledModel(model, sources, ("norm", "snr")) as tooled:
        trained_step(model, tooled)
        old = model[1]
        model[1] = nn.Linear(4, 3)
        values = trained_step(model, tooled)
        assert values["1/weights/norm"] == pytest.approx(model[1].weight.norm().item(), rel=1e-4)
        assert {"1/outputs/norm", "1/grad_out/norm", "1/updates/norm"} <= values.keys()
        assert values["1/grad_weights/snr"] == float("inf"), "of the first of its gradients"
        old(X).sum().backward()  # is no part any more
        assert tooled.step() == {}


def test_parts_that_are_put_in_place_of_a_layer_or_added_are_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with TooledModel(model, ("inputs",), ("mean",)) as tooled:
        trained_step(model, tooled)
        model[1] = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        model.append(nn.Linear(3, 1))
        assert tooled.layers == ("0", "1")
        assert list(trained_step(model, tooled)) == [
            f"{layer}/inputs/mean" for layer in ("0", "1.0", "1.1", "2")
        ]


def test_a_replaced_layer_is_chosen_as_the_first_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with TooledModel(model, ("inputs",), ("mean",), layers=["1"], name="m") as tooled:
        model[1] = nn.Sequential(nn.Linear(4, 3))
        assert list(trained_step(model, tooled)) == ["m.1/inputs/mean"]


def test_a_layer_that_is_gone_is_spoken_of() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tooled = TooledModel(model, ("inputs",), ("mean",), layers=["0", "1"])
    trained_step(model, tooled)
    del model[1]
    with pytest.warns(RuntimeWarning, match=r"no longer in it, and left out: 1 \(no layer '1'"):
        values = trained_step(model, tooled)
    assert list(values) == ["0/inputs/mean"]
    assert trained_step(model, tooled)


def test_any_layer_that_is_gone_is_spoken_of_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tooled = TooledModel(model, ("inputs",), ("mean",))
    trained_step(model, tooled)
    del model[1]
    with pytest.warns(RuntimeWarning, match="no longer in it, and left out: 1$"):
        trained_step(model, tooled)
    model.append(nn.Linear(4, 4))
    trained_step(model, tooled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del model[1]
        assert list(trained_step(model, tooled)) == ["0/inputs/mean"]


def test_a_layer_that_is_elsewhere_keeps_its_name() -> None:
    model = nn.Sequential(OrderedDict(a=nn.Linear(4, 4), fc=nn.Linear(4, 4)))
    tooled = TooledModel(model, ("inputs",), ("mean",), layers=["fc"])
    del model[0]  # Sequential renames the rest
    with pytest.warns(RuntimeWarning, match=r"keep names that they no longer have: no layer 'fc'"):
        values = trained_step(model, tooled)
    assert list(values) == ["fc/inputs/mean"]


# ---------------------------------------------------------------- what cannot be measured


class Refuses(torch.Tensor):
    """A tensor that lacks some operations."""

    lacking: tuple[Any, ...] = ()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in cls.lacking:
            raise RuntimeError(f"no {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs or {})


class NoSub(Refuses):
    lacking = (torch.Tensor.sub, torch.sub)


class NoSort(Refuses):
    lacking = (torch.Tensor.sort, torch.sort)


class NoCount(Refuses):
    lacking = (torch.Tensor.eq,)


def with_weight(kind: type[Tensor], layer: int = 1) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    shape = model[layer].weight.shape
    model[layer].weight = nn.Parameter(torch.randn(shape).as_subclass(kind))
    return model


def test_one_tensor_that_cannot_be_measured_leaves_out_itself_alone() -> None:
    whole, model = with_weight(Tensor), with_weight(NoSub)
    with TooledModel(whole, SOURCES, ("norm", "update_ratio")) as tooled:
        expected = trained_step(whole, tooled)
    with TooledModel(model, SOURCES, ("norm", "update_ratio")) as tooled:
        with pytest.warns(RuntimeWarning, match=r"leaves out 1/updates \(RuntimeError: no sub"):
            values = trained_step(model, tooled)
        assert expected.keys() - values.keys() == {"1/updates/norm", "1/updates/update_ratio"}
        again = trained_step(model, tooled)  # nothing is said twice
        assert again.keys() == values.keys()


@pytest.mark.parametrize("source", ["weights", "outputs", "grad_weights"])
def test_one_statistic_that_cannot_be_had_leaves_out_itself_alone(source: str) -> None:
    model = with_weight(NoCount)
    with TooledModel(model, (source,), ("mean", "zero_fraction", "median")) as tooled:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            values = trained_step(model, tooled)
        lacks = f"1/{source}/zero_fraction" not in values
        assert {"0", "1"} == {key.split("/")[0] for key in values}
        assert len(values) == 6 - lacks
        assert [f"1/{source}" in str(one.message) for one in said] == [True] * lacks
    assert lacks or source != "weights"


def test_one_of_several_pooled_tensors_leaves_out_itself_alone() -> None:
    model = nn.GRU(4, 3)
    model.weight_hh_l0 = nn.Parameter(torch.randn(9, 3).as_subclass(NoSub))
    with TooledModel(model, ("updates",), ("norm",)) as tooled:
        model(X)[0].sum().backward()
        with pytest.warns(RuntimeWarning, match="GRU/updates"):
            assert tooled.step() == {"GRU/updates/norm": 0.0}


def test_a_warning_names_all_that_was_left_out() -> None:
    model = nn.Sequential(*(with_weight(NoSub, layer)[layer] for layer in (0, 1)))
    with TooledModel(model, ("updates", "weights"), ("norm",)) as tooled:
        with pytest.warns(RuntimeWarning, match=r"leaves out 0/updates, 1/updates \(Runtime"):
            assert set(trained_step(model, tooled)) == {"0/weights/norm", "1/weights/norm"}
        assert tooled.silence is None, "which would be another reason than the true one"


# ---------------------------------------------------------------- a watch that is over


def test_a_model_that_was_removed_is_not_spoken_of(tmp_path: Path) -> None:
    model = nn.Linear(4, 2).eval()
    with warnings.catch_warnings(action="error"), Recorder(tmp_path / "run.h5") as rec:
        tooled = rec.watch(model)
        for step in range(150):
            rec.step()
            if step == 3:
                assert tooled.silence
                tooled.remove()
    assert tooled.silence is None
