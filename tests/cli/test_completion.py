"""What the shell offers at a tab: in time, and never a traceback."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import Recorder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with recordings and what is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, keys in (("run.h5", ("train_loss", "val_loss", "two words")), ("other.h5", ("t2",))):
        with Recorder(name, facts=False) as rec:
            rec.add(dict.fromkeys(keys, 1.0))
            rec.log(0)
    Path("runs").mkdir()
    Path("runs", "deep.hdf5").write_bytes(Path("run.h5").read_bytes())
    Path("odd").mkdir()
    with Recorder("odd/run.h5", facts=False) as rec:
        rec.add(dict.fromkeys(("größe/acc@5", "$(touch${IFS}x)", "a;b", "c|d", "`e`", "f*"), 1.0))
    Path("odd", "my run.h5").write_bytes(Path("run.h5").read_bytes())
    Path("notes.txt").write_text("mine", encoding="utf-8")
    Path("torn.h5").write_bytes(Path("run.h5").read_bytes()[:900])
    return tmp_path


def offered(line: str) -> list[str]:
    """What bash is told where the line ends; a space at its end begins a new word."""
    words = shlex.split(line)
    at = len(words) - (not line.endswith(" "))
    env = {"_FLEXREC_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(at)}
    done = CliRunner().invoke(app, [], prog_name="flexrec", env=env)
    assert done.exit_code == 0
    assert done.stderr == ""
    return done.stdout.split()


LINES = {
    "flexrec replay run.h5 -k t": ["train_loss"],
    "flexrec replay run.h5 other.h5 --key t": ["train_loss", "t2"],
    "flexrec check run.h5 -p loss -k train_loss -k v": ["val_loss"],
    "flexrec diff other.h5 other.h5 -k ": ["t2"],
    "flexrec export run.h5 -k ": ["train_loss", "val_loss"],  # none that a shell would split
    "flexrec serve run.h5 -k v": ["val_loss"],
    "flexrec show run.h5 --plot tr": ["train_loss"],
    "flexrec show run.h5 --plot loss+M": ["loss+MSE"],
    "flexrec show torn.h5 -k ": [],
    "flexrec replay runs -k ": ["train_loss", "val_loss"],
    "flexrec replay torn.h5 absent.h5 other.h5 -k ": ["t2"],
    "flexrec replay ~/other.h5 -k ": ["t2"],
    "flexrec show absent.h5 -k ": [],
    "flexrec replay run.h5 -p loss+ac": ["loss+acc", "loss+activations"],
    "flexrec presets conf": ["confusion"],
    "flexrec meters MSE": ["MSEMeter"],
    "flexrec plots contou": ["contour"],
    "flexrec replay run.h5 o": ["odd/", "other.h5"],
    "flexrec show ": ["odd/", "other.h5", "run.h5", "runs/", "torn.h5"],
    "flexrec show runs/": ["runs/deep.hdf5"],
    "flexrec show nowhere/": [],
    "flexrec show n": [],  # the shell's own files
    "flexrec show odd/": [],  # the shell quotes names
    "flexrec show odd/run.h5 -k ": ["größe/acc@5"],
    "flexrec replay run.h5 --x ti": ["time"],
}


@pytest.mark.parametrize("line", LINES)
def test_a_tab_offers_what_fits(line: str) -> None:
    assert offered(line) == LINES[line]


def test_a_pipe_among_the_recordings_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.h5")
    assert offered("flexrec show pipe.h5 -k ") == []


def test_keys_are_offered_though_many_recordings_before_are_damaged(folder: Path) -> None:
    for i in range(10):
        (folder / "runs" / f"a{i}.h5").write_bytes((folder / "torn.h5").read_bytes())
    assert offered("flexrec show runs -k train") == ["train_loss"]


def test_what_takes_too_long_is_given_up() -> None:
    code = (
        "import ctypes; from flexrec.cli import completion\n"
        "completion.SECONDS = 0.1\n"
        # It does not let Python's other threads run, as reading a file with HDF5.
        "completion.bounded(lambda: [ctypes.PyDLL(None).sleep(600)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
