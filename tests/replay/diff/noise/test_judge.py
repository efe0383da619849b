"""A run judged by the spread of references: since when it is beyond, and where first."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import flexrec
from flexrec.recorder import DefinitionError, Recorder, RecordingError
from flexrec.replay.diff.result import RunDiff
from support.diff_cases import LAYERS, SOURCES, Bend, bent, both, noisy, record

AT, STEPS = 20, 45
FORWARD = ("middle/outputs/mean", "last/inputs/mean", "last/outputs/mean", "train_loss")
WEIGHTS = tuple(f"{layer}/weights/mean" for layer in LAYERS)

Judge = Callable[..., RunDiff]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs that are the same except for noise."""
    folder = tmp_path_factory.mktemp("references")
    return [record(folder / f"a{i}.h5", noisy(i), steps=STEPS) for i in range(4)]


@pytest.fixture
def judge(references: list[Path], tmp_path: Path) -> Judge:
    """Judges another run, which is bent."""

    def judged(bend: Bend | None = None, count: int = 3) -> RunDiff:
        bends = [noisy(9), *([bend] if bend else [])]
        b = record(tmp_path / "b.h5", both(*bends), steps=STEPS)
        return flexrec.diff(references[0], b, noise=references[1:count])

    return judged


@pytest.mark.parametrize("count", [2, 3, 4])
def test_noise_alone_is_no_difference(judge: Judge, count: int) -> None:
    found = judge(None, count)
    assert found.equal
    assert found.first is None
    assert found.noise is not None
    assert (len(found.noise.references), found.noise.keys) == (count, 19)
    assert f"19 keys judged by {count} references: within their spread" in str(found)


@pytest.mark.parametrize(
    ("changed", "stage", "layer"),
    [
        (FORWARD, "forward", "middle"),
        (("middle/grad_in/mean", "first/grad_out/mean"), "backward", "middle"),
        (WEIGHTS, "optimizer", None),
    ],
)
def test_what_is_beyond(
    judge: Judge, changed: tuple[str, ...], stage: str, layer: str | None
) -> None:
    found = judge(bent(AT, dict.fromkeys(changed, 1.0)))
    assert not found.equal
    assert found.first is not None
    assert found.noise is not None
    assert (found.noise.since, found.noise.seen) == (AT, AT + 9)
    assert (found.first.step, found.first.previous_step) == (AT, AT - 1)
    assert (found.first.stage, found.first.layer) == (stage, layer)
    assert set(found.noise.beyond) == set(found.keys.differ) == set(changed)


def test_what_it_prints(judge: Judge) -> None:
    said = str(judge(bent(AT, dict.fromkeys(FORWARD, 1.0))))
    assert "19 keys judged by 3 references: 4 beyond their spread from step 20 on" in said
    assert "first     step 20, forward, middle: outside the spread of 3 references by" in said
    assert " to 20.1" in said
    assert "then      2 of 3 layers at step 20\n" in said


def test_a_single_key_or_a_few_steps_are_not_enough(judge: Judge) -> None:
    assert judge(bent(AT, {"train_loss": 1.0})).equal
    assert judge(
        both(bent(AT, dict.fromkeys(FORWARD, 1.0)), bent(AT + 8, dict.fromkeys(FORWARD, -1.0)))
    ).equal


def test_a_change_that_no_step_shows_by_itself(references: list[Path], tmp_path: Path) -> None:
    """It adds up, as more references allow a lower limit."""
    more = [record(tmp_path / f"more{i}.h5", noisy(20 + i), steps=STEPS) for i in range(3)]
    bend = both(noisy(9), bent(AT, dict.fromkeys(FORWARD, 0.02)))
    b = record(tmp_path / "b.h5", bend, steps=STEPS)
    found = flexrec.diff(references[0], b, noise=[*references[1:], *more])
    assert found.first is not None
    assert found.first.layer is None
    assert "no step by itself shows where it begins" in found.first.cause


def test_batches_rates_and_config_stay_exact(judge: Judge) -> None:
    found = judge(bent(AT, {"lr": 1e-9}))
    assert not found.equal
    assert found.first is not None
    assert (found.first.step, found.first.stage, found.first.key) == (AT, "optimizer", "lr")
    assert found.noise is not None
    assert found.noise.since is None
    both_differ = judge(both(bent(AT + 5, {"lr": 1e-9}), bent(AT, dict.fromkeys(FORWARD, 1.0))))
    assert both_differ.first is not None
    assert both_differ.first.key == "lr"
    assert both_differ.noise is not None
    assert both_differ.noise.since == AT
    assert both_differ.keys.differ[0] == "lr"


