"""Each meter's values, against first principles, scikit-learn, and what TNT gave."""

import doctest
import importlib
import math
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

import flexrec.replay.meters as meters
from flexrec.recorder import Recorder, Recording
from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Add, Log
from flexrec.replay import play, preset
from flexrec.replay.meters import (
    APMeter,
    AUCMeter,
    AverageValueMeter,
    BestValueMeter,
    ClassErrorMeter,
    ConfusionMeter,
    HistogramMeter,
    ImageMeter,
    Meter,
    MovingAverageValueMeter,
    MSEMeter,
    TextMeter,
    TimeMeter,
    mAPMeter,
)
from support.meter_cases import CASES, MULTI, NUMBERS, parts
from support.meter_tester import MeterCase, check_meter, close, equal

NAN, INF = math.nan, math.inf
rng = np.random.default_rng(0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_meter_gives_what_its_reference_gives(case: MeterCase) -> None:
    check_meter(case)


TNT: list[tuple[Meter, list[tuple[Any, ...]], Any]] = [
    (AverageValueMeter(), [(0.5,)], (0.5, INF)),
    (AverageValueMeter(), NUMBERS, (2.3125, 3.590351654086268)),
    (MovingAverageValueMeter(3), [(2.0,), (4.0,), (8.0,), (16.0,)], (28 / 3, math.sqrt(112 / 3))),
    (MSEMeter(), [([[1.0, 2.0], [3.0, 4.0]], np.ones((2, 2)))], 3.5),
    (MSEMeter(root=True), [([[1.0, 2.0], [3.0, 4.0]], np.ones((2, 2)))], 1.8708286933869707),
    (AUCMeter(), [([0.1, 0.4, 0.35, 0.8, 0.7], [0, 0, 1, 1, 0])],
     (2 / 3, np.array([0, 0.5, 0.5, 0.5, 1, 1]), np.array([0, 0, 1 / 3, 2 / 3, 2 / 3, 1]))),
    (APMeter(), [([[0.1, 0.6], [0.4, 0.2], [0.35, 0.9], [0.8, 0.3]],
                  [[0, 1], [0, 0], [1, 0], [1, 1]])], np.array([5 / 6, 7 / 12])),
    (mAPMeter(), [([[0.1, 0.6], [0.4, 0.2], [0.35, 0.9], [0.8, 0.3]],
                   [[0, 1], [0, 0], [1, 0], [1, 1]], [1, 1, 1, 1])], 17 / 24),
]  # fmt: skip
CLASSIFIED = [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5], [0.9, 0.05, 0.05]], [1, 2, 0, 0]
TNT += [
    (ClassErrorMeter([2, 1]), [CLASSIFIED], (50.0, 25.0)),
    (ClassErrorMeter([2, 1], accuracy=True), [CLASSIFIED], (50.0, 75.0)),
    (ClassErrorMeter(), [(CLASSIFIED[0], [1, 9, -1, 0])], 50.0),
    (ClassErrorMeter(), [(CLASSIFIED[0][0], 1)], 0.0),
    (ConfusionMeter(3), [CLASSIFIED], np.array([[1, 0, 1], [0, 1, 0], [1, 0, 0]])),
    (ConfusionMeter(3), [(CLASSIFIED[0], np.eye(3)[CLASSIFIED[1]])],
     np.array([[1, 0, 1], [0, 1, 0], [1, 0, 0]])),
    (ConfusionMeter(3, normalized=True), [CLASSIFIED],
     np.array([[0.5, 0, 0.5], [0, 1, 0], [1, 0, 0]])),
]  # fmt: skip


@pytest.mark.parametrize(("meter", "adds", "value"), TNT)
def test_values_are_those_that_torchnet_gave(meter: Meter, adds: Any, value: Any) -> None:
    meter.reset()
    for args in adds:
        meter.add(*args)
    assert close(meter.value(), value)


def test_weights_count_as_in_torchnet() -> None:
    meter = APMeter()
    output, target = TNT[6][1][0]
    meter.add(output, target, [0.5, 1.0, 2.0, 4.0])
    assert np.allclose(meter.value(), [0.9285714, 0.4461538], rtol=1e-6)  # TNT's are float32
    meter.reset()
    meter.add([0.9, 0.5], [1, 1], [0.0, 1.0])  # nothing seen yet at 0.9: TNT gives nan
    assert meter.value().tolist() == [0.5]


