"""The audit of a recording that was resumed: what was recorded twice, compared."""

from pathlib import Path

import pytest

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.replay.diff.columns import Tolerance
from flexrec.replay.diff.result import RunAudit
from flexrec.replay.diff.resumes import audit, audited_in_a_line
from support.diff_cases import LAYERS, Bend, bent, values

WEIGHTS = tuple(f"{layer}/weights/mean" for layer in LAYERS)


def go_on(path: Path, first: int, last: int, bend: Bend | None = None) -> None:
    """Record steps `first` to `last`, which is not one of them, resuming where there are some."""
    with Recorder(path, mode="resume", next_step=first, facts=False) as rec:
        for step in range(first, last):
            found = values(step)
            if bend is not None:
                bend(step, found)
            rec.add(found)
            rec.step()


def audited(path: Path) -> RunAudit:
    """The audit of a recording."""
    with Recording(path) as run:
        return audit(run)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run of 10 steps."""
    go_on(tmp_path / "run.h5", 0, 10)
    return tmp_path / "run.h5"


def test_a_resume_that_repeats_the_same_steps(path: Path) -> None:
    go_on(path, 6, 20)
    found = audited(path)
    assert found.equal
    assert [(each.step, each.repeated) for each in found.resumes] == [(6, 4)]
    assert str(found) == "run.h5, resumed at step 6: 4 steps repeated: equal to the bit"


def test_an_optimizer_that_was_not_restored(path: Path) -> None:
    go_on(path, 6, 12, bent(6, WEIGHTS))
    found = audited(path)
    assert not found.equal
    assert str(found).startswith(
        "run.h5, resumed at step 6: 4 steps repeated: from step 6 on weights differ, though "
        "gradients agree: the optimizer was not restored as it was\n"
    )
    (only,) = found.resumes
    assert only.diff.first is not None
    assert only.diff.first.stage == "optimizer"


def test_each_resume_is_compared_with_what_it_took_back(path: Path) -> None:
    """And not with what is there in the end."""
    go_on(path, 6, 12, bent(8, ("lr",)))
    go_on(path, 4, 9, bent(8, ("lr",)))  # the same as the second time
    go_on(path, 7, 9)
    found = audited(path).resumes
    assert [(each.step, each.repeated, each.diff.equal) for each in found] == [
        (6, 4, False),
        (4, 5, True),
        (7, 2, False),
    ]
    assert [each.diff.first and each.diff.first.step for each in found] == [8, None, 8]


def test_resumes_that_repeat_nothing(path: Path) -> None:
    assert not audited(path).resumes
    go_on(path, 10, 12)
    assert audited(path).equal
    assert str(audited(path)).endswith("repeats no steps: no resume took back what was recorded")


def test_steps_that_were_taken_back_and_not_recorded_again(path: Path) -> None:
    go_on(path, 6, 6)
    (only,) = audited(path).resumes
    assert (only.repeated, only.diff.equal) == (0, True)
    assert str(audited(path)).endswith("no step was recorded twice")


def test_a_step_that_a_kill_cut_off_is_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    go_on(path, 0, 5)
    with Recorder(path, mode="resume", facts=False) as rec:
        rec.add({key: value for key, value in values(5).items() if key.startswith("first")})
    go_on(path, 3, 8)
    found = audited(path)
    assert found.equal
    assert found.resumes[0].repeated == 3


def test_load_state_dict_is_one_resume_with_the_mode(path: Path) -> None:
    with Recorder(path, mode="resume", next_step=8, facts=False) as rec:
        rec.add(values(8))
        rec.step()
        state = rec.state_dict()
        rec.add(values(9))
        rec.step()
    with Recorder(path, mode="resume", facts=False) as rec:
        rec.load_state_dict(state)
        rec.add(values(9))
        rec.step()
    assert [(each.step, each.repeated) for each in audited(path).resumes] == [(8, 2), (9, 1)]
    assert audited(path).equal


def test_a_run_that_is_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    go_on(path, 0, 10)
    with Recorder(path, mode="resume", next_step=5, facts=False) as rec:
        for step in range(5, 8):
            rec.add(values(step) if step < 7 else {**values(step), "train_loss": 7.0})
            rec.step()
        rec.flush()
        (only,) = audited(path).resumes
    assert only.repeated == 3
    assert only.diff.first is not None
    assert (only.diff.first.step, only.diff.first.key) == (7, "train_loss")


def test_in_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recording(path) as run:
        assert audited_in_a_line(run) is None
    go_on(path, 6, 12)
    with Recording(path) as run:
        assert audited_in_a_line(run) == "resumed at step 6: 4 steps repeated: equal to the bit"
        monkeypatch.setattr("flexrec.replay.diff.resumes._SMALL", 1)
        assert audited_in_a_line(run) is None


def test_within_a_tolerance_is_not_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        for step in range(4):
            rec.add(x=step + 1e-6)
            rec.step()
    with Recorder(path, mode="resume", next_step=2, facts=False) as rec:
        rec.add(x=2.0)
        rec.step()
    with Recording(path) as run:
        assert not audit(run).equal
        found = audit(run, tolerance=Tolerance(atol=1e-3))
    assert str(found) == "run.h5, resumed at step 2: 1 step repeated: equal within the tolerance"


@pytest.mark.parametrize("first", [6, 10])
def test_a_pattern_that_fits_no_key_is_an_error(path: Path, first: int) -> None:
    """Whether or not a resume repeated steps."""
    go_on(path, first, 12)
    with (
        Recording(path) as run,
        pytest.raises(RecordingError, match=r"run\.h5 has no key that fits 'zz'; there are "),
    ):
        audit(run, patterns=["zz"])


def test_a_notebook_shows_it(path: Path) -> None:
    found = audited(path)
    assert found._repr_html_() == f"<pre>{found}</pre>"
