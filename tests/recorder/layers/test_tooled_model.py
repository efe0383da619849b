"""TooledModel as it is used: keys, layers, steps, tables, and no waiting for a device."""

import json
import math
import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flexrec.recorder import DefinitionError, FlexrecError, Recorder, Recording, TooledModel
from flexrec.recorder.layers.measuring import collected
from flexrec.recorder.layers.measuring.statistics import SOURCES, STATISTICS
from flexrec.recorder.layers.table import Table, layer_table
from support.commands import flexrec
from support.tooled_cases import is_observed


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


def train(model: nn.Module, tooled: TooledModel | None = None) -> dict[str, Any]:
    """One training step without an optimizer."""
    model.zero_grad()
    model(torch.randn(6, 5)).square().mean().backward()
    return tooled.step() if tooled else {}


# ---------------------------------------------------------------- keys


def test_the_keys_of_a_step_are_always_the_same_and_in_the_models_order() -> None:
    model = perceptron()
    tooled = TooledModel(model)
    first, second = train(model, tooled), train(model, tooled)
    assert list(first) == list(second)
    assert list(first) == [
        f"{layer}/{source}/{stat}"
        for layer, sources in {
            "0": ["grad_out", "inputs", "weights"],
            "1": ["grad_in", "grad_out", "inputs"],
            "2": ["grad_in", "grad_out", "inputs", "weights"],
        }.items()
        for source in sources
        for stat in ["mean", "std"]
    ]
    assert all(type(value) is float for value in first.values())


def test_sources_and_stats_are_taken_in_the_order_they_are_given() -> None:
    model = perceptron()
    tooled = TooledModel(model, ("weights", "inputs"), ("max", torch.mean, "min"))
    keys = [key for key in train(model, tooled) if key.startswith("0/")]
    assert keys == [
        f"0/{s}/{stat}" for s in ("weights", "inputs") for stat in ("max", "mean", "min")
    ]


SHAPES = {"histogram": (65,), "log_histogram": (83,)}


def test_every_source_and_statistic_can_be_had_at_once() -> None:
    model = perceptron()
    tooled = TooledModel(model, SOURCES, list(STATISTICS))
    values = train(model, tooled)
    assert {key.split("/")[1] for key in values} == set(SOURCES)
    assert {key.split("/")[2] for key in values} == set(STATISTICS)
    for key, value in values.items():
        assert np.shape(value) == SHAPES.get(key.split("/")[2], ())


def test_a_layer_has_a_name_even_where_it_is_the_model() -> None:
    assert TooledModel(nn.Linear(3, 2)).layers == ("Linear",)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.Head = nn.Parameter(torch.ones(1)), nn.Linear(3, 2)

    assert TooledModel(Head()).layers == ("Head_", "Head")


def test_a_model_without_parameters_can_be_tooled() -> None:
    model = nn.ReLU()
    tooled = TooledModel(model)
    model(torch.randn(3, requires_grad=True)).sum().backward()
    assert {key.split("/")[1] for key in tooled.step()} == {"grad_in", "grad_out", "inputs"}


# ---------------------------------------------------------------- which layers


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 4)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, ["stem", "blocks.0.0", "blocks.0.1", "blocks.1.0", "blocks.1.1"]),
        ("stem", ["stem"]),
        ("blocks.*", ["blocks.0.0", "blocks.0.1", "blocks.1.0", "blocks.1.1"]),
        (["*.1", "stem"], ["stem", "blocks.0.1", "blocks.1.1"]),
        (["blocks.1"], ["blocks.1"]),
        (lambda _, module: isinstance(module, nn.Linear), ["stem", "blocks.0.0", "blocks.1.0"]),
        (lambda name, _: name.startswith("blocks.1."), ["blocks.1.0", "blocks.1.1"]),
    ],
)
def test_layers_are_chosen_by_name_pattern_or_predicate(layers: Any, expected: list[str]) -> None:
    model = Net()
    tooled = TooledModel(model, ["inputs"], layers=layers)
    assert list(tooled.layers) == expected
    assert [key.split("/")[0] for key in train(model, tooled)][::2] == expected


