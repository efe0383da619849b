"""Show recordings, windows and loggers in notebooks, where `import flexrec` calls `register`.

A Recording is a table of its keys; a window is plotly's figure, a text or a picture; of a list of
windows, and of a FlexLogger, every window is shown. Without plotly, or on an error, the object's
`repr` is shown instead.
"""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flexrec.recorder.errors import FlexrecError, counted, one_line

if TYPE_CHECKING:
    from flexrec.recorder.recording import Recording
    from flexrec.replay.plots.window import Window

_MOST_KEYS = 100  # that a table lists
_HEADERS = ("key", "kind", "values", "steps", "last", "min", "max", "mean", "bytes")


def register(shell: Any) -> None:
    """Tell an IPython shell how to show flexrec's objects; imports nothing of what it shows."""
    formatter = shell.display_formatter
    tables, bundles = formatter.formatters["text/html"], formatter.mimebundle_formatter
    displays = formatter.ipython_display_formatter
    tables.for_type_by_name("flexrec.recorder.recording", "Recording", table)
    bundles.for_type_by_name("flexrec.replay.plots.window", "Window", bundle)
    displays.for_type_by_name("flexrec.replay.flexlogger", "FlexLogger", _show_logger)
    displays.for_type(list, _show_list)


def table(run: "Recording") -> str | None:
    """A recording's keys as an HTML table; None if it is closed or cannot be read."""
    from tabulate import tabulate

    from flexrec.replay.export.summary import summary_rows

    try:
        keys = run.keys()
        rows = summary_rows(run, keys[:_MOST_KEYS])
    except FlexrecError:
        return None
    cells = [[one_line(cell) for cell in row] for row in rows]
    more = len(keys) - len(rows)
    return (
        f"<p>{html.escape(one_line(f'{run!r}: {run.state}'))}</p>"
        f"{tabulate(cells, _HEADERS, tablefmt='html', disable_numparse=True)}"
        + (f"<p>and {counted(more, 'more key')}</p>" if more else "")
    )


def bundle(window: "Window", **_: object) -> Mapping[str, Any]:
    """What a notebook shows of a window, by MIME type; empty if it cannot be drawn."""
    from flexrec.replay.sinks.palette import Palette
    from flexrec.replay.sinks.visdom import literal, payload

    try:
        (painted,) = Palette().paint([window])
        message = literal(payload(painted))
    except FlexrecError:
        return {}
    first = message["data"][0]
    if first["type"] in ("text", "image"):
        shown = _picture(message) if first["type"] == "image" else _text(window)
        return {"text/html": f"<p><b>{html.escape(one_line(window.title))}</b></p>{shown}"}
    try:
        from plotly.graph_objects import Figure
    except ImportError:
        return {}
    # What plotly has renamed since visdom's plotly.js is left out.
    figure = Figure(data=message["data"], layout=message["layout"], skip_invalid=True)
    found: Mapping[str, Any] = figure._repr_mimebundle_()
    return found


def _text(window: "Window") -> str:
    return f"<pre>{html.escape(str(window.traces[0].y))}</pre>"


def _picture(message: Mapping[str, Any]) -> str:
    """A picture as large as in visdom and on an HTML page, with its caption."""
    content, opts = message["data"][0]["content"], message["opts"]
    size = "".join(f"{side}: {int(opts[side])}px; " for side in ("width", "height") if side in opts)
    look = f"{size}object-fit: contain; object-position: left; image-rendering: pixelated"
    caption = f"<p>{html.escape(content['caption'])}</p>" if content.get("caption") else ""
    return f'<img src="{html.escape(content["src"])}" style="{look}">{caption}'


def _show_logger(logger: Any) -> None:
    from IPython.display import display

    display(*logger.windows())


def _show_list(items: list[Any]) -> None:
    from IPython.display import display

    from flexrec.replay.plots.window import Window

    if not items or not all(isinstance(item, Window) for item in items):
        raise NotImplementedError  # IPython then shows the list as any other
    display(*items)