def test_average_precision_without_weights_is_that_of_scikit_learn() -> None:
    meter = APMeter()
    for scores, target in MULTI:
        meter.add(scores, target)
    scores, target = parts(MULTI)
    assert np.allclose(meter.value(), metrics.average_precision_score(target, scores, average=None))


def test_add_of_a_sum_counts_n_times() -> None:
    meter, plain = AverageValueMeter(), AverageValueMeter()
    meter.add(10.0, 5)
    meter.add(20.0, 5)
    for value in [2.0] * 5 + [4.0] * 5:
        plain.add(value)
    assert close(meter.value(), plain.value())
    assert close(plain.value(), (3.0, math.sqrt(10 / 9)))


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1.0, INF, 2.0], INF), ([INF, 1.0], INF), ([INF, -INF], NAN), ([1.0, NAN, 2.0], NAN)],
)
def test_the_mean_of_infinities_is_that_of_numpy(values: list[float], mean: float) -> None:
    scalar, array = AverageValueMeter(), AverageValueMeter()
    for value in values:
        scalar.add(value)
        array.add(np.array([value, 1.0]))
    assert equal(scalar.value(), (mean, NAN))
    assert equal(tuple(part[0] for part in array.value()), (np.float64(mean), np.float64(NAN)))
    assert array.value()[0][1] == 1.0


def test_an_average_keeps_to_one_shape() -> None:
    meter = AverageValueMeter()
    meter.add(np.ones(3))
    for wrong in (1.0, np.ones(2)):
        with pytest.raises(MeterError, match=r"must have shape \(3,\)"):
            meter.add(wrong)
    assert equal(meter.value()[0], np.ones(3))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.sampled_from([1e6, -1e12]))
def test_std_is_accurate_for_any_offset(values: list[float], offset: float) -> None:
    meter = AverageValueMeter()
    shifted = [value + offset for value in values]
    for value in shifted:
        meter.add(value)
    exact = np.array([value - offset for value in shifted])  # exact, by Sterbenz' lemma
    assert meter.value()[1] == pytest.approx(float(exact.std(ddof=1)), rel=1e-12, abs=1e-300)


def test_nan_leaves_the_moving_window() -> None:
    meter = MovingAverageValueMeter(2)
    for value in (1.0, NAN, INF):
        meter.add(value)
    assert equal(meter.value(), (NAN, NAN))
    meter.add(2.0)
    assert equal(meter.value(), (INF, NAN))
    meter.add(4.0)
    assert meter.value() == (3.0, math.sqrt(2))


def test_a_large_window_grows_with_its_values() -> None:
    meter = MovingAverageValueMeter(10**12)
    for value in range(100):
        meter.add(value)
    assert close(meter.value(), (49.5, np.std(range(100), ddof=1)))


def test_nan_is_never_the_best() -> None:
    meter = BestValueMeter("max")
    for value, best in ((NAN, NAN), (-INF, -INF), (1.0, 1.0), (NAN, 1.0), (INF, INF)):
        meter.add(value)
        assert equal(meter.value(), best)


@pytest.mark.parametrize("kind", [int, np.float32, np.float64, np.int8, np.uint64, np.array])
def test_an_average_of_numbers_of_any_type(kind: Any) -> None:
    meter, plain = AverageValueMeter(), AverageValueMeter()
    for value in (3, 5, 100):
        meter.add(kind(value))
        plain.add(float(value))
        meter.add(kind(value), 4)
        plain.add(float(value), 4)
    assert equal(meter.value(), plain.value())
    with pytest.raises(MeterError, match="must fit a float64"):
        meter.add(10**400)
    assert equal(meter.value(), plain.value())


@pytest.mark.parametrize("ascending", [True, False])
def test_scores_in_order_rank_as_any_do(ascending: bool) -> None:
    scores = np.sort(rng.random(50).round(1))[:: 1 if ascending else -1]
    hits = rng.random(50) < scores
    auc, ap = AUCMeter(), APMeter()
    for meter in (auc, ap):
        meter.add(scores, hits)
    assert auc.value()[0] == pytest.approx(metrics.roc_auc_score(hits, scores))
    assert ap.value()[0] == pytest.approx(metrics.average_precision_score(hits, scores))


