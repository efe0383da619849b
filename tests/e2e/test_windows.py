"""The viewing side on Windows, acted on Linux: the same files, to the byte, and nothing missing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder
from support.windows import COMMANDS as PACKAGES
from support.windows import READING, acting, beginning

COMMANDS = {  # and how each ends
    "runs .": 0,
    "runs . --sort name": 0,
    "replay . -p loss --save all.json": 0,
    "show run.h5": 0,
    "show run.h5 --plot loss": 0,
    "show run.h5 --model": 0,
    "show absent.h5": 2,
    "verify killed.h5": 1,
    "replay run.h5 --save auto.json": 0,
    "replay run.h5 -p loss+MSE --save env.json": 0,
    "replay other.h5 -p loss+MSE --save env.json --force": 0,
    "replay run.h5 -p loss --save env.json": 2,
    "replay run.h5 -c plots.toml --save toml.json": 0,
    "replay run.h5 other.h5 -p loss --html page.html": 0,
    "check run.h5 -p loss -g golden.json --update": 0,
    "check run.h5 -p loss -g golden.json": 0,
    "check other.h5 -p loss -g golden.json": 1,
    "export run.h5": 0,
    "export run.h5 --out run.csv": 0,
    "export run.h5 --out run.csv --force": 0,
    "export run.h5 --out run.parquet": 0,
    "diff run.h5 other.h5": 1,
    "merge run.h5 other.h5 --into merged.h5": 0,
    "repair killed.h5 --keep-original": 0,
    "presets": 0,
    "presets loss": 0,
    "meters": 0,
    "meters AverageValueMeter": 0,
    "plots": 0,
    "--version": 0,
}
TOML = '[plots.verlust]\ntype = "line"\nopts = {title = "Größe, потеря"}\n\n'
TOML += '[meters.train_loss]\ntype = "AverageValueMeter"\ntarget = "verlust"\n'
TEST = "def test_loss(plot_check):\n    plot_check('run.h5', preset='loss')\n"


def record(path: Path, factor: float) -> None:
    with Recorder(path, facts=False) as rec:
        for i in range(6):
            rec.add({"train_loss": factor / (i + 1), "train_mse": (np.ones(2), np.full(2, i))})
            rec.add({"потеря": 1.0, "note": "− größe 温度\n\x1a", "0/weights/mean": 0.5})
            rec.log(i)
            rec.step()
        rec.flush()
        if factor == 1:
            path.with_name("killed.h5").write_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Equal folders with recordings, for the two systems."""
    made = tmp_path_factory.mktemp("made")
    record(made / "run.h5", 1)
    record(made / "other.h5", 2)
    (made / "plots.toml").write_text(TOML, encoding="utf-8")
    found = {}
    for system in ("linux", "windows"):
        found[system] = tmp_path_factory.mktemp(system)
        for path in made.iterdir():
            (found[system] / path.name).write_bytes(path.read_bytes())
    return found


@pytest.fixture(scope="module")
def done(folders: dict[str, Path]) -> dict[str, list[tuple[Any, str]]]:
    """The results of the commands on each system."""
    commands = [command.split() for command in COMMANDS]
    return {system: acting(system, commands, cwd) for system, cwd in folders.items()}


def test_every_command_ends_alike(
    folders: dict[str, Path], done: dict[str, list[tuple[Any, str]]]
) -> None:
    for (command, code), linux, windows in zip(
        COMMANDS.items(), done["linux"], done["windows"], strict=True
    ):
        assert windows[0] == code, f"{command}: {windows}"
        text = windows[1].replace("\r\n", "\n").replace(str(folders["windows"]), "")
        assert text == linux[1].replace(str(folders["linux"]), ""), command


def test_a_table_on_stdout_has_no_carriage_returns(done: dict[str, Any]) -> None:
    for result in done.values():
        _, text = result[list(COMMANDS).index("export run.h5")]
        assert "\r" not in text
        assert text.startswith("key,step,time,value,text\n")


def test_every_file_is_the_same_to_the_byte(
    folders: dict[str, Path], done: dict[str, list[tuple[Any, str]]]
) -> None:
    kept = {system: {p.name for p in folder.iterdir()} for system, folder in folders.items()}
    assert kept["linux"] == kept["windows"]
    assert {"env.json", "golden.json", "golden.obtained.json", "page.html"} <= kept["linux"]
    assert not [name for name in kept["windows"] if name.startswith(".")]
    for name in sorted(kept["linux"]):
        linux, windows = ((folders[s] / name).read_bytes() for s in ("linux", "windows"))
        if not name.startswith(("merged", "killed")):  # they have the time of their making
            assert linux == windows, name


PYTEST = f"""{beginning(READING + " pytest _pytest.capture")}
import pytest
options = ["-q", "--capture=sys", "-p", "no:cacheprovider"]
for more in ("--plot-update", "--strict-markers"):
    assert pytest.main([*options, more, "test_it.py"]) == 0
"""


def test_goldens_of_pytest_are_the_same(folders: dict[str, Path], done: dict[str, Any]) -> None:
    folder = folders["windows"]
    (folder / "test_it.py").write_text(TEST)
    subprocess.run([sys.executable, "-c", PYTEST], cwd=folder, check=True)
    made = (folder / "goldens" / "test_it" / "test_loss.json").read_bytes()
    assert made == (folders["linux"] / "golden.json").read_bytes()


SERVE = f"""{beginning(PACKAGES)}
import sys
from flexrec.recorder.errors import ServerError
from flexrec.replay.server.server import start_server

with start_server(env_path="envs") as server:
    sys.argv = ["flexrec", "replay", "run.h5", "-p", "loss", "--port", str(server.port)]
    from flexrec.cli.commands import run
    try:
        run()
    except SystemExit as end:
        assert not end.code, end.code
    try:
        start_server(env_path="envs")
    except ServerError as error:
        assert "another flexrec server" in str(error), error
    else:
        raise AssertionError("two servers share a folder")
    try:
        start_server(env_path="others", port=server.port)
    except ServerError as error:
        assert "is taken" in str(error), error
    assert server.close() == ["run"], server.trouble
    assert server.wait() == 0 and not server.trouble
"""


def test_a_server_ends_cleanly_and_saves(folders: dict[str, Path]) -> None:
    folder = folders["windows"]
    done = subprocess.run(
        [sys.executable, "-c", SERVE], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    saved = json.loads((folder / "envs" / "run.json").read_bytes())
    assert saved["jsons"]["loss"]["content"]["data"]


RECORD = f"""{beginning(READING)}
import flexrec, flexrec.recorder
try:
    flexrec.Recorder("new.h5")
except flexrec.recorder.RecordingError as error:
    assert "does not record on Windows" in str(error), error
else:
    raise AssertionError("it records")
"""


def test_recording_is_refused_in_one_sentence(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", RECORD], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
