"""`flexrec serve` and `flexrec replay --serve`, as a user runs them and ends them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from flexrec.recorder import Recorder
from flexrec.recorder.errors import OutputError, ServerError
from flexrec.replay.server.assets import survey
from flexrec.replay.server.server import start_server
from flexrec.replay.sinks.http import Connection
from flexrec.replay.sinks.visdom import VisdomSink

# The command line, with a page that needs no files: the server is what is tested here.
COMMAND = (
    sys.executable,
    "-c",
    "import flexrec.replay.server.assets as assets; assets.needed = lambda version: ()\n"
    "from flexrec.cli import main; main()",
)
FLEXREC = Path(sys.executable).with_name("flexrec")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A recording of three marks."""
    path = tmp_path / "run.h5"
    with Recorder(path) as rec:
        for step in range(3):
            rec.add(train_loss=1.0 / (step + 1))
            rec.log(step)
    return path


@contextmanager
def started(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running command, and the address that it printed."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("visdom is at http"), line + process.communicate()[1]
            yield process, line.split()[3]
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str]:
    """Send the signal; what was printed since the address, and what was complained of."""
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return out, error


def until_drawn(url: str, env: str, points: int = 1) -> dict[str, Any]:
    """The windows of an environment, once they are there and their traces have so many points."""
    sink = VisdomSink(server=url)
    until = time.monotonic() + 60
    while True:
        windows = sink.windows(env)
        drawn = [t for window in windows.values() for t in window["content"]["data"]]
        if drawn and all(len(trace["x"]) >= points for trace in drawn):
            sink.close()
            return windows
        assert time.monotonic() < until, windows
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["serve", "replay"])
def test_it_shows_saves_and_ends(
    command: str, number: signal.Signals, run: Path, tmp_path: Path
) -> None:
    envs = tmp_path / "envs"
    options = ["--preset", "loss", "--phases", "train", "--port", 0, "--env-path", envs]
    options += ["--no-browser", *(["--serve"] if command == "replay" else [])]
    with started(command, run, *options) as (process, address):
        url, _, env = address.partition("/env/")
        assert env == "run"
        assert list(until_drawn(url, "run")) == ["loss"]
        out, error = ended(process, number)
    assert f"saved {envs / 'run.json'}" in out
    assert error == ""
    assert list(json.loads((envs / "run.json").read_text())["jsons"]) == ["loss"]


def test_what_cannot_be_saved_is_named(run: Path, tmp_path: Path) -> None:
    envs = tmp_path / "envs"
    options = ["-p", "loss", "--phases", "train", "--port", 0, "--env-path", envs, "--no-browser"]
    with started("serve", run, *options) as (process, address):
        until_drawn(address.partition("/env/")[0], "run")
        (envs / "run.json").mkdir()
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert error == f"flexrec: cannot save in {envs}: 'run' (Is a directory)\n"


def test_several_recordings_have_an_environment_that_the_page_can_open(
    run: Path, tmp_path: Path
) -> None:
    others = [tmp_path / name for name in ("loss+MSE.h5", *(f"{i}.h5" for i in range(5)))]
    for other in others:
        other.write_bytes(run.read_bytes())
    options = ["-p", "loss", "--phases", "train", "--port", 0, "--env-path", tmp_path / "envs"]
    for paths, env in (
        ((run, others[0]), "run, loss_MSE"),
        ((run, *others), "run, loss_MSE, 0, 1 and 3 more"),
    ):
        with started("replay", *paths, *options, "--serve", "--no-browser") as (_, address):
            url, _, named = address.partition("/env/")
            assert unquote(named) == env
            until_drawn(url, env)
            assert requests.get(f"{url}/env/{named}", timeout=30).status_code == 200


def test_a_followed_recording_grows_in_the_server_that_shows_it(tmp_path: Path) -> None:
    path, envs = tmp_path / "run.h5", tmp_path / "envs"
    options = ["--preset", "loss", "--phases", "train", "--serve", "--follow"]
    options += ["--port", "0", "--env-path", str(envs), "--no-browser"]
    with Recorder(path, flush_seconds=0.02) as rec:
        rec.add(train_loss=1.0)
        rec.log(0)
        rec.flush()
        with started("replay", path, *options, "--port", 0, "--env-path", envs, "--no-browser") as (
            process,
            address,
        ):
            url, _, env = address.partition("/env/")
            assert list(until_drawn(url, env, points=1)) == ["loss"]
            for epoch in range(1, 4):
                rec.add(train_loss=1.0 / (epoch + 1))
                rec.log(epoch)
            (loss,) = until_drawn(url, env, points=4).values()
            assert loss["content"]["data"][0]["y"] == [1.0, 1 / 2, 1 / 3, 1 / 4]
            out, error = ended(process, signal.SIGINT)
    assert "1 window in" in out
    assert f"saved {envs / 'run.json'}" in out
    assert "the run has not ended" in error


