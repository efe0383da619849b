"""The sink that writes one self-contained HTML file, without a server, network or other files.

The plots are visdom's, from `visdom.payload`; plotly.js is copied from the `plotly` package into
the file. page/ holds the page.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.files.atomic_write import Kind, check_target, replacing
from flexrec.recorder.recording import Recording
from flexrec.replay.plots.thinning import thin_window
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import Place, placed
from flexrec.replay.sinks.page.page import html_page, table_page
from flexrec.replay.sinks.page.runs import Run
from flexrec.replay.sinks.palette import Palette

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
        self._runs: list[Run] = []
        self._x = "mark"

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""
        self._windows.update(placed(windows))

    def remove(self, window: Window) -> None:
        """Take a window away, if it is there."""
        self._windows.pop((window.env, window.win), None)

    def describe(
        self,
        runs: Mapping[str, Recording | Sequence[Recording]],
        *,
        every: int | None = None,
        x: str = "mark",
    ) -> None:
        """Read what the page says of its runs: state, config, command, and when its marks were.

            sink.describe({"seed 0": Recording("a.h5"), "seed 1": Recording("b.h5")})

        Without this the page knows neither steps nor times, only the marks' x.

        Args:
            runs: the recordings by the names of their runs in the windows' legends; of a group
                whose mean is drawn, all its recordings.
            every: as in the `play` that made the windows.
            x: what their x axes show, as in the definitions that made the windows.

        Raises:
            RecordingError: a recording cannot be read.
        """
        self._x = x
        self._runs = [
            Run.of(name, run, every=every, x=x)
            if isinstance(run, Recording)
            else Run.group(name, [Run.of(name, each, every=every, x=x) for each in run])
            for name, run in runs.items()
        ]

    def close(self) -> None:
        """Write the file; may be called again after more windows.

        Raises:
            DefinitionError: a window cannot be drawn.
            OutputError: a file exists that may not be overwritten.
            OSError: the file cannot be written; an existing file is unchanged.
        """
        given = list(self._windows.values())
        painted = map(_without_height, Palette().paint(given), given)
        windows = [thin_window(window, self.max_points) for window in painted]
        plotly = self._plotly.read_text("utf-8")
        text = html_page(windows, runs=self._runs, title=self.title, x=self._x, plotly_js=plotly)
        with replacing(self.path, PAGE, overwrite=self._overwrite) as partial:
            # A title may have lone surrogates, from a file's name that is not UTF-8.
            partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        self._overwrite = True  # the file is now this sink's own


def write_table_page(
    columns: Sequence[str],
    rows: Sequence[tuple[str | float | None, ...]],
    path: str | os.PathLike[str],
    *,
    title: str,
    overwrite: bool = False,
) -> None:
    """Write a page with a table of runs, which can be sorted, and plots of its columns.

    Raises:
        MissingDependency: plotly is not installed.
        OutputError: a file exists that may not be overwritten; the message says which.
        OSError: the file cannot be written; an existing file is unchanged.
    """
    text = table_page(columns, rows, title=title, plotly_js=_plotly_js().read_text("utf-8"))
    with replacing(path, PAGE, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def _without_height(painted: Window, given: Window) -> Window:
    """Drop the height that the palette gives for a long legend: the page's are beside the plots."""
    if "height" in given.opts or "height" not in painted.opts:
        return painted
    return replace(painted, opts={k: v for k, v in painted.opts.items() if k != "height"})


def _plotly_js() -> Path:
    spec = importlib.util.find_spec("plotly")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
        if path.is_file():
            return path
    raise MissingDependency.of("an HTML page", "plotly")
