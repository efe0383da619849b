"""Keys compared by their stored bytes first: the same is found as by reading all."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import flexrec
from flexrec.recorder import Recorder
from flexrec.recorder.hdf5.chunks import inflated
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.diff.stored import StoredPair
from support.diff_cases import bent, record

ROWS = 16  # at a time


def both_ways(a: Path, b: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDiff]:
    """What is found by the stored bytes, and by reading all."""
    monkeypatch.setattr("flexrec.replay.diff.stored.ROWS", ROWS)
    found = [flexrec.diff(a, b)]
    with monkeypatch.context() as patch:
        patch.setattr(StoredPair, "of", lambda *_: None)
        found.append(flexrec.diff(a, b))
    return found


CASES: dict[str, Callable[[Path], object]] = {
    "equal": lambda path: record(path, steps=100),
    "the last step": lambda path: record(path, bent(99, ("last/weights/mean",)), steps=100),
    "the first step": lambda path: record(path, bent(0, ("last/outputs/mean",)), steps=100),
    "amid": lambda path: record(path, bent(40, ("first/inputs/mean", "lr")), steps=100),
    "shorter": lambda path: record(path, steps=60),
    "more seldom": lambda path: record(path, steps=100, every=7),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_is_found(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = record(tmp_path / "a.h5", steps=100), tmp_path / "b.h5"
    CASES[case](b)
    quick, plain = both_ways(a, b, monkeypatch)
    assert quick == plain


@pytest.mark.parametrize("seed", range(8))
def test_the_same_is_found_at_random(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that come twice, fall, or are missing; keys that change what they are."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    plan = [(chance.randrange(1, 9), chance.random()) for _ in range(150)]
    for name, limit in (("a.h5", 1.0), ("b.h5", 0.97)):
        with Recorder(tmp_path / name, facts=False) as rec:
            for i, (step, drawn) in enumerate(plan):
                rec.step(step if seed % 2 else i)
                value = drawn if drawn < limit else -drawn
                rec.add({"0/inputs/mean": value, "0/outputs/mean": drawn})
                if drawn < 0.5:
                    rec.add({"1/inputs/mean": value, "0/inputs/mean": 0.0})
    quick, plain = both_ways(tmp_path / "a.h5", tmp_path / "b.h5", monkeypatch)
    assert quick == plain


def test_a_recording_that_is_not_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = record(tmp_path / "a.h5", steps=50)
    with Recorder(tmp_path / "b.h5", facts=False) as rec:
        rec.add({"first/inputs/mean": 0.5})
        rec.flush()
        quick, plain = both_ways(a, tmp_path / "b.h5", monkeypatch)
    assert quick == plain
    assert quick.first is not None


def test_what_is_stored_alike_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = record(tmp_path / "a.h5", steps=100)
    b = record(tmp_path / "b.h5", bent(99, ("last/weights/mean",)), steps=100)
    count = 0

    def counting(data: bytes, whole: int) -> bytes | None:
        nonlocal count
        count += 1
        return inflated(data, whole)

    monkeypatch.setattr("flexrec.recorder.hdf5.dataset.inflated", counting)
    found = flexrec.diff(a, b, keys=["*/*/mean"])
    assert found.keys.compared == 18
    assert found.keys.differ == ("last/weights/mean",)
    assert count < 18