def test_without_recordings_it_serves_what_was_saved(tmp_path: Path) -> None:
    arguments = ("serve", "--port", 0, "--env-path", tmp_path / "envs", "--no-browser")
    with started(*arguments) as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
        assert ended(process, signal.SIGINT)[1] == ""


def test_a_login_is_asked_for(tmp_path: Path) -> None:
    login = {"VISDOM_USERNAME": "ada", "VISDOM_PASSWORD": "sesame"}
    arguments = ("serve", "--login", "--port", 0, "--env-path", tmp_path, "--no-browser")
    with started(*arguments, **login) as (_, address):
        for password, lets_in in (("sesame", True), ("wrong", False)):
            connection = Connection(address, username="ada", password=password)
            if lets_in:
                connection.probe()
            else:
                with pytest.raises(ServerError, match="refuses"):
                    connection.probe()
            connection.close()
    line = fails("serve", "--login", "--env-path", tmp_path)
    assert "VISDOM_USERNAME and VISDOM_PASSWORD" in line


def test_other_hosts_are_warned_of(tmp_path: Path) -> None:
    arguments = ("serve", "--host", "0.0.0.0", "--port", 0)  # noqa: S104 - what is tested
    with started(*arguments, "--env-path", tmp_path, "--no-browser") as (process, _):
        assert "--login asks for a password" in ended(process, signal.SIGTERM)[1]


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = fails("serve", "--port", port, "--env-path", tmp_path)
    assert f"port {port} is taken" in line


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, None])
def test_environments_that_are_to_be_kept_in_no_folder_are_told(
    tmp_path: Path, run: Path, make: Callable[[Path], object] | None
) -> None:
    """Before anything starts, or is fetched."""
    path, told = tmp_path / "envs", "is no folder"
    if make is None:
        path, told = path / "below", f"cannot make the folder {path / 'below'}: Not a directory"
        path.parent.touch()
    else:
        make(path)
    for arguments in (("serve",), ("replay", run, "-p", "loss", "--serve")):
        assert told in fails(*arguments, "--port", 0, "--env-path", path)
    with pytest.raises(OutputError, match=told):
        start_server(env_path=path)


def test_a_page_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    if survey().installed:
        pytest.skip("visdom has downloaded its page on this machine: nothing is missing")
    nowhere = {"XDG_CACHE_HOME": str(tmp_path), "npm_config_registry": "http://127.0.0.1:1/"}
    line = fails(
        "serve", "--port", 0, "--env-path", tmp_path, command=(FLEXREC,), environment=nowhere
    )
    assert "flexrec assets bundle" in line
    assert line.rstrip().endswith("give it here as --assets PATH")
    done = subprocess.run(
        [FLEXREC, "assets", "status"],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "js/plotly-plotly.min.js (plotly.js-dist-min@2.11.1)" in done.stdout


def test_a_browser_is_opened_where_there_is_one(run: Path, tmp_path: Path) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    options = ("-p", "loss", "--phases", "train", "--serve", "--port", 0, "--env-path", tmp_path)
    with started("replay", run, *options, BROWSER=f"{browser} %s") as (process, address):
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("1 window in" in line for line in lines)
        while not seen.exists() or not seen.read_text():
            assert process.poll() is None
        ended(process, signal.SIGINT)
    assert seen.read_text().strip() == address


def test_key_chooses_what_is_shown(run: Path, tmp_path: Path) -> None:
    options = ("-p", "loss", "--env-path", tmp_path, "--no-browser", "--port", 0)
    line = fails("serve", run, *options, "-k", "none*", lines=None)
    assert "and of these only none*" in line
    with started("serve", run, *options, "-k", "train_*") as (process, address):
        assert list(until_drawn(address.partition("/env/")[0], "run")) == ["loss"]
        ended(process, signal.SIGTERM)


def test_it_goes_one_way(run: Path, tmp_path: Path) -> None:
    both = ("--serve", "--html", tmp_path / "x.html")
    assert "choose one of" in fails("replay", run, "-p", "loss", *both, lines=None)


def fails(
    *arguments: object,
    command: tuple[object, ...] = COMMAND,
    lines: int | None = 1,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run the command, which must end with exit code 2; return what it says."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("VISDOM_")}
    done = subprocess.run(
        list(map(str, (*command, *arguments))),
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert lines is None or len(done.stderr.strip().splitlines()) == lines, done.stderr
    return done.stderr
