"""`flexrec serve`, `flexrec replay --serve` and `flexrec assets`: view plots without internet."""

import os
import signal
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from flexrec.cli.output import echo_as_is, echo_json
from flexrec.cli.progress import showing
from flexrec.recorder.errors import ServerError, counted
from flexrec.recorder.files.atomic_write import writing
from flexrec.replay.server.assets import Page, Progress, page_folder, provide, survey, write_bundle
from flexrec.replay.server.server import Server, env_folder, start_server
from flexrec.replay.sinks.base import page_of

STOPPING = (signal.SIGINT, signal.SIGTERM)
LOCAL = ("127.0.0.1", "localhost", "::1")


class Viewer:
    """A running server with all files of visdom's page: prints its address, opens a browser.

    Attributes:
        server: the server.
        may_raise: whether Ctrl-C and SIGTERM interrupt the running code.

    Args:
        server: the server.
        env: the environment that the address opens; empty: visdom's default.
        browser: whether to open a browser, if there is a screen.
    """

    def __init__(self, server: Server, *, env: str, browser: bool) -> None:
        self.server = server
        self.may_raise = False
        self._stopping = False
        self._address = page_of(server.url, env) if env else server.url
        self._browser = browser and _has_screen()

    def announce(self) -> None:
        """Print the page's address, and flush, so that it is seen in a pipe too."""
        typer.echo(f"visdom is at {self._address} (Ctrl-C ends it)")
        sys.stdout.flush()

    def open(self) -> None:
        """Open the page in a browser, if there is one, the first time that this is called."""
        if self._browser:
            self._browser = False
            webbrowser.open(self._address)

    def stay(self) -> None:
        """Serve until Ctrl-C or SIGTERM."""
        self.open()
        sys.stdout.flush()
        self.may_raise = True
        if self._stopping:
            return
        status = self.server.wait()
        raise ServerError(
            f"visdom's server ended with status {status}; it said:\n{self.server.log[-2000:]}"
        )

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handle Ctrl-C and SIGTERM: a replay ends first, unless it follows or a second one comes.

        An exception raised in the middle of other code might not be caught anywhere.
        """
        again, self._stopping = self._stopping, True
        if self.may_raise or again:
            raise KeyboardInterrupt


@contextmanager
def viewer(
    *,
    port: int,
    host: str,
    env_path: Path | None,
    assets: Path | None,
    login: bool,
    env: str,
    browser: bool,
    hosts: Sequence[str] = (),
) -> Iterator[Viewer]:
    """Run a viewer during the block; then its server saves its environments and ends.

    Raises:
        ServerError: it cannot be started, or did not save everything; names what is lost.
    """
    username, password = _credentials() if login else ("", "")
    if host not in LOCAL and not login:
        typer.echo(
            f"flexrec: warning: anyone who can reach {host} can see and change what is shown: "
            "--login asks for a password",
            err=True,
        )
    folder = env_folder(env_path or Path.home() / ".visdom")
    page = _page(assets)
    with start_server(
        env_path=folder,
        port=port,
        host=host,
        username=username,
        password=password,
        files=page.files,
        hosts=hosts,
    ) as server:
        made = Viewer(server, env=env, browser=browser)
        before = {number: signal.signal(number, made.stop) for number in STOPPING}
        try:
            made.announce()
            yield made
        except KeyboardInterrupt:  # the usual end: Ctrl-C or SIGTERM
            typer.echo()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for name in server.close():
                typer.echo(f"saved {folder / name}.json")
        if server.trouble:
            raise ServerError(server.trouble)


def bundle_assets(out: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write the bundle; print its size, and how to use it."""
    with _fetching() as show, writing(out):
        made = write_bundle(out, overwrite=overwrite, progress=show)
    if as_json:
        echo_json({"path": str(made.path), "files": made.files, "bytes": made.size})
        return
    size = f"{counted(made.files, 'file')}, {made.size / 1e6:.1f} MB"
    use = f"flexrec serve --assets {made.path.name}"
    echo_as_is(f"{made.path}: {size}; on the other machine: {use}")


def assets_table() -> dict[str, Any]:
    """The content of `assets_text` as plain data; docs/json.md describes it."""
    page = survey()
    return {
        "visdom": page.version,
        "cache": str(page_folder()),
        "cached": sorted(page.cached),
        "installed": sorted(page.installed),
        "missing": sorted(asset.file for asset in page.missing),
    }


def assets_text() -> str:
    """List which files of visdom's page are available, where, and which are missing."""
    page = survey()
    needed = len(page.cached) + len(page.installed) + len(page.missing)
    lines = [
        f"visdom {page.version} needs {counted(needed, 'file')} for its page",
        f"{len(page.cached):4} in {page_folder()}",
        f"{len(page.installed):4} in visdom's own folder",
        f"{len(page.missing):4} missing",
    ]
    lines += [f"     {asset.file} ({asset.package})" for asset in page.missing]
    if page.missing:
        lines.append(
            "flexrec serve fetches them from npm's registry; if it cannot be reached: "
            "flexrec assets bundle page.zip on a connected machine, flexrec serve --assets page.zip"
        )
    return "\n".join(lines)


def _page(bundle: Path | None) -> Page:
    with _fetching() as show:
        return provide(bundle=bundle, progress=show)


@contextmanager
def _fetching() -> Iterator[Progress]:
    """Show, while the block runs, which package is being fetched."""
    said = ""

    def show(package: str, done: int, total: int) -> None:
        nonlocal said
        size = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        said = f"fetching {package}: {size}"

    with showing(lambda: said):
        yield show


def _credentials() -> tuple[str, str]:
    given = os.environ.get("VISDOM_USERNAME", ""), os.environ.get("VISDOM_PASSWORD", "")
    if not all(given):
        raise ServerError("--login needs VISDOM_USERNAME and VISDOM_PASSWORD in the environment")
    return given


def _has_screen() -> bool:
    """Whether a browser would open in a window instead of the terminal."""
    names = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in names)
