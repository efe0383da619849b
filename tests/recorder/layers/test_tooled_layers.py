"""What TooledModel sees of layers of every kind, however they are called and what they take."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexrec.recorder import TooledModel
from support.tooled_cases import ALL, Takes, near, of, sources_of, step_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ---------------------------------------------------------------- what the sources are


def test_every_source_of_a_chain_is_what_autograd_says() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(6, 5)
    first = model[0](x)
    second = model[1](first)
    third = model[2](second)
    gradients = torch.autograd.grad(third.square().sum(), [first, second, third])

    values = step_of(model, x)

    assert of(values, "0/inputs") == near(x)
    assert of(values, "0/outputs") == of(values, "1/inputs") == near(first)
    assert of(values, "2/inputs") == near(second)
    assert of(values, "2/outputs") == near(third)
    assert of(values, "0/grad_out") == of(values, "1/grad_in") == near(gradients[0])
    assert of(values, "1/grad_out") == of(values, "2/grad_in") == near(gradients[1])
    assert of(values, "2/grad_out") == near(gradients[2])
    for layer in (0, 2):
        assert of(values, f"{layer}/weights") == near(model[layer].weight)
        assert of(values, f"{layer}/grad_weights") == near(model[layer].weight.grad)
        assert of(values, f"{layer}/updates") == (0.0, 0.0)


def test_the_first_layer_has_no_gradient_of_the_data_and_gives_no_warning() -> None:
    values = step_of(nn.Linear(3, 2), torch.randn(4, 3))
    assert sources_of(values, "Linear") == set(ALL) - {"grad_in"}


def test_an_input_that_wants_its_gradient_gets_it_recorded() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    values = step_of(model, x)
    assert x.grad is not None
    assert of(values, "Linear/grad_in") == near(x.grad)


def test_a_residual_connection_gives_the_total_gradient_of_its_tensor() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.inner = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.x = self.before(x)
            self.x.retain_grad()
            return self.x + self.inner(self.x)

    model = Residual()
    values = step_of(model, torch.randn(4, 3))
    assert of(values, "inner/grad_in") == of(values, "before/grad_out") == near(model.x.grad)


@pytest.mark.parametrize("learning_rate", [0.0, 0.1])
def test_updates_are_weights_after_less_weights_before(learning_rate: float) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    tooled = TooledModel(model, ["updates"], ["mean", "std", "update_ratio", "grad_ratio"])
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        values = tooled.step()
        gradient, weight = model.weight.grad, model.weight
        assert gradient is not None
        assert of(values, "Linear/updates") == near(-learning_rate * gradient)
        ratio = (gradient.norm() / weight.norm()).item()
        assert values["Linear/grad_weights/grad_ratio"] == pytest.approx(ratio, rel=1e-5)
        assert values["Linear/updates/update_ratio"] == pytest.approx(
            learning_rate * ratio, rel=1e-3
        )


# ---------------------------------------------------------------- modules called how and how often


def test_a_module_called_twice_is_pooled_under_one_key() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.seen = [x, self.inner(x)]
            self.seen.append(self.inner(self.seen[1][:2] + 5))
            for tensor in self.seen[1:]:
                tensor.retain_grad()
            return self.seen[2]

    model = Twice()
    values = step_of(model, torch.randn(4, 3))
    x, middle, last = model.seen
    assert of(values, "inner/inputs") == near(x, middle[:2] + 5)
    assert of(values, "inner/outputs") == near(middle, last)
    assert of(values, "inner/grad_out") == near(middle.grad, last.grad)


def test_a_module_under_two_names_is_one_layer() -> None:
    inner = nn.Linear(3, 3)
    model = nn.Sequential(inner, nn.ReLU(), inner)
    x = torch.randn(4, 3)
    values = step_of(model, x)
    assert {key.split("/")[0] for key in values} == {"0", "1"}
    first = inner(x)
    assert of(values, "0/inputs") == near(x, first.relu())
    assert of(values, "0/outputs") == near(first, inner(first.relu()))
    assert of(values, "1/inputs") == near(first)  # what was measured once is pooled for one alone
    assert of(values, "1/outputs") == near(first.relu())
    assert of(values, "0/weights") == near(inner.weight)


def test_tied_parameters_are_read_for_both_layers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    values = step_of(model, torch.randn(4, 3))
    assert (
        of(values, "0/grad_weights") == of(values, "1/grad_weights") == near(model[0].weight.grad)
    )


def test_a_module_never_called_and_a_frozen_layer_have_no_keys() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)
            self.frozen = nn.Linear(3, 3).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(self.frozen(x))

    values = step_of(Partly(), torch.randn(4, 3))
    assert sources_of(values, "unused") == {"weights", "updates"}
    assert sources_of(values, "frozen") == {"inputs", "outputs", "weights", "updates"}
    assert sources_of(values, "used") == set(ALL) - {"grad_in"}


def test_a_recurrent_layer_with_its_states_and_a_packed_sequence() -> None:
    model = nn.LSTM(3, 4)
    x = nn.utils.rnn.pack_sequence([torch.randn(n, 3) for n in (5, 2)])
    values = step_of(model, x, loss=lambda output: output[0].data.sum())
    output, (hidden, cell) = model(x)
    assert of(values, "LSTM/inputs") == near(x.data)
    assert of(values, "LSTM/outputs") == near(output.data, hidden, cell)
    assert of(values, "LSTM/grad_out") == near(torch.ones_like(output.data))
    weights = [p for name, p in model.named_parameters() if "weight" in name]
    assert of(values, "LSTM/weights") == near(*weights)
    assert of(values, "LSTM/grad_weights") == near(*(w.grad for w in weights if w.grad is not None))


def test_attention_owns_weights_and_calls_no_projection() -> None:
    model = nn.MultiheadAttention(4, 2)
    x = torch.randn(5, 3, 4)
    values = step_of(model, x, x, x, loss=lambda output: output[0].sum())
    assert of(values, "MultiheadAttention/inputs") == near(x)
    assert of(values, "MultiheadAttention/weights") == near(model.in_proj_weight)
    assert of(values, "out_proj/weights") == near(model.out_proj.weight)
    assert sources_of(values, "out_proj") == {"weights", "grad_weights", "updates"}


def test_a_module_with_own_parameters_and_children_is_a_layer() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.inner = nn.Parameter(torch.tensor([2.0, 4.0])), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * self.inner(x)

    model = nn.Sequential(Scaled())
    x = torch.randn(4, 3)
    values = step_of(model, x)
    assert values["0/weights/mean"] == 3.0
    assert of(values, "0/inputs") == of(values, "0.inner/inputs") == near(x)


def test_weights_leave_biases_out() -> None:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, 3.0)
    nn.init.constant_(model.bias, 100.0)
    assert step_of(model, torch.ones(1, 2))["Linear/weights/mean"] == 3.0


def test_a_lazy_layer_is_read_once_it_has_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(2))
    values = step_of(model, torch.randn(4, 3))
    assert of(values, "0/weights") == near(model[0].weight)
    assert "updates" not in sources_of(values, "0")


# ---------------------------------------------------------------- what goes in and out


@dataclass
class Pair:
    left: Tensor
    right: Tensor


NESTINGS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dict": lambda a, b: {"a": a, "more": {"b": b}},
    "nested tuples": lambda a, b: (a, [b, (None, "text", 3)]),
    "dataclass": lambda a, b: Pair(a, b),
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_tensors_are_found_however_they_are_nested(nesting: str) -> None:
    nest = NESTINGS[nesting]
    kept: list[Tensor] = []

    def forward(weight: Tensor, given: Any) -> Any:
        kept[:] = [weight * torch.arange(3.0), weight * torch.ones(2, 2)]
        return nest(*kept)

    a, b = torch.randn(3), torch.randn(2, 2)
    values = step_of(
        Takes(forward), nest(a, b), loss=lambda _: kept[0].square().sum() + 3 * kept[1].sum()
    )
    assert of(values, "Takes/inputs") == near(a, b)
    assert of(values, "Takes/outputs") == near(*kept)
    assert of(values, "Takes/grad_out") == near(2 * kept[0], torch.full((4,), 3.0))


def test_keyword_inputs_are_seen() -> None:
    model = Takes(lambda weight, x, *, scale: weight * x * scale)
    x, scale = torch.randn(3), torch.randn(3)
    values = step_of(model, x, scale=scale)
    assert of(values, "Takes/inputs") == near(x, scale)


def test_integers_and_booleans_are_not_measured() -> None:
    model = nn.Embedding(10, 3)
    values = step_of(model, torch.tensor([1, 2]))
    assert sources_of(values, "Embedding") == set(ALL) - {"inputs", "grad_in"}
    masked = Takes(lambda weight, x, mask: weight * x * mask)
    x = torch.randn(2)
    assert of(step_of(masked, x, torch.tensor([True, False])), "Takes/inputs") == near(x)


def test_sparse_gradients_are_read_by_their_values() -> None:
    model = nn.Embedding(10, 3, sparse=True)
    with TooledModel(model, ["grad_weights"], ["mean", "snr", "signal"]) as tooled:
        model(torch.tensor([1, 2, 2])).sum().backward()
        values = tooled.step()
    assert values["Embedding/grad_weights/mean"] == 1.5
    signal = math.sqrt(3 * (1 + 4)) / model.weight.norm().item()
    assert values["Embedding/grad_weights/signal"] == pytest.approx(signal, rel=1e-5)


def test_complex_inputs_and_weights() -> None:
    model = Takes(lambda weight, x: (weight * x).abs())
    x = torch.randn(5, dtype=torch.complex64)
    values = step_of(model, x)
    assert of(values, "Takes/inputs") == near(torch.view_as_real(x))
    linear = nn.Linear(2, 2, dtype=torch.complex64)
    values = step_of(linear, x[:2], loss=lambda y: y.abs().sum())
    assert of(values, "Linear/weights") == near(torch.view_as_real(linear.weight))


@pytest.mark.parametrize("shape", [(0, 3), (1, 3)])
def test_empty_batches_have_no_keys_and_single_elements_no_deviation(shape: Any) -> None:
    model = nn.Linear(3, 1)
    values = step_of(model, torch.randn(shape), loss=lambda y: y.sum())
    if shape[0] == 0:
        assert sources_of(values, "Linear") == {"weights", "grad_weights", "updates"}
    else:
        assert of(values, "Linear/grad_out") == (1.0, 0.0)


def test_expanded_and_transposed_inputs() -> None:
    model = nn.Linear(3, 2)
    x = torch.randn(1, 3).expand(4, 3)
    assert of(step_of(model, x), "Linear/inputs") == near(x)
    x = torch.randn(3, 4).t()
    assert of(step_of(model, x), "Linear/inputs") == near(x)


def test_bfloat16_is_measured_in_float32() -> None:
    model = nn.Linear(3, 2).bfloat16()
    values = step_of(model, torch.randn(4, 3).bfloat16(), loss=lambda y: y.float().sum())
    assert of(values, "Linear/weights") == near(model.weight.float())


# ---------------------------------------------------------------- changes in place


@pytest.mark.parametrize("inplace", [False, True])
def test_an_activation_in_place_does_not_change_what_was_seen(inplace: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace), nn.Linear(4, 2))
    x = torch.randn(6, 3)
    plain = nn.Sequential(model[0], nn.ReLU(), model[2])
    assert step_of(model, x) == pytest.approx(step_of(plain, x))


def test_adding_in_place() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            y += 1
            return self.two(y)

    model = Adding()
    x = torch.randn(4, 3)
    values = step_of(model, x)
    assert of(values, "one/outputs") == near(model.one(x))
    assert of(values, "two/inputs") == near(model.one(x) + 1)
    assert of(values, "one/grad_out") == of(values, "two/grad_in")


def test_outputs_and_gradients_are_not_altered() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True))
    twin = copy.deepcopy(model)
    x = torch.randn(6, 3)
    with TooledModel(model, ALL) as tooled:
        output, expected = model(x), twin(x)
        output.square().sum().backward()
        expected.square().sum().backward()
        tooled.step()
    assert torch.equal(output, expected)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


# ---------------------------------------------------------------- what tells nothing


def test_a_model_that_tells_nothing_is_spoken_of_after_a_hundred_steps() -> None:
    model = nn.Linear(3, 2).eval()
    with TooledModel(model) as tooled:
        for _ in range(100):
            tooled.step()
        with pytest.warns(
            RuntimeWarning,
            match="so far: there was no pass through it, or through a",
        ):
            tooled.step()
        for _ in range(100):
            tooled.step()


def test_updates_that_are_read_before_the_optimizer_are_spoken_of() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with TooledModel(model, stats=("update_ratio",)) as tooled:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).sum().backward()
            tooled.step()
            assert (
                tooled.silence
                == "no weight had changed at step(): call it after the optimizer's step"
            )
            optimizer.step()
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        tooled.step()
        assert tooled.silence is None
