"""The table of every meter: what it is fed, and what it must then say, from first principles."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from flexrec.replay.meters import (
    APMeter,
    AUCMeter,
    AverageValueMeter,
    BestValueMeter,
    ClassErrorMeter,
    ConfusionMeter,
    HistogramMeter,
    ImageMeter,
    LastValueMeter,
    MovingAverageValueMeter,
    MSEMeter,
    TextMeter,
    mAPMeter,
)
from support.meter_tester import MeterCase

__all__ = ["CASES", "MULTI", "NUMBERS", "parts"]

rng = np.random.default_rng(0)
NAN, INF = math.nan, math.inf
NUMBERS = [(value,) for value in (0.5, 2.5, -1.0, 7.25)]
SCORES = [rng.normal(size=(n, 4)).round(1).astype("f4") for n in (5, 1, 8)]  # with ties
CLASSES = [rng.integers(0, 4, len(scores)) for scores in SCORES]
LABELLED = list(zip(SCORES, CLASSES, strict=True))
RANKED = [
    (rng.normal(size=n).round(1), np.arange(n) % 3 == 0) for n in (4, 9, 6)
]  # with ties, and both targets from the start
NOT_NUMBERS: list[tuple[Any, ...]] = [("x",), (None,), ([[1], [1, 2]],), (1 + 2j,)]


def parts(adds: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The arguments of all adds, put end to end."""
    return [np.concatenate([np.atleast_1d(part) for part in each]) for each in zip(*adds)]  # noqa: B905


def mean_and_std(adds: Any) -> Any:
    values = np.array([value for (value,) in adds], np.float64)
    if len(values) == 1:
        return values[0], np.full_like(values[0], INF)
    return values.mean(axis=0), values.std(axis=0, ddof=1)


def last_three(adds: Any) -> Any:
    values = [value for (value,) in adds[-3:]]
    return np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0


def mean_squared_error(adds: Any) -> Any:
    output, target = parts(adds)
    return metrics.mean_squared_error(target.astype("f8"), output.astype("f8"))


def top_k_errors(adds: Any) -> Any:
    """By full sorts: of equal scores the lower class first, NaN before all."""
    wrong = {1: 0, 3: 0}
    for scores, classes in adds:
        for row, own in zip(np.atleast_2d(scores), np.ravel(classes), strict=True):
            order = sorted(range(len(row)), key=lambda c: -INF if np.isnan(row[c]) else -row[c])
            for k in wrong:
                wrong[k] += own not in order[:k]
    n = sum(len(np.ravel(classes)) for _, classes in adds)
    return tuple(100.0 * count / n for count in wrong.values())


def confusion(adds: Any) -> Any:
    scores, target = parts(adds)
    return metrics.confusion_matrix(target, scores.argmax(axis=1), labels=range(4))


