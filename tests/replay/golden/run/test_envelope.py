"""Goldens learnt from several runs: who passes, who does not, and what is left out."""

import math
from typing import Any

import numpy as np
import pytest

from flexrec.recorder.errors import RecordingError
from flexrec.replay.golden.run.envelope import compare_learnt, learn
from flexrec.replay.golden.run.kept import Cell, Cells, KeptRun, Plain, code_of

STEPS = 60
LAYERS = {
    f"{layer}/outputs/{name}": value
    for layer in ("first", "last")
    for name, value in (("mean", 1e-9), ("std", 2.0))
}


def noisy(seed: int, *, factor: float = 1.0, since: int = 0, **more: Any) -> KeptRun:
    """A run whose numbers differ from seed to seed; changed from a step on."""
    rng = np.random.default_rng(seed)
    cells: dict[str, Cells] = {}
    for step in range(STEPS):
        change = factor if step >= since else 1.0
        values: dict[str, Plain] = {"lr": 0.1 / (step + 1)}
        for key, value in (("train_loss", 1 / (step + 1)), *LAYERS.items()):
            values[key] = change * value * (1 + 1e-3 * float(rng.normal()))
        for key, value in {**values, **{key: each(step) for key, each in more.items()}}.items():
            cells.setdefault(key, {})[step] = Cell(code_of([value]), (value,))
    return KeptRun(f"{seed}.h5", cells)


@pytest.fixture(scope="module")
def runs() -> list[KeptRun]:
    """Five equal runs, but for noise."""
    return [noisy(seed) for seed in range(5)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_runs_it_learnt_from_and_others_of_their_kind_pass(
    count: int, runs: list[KeptRun]
) -> None:
    golden = learn(runs[:count], "g.json").golden
    for run in [*runs, *(noisy(seed) for seed in range(10, 20))]:
        assert compare_learnt(golden, run).equal, compare_learnt(golden, run)


@pytest.mark.parametrize(("count", "factor"), [(2, 1.1), (3, 1.05), (5, 1.03)])
def test_a_change_beyond_the_noise_is_found(count: int, factor: float, runs: list[KeptRun]) -> None:
    golden = learn(runs[:count], "g.json").golden
    found = compare_learnt(golden, noisy(9, factor=factor, since=30))
    assert found.first is not None
    assert 25 < found.first.step < 40
    assert set(found.first.one_of) == {"first", "last"}
    assert "outside of what" in str(found)
    assert " +- " in str(found)


def test_one_spike_and_one_key_pass(runs: list[KeptRun]) -> None:
    golden = learn(runs, "g.json", every=1).golden
    spike = noisy(9)
    spike.cells["train_loss"][30] = spike.cells["train_loss"][0]
    assert compare_learnt(golden, spike).equal
    shifted = noisy(9)
    shifted.cells["train_loss"] = noisy(9, factor=2.0).cells["train_loss"]
    assert compare_learnt(golden, shifted).equal  # two keys are needed


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30, {"text": "lost"}])
@pytest.mark.parametrize("every", [1, 7])
def test_one_key_that_is_not_finite_or_far_outside_differs(
    value: Plain, every: int, runs: list[KeptRun]
) -> None:
    golden = learn(runs, "g.json", every).golden
    lost = noisy(9)
    lost.cells["train_loss"] = dict.fromkeys(range(STEPS), Cell("", (value,)))
    found = compare_learnt(golden, lost)
    assert found.keys.differ == ("train_loss",)
    assert found.first is not None
    assert (found.first.step, found.first.key) == (0, "train_loss")


def test_one_value_that_is_not_finite_differs_at_a_step_that_is_not_kept(
    runs: list[KeptRun],
) -> None:
    golden = learn(runs, "g.json", every=5).golden
    lost = noisy(9)
    lost.cells["train_loss"][32] = Cell("", (math.nan,))
    found = compare_learnt(golden, lost)
    assert found.first is not None
    assert (found.first.step, found.first.key) == (32, "train_loss")
    assert "not finite, though 5 runs were finite here" in str(found)


def test_settings_are_compared_to_the_bit(runs: list[KeptRun]) -> None:
    golden = learn(runs, "g.json").golden
    other = noisy(9)
    cells = other.cells["lr"]
    cells[7] = cells[8]
    found = compare_learnt(golden, other)
    assert found.first is not None
    assert (found.first.step, found.first.key) == (7, "lr")
    assert "equal to the bit in 5 runs" in found.first.cause


def test_a_mean_that_is_zero_by_construction_has_the_size_of_its_tensor(
    runs: list[KeptRun],
) -> None:
    golden = learn(runs, "g.json").golden
    within = [cell.within for cell in golden.cells["first/outputs/mean"].values()]
    assert all(each is not None and each > 1e-7 for each in within)


def test_what_cannot_be_learnt_is_left_out_with_its_reason() -> None:
    def with_more(seed: int) -> KeptRun:
        more: dict[str, Any] = {"note": lambda step: {"text": str(step)}}
        more |= {"w/fingerprint": lambda step: float(step + seed), "data/fingerprint": float}
        more |= {"odd": lambda _: math.nan}
        more |= {} if seed else {"first_only": float}
        return noisy(seed, **more)

    found = learn([with_more(0), with_more(1)], "g.json")
    assert found.left_out == {
        "note": "not numbers, or not finite",
        "w/fingerprint": "fingerprints that differ",
        "odd": "not numbers, or not finite",
        "first_only": "only in 1 run",
    }
    assert {"data/fingerprint", "train_loss"} <= set(found.golden.cells)


def test_one_run_or_nothing_in_common_is_refused(runs: list[KeptRun]) -> None:
    with pytest.raises(RecordingError, match="learnt from two runs or more, got 1"):
        learn(runs[:1], "g.json")
    other = KeptRun("other.h5", {"other": {0: Cell(code_of([1.0]), (1.0,))}})
    with pytest.raises(RecordingError, match="have no key in common"):
        learn([runs[0], other], "g.json")


def test_however_many_keys_there_are_each_keeps_enough_steps() -> None:
    """With fewer, a change would have to last for most of the run to be seen."""
    many: dict[str, Any] = {f"constant{i}": lambda _: 1.0 for i in range(30)}
    runs = [noisy(seed, **many) for seed in range(3)]
    golden = learn(runs, "g.json").golden
    assert sum(bool(cell.values) for cell in golden.cells["first/outputs/std"].values()) == 12
    assert not compare_learnt(golden, noisy(9, factor=1.05, since=30, **many)).equal
    assert compare_learnt(golden, noisy(9, **many)).equal
