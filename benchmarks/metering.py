"""How fast are the meters, and are their values the same?

python benchmarks/metering.py [--quick]
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import begin, interleaved, ratio, seconds, show

from flexrec.replay.meters import APMeter, AUCMeter, ClassErrorMeter, ConfusionMeter, MSEMeter

CLASSES = 10
TOPK = (1, 5)
MARK = 1.2
"""How many times the quickest's time a meter may take."""
PART = 10
"""Of what takes many times as long as the others, one sample in so many is enough."""
SHARE = f", {PART} times a share of 1 in {PART}"

Rival = Callable[[list[Any], list[Any]], Any]
"""Given batches of outputs and batches of targets, what it makes of all."""


def main() -> None:
    """Every meter, fed in three ways, and all tools alike: at once, in batches, in small ones."""
    quick = begin(__doc__ or "")
    samples, small = (200_000, 10_000) if quick else (10_000_000, 100_000)
    feedings = {
        f"{samples:,} samples at once": (samples, samples, 3),
        f"{samples:,} samples in batches of 1000": (samples, 1000, 3),
        f"{small:,} samples in batches of 32": (small, 32, 5),
    }
    rng = np.random.default_rng(0)

    def numbers(n: int) -> tuple[Any, Any]:
        return rng.random(n, dtype="f4"), rng.random(n, dtype="f4")

    def scores(n: int) -> tuple[Any, Any]:
        return rng.random((n, CLASSES), dtype="f4"), rng.integers(0, CLASSES, n)

    def classes(n: int) -> tuple[Any, Any]:
        return rng.integers(0, CLASSES, n), rng.integers(0, CLASSES, n)

    def ranked(n: int) -> tuple[Any, Any]:
        return rng.random(n, dtype="f4"), rng.integers(0, 2, n)

    shares = {
        title: [
            compare(f"{title}, {how}", meter, rivals, drawn(n), batch, rounds)
            for how, (n, batch, rounds) in feedings.items()
        ]
        for title, meter, rivals, drawn in (
            ("MSE", MSEMeter(), mse(), numbers),
            ("ClassError, top 1", ClassErrorMeter(), error((1,)), scores),
            ("ClassError, top 1 and 5", ClassErrorMeter(TOPK), error(TOPK), scores),
            ("Confusion of classes", ConfusionMeter(CLASSES), confusion(), classes),
            ("Confusion of scores", ConfusionMeter(CLASSES), confusion(highest), scores),
            ("AUC", AUCMeter(), auc(), ranked),
            ("AP", APMeter(), ap(), ranked),
        )
    }
    rows = [[title, *map("{:.2f}".format, each)] for title, each in shares.items()]
    show(rows, f"our time / that of the fastest other tool (target: at most {MARK})", *feedings)


