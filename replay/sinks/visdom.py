"""The sink for a running visdom server: the only import of visdom's client in the project.

replay/plots draws each plot type, http.py sends the requests.
"""

import json
import math
import re
import sys
import textwrap
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from flexrec.recorder.errors import (
    DefinitionError,
    MissingDependency,
    ServerError,
    counted,
    listed,
    warn,
)
from flexrec.replay.plots.colours import CYCLE, written
from flexrec.replay.plots.dates import in_milliseconds
from flexrec.replay.plots.plot_type import PlotType, rank
from flexrec.replay.plots.registry import plot_type
from flexrec.replay.plots.thinning import thin_window
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import NOT_SHOWN, placed
from flexrec.replay.sinks.http import Connection, TransientError
from flexrec.replay.sinks.palette import Palette

BACK_OFF_SECONDS = 0.25


class VisdomSink:
    """Draws windows in a visdom server, each in one request.

        sink = VisdomSink(server="http://localhost", port=8097, env="my_env")
        sink.show(windows)
        sink.save()

    A window that is shown again replaces itself, so that nothing is drawn twice. Requests that fail
    for a moment (a restarting server, a cut connection, HTTP 500, 502, 503, 504) are repeated after
    a quarter of a second, then half a second, and so on; requests to a silent server are not.

    Args:
        server, port, base_url, username, password, timeout: as in `Connection`; credentials default
            to the environment variables VISDOM_USERNAME and VISDOM_PASSWORD.
        env: the environment of windows that name none.
        max_points: thin each trace to this many points for the browser; 0 sends all.
        retries: how often a failed request is repeated.

    Raises:
        ServerError: the address is invalid, or visdom is not installed.
    """

    def __init__(
        self,
        *,
        server: str = "http://localhost",
        port: int = 8097,
        env: str = "main",
        base_url: str = "",
        username: str | None = None,
        password: str | None = None,
        timeout: float = 60.0,
        max_points: int = 2000,
        retries: int = 4,
    ) -> None:
        if not isinstance(env, str) or not env:
            raise ServerError(f"an environment is a name such as main, got {env!r}")
        odd = " ".join(sorted(NOT_SHOWN.intersection(env)))
        if odd:
            warn(f"visdom's page cannot show the environment {env!r}, which has {odd} in it")
        self.env = env
        self.max_points = max_points
        self.retries = retries
        self._connection = Connection(
            server,
            port,
            base_url=base_url,
            username=username,
            password=password,
            timeout=timeout,
        )
        self._palette = Palette()
        self._probed = False
        _client()  # imported here, in the caller's thread, since no other thread may hide torch

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.url

    @property
    def connections(self) -> int:
        """The number of connections so far, without those that the server announced to close."""
        return self._connection.opened

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _client()

    def probe(self) -> None:
        """Check, within seconds, that visdom answers and accepts the login.

        Raises:
            ServerError: says what is wrong, and what to do.
        """
        self._connection.probe()
        self._probed = True

    def show(self, windows: Sequence[Window]) -> None:
        """Draw every window; the first call probes the server before it sends anything.

        Raises:
            ServerError: the server fails; names the windows that were sent before.
            DefinitionError: a window cannot be drawn, see `payload`; those before it are drawn.
        """
        if not self._probed:
            self.probe()
        windows = list(placed(windows).values())
        for k, painted in enumerate(self.paint(windows)):
            try:
                self.draw(painted)
            except ServerError as error:
                sent = listed(repr(done.win) for done in windows[:k]) or "none"
                raise ServerError(
                    f"{error}; window {painted.win!r} was not drawn "
                    f"(sent before it, {k} of {len(windows)}: {sent})"
                ) from error

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """Give windows colours that match those painted before, as `draw` needs them."""
        return self._palette.paint(windows)

    def draw(self, window: Window) -> None:
        """Draw one painted window.

        Raises:
            ServerError: the server fails.
            DefinitionError: the window cannot be drawn.
        """
        message = literal(payload(thin_window(window, self.max_points)))
        message["eid"] = window.env or self.env
        # The page of 0.3.0 redraws a window only if its version has changed, and a page may be open
        # from an earlier replay: the clock gives a version that was never used.
        message["version"] = time.time_ns() // 1_000_000
        answer = self._post("events", message)
        if answer != window.win:
            raise ServerError(
                f"{self.url} answers {answer[:40]!r} where visdom repeats the window's id"
            )

    def holds(self, window: Window) -> bool:
        """Whether the server has a window of this id; a restarted server has forgotten it.

        Raises:
            ServerError: the server fails.
        """
        message = {"win": window.win, "eid": window.env or self.env}
        return self._post("win_exists", message) == "true"

    def remove(self, window: Window) -> None:
        """Remove a window from the server, if it is there.

        Raises:
            ServerError: the server fails.
        """
        if self.holds(window):  # visdom fails where it has not even the environment
            self._post("close", {"win": window.win, "eid": window.env or self.env})

    def windows(self, env: str | None = None) -> dict[str, dict[str, Any]]:
        """The server's windows in an environment: {window id: visdom's window}.

        Raises:
            ServerError: the server fails.
        """
        name = env or self.env
        if name.replace("/", "_") not in self.environments():
            return {}
        found: dict[str, dict[str, Any]] = json.loads(
            self._post("win_data", {"win": None, "eid": name})
        )
        return found

    def environments(self) -> list[str]:
        """The names of the server's environments, in alphabetical order.

        Raises:
            ServerError: the server fails.
        """
        return sorted(json.loads(self._post("env_state", {})))

    def save(self, env: str | None = None) -> None:
        """Make the server write an environment to its folder.

        Raises:
            ServerError: the server fails, or has no such environment.
        """
        name = env or self.env
        # visdom 0.2.4 overwrites with `null` an environment that it has not opened yet.
        self.windows(name)
        if not json.loads(self._post("save", {"data": [name]})):
            raise ServerError(f"{self.url} has no environment {name!r} to save")

    def close(self) -> None:
        """Close the connection; the windows stay."""
        self._connection.close()

    def _post(self, endpoint: str, message: Mapping[str, Any]) -> str:
        for attempt in range(self.retries):
            try:
                return self._connection.post(endpoint, message)
            except TransientError:
                time.sleep(BACK_OFF_SECONDS * 2**attempt)
        return self._connection.post(endpoint, message)


