"""Meters called by hand take tensors, and keep their own copy of what they keep."""

from typing import Any

import numpy as np
import pytest
import torch

from flexrec.replay.meters import (
    APMeter,
    AUCMeter,
    ClassErrorMeter,
    ImageMeter,
    LastValueMeter,
    MetricMeter,
)
from support.meter_cases import CASES
from support.meter_tester import MeterCase, check_meter, equal


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_meter_takes_tensors(case: MeterCase) -> None:
    check_meter(case, lambda part: part if isinstance(part, str) else torch.as_tensor(part))


@pytest.mark.parametrize(
    ("meter", "others"),
    [
        (LastValueMeter(), ()),
        (ImageMeter(), ()),
        (AUCMeter(), ([1, 0, 1],)),
        (APMeter(), ([1, 0, 1],)),
    ],
)
def test_a_tensor_may_change_after_the_add(meter: Any, others: Any) -> None:
    tensor = torch.arange(3.0) if others else torch.ones(3, 3)
    meter.add(tensor, *others)
    before = meter.value()
    tensor.fill_(0.5)
    assert equal(meter.value(), before)


def test_bfloat16_and_tensors_with_gradients() -> None:
    meter = ClassErrorMeter()
    scores = torch.eye(3, dtype=torch.bfloat16, requires_grad=True)
    meter.add(scores, np.array([0, 1, 0]))
    assert meter.value() == pytest.approx(100 / 3)


class Mean:
    """A metric as in torchmetrics, defined where torch is imported."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def update(self, values: torch.Tensor) -> None:
        assert isinstance(values, torch.Tensor)
        self.seen.append(values.to(torch.float32))

    def compute(self) -> torch.Tensor:
        return torch.stack(self.seen).mean(0)

    def reset(self) -> None:
        self.seen = []


def test_a_metric_of_a_module_that_imports_torch_is_given_tensors() -> None:
    meter = MetricMeter(Mean())
    meter.add(1.0)
    meter.add(np.float64(2.0))
    assert (meter.value(), type(meter.value())) == (1.5, float)
    meter.reset()
    meter.add(np.array([1, 2]))
    value = meter.value()
    assert (value.tolist(), type(value)) == ([1.0, 2.0], np.ndarray)