def test_a_rate_that_differs_among_the_references_is_not_exact(tmp_path: Path) -> None:
    runs = [
        record(
            tmp_path / f"{i}.h5", noisy(i, quiet=()), steps=STEPS, config={"seed": i, "n": i > 2}
        )
        for i in range(4)
    ]
    found = flexrec.diff(runs[0], runs[3], noise=runs[1:3])
    assert found.equal
    assert [change.name for change in found.config] == ["n"]


def test_structure_is_exact(judge: Judge) -> None:
    def lose(step: int, found: dict[str, float]) -> None:
        del found["last/weights/mean"]
        found["more"] = step

    found = judge(lose)
    assert not found.equal
    assert found.keys.only_a == ("last/weights/mean",)
    assert found.keys.only_b == ("more",)
    shorter = judge(lambda step, found: found.clear() if step > 30 else None)
    assert not shorter.equal
    assert shorter.keys.unmatched["train_loss"] == (14, 0)
    assert "none: what both have is the same except for noise" in str(shorter)


def test_references_of_other_lengths_leave_the_structure_open(
    references: list[Path], tmp_path: Path
) -> None:
    short = record(tmp_path / "short.h5", noisy(7), steps=30)
    b = record(tmp_path / "b.h5", noisy(8), steps=38)
    found = flexrec.diff(references[0], b, noise=[references[1], short])
    assert found.equal


def test_references_that_are_equal_to_the_bit(tmp_path: Path) -> None:
    runs = [record(tmp_path / f"{i}.h5") for i in range(3)]
    found = flexrec.diff(runs[0], runs[1], noise=[runs[2]])
    assert found.equal
    assert found.noise is not None
    assert found.noise.exact
    other = record(tmp_path / "b.h5", bent(5, ("last/weights/mean",)))
    found = flexrec.diff(runs[0], other, noise=[runs[2]])
    assert found.first is not None
    assert (found.first.step, found.first.layer) == (5, "last")
    assert "none: 2 references are equal to the bit" in str(found)


def test_one_reference_gives_no_verdict(references: list[Path], tmp_path: Path) -> None:
    a, other, *_ = references
    b = record(tmp_path / "b.h5", noisy(9), steps=STEPS)
    with pytest.raises(
        RecordingError, match="given twice as a reference: one run has no spread, so there is"
    ):
        flexrec.diff(a, b, noise=[a])
    with pytest.raises(RecordingError, match="cannot be judged by itself"):
        flexrec.diff(a, b, noise=[other, b])
    with pytest.raises(DefinitionError, match="choose a tolerance or noise"):
        flexrec.diff(a, b, noise=[other], rtol=1e-3)


