"""Goldens of runs: what is caught, what is let pass, and what becomes of the files."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.errors import DefinitionError, GoldenError, RecordingError
from flexrec.recorder.files.names import ON_ACCELERATOR
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.golden.files import obtained_path
from flexrec.replay.golden.run import reading
from flexrec.replay.golden.run.check import check_run, learn_golden
from support.diff_cases import bent, record
from support.run_cases import CHANGES, STEPS, opened, run_of, step_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of value."""
    return run_of(tmp_path_factory.mktemp("run") / "run.h5")


@pytest.fixture(params=[1, 5], ids=["all values kept", "some values kept"])
def golden(request: pytest.FixtureRequest, run: Path, tmp_path: Path) -> Path:
    """A golden of it."""
    path = tmp_path / "g.json"
    assert check_run(opened(run), path, every=request.param, update=True).written
    return path


def diff_of(run: Path, golden: Path, **options: Any) -> RunDiff:
    """How a run differs from a golden that there is."""
    found = check_run(opened(run), golden, **options).diff
    assert found is not None
    return found


def test_a_run_equals_its_golden(run: Path, golden: Path, tmp_path: Path) -> None:
    found = diff_of(run_of(tmp_path / "again.h5"), golden)
    assert found.equal, found
    assert found.keys.compared == 12  # all but the time
    assert str(found) == f"g.json and again.h5 are equal: 12 keys, {STEPS} steps"


@pytest.mark.parametrize("name", CHANGES)
def test_the_least_change_is_caught_and_named(name: str, golden: Path, tmp_path: Path) -> None:
    key, change = CHANGES[name]
    found = diff_of(run_of(tmp_path / "bent.h5", change), golden)
    assert found.keys.differ == (key,), found
    assert found.first is not None
    assert (found.first.step, found.first.key, found.first.previous_step) == (7, key, 6)


def test_keys_and_steps_that_only_one_has_are_told(run: Path, golden: Path, tmp_path: Path) -> None:
    short = diff_of(run_of(tmp_path / "short.h5", steps=STEPS - 1), golden)
    assert not short.equal
    assert f"g.json ends at step {STEPS - 1}, short.h5 at {STEPS - 2}" in str(short)
    more = diff_of(run_of(tmp_path / "more.h5", lambda _, v: v.update(more=1.0)), golden)
    assert more.keys.only_b == ("more",)
    less = diff_of(run_of(tmp_path / "less.h5", lambda _, v: v.pop("lr")), golden)
    assert less.keys.only_a == ("lr",)
    gap = diff_of(run_of(tmp_path / "gap.h5", lambda s, v: s == 4 and v.pop("lr")), golden)
    assert gap.first is not None
    assert (gap.first.step, gap.first.key) == (4, "lr")


def test_several_values_at_a_step(tmp_path: Path) -> None:
    def several(path: Path, *values: float) -> Path:
        with Recorder(path, mode="w", facts=False) as rec:
            for value in values:
                rec.add(val_loss=value)
        return path

    for count in (3, 40):
        values = [1 / (i + 3) for i in range(count)]
        golden = tmp_path / f"{count}.json"
        check_run(opened(several(tmp_path / "a.h5", *values)), golden, update=True)
        assert diff_of(several(tmp_path / "b.h5", *values), golden).equal
        for other in (values[:-1], [*values[:-1], math.nextafter(values[-1], 1)], values[::-1]):
            assert not diff_of(several(tmp_path / "b.h5", *other), golden).equal


def test_the_layer_is_named_as_diff_names_it(tmp_path: Path) -> None:
    golden = tmp_path / "g.json"
    check_run(opened(record(tmp_path / "a.h5")), golden, update=True)
    changed = ("middle/outputs/mean", "last/inputs/mean")
    found = diff_of(record(tmp_path / "b.h5", bent(5, changed)), golden)
    assert "first     step 5, forward, middle: outputs differ, its inputs are equal" in str(found)


def test_within_a_tolerance(run: Path, golden: Path, tmp_path: Path) -> None:
    def near(step: int, values: dict[str, Any]) -> None:
        values["train_loss"] *= 1 + 1e-7
        values["array"] *= np.float32(1 + 1e-6)
        values["large/fingerprint"] -= 1

    path = run_of(tmp_path / "near.h5", near)
    assert diff_of(path, golden, rtol=1e-5).equal
    found = diff_of(path, golden, rtol=1e-8)
    assert set(found.keys.differ) == {"train_loss", "array"}
    assert found.first is not None
    assert found.first.step == 0


def test_within_a_tolerance_shapes_types_and_texts_are_equal(run: Path, tmp_path: Path) -> None:
    golden = tmp_path / "g.json"
    check_run(opened(run), golden, every=1, update=True)
    for name in ("a shape", "a type", "a text", "a NaN that is a number"):
        key, change = CHANGES[name]
        assert diff_of(run_of(tmp_path / "b.h5", change), golden, atol=9).keys.differ == (key,)


