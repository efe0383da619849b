"""Servers that are not visdom, or visdom on a bad day: each answers as a script says."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["answering", "scripted", "talking"]

Answer = Callable[[str, dict[str, Any]], tuple[int, str] | None]


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """An HTTP server; `answer(path, message)` gives status and body, or None to hang up."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            said = answer(self.path, json.loads(body))
            if said is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(said[0])
            self.send_header("Content-Length", str(len(said[1])))
            self.end_headers()
            self.wfile.write(said[1].encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def scripted(*script: tuple[int, str] | None) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """visdom, but for what the script says to its first windows: its port, and what it was sent.

    Once the script is used up, and for an entry of status 0, it answers as visdom does.
    """
    sent: list[dict[str, Any]] = []
    left = list(script)

    def answer(path: str, message: dict[str, Any]) -> tuple[int, str] | None:
        if path == "/win_exists":
            return 200, "false"
        sent.append(message)
        said = left.pop(0) if left else (0, "")
        return (200, message["win"]) if said is not None and said[0] == 0 else said

    with answering(answer) as port:
        yield port, sent


@contextmanager
def talking(greeting: bytes | None, *, forever: bool = False) -> Iterator[int]:
    """A TCP server that sends the greeting once the client speaks; None: it stays silent."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            if greeting is None:
                ended.wait()
                return
            try:
                connection.sendall(greeting)
                while forever and not ended.is_set():
                    connection.sendall(b"x" * 1024)
            except OSError:
                return  # the client has heard enough

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        thread.join()
        listener.close()
