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
        assert told["x"] == [0.0, 1.0, 2.0]
        assert told["step"] == run.marks.step.tolist()
        times = np.array(told["seconds"]) + told["start"]
        assert times == pytest.approx(run.marks.time, abs=0.001)


def test_without_marks_every_step_is_one(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5", marks=False) as run:
        for every, wanted in ((None, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4])):
            told = Run.of("a", run, every=every).shown(play(run, preset("loss"), every=every))
            assert told["x"] == told["step"] == wanted
        last = run["train_loss"].time[[1, 3, 5]]
        assert np.array(told["seconds"]) + told["start"] == pytest.approx(last, abs=0.001)


def test_of_marks_at_one_x_the_last_counts(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.h5") as rec:
        for step in range(4):
            rec.add(train_loss=1.0, step=step)
            rec.log(epoch=step // 2)
    with Recording(tmp_path / "a.h5") as run:
        told = Run.of("a", run).shown(play(run, preset("loss")))
        assert (told["x"], told["step"]) == ([0.0, 1.0], [1, 3])


def test_only_marks_that_are_shown_go_into_the_file(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.h5") as run:
        (drawn,) = play(run, preset("loss"))
        told = Run.of("a", run)
        assert told.shown([])["x"] == []
        other = window("line", *drawn.traces)
        assert told.shown([other])["x"] == [0.0, 1.0, 2.0]


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
