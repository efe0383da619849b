"""Times never go back, whatever the system's clock does."""

import subprocess
import sys
from pathlib import Path

import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.writing import event_queue


def test_times_do_not_go_back_where_the_clock_is_set_back(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "real, shift = time.time, 0.0\n"
        "time.time = lambda: real() + shift\n"
        "from flexrec.recorder import Recorder\n"
        "with Recorder(sys.argv[1], facts=False) as rec:\n"
        "    for i in range(4):\n"
        "        shift -= 3600\n"
        "        rec.add(a=i)\n"
        "        rec.add(a=i, text='t')\n"
        "        rec.log(i)\n"
        "        rec.reset()\n"
    )
    path = tmp_path / "run.h5"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with Recording(path) as run:
        times = [event.time for event in run.events()]
    assert len(times) == 16
    assert times == sorted(times)
    assert times[-1] - times[0] < 3600


def test_times_do_not_go_back_where_a_run_is_resumed_with_an_earlier_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        rec.add(a=1)
    monkeypatch.setattr(event_queue, "time", lambda: 1e9)
    with Recorder(path, mode="resume", facts=False) as rec:
        rec.add(a=2)
    with Recording(path) as run:
        first, second = run["a"].time
    assert first <= second < first + 3600
