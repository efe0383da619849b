"""The meter of mutual information between a layer's activations and the inputs and classes."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.reduction.validation import array, count
from flexrec.replay.meters.base import Meter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROWS = 512  # samples whose distances to all others are in memory at a time


class InformationMeter(Meter):
    """Mutual information of a layer's activations with the inputs X and classes Y of a fixed batch.

        >>> meter = InformationMeter()
        >>> meter.add([[-0.9], [-0.9], [0.9], [0.9]], [0, 0, 1, 1])
        >>> plane, ixt, ity = meter.value()
        >>> ixt, ity
        (1.0, 1.0)

    Takes (activations, classes), of shapes (samples, …) and (samples,), as `Recorder.activations`
    records them. X is uniformly distributed over the samples, and the activations T are a function
    of X.
    Gives (plane, ixt, ity): I(X;T) and I(T;Y) as an array (2,) for the plot type `plane`, and each,
    in bits. Only the last add counts; without values, or if an activation is not finite, gives NaN.
    O(samples × units) memory.

    With `estimator="binning"`, as in Shwartz-Ziv and Tishby (arXiv 1703.00810): each unit's range
    is cut into `bins` equal bins, T is the row of all units' bins, and entropies are computed from
    the observed frequencies: I(X;T) = H(T), I(T;Y) = H(T) − Σ p(y) H(T|y). The result depends on
    the bins; if every row is unique, I(X;T) is the logarithm of the number of samples.

    With `estimator="pairwise"`, the upper bound of Kolchinsky and Tracey (Entropy 2017, 19(7),
    361, eq. 10) on I(X;T + noise), with Gaussian noise of variance `noise` in every unit:
    −1/N Σ_i log2 1/N Σ_j exp(−‖t_i − t_j‖² / 2 noise), and I(T;Y) by the same bound within each
    class. It needs no bins, changes smoothly, and suits layers whose activations are unbounded; its
    only parameter is the assumed noise.

    Args:
        bins: the number of bins for each unit.
        range: the activations' range. None takes (−1, 1), the range of tanh, if the batch lies in
            it, or else the batch's own range, which "auto" always takes. Values outside a given
            range count in the outermost bins.
        estimator: "binning" or "pairwise".
        noise: the variance of the noise, for "pairwise".

    Raises:
        MeterError: the arguments are not (samples, …) and (samples,) of the same length.
    """

    fields = ("plane", "ixt", "ity")

    def __init__(
        self,
        bins: int = 30,
        range: tuple[float, float] | Literal["auto"] | None = None,  # noqa: A002
        estimator: Literal["binning", "pairwise"] = "binning",
        noise: float = 0.1,
    ) -> None:
        self.bins = count("bins", bins, least=2)
        if estimator not in ("binning", "pairwise"):
            raise ValueError(f"estimator must be 'binning' or 'pairwise', got {estimator!r}")
        if not noise > 0:
            raise ValueError(f"noise must be a variance above 0, got {noise!r}")
        self.range = range if range is None or range == "auto" else _checked(range)
        self.estimator, self.noise = estimator, float(noise)
        self.reset()

    def reset(self) -> None:
        """Discard the activations."""
        self._rows: Floats | None = None
        self._classes: Ints | None = None

    def add(self, activations: Any, classes: Any) -> None:
        """Add the activations (samples, …) of the probe batch, and its classes (samples,)."""
        rows = array("activations", activations, keep=True)
        found = array("classes", classes)
        if rows.ndim < 1 or not len(rows) or found.shape != (len(rows),):
            raise MeterError(
                "activations must be (samples, …) and classes (samples,), "
                f"got {rows.shape} and {found.shape}"
            )
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        self._rows = rows if np.isfinite(rows).all() else None
        self._classes = np.unique(found, return_inverse=True)[1]

    def value(self) -> tuple[Floats, float, float]:
        """(I(X;T), I(T;Y)) as an array, then each as a number, in bits."""
        if self._rows is None or self._classes is None:
            return np.full(2, np.nan), float("nan"), float("nan")
        measure = self._binned if self.estimator == "binning" else self._pairwise
        ixt, ity = measure(self._rows, self._classes)
        return np.array([ixt, ity]), ixt, ity

    def _binned(self, rows: Floats, classes: Ints) -> tuple[float, float]:
        low, high = self._range_of(rows)
        width = (high - low) / self.bins or 1.0
        bins = np.clip(np.floor((rows - low) / width), 0, self.bins - 1).astype(np.int32)
        codes = np.unique(bins, axis=0, return_inverse=True)[1].reshape(-1)
        whole = entropy(np.bincount(codes))
        within = sum(
            np.mean(classes == label) * entropy(np.bincount(codes[classes == label]))
            for label in range(int(classes.max()) + 1)
        )
        return whole, max(0.0, whole - float(within))

    def _range_of(self, rows: Floats) -> tuple[float, float]:
        if isinstance(self.range, tuple):
            return self.range
        least, greatest = float(rows.min()), float(rows.max())
        is_like_tanh = self.range is None and least >= -1 and greatest <= 1
        return (-1.0, 1.0) if is_like_tanh else (least, greatest)

    def _pairwise(self, rows: Floats, classes: Ints) -> tuple[float, float]:
        whole = _mixture_information(rows, self.noise)
        within = sum(
            np.mean(classes == label) * _mixture_information(rows[classes == label], self.noise)
            for label in range(int(classes.max()) + 1)
        )
        return whole, max(0.0, whole - float(within))


def entropy(counts: NDArray[Any]) -> float:
    """The entropy of observed frequencies, in bits.

    >>> entropy(np.array([2, 2, 0, 4]))
    1.5
    """
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0  # avoids −0.0


def _mixture_information(rows: Floats, noise: float) -> float:
    """Compute −1/N Σ_i log2 1/N Σ_j exp(−‖t_i − t_j‖² / 2 noise), some rows at a time."""
    rows = rows - rows.mean(axis=0)  # centring keeps the distances, and their accuracy near 0
    total = 0.0
    for first in range(0, len(rows), _ROWS):
        distances = _squared_distances(rows[first : first + _ROWS], rows, noise * 1e-9)
        kernel = np.exp(-np.maximum(distances, 0) / (2 * noise)).mean(axis=1)
        total -= float(np.log2(kernel).sum())
    return max(0.0, total / len(rows))


def _squared_distances(some: Floats, rows: Floats, error: float) -> Floats:
    """‖t_i − t_j‖² of some rows and all; by a matrix product if its error is at most `error`."""
    squares = (rows * rows).sum(axis=1)
    if squares.max() * np.finfo(np.float64).eps <= error:
        lengths: Floats = (some * some).sum(axis=1)[:, None] + squares
        return lengths - 2 * some @ rows.T
    distances = np.zeros((len(some), len(rows)))
    for mine, others in zip(some.T, rows.T, strict=True):
        distances += (mine[:, None] - others) ** 2
    return distances


def _checked(bounds: Any) -> tuple[float, float]:
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        raise ValueError(f"range must be (lowest, highest) or 'auto', got {bounds!r}") from None
    if not low < high or not np.isfinite([low, high]).all():
        raise ValueError(f"range must be (lowest, highest) or 'auto', got {bounds!r}")
    return low, high
