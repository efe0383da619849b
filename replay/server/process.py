"""What runs in the process of our own visdom server: nothing of flexrec is imported here.

Run as a script by `server`. Its settings come as one line of JSON on stdin, passwords among them,
which no other user can see there; the end of stdin is the end of whoever started it.
"""

import asyncio
import hashlib
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import tornado.httpserver
import tornado.netutil
import tornado.web

MAX_UPLOAD_BYTES = 1 << 30  # as visdom's own


class PageFiles(tornado.web.StaticFileHandler):
    """visdom's own static files, and besides them those that were gathered elsewhere."""

    elsewhere: ClassVar[dict[str, str]] = {}

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        """Where the file is; only names that are listed lead out of visdom's folder."""
        return cls.elsewhere.get(path) or super().get_absolute_path(root, path)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """The path, where it may be handed out."""
        if absolute_path in self.elsewhere.values():
            return absolute_path
        return super().validate_absolute_path(root, absolute_path)

    @classmethod
    def make_static_url(
        cls, settings: dict[str, Any], path: str, include_version: bool = True
    ) -> str:
        """The address of a file; visdom's page asks for one above the folder."""
        if path.startswith("../"):  # tornado 6.6 would answer 403 on the whole page
            return str(settings["static_url_prefix"]) + path
        return super().make_static_url(settings, path, include_version)


async def main(settings: Mapping[str, Any]) -> None:
    """Serve until told to stop; then save what has changed."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threading.Thread(target=_await_end, args=(loop, stop), daemon=True).start()
    sockets = tornado.netutil.bind_sockets(settings["port"], settings["host"] or None)
    port = sockets[0].getsockname()[1]
    if settings["port"] == 0 and len(sockets) > 1:  # a port for IPv4 and another for IPv6
        sockets = [s for s in sockets if s.getsockname()[1] == port]
    app = _application(settings, port)
    server = tornado.httpserver.HTTPServer(app, max_buffer_size=MAX_UPLOAD_BYTES)
    server.add_sockets(sockets)
    print("flexrec: visdom listens on", port, flush=True)
    await stop.wait()
    server.stop()
    for name in _save(app, Path(settings["env_path"])):
        print("flexrec: saved", name, flush=True)


def _await_end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 1024):  # unbuffered: a buffer's lock would break the interpreter's end
        pass
    loop.call_soon_threadsafe(stop.set)


def _application(settings: Mapping[str, Any], port: int) -> Any:
    visdom_app = _visdom("server.app")
    PageFiles.elsewhere = dict(settings["files"])
    visdom_app.tornado_settings |= {
        "static_handler_class": PageFiles,
        "autoreload": False,  # visdom's debug mode would start anew when a file changes
    }
    options = {
        "port": port,
        "base_url": settings["base_url"],
        "env_path": settings["env_path"],
    }
    if not settings["username"]:
        return visdom_app.Application(**options)
    digest = hashlib.sha256(settings["password"].encode()).hexdigest()
    login = {
        "username": settings["username"],
        "password": _visdom("utils.server_utils").hash_password(digest),
    }
    with tempfile.TemporaryDirectory() as folder:
        # visdom reads its cookies' secret from a file at home: not from there.
        Path(folder, "COOKIE_SECRET").write_text(settings["secret"])
        visdom_app.DEFAULT_ENV_PATH = f"{folder}/"
        return visdom_app.Application(**options, user_credential=login)


def _visdom(module: str) -> Any:
    return importlib.import_module(f"visdom.{module}")  # untyped, and slow to import


def _save(app: Any, folder: Path) -> list[str]:
    """Write the environments that differ from their files; return their names."""
    changed = [
        name
        for name, kept in app.state.items()
        # One that was never opened is None there: 0.2.4 would overwrite its file with null.
        if (data := getattr(kept, "_raw_dict", kept)) is not None
        and not _is_saved(folder / f"{name}.json", data)
    ]
    if hasattr(app, "storage"):  # 0.3.0
        app.storage.save_envs(app.state, changed)
    else:
        _visdom("utils.server_utils").serialize_env(app.state, changed, env_path=app.env_path)
    return changed


def _is_saved(path: Path, data: Any) -> bool:
    try:
        return bool(json.loads(path.read_bytes()) == data)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.WARNING)
    asyncio.run(main(json.loads(sys.stdin.buffer.readline())))
