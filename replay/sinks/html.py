"""The sink that writes one self-contained HTML file, without a server, network or other files.

The plots are visdom's, from `visdom.payload`; plotly.js is copied from the `plotly` package into
the file.
"""

import base64
import hashlib
import html
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.files.atomic_write import Kind, check_target, replacing
from flexrec.replay.plots.thinning import thin_window
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import Place, placed
from flexrec.replay.sinks.palette import Palette

_AXIS = re.compile(r"[xyz]axis\d*")
_MARK = b'<meta name="generator" content="flexrec">'


def _holds_page(path: Path) -> bool:
    with path.open("rb") as file:
        return _MARK in file.read(512)


PAGE = Kind("an HTML page of flexrec's", _holds_page)


class HtmlSink:
    """Writes one self-contained HTML file with the windows when it is closed.

        sink = HtmlSink("run.html")
        sink.show(windows)
        sink.close()

    Args:
        path: the file; it is written completely or not at all.
        title: the page's title; by default the file's name without its suffix.
        max_points: thin each trace to this many points; 0 keeps all.
        overwrite: whether to overwrite an existing page that flexrec wrote.

    Raises:
        OutputError: a file exists that may not be overwritten; the message says which.
        MissingDependency: plotly is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        max_points: int = 2000,
        overwrite: bool = False,
    ) -> None:
        check_target(path, PAGE, overwrite=overwrite)
        self.path, self._overwrite = Path(path), overwrite
        self.title = title or self.path.stem
        self.max_points = max_points
        self._plotly = _plotly_js()
        self._windows: dict[Place, Window] = {}

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""
        self._windows.update(placed(windows))

    def remove(self, window: Window) -> None:
        """Take a window away, if it is there."""
        self._windows.pop((window.env, window.win), None)

    def close(self) -> None:
        """Write the file; may be called again after more windows.

        Raises:
            DefinitionError: a window cannot be drawn.
            OutputError: a file exists that may not be overwritten.
            OSError: the file cannot be written; an existing file is unchanged.
        """
        painted = Palette().paint(list(self._windows.values()))
        windows = [thin_window(window, self.max_points) for window in painted]
        text = html_page(windows, title=self.title, plotly_js=self._plotly.read_text("utf-8"))
        with replacing(self.path, PAGE, overwrite=self._overwrite) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
        self._overwrite = True  # the file is now this sink's own


def html_page(windows: Sequence[Window], *, title: str, plotly_js: str) -> str:
    """The page as text.

    Nothing in a window can become markup or script: texts are data, which the page's script inserts
    as text; and the page's content security policy allows only two scripts, by their digests.

    Raises:
        DefinitionError: a window cannot be drawn.
    """
    folder = Path(__file__).parent
    script = (folder / "page.js").read_text("utf-8")
    parts = {
        "policy": _policy(plotly_js, script),
        "title": html.escape(title),
        "windows": _inert(json.dumps([_shown(window) for window in windows], allow_nan=False)),
        "plotly": plotly_js,
        "script": script,
    }
    template = (folder / "page.html").read_text("utf-8")
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], template)


def _plotly_js() -> Path:
    spec = importlib.util.find_spec("plotly")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
        if path.is_file():
            return path
    raise MissingDependency.of("an HTML page", "plotly")


def _policy(*scripts: str) -> str:
    """The content security policy: scripts by digest, pictures from the file, nothing else."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in scripts)
    allowed = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _inert(text: str) -> str:
    """Escape JSON so that it cannot end the HTML element around it."""
    return text.replace("<", "\\u003c")


def _shown(window: Window) -> dict[str, Any]:
    """The data of a window for the page's script."""
    from flexrec.replay.sinks.visdom import payload  # takes its time to import visdom

    message = payload(window)
    opts, first = message["opts"], message["data"][0]
    shown = {"title": opts["title"], "width": opts.get("width"), "height": opts.get("height")}
    if first["type"] == "text":
        return {**shown, "text": window.traces[0].y}
    if first["type"] == "image":
        content = first["content"]
        return {**shown, "src": content["src"], "caption": content.get("caption")}
    data = [
        {
            **trace,
            "name": _literal(trace.get("name")),
            # plotly's WebGL lines create code from text, which the page's policy forbids.
            "type": "scatter" if trace["type"] == "scattergl" else trace["type"],
        }
        for trace in message["data"]
    ]
    layout = _renewed(message["layout"])
    # On the left, since plotly's buttons are on the right.
    layout["title"] = {"text": _literal(opts["title"]), "font": {"size": 15}, "x": 0.02}
    if first["type"].startswith("scatter") and "legend" not in layout:  # below, where it can wrap
        layout["legend"] = {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}
        layout["margin"] = {**layout.get("margin", {}), "t": 50, "r": 20, "b": 40}
    return {**shown, "data": data, "layout": layout}


def _renewed(layout: Mapping[str, Any]) -> dict[str, Any]:
    """Convert visdom's layout from plotly.js 2 to later versions: titles become objects."""
    renewed: dict[str, Any] = {}
    for name, value in layout.items():
        if name == "scene":
            renewed[name] = _renewed(value)
        elif _AXIS.fullmatch(name) and isinstance(value, Mapping):
            axis = {key: item for key, item in value.items() if key not in ("title", "titlefont")}
            axis["title"] = {
                "text": _literal(value.get("title")) or "",
                "font": value.get("titlefont") or {},
                "standoff": 4,
            }
            renewed[name] = {"automargin": True, **axis}
        else:
            renewed[name] = value
    return renewed


def _literal(text: Any) -> Any:
    """Escape a text so that plotly, which renders some markup such as links, shows it unchanged."""
    return html.escape(text, quote=False) if isinstance(text, str) else text
