"""Statistics and measures against first principles, on plain tensors. No hooks here."""

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.layers.measuring.gradient_noise import GradientStream
from flexrec.recorder.layers.measuring.measures import MOMENTS, counts_there, norm, prepare, ratio
from flexrec.recorder.layers.measuring.statistics import STATISTICS, Statistic, measures_of, plan
from flexrec.replay.definitions.presets import LOG_BINS


def read(name: str, *tensors: Tensor) -> Any:
    """A named statistic of one tensor, or of several pooled."""
    return take(STATISTICS[name], *tensors)


def take(statistic: Statistic, *tensors: Tensor) -> Any:
    measure = statistic.measure
    assert measure is not None
    partials = [measure.of(ready) for t in tensors if (ready := prepare(t)) is not None]
    pooled = partials[0]
    for partial in partials[1:]:
        pooled = measure.merge(pooled, partial)
    value = statistic.read(pooled)
    return value.numpy() if isinstance(value, Tensor) else value


REFERENCES = {
    "mean": np.mean,
    "std": lambda x: np.std(x, ddof=1),
    "min": np.min,
    "max": np.max,
    "norm": lambda x: np.sqrt(np.sum(x * x)),
    "rms": lambda x: np.sqrt(np.mean(x * x)),
    "abs_mean": lambda x: np.mean(np.abs(x)),
    "zero_fraction": lambda x: np.mean(x == 0),
    "nan_count": lambda x: np.sum(np.isnan(x)),
    "inf_count": lambda x: np.sum(np.isinf(x)),
    "nonfinite": lambda x: 1 - np.mean(np.isfinite(x)),
    "median": np.median,
    **{f"q{p:02}": lambda x, p=p: np.quantile(x, p / 100) for p in (5, 25, 50, 75, 95)},
}

TENSORS = {
    "one row": torch.linspace(-1, 2, 7),
    "two elements": torch.tensor([1.0, 3.0]),
    "a matrix": torch.arange(12.0).view(3, 4) - 5,
    "transposed": (torch.arange(12.0).view(3, 4) - 5).t(),
    "channels last": torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    ),
    "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 5),
    "strided": torch.arange(20.0)[::3],
    "double": torch.linspace(-1, 2, 50, dtype=torch.float64),
    "constant": torch.full((100,), 0.3),
    "zeros": torch.zeros(10),
    "far from zero": 1e4 + torch.linspace(0, 1, 1000),
    "tiny": 1e-25 * torch.linspace(-1, 2, 50),
    "with squares of a few bits": 1e-22 * torch.linspace(-1, 2, 50),
    "huge": 1e25 * torch.linspace(-1, 2, 50),
    "half zeros": torch.linspace(-1, 1, 40).relu(),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("kind", TENSORS)
def test_a_statistic_is_what_numpy_says(name: str, kind: str) -> None:
    tensor = TENSORS[kind]
    exact = tensor.double().numpy().ravel()
    expected = REFERENCES[name](exact)
    # Near a mean of zero it is the terms that set the precision, and never the sum.
    scale = np.sqrt(np.mean(exact * exact))
    assert read(name, tensor) == pytest.approx(expected, rel=1e-5, abs=1e-6 * scale)


@pytest.mark.parametrize("name", REFERENCES)
def test_pooled_tensors_count_as_one(name: str) -> None:
    parts = [torch.linspace(-1, 2, 7), torch.zeros(3), torch.linspace(5, 6, 12).view(3, 4)]
    expected = REFERENCES[name](np.concatenate([p.double().numpy().ravel() for p in parts]))
    assert read(name, *parts) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [n for n in REFERENCES if n not in ("std", "nan_count")])
def test_one_element(name: str) -> None:
    assert read(name, torch.tensor(-2.5)) == pytest.approx(REFERENCES[name](np.array([-2.5])))


def test_the_deviation_of_one_element_is_zero() -> None:
    assert read("std", torch.tensor([7.0])) == 0.0
    assert read("std", torch.tensor([1.0]), torch.tensor([3.0])) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("n", [1 << 20, (1 << 20) + 1, 3_000_001])
