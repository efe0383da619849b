"""TooledModel in training loops of every kind: autograd, precision, and what is not recorded."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flexrec.recorder import DefinitionError, TooledModel
from support.tooled_cases import ALL, Takes, near, of, sources_of, step_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ---------------------------------------------------------------- autograd


def test_gradients_of_several_backward_passes_are_pooled() -> None:
    model = nn.Linear(3, 2)
    with TooledModel(model, ["grad_out"]) as tooled:
        output = model(torch.randn(4, 3))
        output.sum().backward(retain_graph=True)
        (3 * output.sum()).backward()
        values = tooled.step()
    assert of(values, "Linear/grad_out") == near(torch.ones(8), torch.full((8,), 3.0))


def test_a_gradient_penalty_is_differentiated_through() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(5, 3, requires_grad=True)
    with TooledModel(model) as tooled:
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        gradient.square().sum().backward()
        values = tooled.step()
    assert {"0/grad_in/mean", "2/grad_out/std"} <= values.keys()
    assert all(isinstance(value, float) for value in values.values())


def test_a_graph_that_outlives_its_step_fires_into_nothing() -> None:
    means = []

    def mean(tensor: Tensor) -> Tensor:
        means.append(tensor.mean().item())
        return tensor.mean()

    model = nn.Linear(3, 2)
    tooled = TooledModel(model, ["grad_out"], [mean])
    kept = model(torch.randn(4, 3)).sum()
    kept.backward(retain_graph=True)
    tooled.step()
    model(torch.randn(4, 3)).sum().backward()
    (100 * kept).backward()
    assert tooled.step()["Linear/grad_out/mean"] == 1.0
    assert means == [1.0, 1.0]


def test_a_parameter_as_input_does_not_gather_hooks() -> None:
    class Query(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.inner = nn.Parameter(torch.ones(4, 3)), nn.Linear(3, 2)

        def forward(self) -> Tensor:
            return self.inner(self.query)

    model = Query()
    tooled = TooledModel(model, ["grad_in"])
    for _ in range(3):
        model.zero_grad()
        model().sum().backward()
        values = tooled.step()
        assert model.query.grad is not None
        assert of(values, "inner/grad_in") == near(model.query.grad)
        assert not model.query._backward_hooks


def test_accumulated_gradients_are_read_once_whole() -> None:
    model = nn.Linear(3, 2)
    first, second = torch.randn(4, 3), torch.randn(2, 3)
    with TooledModel(model, ALL) as tooled:
        for x in (first, second):
            model(x).sum().backward()
        values = tooled.step()
    assert model.weight.grad is not None
    assert of(values, "Linear/grad_weights") == near(model.weight.grad)
    assert of(values, "Linear/inputs") == near(first, second)
    assert of(values, "Linear/grad_out") == (1.0, 0.0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_counts_nothing_twice(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, active: bool) -> None:
            super().__init__()
            self.first, self.active = nn.Linear(3, 4), active
            self.part = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            if not self.active:
                return self.part(x)
            return checkpoint(self.part, x, use_reentrant=reentrant)

    model = Checkpointed(True)
    plain = Checkpointed(False)
    plain.load_state_dict(model.state_dict())
    calls = []
    model.part[0].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(5, 3)
    sizes: list[int] = []

    def count(tensor: Tensor) -> float:
        sizes.append(tensor.numel())
        return float(tensor.numel())

    stats = ["mean", "std", "norm", count]
    with TooledModel(model, ALL, stats) as tooled:
        model(x).square().sum().backward()
        values = tooled.step()
    assert len(calls) == 2  # the part did run twice
    with TooledModel(plain, ALL, stats) as tooled:
        plain(x).square().sum().backward()
        assert values == pytest.approx(tooled.step(), rel=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_model_that_is_checkpointed_as_a_whole(reentrant: bool) -> None:
    """Reentrant checkpointing runs it under no_grad first, which is no training pass."""
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(5, 3, requires_grad=True)
    expected = {} if reentrant else step_of(model, x)
    model.zero_grad()
    with TooledModel(model, ALL) as tooled:
        checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
        assert tooled.step() == pytest.approx(expected)


def test_a_traced_model_is_not_recorded() -> None:
    model = nn.Linear(3, 1)
    tooled = TooledModel(model)
    x = torch.randn(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(model, x)
        assert torch.equal(traced(x), model.eval()(x))
        with pytest.raises(DefinitionError, match="ScriptModule, whose parts cannot be seen"):
            TooledModel(nn.Sequential(traced))
    assert tooled.step() == {}


def test_transforms_of_functions_are_left_alone() -> None:
    model = nn.Linear(3, 1)
    tooled = TooledModel(model)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,)).sum()

    batched = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, torch.randn(4, 3))
    assert batched["weight"].shape == (4, 1, 3)
    assert tooled.step() == {}


# ---------------------------------------------------------------- precision and its scaler


def test_autocast_is_measured_in_float32() -> None:
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    with TooledModel(model, ALL) as tooled:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
        output.float().sum().backward()
        values = tooled.step()
    assert output.dtype == torch.bfloat16
    assert of(values, "Linear/outputs") == near(output)
    assert of(values, "Linear/inputs") == near(x)


@pytest.mark.parametrize(
    "when", ["before unscale_", "after unscale_", "after step", "after update"]
)
def test_the_scalers_scale_is_taken_out(when: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    tooled = TooledModel(model, ["grad_in", "grad_out", "grad_weights"], scaler=scaler)
    for _ in range(2):  # growth_interval=1: the second step has another scale
        x = torch.randn(5, 3)
        twin = copy.deepcopy(model)
        expected = step_of(twin, x, sources=["grad_in", "grad_out", "grad_weights"])
        optimizer.zero_grad()
        scaler.scale(model(x).square().sum()).backward()
        if when != "before unscale_":
            scaler.unscale_(optimizer)
        if when in ("after step", "after update"):
            scaler.step(optimizer)
        if when == "after update":
            scaler.update()
        assert tooled.step() == pytest.approx(expected, rel=1e-4)
        if when != "after update":
            if when != "after step":
                scaler.step(optimizer)
            scaler.update()


def test_a_scaler_that_is_off_changes_nothing() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with TooledModel(model, ALL, scaler=scaler) as tooled:
        scaler.scale(model(x).sum()).backward()
        assert tooled.step()["Linear/grad_out/mean"] == 1.0


# ---------------------------------------------------------------- when nothing is recorded


def evaluating(model: nn.Module, x: Tensor) -> None:
    model.eval()
    model(x)
    model.train()


def without_grad(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def in_inference(model: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        model(x)


def one_layer_evaluating(model: nn.Module, x: Tensor) -> None:
    layer = model.get_submodule("0").eval()
    layer(x)
    layer.train()


@pytest.mark.parametrize("quiet", [evaluating, without_grad, in_inference, one_layer_evaluating])
def test_passes_that_do_not_train_are_not_recorded(
    quiet: Callable[[nn.Module, Tensor], None],
) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    x, other = torch.randn(4, 3), 100 + torch.randn(4, 3)
    tooled = TooledModel(model, ALL)
    quiet(model, other)
    assert tooled.step() == {}
    model(x).sum().backward()
    quiet(model, other)
    assert of(tooled.step(), "0/inputs") == near(x)


def test_a_frozen_part_without_grad_inside_a_training_pass_is_recorded() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.backbone(x)
            return self.head(x)

    values = step_of(Frozen(), torch.randn(4, 3))
    assert sources_of(values, "backbone") == {"inputs", "outputs", "weights", "updates"}


def test_data_made_in_inference_mode_can_be_trained_on() -> None:
    with torch.inference_mode():
        x = torch.randn(4, 3)
    model = nn.Sequential(nn.Identity(), Takes(lambda weight, x: weight * (x + 0)))
    assert of(step_of(model, x.clone()), "0/inputs") == near(x)
    values = step_of(
        nn.Sequential(nn.Identity()), x, loss=lambda _: torch.ones(1, requires_grad=True)
    )
    assert of(values, "0/inputs") == near(x)


def test_a_forward_pass_that_fails_ends_there() -> None:
    def failing(weight: Tensor, x: Tensor) -> Tensor:
        raise ArithmeticError("of the model")

    model = nn.Sequential(nn.Linear(3, 3), Takes(failing))
    tooled = TooledModel(model, ["inputs"])
    x = torch.randn(4, 3)
    with pytest.raises(ArithmeticError, match="of the model"):
        model(x)
    with torch.no_grad():
        model.get_submodule("0")(100 + x)
    assert of(tooled.step(), "0/inputs") == near(x)
