"""`flexrec show --console`."""

import re
from pathlib import Path

from flexrec.recorder import Recorder
from support.commands import flexrec


def test_lines_have_time_step_and_stream(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path) as rec:
        rec.add({"console/stdout": "epoch 1", "loss": 1.0}, step=3)
        rec.add({"console/stderr": "bad\x1b[2J"})
        rec.add({"console/stdout": "epoch 2"}, step=4)
    out, error = flexrec("show", path, "--console")
    lines = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", line) for line in out.splitlines()]
    assert lines == [
        "TIME        3   epoch 1",
        "TIME        3 ! bad\\x1b[2J",
        "TIME        4   epoch 2",
    ]
    assert not error
    _, error = flexrec("show", path, "--console", "--model", code=2)
    assert "--model does nothing with --console" in error


def test_lines_before_a_resume_stay(tmp_path: Path) -> None:
    """They tell why the run had to be resumed."""
    path = tmp_path / "run.h5"
    with Recorder(path) as rec:
        for step in range(3):
            rec.add({"console/stdout": f"step {step}", "loss": 1.0}, step=step)
        rec.add({"console/stderr": "out of memory"})
    with Recorder(path, mode="resume", next_step=1) as rec:
        rec.add({"console/stdout": "step 1 again", "loss": 1.0})
    out, _ = flexrec("show", path, "--console")
    lines = [line[20:].split(maxsplit=1)[1] for line in out.splitlines()]
    assert lines == ["step 0", "step 1", "step 2", "! out of memory", "step 1 again"]


def test_a_recording_without_lines_says_so(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add(loss=1.0)
    out, error = flexrec("show", tmp_path / "run.h5", "--console")
    assert not out
    assert "has no lines: record them with Recorder(…, console=True)" in error