def test_long_float32_tensors_keep_four_digits(n: int) -> None:
    tensor = torch.rand(n, generator=torch.Generator().manual_seed(0)) * 3 + 1
    exact = tensor.double()
    assert read("mean", tensor) == pytest.approx(exact.mean().item(), rel=1e-6)
    assert read("std", tensor) == pytest.approx(exact.std().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("bad", "nans", "infs"), [(math.nan, 1, 0), (math.inf, 0, 1), (-math.inf, 0, 1)]
)
def test_what_is_not_finite_is_seen_and_not_hidden(bad: float, nans: int, infs: int) -> None:
    tensor = torch.tensor([1.0, bad, 2.0, 3.0])
    assert read("nan_count", tensor) == nans
    assert read("inf_count", tensor) == infs
    assert read("nonfinite", tensor) == 0.25
    assert not math.isfinite(read("mean", tensor))
    assert math.isnan(read("std", tensor))
    low, high = read("min", tensor), read("max", tensor)
    assert math.isnan(low) == math.isnan(high) == bool(nans)
    assert bad in (low, high) or nans
    assert math.isnan(read("median", tensor)) == bool(nans)
    assert read("histogram", tensor) == pytest.approx(np.linspace(1, 3, 65))


def test_nan_survives_pooling() -> None:
    parts = torch.tensor([1.0, 2.0]), torch.tensor([math.nan, 0.0])
    for order in (parts, parts[::-1]):
        assert all(math.isnan(read(name, *order)) for name in ("min", "max", "mean", "median"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    tensor = torch.full((4096,), 300.0, dtype=dtype)
    tensor[::2] = 100.0
    assert read("mean", tensor) == pytest.approx(200.0)
    assert read("norm", tensor) == pytest.approx(math.sqrt(2048 * (300**2 + 100**2)), rel=1e-5)


def test_complex_numbers_count_as_pairs_of_reals() -> None:
    tensor = torch.tensor([1 + 3j, 5 + 7j])
    assert read("mean", tensor) == 4.0
    assert read("max", tensor.conj()) == 5.0
    assert read("norm", tensor) == pytest.approx(math.sqrt(84))


def test_of_sparse_tensors_the_stored_values_count() -> None:
    twice = torch.sparse_coo_tensor([[0, 2, 0]], [1.0, 5.0, 2.0], (9,), check_invariants=True)
    assert read("mean", twice) == 4.0
    assert read("max", twice) == 5.0
    assert read("mean", torch.tensor([[0.0, 4.0], [2.0, 0.0]]).to_sparse()) == 3.0


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1, 2]),
        torch.tensor([True]),
        torch.empty(0),
        torch.empty(3, 0, 2),
        torch.sparse_coo_tensor(torch.empty(1, 0), torch.empty(0), (4,), check_invariants=True),
    ],
    ids=["int", "bool", "empty", "empty matrix", "empty sparse"],
)
def test_nothing_to_measure(tensor: Tensor) -> None:
    assert prepare(tensor) is None


def test_measuring_leaves_no_graph_and_no_change() -> None:
    tensor = torch.linspace(-1, 1, 6, requires_grad=True) * 2
    before = tensor.detach().clone()
    for statistic in STATISTICS.values():
        if statistic.measure is not None:
            take(statistic, tensor)
    assert torch.equal(tensor.detach(), before)
    assert tensor._version == 0


# ---------------------------------------------------------------- samples


def test_a_large_tensor_is_sampled_over_all_its_columns() -> None:
    """A stride of 32 would meet only 16 of the 512 columns."""
    tensor = torch.arange(512.0).repeat(512, 1)
    assert read("median", tensor) == pytest.approx(255.5, abs=2)
    assert read("q05", tensor) == pytest.approx(25.55, abs=2)
    assert read("q95", tensor) == pytest.approx(485.45, abs=2)
    assert read("histogram", tensor) == pytest.approx(np.linspace(0, 511, 65), abs=2)


def test_sampled_tensors_weigh_as_much_as_they_have_elements() -> None:
    many, few = torch.zeros(90_000), torch.ones(10_000)
    assert read("q75", many, few) == 0.0
    assert read("q95", many, few) == 1.0
    assert read("histogram", many, few).sum() == pytest.approx(7, abs=0.5)


def test_samples_of_many_calls_stay_bounded() -> None:
    measure = STATISTICS["median"].measure
    assert measure is not None
    pooled = measure.of(torch.randn(8192))
    for _ in range(20):
        pooled = measure.merge(pooled, measure.of(torch.randn(8192)))
        assert pooled.values.numel() <= 4 * 8192
    assert pooled.weights.sum() == pytest.approx(21 * 8192, rel=1e-3)


