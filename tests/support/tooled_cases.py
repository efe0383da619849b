"""What the tests of TooledModel share: a step's statistics, what they should be, and
what is saved of a model."""

import copy
import gc
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexrec.recorder import TooledModel

ALL = ("grad_in", "grad_out", "inputs", "outputs", "weights", "grad_weights", "updates")


def moments(*tensors: Tensor) -> tuple[float, float]:
    flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
    return flat.mean().item(), flat.std().item() if len(flat) > 1 else 0.0


def of(values: dict[str, Any], key: str) -> tuple[float, float]:
    return values[f"{key}/mean"], values[f"{key}/std"]


def near(*tensors: Tensor) -> Any:
    return pytest.approx(moments(*tensors), rel=1e-4, abs=1e-7)


def sources_of(values: dict[str, Any], layer: str) -> set[str]:
    return {key.split("/")[-2] for key in values if key.rsplit("/", 2)[0] == layer}


def step_of(
    model: nn.Module, *args: Any, sources: Any = ALL, loss: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """The statistics of one training pass, the hooks gone afterwards."""
    model.zero_grad()
    with TooledModel(model, sources) as tooled:
        output = model(*args, **kwargs)
        (output.square().sum() if loss is None else loss(output)).backward()
        return tooled.step()


class Takes(nn.Module):
    """A layer whose arguments and results are whatever a function makes of them."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self._forward = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self.weight, *args, **kwargs)


class Small(nn.Module):
    """A model of a user's own class: torch.compile treats those of torch.nn otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


def hooked() -> nn.Module:
    """With hooks of the user's own on a child."""
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    model[0].register_forward_pre_hook(of_the_user)
    model[1].register_forward_hook(of_the_user)
    return model


def of_the_user(*_: Any) -> None:
    """A hook."""


def normalised() -> nn.Module:
    """Whose weight is made anew by a pre-hook, before each call."""
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 2)), nn.ReLU())


def saved(value: Any) -> bytes:
    """What torch.save makes of it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def deep_copy(value: Any) -> Any:
    """torch copies no weight that was made from others."""
    try:
        return copy.deepcopy(value)
    except RuntimeError as error:
        return str(error)


def is_observed() -> bool:
    """Whether any module's calls are intercepted; watches that earlier tests left are collected."""
    gc.collect()
    return vars(nn.Module)["_compiled_call_impl"] is not None
