"""Meters over whole columns give what they give fed one by one."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrec.replay.meters import (
    AverageValueMeter,
    BestValueMeter,
    LastValueMeter,
    Meter,
    MovingAverageValueMeter,
    MSEMeter,
)

METERS: list[Meter] = [
    AverageValueMeter(),
    MovingAverageValueMeter(1),
    MovingAverageValueMeter(3),
    MovingAverageValueMeter(1000),
    BestValueMeter("min"),
    BestValueMeter("max"),
    LastValueMeter(),
]
IDS = ["average", "moving1", "moving3", "moving1000", "min", "max", "last"]

small = st.floats(-1, 1)
plain = st.lists(small, min_size=1, max_size=60)
offset = st.builds(
    lambda values, by: [value + by for value in values], plain, st.sampled_from([1e8, -1e15, 1e300])
)
wild = st.lists(
    st.floats(-1e150, 1e150)
    | st.sampled_from([math.nan, math.inf, -math.inf, 0.1, 1e-300, 1e12, -1e12]),
    min_size=1,
    max_size=60,
)
columns = plain | offset | wild | st.builds(lambda value, n: [value] * n, small, st.integers(1, 40))


@st.composite
def slices(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """A column, and slices of it as marks with and without resets make them, or any."""
    values = draw(columns)
    n = len(values)
    if draw(st.integers(0, 3)) == 0:
        pairs = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(1, n)), min_size=1))
        starts, stops = sorted(a for a, _ in pairs), sorted(b for _, b in pairs)
        found = [(a, max(b, a + 1)) for a, b in zip(starts, stops, strict=True)]
    else:
        start, found = 0, []
        for stop in sorted(draw(st.lists(st.integers(0, n), min_size=1, max_size=20))):
            if stop > start:
                found.append((start, stop))
            start = stop if draw(st.booleans()) else start
        found = found or [(0, n)]
    return np.array(values), *np.array(found, np.int64).T


def one_by_one(meter: Meter, values: Any, starts: Any, stops: Any) -> list[Any]:
    """`value()` after a reset and the adds of each slice."""
    found = []
    for start, stop in zip(starts, stops, strict=True):
        meter.reset()
        for value in values[start:stop].tolist():
            meter.add(value)
        found.append(meter.value())
    return found


@pytest.mark.parametrize("meter", METERS, ids=IDS)
@settings(max_examples=200, deadline=None)
@given(case=slices())
def test_a_column_is_reduced_to_what_one_by_one_gives(meter: Meter, case: Any) -> None:
    values, starts, stops = case
    meter.reset()
    meter.add(5.0)
    before = meter.value()
    reduced = meter.reduce_slices(values, starts, stops)
    assert repr(meter.value()) == repr(before), "the meter's own state has changed"
    if reduced is None:
        assert (starts[1:] < stops[:-1]).any(), "given up without overlap"
        return
    assert all(column.dtype == np.float64 for column in reduced)
    found = np.array(one_by_one(meter, values, starts, stops), np.float64)
    wanted = found.reshape(len(starts), -1).T
    finite = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    for name, column, fed in zip(meter.fields, reduced, wanted, strict=True):
        if name in ("best", "last"):
            assert np.array_equal(column, fed, equal_nan=True)
        elif name == "mean":  # a mean near 0 of large values has their rounding
            np.testing.assert_allclose(column, fed, rtol=1e-12, atol=1e-12 * finite)
        else:  # squares of tiny deviations underflow
            np.testing.assert_allclose(column, fed, rtol=1e-12, atol=1e-150)


@pytest.mark.parametrize("meter", METERS, ids=IDS)
def test_a_column_logged_at_every_step_without_reset_is_reduced_in_linear_time(
    meter: Meter,
) -> None:
    n = 20_000
    values = np.random.default_rng(0).normal(1e6, 1, n)
    reduced = meter.reduce_slices(values, np.zeros(n, np.int64), np.arange(1, n + 1))
    assert reduced is not None
    meter.reset()
    for value in values.tolist():
        meter.add(value)
    found = meter.value()
    for column, wanted in zip(reduced, found if len(reduced) > 1 else (found,), strict=True):
        assert column[-1] == pytest.approx(wanted, rel=1e-12)


def test_long_windows_are_gathered_in_blocks() -> None:
    n, size = 4000, 1500  # 4.9 million values, in several blocks
    values = np.random.default_rng(0).normal(size=n)
    stops = np.arange(1, n + 1)
    reduced = MovingAverageValueMeter(size).reduce_slices(values, np.zeros(n, np.int64), stops)
    assert reduced is not None
    for stop in (1, 2, 700, 1500, 1501, 2800, n):
        window = values[max(0, stop - size) : stop]
        assert reduced[0][stop - 1] == pytest.approx(window.mean(), rel=1e-12, abs=1e-14)
        spread = window.std(ddof=1) if stop > 1 else 0.0
        assert reduced[1][stop - 1] == pytest.approx(spread, rel=1e-12)


def test_meters_of_several_arguments_do_not_reduce() -> None:
    assert MSEMeter().reduce_slices(np.ones(2), np.array([0]), np.array([2])) is None
