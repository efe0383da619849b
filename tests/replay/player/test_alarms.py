"""Alarms in replay are those that go off live, over any events."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrec.recorder import Recorder, Recording
from flexrec.replay import Alarm, FlexLogger, define_alarms, play_alarms
from flexrec.replay.player.alarms import unwatched

NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 9.0, -3.0, np.nan, np.inf])
CALLS = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from(["a", "b", "c"]), NUMBERS | st.just("text"), min_size=1),
        st.sampled_from(["step", "log", "log a", "keep", "reset", "reset b"]),
    ),
    max_size=40,
)
ALARMS = define_alarms(
    {
        "nan": {"key": "*", "is": "nonfinite", "patience": 2},
        "high": {"key": "b", "above": 1.5, "type": "AverageValueMeter"},
        "late": {"key": "[ab]", "below": 2, "at": "log", "type": "BestValueMeter", "reset": False},
        "spike": {"key": "a", "rises": 2.0, "over": 2},
        "deep": {"key": "*", "below": -2},
        "top": {"key": "c", "above": 1, "at": "log"},
        "slow": {"key": "?", "above": -1, "at": "log", "type": "TimeMeter"},
    }
)


def call(target: Any, what: Any) -> None:
    """Make a call on a logger."""
    if isinstance(what, dict):
        target.add(what)
    elif what == "step":
        target.step()
    elif what.startswith("log"):
        target.log(keys=what[4:] or None)
    elif what == "keep":
        target.log(reset=False)
    else:
        target.reset(what[6:] or None)


@pytest.mark.filterwarnings("ignore:left out", "ignore:.* logs are at x")
@settings(max_examples=25, deadline=None)
@given(calls=CALLS)
def test_replay_finds_what_went_off_live(calls: list[Any], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("alarms") / "run.h5"
    live = list[Alarm]()
    with Recorder(path, facts=False, compress=False) as rec:
        logger = FlexLogger({}, recorder=rec, alarms=ALARMS, on_alarm=live.append)
        for what in calls:
            call(logger, what)
    assert repr(play_alarms(Recording(path), ALARMS)) == repr(live)  # NaN is not equal to NaN


def test_several_recordings_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for i, path in enumerate(paths):
        with Recorder(path) as rec:
            rec.add(loss=float(i))
    alarms = define_alarms({"low": {"key": "loss", "below": 0.5}})
    found = play_alarms([Recording(path) for path in paths], alarms)
    assert [(alarm.run, alarm.step) for alarm in found] == [("a", 0)]
    assert str(found[0]) == "a: low: 'loss' at step 0: 0 is below 0.5"


def test_superseded_values_set_off_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path) as rec:
        for value in (1.0, np.nan):
            rec.add(loss=value)
            rec.step()
    with Recorder(path, mode="resume", at_step=0) as rec:
        rec.add(loss=1.0)
    assert play_alarms(Recording(path), define_alarms({"n": {"key": "loss", "is": "nan"}})) == []


def test_texts_cost_a_pattern_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for step in range(5):
            rec.add({"note": "text", "loss": float(step)}, step=step)
    alarms = define_alarms({"high": {"key": "*", "above": 3.0}})
    read, rows = list[str](), Recording.rows

    def noted(run: Recording, key: str) -> Any:
        read.append(key)
        return rows(run, key)

    monkeypatch.setattr(Recording, "rows", noted)
    with Recording(tmp_path / "run.h5") as run:
        assert [alarm.step for alarm in play_alarms(run, alarms)] == [4]
    assert read == ["loss"]


def test_why_an_alarm_cannot_go_off_is_said(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add(loss=1.0)
    alarms = define_alarms(
        {"x": {"key": "los", "above": 0}, "y": {"key": "loss", "above": 0, "at": "log"}}
    )
    assert unwatched(Recording(tmp_path / "run.h5"), alarms) == [
        "x: no recorded key matches 'los'",
        'y: it is read at logs, and there are none; use at = "value"',
    ]
