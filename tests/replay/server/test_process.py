"""What our server writes, and whom it answers."""

import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
import requests
import websocket

from flexrec.recorder.errors import ServerError
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.server import process
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks.visdom import VisdomSink

HTML = {"data": [{"content": "<b>theirs</b>", "type": "text"}], "win": "w", "eid": "evil"}
EVIL = "http://evil.example"


def show(server: Server, *envs: str, text: str = "kept") -> None:
    sink = VisdomSink(server=server.url)
    sink.show([Window("w", env, "text", (Trace("t", text),)) for env in envs])
    sink.close()


def saved(path: Path) -> str:
    """The text of the window in an environment file."""
    return str(json.loads(path.read_text())["jsons"]["w"]["content"])


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("existing", [True, False])
def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "env.json"
    if existing:
        path.write_text("before")
        path.chmod(0o640)
    with suppress(ZeroDivisionError), process._whole(path, "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert [p.read_text() for p in tmp_path.iterdir()] == ["before"] * existing
    with process._whole(path, "w") as file:
        file.write("after")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["after"]
    mode = path.stat().st_mode & 0o777
    assert mode == (0o640 if existing else 0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_one_environment_that_cannot_be_saved_does_not_lose_the_others(tmp_path: Path) -> None:
    long = "long" * 80
    with start_server(env_path=tmp_path) as server:
        show(server, "first", "in the way", "last")
        (tmp_path / "in the way.json").mkdir()
        if visdom_names_long_files():
            show(server, long)
        assert sorted(server.close()) == ["first", "last"]
        assert server.trouble.startswith(f"cannot save in {tmp_path}: 'in the way' (Is a directory")
        assert (f"{long!r} (File name too long)" in server.trouble) == visdom_names_long_files()
    assert saved(tmp_path / "first.json") == saved(tmp_path / "last.json") == "kept"
    assert not list(tmp_path.glob(".*"))


def visdom_names_long_files() -> bool:
    """Whether it names them after the environment; 0.3 gives those another name."""
    return metadata.version("visdom").startswith("0.2.")


def test_the_end_of_a_with_block_warns_of_what_could_not_be_saved(tmp_path: Path) -> None:
    server = start_server(env_path=tmp_path)
    show(server, "a")
    (tmp_path / "a.json").mkdir()
    with pytest.warns(RuntimeWarning, match="cannot save in"), server:
        pass


def test_it_saves_meanwhile_and_a_kill_leaves_whole_files(tmp_path: Path) -> None:
    server = start_server(env_path=tmp_path, save_seconds=0.05)
    for i in range(20):
        show(server, "a", text=str(i))
    while not (tmp_path / "a.json").exists():
        time.sleep(0.01)
    os.kill(server._process.pid, signal.SIGKILL)
    server.wait()
    assert server.close() == []
    assert "was ended (SIGKILL): what has changed since it last saved" in server.trouble
    assert saved(tmp_path / "a.json").isdigit()
    (tmp_path / f"{process.PARTIAL}left").touch()
    with start_server(env_path=tmp_path):
        assert not list(tmp_path.glob(".*")), "what a kill has left is cleared away"


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    told = "another flexrec server keeps its environments"
    with start_server(env_path=tmp_path), pytest.raises(ServerError, match=told):
        start_server(env_path=tmp_path)
    with start_server(env_path=tmp_path):
        pass


# ---------------------------------------------------------------------- who may ask


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(env_path=tmp_path_factory.mktemp("asked"), hosts=["plots.example"]) as server:
        yield server


def asked(server: Server, **headers: str) -> int:
    """The status of a GET of the page with these headers."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(f"{server.url}/", headers=sent, timeout=30).status_code


def test_it_goes_by_its_own_names_alone(server: Server) -> None:
    own = ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1", "[::1]", "10.0.0.7"]
    for name in (*own, socket.gethostname(), "plots.example"):
        assert asked(server, Host=f"{name}:{server.port}") == 200, name
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil"):
        assert asked(server, Host=f"{name}:{server.port}") == 403, name
        assert asked(server, Host=name) == 403, name


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example", "Origin": EVIL},
    ],
)
def test_what_pages_of_other_sites_send_makes_no_window(
    server: Server, headers: dict[str, str]
) -> None:
    answer = requests.post(
        f"{server.url}/events",
        data=json.dumps(HTML),
        headers={"Content-Type": "text/plain", **headers},
        timeout=30,
    )
    assert answer.status_code == 403
    sink = VisdomSink(server=server.url)
    assert "evil" not in sink.environments()
    sink.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "{url}"},
        {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"},
        {"Origin": "https://plots.example"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
def test_its_own_page_is_let_and_so_are_programs(server: Server, headers: dict[str, str]) -> None:
    sent = {name: text.format(url=server.url, port=server.port) for name, text in headers.items()}
    window = {"win": "w", "eid": "main"}
    address = f"{server.url}/win_exists"
    answer = requests.post(address, data=json.dumps(window), headers=sent, timeout=30)
    assert (answer.status_code, answer.text) == (200, "false")


def test_a_link_from_another_site_opens_the_page(server: Server) -> None:
    assert asked(server, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200


@pytest.mark.parametrize("path", ["socket", "vis_socket"])
def test_websockets_are_for_its_own_page(server: Server, path: str) -> None:
    address = f"ws://127.0.0.1:{server.port}/{path}"
    for origin in (EVIL, "null"):
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(address, origin=origin, timeout=30)
    for leave_out in (False, True):
        connection = websocket.create_connection(address, timeout=30, suppress_origin=leave_out)
        assert connection.recv()
        connection.close()


# ---------------------------------------------------------------------- the login


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("locked")
    with start_server(env_path=folder, username="ada", password="sesame") as server:  # noqa: S106
        yield server


def guess(server: Server, password: str) -> requests.Response:
    user = {"username": "ada", "password": password}
    return requests.post(server.url, data=json.dumps(user), timeout=60)


def test_the_cookie_is_kept_from_scripts_and_other_sites(locked: Server) -> None:
    digest = hashlib.sha256(b"sesame").hexdigest()
    (cookie,) = guess(locked, digest).headers["Set-Cookie"].split(", ")[-1:]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_guesses_wait_for_one_another_and_are_few(locked: Server) -> None:
    with ThreadPoolExecutor(30) as pool:
        answers = pool.map(lambda i: guess(locked, str(i)).status_code, range(30))
        assert set(answers) == {400, 429}
    assert guess(locked, "wrong").status_code == 400, "and later ones are heard again"


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "{}", '{"username": 1, "password": []}'])
def test_what_is_no_login_is_a_wrong_one(locked: Server, body: str) -> None:
    assert requests.post(locked.url, data=body, timeout=60).status_code == 400


def test_other_sites_may_not_frame_the_page(locked: Server) -> None:
    assert requests.get(locked.url, timeout=60).headers["X-Frame-Options"] == "SAMEORIGIN"