@pytest.mark.parametrize("columns", [2, 128])
def test_samples_of_many_calls_favour_no_column_and_no_call(columns: int) -> None:
    """Gradients that are accumulated, and recurrent cells: thinned again and again."""
    measure = STATISTICS["histogram"].measure
    assert measure is not None
    torch.manual_seed(0)
    calls = [
        torch.randn(8192 // columns, columns) + torch.arange(columns) % 2 * 3 + i / 10
        for i in range(40)
    ]
    pooled = reduce(measure.merge, map(measure.of, calls))
    exact = np.quantile(torch.cat([call.flatten() for call in calls]).numpy(), np.arange(65) / 64)
    assert pooled.histogram().numpy() == pytest.approx(exact, abs=0.1)
    for fraction in (0.05, 0.5, 0.95):
        assert float(pooled.quantile(fraction)) == pytest.approx(
            exact[round(fraction * 64)], abs=0.2
        )


def test_a_histogram_has_the_bounds_of_bins_that_hold_as_many_elements() -> None:
    tensor = torch.arange(6401.0).flip(0)
    assert read("histogram", tensor).tolist() == [100.0 * part for part in range(65)]
    pooled = read("histogram", torch.zeros(9000), torch.ones(3000))
    assert pooled[[0, 1, 47, 49, 63, 64]].tolist() == [0, 0, 0, 1, 1, 1]
    few = torch.tensor([3.0, -1.0, 1.0])
    assert read("histogram", few) == pytest.approx(np.quantile(few, np.arange(65) / 64))


def test_a_histogram_ends_at_the_least_and_the_greatest_of_all_elements() -> None:
    tensor = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0))
    tensor[3, 4], tensor[5, 6] = 99.0, -77.0
    bounds = read("histogram", tensor)
    assert bounds[[0, 64]].tolist() == [-77.0, 99.0]
    assert abs(bounds[1:64]).max() < 3
    assert read("histogram", tensor, torch.tensor([100.0]))[64] == 100.0


def test_a_histogram_leaves_out_what_is_not_finite() -> None:
    tensor = torch.tensor([math.nan, 1.0, math.inf, -math.inf])
    assert read("histogram", tensor).tolist() == [1.0] * 65
    assert np.isnan(read("histogram", tensor[:1])).all()


def test_quantiles_and_norms_beside_infinities() -> None:
    tensor = torch.tensor([-math.inf, -math.inf, -math.inf, 1.0, 2.0])
    assert [read(name, tensor) for name in ("q25", "median", "q75")] == [-math.inf, -math.inf, 1]
    assert read("median", torch.tensor([-math.inf, 0.0, 1.0])) == 0.0
    assert read("norm", tensor) == read("rms", tensor) == math.inf
    assert math.isnan(read("norm", torch.tensor([math.nan, 1.0])))


# ---------------------------------------------------------------- dead units


def test_dead_units_of_rows() -> None:
    rows = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])
    assert read("dead", rows) == 0.5
    assert read("dead", rows, torch.tensor([[0.0, 0.0, 0.0, 3.0]])) == 0.25


def test_a_unit_is_an_index_of_the_last_dimension() -> None:
    images = torch.zeros(2, 3, 3, 4)
    images[1, 0, 1, 2] = -1.0
    assert read("dead", images) == 0.75
    assert read("dead", torch.tensor([0.0, 1.0])) == 0.5


def test_calls_with_other_units_are_other_units() -> None:
    assert read("dead", torch.zeros(2, 4), torch.ones(2, 4), torch.zeros(2, 6)) == 0.6


# ---------------------------------------------------------------- across minibatches


def test_a_constant_gradient_has_no_noise() -> None:
    stream = GradientStream()
    for _ in range(5):
        stream.add({"weight": torch.tensor([3.0, 4.0])})
    assert float(stream.signal()) == pytest.approx(5.0)
    assert float(stream.noise()) == 0.0


@pytest.mark.parametrize("batches", [1, 7])
@pytest.mark.parametrize("seed", range(8))
def test_what_rounding_leaves_is_no_noise(batches: int, seed: int) -> None:
    stream, generator = GradientStream(), torch.Generator().manual_seed(seed)
    shapes = {"a": (100, 37), "b": (31, 7)}
    gradients = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    for _ in range(batches):
        stream.add(gradients)
    assert float(stream.noise()) == 0.0
    assert float(stream.signal()) > 60


def test_a_minibatch_that_a_scaler_skips_can_be_left_out() -> None:
    stream = GradientStream()
    for gradient in ([3.0, math.inf], [3.0, 4.0], [math.nan, 4.0], [-3.0, -4.0]):
        stream.add({"weight": torch.tensor(gradient)}, finite=True)
    assert float(stream.signal()) == 0.0
    assert float(stream.noise()) == pytest.approx(5.0)