def test_a_whole_block_is_seen_from_outside() -> None:
    model = Net()
    tooled = TooledModel(model, SOURCES, layers="blocks.1")
    sources = {key.split("/")[1] for key in train(model, tooled)}
    assert sources == {"inputs", "outputs", "grad_in", "grad_out"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "steam"}, "no layer 'steam'; did you mean 'stem'?"),
        ({"layers": ["stem", "head.*"]}, "no layer 'head.*'"),
        ({"layers": lambda *_: False}, "layers chooses none"),
        ({"layers": [3]}, "no layer 3"),
        ({"layers": []}, "layers chooses none"),
        ({"sources": ["weight"]}, "no source 'weight'; did you mean 'weights'?"),
        ({"stats": ["avg"]}, "no statistic 'avg'"),
        ({"every": 0}, "every must be a whole number of steps, 1 or more, got 0"),
        ({"every": 2.0}, "got 2.0"),
        ({"every": True}, "got True"),
    ],
)
def test_wrong_arguments_say_what_would_be_right(arguments: Any, message: str) -> None:
    model = Net()
    with pytest.raises(DefinitionError) as refused:
        TooledModel(model, **arguments)
    assert message in str(refused.value)
    assert isinstance(refused.value, FlexrecError)
    assert not model._forward_pre_hooks


# ---------------------------------------------------------------- steps


def test_every_arms_the_first_step_and_one_in_so_many() -> None:
    model = perceptron()
    tooled = TooledModel(model, every=3)
    assert [bool(train(model, tooled)) for _ in range(7)] == [True, False, False] * 2 + [True]


def test_a_step_without_a_pass_is_empty_and_counts() -> None:
    model = perceptron()
    tooled = TooledModel(model, every=2)
    assert tooled.step() == {}
    assert train(model, tooled) == {}
    assert train(model, tooled)


def test_an_unarmed_step_observes_nothing() -> None:
    model = perceptron()
    tooled = TooledModel(model, every=2)
    assert is_observed()
    train(model, tooled)
    assert not is_observed()
    train(model, tooled)
    assert is_observed()
    tooled.remove()
    assert not is_observed()


def test_a_statistic_that_fails_names_itself() -> None:
    def pair(tensor: Tensor) -> Tensor:
        return tensor.flatten()[:2]

    model = perceptron()
    tooled = TooledModel(model, ["inputs"], [pair])
    with pytest.raises(DefinitionError, match="'pair' must return one real number"):
        model(torch.randn(6, 5))
    tooled.remove()
    train(model)


def test_removing_ends_the_watch_and_keeps_what_was_collected() -> None:
    model = perceptron()
    with TooledModel(model) as tooled:
        values = train(model, tooled)
        model(torch.randn(6, 5))
    assert not is_observed()
    assert train(model, tooled) == {}
    tooled.remove()
    assert tooled.stats()["0"]["weights"]["mean"] == values["0/weights/mean"]


def test_two_tooled_models_on_one_model_see_the_same() -> None:
    model = perceptron()
    one, two = TooledModel(model), TooledModel(model)
    values = train(model, one)
    assert two.step() == values


def test_what_step_returned_is_the_callers() -> None:
    model = perceptron()
    tooled = TooledModel(model)
    train(model, tooled).clear()
    assert tooled.stats()


# ---------------------------------------------------------------- stats and table


def test_stats_are_the_step_nested() -> None:
    model = perceptron()
    tooled = TooledModel(model)
    assert tooled.stats() == {}
    values = train(model, tooled)
    nested = tooled.stats()
    assert {
        f"{layer}/{source}/{stat}": value
        for layer, sources in nested.items()
        for source, stats in sources.items()
        for stat, value in stats.items()
    } == values


def test_stats_follow_a_step_that_is_under_way() -> None:
    model = perceptron()
    tooled = TooledModel(model)
    output = model(torch.randn(6, 5))
    assert "grad_out" not in tooled.stats()["2"]
    output.sum().backward()
    assert tooled.stats()["2"]["grad_out"]["mean"] == 1.0
    before = tooled.stats()
    with torch.no_grad():
        model[2].weight.fill_(3.0)
    assert tooled.stats()["2"]["weights"] == {"mean": 3.0, "std": 0.0}
    assert tooled.stats()["0"] == before["0"]
    tooled.step()
    assert tooled.stats()["2"]["weights"] == {"mean": 3.0, "std": 0.0}