def test_mse_does_not_overflow_or_wrap_around() -> None:
    meter = MSEMeter()
    meter.add(np.array([1e20], "f4"), np.array([0], "f4"))
    assert meter.value() == pytest.approx(1e40)
    meter.reset()
    meter.add(np.array([1], "u1"), np.array([3], "u1"))
    assert meter.value() == 4.0


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_mse_of_many_is_as_accurate_as_float64(dtype: str) -> None:
    output, target = (1000 * rng.normal(size=(2, 100, 300))).astype(dtype)
    meter = MSEMeter()
    meter.add(output, target.copy("F"))
    exact = math.fsum((output.astype("f8") - target).ravel() ** 2) / output.size
    assert meter.value() == pytest.approx(exact, rel=1e-13)
    for first, second, value in ((1e300, -1e300, INF), (INF, 0.0, INF), (INF, INF, NAN)):
        meter.add(first, second)
        assert equal(meter.value(), value)


@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 2), (5, 3), (6, 7), (4, 40), (3, 300), (600, 2), (600, 3)]),
)
def test_class_error_ranks_as_a_sort_does(seed: int, shape: tuple[int, int]) -> None:
    n, classes = shape
    drawn = np.random.default_rng(seed)
    scores = drawn.choice([-INF, -1.0, 0.0, 1.0, INF, NAN], size=(n, classes))
    target = drawn.integers(0, classes, n)
    meter = ClassErrorMeter((1, 2))
    meter.add(scores, target)
    order = np.argsort(-scores, axis=1, kind="stable")  # NaN last
    last = np.isnan(scores).sum(axis=1)
    order = np.array([np.roll(row, k) for row, k in zip(order, last, strict=True)])
    wrong = [100 * np.mean([t not in row[:k] for t, row in zip(target, order, strict=True)])
             for k in (1, 2)]  # fmt: skip
    assert close(meter.value(), tuple(wrong))
    alone = ClassErrorMeter()
    alone.add(scores, target)
    assert close(alone.value(), wrong[0])
    assert (meter.value(1), meter.value(2)) == meter.value()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "?"])
@pytest.mark.parametrize("shape", [(511, 3), (512, 2), (512, 3), (9000, 16), (9000, 17), (800, 99)])
def test_the_highest_of_many_scores_is_that_of_argmax(shape: tuple[int, int], dtype: str) -> None:
    drawn = rng.choice([0, 1, 2] if dtype in "i8?" else [-INF, 0, 1, INF, NAN], shape).astype(dtype)
    for scores in (drawn, drawn[::-1, ::-1], np.asfortranarray(drawn)):
        target = scores.argmax(axis=1)
        error, matrix = ClassErrorMeter((1, 2)), ConfusionMeter(shape[1])
        error.add(scores, target)
        matrix.add(scores, target)
        assert error.value() == (0.0, 0.0)
        assert matrix.value().trace() == len(scores)


def test_class_error_counts_a_target_that_is_no_class_as_wrong() -> None:
    for topk in (1, (1, 2)):
        meter = ClassErrorMeter(topk)
        meter.add(np.eye(4), np.array([0.0, 1.5, NAN, 9.0]))
        assert meter.value(1) == 75.0
    with pytest.raises(ValueError, match="must be one of topk"):
        meter.value(3)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?"])
def test_classes_and_scores_of_any_dtype(dtype: str) -> None:
    target = np.array([1, 0], dtype)
    error, matrix = ClassErrorMeter((1, 2)), ConfusionMeter(2)
    error.add(np.eye(2).astype(dtype), target)
    matrix.add(np.eye(2).astype(dtype), target[:, np.newaxis])
    assert error.value() == (100.0, 0.0)
    assert matrix.value().tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("k", [3, 300])
def test_confusion_of_many_samples(k: int) -> None:
    predicted, target = rng.integers(0, k, (2, 200_000))
    meter, merged = ConfusionMeter(k), ConfusionMeter()
    meter.add(predicted, target)
    for part in range(4):  # 4 samples at a time leave most cells of the matrix alone
        merged.merge(*merged.reduction.state_of(predicted[part::4][:4], target[part::4][:4]))
        assert merged.value().sum() == 4 * (part + 1)
    assert equal(meter.value(), metrics.confusion_matrix(target, predicted, labels=range(k)))
    assert not np.shares_memory(meter.value(), meter.value())
    with pytest.raises(MeterError, match="state must be of"):
        meter.merge(float(k + 1), np.array([0]), np.array([1]))


