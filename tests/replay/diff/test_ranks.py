"""Ranks of a run: keys on which all agree at first, and from some step on do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.recorder.files.names import ON_ACCELERATOR
from flexrec.replay.diff.columns import Tolerance
from flexrec.replay.diff.ranks import diff_ranks
from flexrec.replay.diff.result import RanksDiff


def ranks(tmp_path: Path, count: int, odd: int, at: int, *, shared: bool = True) -> RanksDiff:
    """Ranks whose weights agree, but for one from a step on; each has a loss of its own."""
    for rank in range(count):
        with Recorder(tmp_path / f"run-{rank}.h5", mode="w", facts=False) as rec:
            for step in range(10):
                off = 1e-7 if rank == odd and step >= at else 0.0
                accuracy = 0.0 if step < 3 else rank / 10
                loss = {"train_loss": step + 0.1 * rank, "accuracy": accuracy}
                equal = {"0/weights/mean": step + off, "rate": step} if shared else {}
                rec.add({**loss, **equal, "seconds": rank})
                rec.step()
    runs = [Recording(tmp_path / f"run-{rank}.h5") for rank in range(count)]
    found = diff_ranks(runs)
    for run in runs:
        run.close()
    return found


def test_the_rank_that_parts_is_named(tmp_path: Path) -> None:
    found = ranks(tmp_path, 3, odd=1, at=4)
    assert not found.equal
    (split,) = found.split
    assert (split.key, split.since, split.step) == ("0/weights/mean", 3, 4)
    assert split.ranks == ("run-1.h5",)
    assert "0/weights/mean agrees up to step 3, from step 4 on not on run-1.h5" in str(found)


def test_of_two_ranks_the_second_is_said(tmp_path: Path) -> None:
    (split,) = ranks(tmp_path, 2, odd=0, at=1).split
    assert split.ranks == ("run-1.h5",)


def test_ranks_that_agree(tmp_path: Path) -> None:
    found = ranks(tmp_path, 3, odd=1, at=99)
    assert found.equal
    assert (found.agreeing, found.differing) == (2, 2)  # each rank has its own loss and accuracy
    assert str(found) == "3 ranks agree: 2 keys to the bit, 2 keys never did"


def own_models(
    tmp_path: Path, *, norm: float, facts: bool = False, layers: tuple[str, ...] = ("0", "2")
) -> RanksDiff:
    """Two ranks whose weights differ from the first step on, but for a norm's, perhaps."""
    for rank in range(2):
        with Recorder(tmp_path / f"run-{rank}.h5", mode="w", facts=facts) as rec:
            for step in range(5):
                own = {f"{layer}/weights/mean": step + rank for layer in layers}
                rec.add({**own, "1/weights/mean": step + norm * rank, "rate": step})
                rec.step()
    with Recording(tmp_path / "run-0.h5") as a, Recording(tmp_path / "run-1.h5") as b:
        return diff_ranks([a, b])


def test_weights_that_never_agree_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = own_models(tmp_path, norm=1.0)
    assert [(each.since, each.step) for each in found.split] == [(None, 0)] * 3
    assert "0/weights/mean never agrees: from step 0 on not on run-1.h5" in str(found)
    shard = {"at": [0], "of": [2], "weights": 8, "trainable": True}
    layers = {layer: {"shard": shard} for layer in "012"}
    facts: dict[str, Any] = {"models": {"net": layers}}
    monkeypatch.setattr("flexrec.recorder.recorder.gather_facts", lambda **_: facts)
    assert own_models(tmp_path, norm=1.0, facts=True).equal
    assert own_models(tmp_path, norm=0.0).equal  # as where layers are split by hand, and norms not


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    for name, key in (("a.h5", "x"), ("b.h5", "y")):
        with Recorder(tmp_path / name, facts=False) as rec:
            rec.add({key: 1.0})
    with Recording(tmp_path / "a.h5") as a, Recording(tmp_path / "b.h5") as b:
        with pytest.raises(RecordingError, match="ranks are two recordings or more, got 1"):
            diff_ranks([a])
        with pytest.raises(RecordingError, match="2 recordings do not all have a key of numbers"):
            diff_ranks([a, b])
        with pytest.raises(RecordingError, match="do not all have a key that fits nope"):
            diff_ranks([a, b], patterns=["nope"])


