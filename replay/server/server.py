"""A visdom server of our own: a subprocess, on the loopback unless asked otherwise.

Started by `visdom.server` itself, visdom first downloads its page's scripts, and crashes where
there is no internet. This one downloads nothing: it is handed the page's files, which `assets`
gathers. What runs inside is in `process`.
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
from flexrec.replay.sinks.http import Connection

LOOPBACK = "127.0.0.1"
CLOSE_SECONDS = 30.0  # a large environment takes a while to save
# The server looks for torch and openTSNE, which take seconds to import, and has no use for them.
LAUNCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["openTSNE"] = None
runpy.run_path(sys.argv[1], run_name="__main__")
"""


class Server:
    """A running visdom server, and the process that it is.

        with start_server(env_path="envs") as server:
            sink = VisdomSink(server="http://127.0.0.1", port=server.port)

    Attributes:
        port: where it listens.
        host: the address that it listens on.
        url: the address for a browser, and for a sink's `server`.
        env_path: the folder of its environment files.
        trouble: after `close`, what could not be saved and why, or "".
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
        """What the server has printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def wait(self) -> int:
        """Wait until the server ends, and give its exit status: 0 where it was told to."""
        return self._process.wait()

    def close(self) -> list[str]:
        """End the server; it saves the environments that have changed, and these are returned.

        What cannot be saved is told by `trouble`. A second call does nothing.
        """
        if self._log.closed:
            return []
        ended = self._process.poll() is not None
        self._process.terminate()
        size = -1
        while self._process.poll() is None and size != (size := len(self.log)):
            with suppress(subprocess.TimeoutExpired):  # it goes on as long as it saves
                self._process.wait(CLOSE_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
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
        return saved

    def _said(self, what: str) -> list[list[Any]]:
        """What the server has told of this kind: the facts of each line."""
        lines = re.findall(r"^flexrec: (\[.*\])$", self.log, re.MULTILINE)
        return [facts for kind, *facts in map(json.loads, lines) if kind == what]

    def _await(self, wanted: int, timeout: float, username: str, password: str) -> None:
        """Wait until it answers as visdom."""
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
            if ended and "Address already in use" in self.log:
                raise ServerError(f"port {wanted} is taken: choose another, or 0 for any free one")
            if ended and re.search("Cannot assign|not known|gaierror", self.log):
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
        told = self._log.closed
        self.close()
        if self.trouble and not told:
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
    """A visdom server that answers already.

        with start_server(env_path="envs", files=provide().files) as server:
            print(server.url)

    It shows the environment files in `env_path`. When it is closed, or this process ends, however
    that be, it saves the environments that have changed and ends; besides it saves once a minute.
    A file is replaced whole, or not at all. visdom 0.2.4 may overwrite files in that folder: give
    it copies of what is precious.

    It goes by its address, `localhost`, the machine's name, and those in `hosts`. A request to any
    other name, and one that a page of another site sends, is refused.

    Args:
        env_path: the folder of environment files; made where missing.
        port: 0 takes any free one.
        host: the address to listen on; "0.0.0.0" for every one of IPv4.
        base_url: serve below this path, as "/visdom".
        username, password: ask for a login; both or none.
        files: of the page, those that visdom's own folder lacks: {name below static/: path}.
            Without them the HTTP API works, and the page in the browser does not.
        hosts: other names that lead to it, such as that of a proxy.
        save_seconds: how often it saves.
        timeout: seconds that starting may take.

    Raises:
        MissingDependency: visdom is not installed.
        OutputError: `env_path` is no folder, or cannot be made.
        ServerError: `env_path` is another server's, the port is taken, or the server did not start;
            the end of its log is in the message.
    """
    if importlib.util.find_spec("visdom") is None:
        raise MissingDependency.of("a visdom server", "visdom")
    if bool(username) != bool(password):
        raise ServerError("a login needs both a user name and a password")
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
    """The folder of environment files, made where missing.

    Raises:
        OutputError: it is something else, or cannot be made.
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
    log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server is
    process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
        [sys.executable, "-c", LAUNCH, str(Path(__file__).with_name("process.py"))],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for whoever started it
    )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    process.stdin.flush()
    return Server(process, log, Path(settings["env_path"]), settings["host"], settings["base_url"])


def _reached_by(host: str) -> str:
    """The host's name in an address: where it listens everywhere, the loopback's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or LOOPBACK
    if address.is_unspecified:
        return LOOPBACK if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def _status(code: int) -> str:
    """An exit status in words: what Popen gives as a negative number is a signal's."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