def test_a_parameter_of_another_shape_begins_anew() -> None:
    stream = GradientStream()
    stream.add({"weight": torch.ones(3)})
    stream.add({"weight": torch.tensor([3.0, 4.0, 0.0, 0.0])})
    assert float(stream.signal()) == pytest.approx(5.0)


def test_inference_mode_makes_no_difference_to_a_stream() -> None:
    stream = GradientStream()
    with torch.inference_mode():
        stream.add({"weight": torch.tensor([3.0, 4.0])})
    stream.add({"weight": torch.tensor([3.0, 4.0])})
    assert float(stream.signal()) == pytest.approx(5.0)


def test_an_alternating_gradient_has_no_signal() -> None:
    stream = GradientStream()
    for sign in (1, -1, 1, -1):
        stream.add({"a": sign * torch.tensor([2.0, 3.0]), "b": sign * torch.tensor([[6.0]])})
    assert float(stream.signal()) == 0.0
    assert float(stream.noise()) == pytest.approx(7.0)


def test_signal_and_noise_are_the_formulas() -> None:
    batches = 8
    gradients = 0.1 + torch.randn(batches, 3, 4, generator=torch.Generator().manual_seed(1))
    stream = GradientStream()
    for gradient in gradients:
        stream.add({"weight": gradient})
    exact = gradients.double().reshape(batches, -1)
    assert float(stream.signal()) == pytest.approx(exact.mean(0).norm().item(), rel=1e-12)
    noise = exact.var(0, correction=0).sum().sqrt().item()
    assert float(stream.noise()) == pytest.approx(noise, rel=1e-12)


def test_the_noise_of_random_gradients_is_sigma_root_d() -> None:
    d, batches, sigma = 10_000, 20, 0.5
    stream, generator = GradientStream(), torch.Generator().manual_seed(2)
    for _ in range(batches):
        stream.add({"weight": 1 + sigma * torch.randn(d, generator=generator)})
    expected = sigma * math.sqrt(d * (batches - 1) / batches)
    assert float(stream.noise()) == pytest.approx(expected, rel=0.01)


def test_gradients_are_not_kept_and_may_be_sparse_or_complex_or_missing() -> None:
    stream, dense = GradientStream(), torch.tensor([3.0, 0.0], dtype=torch.float64)
    stream.add({"a": dense, "b": torch.tensor([4.0 + 12.0j])})
    dense.zero_()
    stream.add({"a": torch.tensor([3.0, 0.0]).to_sparse()})
    assert float(stream.signal()) == pytest.approx(math.sqrt(9 + 4 + 36))


# ---------------------------------------------------------------- fixed bins


def test_counts_by_power_of_two_are_those_of_numpy() -> None:
    powers = 2.0 ** np.arange(-24, 17)
    generator = torch.Generator().manual_seed(0)
    scales = 2.0 ** torch.randint(-40, 30, (3, 1000), generator=generator)
    tensor = torch.randn(3, 1000, generator=generator) * scales
    tensor[0, :41], tensor[1, :41] = torch.tensor(powers), -torch.tensor(powers)
    tensor[2, :5] = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf])
    exact = tensor.double().numpy()
    magnitudes = np.digitize(np.abs(exact), powers)  # 0: below all
    places = 41 + np.where(exact < 0, -magnitudes, magnitudes)[np.isfinite(exact)]
    expected = np.bincount(places, minlength=83)
    assert read("log_histogram", tensor).tolist() == expected.tolist()
    assert read("log_histogram", *tensor.double().t()).tolist() == expected.tolist()
    assert len(LOG_BINS) == 83
    assert (LOG_BINS[0], LOG_BINS[41], LOG_BINS[42], LOG_BINS[-1]) == (
        "-2^16",
        "0",
        "2^-24",
        "2^16",
    )


def test_a_device_counts_as_the_processor_does_and_far_enough() -> None:
    codes = torch.arange(512).repeat_interleave(torch.arange(512) % 7)
    assert counts_there(codes).tolist() == (torch.arange(512) % 7).tolist()
    many = torch.zeros((1 << 24) + 3, dtype=torch.int32)
    assert counts_there(many)[:2].tolist() == [(1 << 24) + 3, 0]


# ---------------------------------------------------------------- by name


def test_every_name_reads_on_every_tensor_it_may_meet() -> None:
    for tensor in TENSORS.values():
        for statistic in STATISTICS.values():
            if statistic.measure is not None:
                assert np.shape(take(statistic, tensor)) in ((), (65,), (83,))


