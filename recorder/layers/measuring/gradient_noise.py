"""Mean and noise of the gradient of a layer's weights across minibatches."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flexrec.recorder.layers.measuring.measures import Number, item, squared


class GradientStream:
    """Mean and noise of a gradient over minibatches, in double precision, with a single buffer.

    >>> stream = GradientStream()
    >>> for sign in (1.0, -1.0):
    ...     stream.add({"weight": torch.tensor([3.0, 4.0]) * sign})
    >>> float(stream.signal()), float(stream.noise())
    (0.0, 5.0)

    The source is Shwartz-Ziv and Tishby, arXiv 1703.00810, Fig. 4, before the division by the
    norm of the weights: the norm of the mean gradient, and the square root of the sum of the
    elements' population variances, which is the mean square norm less the square of the first.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._batches: Number = 0.0
        self._sums: dict[str, Tensor] = {}
        self._squares: Number = 0.0

    @torch.inference_mode(mode=False)
    def add(self, gradients: Mapping[str, Tensor], *, finite: bool = False) -> None:
        """Add one minibatch's gradients; a missing parameter's gradient counts as zero.

        If a parameter has another shape or device than before, everything is started anew.

        Args:
            gradients: the gradients by parameter name.
            finite: whether to skip the minibatch if not all gradients are finite, as a GradScaler
                does.
        """
        exact = {name: _exactly(gradient) for name, gradient in gradients.items()}
        if any(
            name in self._sums
            and (self._sums[name].shape, self._sums[name].device) != (one.shape, one.device)
            for name, one in exact.items()
        ):
            self._begin()
        squares = torch.stack([squared(one) for one in exact.values()]).sum()
        counts = squares.isfinite()
        if finite:
            exact = {name: one.where(counts, 0.0) for name, one in exact.items()}
            squares = squares.where(counts, 0.0)
        self._batches = self._batches + (item(counts) if finite else 1.0)
        self._squares = self._squares + squares
        for name, one in exact.items():
            if name in self._sums:
                self._sums[name].add_(one)
            else:
                self._sums[name] = one

    def signal(self) -> Tensor:
        """The norm of the mean gradient."""
        squares = [squared(total) for total in self._sums.values()]
        return torch.stack(squares).sum().sqrt() / self._batches

    def noise(self) -> Tensor:
        """The square root of the summed variances; 0 if they are within rounding errors, as for a
        single minibatch."""
        mean = self._squares / self._batches
        spread = mean - self.signal().square()
        rounding = mean * self._batches * (4 * torch.finfo(spread.dtype).eps)
        return spread.where(~(spread <= rounding), 0.0).sqrt()


def _exactly(gradient: Tensor) -> Tensor:
    """A dense copy in double precision, or in the device's highest precision."""
    dense = gradient.detach().to_dense()
    if dense.is_complex():
        dense = torch.view_as_real(dense.resolve_conj())
    return dense.to(torch.float32 if dense.device.type == "mps" else torch.float64, copy=True)
