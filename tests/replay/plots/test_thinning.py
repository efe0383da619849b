"""Thinning keeps the shape: peaks, ends, gaps and order, held against a plain loop."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.plots.thinning import thin, thin_window
from flexrec.replay.plots.window import Trace, equal
from support.window_cases import window

VALUES = st.lists(
    st.one_of(st.integers(-5, 5).map(float), st.floats(width=16)), min_size=0, max_size=120
)


def reference(y: list[float], buckets: int) -> list[int]:
    """The rule, in a loop: the indices that are kept with so many buckets."""
    gaps = [not math.isfinite(value) for value in y]
    width = math.ceil((len(y) - 2) / buckets)
    chosen = {0, len(y) - 1}
    for start in range(1, len(y) - 1, width):
        bucket = range(start, min(start + width, len(y) - 1))
        finite = [k for k in bucket if not gaps[k]] or [start]
        chosen |= {min(finite, key=lambda k: y[k]), max(finite, key=lambda k: y[k])}
    kept = set(chosen)
    for a, b in pairwise(sorted(chosen)):
        if not (gaps[a] or gaps[b]):
            kept |= set([k for k in range(a, b) if gaps[k]][:1])
    return sorted(kept)


@given(y=VALUES, bound=st.integers(1, 60))
def test_the_rule_is_followed(y: list[float], bound: int) -> None:
    x, thinned = thin(np.arange(len(y)), y, bound)
    bound = max(bound, 7)
    if len(y) <= bound:
        assert x.tolist() == list(range(len(y)))
    else:
        most = (bound - 2) // 2
        fitting = [kept for b in range(1, most + 1) if len(kept := reference(y, b)) <= bound]
        assert x.tolist() in fitting
        if all(map(math.isfinite, y)):
            assert x.tolist() == reference(y, most)
    np.testing.assert_array_equal(thinned, np.asarray(y)[x.astype(int)])


@given(y=VALUES, bound=st.integers(1, 60))
def test_what_a_reader_sees_survives(y: list[float], bound: int) -> None:
    _, thinned = thin(np.arange(len(y)), y, bound)
    assert len(thinned) <= max(bound, 7)
    if y:
        np.testing.assert_array_equal(thinned[[0, -1]], [y[0], y[-1]])
    finite = [value for value in y if math.isfinite(value)]
    if finite:
        assert {min(finite), max(finite)} <= set(thinned.tolist())
    assert np.isfinite(thinned).all() == (len(finite) == len(y))


@given(y=st.lists(st.sampled_from([1.0, 2.0, math.nan, math.inf]), max_size=200),
       bound=st.integers(1, 60))  # fmt: skip
def test_no_line_is_drawn_across_a_gap(y: list[float], bound: int) -> None:
    x, thinned = thin(np.arange(len(y)), y, bound)
    for a, b in pairwise(range(len(x))):
        if np.isfinite(thinned[[a, b]]).all():
            assert np.isfinite(y[x[a] : x[b]]).all()


def test_two_gaps_in_a_bucket_are_two() -> None:
    nan = math.nan
    y = [0, nan, 1, nan, 5, 2, 0, 0, 0, 0, 0, 0]
    x, _ = thin(range(12), y, 8)
    assert x.tolist() == [0, 1, 2, 3, 4, 6, 11]


@given(y=VALUES)
def test_what_is_short_enough_is_not_touched(y: list[float]) -> None:
    x = np.linspace(0, 1, len(y))
    for bound in (0, len(y), len(y) + 1):
        if bound == 0 or len(y) <= bound:
            same_x, same_y = thin(x, y, bound)
            np.testing.assert_array_equal(same_x, x)
            np.testing.assert_array_equal(same_y, y)


def test_a_long_gap_stays_a_gap() -> None:
    y = np.sin(np.arange(10_000.0))
    y[4000:4200] = np.nan
    x, thinned = thin(np.arange(10_000), y, 500)
    holes = x[np.isnan(thinned)]
    assert len(holes) > 0
    assert ((holes >= 4000) & (holes < 4200)).all()


def test_a_lone_peak_in_a_million_survives() -> None:
    y = np.zeros(1_000_000)
    y[123_456] = 1.0
    x, thinned = thin(np.arange(1_000_000), y, 100)
    assert x[thinned == 1.0].tolist() == [123_456]


def test_dtypes_stay() -> None:
    x, y = thin(np.arange(100, dtype=np.int32), np.arange(100, dtype=np.int8), 10)
    assert x.dtype == np.int32
    assert y.dtype == np.int8


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(DefinitionError, match="max_points must be at least 0, got -1"):
        thin([1], [1], -1)
    with pytest.raises(DefinitionError, match=r"not \(2,\) and \(1,\)"):
        thin([1, 2], [1], 10)
    with pytest.raises(DefinitionError, match="vectors"):
        thin([[1, 2]], [[1, 2]], 10)


@pytest.mark.parametrize("kind", ["line", "scatter", "stem", "dual_axis_lines"])
def test_windows_with_points_are_thinned(kind: str) -> None:
    full = window(kind, Trace("a", y=np.arange(100.0)), Trace("b", y=[1.0], x=[2.0]), title="t")
    thinned = thin_window(full, 10)
    assert len(thinned.traces[0].y) == 10
    assert thinned.traces[0].x[-1] == 99
    assert (thinned.opts, thinned.win) == (full.opts, full.win)
    assert len(full.traces[0].y) == 100


@pytest.mark.parametrize(
    "whole",
    [window("bar", Trace("a", y=np.arange(100.0))), window("text", Trace("a", y="a" * 100))],
)
def test_other_windows_are_not(whole: object) -> None:
    assert thin_window(whole, 10) is whole  # type: ignore[arg-type]


def test_zero_keeps_all() -> None:
    full = window("line", Trace("a", y=np.arange(100.0), x=np.arange(100.0)))
    assert equal(thin_window(full, 0), full)


def test_the_rows_of_heat_keep_the_same_marks() -> None:
    x = np.arange(1000.0)
    calm, peak = Trace("a", np.ones(1000), x), Trace("b", np.ones(500), x[::2])
    peak.y[111] = -9.0
    found = thin_window(window("heat", calm, peak), 50)
    a, b = found.traces
    assert len(a.x) <= 50
    assert 222.0 in a.x
    assert set(b.x) == {place for place in a.x if place % 2 == 0}
    assert b.y[list(b.x).index(222.0)] == -9.0


def test_the_quantiles_of_a_fan_keep_the_same_marks() -> None:
    rows = np.zeros((7, 1000))
    rows[0, 500], rows[6, 700] = -5.0, 5.0
    rows[:, 300] = np.nan
    (fan,) = thin_window(window("fan", Trace("a", rows, np.arange(1000.0))), 30).traces
    assert fan.y.shape == (7, len(fan.x))
    assert len(fan.x) <= 30
    assert {300.0, 500.0, 700.0} <= set(fan.x)
    whole = window("fan", Trace("a", rows, np.arange(1000.0)))
    assert equal(thin_window(whole, 0), whole)
