"""Meters for ranking: do positive samples score above negative ones? They keep every score."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Array
from flexrec.recorder.reduction.validation import array, binary, shapes_differ
from flexrec.replay.meters.base import Meter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class AUCMeter(Meter):
    """Area under the ROC curve, and the curve.

        >>> meter = AUCMeter()
        >>> meter.add([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> auc, tpr, fpr = meter.value()
        >>> auc
        0.75

    Takes (output, target): scores, and targets 0 or 1, both (N,) or (N, 1), or numbers.
    Gives (auc, tpr, fpr): the area, and the true and false positive rates (M + 1,) float64 as the
    threshold falls through the M distinct scores. Equal scores are one step of the curve, so that
    the area is the probability that a positive scores above a negative, where equal scores count
    half (Fawcett 2006, "An introduction to ROC analysis", §5). Without positives tpr and auc are
    nan, without negatives fpr and auc. A NaN among the scores makes all three nan. Without values
    gives (0.5, [0], [0]), as in TNT. O(N) memory, O(N log N) time when read.

    Raises:
        MeterError: the shapes do not match; a target is neither 0 nor 1.
    """

    fields = ("auc", "tpr", "fpr")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Discard all samples."""
        self._scores: list[Array] = []
        self._hits: list[Bools] = []

    def add(self, output: Any, target: Any) -> None:
        """Add scores and targets."""
        scores, hits = array("output", output, keep=True), binary("target", target)
        if not (_is_column(scores) and _is_column(hits) and scores.size == hits.size):
            raise shapes_differ(("output", "target"), (scores, hits))
        self._scores.append(scores.ravel())
        self._hits.append(hits.ravel())

    def value(self) -> tuple[float, Floats, Floats]:
        """(area, true positive rates, false positive rates)."""
        if not any(scores.size for scores in self._scores):
            return 0.5, np.zeros(1), np.zeros(1)
        scores, hits = _whole(self._scores), _whole(self._hits)
        if np.isnan(scores).any():
            return math.nan, np.full(1, np.nan), np.full(1, np.nan)
        tp, seen = _found(scores, hits)
        tp, fp = np.append(0, tp), np.append(0, seen - tp)
        with np.errstate(invalid="ignore"):
            tpr, fpr = tp / tp[-1], fp / fp[-1]
        pairs = 2.0 * float(tp[-1]) * float(fp[-1])
        area = float((np.diff(fp) * (tp[1:] + tp[:-1])).sum())
        return area / pairs if pairs else math.nan, tpr, fpr


class APMeter(Meter):
    """Average precision of each class.

        >>> meter = APMeter()
        >>> meter.add([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]], [[1, 0], [1, 0], [0, 1]])
        >>> meter.value().round(3).tolist()
        [0.833, 0.5]

    Takes (output, target) or (output, target, weight): scores, and targets 0 or 1, both (N, K), or
    (N,) for one class, and weights (N,) or (N, 1) of at least 0, by default 1.
    Gives (K,) float64: for each class the mean, over its positives, of the (weighted) precision of
    all samples that score as high or higher; 0 without positives. Weights count in the precision,
    not in the mean, as in TNT. A NaN among a class's scores makes its result nan. Without values
    gives an empty array.
    Formula, without weights: Manning, Raghavan, Schütze 2008, "Introduction to Information
    Retrieval", eq. 8.8. O(N·K) memory, O(K·N log N) time when read.

    Raises:
        MeterError: the shapes do not match each other or those of earlier adds; a target is
            neither 0 nor 1; a weight is below 0.
    """

    fields = ("ap",)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Discard all samples."""
        self._scores: list[Array] = []
        self._hits: list[Bools] = []
        self._weights: list[Floats] = []  # empty until a weight is given

    def add(self, output: Any, target: Any, weight: Any = None) -> None:
        """Take in scores, targets and weights."""
        scores, hits = array("output", output, keep=True), binary("target", target)
        if scores.shape != hits.shape or scores.ndim not in (1, 2):
            raise shapes_differ(("output", "target"), (scores, hits))
        if not len(scores):
            return  # no samples, of however many classes
        scores, hits = scores.reshape(len(scores), -1), hits.reshape(len(hits), -1)
        if self._scores and self._scores[0].shape[1] != scores.shape[1]:
            raise MeterError(
                f"output must have {self._scores[0].shape[1]} classes as before, "
                f"got {scores.shape[1]}"
            )
        if weight is not None or self._weights:
            weights = np.ones(len(scores)) if weight is None else _weights(weight, scores)
            self._weights = self._weights or [np.ones(len(before)) for before in self._scores]
            self._weights.append(weights)
        self._scores.append(scores)
        self._hits.append(hits)

    def value(self) -> Floats:
        """The average precision of each class."""
        if not self._scores:
            return np.zeros(0)
        scores, hits = _whole(self._scores), _whole(self._hits)
        weights = _whole(self._weights) if self._weights else None
        each = zip(scores.T, hits.T, strict=True)
        return np.array([_average_precision(s, h, weights) for s, h in each])


class mAPMeter(Meter):  # noqa: N801 - TNT's name
    """Mean average precision: the mean of APMeter's results over the classes.

        >>> meter = mAPMeter()
        >>> meter.add([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]], [[1, 0], [1, 0], [0, 1]])
        >>> round(meter.value(), 3)
        0.667

    Takes and raises the same as APMeter. Without values gives nan. O(N·K) memory.
    """

    fields = ("map",)

    def __init__(self) -> None:
        self._classes = APMeter()

    def reset(self) -> None:
        """Discard all samples."""
        self._classes.reset()

    def add(self, output: Any, target: Any, weight: Any = None) -> None:
        """Take in scores, targets and weights."""
        self._classes.add(output, target, weight)

    def value(self) -> float:
        """The mean over the classes."""
        each = self._classes.value()
        return float(each.mean()) if each.size else math.nan


def _whole(parts: list[Array]) -> Array:
    """Concatenate the parts; the list then holds only the result."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]


def _is_column(array: Array) -> bool:
    """Whether at most one axis is longer than 1."""
    return array.ndim < 2 or array.size == max(array.shape)


def _found(scores: Array, hits: Bools) -> tuple[Ints, Ints]:
    """Count the positives, and the samples, at or above each distinct score, in falling order."""
    ranked, positives = _ascending(scores), _ascending(scores[hits])  # faster than argsort
    first = _first_of_equals(ranked)
    distinct = ranked[first] if len(first) < len(ranked) else ranked
    found = len(positives) - np.searchsorted(positives, distinct)
    return found[::-1], len(ranked) - first[::-1]


def _ascending(scores: Array) -> Array:
    """Sort the scores, unless they are sorted, which takes a hundredth of the time to check."""
    return scores if (scores[1:] >= scores[:-1]).all() else np.sort(scores)


def _first_of_equals(ranked: Array) -> Ints:
    starts = np.ones(len(ranked), bool)
    np.not_equal(ranked[1:], ranked[:-1], out=starts[1:])
    return np.flatnonzero(starts)


def _average_precision(scores: Array, hits: Bools, weights: Floats | None) -> float:
    if np.isnan(scores).any():
        return math.nan
    if not hits.any():
        return 0.0
    if weights is not None:
        return _weighted_precision(scores, hits, weights)
    positives, negatives = _ascending(scores[hits]), _ascending(scores[~hits])
    first = _first_of_equals(positives)
    found = len(positives) - first
    false = len(negatives) - np.searchsorted(negatives, positives[first])
    each = np.diff(first, append=len(positives))
    return float((each * (found / (found + false))).sum() / len(positives))


def _weighted_precision(scores: Array, hits: Bools, weights: Floats) -> float:
    order = np.argsort(scores)[::-1]
    hits, weights = hits[order], weights[order]
    last = np.append(_first_of_equals(scores[order])[1:], len(order)) - 1
    found, weight = np.cumsum(hits)[last], np.cumsum(weights)[last]
    precision = np.cumsum(weights * hits)[last] / np.where(weight > 0, weight, 1.0)
    return float((np.diff(found, prepend=0) * precision).sum() / found[-1])


def _weights(weight: Any, scores: Array) -> Floats:
    weights = array("weight", weight).astype(np.float64)
    if weights.size != len(scores):
        raise shapes_differ(("weight", "output"), (weights, scores))
    if not (weights >= 0).all():
        raise MeterError(f"weight must be at least 0, got {weights.min()}")
    return weights.ravel()
