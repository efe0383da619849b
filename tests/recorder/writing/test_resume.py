"""Resuming: what holds, what is superseded, and that readers, replay and followers agree."""

import itertools
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexrec.recorder import InputError, Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.events import Add, Event, Log, Reset
from flexrec.recorder.storage.follow import Follower, Superseded
from flexrec.recorder.writing import flusher
from flexrec.replay.definitions.definitions import define
from flexrec.replay.player.player import play
from flexrec.replay.plots.window import equal
from support.crashing import crash
from support.event_cases import same_event
from support.moments import at_moment
from support.recorders import recorder


def read(path: Path) -> list[Event]:
    with Recording(path) as run:
        return list(run.events())


def steps(path: Path, key: str = "a") -> list[int]:
    with Recording(path) as run:
        found: list[int] = run[key].step.tolist()
        return found


def record_steps(rec: Recorder, n: int) -> None:
    for _ in range(n):
        rec.add(a=rec.current_step)
        rec.step()


@pytest.mark.parametrize("end", [crash, Recorder.close], ids=["kill", "close"])
@pytest.mark.parametrize("twice", [False, True])
def test_what_came_after_the_step_is_superseded(path: Path, end: Any, twice: bool) -> None:
    rec = recorder(path, config={"lr": 1})
    record_steps(rec, 10)
    rec.add(late=1.0, name="é", pair=(np.ones((2, 3), "f4"), 1))
    end(rec)
    for again in range(2 if twice else 1):
        rec = recorder(path, mode="resume", at_step=5)
        assert rec.current_step == 6
        record_steps(rec, 3)
        rec.flush()
        assert steps(path) == [0, 1, 2, 3, 4, 5, 6, 7, 8], "live"
        end(rec)
        with Recording(path) as run:
            assert run["a"].value.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
            assert run["a"].step.tolist() == run.columns.index("a").step.tolist()
            assert [row.step for row in run.rows("a")] == run["a"].step.tolist()
            assert (np.diff(run["a"].position) > 0).all()
            assert run.superseded == 5 + 3 * again
            assert run.event_count == 9
            assert run.resumes == again + 1
            assert run.config == {"lr": 1}
            assert "superseded" in run.state
            assert run.keys()[0] == "a"
            assert len(run["late"]) == 0, "superseded, but known"


def test_at_no_step_everything_holds(path: Path) -> None:
    for i in range(3):
        with recorder(path, mode="resume") as rec:
            assert rec.current_step == 4 * i
            record_steps(rec, 4)
    assert steps(path) == list(range(12))
    with Recording(path) as run:
        assert (run.superseded, run.resumes) == (0, 2)


def test_a_mode_and_a_state_resume_once(path: Path) -> None:
    with recorder(path) as rec:
        record_steps(rec, 4)
        state = rec.state_dict()
        record_steps(rec, 2)
    rec = recorder(path, mode="resume")
    rec.load_state_dict(state)
    record_steps(rec, 1)
    rec.flush()
    with Recording(path) as run:
        assert run.resumes == 1, "live"
    rec.close()
    with Recording(path) as run:
        assert run.resumes == 1, "closed"
    assert steps(path) == [0, 1, 2, 3, 4]


def test_superseded_values_stay_in_the_file(path: Path) -> None:
    rec = recorder(path)
    record_steps(rec, 3)
    rec.add(text="kept", array=np.arange(6).reshape(2, 3))
    rec.close()
    for at_step in (0, 0):
        with recorder(path, mode="resume", at_step=at_step):
            pass
    with h5py.File(path) as file:
        assert file["series/a/value"][:].tolist() == [0]
        assert file["superseded/a/value"][:].tolist() == [1, 2]
        assert bytes(file["superseded/text/value/data"][:]) == b"kept"
        assert file["superseded/array/value/shape"][:].tolist() == [[2, 3]]
        assert file["superseded/a/step"][:].tolist() == [1, 2]


def test_a_log_after_the_last_step_belongs_to_it(path: Path) -> None:
    with recorder(path) as rec:
        for epoch in range(3):
            record_steps(rec, 4)
            rec.log(epoch)
    with recorder(path, mode="resume", at_step=7) as rec:
        record_steps(rec, 4)
        rec.log(2)
    with Recording(path) as run:
        assert run.marks.x.tolist() == [0, 1, 2]
        assert run["a"].step.tolist() == list(range(12))