def payload(window: Window) -> dict[str, Any]:
    """The message that visdom's own client would send for a window, the same in every version.

        >>> loss = Trace("loss", y=[0.5, 0.25], x=[0, 1])
        >>> payload(Window("w", "main", "line", (loss,)))["data"][0]["y"]
        [0.5, 0.25]

    The traces of a line may differ in length and in x. NaN and infinities become null, which the
    browser draws as a gap. The window and its opts are not changed.

    Args:
        window: what to draw.

    Returns:
        JSON values only: win, eid ("main" if the window names no environment), data, layout (not
        for images and text) and opts.

    Raises:
        DefinitionError: the window has no traces or too many, a value of the wrong rank, an opt
            that the plot type does not have, or an opt's value that visdom refuses.
        MissingDependency: visdom is not installed.
    """
    kind = plot_type(window.type)
    _check(window, kind)
    client = _client()
    try:
        message: dict[str, Any] = _plain(kind.draw(client, window.traces, _opts(window)))
    except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DefinitionError(f"window {window.win!r}, a {kind.name} plot: {error}") from error
    _settle_axes(message)
    if kind.shown_as in _COLOURED:
        message["layout"].setdefault("colorway", list(map(written, CYCLE)))
    in_milliseconds(message)
    return {**message, "win": window.win, "eid": window.env or message["eid"]}


_COLOURED = ("scatter", "bar", "box", "pie")  # panes whose traces plotly colours in order


def literal(message: Mapping[str, Any]) -> dict[str, Any]:
    """Escape a payload so that plotly shows its names and title unchanged.

        >>> literal({"data": [{"name": "a<b"}], "layout": {"title": "t"}})
        {'data': [{'name': 'a&lt;b'}], 'layout': {'title': 't'}}

    plotly renders some markup, such as links, and a key may come from an untrusted recording. It
    renders the text between any two dollars as a formula, and hides all other text. Here dollars
    count only if no space follows the first or precedes the last, and words around a formula are
    shown too. A long title is broken into lines, since visdom would cut it at both ends.
    """
    data = [
        {key: _unmarked(item) if key in _SHOWN else item for key, item in trace.items()}
        for trace in message["data"]
    ]
    if "layout" not in message:
        return {**message, "data": data}
    layout = {key: _unmarked_of(key, item) for key, item in message["layout"].items()}
    if isinstance(layout.get("title"), str):
        _break_title(layout, message.get("opts", {}).get("width") or _PANE)
    return {**message, "data": data, "layout": layout}


def _break_title(layout: dict[str, Any], width: int) -> None:
    """Break an escaped title into lines that fit the width in pixels; a formula is left whole."""
    title, letters = layout["title"], max(20, int(width / _LETTER))
    lines = textwrap.wrap(title, letters, break_long_words=False, break_on_hyphens=False)
    if len(lines) < 2 or _FORMULA.search(title):
        return
    layout["title"] = "<br>".join(lines)
    margin = layout.get("margin", {})
    layout["margin"] = {**margin, "t": margin.get("t", _TOP) + _LINE * (len(lines) - 1)}