def compare(
    title: str, meter: Any, rivals: dict[str, Rival], data: tuple[Any, Any], batch: int, rounds: int
) -> float:
    """One meter against its rivals, given the same batches: tensors, but arrays to us and sklearn.

    Returns our time in that of the quickest rival.
    """
    batches = [np.array_split(each, len(each) // batch) for each in data]
    tensors = [list(map(torch.from_numpy, each)) for each in batches]
    values: dict[str, Any] = {}

    def own(part: int) -> Any:
        meter.reset()
        for args in zip(*(shared(each, part) for each in batches), strict=True):
            meter.add(*args)
        value = meter.value()
        return value[0] if isinstance(meter, AUCMeter) else value

    def tool(name: str, rival: Rival | None) -> Callable[[], float]:
        part = parts[name]
        cut = [shared(each, part) for each in (batches if "scikit" in name else tensors)]

        def run() -> None:
            values[name] = own(1) if rival is None else rival(*cut)

        return lambda: part * seconds(run)

    parts = {name: PART if name.endswith(SHARE) else 1 for name in ("flexrec", *rivals)}
    taken, failed = interleaved({n: tool(n, rivals.get(n)) for n in parts}, rounds)
    wanted = {part: own(part) for part in set(parts.values())}
    ours = taken["flexrec"]
    show(
        [
            [name, f"{each:.4f}", ratio(each, ours), shown(values[name], wanted[parts[name]])]
            for name, each in taken.items()
        ]
        + [[name, "failed", why, ""] for name, why in failed.items()],
        title,
        "s",
        "times ours",
        "largest difference of values, relative",
    )
    return ours / min((taken[name] for name in rivals if name in taken), default=math.nan)


def shared(batches: list[Any], part: int) -> list[Any]:
    """One in `part` of the samples: the first batches, or the first of the only one."""
    if len(batches) == 1:
        return [batches[0][: len(batches[0]) // part]]
    return batches[: len(batches) // part]


def shown(theirs: Any, ours: Any) -> str:
    """How far a value is from ours."""
    a, b = (np.asarray(value, float).ravel() for value in (theirs, ours))
    if a.shape != b.shape:
        return f"shapes {a.shape}, {b.shape}"
    return f"{np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-300)):.1e}"


def tnt(make: Callable[[], Any], read: Callable[[Any], Any] = lambda value: value) -> Rival:
    """One of torchnet's meters."""

    def run(output: list[Any], target: list[Any]) -> Any:
        meter = make()
        for pair in zip(output, target, strict=True):
            meter.add(*pair)
        return read(meter.value())

    return run


def metric(make: Callable[[], Any], read: Callable[[Any], Any] = lambda value: value) -> Rival:
    """One of torchmetrics' metrics."""

    def run(output: list[Any], target: list[Any]) -> Any:
        made = make()
        for pair in zip(output, target, strict=True):
            made.update(*pair)
        return read(made.compute())

    return run


def added(function: Callable[[Any, Any], Any]) -> Rival:
    """One of scikit-learn's functions, whose values for each batch are added up."""
    return lambda output, target: sum(map(function, target, output))


def whole(function: Callable[[Any, Any], Any]) -> Rival:
    """One of scikit-learn's functions whose values cannot be: over all batches put together."""
    return lambda output, target: function(np.concatenate(target), np.concatenate(output))


def mse() -> dict[str, Rival]:
    """Mean squared errors."""
    from sklearn.metrics import mean_squared_error
    from torchmetrics import MeanSquaredError
    from torchnet.meter import MSEMeter as Original

    total = added(lambda target, output: len(target) * mean_squared_error(target, output))
    return {
        "torchnet": tnt(Original),
        "torchmetrics": metric(MeanSquaredError),
        "scikit-learn": lambda output, target: total(output, target) / sum(map(len, target)),
    }


def error(topk: tuple[int, ...]) -> dict[str, Rival]:
    """Class errors, in percent."""
    from sklearn.metrics import top_k_accuracy_score, zero_one_loss
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy
    from torchnet.meter import ClassErrorMeter as Original

    def make() -> Any:
        each: dict[str, Any] = {
            str(k): MulticlassAccuracy(CLASSES, average="micro", top_k=k) for k in topk
        }
        return MetricCollection(each) if len(each) > 1 else each.popitem()[1]

    def read(value: Any) -> list[float]:
        values = value.values() if isinstance(value, dict) else [value]
        return [100 - 100 * float(each) for each in values]

    def wrong(target: Any, output: Any) -> Any:
        options = {"normalize": False, "labels": range(CLASSES)}
        return np.array(
            [
                zero_one_loss(target, highest(output), normalize=False)
                if k == 1
                else len(target) - top_k_accuracy_score(target, output, k=k, **options)
                for k in topk
            ]
        )

    total = added(wrong)
    return {
        "torchnet": tnt(lambda: Original(list(topk))),
        "torchmetrics": metric(make, read),
        f"scikit-learn{SHARE}": lambda o, t: 100 * total(o, t) / sum(map(len, t)),
    }


def highest(scores: Any) -> Any:
    """The classes with the highest scores."""
    return scores.argmax(1)


def confusion(read: Callable[[Any], Any] = lambda predicted: predicted) -> dict[str, Rival]:
    """Confusion matrices; `read` makes classes of what is predicted, where a peer wants that."""
    from sklearn.metrics import confusion_matrix
    from torchmetrics.classification import MulticlassConfusionMatrix
    from torchnet.meter import ConfusionMeter as Original

    def matrix(target: Any, output: Any) -> Any:
        return confusion_matrix(target, read(output), labels=range(CLASSES))

    return {
        "torchnet": tnt(lambda: Original(CLASSES)),
        "torchmetrics": metric(lambda: MulticlassConfusionMatrix(CLASSES)),
        f"scikit-learn{SHARE}": added(matrix),
    }


def auc() -> dict[str, Rival]:
    """Areas under ROC curves."""
    from sklearn.metrics import roc_auc_score
    from torchmetrics.classification import BinaryAUROC
    from torchnet.meter import AUCMeter as Original

    return {
        f"torchnet{SHARE}": tnt(Original, lambda value: value[0]),  # goes from sample to sample
        "torchmetrics": metric(BinaryAUROC),
        "scikit-learn": whole(roc_auc_score),
    }


def ap() -> dict[str, Rival]:
    """Average precisions."""
    from sklearn.metrics import average_precision_score
    from torchmetrics.classification import BinaryAveragePrecision
    from torchnet.meter import APMeter as Original

    return {
        "torchnet": tnt(Original, lambda value: math.nan if value is None else value),
        "torchmetrics": metric(BinaryAveragePrecision),
        "scikit-learn": whole(average_precision_score),
    }


if __name__ == "__main__":
    main()
