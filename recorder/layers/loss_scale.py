"""The scale of a GradScaler: where it is in the gradients, and how to undo it."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flexrec.recorder.layers.torch_private import scale_version, scaler_states


class Scaler(Protocol):
    """What is needed of torch.amp.GradScaler."""

    def is_enabled(self) -> bool:
        """Whether it scales at all."""

    def scale(self, outputs: Tensor) -> Tensor:
        """Its argument times the scale."""


class LossScale:
    """A GradScaler's scale, taken when the step was armed: `update` changes it before the end."""

    def __init__(self, scaler: Scaler, model: nn.Module) -> None:
        first = next(model.parameters(), torch.empty(0))
        self._scale = scaler.scale(torch.ones((), device=first.device))  # does not synchronise
        self._scaler = scaler
        self._states = self._unscaled()
        self._version = self._live_version()

    def _unscaled(self) -> Any:
        return scaler_states(self._scaler)

    def _live_version(self) -> int | None:
        return scale_version(self._scaler)

    def refresh(self) -> None:
        """Take the scale again where it was changed, for the backward pass that runs now."""
        version = self._live_version()
        if version != self._version:
            self._scale = self._scaler.scale(torch.ones_like(self._scale))
            self._version = version

    def undo(self, gradient: Tensor) -> Tensor:
        """The gradient of the loss itself."""
        return gradient / self._scale.to(gradient.device, non_blocking=True)

    def is_undone(self) -> bool:
        """Whether the scaler has divided `.grad` itself.

        `unscale_` and `step` note it by optimizer, until `update` begins a new book.
        """
        states = self._unscaled()
        return states is not self._states or any(s["found_inf_per_device"] for s in states.values())