def test_the_table_needs_no_step() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    nn.init.constant_(model[0].weight, 0.5)
    tooled = TooledModel(model)
    model(torch.tensor([[1.0], [3.0]])).sum().backward()
    table = tooled.table()
    assert str(table).splitlines() == [
        "+----------+------------------+------------------+------------------+------------------+",
        "|          |     Grad_in      |     Grad_out     |      Inputs      |     Weights      |",
        "| Layers   |   mean     std   |   mean     std   |   mean     std   |   mean     std   |",
        "+----------+------------------+------------------+------------------+------------------+",
        "| 0        |       -        - |  1.0000   0.0000 |  2.0000   1.4142 |  0.5000   0.0000 |",
        "| 1        |  1.0000   0.0000 |  1.0000   0.0000 |  1.0000   0.7071 |       -        - |",
        "+----------+------------------+------------------+------------------+------------------+",
    ]
    assert repr(table) == str(table) == f"{table}"
    assert isinstance(table, Table)


def test_a_table_shows_small_large_missing_and_other_values() -> None:
    table = layer_table(
        {
            "a.long.layer.name": {"weights": {"mean": -1.25e-7, "zero_fraction": 12345.0}},
            "b": {"weights": {"mean": math.nan}, "outputs": {"histogram": np.zeros(64)}},
        }
    )
    rows = [[cell.split() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[1:3] == [
        [[], ["Weights"], ["Outputs"]],
        [["Layers"], ["mean", "zero_fraction"], ["histogram"]],
    ]
    assert rows[4:6] == [
        [["a.long.layer.name"], ["-1.2e-07", "1.234e+04"], ["-"]],
        [["b"], ["nan", "-"], ["64"]],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1


def test_a_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tooled = TooledModel(perceptron())
    tooled.print_table()
    assert capsys.readouterr().out == f"{tooled.table()}\n"


def test_a_table_of_nothing_is_a_heading() -> None:
    assert "Layers" in TooledModel(perceptron()).table()


# ---------------------------------------------------------------- across minibatches


def test_signal_and_noise_run_from_reset_to_reset() -> None:
    model = perceptron()
    tooled = TooledModel(model, (), ("signal", "noise", "snr"))
    for _ in range(2):
        gradients = []
        for batch in range(4):
            values = train(model, tooled)
            gradients.append(model[2].weight.grad.double().flatten())
            if batch == 0:
                assert values["2/grad_weights/noise"] == 0.0
                assert values["2/grad_weights/snr"] == math.inf
        across, norm = torch.stack(gradients), model[2].weight.norm().item()
        signal = across.mean(0).norm().item() / norm
        noise = across.var(0, correction=0).sum().sqrt().item() / norm
        assert values["2/grad_weights/signal"] == pytest.approx(signal, rel=1e-6)
        assert values["2/grad_weights/noise"] == pytest.approx(noise, rel=1e-6)
        assert values["2/grad_weights/snr"] == pytest.approx(signal / noise, rel=1e-6)
        assert tooled.stats()["2"]["grad_weights"]["snr"] == values["2/grad_weights/snr"]
        tooled.reset()


def test_ratios_to_weights_of_zero_are_infinite_or_nan() -> None:
    model = nn.Linear(5, 2)
    nn.init.zeros_(model.weight)
    tooled = TooledModel(model, (), ("grad_ratio", "update_ratio"))
    model(torch.ones(1, 5)).sum().backward()
    values = tooled.step()
    assert values["Linear/grad_weights/grad_ratio"] == math.inf
    assert math.isnan(values["Linear/updates/update_ratio"])


# ---------------------------------------------------------------- work, counted


class _Operations(TorchDispatchMode):
    """Counts what torch does, by operator, and notes copies to the CPU; what we do too."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._seen = patch.object(collected, "hidden_from_modes", nullcontext)

    def __enter__(self) -> Self:
        self._seen.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._seen.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.counts[func.overloadpacket.__name__] += 1
        if isinstance(result, Tensor) and result.is_cpu:
            self.counts["made on the CPU"] += 1
        return result


def operations(model: nn.Module, tooled: TooledModel | None = None) -> Counter[str]:
    """What one training step makes torch do, views aside."""
    with _Operations() as seen:
        train(model, tooled)
    return Counter({name: n for name, n in seen.counts.items() if name not in ("view", "detach")})


def test_an_armed_step_reads_every_tensor_once() -> None:
    """Three activations, their three gradients, and two weights: a sum and a dot product each."""
    model = perceptron()
    bare = operations(model)
    with TooledModel(model) as tooled:
        more = operations(model, tooled) - bare
    del more["made on the CPU"]
    assert more == {"sum": 8, "dot": 8, "_local_scalar_dense": 16}


def test_an_armed_step_has_one_hook_a_gradient_and_none_in_a_module() -> None:
    model = perceptron()
    tooled = TooledModel(model)
    output = model(torch.randn(6, 5))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert len(output._backward_hooks) == 1
    tooled.remove()


def test_an_unarmed_step_costs_torch_nothing() -> None:
    model = perceptron()
    bare = operations(model)
    tooled = TooledModel(model, every=2)
    tooled.step()
    assert operations(model, tooled) == bare


# ---------------------------------------------------------------- accelerators

_SYNCHRONISING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "item")


def test_nothing_synchronises_on_a_device() -> None:
    """On the meta device `.item()` raises, and every operator is seen."""
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Linear(144, 5), nn.Linear(5, 5), nn.Linear(5, 2),
        )  # fmt: skip
        model[6] = model[5]  # pooled
        x = torch.empty(2, 3, 8, 8)
    tooled = TooledModel(model, SOURCES, [*STATISTICS, torch.var])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with _Operations() as operations:
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            values = tooled.step()
    assert operations.counts["std_mean"] > 20
    assert not operations.counts.keys() & {*_SYNCHRONISING, "made on the CPU"}
    assert {tuple(value.shape) for value in values.values()} == {(), *SHAPES.values()}
    assert all(value.is_meta for value in values.values())
    scalars = {value.untyped_storage()._cdata for value in values.values() if value.dim() == 0}
    assert len(scalars) == 1  # all views of one, so that one copy fetches them


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for_and_says_what_the_cpu_says() -> None:
    stats = [name for name in STATISTICS if name not in ("histogram", "fingerprint")]
    model, twin = (nn.Sequential(*perceptron(), nn.PReLU()) for _ in range(2))
    twin.cuda()
    tooled, on_gpu = TooledModel(model, SOURCES, stats), TooledModel(twin, SOURCES, stats)
    x = torch.randn(6, 5)
    y = x.cuda()
    for _ in range(2):
        model.zero_grad()
        twin.zero_grad()
        model(x).square().mean().backward()
        expected = tooled.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            twin(y).square().mean().backward()
            values = on_gpu.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(value.is_cuda and value.dim() == 0 for value in values.values())
    fetched = {key: value.item() for key, value in values.items()}
    assert fetched == pytest.approx(expected, rel=1e-3, abs=1e-6, nan_ok=True)
    assert on_gpu.table() == layer_table(on_gpu.stats())


# ---------------------------------------------------------------- with a recorder


def test_a_recorder_records_every_step(tmp_path: Path) -> None:
    model = perceptron()
    steps: list[dict[str, Any]] = []
    with Recorder(tmp_path / "run.h5") as rec:
        tooled = rec.watch(model, stats=["mean", "std", "histogram"], every=2)
        for _ in range(4):
            train(model)
            rec.step()
            steps.append(tooled.stats())
    with Recording(tmp_path / "run.h5") as run:
        series = run["2/grad_out/std"]
        assert series.step.tolist() == [0, 2]
        assert list(series.value) == [
            steps[0]["2"]["grad_out"]["std"],
            steps[2]["2"]["grad_out"]["std"],
        ]
        histograms = run["0/weights/histogram"].value
        assert histograms[1].tolist() == steps[2]["0"]["weights"]["histogram"].tolist()
    assert not is_observed()


def test_several_models_are_told_apart_by_their_names(tmp_path: Path) -> None:
    models = {"generator": perceptron(), "critic": perceptron()}
    batch, classes = torch.randn(6, 5), torch.zeros(6)
    with Recorder(tmp_path / "run.h5") as rec:
        for name, model in models.items():
            tooled = rec.watch(model, layers=["0"], name=name)
            assert tooled.layers == (f"{name}.0",)
            rec.activations(model, batch, classes, layers=["0"], name=name)
        for model in models.values():
            train(model)
        rec.step()
        assert list(tooled.stats()) == ["critic.0"]
    with Recording(tmp_path / "run.h5") as run:
        for name, model in models.items():
            (found,) = run[f"{name}.0/weights/mean"].value
            assert found == pytest.approx(model[0].weight.mean().item(), abs=1e-6)
            assert f"{name}.0/activations" in run


def test_a_layer_is_watched_once(tmp_path: Path) -> None:
    model = perceptron()
    with Recorder(tmp_path / "run.h5") as rec:
        tooled = rec.watch(model)
        with pytest.raises(DefinitionError, match=r"layer '0' is watched already; .*name="):
            rec.watch(perceptron())
        with pytest.raises(DefinitionError, match=r"name has no slash"):
            rec.watch(model, name="a/b")
        tooled.remove()
        rec.watch(model)
        train(model)
        rec.step()
    with Recording(tmp_path / "run.h5") as run:
        assert len(run["0/weights/mean"]) == 1
    assert not is_observed()


def test_a_recorder_that_was_never_told_of_a_step_says_so(tmp_path: Path) -> None:
    model = perceptron()
    rec = Recorder(tmp_path / "run.h5")
    rec.watch(model)
    train(model)
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(
            RuntimeWarning, match=r"run.h5: statistics of a watched model .*: step\(\) was never"
        ),
    ):
        rec.close()
    with Recording(tmp_path / "run.h5") as run:
        assert run.complete


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"a model is a torch.nn.Module, got function"):
        TooledModel(perceptron)


# ---------------------------------------------------------------- the documentation


def test_every_source_and_statistic_is_documented() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "tooled_model.md").read_text()
    assert [name for name in (*SOURCES, *STATISTICS) if f"`{name}`" not in text] == []


# ---------------------------------------------------------------- what the layers are


def test_the_layers_are_described_once_with_their_calls(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(4, 4, dtype=torch.float64)
            self.unused = nn.Linear(3, 3)
            self.first.weight.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(self.first(x)).float())

    model = Shared()
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(model, every=2)
        for _ in range(3):
            model(torch.randn(6, 4, dtype=torch.float64)).sum().backward()
            rec.step()
        model.last = nn.Linear(4, 3)
        rec.step()
        model(torch.randn(6, 4, dtype=torch.float64)).sum().backward()
        rec.step()
    with Recording(tmp_path / "run.h5") as run:
        layers = run.models["Shared"]
    assert list(layers) == ["last", "first", "unused"]
    assert layers["first"] == {
        "class": "Linear",
        "parameters": 20,
        "trainable": 4,
        "dtype": "float64",
        "order": 0,
        "calls": 2,
        "output": [6, 4],
    }
    assert layers["last"]["order"] == 1
    assert layers["last"]["output"] == [6, 3]  # the one that replaced it
    assert (layers["unused"]["order"], layers["unused"]["calls"]) == (None, 0)


def test_a_resumed_run_keeps_the_description(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / "run.h5", mode="resume") as rec:
            model = perceptron()
            rec.watch(model, name=name)
            train(model)
            rec.step()
    with Recording(tmp_path / "run.h5") as run:
        assert list(run.models) == ["a", "b"]
        assert run.facts is not None
        assert len(run.facts["resumed"]) == 1


@pytest.mark.parametrize("models", [5, ["a"], {"a": 5}, {"a": {"0": 5}}, None])
def test_what_is_no_description_is_left_out(models: Any, tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec._queue.change("facts", json.dumps({"models": models}))
    with Recording(tmp_path / "run.h5") as run:
        assert not any(run.models.values())
    assert "no layer statistics" in flexrec("show", tmp_path / "run.h5", "--model")[0]
