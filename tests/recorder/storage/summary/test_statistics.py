"""The statistics of keys, compared with plain Python's."""

import math
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from flexrec.recorder.storage.summary.statistics import Statistics, take_rows

KINDS = ["finite", "some", "none", "large"]


def values_of(kind: str, rng: np.random.Generator, keys: int, count: int) -> NDArray[np.float64]:
    values = rng.integers(-3, 3, (keys, count)) / 2.0  # the least and the greatest come often
    if kind == "some":
        odd = rng.choice([np.nan, np.inf, -np.inf], values.shape)
        values = np.where(rng.random(values.shape) < 0.4, odd, values)
    if kind == "none":
        values = rng.choice([np.nan, np.inf, -np.inf], values.shape)
    return values * (1e308 if kind == "large" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_keys_in_parts_as_of_each_alone(kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    found = [Statistics() for _ in range(7)]
    values = values_of(kind, rng, 7, 20)
    step = rng.permutation(40)[:20]
    for first, last in ((0, 0), (0, 1), (1, 9), (9, 20)):
        take_rows(found, step[first:last], values[:, first:last])
    for each, row in zip(found, values, strict=True):
        finite = [(float(value), int(at)) for value, at in zip(row, step, strict=True)]
        finite = [pair for pair in finite if math.isfinite(pair[0])]
        assert (each.count, each.finite, each.not_finite) == (20, len(finite), 20 - len(finite))
        assert each.steps == (step.min(), step.max())
        assert np.array_equal([each.last], row[-1:], equal_nan=True)
        assert each.last_at == step[-1]
        if finite:
            assert (each.least, each.least_at) == min(finite, key=lambda pair: pair[0])
            assert (each.greatest, each.greatest_at) == max(finite, key=lambda pair: pair[0])
            if kind != "large":
                assert each.mean == sum(value for value, _ in finite) / len(finite)
        else:
            assert all(map(math.isnan, (each.least, each.greatest, each.mean)))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_mean_does_not_depend_on_the_order_in_memory(order: Literal["C", "F"]) -> None:
    values = np.full((64, 16_000), 0.1, order=order)
    found, alone = [Statistics() for _ in range(64)], Statistics()
    take_rows(found, np.arange(16_000), values)
    alone.take(np.arange(16_000), values[0])
    assert {each.mean for each in found} == {alone.mean}
    assert alone.mean == pytest.approx(0.1, rel=1e-15)
