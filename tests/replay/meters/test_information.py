"""The information plane: estimators against cases whose information is known."""

from typing import Any

import numpy as np
import pytest

from flexrec.recorder.errors import MeterError
from flexrec.replay.meters import build
from flexrec.replay.meters.information import InformationMeter, entropy

BITS = np.arange(4096)[:, None] >> np.arange(12) & 1  # all inputs of 12 bits
SIGNS = 2.0 * BITS - 1


def measure(activations: Any, classes: Any, **options: Any) -> tuple[float, float]:
    """I(X;T) and I(T;Y) in bits."""
    meter = InformationMeter(**options)
    meter.add(activations, classes)
    plane, ixt, ity = meter.value()
    assert plane.tolist() == [ixt, ity]
    return ixt, ity


def binary_entropy(p: float) -> float:
    """h(p), in bits."""
    return float(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


@pytest.mark.parametrize("estimator", ["binning", "pairwise"])
class TestKnown:
    """Cases in which both estimators are exact."""

    def test_a_constant_tells_nothing(self, estimator: str) -> None:
        ixt, ity = measure(np.zeros((4096, 3)), BITS[:, 0], estimator=estimator)
        assert (ixt, ity) == (0.0, 0.0)

    def test_all_bits_tell_everything(self, estimator: str) -> None:
        rows, classes = 0.99 * SIGNS[:1024, :10], BITS[:1024, 0]
        ixt, ity = measure(rows, classes, estimator=estimator, noise=0.01)
        assert ixt == pytest.approx(10, abs=1e-9)
        assert ity == pytest.approx(1, abs=1e-9)

    def test_the_class_itself(self, estimator: str) -> None:
        ixt, ity = measure(SIGNS[:, :1], BITS[:, 0], estimator=estimator, noise=0.01)
        assert [ixt, ity] == pytest.approx([1, 1])

    def test_xor(self, estimator: str) -> None:
        xor = BITS[:, 0] ^ BITS[:, 1]
        one = measure(SIGNS[:, :1], xor, estimator=estimator, noise=0.01)
        both = measure(SIGNS[:, :2], xor, estimator=estimator, noise=0.01)
        assert list(one) == pytest.approx([1, 0], abs=1e-12)
        assert list(both) == pytest.approx([2, 1])

    def test_a_binary_symmetric_channel(self, estimator: str) -> None:
        wrong = np.arange(1000) % 10 == 0  # Y is T, but for every tenth sample, of both kinds
        sent = np.arange(1000) // 10 % 2
        ixt, ity = measure(2.0 * sent[:, None] - 1, sent ^ wrong, estimator=estimator, noise=0.01)
        assert ixt == pytest.approx(1)
        assert ity == pytest.approx(1 - binary_entropy(0.1), abs=1e-9)


def test_twelve_bits_over_all_inputs() -> None:
    assert measure(SIGNS, BITS[:, 0]) == (12.0, 1.0)


def test_bins_are_those_of_the_paper() -> None:
    values = np.array([-1.0, -0.9334, -0.9333, 0.0, 0.9999, 1.0, 7.0, -7.0])
    bins = np.clip(np.floor((values + 1) * 15), 0, 29)
    ixt, _ = measure(values[:, None], np.zeros(8), range=(-1, 1))
    assert ixt == entropy(np.unique(bins, return_counts=True)[1])


def test_pairwise_of_two_gaussians_is_between_zero_and_one_bit() -> None:
    near, _ = measure([[0.0], [0.1]], [0, 1], estimator="pairwise", noise=1.0)
    far, _ = measure([[0.0], [9.0]], [0, 1], estimator="pairwise", noise=1.0)
    middle, _ = measure([[0.0], [1.0]], [0, 1], estimator="pairwise", noise=1.0)
    assert 0 < near < middle < far <= 1
    assert middle == pytest.approx(-np.log2((1 + np.exp(-0.5)) / 2))


def test_pairwise_goes_in_blocks() -> None:
    rows = np.random.default_rng(0).normal(size=(1300, 3))
    kernel = np.exp(-((rows[:, None] - rows) ** 2).sum(-1) / 0.2).mean(1)
    found, _ = measure(rows, np.zeros(1300), estimator="pairwise")
    assert found == pytest.approx(-np.log2(kernel).mean())


def test_the_range_can_follow_the_batch() -> None:
    rows = np.array([[0.0], [10.0], [20.0], [30.0]])
    assert measure(rows, [0, 0, 1, 1], range=(-1, 1))[0] < 1
    assert measure(rows, [0, 0, 1, 1], range="auto", bins=4) == (2.0, 1.0)
    assert measure(rows, [0, 0, 1, 1]) == (2.0, 1.0), "as what leaves tanh's range does"
    assert measure(rows / 300, [0, 0, 1, 1], bins=4)[0] == 0.0, "what stays in it does not"
    assert measure(rows / 300, [0, 0, 1, 1], range="auto", bins=4)[0] == 2.0


def test_the_last_batch_counts_and_none_is_nan() -> None:
    meter = build("informationmeter", {})
    assert np.isnan(meter.value()[1])
    meter.add(np.zeros((4, 2, 2)), [0, 1, 0, 1])
    meter.add(SIGNS[:4, :2].reshape(4, 2, 1), [0, 1, 0, 1])
    assert meter.value()[1:] == (2.0, 1.0)
    meter.reset()
    assert np.isnan(meter.value()[2])


@pytest.mark.parametrize(
    ("activations", "classes", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2), "got \\(3, 2\\) and \\(2,\\)"),
        (np.zeros((0, 2)), np.zeros(0), "activations must be"),
        ("text", np.zeros(2), "must be real numbers"),
    ],
)
def test_wrong_batches_are_refused(activations: Any, classes: Any, message: str) -> None:
    with pytest.raises(MeterError, match=message):
        InformationMeter().add(activations, classes)


@pytest.mark.parametrize(
    "options", [{"bins": 1}, {"estimator": "knn"}, {"noise": 0}, {"range": (1, 1)}, {"range": "a"}]
)
def test_wrong_options_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|at least"):
        InformationMeter(**options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_that_are_not_finite_leave_a_gap(bad: float) -> None:
    meter = InformationMeter()
    meter.add(np.array([[0.5], [bad]]), np.array([0, 1]))
    plane, ixt, ity = meter.value()
    assert np.isnan([*plane, ixt, ity]).all()
    meter.add(np.array([[0.5], [-0.5]]), np.array([0, 1]))
    assert meter.value()[1:] == (1.0, 1.0)


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
def test_pairwise_information_is_the_same_far_from_zero(offset: float) -> None:
    generator = np.random.default_rng(0)
    rows, classes = generator.normal(size=(300, 4)).round(3), np.arange(300) % 3
    options: dict[str, Any] = {"estimator": "pairwise", "noise": 0.01}
    wanted = measure(rows, classes, **options)
    assert wanted[0] > 7
    assert measure(rows + offset, classes, **options) == pytest.approx(wanted, rel=1e-5)
    # Rows that are far from each other too: the class is one bit more, and is told wholly.
    both = np.concatenate([rows + offset, rows - offset])
    sides = np.arange(600) // 300
    ixt, ity = measure(both, sides, **options)
    assert (ixt, ity) == pytest.approx((wanted[0] + 1, 1.0), rel=1e-5)
