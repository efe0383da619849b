"""Output that cannot be written as it is, or not at all; and Ctrl-C: no traceback."""

import doctest
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flexrec.recorder import Recorder, errors
from support.commands import FLEXREC, fails, flexrec

SOURCE = Path(__file__).parents[2] / "src"
EVIL = "loss\nconfig: {}\t\u202egnp.exe\u2066\x1b[2J"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with keys and texts in several scripts, and marks that turn them around."""
    path = tmp_path_factory.mktemp("output") / "run.h5"
    with Recorder(path, config={"имя": "値\u202e"}) as rec:
        for i in range(3):
            rec.add({"train_loss": 0.5 * i, "потеря/値": 1.0, EVIL: 1.0, "note": "− größe 温度"})
            rec.add({f"{EVIL}/weights/mean": 1.0})
            rec.log(i)
    return path


COMMANDS = {  # and how each ends
    "show RUN": 0,
    "show RUN --model": 0,
    "show RUN --plot потеря/*": 0,
    "show RUN -k нет": 2,
    "export RUN": 0,
    "replay RUN -p loss --save OUT.json": 0,
    "check RUN -p loss -g OUT.golden --update": 0,
    "verify RUN": 0,
    "meters AverageValueMeter": 0,
    "meters": 0,
    "plots line": 0,
    "presets health": 0,
    "replay --help": 0,
    "assets status": 0,
    "nonsense": 2,
}
NARROW = [("cp1252", command) for command in COMMANDS]
NARROW += [
    (code, f"show RUN{more}") for code in ("ascii", "cp437") for more in ("", " --plot loss")
]


@pytest.mark.parametrize(("encoding", "command"), NARROW)
def test_every_command_survives_a_narrow_encoding(
    encoding: str, command: str, run: Path, tmp_path: Path
) -> None:
    words = command.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")).split(" ")
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([FLEXREC, *words], capture_output=True, env=env, check=False)
    assert done.returncode == COMMANDS.get(command, 0), done.stderr
    assert b"Traceback" not in done.stderr
    assert (done.stdout + done.stderr).decode(encoding)  # it is what it says


@pytest.mark.parametrize("words", [("show", "RUN"), ("export", "RUN"), ("meters",), ("--help",)])
def test_a_full_disk_behind_stdout_is_one_line(words: tuple[str, ...], run: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [FLEXREC, *(str(run) if word == "RUN" else word for word in words)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == "flexrec: the output cannot be written: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
@pytest.mark.parametrize("words", ["show RUN", "export RUN", "meters", "--help"])
def test_a_closed_stdout_is_one_line(words: str, closed: str, run: Path) -> None:
    command = f"exec {FLEXREC} {words.replace('RUN', str(run))} {closed}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "flexrec: the output cannot be written: Bad file descriptor\n"
    assert done.returncode == 2


def test_what_writes_no_output_needs_no_streams(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    command = f"exec {FLEXREC} export {run} --out {out} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 2  # it says where
    assert out.read_text().splitlines()[0] == "key,step,time,value,text"


@pytest.mark.parametrize("module", ["typer", "flexrec.cli.options", "numpy", "h5py"])
def test_ctrl_c_while_importing_ends_quietly(module: str, run: Path) -> None:
    code = f"""
import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
sys.argv = ["flexrec", "show", {str(run)!r}]
from flexrec.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_little_is_imported_before_ctrl_c_is_quiet() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
before = set(sys.modules)
from flexrec.cli import main
print(sorted(sys.modules.keys() - before))
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout == "['flexrec', 'flexrec.cli']\n"


@pytest.mark.parametrize("words", [["show", "RUN"], ["show", "nothing.h5"], ["--version"]])
def test_ctrl_c_at_the_very_end_is_quiet(words: list[str], run: Path) -> None:
    code = f"""
import atexit, os, signal, sys
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["flexrec", *{[str(run) if word == "RUN" else word for word in words]}]
from flexrec.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert "Traceback" not in done.stderr


def test_a_key_cannot_pose_as_another_line(run: Path) -> None:
    for words in (("show", run), ("show", run, "--model"), ("show", run, "--plot", "loss*")):
        out, _ = flexrec(*words)
        assert not any(line.startswith("config: {}") for line in out.splitlines())
        for mark in "\u202e\u2066\x1b\t":
            assert mark not in out
        assert r"loss\nconfig: {}\t\u202egnp.exe\u2066\x1b[2J" in out


def test_what_is_printable_stays() -> None:
    assert errors.printable("größe 温度 🙂 а\u0301\n\t") == "größe 温度 🙂 а\u0301\n\t"
    assert errors.one_line("a\u2028b\u200f\r\n") == r"a\u2028b\u200f\x0d\n"


def test_near_misses_are_told() -> None:
    assert "did you mean 'MSEMeter'?" in fails("meters", "MSE")
    assert "did you mean 'MovingAverageValueMeter'?" in fails("meters", "moving")
    assert "did you mean 'histogram'?" in fails("plots", "histogam")
    assert errors.nearest("zzz", ["loss"]) == ""
    assert errors.nearest("l", ["loss"]) == ""


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "{a=" * 5000])
def test_a_config_that_is_nested_too_deeply_is_one_line(
    text: str, run: Path, tmp_path: Path
) -> None:
    config = tmp_path / "plots.toml"
    config.write_text(text)
    line = fails("replay", run, "--config", config, "--save", tmp_path / "e.json")
    assert line.startswith(f"{config} ")
    assert "nested too deeply" in line


def test_facts_of_another_kind_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = {"text": "\x1b[2J", "untracked": 7, "cut": "x"}
    odd = {"started": 5, "host": {"a": [1]}, "git_commit": ["x", 1, None], "argv": "one\ntwo"}
    odd |= {"git_patch": patch, "resumed": [3, {"git_patch": {"text": 1}}, {"git_patch": 2}]}
    monkeypatch.setattr("flexrec.recorder.recorder.gather_facts", lambda **_: odd)
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add(loss=np.float64(1.0))
    out, _ = flexrec("show", tmp_path / "run.h5")
    assert "loss" in out
    assert "# cut here" in flexrec("show", tmp_path / "run.h5", "--patch")[0]
    assert flexrec("diff", tmp_path / "run.h5", tmp_path / "run.h5")[0]


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(errors).failed == 0