def test_with_a_tolerance_steps_in_between_are_not_looked_at(run: Path, tmp_path: Path) -> None:
    golden = tmp_path / "g.json"
    check_run(opened(run), golden, every=5, update=True)
    path = run_of(tmp_path / "b.h5", lambda s, v: s >= 7 and v.update(train_loss=9.0))
    found = diff_of(path, golden, rtol=0.1)
    assert "first     between step 5 (equal) and 10, loss" in str(found)
    found = diff_of(path, golden)
    assert "first     step 7, loss" in str(found)
    assert "train_loss not kept -> 9" in str(found)
    assert "every=1 keeps all" in str(found)


def test_keys_are_chosen_and_times_only_if_they_are_named(run: Path, tmp_path: Path) -> None:
    golden = tmp_path / "g.json"
    check_run(opened(run), golden, keys=["*loss", "step_time"], update=True)
    assert '"keys": [\n"train_loss",\n"step_time"\n]' in golden.read_text()
    assert diff_of(run, golden, keys=["*loss", "step_time"]).equal
    with pytest.raises(RecordingError, match=r"no key that fits 'zz'; there are train_loss"):
        check_run(opened(run), golden, keys=["zz"])


def test_a_pattern_alone_is_one_pattern(run: Path, tmp_path: Path) -> None:
    with Recording(run) as recording:
        kept = check_run(recording, tmp_path / "g.json", keys="*loss", update=True).keys
    assert kept == 1


@pytest.mark.parametrize("every", [0, -1, True])
def test_every_is_a_number_of_steps(run: Path, tmp_path: Path, every: int) -> None:
    with Recording(run) as recording:
        with pytest.raises(DefinitionError, match="every must be a number of steps, 1 or more"):
            check_run(recording, tmp_path / "g.json", every=every, update=True)
        with pytest.raises(DefinitionError, match="every must be a number of steps, 1 or more"):
            learn_golden([recording], tmp_path / "g.json", every=every)
    assert not (tmp_path / "g.json").exists()


def test_config_and_facts_explain_and_do_not_count(tmp_path: Path) -> None:
    golden = tmp_path / "g.json"
    run = run_of(tmp_path / "a.h5", config={"lr": 0.1}, facts=True)
    check_run(opened(run), golden, update=True)
    text = golden.read_text()
    assert '"python": ' in text
    assert not re.search(r'"platform": "\w+-\d', text)  # no kernel's version
    assert '"host"' not in text
    assert '"user"' not in text
    golden.write_text(text.replace('"numpy": "', '"numpy": "0.'))
    same = diff_of(run_of(tmp_path / "b.h5", config={"lr": 0.2}, facts=True), golden)
    assert same.equal
    assert [c.name for c in same.facts] == ["numpy"]
    assert [(c.name, c.a, c.b) for c in same.config] == [("lr", "0.1", "0.2")]