def test_a_function_is_a_statistic_called_by_its_name() -> None:
    def spread(tensor: Tensor) -> Tensor:
        return tensor.max() - tensor.min()

    planned = plan(["weights"], [spread, torch.var])
    assert [s.name for s in planned["weights"]] == ["spread", "var"]
    assert take(planned["weights"][0], torch.tensor([[1.0, 5.0]])) == 4.0
    assert take(planned["weights"][0], torch.tensor([1.0, 5.0]), torch.zeros(6)) == 1.0
    assert take(planned["weights"][1], torch.tensor([1.0, 5.0])) == 8.0


def test_a_function_sees_the_tensor_in_its_shape_and_in_float32() -> None:
    seen = []

    def look(tensor: Tensor) -> float:
        seen.append((tensor.shape, tensor.dtype, tensor.requires_grad))
        return 1.0

    (statistic,) = plan(["inputs"], [look])["inputs"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        take(statistic, torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True))

        def product(tensor: Tensor) -> Tensor:
            seen.append((tensor @ tensor).dtype)
            return tensor.sum()

        take(plan(["inputs"], [product])["inputs"][0], torch.ones(2, 2))
    assert seen == [((2, 3), torch.float32, False), torch.float32]


@pytest.mark.parametrize("name", ["mean", "std", "min", "max", "norm"])
def test_functions_of_torch_are_the_named_statistics(name: str) -> None:
    assert plan(["weights"], [getattr(torch, name), name])["weights"] == (STATISTICS[name],)


def test_what_a_function_may_not_return() -> None:
    def rows(tensor: Tensor) -> Tensor:
        return tensor.sum(1)

    with pytest.raises(DefinitionError, match=r"'rows' must return one real number.*\(2,\)"):
        take(plan(["weights"], [rows])["weights"][0], torch.ones(2, 3))

    def nothing(tensor: Tensor) -> None:
        return None

    with pytest.raises(DefinitionError, match=r"'nothing' must return one real number.*NoneType"):
        take(plan(["weights"], [nothing])["weights"][0], torch.ones(2, 3))


def test_a_plan_puts_a_statistic_of_one_source_there() -> None:
    planned = plan(("weights", "inputs"), ("mean", "dead", "grad_ratio", "snr"))
    names = {source: [s.name for s in statistics] for source, statistics in planned.items()}
    assert names == {
        "weights": ["mean"],
        "inputs": ["mean"],
        "outputs": ["dead"],
        "grad_weights": ["grad_ratio", "snr"],
    }


def test_a_plan_of_one_name_needs_no_list() -> None:
    assert [s.name for s in plan("weights", "mean")["weights"]] == ["mean"]
    assert [s.name for s in plan("weights", torch.var)["weights"]] == ["var"]


def test_each_measure_is_taken_once() -> None:
    measures = measures_of(plan(["inputs"], ["mean", "std", "rms", "norm", "min", "max"]))
    assert [len(of) for of in measures.values()] == [2]
    assert MOMENTS in measures_of(plan([], ["update_ratio"]))["weights"]


@pytest.mark.parametrize(
    ("sources", "stats", "message"),
    [
        (["grads_in"], ["mean"], "no source 'grads_in'; did you mean 'grad_in'"),
        ([3], ["mean"], "no source 3"),
        (["weights"], ["meen"], "no statistic 'meen'; did you mean 'mean'"),
        (["weights"], [3], "a statistic is a name or a function with a __name__, got 3"),
        (["weights"], [torch.nn.ReLU()], "a name or a function with a __name__"),
        (["weights"], [lambda _: 1, lambda _: 2], "two different statistics are called '<lambda>'"),
        ([], ["mean"], "nothing to take"),
        (["weights"], [], "nothing to take"),
    ],
)
def test_what_a_plan_refuses(sources: Any, stats: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        plan(sources, stats)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [(1.0, 2.0, 0.5), (1.0, 0.0, math.inf), (-1.0, 0.0, -math.inf), (0.0, 0.0, math.nan)],
)
def test_a_ratio_follows_ieee_754(above: float, below: float, expected: float) -> None:
    assert ratio(above, below) == pytest.approx(expected, nan_ok=True)
    assert ratio(math.nan, below) != ratio(math.nan, below)
    on_device = ratio(torch.tensor(above), torch.tensor(below))
    assert float(on_device) == pytest.approx(expected, nan_ok=True)


def test_the_norm_of_moments() -> None:
    assert norm(MOMENTS.of(torch.tensor([3.0, 4.0]))) == pytest.approx(5.0)
