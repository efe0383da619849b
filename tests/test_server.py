"""Our own visdom: on the loopback alone, without a download, gone when it should be."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexrec.recorder.errors import ServerError
from flexrec.replay.server import Server, start_server
from flexrec.replay.visdom_http import Connection


def answers(server: Server) -> bool:
    connection = Connection(server.url)
    try:
        connection.probe()
    except ServerError:
        return False
    finally:
        connection.close()
    return True


def test_it_answers_and_ends(tmp_path: Path) -> None:
    with start_server(env_path=tmp_path / "envs") as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert answers(server)
        assert (tmp_path / "envs" / "main.json").exists()
    server.close()
    assert not answers(server)
    assert server.wait() == -signal.SIGTERM


def test_it_listens_on_the_loopback_alone(visdom_server: Server) -> None:
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = [line.split()[1] for line in table.splitlines() if line.split()[3] == "0A"]
    assert [at for at in listening if at.endswith(f":{visdom_server.port:04X}")] == [
        f"0100007F:{visdom_server.port:04X}"
    ]


def test_it_writes_nothing_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    login = {"username": "ada", "password": "sesame"}
    for options in ({}, login):
        with start_server(env_path=tmp_path / "envs", **options):
            assert list(home.iterdir()) == []


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken"):
            start_server(env_path=tmp_path, port=port)


def test_a_port_snatched_away_is_tried_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = [other.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr("flexrec.replay.server._free_port", lambda: ports.pop(0))
        with start_server(env_path=tmp_path) as server:
            assert server.port != other.getsockname()[1]
            assert answers(server)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServerError, match=r"(?s)server ended; it said.*Error"):
        start_server(env_path=tmp_path / "file")


def test_half_a_login_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="both"):
        start_server(env_path=tmp_path, username="ada")


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from flexrec.replay.server import start_server\n"
        "server = start_server(env_path=sys.argv[1])\n"
        "print(server._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(500):
        if not alive(pid):
            break
        time.sleep(0.02)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status
