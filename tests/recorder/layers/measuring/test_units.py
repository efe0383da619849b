"""Dead units: which dimension counts them, and where that is not known."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from flexrec.recorder import TooledModel


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Does(nn.Module):
    """Calls a function with its parts."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.function = nn.ModuleList(parts), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def dead(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """`dead` by layer, after one training pass."""
    with TooledModel(model, (), ("dead",)) as tooled:
        model(x).sum().backward()
        return {key.rsplit("/", 2)[0].rpartition(".")[2]: v for key, v in tooled.step().items()}


def half(layer: Any) -> Any:
    """The layer, every second of its units far below zero."""
    nn.init.constant_(layer.bias, 100.0)
    layer.bias.data[::2] = -1e4
    return layer


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_units_of_one_dimensional_convolutions_are_channels(
    inplace: bool, batch_norm: bool
) -> None:
    conv = nn.Conv1d(3, 8, 3)
    nn.init.constant_(conv.bias, -100.0)
    conv.bias.data[0] = 0.0
    norm = nn.BatchNorm1d(8, affine=False, momentum=0.0) if batch_norm else nn.Identity()
    norm.eval()
    model = nn.Sequential(
        *(conv, norm, nn.ReLU(inplace), nn.Dropout(0.0), nn.MaxPool1d(2)),
        *(Does(lambda x: x.transpose(1, 2)), nn.Identity(), nn.ReLU(), nn.Linear(8, 5), nn.ReLU()),
    )
    values = dead(model, torch.randn(4, 3, 20))
    wanted = {"0": 0.0, "1": 0.0, "2": 0.875, "3": 0.875, "4": 0.875}
    # What a function has turned is not known until a layer says what it gives.
    assert values == wanted | {"8": 0.0, "9": values["9"]}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, conv, relu: relu(conv(x) + x),
        lambda x, conv, relu: relu(F.leaky_relu(conv(x) * 2) + x),
        lambda x, conv, relu: relu(conv(x).add_(x)),
        lambda x, conv, relu: relu(conv(x)),
    ],
    ids=["residual", "functions", "in place", "alone"],
)
def test_units_are_followed_through_functions(n: int, function: Any) -> None:
    conv = half([nn.Conv1d, nn.Conv2d, nn.Conv3d][n - 1](4, 4, 3, padding=1))
    x = torch.randn(2, 4, *(6, 5, 7)[:n])
    model = Does(function, conv, nn.ReLU())
    assert dead(model, x)["1"] == 0.5


def test_units_of_a_frozen_layer_are_followed_by_torchs_activations() -> None:
    model = nn.Sequential(
        half(nn.Conv1d(3, 4, 1)).requires_grad_(False), nn.ReLU(), nn.Linear(9, 1)
    )
    assert dead(model, torch.randn(2, 3, 9))["1"] == 0.5


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (half(nn.Linear(3, 4)), (5, 7, 3), 0.5),
        (half(nn.Linear(3, 4)), (5, 7, 6, 3), 0.5),
        (half(nn.Linear(3, 4)), (3,), 0.5),
        (half(nn.Conv1d(3, 4, 1)), (3, 9), 0.5),
        (half(nn.Conv2d(3, 4, 1)), (3, 9, 9), 0.5),
        (half(nn.Conv2d(3, 4, 1)), (2, 3, 9, 9), 0.5),
        (half(nn.ConvTranspose1d(3, 4, 2)), (2, 3, 9), 0.5),
        (half(nn.BatchNorm1d(4)), (2, 4, 9), 0.5),
        (half(nn.GroupNorm(2, 4)), (2, 4, 9), 0.5),
        (half(nn.LayerNorm(4)), (2, 9, 4), 0.5),
    ],
)
def test_every_layer_of_torch_counts_its_own_units(layer: Any, shape: Any, wanted: float) -> None:
    model = nn.Sequential(layer, nn.ReLU())
    assert dead(model, torch.randn(*shape)) == {"0": 0.0, "1": wanted}


@pytest.mark.parametrize("resize", [nn.ConstantPad1d(1, 0.0), nn.Upsample(scale_factor=2)])
def test_units_stay_where_an_output_grows(resize: nn.Module) -> None:
    model = nn.Sequential(half(nn.Conv1d(3, 4, 1)), nn.ReLU(), resize)
    assert dead(model, torch.randn(2, 3, 9))["2"] == 0.5


@pytest.mark.parametrize(
    "function",
    [
        lambda x, relu: relu(x),
        lambda x, relu: relu(x.transpose(1, 2).contiguous()),
        lambda x, relu: relu(torch.cat([x, x], 1)),
        lambda x, relu: relu(x.flip(1)),
    ],
)
def test_what_is_not_known_is_left_out(function: Any) -> None:
    x = torch.randn(2, 6, 6, requires_grad=True)
    assert "0" not in dead(Does(function, nn.ReLU()), x)


def test_two_meanings_are_none() -> None:
    def function(x: Tensor, conv: nn.Module, linear: nn.Module, relu: nn.Module) -> Tensor:
        both: Tensor = relu(conv(x) + linear(x))
        return both

    model = Does(function, nn.Conv1d(6, 6, 1), nn.Linear(6, 6), nn.ReLU())
    assert dead(model, torch.randn(2, 6, 6)).keys() == {"0", "1"}


@pytest.mark.parametrize("p", [0.0, 0.9])
def test_dropped_units_are_not_dead(p: float) -> None:
    model = nn.Sequential(half(nn.Linear(3, 40)), nn.ReLU(), nn.Dropout(p), nn.ReLU())
    values = dead(model, torch.randn(2, 3))
    assert values["1"] == 0.5
    assert (values.get("2"), values.get("3")) == ((None, None) if p else (0.5, 0.5))
    model[2].eval()
    assert dead(model, torch.randn(2, 3))["2"] == 0.5


def _kept(x: Tensor) -> Tensor:
    return (torch.rand_like(x) > 0.5).to(x.dtype)


def _assigned(x: Tensor) -> Tensor:
    dropped = x.clone()
    dropped[_kept(x) == 0] = 0.0
    return dropped


DROPPING: dict[str, Callable[[Tensor], Tensor]] = {
    "F.dropout": lambda x: F.dropout(x, 0.5),
    "in place": lambda x: F.dropout(x.clone() if x.requires_grad else x, 0.5, inplace=True),
    "F.dropout1d": lambda x: F.dropout1d(x.unsqueeze(1), 0.5).squeeze(1),
    "F.alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, training=True),
    "native": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "a mask": lambda x: x * _kept(x) / 0.5,
    "a mask before": lambda x: 2 * (_kept(x) * x),
    "masked_fill": lambda x: x.masked_fill(_kept(x) == 0, 0.0),
    "where": lambda x: torch.where(_kept(x) == 0, 0.0, x),
    "an assignment": _assigned,
    "then a view": lambda x: F.dropout(x, 0.5).view(2, 2, 20).flatten(1),
    "then a sum": lambda x: F.dropout(x, 0.5) + F.dropout(x, 0.5),
    "a long graph": lambda x: sum((x + 1.0 for _ in range(50)), x) - 50.0,
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", DROPPING)
def test_what_a_function_may_have_dropped_is_left_out(name: str, frozen: bool) -> None:
    drop = DROPPING[name]
    linear = half(nn.Linear(3, 40)).requires_grad_(not frozen)
    parts = [linear, nn.ReLU(), Does(lambda x: drop(x)), nn.ReLU(), nn.Linear(40, 4), nn.ReLU()]
    values = dead(nn.Sequential(*parts), torch.randn(2, 3))
    assert values.keys() - {"2"} == {"0", "1", "4", "5"}
    assert values["1"] == 0.5


@pytest.mark.parametrize("drop", [nn.Dropout2d(0.9), Does(lambda x: F.dropout2d(x, 0.9))])
@pytest.mark.parametrize(
    ("pool", "frozen"),
    [
        *(
            (pool, frozen)
            for pool in (nn.MaxPool2d(2), nn.AvgPool2d(8))
            for frozen in (False, True)
        ),
        (nn.RMSNorm(8), False),
    ],
)
def test_layers_that_keep_zeros_are_left_out_after_dropout(
    pool: nn.Module, drop: nn.Module, frozen: bool
) -> None:
    conv = half(nn.Conv2d(3, 8, 1)).requires_grad_(not frozen)
    flat = [nn.Flatten(), nn.ReLU(), nn.LazyLinear(2)]
    values = dead(nn.Sequential(conv, nn.ReLU(), drop, pool, *flat), torch.randn(2, 3, 8, 8))
    assert {name for name in values if name.isdigit()} - {"2"} == {"0", "1", "6"}
    values = dead(nn.Sequential(conv, nn.ReLU(), pool, *flat), torch.randn(2, 3, 8, 8))
    assert values["2"] == (0.0 if isinstance(pool, nn.RMSNorm) else 0.5)


def test_looking_for_dropout_computes_no_checkpointed_part_again() -> None:
    calls = []

    def part(x: Tensor) -> Tensor:
        calls.append(1)
        return x * torch.ones_like(x)

    def function(x: Tensor, linear: nn.Module, relu: nn.Module) -> Tensor:
        output: Tensor = relu(checkpoint(part, linear(x), use_reentrant=False))
        assert len(calls) == 1
        return output

    assert dead(Does(function, nn.Linear(3, 4), nn.ReLU()), torch.randn(2, 3)).keys() == {"0"}
    assert len(calls) == 2