def test_too_few_steps_give_no_verdict(tmp_path: Path) -> None:
    runs = [record(tmp_path / f"{i}.h5", noisy(i), steps=9) for i in range(3)]
    with pytest.raises(RecordingError, match="no key of numbers has 10 steps in common"):
        flexrec.diff(runs[0], runs[1], noise=[runs[2]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("changed", ["train_loss", "middle/outputs/mean"])
def test_a_key_that_alone_is_not_finite_is_never_noise(
    judge: Judge, value: float, changed: str
) -> None:
    found = judge(lambda step, of: of.update({changed: value}) if step == AT else None)
    assert not found.equal
    assert found.first is not None
    assert (found.first.step, found.first.previous_step) == (AT, AT - 1)
    assert found.first.key == changed
    assert found.keys.differ == (changed,)
    assert "not finite, though 3 references are finite here" in str(found)


def test_of_few_steps_it_is_told_too(tmp_path: Path) -> None:
    runs = [record(tmp_path / f"{i}.h5", noisy(i), steps=9) for i in range(2)]
    b = record(tmp_path / "b.h5", lambda _, found: found.update(train_loss=math.nan), steps=9)
    found = flexrec.diff(runs[0], b, noise=[runs[1]])
    assert found.first is not None
    assert (found.first.step, found.first.key) == (0, "train_loss")


def test_a_run_that_ends_before_it_can_be_judged_is_not_said_to_be_within(
    references: list[Path], tmp_path: Path
) -> None:
    found = flexrec.diff(references[0], record(tmp_path / "b.h5", noisy(9)), noise=references[1:3])
    assert (found.equal, found.first, found.keys.differ) == (False, None, ())
    assert (
        found.headline == "they do not have the same keys and steps; nothing else could be judged"
    )
    assert "noise     no key has enough steps to be judged by 3 references" in str(found)


def test_where_a_reference_is_not_finite_there_is_no_verdict(
    references: list[Path], tmp_path: Path
) -> None:
    def lose(step: int, found: dict[str, float]) -> None:
        found.update(dict.fromkeys(found.keys() - {"lr"}, math.nan) if step >= 5 else {})

    lost = record(tmp_path / "lost.h5", lose, steps=STEPS)
    with pytest.raises(RecordingError, match="cannot be judged"):
        flexrec.diff(references[0], references[2], noise=[references[1], lost])
    loss = record(
        tmp_path / "loss.h5",
        both(noisy(8), lambda _, found: found.update(train_loss=math.nan)),
        steps=STEPS,
    )
    found = flexrec.diff(references[0], references[2], noise=[references[1], loss])
    assert found.equal
    assert "differ, but cannot be judged by a spread: train_loss" in str(found)


@pytest.mark.parametrize("more", [{}, {"other": 1.0}])
@pytest.mark.parametrize("is_same", [True, False])
def test_a_reference_with_nothing_in_common_gives_no_verdict(
    references: list[Path], tmp_path: Path, more: dict[str, float], is_same: bool
) -> None:
    with Recorder(tmp_path / "other.h5", facts=False) as rec:
        for _ in range(STEPS if more else 0):
            rec.add(more)
            rec.step()
    b = record(tmp_path / "b.h5", noisy(0 if is_same else 9), steps=STEPS)
    with pytest.raises(RecordingError, match="cannot be judged"):
        flexrec.diff(references[0], b, noise=[tmp_path / "other.h5"])


def test_means_are_as_large_as_their_tensors(tmp_path: Path) -> None:
    """A mean that is 0 but for rounding is not beyond by other rounding."""

    def run(name: str, seed: int) -> Path:
        chance = np.random.default_rng(seed)
        with Recorder(tmp_path / name, facts=False) as rec:
            for _ in range(30):
                for layer in LAYERS:
                    mean = 1e-9 * seed + 1e-12 * chance.normal()
                    rec.add({f"{layer}/outputs/mean": mean, f"{layer}/outputs/std": 1.0})
                rec.step()
        return tmp_path / name

    runs = [run(f"{seed}.h5", seed) for seed in (1, 2, 50)]
    assert flexrec.diff(runs[0], runs[2], noise=[runs[1]]).equal


def test_keys_of_other_steps_are_judged_by_their_own_rows(tmp_path: Path) -> None:
    """One evaluation that is beyond is one row, however many steps there are to the next."""

    def run(name: str, seed: int, beyond: int) -> Path:
        chance = np.random.default_rng(seed)
        with Recorder(tmp_path / name, facts=False) as rec:
            for step in range(400):
                rec.add({"0/outputs/std": 1 + 1e-3 * chance.normal()})
                if step % 20 == 0:
                    far = step >= 100 and step < 100 + 20 * beyond
                    rec.add({f"val_{i}": far + 1e-3 * chance.normal() for i in range(3)})
                rec.step()
        return tmp_path / name

    a, other = (run(f"{seed}.h5", seed, 0) for seed in (1, 2))
    assert flexrec.diff(a, run("short.h5", 3, 9), noise=[other]).equal
    found = flexrec.diff(a, run("long.h5", 4, 12), noise=[other])
    assert found.noise is not None
    assert (found.noise.since, found.noise.seen) == (100, 280)


def test_renamed_layers(references: list[Path], tmp_path: Path) -> None:
    def rename(_: int, found: dict[str, float]) -> None:
        for source in SOURCES:
            found[f"new/{source}/mean"] = found.pop(f"middle/{source}/mean")

    b = record(tmp_path / "b.h5", both(noisy(9), rename), steps=STEPS)
    found = flexrec.diff(references[0], b, noise=references[1:], rename={"middle": "new"})
    assert found.equal


def test_texts_arrays_and_counts_are_not_judged(tmp_path: Path) -> None:
    def run(name: str, seed: int, dead: float = 0.0) -> Path:
        chance = np.random.default_rng(seed)
        with Recorder(tmp_path / name, facts=False) as rec:
            for step in range(20):
                rec.add({f"{i}/outputs/mean": chance.normal() for i in range(3)})
                rec.add({f"{i}/outputs/dead": dead for i in range(3)})
                rec.add(text=str(seed), array=chance.normal(size=3), step_time=step * seed)
                rec.step()
        return tmp_path / name

    a, other, b = run("a.h5", 1), run("other.h5", 2), run("b.h5", 3, 0.5)
    found = flexrec.diff(a, b, noise=[other])
    assert found.equal
    assert found.noise is not None
    assert found.noise.keys == 3
    assert "differ, but cannot be judged by a spread: 0/outputs/dead, 1/outputs/dead" in str(found)