def test_a_checkpoint_carries_the_place(path: Path) -> None:
    rec = recorder(path)
    record_steps(rec, 4)
    rec.add(a=-1, b=-1)
    state = rec.state_dict()
    assert steps(path) == [0, 1, 2, 3, 4], "flushed"
    rec.add(a=-2)
    record_steps(rec, 2)
    crash(rec)
    rec = recorder(path, mode="resume")
    rec.load_state_dict(state)
    assert rec.current_step == 4
    rec.add(c=-3)
    rec.load_state_dict(state)  # in the same run: back again
    rec.add(c=-4)
    rec.close()
    with Recording(path) as run:
        assert run["a"].value.tolist() == [0, 1, 2, 3, -1]
        assert run["a"].step.tolist() == [0, 1, 2, 3, 4]
        assert run["c"].value.tolist() == [-4]


def test_an_older_checkpoint_brings_back_what_was_superseded_since(path: Path) -> None:
    rec = recorder(path)
    record_steps(rec, 8)
    state = rec.state_dict()
    record_steps(rec, 2)
    rec.close()
    with recorder(path, mode="resume", at_step=4) as rec:
        record_steps(rec, 1)
    assert steps(path) == [0, 1, 2, 3, 4, 5]
    with Follower(path) as follower, recorder(path, mode="resume") as rec:
        seen = applied([], follower)
        rec.load_state_dict(state)
        record_steps(rec, 1)
    assert steps(path) == list(range(9))
    with Follower(path) as follower:
        seen = applied([], follower)
    assert [event.step for event in seen] == list(range(9))


def test_a_state_from_before_the_first_event_of_a_resume_keeps_its_place(path: Path) -> None:
    rec = recorder(path)
    record_steps(rec, 8)
    rec.close()
    with recorder(path, mode="resume", at_step=4) as rec:
        state = rec.state_dict()
        rec.load_state_dict(state)  # no warning: nothing is missing
        record_steps(rec, 1)
    assert steps(path) == [0, 1, 2, 3, 4, 5]


def test_what_is_no_state_is_refused(path: Path) -> None:
    with recorder(path) as rec:
        record_steps(rec, 3)
        state = rec.state_dict()
        for bad in (
            {},
            {**state, "step": 0.5},
            {**state, "created": "x"},
            {**state, "waiting": 1j},
        ):
            with pytest.raises(InputError, match="not the state of a recorder"):
                rec.load_state_dict(bad)
    assert steps(path) == [0, 1, 2]


def test_the_facts_of_each_run_are_kept(path: Path) -> None:
    Recorder(path).close()
    Recorder(path, mode="resume", config=[1]).close()
    Recorder(path, mode="resume").close()
    with Recording(path) as run:
        assert run.facts is not None
        assert [fact["pid"] for fact in run.facts["resumed"]] == [os.getpid()] * 2
        assert run.config == [1]


