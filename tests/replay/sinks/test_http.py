"""Whatever listens, or does not, is told apart in seconds, with what to do about it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from flexrec.recorder.errors import ServerError
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks import http
from flexrec.replay.sinks.http import Connection, TransientError
from support.fake_http import answering, talking


@contextmanager
def connected(*args: object, **options: object) -> Iterator[Connection]:
    connection = Connection(*args, **options)  # type: ignore[arg-type]
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISDOM_USERNAME", raising=False)
    monkeypatch.delenv("VISDOM_PASSWORD", raising=False)


def refusal(port: int, **options: object) -> str:
    """What `probe` raises."""
    with connected("127.0.0.1", port, **options) as connection:
        with pytest.raises(ServerError) as caught:
            connection.probe()
        assert str(port) in str(caught.value)
        return str(caught.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (("localhost", 8097), "http://localhost:8097"),
        (("http://localhost", 1), "http://localhost:1"),
        (("https://a.b:99/x/", 8097), "https://a.b:99/x"),
        (("http://[::1]", 8097), "http://[::1]:8097"),
    ],
)
def test_addresses(given: tuple[str, int], url: str) -> None:
    with connected(*given) as connection:
        assert connection.url == url


@pytest.mark.parametrize("base_url", ["vis/", "/vis", "vis"])
def test_base_urls(base_url: str) -> None:
    with connected("h", 1, base_url=base_url) as connection:
        assert connection.url == "http://h:1/vis"


@pytest.mark.parametrize(
    "given",
    [("ftp://h", 1), ("", 1), ("http://", 1), ("h", 0), ("h", 70000), ("h:x", 1), ("h", "8097")],
)
def test_no_addresses(given: tuple[str, int]) -> None:
    with pytest.raises(ServerError, match=r"address|port must be a whole number"):
        Connection(*given)


def test_visdom_answers(visdom_server: Server) -> None:
    with connected("127.0.0.1", visdom_server.port) as connection:
        connection.probe()
        assert connection.post("win_exists", {"win": "none", "eid": "main"}) == "false"


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # taken, but nobody listens
        assert "nobody listens" in refusal(bound.getsockname()[1])


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with connected("no-such-host") as connection, pytest.raises(ServerError, match="not resolve"):
        connection.probe()


def test_a_silent_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PROBE_SECONDS", 0.2)
    with talking(None) as port:
        assert "stays silent for 0.2 s" in refusal(port)


def test_a_host_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests.Session, "post", fail)
    with connected("h", 1) as connection, pytest.raises(ServerError, match="firewall"):
        connection.probe()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, "<html>hello</html>"), "is not visdom.*<html>hello"),
        ((200, ""), "is not visdom"),
        ((404, "no"), "is not visdom.*404"),
        ((405, ""), "is not visdom.*405"),
        ((302, ""), "is not visdom.*302"),
        ((400, "bad request"), "is not visdom.*400"),
        ((503, ""), "fails with HTTP status 503"),
        (None, "cut the connection"),
    ],
)
def test_other_servers(answer: tuple[int, str] | None, message: str) -> None:
    with (
        answering(lambda *_: answer) as port,
        connected("127.0.0.1", port) as connection,
        pytest.raises(ServerError, match=message),
    ):
        connection.probe()


def test_a_server_that_does_not_speak_http() -> None:
    with talking(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        assert "does not speak HTTP" in refusal(port)


def test_an_answer_without_end() -> None:
    with talking(b"HTTP/1.1 200 OK\r\n\r\n", forever=True) as port:
        assert "is not visdom" in refusal(port)


def test_a_server_that_does_not_speak_tls() -> None:
    with (
        talking(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port,
        connected(f"https://127.0.0.1:{port}") as connection,
        pytest.raises(ServerError, match="TLS"),
    ):
        connection.probe()


def test_proxies_are_for_hosts_elsewhere(
    visdom_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{bound.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        for loopback in ("127.0.0.1", "localhost", "localhost.", "127.1", "0.0.0.0"):  # noqa: S104
            with connected(loopback, visdom_server.port) as connection:
                connection.probe()
        elsewhere = connected("visdom.invalid")
        told = r"cannot be reached through the proxy .*127\.0\.0\.1.*NO_PROXY=visdom\.invalid"
        with elsewhere as connection, pytest.raises(ServerError, match=told):
            connection.probe()


@pytest.mark.parametrize("status", [200, 403, 503])
def test_what_a_proxy_answers_is_not_blamed_on_visdom(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with answering(lambda *_: (status, "denied")) as port:
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
        with connected("node17") as connection, pytest.raises(ServerError) as caught:
            connection.probe()
    assert f"through the proxy 127.0.0.1:{port}" in str(caught.value)
    assert "set NO_PROXY=node17" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_silent_proxy_is_not_taken_for_visdom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        told = r"through the proxy \S+, which stays silent for 0.2 s; .*NO_PROXY=node17"
        with (
            connected("node17", timeout=0.2) as connection,
            pytest.raises(ServerError, match=told),
        ):
            connection.probe()


@pytest.mark.parametrize("host", ["::", "::ffff:127.0.0.1", "LOCALHOST", "a.localhost", "0"])
def test_this_machine_in_any_spelling(host: str) -> None:
    assert http._is_local(host.lower())


@pytest.mark.parametrize("host", ["10.0.0.1", "node17", "localhost.example", "::2"])
def test_other_machines(host: str) -> None:
    assert not http._is_local(host)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(
        env_path=tmp_path_factory.mktemp("locked"),
        base_url="/vis",
        username="ada",
        password="open sesame",  # noqa: S106
    ) as server:
        yield server


def test_a_login_that_was_not_given(locked: Server) -> None:
    asks = r"asks for a login.*VISDOM_USERNAME"
    with connected(locked.url) as connection, pytest.raises(ServerError, match=asks):
        connection.probe()


def test_a_wrong_password(locked: Server) -> None:
    with connected(locked.url, username="ada", password="no") as connection:  # noqa: S106
        with pytest.raises(ServerError, match="refuses the password of user 'ada'") as caught:
            connection.probe()
        assert "no'" not in str(caught.value)


def test_a_right_password(locked: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISDOM_USERNAME", "ada")
    monkeypatch.setenv("VISDOM_PASSWORD", "open sesame")
    with connected("127.0.0.1", locked.port, base_url="/vis") as connection:
        connection.probe()
        assert connection.post("env_state", {}) == '["main"]'


def test_credentials_that_nobody_asks_for(visdom_server: Server) -> None:
    url, name = visdom_server.url, "ada"
    with connected(url, username=name, password=name) as connection:
        connection.probe()


def test_what_is_worth_another_try() -> None:
    with (
        answering(lambda *_: (502, "")) as port,
        connected("127.0.0.1", port) as connection,
        pytest.raises(TransientError),
    ):
        connection.post("events", {})
    with connected("127.0.0.1", port) as connection, pytest.raises(TransientError):
        connection.post("events", {})


@pytest.mark.parametrize(
    "options", [{"timeout": "5"}, {"timeout": None}, {"base_url": 5}, {"base_url": None}]
)
def test_options_of_another_type_are_told(options: Any) -> None:
    with pytest.raises(ServerError, match=r"timeout must be a number|a base URL is a path"):
        Connection(**options)