def test_a_layer_whose_weights_alone_never_agree_is_told(tmp_path: Path) -> None:
    """It may be one that each rank has of its own, so it is no difference."""
    found = own_models(tmp_path, norm=0.0, layers=("0",))
    assert (found.equal, found.apart) == (True, ("0",))
    assert "note      weights of 0 never agree, others do" in str(found)


def test_ranks_without_a_value_in_common_are_not_said_to_agree(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no key of numbers agrees at any step"):
        ranks(tmp_path, 2, odd=1, at=0, shared=False)


def test_within_a_tolerance_is_not_to_the_bit(tmp_path: Path) -> None:
    ranks(tmp_path, 2, odd=1, at=4)
    with Recording(tmp_path / "run-0.h5") as a, Recording(tmp_path / "run-1.h5") as b:
        found = diff_ranks([a, b], patterns=["0/*"], tolerance=Tolerance(atol=1e-3))
    assert str(found) == "2 ranks agree: 1 key within the tolerance"


def test_the_traces_of_ranks_are_compared(tmp_path: Path) -> None:
    """A bias has no statistics, but a fingerprint in a trace."""
    for rank in range(3):
        with Recorder(tmp_path / f"run-{rank}.h5", facts=False) as rec:
            order = [["inputs", "0", "", 0, "", 0], ["new_weights", "0", "bias", 0, "", -1]]
            rec.add({"trace/order": json.dumps(order)})
            for step in range(6):
                values = [100 * rank + step, 7 + (rank == 2 and step >= 4)]
                rec.add({"trace/values": np.array(values, np.int64)})
                rec.step()
    runs = [Recording(tmp_path / f"run-{rank}.h5") for rank in range(3)]
    (split,) = diff_ranks(runs).split
    assert (split.key, split.since, split.step) == ("new_weights of 0.bias", 3, 4)
    assert split.ranks == ("run-2.h5",)
    with pytest.raises(RecordingError, match="do not all have a key of numbers"):
        diff_ranks(runs, tolerance=Tolerance(1e-6))


def fingerprinted(tmp_path: Path, *marks: int, odd: int | None = None) -> RanksDiff:
    """Ranks whose fingerprints are of the CPU (0) or an accelerator; one differs from step 4 on."""
    for rank, mark in enumerate(marks):
        with Recorder(tmp_path / f"run-{rank}.h5", mode="w", facts=False) as rec:
            rec.add({"trace/order": json.dumps([["new_weights", "0", "bias", 0, "", -1]])})
            for step in range(6):
                found = mark + 7 + step + (100 if rank == odd and step >= 4 else 0)
                rec.add({"trace/values": np.array([found]), "0/weights/fingerprint": found})
                rec.add({"rate": step})
                rec.step()
    runs = [Recording(tmp_path / f"run-{rank}.h5") for rank in range(len(marks))]
    return diff_ranks(runs)


def test_fingerprints_of_a_cpu_and_an_accelerator_are_not_compared(tmp_path: Path) -> None:
    found = fingerprinted(tmp_path, 0, ON_ACCELERATOR)
    assert (found.equal, found.agreeing, found.differing) == (True, 1, 0)
    assert found.unlike == ("0/weights/fingerprint", "new_weights of 0.bias")
    assert "not compared, as some are of the CPU and others of an accelerator" in str(found)
    assert "0/weights/fingerprint" in found._repr_html_()


def test_fingerprints_of_accelerators_are_compared(tmp_path: Path) -> None:
    found = fingerprinted(tmp_path, ON_ACCELERATOR, ON_ACCELERATOR, odd=1)
    assert [(each.key, each.step) for each in found.split] == [
        ("0/weights/fingerprint", 4),
        ("new_weights of 0.bias", 4),
    ]
    assert not found.unlike


def test_within_a_tolerance_no_fingerprints_are_compared(tmp_path: Path) -> None:
    fingerprinted(tmp_path, 0, 0, odd=1)
    with Recording(tmp_path / "run-0.h5") as a, Recording(tmp_path / "run-1.h5") as b:
        assert str(diff_ranks([a, b], tolerance=Tolerance(atol=1e-3))) == (
            "2 ranks agree: 1 key within the tolerance"
        )
