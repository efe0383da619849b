"""Dead units: which dimension counts them, and where that is not known."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

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
