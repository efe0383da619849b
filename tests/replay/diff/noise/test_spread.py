"""The statistic: how far outside the spread, for how long, in how many keys."""

import numpy as np
import pytest

from flexrec.replay.diff.noise.spread import (
    KEPT,
    WINDOW,
    Singles,
    excess,
    first_beyond,
    lasting,
    least_keys,
    limit_of,
)


def outside(low: float, high: float, value: float, size: float) -> float:
    """The excess of a single value."""
    one, *others = (np.array([[each]]) for each in (low, high, value, size))
    return float(excess(one, *others)[0, 0])


def test_within_the_spread_is_0() -> None:
    assert outside(1.0, 2.0, 1.5, 2.0) == outside(1.0, 2.0, 2.0, 2.0) == 0


@pytest.mark.parametrize("value", [4.0, -1.0])
def test_outside_is_in_multiples_of_the_spread(value: float) -> None:
    assert outside(1.0, 2.0, value, 2.0) == pytest.approx(2, rel=1e-5)


def test_references_that_are_equal_have_a_spread_of_rounding() -> None:
    """Of the tensor's size: a mean that is 0 by construction has none of its own."""
    assert outside(0.0, 0.0, 1e-7, 1.0) < 1
    assert outside(0.0, 0.0, 1e-7, 1e-3) > 100
    assert outside(0.0, 0.0, 0.0, 0.0) == 0


def test_the_spread_never_shrinks() -> None:
    low, high = np.array([[0.0], [0.0], [1.0]]), np.array([[1.0], [4.0], [1.0]])
    found = excess(low, high, np.full((3, 1), 9.0), np.ones((3, 1)))
    assert found[:, 0] == pytest.approx([8, 1.25, 2], rel=1e-5)


def test_a_key_that_is_quiet_by_chance_has_half_the_usual_spread() -> None:
    low, high = np.zeros((1, 3)), np.array([[1.0, 1.0, 0.0]])
    found = excess(low, high, np.full((1, 3), 3.0), np.ones((1, 3)))
    assert found[0] == pytest.approx([2, 2, 6], rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(value: float) -> None:
    assert outside(0.0, 1.0, value, 1.0) == np.inf
    assert outside(value, value, 5.0, 1.0) == 0
    assert outside(0.0, value, 5.0, value) == 0


def kept_of(rows: list[bool]) -> Singles:
    return lasting(np.array(rows, np.float32)[:, None])


def test_it_has_to_last() -> None:
    gaps = [i % 3 != 0 for i in range(WINDOW)]  # in 10 of 15 rows
    assert sum(gaps) == KEPT
    assert kept_of(gaps)[-1, 0] == 1
    assert kept_of([False, *gaps[2:], False])[-1, 0] == 0
    long = np.random.default_rng(0).random((9000, 2)).astype(np.float32)
    expected = np.sort(long[5000 - WINDOW + 1 : 5001], axis=0)[WINDOW - KEPT]
    assert (lasting(long)[5000] == expected).all()


def test_enough_keys_have_to_be_beyond_together() -> None:
    kept = np.zeros((3, 100), np.float32)
    kept[1, :2] = kept[2, : least_keys(100)] = 6
    assert first_beyond(kept, limit_of(3)) == 2
    assert first_beyond(kept, limit_of(2)) is None
    assert first_beyond(kept[:, :1], limit_of(3)) == 1  # a key alone


def test_one_key_that_is_far_outside_is_enough() -> None:
    kept = np.zeros((3, 100), np.float32)
    kept[1:, 0] = 100 * limit_of(5)
    assert first_beyond(kept, limit_of(5)) is None
    kept[2, 0] *= 1.01
    assert first_beyond(kept, limit_of(5)) == 2