def test_a_curve_with_one_kind_of_target_has_no_area() -> None:
    meter = AUCMeter()
    meter.add([0.1, 0.2], [0, 0])
    assert equal(meter.value(), (NAN, np.full(3, NAN), np.array([0, 0.5, 1])))
    meter.add(0.3, 1)
    assert meter.value()[0] == 1.0
    meter.add(NAN, 1)
    assert equal(meter.value(), (NAN, np.array([NAN]), np.array([NAN])))


def test_equal_scores_are_worth_a_half_in_any_order() -> None:
    for target in ([0, 1, 0, 1], [1, 1, 0, 0]):  # TNT gives 0.25 and 1
        meter = AUCMeter()
        meter.add([0.5] * 4, target)
        assert meter.value()[0] == 0.5


def test_average_precision_of_nan_and_of_no_positives() -> None:
    meter = APMeter()
    meter.add([[NAN, 0.1, 0.2]], [[1, 0, 1]])
    assert equal(meter.value(), np.array([NAN, 0.0, 1.0]))
    with pytest.raises(MeterError, match="3 classes as before, got 1"):
        meter.add([0.1], [1])


@given(
    st.lists(
        st.lists(
            st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1e-9, 1.0]),
            max_size=5,
        ),
        max_size=5,
    ),
    st.integers(2, 9),
)
def test_a_histogram_without_range_depends_on_the_values_alone(
    adds: list[list[float]], bins: int
) -> None:
    meter, at_once = HistogramMeter(bins), HistogramMeter(bins)
    for values in adds:
        meter.add(values)
    everything = np.array([value for values in adds for value in values])
    at_once.add(everything)
    counts, edges, bounds = meter.value()
    assert equal(at_once.value(), (counts, edges, bounds))
    assert not (bounds[1:] < bounds[:-1]).any()
    assert (len(counts), len(edges), counts.sum()) == (bins, bins + 1, len(everything))
    normal = (edges[:-1] != edges[1:]).all() and np.isfinite(edges).all()
    if len(everything) and normal:  # bins finer than float64 have equal edges
        below = np.searchsorted(np.sort(everything), edges, side="left")
        assert equal(np.diff(below).astype(np.int64), counts)
        assert (np.count_nonzero(counts) > 1) == (everything.min() != everything.max())


def test_a_histogram_leaves_out_what_is_not_finite() -> None:
    for meter in (HistogramMeter(4), HistogramMeter(4, (0, 1))):
        meter.add(np.array([NAN, INF, -INF]))
        assert meter.value()[0].tolist() == [0, 0, 0, 0]
        meter.add([NAN, 0.5])
        assert meter.value()[0].sum() == 1


@pytest.mark.parametrize(
    ("came", "given"),
    [((6, 5, 3), (3, 6, 5)), ((3, 5, 3), (3, 5, 3)), ((2, 6, 5, 4), (2, 4, 6, 5)),
     ((9, 8, 7), (9, 8, 7))],
)  # fmt: skip
def test_channels_come_first(came: tuple[int, ...], given: tuple[int, ...]) -> None:
    meter = ImageMeter()
    meter.add(np.zeros(came))
    assert meter.value().shape == given  # type: ignore[union-attr]


@pytest.mark.parametrize("unit", [False, True])
def test_time_is_recorded_time(unit: bool) -> None:
    """Since the first add or a later reset; with unit, from add to add."""
    meter = TimeMeter(unit)
    nothing = NAN if unit else 0.0
    assert equal(meter.value(), nothing)

    def at(time: float) -> TimeMeter:
        meter.tick(time)
        return meter

    at(5.0).reset()  # before the first add nobody knows of the meter
    at(10.0).add(1.0)
    assert equal(at(11.0).value(), NAN if unit else 1.0)
    for time in (12.0, 15.0):
        at(time).add(1.0)
    assert at(16.0).value() == (2.5 if unit else 6.0)
    at(20.0).reset()
    assert equal(at(20.0).value(), nothing)
    at(21.0).add(1.0, "two")
    assert at(23.0).value() == (6.0 if unit else 3.0)  # one add: since the one before
    at(22.0).add(1.0)
    assert at(23.0).value() == (1.0 if unit else 3.0)


