"""Where `log` puts a mark, and what it calls that."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.errors import InputError
from flexrec.recorder.events import Log, log_position, named_position, normalise_keys


def test_a_position_is_given_by_itself_or_by_one_name() -> None:
    assert named_position(None, {}) == (None, None)
    assert named_position(2, {}) == (2, None)
    assert named_position(None, {"epoch": 3}) == (3, "epoch")


@pytest.mark.parametrize(
    ("x", "named", "message"),
    [
        (1, {"epoch": 1}, "one position on the x axis, and no values"),
        (None, {"epoch": 1, "round": 2}, "one position on the x axis, and no values"),
        ({"loss": 1.0}, {}, "no values: write add"),
        (None, {"epoch": None}, "epoch must be a number, got None"),
        (None, {"rest": False}, "rest must be a finite number, got bool"),
        (None, {"epoch": "3"}, "epoch must be a finite number, got str"),
        ("3", {}, "no values: write add"),
        (True, {}, "x must be a finite number, got bool"),
        (1j, {}, "^x must be a finite number, got complex$"),
        (datetime(2026, 1, 1), {}, r"got datetime; of a date, give its timestamp\(\)$"),
    ],
)
def test_other_positions_are_refused(x: Any, named: dict[str, Any], message: str) -> None:
    def position() -> float:
        given, name = named_position(x, named)
        return log_position(given, name or "x")

    with pytest.raises(InputError, match=message):
        position()


@pytest.mark.parametrize("keys", [{"loss": 1.0}, 0.5, True])
def test_values_are_no_keys(keys: Any) -> None:
    with pytest.raises(InputError, match=r"keys must be names, got \w+: log takes .* no values"):
        normalise_keys(keys)


@pytest.mark.parametrize("close", [True, False])
def test_the_name_of_the_axis_is_recorded(tmp_path: Path, close: bool) -> None:
    rec = Recorder(tmp_path / "run.h5", facts=False)
    rec.add(a=1.0)
    rec.step()
    rec.log(epoch=3)
    rec.log(epoch=4, keys="a", reset=False)
    rec.log(5, "a")
    rec.log()
    rec.reset("a")
    rec.flush()
    if close:
        rec.close()
    with Recording(tmp_path / "run.h5") as run:
        assert run.marks.axis == ["epoch", "epoch", None, None, None]
        assert run.marks.keys == [None, ("a",), ("a",), None, ("a",)]
        logs = [event for event in run.events() if isinstance(event, Log)]
        assert [(log.x, log.axis, log.axis_name, log.reset) for log in logs] == [
            (3.0, "epoch", "epoch", True),
            (4.0, "epoch", "epoch", False),
            (5.0, None, None, True),
            (1.0, None, "step", True),
        ]
    rec.close()


def test_it_is_kept_when_the_run_is_resumed(tmp_path: Path) -> None:
    for epoch in range(2):
        with Recorder(tmp_path / "run.h5", mode="resume", facts=False) as rec:
            rec.add(a=1.0)
            rec.step()
            rec.log(epoch=epoch)
    with Recording(tmp_path / "run.h5") as run:
        assert (run.marks.axis, run.marks.x.tolist()) == (["epoch", "epoch"], [0.0, 1.0])
