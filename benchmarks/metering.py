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
SMALL = 32
"""What a small batch holds."""
PART = 10
"""torchnet's AUC goes through the samples one by one: one in so many is enough."""
LOOPING = f"torchnet, {PART} times a share of 1 in {PART}"
AT_ONCE = "scikit-learn, all at once"


def main() -> None:
    """10M samples in batches of a thousand, and 100k in small ones, against what there is."""
    quick = begin(__doc__ or "")
    samples, small = (200_000, 10_000) if quick else (10_000_000, 100_000)
    rng = np.random.default_rng(0)

    def numbers(n: int) -> tuple[Any, Any]:
        return rng.random(n).astype("f4"), rng.random(n).astype("f4")

    def scores(n: int) -> tuple[Any, Any]:
        return rng.random((n, CLASSES), dtype="f4"), rng.integers(0, CLASSES, n)

    def classes(n: int) -> tuple[Any, Any]:
        return rng.integers(0, CLASSES, n), rng.integers(0, CLASSES, n)

    def ranked(n: int) -> tuple[Any, Any]:
        return rng.random(n).astype("f4"), rng.integers(0, 2, n)

    for title, ours, rivals, drawn in (
        ("MSE", MSEMeter(), mse(), numbers),
        ("ClassError of ten classes", ClassErrorMeter(), error((1,)), scores),
        ("Confusion of ten classes", ConfusionMeter(CLASSES), confusion(), classes),
        ("AUC", AUCMeter(), auc(), ranked),
        ("AP", APMeter(), ap(), ranked),
    ):
        compare(title, ours, rivals, drawn(samples), 1000, 2 if quick else 3)
    for title, ours, rivals, drawn in (
        ("MSE", MSEMeter(), mse(), numbers),
        ("ClassError, top 1", ClassErrorMeter(), error((1,)), scores),
        ("ClassError, top 1 and 5", ClassErrorMeter(TOPK), error(TOPK), scores),
        ("Confusion", ConfusionMeter(CLASSES), confusion(), classes),
        ("Confusion by scores", ConfusionMeter(CLASSES), confusion(read=highest), scores),
    ):
        compare(title, ours, rivals, drawn(small), SMALL, 2 if quick else 5)


Rival = Callable[[list[Any], list[Any]], Any]


def compare(
    title: str, meter: Any, rivals: dict[str, Rival], data: tuple[Any, Any], batch: int, rounds: int
) -> None:
    """One meter against its rivals: the same batches, as arrays to us and sklearn, else tensors.

    scikit-learn has nothing to add to: it is given all batches put together.
    """
    batches = [np.array_split(each, len(each) // batch) for each in data]
    tensors = [list(map(torch.from_numpy, each)) for each in batches]
    values: dict[str, Any] = {}

    def own(part: int) -> Any:
        meter.reset()
        for args in zip(*(each[: len(each) // part] for each in batches), strict=True):
            meter.add(*args)
        value = meter.value()
        return value[0] if isinstance(meter, AUCMeter) else value

    def tool(name: str, rival: Rival | None) -> Callable[[], float]:
        given = batches if name == AT_ONCE else tensors

        def run() -> None:
            part = parts[name]
            cut = [each[: len(each) // part] for each in given]
            values[name] = own(part) if rival is None else rival(*cut)

        return lambda: parts[name] * seconds(run)

    parts = {name: PART if name == LOOPING else 1 for name in ("flexrec", *rivals)}
    taken, failed = interleaved({n: tool(n, rivals.get(n)) for n in parts}, rounds)
    wanted = {part: own(part) for part in set(parts.values())}
    ours = taken["flexrec"]
    show(
        [
            [name, f"{each:.3f}", ratio(each, ours), shown(values[name], wanted[parts[name]])]
            for name, each in taken.items()
        ]
        + [[name, "failed", why, ""] for name, why in failed.items()],
        f"{title}, {len(data[0]):,} samples in batches of {batch}",
        "s",
        "times ours",
        "largest difference of values, relative",
    )


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
        AT_ONCE: whole(mean_squared_error),
    }


def error(topk: tuple[int, ...]) -> dict[str, Rival]:
    """Class errors, in percent."""
    from sklearn.metrics import top_k_accuracy_score
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy
    from torchnet.meter import ClassErrorMeter as Original

    def make() -> Any:
        each = {str(k): MulticlassAccuracy(CLASSES, average="micro", top_k=k) for k in topk}
        return MetricCollection(each) if len(each) > 1 else each.popitem()[1]

    def read(value: Any) -> list[float]:
        values = value.values() if isinstance(value, dict) else [value]
        return [100 - 100 * float(each) for each in values]

    def errors(target: Any, output: Any) -> list[float]:
        return [100 - 100 * float(top_k_accuracy_score(target, output, k=k)) for k in topk]

    return {
        "torchnet": tnt(lambda: Original(list(topk))),
        "torchmetrics": metric(make, read),
        AT_ONCE: whole(errors),
    }


def highest(scores: Any) -> Any:
    """The classes with the highest scores."""
    return scores.argmax(1)


def confusion(read: Callable[[Any], Any] = lambda predicted: predicted) -> dict[str, Rival]:
    """Confusion matrices; `read` makes classes of what is predicted, where a peer wants that."""
    from sklearn.metrics import confusion_matrix
    from torchmetrics.classification import MulticlassConfusionMatrix
    from torchnet.meter import ConfusionMeter as Original

    return {
        "torchnet": tnt(lambda: Original(CLASSES)),
        "torchmetrics": metric(lambda: MulticlassConfusionMatrix(CLASSES)),
        AT_ONCE: whole(lambda target, output: confusion_matrix(target, read(output))),
    }


def auc() -> dict[str, Rival]:
    """Areas under ROC curves."""
    from sklearn.metrics import roc_auc_score
    from torchmetrics.classification import BinaryAUROC
    from torchnet.meter import AUCMeter as Original

    return {
        LOOPING: tnt(Original, lambda value: value[0]),
        "torchmetrics": metric(BinaryAUROC),
        AT_ONCE: whole(roc_auc_score),
    }


def ap() -> dict[str, Rival]:
    """Average precisions."""
    from sklearn.metrics import average_precision_score
    from torchmetrics.classification import BinaryAveragePrecision
    from torchnet.meter import APMeter as Original

    return {
        "torchnet": tnt(Original, lambda value: math.nan if value is None else value),
        "torchmetrics": metric(BinaryAveragePrecision),
        AT_ONCE: whole(average_precision_score),
    }


if __name__ == "__main__":
    main()
