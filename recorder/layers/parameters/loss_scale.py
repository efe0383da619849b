"""Undo the scale of a GradScaler in gradients that contain it."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flexrec.recorder.layers.torch_private import scale_version, scaler_states


class Scaler(Protocol):
    """The part of torch.amp.GradScaler that is used here."""

    def is_enabled(self) -> bool:
        """Whether scaling is enabled."""

    def scale(self, outputs: Tensor) -> Tensor:
        """Multiply `outputs` by the scale."""


class LossScale:
    """A GradScaler's scale at the start of the step; `update` changes it before the step ends."""

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
        """Read the scale again if it was changed, for the current backward pass."""
        version = self._live_version()
        if version != self._version:
            self._scale = self._scaler.scale(torch.ones_like(self._scale))
            self._version = version

    def undo(self, gradient: Tensor) -> Tensor:
        """Divide a gradient by the scale."""
        return gradient / self._scale.to(gradient.device, non_blocking=True)

    def is_undone(self) -> bool:
        """Whether the scaler has already unscaled `.grad`.

        `unscale_` and `step` note this per optimizer, until `update` clears the notes.
        """
        states = self._unscaled()
        return states is not self._states or any(s["found_inf_per_device"] for s in states.values())