_FORMULA = re.compile(r"(\$+(?=[^\s$])[^$]*(?<=[^\s$])\$+(?!\d))")
_PANE, _LETTER = 390, 8.5  # pixels: the width of visdom's windows, and of a letter of a title
_TOP, _LINE = 60, 20  # pixels: the margin above a plot, and the height of a title's line
_SHOWN = ("name", "labels", "title")  # fields of a trace that plotly shows, and may hold a key


def _unmarked(item: Any) -> Any:
    if isinstance(item, str):
        return _without_prices(item.replace("&", "&amp;").replace("<", "&lt;"))
    return [_unmarked(each) for each in item] if isinstance(item, list) else item


def _unmarked_of(name: str, item: Any) -> Any:
    """Escape the title of a layout; of axis titles, whose markup is the user's, only dollars."""
    if name == "title":
        return _unmarked(item)
    if not isinstance(item, Mapping):
        return item
    if isinstance(item.get("title"), str):
        return {**item, "title": _without_prices(item["title"])}
    return {key: _unmarked_of(key, part) for key, part in item.items()} if name == "scene" else item


def _without_prices(text: str) -> str:
    """Escape dollars as entities, except those around a formula.

    Words around formulas become part of one formula, since plotly would not show them otherwise.
    """
    parts = _FORMULA.split(text)
    words, formulas = parts[::2], parts[1::2]
    if not formulas or re.search(r"[\\{}$<&]", "".join(words)):
        return text.replace("$", "&#36;")
    if len(formulas) == 1 and not any(map(str.strip, words)):
        return text
    parts[::2] = [rf"\text{{{word}}}" if word else "" for word in words]
    parts[1::2] = [formula.strip("$") for formula in formulas]
    return f"${''.join(parts)}$"


def _check(window: Window, kind: PlotType) -> None:
    kind.check_opts(window.opts)
    count, most = len(window.traces), kind.max_traces
    if count == 0 or (most is not None and count > most):
        raise DefinitionError(
            f"window {window.win!r} holds {counted(count, 'trace')}; "
            f"a {kind.name} plot draws {'at least 1' if most is None else f'1 to {most}'}"
        )
    for trace in window.traces:
        given = rank(trace.y)
        if given not in (kind.ranks if kind.history is None else (kind.history.rank,)):
            raise DefinitionError(
                f"window {window.win!r}, trace {trace.name!r}: a {given} cannot be drawn; "
                f"a {kind.name} plot takes {kind.takes}"
            )


def _opts(window: Window) -> dict[str, Any]:
    """A copy in JSON's types, without empty values, which visdom's versions read differently."""
    opts = {name: _plain(value) for name, value in window.opts.items()}
    opts = {name: value for name, value in opts.items() if value not in (None, "", [], {})}
    return {**opts, "title": str(opts.get("title", window.win))}


def _settle_axes(message: dict[str, Any]) -> None:
    # visdom 0.2.4 drops an axis whose only opt is `tick: false`.
    layout = message.get("layout", {})
    for axis in "xy":
        if message["opts"].get(f"{axis}tick") is False and "scene" not in layout:
            layout.setdefault(f"{axis}axis", {})["showticklabels"] = False


def _plain(value: Any) -> Any:
    """The value in JSON's own types; NaN and infinities become None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise DefinitionError(f"JSON has no {type(value).__name__}: {value!r}")


@cache
def _client() -> Any:
    return _import_visdom().Visdom(send=False, use_incoming_socket=False)


def _import_visdom() -> Any:
    """Import visdom without torch and openTSNE, which take seconds to import.

    visdom uses them for tensors and embeddings; flexrec passes numpy arrays only. This import is
    kept out of `sys.modules`, so that other code in the process gets a visdom that takes tensors.
    """
    if "visdom" in sys.modules:
        return sys.modules["visdom"]
    hidden: dict[str, Any] = {
        name: None for name in ("torch", "openTSNE") if name not in sys.modules
    }
    sys.modules.update(hidden)  # None there makes an import fail at once
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import visdom
    except ImportError as error:
        raise MissingDependency.of("drawing windows", "visdom") from error
    finally:
        for name in hidden:
            del sys.modules[name]
    for name in [name for name in sys.modules if name.partition(".")[0] == "visdom"]:
        del sys.modules[name]
    return visdom