@pytest.mark.parametrize("unit", [False, True])
def test_a_clock_that_is_set_back_makes_no_time_negative(unit: bool) -> None:
    meter = TimeMeter(unit)
    for time in (5000.0, 1400.0):
        meter.tick(time)
        meter.add(1.0)
    assert meter.value() == 0.0
    meter.reset()
    meter.tick(1000.0)
    meter.add(1.0)
    assert meter.value() == 0.0


def test_the_time_of_a_phase_is_its_own(tmp_path: Path) -> None:
    """The preset `time`: 0.2 s a step of training, 0.02 s one of testing, in every epoch."""
    now = 100.0
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for epoch in range(3):
            for key, seconds in (("train_loss", 0.2), ("test_loss", 0.02)):
                for _ in range(5):
                    now += seconds
                    rec.record(Add({key: 1.0}, 0, now))
            rec.record(Log(float(epoch), None, True, 0, now))
    with Recording(tmp_path / "run.h5") as run:
        train, test = play(run, preset("time"))[0].traces
    assert train.y == pytest.approx([0.2] * 3)
    assert test.y == pytest.approx([0.02] * 3)


IGNORED: list[tuple[int | list[int], list[int]]] = [
    (-100, [0, 2, 3, 5]),
    ([-100, 255], [0, 2, 5]),
    (1, [0, 1, 3, 4, 5]),
    ([-100, 255, 0, 1, 2], []),
]
TARGETS = np.array([0, -100, 1, 255, -100, 2])


@pytest.mark.parametrize(("ignore", "kept"), IGNORED)
def test_ignored_targets_do_not_count(ignore: Any, kept: list[int]) -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(6, 3))
    for args in ({"topk": [1, 2]}, {"accuracy": True}):
        meter, plain = ClassErrorMeter(ignore=ignore, **args), ClassErrorMeter(**args)
        meter.add(scores, TARGETS)
        plain.add(scores[kept], TARGETS[kept])
        assert equal(meter.value(), plain.value())


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("form", ["scores", "classes", "column", "one-hot"])
def test_ignored_targets_are_in_no_cell(k: int | None, form: str) -> None:
    rng = np.random.default_rng(5)
    scores, targets = rng.normal(size=(6, 3)), TARGETS
    predicted = scores if form in ("scores", "one-hot") else scores.argmax(axis=1)
    if form == "one-hot":
        targets = np.array([0, 1, 1, 0, 2, 2])
    meter = ConfusionMeter(k, ignore=[1] if form == "one-hot" else [-100, 255])
    shown = {"column": targets[:, np.newaxis], "one-hot": np.eye(3)[targets.clip(0, 2)]}.get(
        form, targets
    )
    meter.add(predicted, shown)
    plain = ConfusionMeter(3)
    kept = np.flatnonzero(targets != 1) if form == "one-hot" else np.array([0, 2, 5])
    plain.add(scores[kept], targets[kept])
    assert meter.value().tolist() == plain.value().tolist()


