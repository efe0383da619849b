"""What a page of another site, open in the same browser, can do with our server: nothing."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flexrec.replay.server.assets import provide
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks.visdom import VisdomSink

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.viewing]

WINDOW = {"data": [{"content": "<b>theirs</b>", "type": "text"}], "win": "w", "eid": "theirs"}
TRIES = """
async ([url, sent]) => {
  const text = {method: "POST", headers: {"Content-Type": "text/plain"}, body: sent};
  const post = (mode) => fetch(`${url}/events`, {...text, mode}).then(({status}) => status, String);
  await post("no-cors");
  const opened = (name) => new Promise((done) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/${name}`);
    socket.onopen = () => done(true);
    socket.onerror = () => done(false);
  });
  return {
    posted: await post("cors"),
    read: await fetch(`${url}/`).then(() => true, () => false),
    sockets: [await opened("socket"), await opened("vis_socket")],
  };
}
"""


class Blank(BaseHTTPRequestHandler):
    """Answers with an empty page."""

    def do_GET(self) -> None:
        """Answer any path."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server."""
    folder = tmp_path_factory.mktemp("envs")
    with start_server(env_path=folder, files=provide().files) as started:
        yield started


@pytest.fixture(scope="module")
def other() -> Iterator[int]:
    """The port of another server on the loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


@contextmanager
def opened(browser: "Browser", address: str) -> "Iterator[tuple[Page, Any]]":
    """A page of an address, and the response."""
    context = browser.new_context()
    page = context.new_page()
    yield page, page.goto(address)
    context.close()


def environments(server: Server) -> list[str]:
    sink = VisdomSink(server=server.url)
    found = list(sink.environments())
    sink.close()
    return found


def test_our_own_page_may_do_it(browser: "Browser", tmp_path: Path) -> None:
    with (
        start_server(env_path=tmp_path, files=provide().files) as server,
        opened(browser, server.url) as (page, _),
    ):
        told = page.evaluate(TRIES, [server.url, json.dumps(WINDOW)])
        assert told == {"posted": 200, "read": True, "sockets": [True, True]}
        assert "theirs" in environments(server)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "other.test"])
def test_a_page_of_another_site_may_not(
    name: str, browser: "Browser", server: Server, other: int
) -> None:
    with opened(browser, f"http://{name}:{other}/") as (page, _):
        told = page.evaluate(TRIES, [server.url, json.dumps(WINDOW)])
        assert told["posted"] == "TypeError: Failed to fetch"
        assert told["read"] is False
        assert told["sockets"] == [False, False]
        assert "theirs" not in environments(server)

        page.set_content(f'<iframe src="{server.url}/"></iframe>')
        page.wait_for_load_state("networkidle")
        assert page.frames[1].url.startswith("chrome-error:")


def test_a_name_that_is_made_to_lead_to_us_is_refused(browser: "Browser", server: Server) -> None:
    with opened(browser, f"http://rebound.test:{server.port}/") as (page, response):
        assert response.status == 403
        told = page.evaluate(TRIES, [f"http://rebound.test:{server.port}", json.dumps(WINDOW)])
        assert told["posted"] == 403
        assert told["sockets"] == [False, False]
    assert "theirs" not in environments(server)