def shares(adds: Any) -> Any:
    scores, target = parts(adds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows without samples
        return metrics.confusion_matrix(
            target, scores.argmax(axis=1), labels=range(4), normalize="true"
        )


def roc(adds: Any) -> Any:
    scores, target = parts(adds)
    fpr, tpr, _ = metrics.roc_curve(target, scores, drop_intermediate=False)
    return metrics.roc_auc_score(target, scores), tpr, fpr


def precisions(adds: Any) -> Any:
    """From the definition: the mean, over the positives, of the precision at their score."""
    output, target = parts([add[:2] for add in adds])
    weight = np.concatenate([a[2] if len(a) > 2 else np.ones(len(a[0])) for a in adds])
    found = []
    for scores, hits in zip(output.T, target.T.astype(bool), strict=True):
        at = [scores >= score for score in scores[hits]]
        found.append(np.mean([weight[on & hits].sum() / weight[on].sum() for on in at] or [0.0]))
    return np.array(found)


MULTI = [(scores, scores.round() % 2 == 0) for scores in SCORES]
WEIGHED = [(*add, rng.uniform(0.1, 2, len(add[0]))) for add in MULTI]
IMAGES = [(np.zeros((4, 5), np.uint8),), (np.ones((3, 4, 5)),), (np.ones((2, 1, 4, 5)),)]
VALUES = [(rng.normal(size=shape) ** 3,) for shape in ((7,), (2, 3), (50,))]


def binned(adds: Any) -> Any:
    counts, edges = np.histogram(np.concatenate([np.ravel(v) for (v,) in adds]), 8, (-2, 2))
    below = np.concatenate([[0], np.cumsum(counts)])
    bounds = np.full(65, np.nan)
    for part in range(65) if counts.any() else ():  # none beyond the bins that are filled
        wanted = part * counts.sum() / 64
        high = max(int(np.argmax(below >= wanted)), int(np.flatnonzero(counts)[0]) + 1)
        share = (wanted - below[high - 1]) / counts[high - 1]
        bounds[part] = edges[high - 1] + share * (edges[high] - edges[high - 1])
    return counts, edges, bounds


def last(adds: Any) -> Any:
    return adds[-1][0]


PAIRS: list[tuple[Any, ...]] = [(SCORES[0], CLASSES[1]), (SCORES[0],), (SCORES[0], "a"), ("a", 1)]
CASES = [
    MeterCase("average", AverageValueMeter, NUMBERS, mean_and_std, (NAN, NAN),
              [*NOT_NUMBERS, (1.0, 0), (1.0, 1.5), (1.0, NAN), (np.ones(3), -1)], merges=True),
    MeterCase("average of arrays", AverageValueMeter, [(s[:1],) for s in SCORES], mean_and_std,
              (NAN, NAN), NOT_NUMBERS, merges=True),
    MeterCase("moving", lambda: MovingAverageValueMeter(3), NUMBERS, last_three, (0.0, 0.0),
              [*NOT_NUMBERS, (np.ones(2),)]),
    MeterCase("best", BestValueMeter, NUMBERS, lambda a: min(v for (v,) in a), NAN,
              [*NOT_NUMBERS, (np.ones(2),)]),
    MeterCase("best max", lambda: BestValueMeter("max"), NUMBERS, lambda a: max(v for (v,) in a),
              NAN, NOT_NUMBERS),
    MeterCase("last", LastValueMeter, [*NUMBERS, *VALUES], last, NAN, NOT_NUMBERS),
    MeterCase("mse", MSEMeter, [(s, s[::-1].copy()) for s in SCORES],
              mean_squared_error, 0.0,
              [*PAIRS, (np.ones((3, 1)), np.ones(3))], merges=True),
    MeterCase("rmse", lambda: MSEMeter(root=True), [(s, s * 3) for s in SCORES],
              lambda a: math.sqrt(mean_squared_error(a)), 0.0,
              merges=True),
    MeterCase("class error", lambda: ClassErrorMeter([3, 1]), LABELLED, top_k_errors, (NAN, NAN),
              [*PAIRS, (SCORES[0][:, :2], CLASSES[0]), (np.ones((2, 2, 2)), 1)], merges=True),
    MeterCase("accuracy", lambda: ClassErrorMeter(accuracy=True), LABELLED,
              lambda a: 100.0 - top_k_errors(a)[0], NAN, [(SCORES[0], CLASSES[1])], merges=True),
    MeterCase("confusion", lambda: ConfusionMeter(4), LABELLED, confusion, np.zeros((4, 4), int),
              [*PAIRS, (SCORES[0][:, :3], CLASSES[0]), ([0], [4]), ([-1], [0]), ([0], [0.5]),
               ([NAN], [0]), ([[1, 0, 0, 0]], [[1, 1, 0, 0]]), (np.ones((2, 2, 2)), [0, 0])],
              merges=True),
    MeterCase("confusion of unknown size", ConfusionMeter, LABELLED, confusion,
              np.zeros((0, 0), int), [([0], [10**6]), ([0, 1], [0])], merges=True),
    MeterCase("confusion shares", lambda: ConfusionMeter(4, normalized=True), LABELLED, shares,
              np.zeros((4, 4)), merges=True),
    MeterCase("AUC", AUCMeter, RANKED, roc, (0.5, np.zeros(1), np.zeros(1)),
              [([0.1], [2]), ([0.1], [NAN]), ([0.1, 0.2], [1]),
               (np.ones((2, 2)), np.ones((2, 2)))]),
    MeterCase("AP", APMeter, MULTI, precisions, np.zeros(0),
              [([0.1], [2]), ([0.1], [[1, 0]]), ([0.1], [1], [-1]), ([0.1], [1], [1, 2]),
               ([0.1], [1], [NAN]), (0.1, 1)]),
    MeterCase("AP weighted", APMeter, WEIGHED, precisions, np.zeros(0), [([1.0], [1], "a")]),
    MeterCase("AP partly weighted", APMeter, [MULTI[0], WEIGHED[1], MULTI[2]], precisions,
              np.zeros(0)),
    MeterCase("mAP", mAPMeter, MULTI, lambda a: precisions(a).mean(), NAN, [([0.1], [2])]),
    MeterCase("histogram", lambda: HistogramMeter(8, (-2, 2)), VALUES, binned,
              (np.zeros(8, int), np.linspace(-2, 2, 9), np.full(65, NAN)), NOT_NUMBERS,
              merges=True),
    MeterCase("image", ImageMeter, IMAGES, last, None,
              [("x",), (1.0,), (np.zeros((0, 3)),), (np.zeros((2, 5, 4, 5)),)]),
    MeterCase("text", TextMeter, [("a",), ("b",)], lambda a: "\n".join(t for (t,) in a), "",
              [(1.0,), (b"a",)]),
]  # fmt: skip
