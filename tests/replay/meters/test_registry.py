"""Meters by name, path, class and metric, and other libraries' metrics as meters."""

import inspect
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import flexrec.replay.meters as package
from flexrec.recorder.errors import DefinitionError, MeterError
from flexrec.replay.meters import (
    AverageValueMeter,
    ConfusionMeter,
    Meter,
    MetricMeter,
    build,
    meter_info,
    meter_types,
    resolve,
)


class Largest:
    """A metric with the method names of torchmetrics, on numpy arrays."""

    def __init__(self, start: float = -math.inf) -> None:
        self.start, self.seen = start, []  # type: ignore[var-annotated]

    def update(self, values: Any) -> None:
        if np.size(values) == 0:
            raise RuntimeError("no values")
        self.seen.append(values)

    def compute(self) -> Any:
        return max([self.start, *map(np.max, self.seen)])

    def reset(self) -> None:
        self.seen = []


class Extremes(Largest):
    results: ClassVar[type] = dict

    def compute(self) -> Any:
        found = {"least": min(map(np.min, self.seen)), "most": max(map(np.max, self.seen))}
        return found if self.results is dict else tuple(found.values())


class Collection(Extremes):
    def keys(self) -> list[str]:
        return ["least", "most"]


class Own(Meter):
    def add(self, *_: Any) -> None: ...

    def value(self) -> float:
        return 0.0

    def reset(self) -> None: ...


NAMES = [
    *("APMeter", "AUCMeter", "AverageValueMeter", "BestValueMeter", "ClassErrorMeter"),
    *("ConfusionMeter", "HistogramMeter", "ImageMeter", "InformationMeter", "LastValueMeter"),
    *("mAPMeter", "MovingAverageValueMeter", "MSEMeter", "TextMeter", "TimeMeter"),
]


def test_the_public_names_are_pinned() -> None:
    assert meter_types() == NAMES
    own = ["Meter", "MetricMeter", "build", "meter_info", "meter_types", "resolve"]
    assert sorted(package.__all__) == sorted(NAMES + own)


@pytest.mark.parametrize("name", NAMES)
def test_every_meter_is_found_and_told_in_any_letter_case(name: str) -> None:
    found = resolve(name.upper())
    assert found is resolve(name.lower()) is getattr(package, name)
    assert inspect.isclass(found)
    assert issubclass(found, Meter)
    heading, fields, blank, *rest = meter_info(name.lower()).splitlines()
    assert heading.startswith(f"{name}(")
    assert fields == f"fields: {', '.join(found.fields)}"
    assert blank == ""
    text = " ".join(" ".join(rest).lower().split())
    assert all(word in text for word in (">>> ", "without values", " memory")), text


def test_a_type_may_be_a_path_a_class_or_a_metric() -> None:
    assert isinstance(build("flexrec.replay.meters.ConfusionMeter", {"k": 2}), ConfusionMeter)
    assert isinstance(build(AverageValueMeter, {}), AverageValueMeter)
    assert isinstance(build(f"{__name__}.Own", {}), Own)
    for kind in (Largest, f"{__name__}.Largest", resolve(Largest)):
        meter = build(kind, {"start": 2.0})
        assert isinstance(meter, MetricMeter)
        meter.add(1.0)
        assert meter.value() == 2.0


def test_every_meter_of_a_metric_object_is_a_fresh_copy() -> None:
    metric = Largest()
    metric.update(9.0)
    first, second = build(metric, {}), build(resolve(metric), {})
    first.add(1.0)
    second.add(2.0)
    assert (first.value(), second.value(), metric.compute()) == (1.0, 2.0, 9.0)


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        ("MSEMetre", {}, "no meter 'MSEMetre'; did you mean 'MSEMeter'"),
        ("ConfusionMeter", {"n": 3}, r"ConfusionMeter has no argument 'n'.*\(k: int"),
        ("ConfusionMeter", {"normalised": 1}, "'normalised'; did you mean 'normalized'"),
        ("AverageValueMeter", {"k": 3}, r"AverageValueMeter has no argument 'k'.*\(mean: bool"),
        ("MovingAverageValueMeter", {}, "needs the argument 'windowsize'"),
        ("ConfusionMeter", {"k": 0}, "ConfusionMeter: k must be .* at least 1, got 0"),
        ("HistogramMeter", {"range": 1}, "HistogramMeter: "),
        ("no_such_package.Meter", {}, "cannot import 'no_such_package.Meter'"),
        ("flexrec.replay.meters.MSEMetre", {}, "has no 'MSEMetre'; did you mean 'MSEMeter'"),
        (".Meter", {}, "cannot import"),
        ("os.path.join", {}, "is no meter"),
        (dict, {}, "dict is no meter"),
        (3, {}, "3 is no meter"),
        (Largest, {"begin": 1}, "Largest has no argument 'begin'"),
        (Largest(), {"start": 1}, "Largest has no argument 'start'"),
        (Meter, {}, "Meter"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_what_would_be_right(
    kind: Any, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        build(kind, args)


def test_a_metric_without_torch_is_given_arrays() -> None:
    meter = MetricMeter(Largest())
    assert math.isnan(meter.value())
    meter.add(np.array([1.0, 3.0]))
    assert (meter.value(), type(meter.value())) == (3.0, float)
    with pytest.raises(MeterError, match="Largest: RuntimeError: no values"):
        meter.add(np.array([]))
    assert meter.value() == 3.0
    meter.reset()
    assert math.isnan(meter.value())
    with pytest.raises(TypeError, match="has no update, compute and reset"):
        MetricMeter(3)


@pytest.mark.parametrize("results", [dict, tuple])
def test_several_results_are_named(results: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Extremes, "results", results)
    meter = MetricMeter(Extremes())
    assert math.isnan(meter.value())
    meter.add(np.array([1.0, 3.0]))
    assert meter.value() == (1.0, 3.0)
    assert meter.fields == (("least", "most") if results is dict else ("0", "1"))


def test_the_fields_of_a_collection_are_known_from_the_start() -> None:
    meter = MetricMeter(Collection())
    assert meter.fields == ("least", "most")
    assert all(map(math.isnan, meter.value()))
    meter.add(2.0)
    assert meter.value() == (2.0, 2.0)


def test_every_meter_and_its_fields_are_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "meters.md").read_text(encoding="utf-8")
    table = text.split("## ")[0].splitlines()
    rows = {row.split("|")[1].strip(): row for row in table if row.startswith("| ")}
    for name in NAMES:
        found = resolve(name)
        assert inspect.isclass(found)
        assert issubclass(found, Meter)
        for field in found.fields:
            assert f"`{field}`" in rows[name], f"{field} of {name}"
        for argument in inspect.signature(found).parameters:
            assert argument in rows[name], f"{argument} of {name}"
