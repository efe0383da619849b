"""A visdom server of our own: a subprocess on the loopback, which downloads nothing.

Started by `visdom.server` itself, visdom first downloads its page's scripts, and crashes where
there is no internet. The HTTP API works without them; the page in the browser needs them.
"""

import importlib.util
import os
import re
import secrets
import site
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self

from flexrec.recorder.errors import ServerError
from flexrec.replay.visdom_http import Connection

__all__ = ["Server", "start_server"]

# The server looks for torch and openTSNE, which take seconds to import, and has no use for them.
# It goes when whoever started it goes, however that ends: the pipe to its stdin closes then.
LAUNCH = """
import os, sys, threading
def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
sys.modules["torch"] = sys.modules["openTSNE"] = None
from visdom.server.run_server import main
main(print_func=lambda port: print("flexrec: visdom listens on", port, flush=True))
"""
TRIES = 5


class Server:
    """A running visdom server, and the process that it is.

        with start_server(env_path="envs") as server:
            sink = VisdomSink(server="http://127.0.0.1", port=server.port)

    Attributes:
        port: where it listens, on 127.0.0.1.
        url: the address for a browser, and for a sink's `server`.
        env_path: the folder of its environment files.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], log: IO[bytes], env_path: Path, base_url: str
    ) -> None:
        self.port = 0
        self.env_path = env_path
        self._base_url = base_url
        self._process = process
        self._log = log

    @property
    def url(self) -> str:
        """The address for a browser, and for a sink's `server`."""
        return f"http://127.0.0.1:{self.port}{self._base_url}"

    @property
    def log(self) -> str:
        """What the server has printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def wait(self) -> int:
        """Wait until the server ends, and give its exit status."""
        return self._process.wait()

    def close(self) -> None:
        """End the server's process; a second call does nothing. Nothing is saved by this."""
        if self._log.closed:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._log.close()

    def _await(self, wanted: int, timeout: float, username: str, password: str) -> bool:
        """Wait until it answers as visdom; False where any port would do and this was snatched."""
        deadline = time.monotonic() + timeout
        taken = f"port {wanted} is taken: choose another, or 0 for any free one"
        while True:
            ended = self._process.poll() is not None
            said = re.search(r"^flexrec: visdom listens on (\d+)$", self.log, re.MULTILINE)
            if said and not ended:
                break
            if ended and "Address already in use" in self.log:
                if not wanted:
                    return False
                raise ServerError(taken)
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else f"did not start within {timeout:g} s"
                raise ServerError(f"visdom's server {what}; it said:\n{self.log[-2000:].strip()}")
            time.sleep(0.02)
        self.port = int(said[1])
        if wanted not in (0, self.port):  # 0.3.0 takes another without a word
            raise ServerError(taken)
        connection = Connection(self.url, username=username, password=password)
        connection.probe()
        connection.close()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def start_server(
    *,
    env_path: str | os.PathLike[str],
    port: int = 0,
    base_url: str = "",
    username: str = "",
    password: str = "",
    timeout: float = 60.0,
) -> Server:
    """A visdom server on 127.0.0.1 that answers already.

        with start_server(env_path="envs") as server:
            print(server.url)

    It shows the environment files in `env_path`, and saves there when asked to. It ends when it
    is closed, or when this process ends. visdom 0.2.4 may overwrite files in that folder: give it
    copies of what is precious.

    Args:
        env_path: the folder of environment files; made where missing.
        port: 0 takes any free one.
        base_url: serve below this path, as "/visdom".
        username, password: ask for a login; both or none.
        timeout: seconds that starting may take.

    Raises:
        ServerError: visdom is not installed, the port is taken, or the server did not start;
            the end of its log is in the message.
    """
    if importlib.util.find_spec("visdom") is None:
        raise ServerError("visdom is not installed: pip install 'flexrec[visdom]'")
    if bool(username) != bool(password):
        raise ServerError("a login needs both a user name and a password")
    command = ["-env_path", str(env_path), "-bind_local", "-logging_level", "WARNING"]
    if base_url:
        command += ["-base_url", base_url]
    with tempfile.TemporaryDirectory() as home:
        environment = dict(os.environ)
        if username:
            command.append("-enable_login")
            environment |= _login(username, password, Path(home))
        for _ in range(TRIES):
            wanted = port or _free_port()
            server = _launch([*command, "-port", str(wanted)], environment, env_path, base_url)
            try:
                if server._await(port, timeout, username, password):
                    return server
            except BaseException:
                server.close()
                raise
            server.close()
    raise ServerError(f"no free port on 127.0.0.1 in {TRIES} tries")


def _login(username: str, password: str, home: Path) -> dict[str, str]:
    """What makes visdom ask for this login; it keeps its cookie's secret in a private home."""
    (home / ".visdom").mkdir()
    return {
        "HOME": str(home),
        "PYTHONUSERBASE": site.getuserbase(),
        "VISDOM_USE_ENV_CREDENTIALS": "1",
        "VISDOM_USERNAME": username,
        "VISDOM_PASSWORD": password,
        "VISDOM_COOKIE": secrets.token_hex(32),
    }


def _launch(
    arguments: list[str],
    environment: dict[str, str],
    env_path: str | os.PathLike[str],
    base_url: str,
) -> Server:
    log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server is
    process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
        [sys.executable, "-c", LAUNCH, *arguments],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl-C is for whoever started it
    )
    return Server(process, log, Path(env_path), base_url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