def test_the_life_of_a_golden(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "g.json"
    other = opened(run_of(tmp_path / "bent.h5", CHANGES["a text"][1]))
    with pytest.raises(GoldenError, match=r"there is no golden .*g\.json; update=True writes it"):
        check_run(opened(run), path)
    assert check_run(opened(run), path, update=True).holds
    first = path.read_bytes()
    outcome = check_run(other, path)
    assert (outcome.holds, outcome.kept) == (False, obtained_path(path))
    assert path.read_bytes() == first
    assert check_run(opened(run), path).holds
    assert not obtained_path(path).exists()
    check_run(other, path)
    assert check_run(other, path, update=True).written
    assert not obtained_path(path).exists()
    assert not check_run(other, path, update=True).written
    check_run(opened(run), path, update=True)
    assert path.read_bytes() == first


def test_an_update_leaves_what_is_equal_within_tolerance(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    check_run(opened(run), path, update=True)
    near = opened(run_of(tmp_path / "near.h5", CHANGES["a number, by a bit"][1]))
    assert not check_run(near, path, update=True, rtol=1e-9).written
    assert check_run(near, path, update=True).written


def test_files_of_other_kinds_are_left(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text('{"jsons": {}, "reload": {}}')
    for update in (False, True):
        with pytest.raises(GoldenError, match="is no golden of a run: name another, or remove it"):
            check_run(opened(run), path, update=update)
    path.unlink()
    check_run(opened(run), path, update=True)
    obtained_path(path).write_text("mine")
    other = opened(run_of(tmp_path / "bent.h5", CHANGES["a text"][1]))
    outcome = check_run(other, path)
    assert not outcome.holds
    assert "first     step 7" in str(outcome.diff)
    assert (outcome.kept, "is not a golden of a run" in outcome.unkept) == (None, True)
    assert obtained_path(path).read_text() == "mine"


def test_what_cannot_be_a_golden_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.json"
    for tolerance in (-1.0, math.nan, math.inf):
        with pytest.raises(DefinitionError, match="must be a number, 0 or more"):
            check_run(opened(run), path, rtol=tolerance, update=True)
    monkeypatch.setattr(reading, "MOST", 100)
    with pytest.raises(GoldenError, match="has 144 values, and a golden is made of 100 at most"):
        check_run(opened(run), path, update=True)
    assert not path.exists()
    with Recorder(tmp_path / "none.h5", facts=False) as rec:
        rec.add(step_time=1.0)
    with pytest.raises(RecordingError, match="has no values to keep"):
        check_run(opened(tmp_path / "none.h5"), path, update=True)


def test_a_learnt_golden_has_its_own_tolerances(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    runs = [opened(record(tmp_path / f"{i}.h5", bent(0, {"train_loss": i * 1e-3}))) for i in (0, 1)]
    learn_golden(runs, path)
    assert check_run(runs[0], path).holds
    with pytest.raises(DefinitionError, match="tolerances of its own, learnt from 2 runs"):
        check_run(runs[0], path, rtol=0.1)
    far = opened(record(tmp_path / "far.h5", bent(0, {"train_loss": 0.5, "lr": 1.0})))
    before = path.read_bytes()
    with pytest.raises(GoldenError, match="learn it again with this one among them, or remove it"):
        check_run(far, path, update=True)
    assert path.read_bytes() == before


def test_a_golden_is_not_learnt_from_one_run_twice(run: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.h5"
    link.symlink_to(run)
    for twice in (run, link):
        with pytest.raises(RecordingError, match="is given twice"):
            learn_golden([opened(run), opened(twice)], tmp_path / "g.json")


def test_the_trace_of_a_run_is_kept_as_a_code(tmp_path: Path) -> None:
    def traced(path: Path, at: int | None = None) -> Path:
        with Recorder(path, mode="w", facts=False) as rec:
            for step in range(STEPS):
                rec.add({"trace/order": "[]", "trace/attributes": "{}"})
                rec.add({"trace/values": np.arange(9) + (step == at), **step_of(step)})
                rec.step()
        return path

    path = tmp_path / "g.json"
    check_run(opened(traced(tmp_path / "a.h5")), path, update=True)
    assert "trace/order" not in path.read_text()
    assert diff_of(traced(tmp_path / "b.h5"), path).equal
    bent_run = traced(tmp_path / "c.h5", at=4)
    found = diff_of(bent_run, path)
    assert found.keys.differ == ("trace/fingerprint",)
    assert found.first is not None
    assert found.first.step == 4
    assert diff_of(bent_run, path, rtol=1e-9).equal


def fingerprinted(path: Path, mark: int, odd: int | None = None) -> Path:
    """A run with fingerprints of the CPU (0) or an accelerator, of which one may be another."""
    with Recorder(path, mode="w", facts=False) as rec:
        for step in range(12):
            traced = np.array([step, mark + step + (100 if step == odd else 0)])
            rec.add({"trace/values": traced, "0/outputs/fingerprint": int(traced[1])})
            rec.add({"batch/fingerprint": step, "lr": 0.1})
            for _ in range(10):  # more than are kept one by one
                rec.add({"part/fingerprint": mark + step})
            rec.step()
    return path


@pytest.mark.parametrize("every", [1, 5])
def test_fingerprints_of_a_cpu_and_an_accelerator_are_not_compared(
    every: int, tmp_path: Path
) -> None:
    golden = tmp_path / "g.json"
    kept = opened(fingerprinted(tmp_path / "a.h5", 0))
    check_run(kept, golden, every=every, update=True)
    found = diff_of(fingerprinted(tmp_path / "b.h5", ON_ACCELERATOR), golden)
    assert found.equal, found
    assert "one is of the CPU and the other of an accelerator" in found.notes[0]
    for key in ("trace/fingerprint", "0/outputs/fingerprint", "part/fingerprint"):
        assert key in found.notes[0]
    with Recorder(tmp_path / "c.h5", facts=False) as rec:
        rec.add(lr=0.2)
    assert not diff_of(tmp_path / "c.h5", golden).equal


@pytest.mark.parametrize("odd", [5, 7])
@pytest.mark.parametrize("mark", [0, ON_ACCELERATOR])
def test_fingerprints_of_one_kind_are_compared(mark: int, odd: int, tmp_path: Path) -> None:
    golden = tmp_path / "g.json"
    check_run(opened(fingerprinted(tmp_path / "a.h5", mark)), golden, every=5, update=True)
    assert diff_of(fingerprinted(tmp_path / "b.h5", mark), golden).equal
    found = diff_of(fingerprinted(tmp_path / "b.h5", mark, odd), golden)
    assert {*found.keys.differ} == {"trace/fingerprint", "0/outputs/fingerprint"}
    assert found.first is not None
    assert found.first.step == odd
