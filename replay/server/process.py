"""The process of flexrec's visdom server. Of flexrec, only the lock of a file is imported here.

server.py runs this module as a script. The settings come as one line of JSON on stdin, where other
users cannot see the passwords; when stdin ends, the parent process has ended. Messages are lines of
JSON on stdout.
"""

import asyncio
import builtins
import errno
import hashlib
import importlib
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.parse import urlsplit

import tornado.httpserver
import tornado.httputil
import tornado.netutil
import tornado.web

from flexrec.recorder.files.descriptors import open_binary
from flexrec.recorder.files.flock import try_lock

MAX_UPLOAD_BYTES = 1 << 30  # visdom's own limit
GUESS_SECONDS = 1.0  # seconds between wrong passwords from one address
GUESSES = 10  # most logins from one address that may wait
PARTIAL = ".flexrec-partial-"
LOCK = ".flexrec-lock"  # gone when the server ends
WRITERS = ("utils.server_utils", "data_model.json_store", "server.app")  # as far as there are


class PageFiles(tornado.web.StaticFileHandler):
    """Serves visdom's own static files, and those from other folders."""

    elsewhere: ClassVar[dict[str, str]] = {}

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        """The path of a file; only listed names lead out of visdom's folder."""
        return cls.elsewhere.get(path) or super().get_absolute_path(root, path)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """The path, if the file may be served."""
        if absolute_path in self.elsewhere.values():
            return absolute_path
        return super().validate_absolute_path(root, absolute_path)

    @classmethod
    def make_static_url(
        cls, settings: dict[str, Any], path: str, include_version: bool = True
    ) -> str:
        """The address of a file; visdom's page asks for one above the static folder."""
        if path.startswith("../"):  # tornado 6.6 would answer 403 on the whole page
            return str(settings["static_url_prefix"]) + path
        return super().make_static_url(settings, path, include_version)


class Refused(tornado.web.RequestHandler):
    """Refuses any request that a page of another site has sent."""

    def initialize(self, why: str) -> None:
        """Set the reason."""
        self.why = why

    def prepare(self) -> None:
        """Refuse before the request is processed."""
        self.set_status(403)
        self.finish(f"{self.why}\n")


async def main(settings: Mapping[str, Any]) -> None:
    """Serve until told to stop; save changed environments regularly and at the end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    threading.Thread(target=_await_end, args=(settings["stdin"], loop, stop), daemon=True).start()
    folder = Path(settings["env_path"])
    if not _is_ours_alone(folder):
        _say("taken")
        return
    try:
        sockets = tornado.netutil.bind_sockets(settings["port"], settings["host"] or None)
    except OSError as error:
        _say("unbound", _why_unbound(error))
        raise
    port = sockets[0].getsockname()[1]
    if settings["port"] == 0 and len(sockets) > 1:  # a port for IPv4 and another for IPv6
        sockets = [s for s in sockets if s.getsockname()[1] == port]
    app = _application(settings, port)
    server = tornado.httpserver.HTTPServer(app, max_buffer_size=MAX_UPLOAD_BYTES)
    server.add_sockets(sockets)
    _say("listens", port)
    saver = Saver(app, folder)
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), settings["save_seconds"])
        if not stop.is_set():
            saver.save_changed()
    server.stop()
    for name, why in saver.save_all():
        _say("lost" if why else "saved", name, why)


class Saver:
    """Writes environments to their files; if one cannot be written, the others still are."""

    def __init__(self, app: Any, folder: Path) -> None:
        self._app, self._folder = app, folder
        self._seen = {name: self._sign(name) for name in app.state}

    def save_changed(self) -> None:
        """Write the environments whose windows have changed since they were last written."""
        for name in list(self._app.state):
            sign = self._sign(name)
            if sign != self._seen.get(name) and (self._is_saved(name) or not self._save(name)):
                self._seen[name] = sign

    def save_all(self) -> Iterator[tuple[str, str]]:
        """Write the environments that differ from their files; yield each, and its error or ""."""
        for name in list(self._app.state):
            if not self._is_saved(name):
                yield name, self._save(name)

    def _data(self, name: str) -> Any:
        kept = self._app.state[name]
        # An environment that was never opened is None: 0.2.4 would overwrite its file with null.
        return getattr(kept, "_raw_dict", kept)

    def _sign(self, name: str) -> Any:
        data = self._data(name)
        windows = data["jsons"] if data else {}
        return [(win, kept.get("contentID"), kept.get("version")) for win, kept in windows.items()]

    def _is_saved(self, name: str) -> bool:
        data = self._data(name)
        if data is None:
            return True
        try:
            return bool(json.loads((self._folder / f"{name}.json").read_bytes()) == data)
        except (OSError, ValueError):
            return False

    def _save(self, name: str) -> str:
        """Write one environment; return the error, or ""."""
        try:
            if hasattr(self._app, "storage"):  # 0.3.0
                self._app.storage.save_envs(self._app.state, [name])
            else:
                write = _visdom("utils.server_utils").serialize_env
                write(self._app.state, [name], env_path=self._app.env_path)
        except Exception as error:  # noqa: BLE001 - the others must still be saved
            return getattr(error, "strerror", None) or repr(error)
        return ""


def _say(what: str, *facts: object) -> None:
    print("flexrec:", json.dumps([what, *facts]), flush=True)


def _why_unbound(error: OSError) -> str:
    """Whether the port or the address is to blame for an error of bind(2); "" if neither is."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "address"
    return "port" if error.errno == errno.EADDRINUSE else ""


