"""What long work says of itself: on a terminal, and nowhere else."""

import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flexrec.cli import progress
from flexrec.recorder import Recorder, Recording

ERASED = "\x1b[1A\x1b[2K"  # up a line, and nothing is left in it


class Terminal(io.StringIO):
    """Somebody watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(tmp_path: Path) -> Recording:
    """A recording of arrays."""
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for i in range(100):
            rec.add(a=np.random.default_rng(i).normal(size=1000))
    return Recording(tmp_path / "run.h5")


def test_a_terminal_shows_how_much_was_read(
    run: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_PATIENCE", 0.001)
    with progress.reading([run, run]):
        assert len(run["a"]) == 100
        # What is recorded is noise: it takes as many bytes of the file as it has.
        whole = f"of {2 * run.columns.file_bytes / 1e6:.1f} MB"
        end = time.monotonic() + 10
        while f"read 1.5 {whole}" not in terminal.getvalue() and time.monotonic() < end:
            time.sleep(0.001)
    assert f"read {2 * run.columns.read_bytes / 1e6:.1f} {whole}" in terminal.getvalue()
    assert terminal.getvalue().endswith(ERASED)


def test_a_terminal_shows_how_long_another_process_reads(
    run: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_PATIENCE", 0.001)
    with progress.waiting(run.path):
        end = time.monotonic() + 10
        while f"reading {run.columns.file_bytes / 1e6:.1f} MB: 0 s" not in terminal.getvalue():
            assert time.monotonic() < end
            time.sleep(0.001)
    assert terminal.getvalue().endswith(ERASED)


def test_a_pipe_is_told_nothing(run: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with progress.reading([run]):
        assert threading.active_count() == before
    assert capsys.readouterr() == ("", "")


def test_what_takes_no_time_says_nothing(run: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.reading([run]):
        pass
    assert terminal.getvalue() == ""


def test_rich_is_imported_only_where_there_is_something_to_show(run: Recording) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom flexrec.cli import progress\n"
        "sys.stderr.isatty = lambda: sys.argv[2] == 'terminal'\n"
        "progress._PATIENCE = 60.0\n"
        "with progress.waiting(Path(sys.argv[1])): pass\n"
        "print('rich' in sys.modules)"
    )
    for where in ("terminal", "pipe"):
        words = [sys.executable, "-c", code, str(run.path), where]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("False\n", "")


def test_what_is_printed_meanwhile_goes_where_it_went(
    run: Recording, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_PATIENCE", 0.001)
    with progress.showing(lambda: "[b]said[/b]"):
        end = time.monotonic() + 10
        while "[b]said[/b]" not in terminal.getvalue():
            assert time.monotonic() < end
            time.sleep(0.001)
        print("a row")
    assert capsys.readouterr().out == "a row\n"
    assert "a row" not in terminal.getvalue()
