"""Run a visdom server in a subprocess, by default on the loopback interface.

visdom's own `visdom.server` first downloads its page's scripts, and crashes without internet. This
server downloads nothing: it is given the page's files, which assets.py gets. process.py is the code
of the subprocess.
"""

import importlib.util
import ipaddress
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from flexrec.recorder.errors import MissingDependency, OutputError, ServerError, warn
from flexrec.recorder.files.descriptors import read_at
from flexrec.replay.sinks.http import Connection

LOOPBACK = "127.0.0.1"
CLOSE_SECONDS = 30.0  # a large environment takes a while to save
STATUS_SECONDS = 0.2  # how often `wait` looks whether the server runs
# The server tries to import torch and openTSNE, which takes seconds, and does not need them.
LAUNCH = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv[1])
sys.modules["torch"] = sys.modules["openTSNE"] = None
runpy.run_module("flexrec.replay.server.process", run_name="__main__")
"""


class Server:
    """A running visdom server in a subprocess.

        with start_server(env_path="envs") as server:
            sink = VisdomSink(server="http://127.0.0.1", port=server.port)

    Attributes:
        port: the port that it listens on.
        host: the address that it listens on.
        url: the address for a browser, and for a sink's `server`.
        env_path: the folder of its environment files.
        trouble: after `close`, what could not be saved, and why; or "".
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        log: IO[bytes],
        env_path: Path,
        host: str,
        base_url: str,
    ) -> None:
        self.port = 0
        self.host = host
        self.env_path = env_path
        self.trouble = ""
        self._base_url = base_url
        self._process = process
        self._log = log

    @property
    def url(self) -> str:
        """The address for a browser on this machine, and for a sink's `server`."""
        return f"http://{_reached_by(self.host)}:{self.port}{self._base_url}"

    @property
    def log(self) -> str:
        """The server's output so far."""
        handle = self._log.fileno()
        return read_at(handle, os.fstat(handle).st_size, 0).decode("utf-8", "replace")

    def wait(self) -> int:
        """Wait until the server ends, and return its exit status: 0 if it was told to end."""
        while self._process.poll() is None:
            time.sleep(STATUS_SECONDS)  # on Windows, Ctrl-C interrupts this, and no other wait
        return self._process.returncode

    def close(self) -> list[str]:
        """End the server; it saves the changed environments, whose names are returned.

        `trouble` says what could not be saved. A second call does nothing.
        """
        if self._log.closed:
            return []
        ended = self._process.poll() is not None
        # Both ways to end it, for a forked process may hold the other end of stdin. SIGTERM comes
        # first, as it would kill an interpreter that is ending already.
        if sys.platform != "win32":  # which only kills
            self._process.terminate()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        size = -1
        while self._process.poll() is None and size != (size := len(self.log)):
            with suppress(subprocess.TimeoutExpired):  # it runs as long as it saves
                self._process.wait(CLOSE_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        lost = [f"{name!r} ({why})" for name, why in self._said("lost")]
        if lost:
            self.trouble = f"cannot save in {self.env_path}: {', '.join(lost)}"
        elif self._process.returncode:
            how = "was ended" if ended else f"did not end within {CLOSE_SECONDS:g} s"
            self.trouble = (
                f"visdom's server {how} ({_status(self._process.returncode)}): what has changed "
                f"since it last saved is not in {self.env_path}"
            )
        saved = [str(name) for name, _ in self._said("saved")]
        self._log.close()
        with suppress(OSError):  # where it could not be removed before
            os.unlink(self._log.name)
        return saved

    def _said(self, what: str) -> list[list[Any]]:
        """The facts of each message of this kind that the server has printed."""
        lines = re.findall(r"^flexrec: (\[.*\])$", self.log, re.MULTILINE)
        return [facts for kind, *facts in map(json.loads, lines) if kind == what]

    def _await(self, wanted: int, timeout: float, username: str, password: str) -> None:
        """Wait until the server answers as visdom."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self._process.poll() is not None
            said = self._said("listens")
            if said and not ended:
                break
            if ended and self._said("taken"):
                raise ServerError(
                    f"another flexrec server keeps its environments in {self.env_path}, and each "
                    "would overwrite the other's: use that one, or name another folder"
                )
            unbound = self._said("unbound")
            if ended and unbound == [["port"]]:
                raise ServerError(f"port {wanted} is taken: choose another, or 0 for any free one")
            if ended and unbound == [["address"]]:
                raise ServerError(f"this machine has no address {self.host!r} to listen on")
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else f"did not start within {timeout:g} s"
                raise ServerError(f"visdom's server {what}; it said:\n{self.log[-2000:].strip()}")
            time.sleep(0.02)
        self.port = int(said[0][0])
        connection = Connection(self.url, username=username, password=password)
        connection.probe()
        connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        was_closed = self._log.closed
        self.close()
        if self.trouble and not was_closed:
            warn(self.trouble)


def start_server(
    *,
    env_path: str | os.PathLike[str],
    port: int = 0,
    host: str = LOOPBACK,
    base_url: str = "",
    username: str = "",
    password: str = "",
    files: Mapping[str, str] | None = None,
    hosts: Sequence[str] = (),
    save_seconds: float = 60.0,
    timeout: float = 60.0,
) -> Server:
    """Start a visdom server, and wait until it answers.

        with start_server(env_path="envs", files=provide().files) as server:
            print(server.url)

    It shows the environment files in `env_path`. It saves changed environments once a minute, and
    when it is closed or this process ends in any way; then it ends. A file is replaced completely
    or not at all. visdom 0.2.4 may overwrite files in that folder: use copies of valuable files.

    It answers to its address, `localhost`, the machine's name, and those in `hosts`. Requests to
    other names, and requests that a page of another site sends, are refused.

    Args:
        env_path: the folder of environment files; created if it is missing.
        port: the port to listen on; 0: any free port.
        host: the address to listen on; "0.0.0.0": all IPv4 addresses.
        base_url: serve below this path, such as "/visdom".
        username, password: require a login; give both or none.
        files: the page's files that are not in visdom's own folder: {name below static/: path}.
            Without them the HTTP API works, but the page in the browser does not.
        hosts: other names of the server, such as that of a proxy.
        save_seconds: the time between saves.
        timeout: the longest time to start, in seconds.

    Raises:
        MissingDependency: visdom is not installed.
        OutputError: `env_path` is not a folder, or cannot be created.
        ServerError: another server uses `env_path`, the port is taken, a name in `hosts` is none,
            or the server did not start; the message has the end of its log.
    """
    if importlib.util.find_spec("visdom") is None:
        raise MissingDependency.of("a visdom server", "visdom")
    if bool(username) != bool(password):
        raise ServerError("a login needs both a user name and a password")
    for name in hosts:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ServerError(
                f"{name!r} is not the name of a host: give it without scheme, port and path"
            )
    settings = {
        "base_url": base_url,
        "env_path": str(env_folder(env_path)),
        "files": dict(files or {}),
        "host": host,
        "hosts": list(hosts),
        "password": password,
        "port": port,
        "save_seconds": save_seconds,
        "secret": secrets.token_hex(32),
        "username": username,
    }
    server = _launch(settings)
    try:
        server._await(port, timeout, username, password)
    except BaseException:
        server.close()
        raise
    return server


def env_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of environment files, which is created if it is missing.

    Raises:
        OutputError: the path is not a folder, or it cannot be created.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(
            f"{folder} is no folder: visdom's environment files are kept in a folder; name one"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


def _launch(settings: Mapping[str, Any]) -> Server:
    to_write, name = tempfile.mkstemp(prefix="flexrec-", suffix=".log")
    # Opened again, since two descriptors of one open file have one position.
    log = open(name, "rb")  # noqa: SIM115 - open as long as the server runs
    with suppress(OSError):  # Windows: no, while it is open
        os.unlink(name)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
            [sys.executable, "-c", LAUNCH, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=to_write,
            stderr=subprocess.STDOUT,
            # Ctrl-C is handled by the parent process.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    finally:
        os.close(to_write)
    assert process.stdin is not None  # noqa: S101 - PIPE was requested
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    process.stdin.flush()
    return Server(process, log, Path(settings["env_path"]), settings["host"], settings["base_url"])


def _reached_by(host: str) -> str:
    """The host's name in an address; the loopback's if the server listens on all interfaces."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or LOOPBACK
    if address.is_unspecified:
        return LOOPBACK if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def _status(code: int) -> str:
    """An exit status in words; Popen gives a signal as a negative number."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