def _await_end(stdin: int, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(stdin, 1024):  # unbuffered: a buffer's lock would break the interpreter's end
        pass
    loop.call_soon_threadsafe(stop.set)


def _is_ours_alone(folder: Path) -> bool:
    """Lock the folder for the lifetime of this process; return whether that succeeded."""
    if sys.platform == "win32":  # which opens no folder
        handle = open_binary(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_TEMPORARY)
    else:
        handle = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(handle):
            return False
    except OSError:  # a file system without locks
        return True
    for left in folder.glob(f"{PARTIAL}*"):  # left by a killed server
        left.unlink(missing_ok=True)
    return True


# ---------------------------------------------------------------------- visdom


def _application(settings: Mapping[str, Any], port: int) -> Any:
    visdom_app = _visdom("server.app")
    for name in WRITERS:
        with suppress(ImportError):
            _visdom(name).open = _whole
    PageFiles.elsewhere = dict(settings["files"])
    visdom_app.tornado_settings |= {
        "static_handler_class": PageFiles,
        "autoreload": False,  # visdom's debug mode would restart when a file changes
    }
    options = {
        "port": port,
        "base_url": settings["base_url"],
        "env_path": settings["env_path"],
    }
    if not settings["username"]:
        return _guarded(visdom_app.Application(**options), settings)
    digest = hashlib.sha256(settings["password"].encode()).hexdigest()
    login = {
        "username": settings["username"],
        "password": _visdom("utils.server_utils").hash_password(digest),
    }
    _harden_login(_visdom("server.handlers.web_handlers").IndexHandler)
    with tempfile.TemporaryDirectory() as folder:
        # Replaces the cookie secret that visdom reads from a file in the home folder.
        Path(folder, "COOKIE_SECRET").write_text(settings["secret"], encoding="ascii")
        visdom_app.DEFAULT_ENV_PATH = f"{folder}/"
        app = visdom_app.Application(**options, user_credential=login)
    return _guarded(app, settings)


def _visdom(module: str) -> Any:
    return importlib.import_module(f"visdom.{module}")  # untyped, and slow to import


def _whole(path: Any, mode: str = "r", **options: Any) -> Any:
    """Replacement for `open` in visdom's modules: files are replaced completely or not at all."""
    if mode != "w":
        return builtins.open(path, mode, **options)
    return _replacing(Path(os.path.realpath(path)), **options)


@contextmanager
def _replacing(path: Path, **options: Any) -> Iterator[IO[str]]:
    handle, partial = tempfile.mkstemp(prefix=PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "w", **options) as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.chmod(partial, _mode(path))
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def _mode(path: Path) -> int:
    """The file's permissions, or those of a new file."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


# ---------------------------------------------------------------------- access control


def _guarded(app: Any, settings: Mapping[str, Any]) -> Any:
    """Make the application refuse requests of other sites' pages, to websockets too.

    Nor may other sites put its pages into frames of theirs.
    """
    find = app.find_handler
    proxies = {name.lower() for name in settings["hosts"]}
    names = {*proxies, settings["host"].lower(), socket.gethostname().lower()}

    def find_handler(request: tornado.httputil.HTTPServerRequest, **options: Any) -> Any:
        why = _refusal(request, names, proxies)
        if why:
            return app.get_handler_delegate(request, Refused, {"why": why})
        return find(request, **options)

    app.find_handler = find_handler
    _visdom("server.handlers.base_handlers").BaseHandler.set_default_headers = _forbid_frames
    return app


def _forbid_frames(handler: tornado.web.RequestHandler) -> None:
    handler.set_header("X-Frame-Options", "SAMEORIGIN")


def _refusal(
    request: tornado.httputil.HTTPServerRequest, names: set[str], proxies: set[str]
) -> str:
    """The reason to refuse a request, or "" if it was sent to this server by one of its pages.

    The Host header reveals a foreign DNS name that resolves to this server; the Origin header, or,
    if the browser omits it, Sec-Fetch-Site, reveals another site's page.
    """
    host = _name(f"//{request.host}")
    if not (_is_address(host) or host in names or host == _full_name()):
        return f"this server is not known by the name {host!r}: give its other names to flexrec"
    origin = request.headers.get("Origin")
    if origin is not None:
        same = urlsplit(origin).netloc.lower() == request.host.lower()
        return "" if same or _name(origin) in proxies else _FOREIGN
    site = request.headers.get("Sec-Fetch-Site", "none")
    reads = request.method in ("GET", "HEAD")
    return "" if reads or site in ("none", "same-origin") else _FOREIGN


_FOREIGN = "pages of other sites may not ask this server"


@cache
def _full_name() -> str:
    return socket.getfqdn().lower()  # may take seconds without a network


def _name(address: str) -> str:
    """The host's name in an address."""
    try:
        return (urlsplit(address).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    """Whether the host is this machine's name, or a numeric address, which needs no DNS."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    with suppress(OSError):
        socket.inet_aton(host)  # 127.1
        return True
    return False


def _harden_login(handler: Any) -> None:
    """Delay wrong passwords, one after the other, and hide the cookie from scripts."""
    post: Callable[..., None] = handler.post
    set_cookie: Callable[..., None] = handler.set_secure_cookie
    locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
    waiting: defaultdict[str, int] = defaultdict(int)

    async def slowed(self: Any, *args: Any, **options: Any) -> None:
        address = self.request.remote_ip
        if waiting[address] >= GUESSES:
            self.set_status(429)
            return
        waiting[address] += 1
        try:
            async with locks[address]:
                await guess(self, *args, **options)
        finally:
            waiting[address] -= 1
            if not waiting[address]:
                del waiting[address], locks[address]

    async def guess(self: Any, *args: Any, **options: Any) -> None:
        right = False
        try:
            post(self, *args, **options)
            right = self.get_status() == 200
        except (AttributeError, LookupError, TypeError, ValueError):  # the body is no login
            self.set_status(400)
        finally:
            if not right:
                await asyncio.sleep(GUESS_SECONDS)

    def set_closed_cookie(self: Any, name: str, value: str) -> None:
        set_cookie(self, name, value, httponly=True, samesite="Lax")

    handler.post, handler.set_secure_cookie = slowed, set_closed_cookie


def _settings() -> dict[str, Any]:
    """The settings from stdin, and the descriptor that stdin is moved to.

    While a thread waits for a pipe, Windows blocks every other use of it, and libraries look at
    stdin when they are loaded.
    """
    settings: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    moved = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return {**settings, "stdin": moved}


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.WARNING)
    # tornado needs a loop that waits for sockets, which is not Windows' own.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main(_settings()))