def test_ignore_is_a_class_number_or_several() -> None:
    for kind in (ClassErrorMeter, ConfusionMeter):
        for wrong in ("a", 0.5, [0.5]):
            with pytest.raises(TypeError, match="ignore must be a class number or several"):
                kind(ignore=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("ignore", [None, -100])
def test_pixels_are_samples(ignore: int | None) -> None:
    rng = np.random.default_rng(6)
    scores = rng.normal(size=(2, 4, 5, 3)).astype("f4")
    classes = rng.integers(0, 4, (2, 5, 3))
    if ignore is not None:
        classes[0, 0] = ignore
    rows = np.stack([scores[n, :, h, w] for n in range(2) for h in range(5) for w in range(3)])
    flat = classes.reshape(-1)
    one_hot = np.moveaxis(np.eye(4)[classes.clip(0)], -1, 1)
    cases: list[tuple[Any, Any, Any]] = [
        (ClassErrorMeter, scores, classes),
        (ConfusionMeter, scores, classes),
        (ConfusionMeter, scores.argmax(axis=1), classes),
    ]
    if ignore is None:
        cases.append((ConfusionMeter, scores.argmax(axis=1), one_hot))
    for kind, *pair in cases:
        pixels, samples = kind(ignore=ignore), kind(ignore=ignore)
        pixels.add(*pair)
        samples.add(rows, flat)
        assert equal(pixels.value(), samples.value())
    nothing = ClassErrorMeter()
    nothing.add(np.zeros((0, 4, 5, 3)), np.zeros((0, 5, 3)))
    assert math.isnan(nothing.value())


@pytest.mark.parametrize("shape", [(5, 1), (2, 1, 4, 4)])
def test_one_column_of_scores_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(MeterError, match="a column of scores for each class, got one alone"):
        ClassErrorMeter().add(np.ones(shape), np.ones((shape[0], *shape[2:])))


@pytest.mark.parametrize("kind", [APMeter, mAPMeter])
@pytest.mark.parametrize("empty", [(0,), (0, 3), (0, 5)])
@pytest.mark.parametrize("first", [False, True])
def test_an_empty_batch_is_no_samples(kind: Any, empty: tuple[int, ...], first: bool) -> None:
    batch = [[0.9, 0.2, 0.1], [0.4, 0.8, 0.3]], [[1, 0, 0], [1, 0, 1]]
    nothing = np.zeros(empty), np.zeros(empty, int)
    alone, beside = kind(), kind()
    alone.add(*batch, [1, 2])
    for came in (nothing, batch) if first else (batch, nothing):
        beside.add(*came, *([[1, 2]] if came is batch else []))
    assert equal(alone.value(), beside.value())


def test_pairs_of_a_mean_and_a_size() -> None:
    meter, plain = AverageValueMeter(mean=True), AverageValueMeter()
    meter.add(0.5, 32)
    meter.add(0.25, 8)
    meter.add(np.full(1, 0.75), 2)
    for value, n in ((0.5, 32), (0.25, 8), (0.75, 2)):
        for _ in range(n):
            plain.add(value)
    assert close(meter.value(), plain.value())
    with pytest.raises(ValueError, match="mean must be true or false, got 'yes'"):
        AverageValueMeter(mean="yes")  # type: ignore[arg-type]


def test_a_sum_that_looks_like_a_mean_is_warned_of_once() -> None:
    meter = AverageValueMeter()
    with pytest.warns(RuntimeWarning, match=r"\(0.5, 32\) is taken for a sum.* 0.0156 each"):
        meter.add(0.5, 32)
    meter.add(0.5, 32)
    for quiet in (AverageValueMeter(mean=True), AverageValueMeter(mean=False)):
        quiet.add(0.5, 32)
    plain = AverageValueMeter()
    for pair in ((0.5, 1), (16.0, 32), (0, 32), (3, 4)):
        plain.add(*pair)


WRONG_ARGUMENTS: list[tuple[Any, dict[str, Any]]] = [
    (MovingAverageValueMeter, {"windowsize": 0}),
    (MovingAverageValueMeter, {"windowsize": 2.0}),
    (BestValueMeter, {"mode": "lowest"}),
    (ClassErrorMeter, {"topk": 0}),
    (ClassErrorMeter, {"topk": []}),
    (ClassErrorMeter, {"topk": True}),
    (ConfusionMeter, {"k": 0}),
    (HistogramMeter, {"bins": 1}),
    (HistogramMeter, {"range": (1, 0)}),
    (HistogramMeter, {"range": (0, INF)}),
    (TextMeter, {"lines": 0}),
    (AverageValueMeter, {"mean": "yes"}),
    (ClassErrorMeter, {"ignore": "a"}),
    (ConfusionMeter, {"ignore": 0.5}),
]


@pytest.mark.parametrize(("kind", "args"), WRONG_ARGUMENTS)
def test_constructors_refuse_and_name_the_argument(kind: Any, args: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(args))):
        kind(**args)


MODULES = ["flexrec.recorder.reduction.validation", "flexrec.recorder.reduction.class_counts"]
MODULES += [name for _, name, _ in pkgutil.iter_modules(meters.__path__, "flexrec.replay.meters.")]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.failed == 0


def test_a_first_pair_far_below_its_count_is_warned_of() -> None:
    for mean in (2.3, 4.6, 6.9):  # cross-entropies of 10, 100 and 1000 classes before training
        with pytest.warns(RuntimeWarning, match="is taken for a sum of 32 values"):
            AverageValueMeter().add(mean, 32)
    late = AverageValueMeter()
    for pair in ((70.5, 32), (3.25, 32), (7.0, 32)):  # sums: the loss falls
        late.add(*pair)
    AverageValueMeter().add(7.0, 32)  # a count of right answers
