"""Our own visdom: on the loopback alone, without a download, gone when it should be."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from flexrec.recorder.errors import OutputError, ServerError
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.server import server as server_module
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks.env_file import EnvFileSink
from flexrec.replay.sinks.http import Connection
from flexrec.replay.sinks.visdom import VisdomSink


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
    assert server.wait() == 0


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
    for username, password in (("", ""), ("ada", "sesame")):
        with start_server(env_path=tmp_path / "envs", username=username, password=password):
            assert list(home.iterdir()) == []


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken"):
            start_server(env_path=tmp_path, port=port)


WINDOW = Window("w", "mine", "text", (Trace("t", "kept"),))


@pytest.mark.parametrize("end", ["close", "kill the parent's end"])
def test_what_changed_is_saved_at_the_end(tmp_path: Path, end: str) -> None:
    with start_server(env_path=tmp_path) as server:
        sink = VisdomSink(server=server.url)
        sink.show([WINDOW])
        sink.close()
        if end == "close":
            assert server.close() == ["mine"]
            assert server.close() == []
        else:
            assert server._process.stdin is not None
            server._process.stdin.close()
            assert server.wait() == 0
    saved = json.loads((tmp_path / "mine.json").read_text())
    assert saved["jsons"]["w"]["content"] == "kept"


FORKS = """
import os, signal, sys
from flexrec.replay.server.server import start_server
server = start_server(env_path=sys.argv[1])
child = os.fork()
if not child:
    signal.pause()
server.close()
os.kill(child, signal.SIGKILL)
print(server.trouble or "ended")
"""


def test_a_forked_process_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    """It holds the other end of the server's stdin, too."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "ended\n", done.stderr


def test_what_was_only_looked_at_is_not_written(tmp_path: Path) -> None:
    sink = EnvFileSink(tmp_path / "golden.json")
    sink.show([WINDOW])
    sink.close()
    (tmp_path / "unseen.json").write_bytes((tmp_path / "golden.json").read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert len(before) == 3  # with the environment that names none
    with start_server(env_path=tmp_path) as server:
        viewer = VisdomSink(server=server.url)
        assert list(viewer.windows("golden-mine")) == ["w"]
        viewer.close()
        assert server.close() == []
    for path, content in before.items():
        assert path.read_bytes() == content


def test_it_hands_out_the_files_that_it_is_given(tmp_path: Path) -> None:
    asset = tmp_path / "elsewhere.js"
    asset.write_text("given")
    secret = tmp_path / "secret"
    secret.write_text("not for you")
    files = {"js/jquery.min.js": str(asset)}
    with start_server(env_path=tmp_path / "envs", files=files, base_url="/at") as server:
        page = requests.get(f"{server.url}/", timeout=10)
        assert page.status_code == 200  # tornado 6.6 would say 403 for its `..`
        assert "js/jquery.min.js" in page.text
        own = requests.get(f"{server.url}/static/js/main.js", timeout=10)
        assert len(own.content) > 1000
        given = requests.get(f"{server.url}/static/js/jquery.min.js?v=1", timeout=10)
        assert given.text == "given"
        for path in (secret, "../" * 20 + str(secret), "js/nothing.js"):
            address = f"{server.url}/static/{str(path).replace('/', '%2f')}"
            assert requests.get(address, timeout=10).status_code in (403, 404)


def test_it_listens_elsewhere_when_asked(tmp_path: Path) -> None:
    with start_server(env_path=tmp_path, host="0.0.0.0") as server:  # noqa: S104 - what is tested
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert answers(server)
        table = Path("/proc/net/tcp").read_text()
        assert f"00000000:{server.port:04X}" in table
    with pytest.raises(ServerError, match=r"no address '192\.0\.2\.1'"):
        start_server(env_path=tmp_path, host="192.0.2.1")


def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="is no folder"):
        start_server(env_path=tmp_path / "file")
    monkeypatch.setattr(server_module, "env_folder", Path)  # it becomes a file meanwhile
    with pytest.raises(ServerError, match=r"(?s)server ended; it said.*Error"):
        start_server(env_path=tmp_path / "file")


def test_half_a_login_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="both"):
        start_server(env_path=tmp_path, username="ada")


@pytest.mark.parametrize("name", ["", "*", "http://my.host", "my.host:80", "my host"])
def test_what_is_no_name_of_a_host_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServerError, match="not the name of a host"):
        start_server(env_path=tmp_path, hosts=[name])


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from flexrec.replay.server.server import start_server\n"
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
