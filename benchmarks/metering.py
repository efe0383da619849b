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

BATCH = 1000
CLASSES = 10


def main() -> None:
    """10M numbers, or 1M samples, in batches of a thousand, against what there is elsewhere."""
    quick = begin(__doc__ or "")
    samples = 200_000 if quick else 10_000_000
    rng = np.random.default_rng(0)
    many = samples // CLASSES  # samples of ten scores each
    scores = rng.normal(size=(many, CLASSES)).astype("f4")
    target = rng.integers(0, CLASSES, many)
    predicted = scores.argmax(1)
    one, hits = rng.random(samples).astype("f4"), rng.integers(0, 2, samples)
    other = rng.random(samples).astype("f4")
    rounds = 2 if quick else 3
    for title, ours, rivals, data in (
        ("MSE", MSEMeter(), mse(), (one, other)),
        ("ClassError, scores of ten classes", ClassErrorMeter(), error(), (scores, target)),
        ("Confusion", ConfusionMeter(CLASSES), confusion(), (predicted, target)),
        # torchnet's goes through the samples one by one: a tenth of them is enough.
        ("AUC", AUCMeter(), auc(), (one[:many], hits[:many])),
        ("AP", APMeter(), ap(), (one[:many], hits[:many])),
    ):
        compare(title, ours, rivals, data, rounds)


Rival = Callable[[list[Any], list[Any]], Any]


def compare(
    title: str, meter: Any, rivals: dict[str, Rival], data: tuple[Any, Any], rounds: int
) -> None:
    """One meter against its rivals: the same batches, as arrays to us and sklearn, else tensors."""
    batches = [np.array_split(each, max(1, len(each) // BATCH)) for each in data]
    tensors = [list(map(torch.from_numpy, each)) for each in batches]
    values: dict[str, Any] = {}

    def own() -> None:
        meter.reset()
        for args in zip(*batches, strict=True):
            meter.add(*args)
        values["flexrec"] = meter.value()

    def other(name: str, rival: Rival) -> Callable[[], float]:
        def run() -> None:
            values[name] = rival(*(batches if name == "scikit-learn" else tensors))

        return lambda: seconds(run)

    tools = {"flexrec": lambda: seconds(own)}
    tools |= {name: other(name, rival) for name, rival in rivals.items()}
    taken, failed = interleaved(tools, rounds)
    ours = taken["flexrec"]
    show(
        [
            [name, f"{each:.3f}", ratio(each, ours), shown(values[name], values["flexrec"])]
            for name, each in taken.items()
        ]
        + [[name, "failed", why, ""] for name, why in failed.items()],
        f"{title}, {len(data[0]):,} samples",
        "s",
        "times ours",
        "largest difference of values, relative",
    )


def shown(theirs: Any, ours: Any) -> str:
    """How far a value is from ours."""
    first, second = (value[0] if isinstance(value, tuple) else value for value in (theirs, ours))
    a, b = np.asarray(first, float).ravel(), np.asarray(second, float).ravel()
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


def whole(function: Callable[[Any, Any], Any]) -> Rival:
    """One of scikit-learn's functions, over everything at once."""
    return lambda output, target: function(np.concatenate(target), np.concatenate(output))


def mse() -> dict[str, Rival]:
    """Mean squared errors."""
    from sklearn.metrics import mean_squared_error
    from torchmetrics import MeanSquaredError
    from torchnet.meter import MSEMeter as Original

    return {
        "torchnet": tnt(Original),
        "torchmetrics": metric(MeanSquaredError),
        "scikit-learn": whole(mean_squared_error),
    }


def error() -> dict[str, Rival]:
    """Class errors, in percent."""
    from sklearn.metrics import top_k_accuracy_score
    from torchmetrics.classification import MulticlassAccuracy
    from torchnet.meter import ClassErrorMeter as Original

    def make() -> Any:
        return MulticlassAccuracy(CLASSES, average="micro")

    def top1(target: Any, output: Any) -> float:
        return 100 - 100 * float(top_k_accuracy_score(target, output, k=1))

    return {
        "torchnet": tnt(Original, lambda value: value[0]),
        "torchmetrics": metric(make, lambda value: 100 - 100 * float(value)),
        "scikit-learn": whole(top1),
    }


def confusion() -> dict[str, Rival]:
    """Confusion matrices."""
    from sklearn.metrics import confusion_matrix
    from torchmetrics.classification import MulticlassConfusionMatrix
    from torchnet.meter import ConfusionMeter as Original

    return {
        "torchnet": tnt(lambda: Original(CLASSES)),
        "torchmetrics": metric(lambda: MulticlassConfusionMatrix(CLASSES)),
        "scikit-learn": whole(confusion_matrix),
    }


def auc() -> dict[str, Rival]:
    """Areas under ROC curves."""
    from sklearn.metrics import roc_auc_score
    from torchmetrics.classification import BinaryAUROC
    from torchnet.meter import AUCMeter as Original

    return {
        "torchnet": tnt(Original, lambda value: value[0]),
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
