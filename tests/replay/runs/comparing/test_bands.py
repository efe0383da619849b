"""The mean of curves and the band around it, against numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from flexrec.recorder import DefinitionError
from flexrec.replay.runs.comparing.bands import Curve, check_band, mean_of

X = np.arange(6.0)


def curves(*rows: list[float]) -> list[Curve]:
    return [(X[: len(row)], np.array(row)) for row in rows]


def test_the_mean_and_the_bands_of_three() -> None:
    given_ = curves([1, 2, 3], [2, 4, 6], [6, 6, 6])
    found = mean_of(given_, "std")
    assert found.x.tolist() == [0, 1, 2]
    assert found.y.tolist() == [3, 4, 5]
    values = np.stack([y for _, y in given_])
    std = values.std(axis=0, ddof=1)
    assert found.note == "n=3, ± std"
    for band, low, high in (
        ("std", found.y - std, found.y + std),
        ("sem", found.y - std / math.sqrt(3), found.y + std / math.sqrt(3)),
        ("minmax", values.min(axis=0), values.max(axis=0)),
        ("q10-q90", *np.quantile(values, [0.1, 0.9], axis=0)),
        ("q0-q50", *np.quantile(values, [0, 0.5], axis=0)),
    ):
        edges = mean_of(given_, band).band
        assert edges is not None
        around = "± " if band in ("std", "sem") else ""
        assert mean_of(given_, band).note == f"n=3, {around}{band}"
        np.testing.assert_allclose(edges, (low, high), rtol=1e-14)
    assert mean_of(given_, "none").band is None
    assert mean_of(given_, "none").note == "n=3"
    assert mean_of(given_[:1], "std").note == "n=1"  # no band is drawn


def test_where_runs_end_early_the_others_go_on() -> None:
    found = mean_of(curves([1, 1, 1, 1], [3, 3], [5]), "std")
    assert found.y.tolist() == [3, 2, 1, 1]
    assert found.counts.tolist() == [3, 2, 1, 1]
    assert found.note == "n=3→1, ± std"
    assert found.band is not None
    assert np.isnan(found.band[0]).tolist() == [False, False, True, True]  # of one run: no spread
    low, high = mean_of(curves([1, 1, 1], [3]), "minmax").band or ((), ())
    assert (list(low), list(high)) == ([1, 1, 1], [3, 1, 1])


def test_what_is_not_finite_does_not_count() -> None:
    found = mean_of(curves([1, math.nan, math.inf], [3, 5, math.nan]), "sem")
    assert found.y[:2].tolist() == [2, 5]
    assert math.isnan(found.y[2])
    assert found.counts.tolist() == [2, 1, 0]
    assert found.note == "n=2→1, ± sem"
    assert mean_of(curves([math.nan]), "std").note == "n=0"


def test_all_x_of_runs_that_share_most() -> None:
    found = mean_of([(X, X), (X[[0, 1, 2, 3, 5]], X[[0, 1, 2, 3, 5]] + 2)], "none")
    assert found.x.tolist() == X.tolist()
    assert found.y.tolist() == [1, 2, 3, 4, 4, 6]
    assert found.counts.tolist() == [2, 2, 2, 2, 1, 2]


def test_runs_that_share_few_x_are_interpolated_within_their_range() -> None:
    x = np.arange(0, 10.0)
    found = mean_of([(x, x), (x[:5] + 0.5, x[:5] + 10.5), (x + 0.25, x + 0.25)], "none")
    assert len(found.x) == 10
    assert found.counts[0] == 1  # the second and third have not begun
    assert found.counts[-1] == 1
    assert set(found.counts.tolist()) == {1, 2, 3}
    where = found.counts == 3
    np.testing.assert_allclose(found.y[where], found.x[where] + 10 / 3)


def test_curves_of_other_lengths_all_count() -> None:
    short = [np.linspace(0.001 * i, 0.01 + 0.001 * i, 10) for i in range(1, 6)]
    long = np.linspace(0, 400, 2000)  # its x are farther apart than a short one is long
    found = mean_of([(x, 1 + 0 * x) for x in short] + [(long, 3 + 0 * long)], "minmax")
    assert found.counts.max() == 6
    assert found.y[found.counts == 6].tolist() == pytest.approx([8 / 6] * (found.counts == 6).sum())
    assert (found.x[0], found.x[-1]) == (0, 400)
    every = np.concatenate([*short, long])
    assert np.isin(found.x, every).all()


def test_an_x_that_comes_again() -> None:
    found = mean_of([(np.array([0.0, 1, 1, 0.5]), np.array([1.0, 2, 3, 4]))], "none")
    assert (found.x.tolist(), found.y.tolist()) == ([0, 0.5, 1], [1, 4, 3])


@given(
    some.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 5)),
        elements=st.floats(-1e6, 1e6) | st.just(math.nan),
    ),
    st.sampled_from([0, 10, 25, 50, 75, 90, 99]),
)
def test_against_numpy(values: np.ndarray, low: int) -> None:
    found = mean_of([(X[: len(row)], row) for row in values], f"q{low}-q100")
    known = np.isfinite(values).any(axis=0)
    assert found.counts.tolist() == np.isfinite(values).sum(axis=0).tolist()
    assert np.isfinite(found.y).tolist() == known.tolist()
    np.testing.assert_allclose(found.y[known], np.nanmean(values[:, known], axis=0), atol=1e-9)
    assert found.band is not None
    if not known.any():
        return
    wanted = np.nanquantile(values[:, known], [low / 100, 1], axis=0)
    np.testing.assert_allclose(np.stack(found.band)[:, known], wanted, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("kind", ["stdd", "q90-q10", "q10", "", "q-1-q5", "q10-q101"])
def test_bands_that_there_are_not(kind: str) -> None:
    with pytest.raises(DefinitionError, match="there is no band"):
        check_band(kind)
