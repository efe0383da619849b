"""What the page's head says of a run, and where its marks are in steps and in time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.replay import play, preset
from flexrec.replay.sinks.page.runs import Run
from support.window_cases import window


def recorded(path: Path, *, marks: bool = True, config: Any = None) -> Recording:
    """A run of six steps, and a mark after each third of them."""
    with Recorder(path, config=config) as rec:
        for step in range(6):
            rec.add(train_loss=1.0 / (step + 1), step=step)
            if marks and step % 2:
                rec.log(epoch=step // 2)
    return Recording(path)


def test_marks_have_steps_and_times(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5") as run:
        told = Run.of("a", run).shown(play(run, preset("loss")))
        assert json.dumps(told["at"]) == "[0, 1, 2]", "as short as it can be"
        assert "mark" not in told, "it is the same"
        assert (told["step"], told["axis"]) == (run.marks.step.tolist(), "epoch")
        times = np.array(told["seconds"]) + told["start"]
        assert times == pytest.approx(run.marks.time, abs=0.001)


def test_without_marks_every_step_is_one(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5", marks=False) as run:
        for every, wanted in ((None, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4])):
            told = Run.of("a", run, every=every).shown(play(run, preset("loss"), every=every))
            assert told["at"] == told["step"] == wanted
        last = run["train_loss"].time[[1, 3, 5]]
        assert np.array(told["seconds"]) + told["start"] == pytest.approx(last, abs=0.001)


def test_of_marks_at_one_x_the_last_counts(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.h5") as rec:
        for step in range(4):
            rec.add(train_loss=1.0, step=step)
            rec.log(epoch=step // 2)
    with Recording(tmp_path / "a.h5") as run:
        told = Run.of("a", run).shown(play(run, preset("loss")))
        assert (told["at"], told["step"]) == ([0.0, 1.0], [1, 3])


def test_only_marks_that_are_shown_go_into_the_file(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5") as run:
        (drawn,) = play(run, preset("loss"))
        told = Run.of("a", run)
        assert told.shown([])["at"] == []
        other = window("line", *drawn.traces)
        assert told.shown([other])["at"] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("x", ["step", "time", "relative"])
def test_marks_are_found_on_any_axis_that_is_drawn(x: str, tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5") as run:
        windows = play(run, preset("loss").along(x))
        told = Run.of("a", run, x=x).shown(windows)
        assert told["at"] == windows[0].traces[0].x.tolist()
        assert told["mark"] == [0.0, 1.0, 2.0]


def test_a_group_has_the_means_of_times_and_what_its_runs_share(tmp_path: Path) -> None:
    each = []
    for seed in range(3):
        config = {"seed": seed, "opt": {"name": "adam", "lr": seed}}
        with recorded(tmp_path / f"{seed}.h5", config=config) as run:
            each.append(Run.of(str(seed), run))
            windows = play(run, preset("loss"))
    told = Run.group("all", each).shown([window("line", *windows[0].traces)])
    assert told["config"] == {"opt": {"name": "adam"}}
    assert (told["about"]["runs"], told["about"]["state"]) == ("3", "closed")
    assert (told["at"], told["step"], told["start"]) == ([0.0, 1.0, 2.0], [1, 3, 5], None)
    seconds = np.mean([run.marks.seconds for run in each if run.marks], axis=0)
    assert told["seconds"] == pytest.approx(seconds, abs=0.001)


def test_a_group_whose_runs_differ_in_steps_has_none(tmp_path: Path) -> None:
    each = []
    for every in (2, 3):
        path = tmp_path / f"{every}.h5"
        with Recorder(path) as rec:
            for step in range(6):
                rec.add(train_loss=1.0, step=step)
                if (step + 1) % every == 0:
                    rec.log(epoch=step // every)
        with Recording(path) as run:
            each.append(Run.of(str(every), run))
            windows = play(run, preset("loss"))
    assert "step" not in Run.group("all", each).shown(windows)


def test_a_run_says_state_command_and_config(tmp_path: Path) -> None:
    config = {"lr": 0.1, "model": {"width": 8}, "bound": float("inf")}
    with recorded(tmp_path / "a.h5", config=config) as run:
        told = Run.of("a", run).shown([])
    assert told["config"] == {"lr": 0.1, "model": {"width": 8}, "bound": "Infinity"}
    assert told["about"]["state"] == "closed"
    assert {"started", "host", "command", "packages"} <= set(told["about"])
    json.dumps(told, allow_nan=False)


def test_a_config_that_is_too_long_is_cut(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5", config={"words": "word " * 100_000}) as run:
        told = Run.of("a", run).shown([])
    assert len(json.dumps(told)) < 50_000


@pytest.mark.parametrize(
    "facts",
    [None, {}, {"started": 5, "argv": "x", "packages": []}, {"started": "9999-99-99", "argv": [1]}],
)
def test_odd_facts_are_taken_as_they_are(facts: Any, tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5") as run:
        run.facts = facts
        told = Run.of("a", run).shown([])
        assert all(isinstance(text, str) for text in told["about"].values())
        assert told["start"] == pytest.approx(run.marks.time[0])