@pytest.mark.parametrize("resumed", [5, None, True, "ab", {"a": 1}])
def test_foreign_facts_are_no_obstacle(resumed: object, tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec._queue.change("facts", json.dumps({"resumed": resumed}))
    Recorder(tmp_path / "run.h5", mode="resume").close()
    with Recording(tmp_path / "run.h5") as run:
        assert run.facts is not None
        assert [fact["pid"] for fact in run.facts["resumed"]] == [os.getpid()]


def test_what_cannot_be_resumed_is_told_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a recording")
    with pytest.raises(RecordingError, match="not an HDF5 file"):
        recorder(path, mode="resume")
    assert path.read_bytes() == b"not a recording"
    assert os.listdir(path.parent) == [path.name], "no litter, no lock"
    with pytest.raises(ValueError, match="at_step=3 needs mode='resume'"):
        recorder(path, at_step=3)


def test_resume_after_a_real_kill_while_a_reader_follows(path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from flexrec.recorder import Recorder\n"
        "rec = Recorder(sys.argv[1], mode='resume', facts=False, flush_seconds=60)\n"
        "for i in range(50):\n"
        "    rec.add(a=rec.current_step, text=str(i)); rec.step()\n"
        "rec.flush()\n"
        "rec.add(a=-1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    seen: list[Event] = []
    follower = None
    for run in range(3):
        done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        assert done.returncode == -9
        follower = follower or Follower(path)
        seen = applied(seen, follower)
        assert [event.step for event in seen] == list(range(50 * (run + 1)))
    recorder(path, mode="resume").close()
    assert follower is not None
    assert all(map(same_event, applied(seen, follower), read(path)))
    assert follower.ended
    follower.close()
    assert os.listdir(path.parent) == [path.name], "no litter, no lock"


def applied(seen: list[Event], follower: Follower) -> list[Event]:
    """What was seen, with what a poll gives."""
    for event in follower.poll():
        if isinstance(event, Superseded):
            assert 0 < event.count <= len(seen)
            del seen[-event.count :]
        else:
            seen.append(event)
    return seen


value = st.floats(-9, 9) | st.text(max_size=3) | st.tuples(st.floats(-9, 9), st.just("x"))
added = st.dictionaries(st.sampled_from("abc"), value, min_size=1, max_size=3)
call = st.one_of(added, st.sampled_from(["step", "log", "reset", "flush", "look", "save", "load"]))
session = st.tuples(
    st.none() | st.integers(-1, 12), st.lists(call, max_size=12), st.sampled_from(["kill", "close"])
)
LINES = define(
    {"p": {"type": "line"}}, {k: {"type": "LastValueMeter", "target": "p"} for k in "abc"}
)


class Model:
    """What must be read: every event with the step it has, cut back at each resume."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.step = 0

    def resume(self, at_step: int | None) -> None:
        adds = [e.step for e in self.events if isinstance(e, Add)]
        if at_step is None:
            marks = self.events[-1].step if self.events else 0
            self.step = max(adds[-1] + 1 if adds else 0, marks)
            return
        kept = [i for i, e in enumerate(self.events) if e.step <= at_step]
        last = kept[-1] if kept else -1
        late = [
            i
            for i, e in enumerate(self.events)
            if i > last and (isinstance(e, Add) or e.step > at_step + 1)
        ]
        if late:
            del self.events[late[0] :]
        self.step = at_step + 1


@pytest.mark.filterwarnings("ignore:.* training continues with step")
@pytest.mark.filterwarnings("ignore:.* step numbers go down in this recording")
@pytest.mark.filterwarnings("ignore:.* was made in the middle of step")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sessions=st.lists(session, min_size=1, max_size=4), number=st.booleans())
def test_any_history_reads_as_if_nothing_had_been_superseded(
    sessions: list[Any], number: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.h5"
    model, follower, saved = Model(), None, None
    seen: list[Event] = []
    for at_step, calls, end in sessions:
        existed = path.exists()
        if not existed:
            at_step = None  # nothing to go back to
        rec = recorder(path, mode="resume", at_step=at_step)
        if existed:
            model.resume(at_step)
        assert rec.current_step == model.step
        follower = follower or Follower(path)
        for action in calls:
            if isinstance(action, dict):
                if number:
                    action = dict.fromkeys(action, 1.5)
                event: Event = Add(action, model.step, 1.0)
                rec.record(event)
                model.events.append(event)
            elif action in ("log", "reset"):
                log = Log(float(len(model.events)), None, True, model.step, 1.0)
                event = log if action == "log" else Reset(("a",), model.step, 1.0)
                rec.record(event)
                model.events.append(event)
            elif action == "step":
                rec.step()
                model.step += 1
            elif action == "flush":
                rec.flush()
            elif action == "look":
                seen = applied(seen, follower)
            elif action == "save":
                saved = rec.state_dict(), list(model.events), model.step
            elif saved:
                rec.load_state_dict(saved[0])
                model.events, model.step = list(saved[1]), saved[2]
        rec.flush()
        assert_reads_as(path, model.events)
        crash(rec) if end == "kill" else rec.close()
        assert_reads_as(path, model.events)
        with Follower(path) as fresh:
            assert_same(applied([], fresh), model.events)
    if follower and not follower.ended:
        assert_same(applied(seen, follower), model.events)


def assert_same(found: list[Event], expected: list[Event]) -> None:
    assert len(found) == len(expected)
    assert all(map(same_event, found, expected))


def assert_reads_as(path: Path, expected: list[Event]) -> None:
    with Recording(path) as run:
        assert_same(list(run.events()), expected)
        assert run.event_count == len(expected)
        adds = [event for event in expected if isinstance(event, Add)]
        for key in run:
            values = [event.values[key] for event in adds if key in event.values]
            assert list(run[key].value) == values
            assert [row.value for row in run.rows(key)] == values
            assert len(run.columns.index(key).step) == len(values)
        there = list(dict.fromkeys(key for event in adds for key in event.values))
        assert run.keys()[: len(there)] == there
        assert run.marks.is_log.tolist() == [
            isinstance(event, Log) for event in expected if not isinstance(event, Add)
        ]
        if run.keys() and all(map(run.is_number, run.keys())):
            quick, plain = play(run, LINES), play(run, LINES, plain=True)
            assert len(quick) == len(plain)
            assert all(map(equal, quick, plain))


def test_the_state_of_another_recording_hides_nothing_that_a_handler_adds_meanwhile(
    tmp_path: Path,
) -> None:
    foreign = {"step": 1, "events": 0, "created": 1.0}
    for moment in itertools.count(0, 19):
        path = tmp_path / f"{moment}.h5"
        with recorder(path) as rec:
            rec.add(a=1.0)
            has_come = at_moment(
                moment, partial(rec.load_state_dict, foreign), partial(rec.add, a=2.0)
            )
        with Recording(path) as run:
            assert run.superseded == 0
            series = run["a"]
            assert len(series) == 1 + has_come, (moment, series.time.tolist())
        if not has_come:
            break
    assert moment > 10 * 19


# ---------------------------------------------------------------------- one checkpoint for all


@pytest.mark.parametrize("end", ["kill", "close", "none"])
def test_ranks_that_load_one_checkpoint_have_each_step_once(tmp_path: Path, end: str) -> None:
    paths = [tmp_path / f"run-{rank}.h5" for rank in range(2)]
    ranks = [recorder(path) for path in paths]
    for rec in ranks:
        record_steps(rec, 6)
    state = ranks[0].state_dict()
    for rec in ranks:
        record_steps(rec, 4)
        rec.log()
        if end != "none":
            crash(rec) if end == "kill" else rec.close()
    if end != "none":
        ranks = [recorder(path, mode="resume") for path in paths]
    for rec in ranks:
        rec.load_state_dict(state)
        assert rec.current_step == 6
        record_steps(rec, 4)
        rec.close()
    for path in paths:
        assert steps(path) == list(range(10))
        with Recording(path) as run:
            assert (run.superseded, run.resumes) == (5, 1)


def test_a_log_after_the_last_step_of_another_recordings_state_holds(path: Path) -> None:
    with recorder(path) as rec:
        record_steps(rec, 4)
        rec.log(0)
        record_steps(rec, 4)
        rec.log(1)
        rec.load_state_dict({"step": 4, "events": 5, "created": 1.0})
        record_steps(rec, 4)
        rec.log(1)
    assert steps(path) == list(range(8))
    with Recording(path) as run:
        assert run.marks.x.tolist() == [0, 1]


def test_the_state_of_another_recording_in_an_empty_one_sets_the_step(path: Path) -> None:
    with recorder(path) as rec:
        with pytest.warns(
            RuntimeWarning, match=r"nothing is recorded, .* call flush.. on every rank"
        ):
            rec.load_state_dict({"step": 1000, "events": 1000, "created": 1.0})
        record_steps(rec, 2)
    assert steps(path) == [1000, 1001]
    with Recording(path) as run:
        assert (run.superseded, run.resumes) == (0, 0)


def test_the_state_of_another_recording_that_is_ahead_is_warned_of(path: Path) -> None:
    with recorder(path) as rec:
        record_steps(rec, 3)
        with pytest.warns(
            RuntimeWarning, match="ends at step 2, .* with step 7; 4 steps in between"
        ):
            rec.load_state_dict({"step": 7, "events": 7, "created": 1.0})
        record_steps(rec, 1)
    assert steps(path) == [0, 1, 2, 7]


@pytest.mark.filterwarnings("ignore:.*was deleted, moved or replaced")
@pytest.mark.filterwarnings("ignore:cannot write")
@pytest.mark.parametrize("trouble", ["deleted", "waiting", "unreadable"])
def test_the_state_of_another_recording_finds_what_is_not_at_the_path(
    path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    state = {"step": 3, "events": 3, "created": 1.0}
    rec = recorder(path)
    record_steps(rec, 2)
    rec.flush()
    with monkeypatch.context() as patch:
        if trouble == "waiting":
            patch.setattr(rec._flusher._file, "write", fail)
        record_steps(rec, 4)
        rec.add(late="text", array=np.ones(3))
        rec.flush()
        if trouble == "deleted":
            path.unlink()
        if trouble == "unreadable":
            patch.setattr(flusher, "open_store", fail)
            with pytest.warns(RuntimeWarning, match=r"cannot read .* step 3 or .* not superseded"):
                rec.load_state_dict(state)
        else:
            rec.load_state_dict(state)
    record_steps(rec, 1)
    rec.close()
    if trouble == "unreadable":
        assert steps(path) == [0, 1, 2, 3, 4, 5, 3]
    else:
        assert steps(path) == [0, 1, 2, 3]
        assert not steps(path, "late")


# ---------------------------------------------------------------------- the step that comes next


def test_the_next_step_is_the_one_after_the_last_that_holds(path: Path) -> None:
    with recorder(path, mode="resume", next_step=0) as rec:
        record_steps(rec, 8)
    for _ in range(2):
        with recorder(path, mode="resume", next_step=np.int64(5)) as rec:
            assert rec.current_step == 5
            record_steps(rec, 5)
        assert steps(path) == list(range(10))
    with recorder(path, mode="resume", next_step=0):
        pass
    assert steps(path) == []


def test_one_of_at_step_and_next_step_is_given(path: Path) -> None:
    with pytest.raises(ValueError, match="next_step=3 needs mode='resume', got mode='x'"):
        recorder(path, next_step=3)
    with pytest.raises(ValueError, match=r"at_step, the last .* got at_step=2 and next_step=3"):
        recorder(path, mode="resume", at_step=2, next_step=3)
    with pytest.raises(InputError, match="step must be a 64-bit integer"):
        recorder(path, mode="resume", next_step=2.5)
    assert not list(path.parent.iterdir())


def test_a_step_past_the_end_is_warned_of(path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="is new: nothing is recorded, .* with step 2; 2 steps"):
        rec = recorder(path, mode="resume", next_step=2)
    with rec:
        record_steps(rec, 8)
    assert steps(path) == list(range(2, 10))
    before = path.read_bytes()
    for where in ({"next_step": 21}, {"at_step": 20}):
        message = (
            "ends at step 9, and training continues with step 21; 11 steps in between are missing"
        )
        with pytest.raises(RuntimeWarning, match=message):  # as warnings are errors here
            recorder(path, mode="resume", **where)
        assert path.read_bytes() == before
        assert [one.name for one in path.parent.iterdir()] == [path.name], "no litter, no lock"
    with pytest.warns(RuntimeWarning, match=message):
        rec = recorder(path, mode="resume", next_step=21)
    rec.close()


def test_steps_that_are_recorded_now_and_then_have_no_gap_between(path: Path) -> None:
    with recorder(path) as rec:
        for step in (0, 100, 200):
            rec.step(step)
            rec.add(a=step)
            rec.log(step)
    with recorder(path, mode="resume", next_step=250):
        pass
    with recorder(path, mode="resume", at_step=299):
        pass
    with pytest.warns(RuntimeWarning, match="ends at step 200, .* 100 steps in between"):
        recorder(path, mode="resume", next_step=301).close()


@pytest.mark.parametrize("before", [0, 3])
def test_steps_that_come_again_are_warned_of_once(path: Path, before: int) -> None:
    with recorder(path) as rec:
        record_steps(rec, 10)
        rec.log()
    with recorder(path, mode="resume") as rec:
        record_steps(rec, before)  # known keys are added on a quicker way
        rec.step(5)
        rec.log()
        with pytest.warns(RuntimeWarning, match=r"step 5 is recorded .* 9; .* next_step=5") as told:
            rec.add(a=5)
        assert [warning.filename for warning in told] == [__file__]
        rec.step()
        record_steps(rec, 2)
        rec.step(0)
        record_steps(rec, 2)
    assert steps(path) == [*range(10 + before), 5, 6, 7, 0, 1]


def test_a_step_too_early_is_warned_of(path: Path) -> None:
    """The step that a checkpoint goes on with, given as the last that holds."""
    with recorder(path) as rec:
        record_steps(rec, 10)
    with recorder(path, mode="resume", at_step=5) as rec:
        rec.step(5)
        with pytest.warns(
            RuntimeWarning, match="step 5 is recorded already, as are the steps up to 5"
        ):
            rec.add(a=5)


def test_steps_that_come_again_in_the_right_way_are_not_warned_of(path: Path) -> None:
    with recorder(path) as rec:
        record_steps(rec, 5)
        state = rec.state_dict()
        record_steps(rec, 5)
    with recorder(path, mode="resume") as rec:
        rec.load_state_dict(state)
        rec.step(5)
        record_steps(rec, 5)
    with recorder(path, mode="resume") as rec:
        rec.step(5)
        rec.load_state_dict({**state, "created": 1.0})
        record_steps(rec, 5)
    with recorder(path, mode="resume", next_step=5) as rec:
        rec.step(5)
        record_steps(rec, 5)
    with recorder(path, mode="resume") as rec:
        rec.step(10)
        record_steps(rec, 1)
    assert steps(path) == list(range(11))


def test_steps_that_begin_anew_in_each_epoch_are_not_warned_of(path: Path) -> None:
    for mode in ("x", "resume"):
        with recorder(path, mode=mode) as rec:
            for _ in range(2):
                rec.step(0)
                record_steps(rec, 3)
    assert steps(path) == [0, 1, 2] * 4


def test_numbers_of_steps_that_are_not_known_to_follow_one_another_are_no_gap(path: Path) -> None:
    with recorder(path) as rec:
        rec.step(500)
        rec.add(a=1.0)
    with recorder(path, mode="resume", next_step=800) as rec:
        rec.load_state_dict({"step": 850, "events": 1, "created": 1.0})
        rec.add(a=1.0)
    with pytest.warns(RuntimeWarning, match="ends at step 850, .* 400 steps in between"):
        recorder(path, mode="resume", next_step=1251).close()


@pytest.mark.parametrize("logs_before", [False, True])
def test_marks_far_after_the_step_are_superseded_without_an_add(
    path: Path, logs_before: bool
) -> None:
    def train(rec: Recorder, first: int, last: int) -> None:
        for i in range(first, last):
            if i % 10 == 0:
                rec.add(a=i)
            if logs_before and i % 25 == 24:
                rec.log(i // 25)
                rec.reset("b")
            rec.step()
            if not logs_before and i % 25 == 24:
                rec.log(i // 25)
                rec.reset("b")

    with recorder(path) as rec:
        train(rec, 0, 28)
    with recorder(path, mode="resume", next_step=22) as rec:
        train(rec, 22, 80)
    assert steps(path) == [0, 10, 20, 30, 40, 50, 60, 70]
    with Recording(path) as run:
        assert run.marks.x[run.marks.is_log].tolist() == [0, 1, 2]
        assert len(run.marks.x) == 6


def test_steps_that_fall_are_warned_of_where_the_step_cannot_tell(path: Path) -> None:
    def train(rec: Recorder, first: int, last: int) -> None:
        for epoch in range(first, last):
            for key, n in (("train", 4), ("val", 2)):
                for i in range(epoch * n, epoch * n + n):
                    rec.step(i)
                    rec.add({key: i})
            rec.log(epoch)

    with recorder(path) as rec:
        train(rec, 0, 2)
        state = rec.state_dict()
        train(rec, 2, 3)
    with pytest.warns(RuntimeWarning) as told:
        rec = recorder(path, mode="resume", next_step=8)
    rec.close()
    (message,) = [str(one.message) for one in told]
    assert "step numbers go down in this recording" in message
    assert "load_state_dict(state_dict())" in message
    with recorder(path, mode="resume") as rec:
        rec.load_state_dict(state)
        train(rec, 2, 3)
    assert steps(path, "train") == list(range(12))
    assert steps(path, "val") == list(range(6))


# ---------------------------------------------------------------------- a state from amid a step


def test_a_step_that_is_done_anew_after_a_state_from_amid_it_is_warned_of(path: Path) -> None:
    with recorder(path) as rec:
        record_steps(rec, 3)
        assert rec.state_dict()["amid"] == []
        rec.add(a=3)
        rec.log()
        state = rec.state_dict()
        assert state["amid"] == ["a"]
        rec.step()
        record_steps(rec, 2)
    for _ in range(2):
        with recorder(path, mode="resume") as rec:
            rec.load_state_dict(state)
            assert rec.state_dict()["amid"] == ["a"], "as before"
            rec.add(evaluation=1.0)
            with pytest.warns(
                RuntimeWarning, match="middle of step 3, .* state_dict.. after step.."
            ) as told:
                rec.add({"a": 3})
            assert [warning.filename for warning in told] == [__file__]
            rec.add({"a": 3})
    with recorder(path, mode="resume") as rec:
        rec.load_state_dict(state)
        rec.step()
        assert rec.state_dict()["amid"] == []
        record_steps(rec, 2)
    assert steps(path) == [0, 1, 2, 3, 4, 5]


def test_a_state_from_amid_a_step_keeps_it_in_another_recording(tmp_path: Path) -> None:
    paths = [tmp_path / f"run-{rank}.h5" for rank in range(2)]
    states = []
    for path in paths:
        with recorder(path) as rec:
            record_steps(rec, 5)
            rec.add(a=5)
            states.append(rec.state_dict())
            rec.step()
            rec.add(b=1.0)
            record_steps(rec, 2)
    for path in paths:
        with recorder(path, mode="resume") as rec:
            rec.load_state_dict(states[0])
            rec.step()
            record_steps(rec, 2)
        assert steps(path) == list(range(8))
        assert steps(path, "b") == []


# ---------------------------------------------------------------------- ranks, their logs and steps


def lose(rec: Recorder) -> None:
    """Leave the file as a kill would, without what is not flushed."""
    left = rec.path.read_bytes()
    rec.close()
    rec.path.write_bytes(left)


class Ranks:
    """Three ranks that train in step, and are killed now and then.

    Args:
        order: what each rank does, in order, at every fifth step; `state`: rank 0's is taken.
    """

    def __init__(self, folder: Path, order: str) -> None:
        self.paths = [folder / f"run-{rank}.h5" for rank in range(3)]
        self.order, self.at = order.split(), 0
        self.saved: tuple[dict[str, Any], int, int] | None = None

    def train(self, kill_at: int) -> None:
        """Go on from the checkpoint, up to a number of calls of all ranks, or to the end."""
        ranks = [recorder(path, mode="resume") for path in self.paths]
        step, done = 0, 0
        if self.saved is not None:
            state, step, done = self.saved
            for rec in ranks:
                rec.load_state_dict(state)
        calls = 0
        while step < 15:
            actions = ["add", "step", *(self.order if step % 5 == 4 else [])]
            for place in range(done, len(actions)):
                for rank, rec in enumerate(ranks):
                    if calls == kill_at:
                        for number, one in enumerate(ranks):
                            (lose if number % 2 else crash)(one)
                        return
                    calls += 1
                    self.act(actions[place], rank, step, rec)
                if actions[place] == "state":
                    for rec in ranks[1:]:
                        rec.flush()
                    self.saved = ranks[0].state_dict(), step, place + 1
            step, done = step + 1, 0
        for rec in ranks:
            rec.close()

    def act(self, action: str, rank: int, step: int, rec: Recorder) -> None:
        if action == "add":
            rec.add(a=10 * step + rank)
        elif action == "step":
            rec.step()
        elif action == "eval":
            rec.add(evaluation=step + rank)
        elif action == "log":
            rec.log(step)


def told(path: Path) -> list[tuple[Any, ...]]:
    return [
        (type(e).__name__, e.step, e.values if isinstance(e, Add) else getattr(e, "x", None))
        for e in read(path)
    ]


@pytest.mark.filterwarnings("ignore:.*its end are not whole")
@pytest.mark.parametrize(
    "order", ["eval log state", "eval state log", "log eval state", "state eval log", "log state"]
)
def test_ranks_that_are_killed_anywhere_give_what_an_undisturbed_run_gives(
    tmp_path: Path, order: str
) -> None:
    (tmp_path / "whole").mkdir()
    whole = Ranks(tmp_path / "whole", order)
    whole.train(-1)
    merge_recordings(whole.paths, tmp_path / "whole.h5")
    for kill_at in range(40 + len(order) % 2 * 5, 115, 10):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        killed = Ranks(folder, order)
        killed.train(kill_at)
        assert killed.saved is not None
        killed.train(11)
        killed.train(-1)
        merge_recordings(killed.paths, folder / "all.h5")
        assert told(folder / "all.h5") == told(tmp_path / "whole.h5"), kill_at


@pytest.mark.filterwarnings("ignore:.*its end are not whole")
@pytest.mark.parametrize("seed", range(8))
def test_ranks_go_to_any_state_of_any_timeline(tmp_path: Path, seed: int) -> None:
    """All ranks load states of rank 0, older and newer ones, as a sweep over checkpoints does."""
    draw = np.random.default_rng(seed)
    paths = [tmp_path / f"run-{rank}.h5" for rank in range(2)]
    ranks = [recorder(path) for path in paths]
    states, held = list[tuple[dict[str, Any], list[Any]]](), list[Any]()
    for branch in range(9):
        for _ in range(draw.integers(1, 5)):
            step = ranks[0].current_step
            is_log = draw.random() < 0.3
            for rec in ranks:
                rec.add(a=step + branch / 10)
                rec.step()
                if is_log:
                    rec.log(step)
            held.append((Add.__name__, step, {"a": step + branch / 10}))
            if is_log:
                held.append((Log.__name__, step + 1, step))
        if draw.random() < 0.7:
            for rec in ranks:
                rec.flush()
            states.append((ranks[0].state_dict(), held.copy()))
        if states and draw.random() < 0.6:
            if draw.random() < 0.3:
                for rec in ranks:
                    (crash, Recorder.close)[draw.integers(2)](rec)
                ranks = [recorder(path, mode="resume") for path in paths]
            state, then = states[draw.integers(len(states))]
            for rec in ranks:
                rec.load_state_dict(json.loads(json.dumps(state)))
            held = then.copy()
    for rec in ranks:
        rec.close()
    assert [told(path) for path in paths] == [held, held]


def test_a_rank_that_was_resumed_by_itself_keeps_what_it_recorded(tmp_path: Path) -> None:
    first, other = recorder(tmp_path / "run-0.h5"), recorder(tmp_path / "run-1.h5")
    for rec in (first, other):
        record_steps(rec, 4)
    crash(other)
    other = recorder(other.path, mode="resume")
    for rec in (first, other):
        record_steps(rec, 4)
    other.flush()
    state = first.state_dict()
    for rec in (first, other):
        record_steps(rec, 4)
        rec.load_state_dict(state)
        record_steps(rec, 2)
        rec.close()
        assert steps(rec.path) == list(range(10))


def test_a_rank_that_did_not_flush_its_last_log_is_warned_of(tmp_path: Path) -> None:
    paths = [tmp_path / f"run-{rank}.h5" for rank in range(2)]
    ranks = [recorder(path) for path in paths]
    for rec in ranks:
        record_steps(rec, 5)
        rec.log()
        record_steps(rec, 5)
    ranks[1].flush()
    for rec in ranks:
        rec.log()
    state = ranks[0].state_dict()
    assert state["logs"] == 2
    lose(ranks[1])
    rec = recorder(paths[1], mode="resume")
    with pytest.warns(
        RuntimeWarning, match=r"it has 1 log, .* after 2; call flush.. on every rank"
    ):
        rec.load_state_dict(state)
    rec.close()
    ranks[0].close()


def test_the_logs_that_hold_are_counted_through_resumes(path: Path) -> None:
    with recorder(path) as rec:
        for epoch in range(4):
            record_steps(rec, 2)
            rec.log(epoch)
            if epoch == 2:
                state = rec.state_dict()
        assert (state["logs"], rec.state_dict()["logs"]) == (3, 4)
    with recorder(path, mode="resume", next_step=2) as rec:
        assert rec.state_dict()["logs"] == 1
        rec.log()
        assert rec.state_dict()["logs"] == 2
        rec.load_state_dict(state)
        assert rec.state_dict()["logs"] == 3
    with recorder(path, mode="resume") as rec:
        assert rec.state_dict()["logs"] == 3
