"""Put a page together, of plots or of a table: its data, style and scripts, in one text."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.page.runs import Run
from flexrec.replay.sinks.page.windows import shown, side_by_side

_BOARD = ("base.js", "figure.js", "board.js", "head.js")
_TABLE = ("base.js", "table.js")
_PICTURES = 400_000  # bytes of pictures of earlier marks in a page


def html_page(
    windows: Sequence[Window],
    *,
    runs: Sequence[Run] = (),
    title: str,
    x: str = "mark",
    plotly_js: str,
) -> str:
    """The page as text.

    Nothing in a window or a recording can become markup or script: texts are data, which the page's
    script inserts as text; and the page's content security policy allows only two scripts, by their
    digests.

    Args:
        windows: what is drawn, already painted and thinned.
        runs: what the head says of the runs; by default only their names, as the windows have them.
        title: the page's title.
        x: what the windows' x axes show: mark, step, time or relative.
        plotly_js: plotly's script.

    Raises:
        DefinitionError: a window cannot be drawn.
    """
    runs = runs or [Run(name) for name in _names(windows)]
    names = [run.name for run in runs]
    histories = sum(bool(trace.earlier) for window in windows for trace in window.traces)
    each = _PICTURES / max(1, histories)
    drawn = [_packed(shown(window, names, pictures_bytes=each)) for window in side_by_side(windows)]
    data = {"windows": drawn, "runs": [run.shown(windows) for run in runs]}
    return _page("board.html", _BOARD, data, title, plotly_js, x)


def table_page(
    columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, title: str, plotly_js: str
) -> str:
    """A page with a table of runs and plots of its columns, as text.

    Args:
        columns: the names of the columns.
        rows: the cells of each run: texts, numbers, or None.
        title, plotly_js: as for `html_page`.
    """
    cells = zip(*rows, strict=True) if rows else ([()] * len(columns))
    found = [_column(name, each) for name, each in zip(columns, cells, strict=True)]
    return _page("table.html", _TABLE, {"columns": found}, title, plotly_js)


def _column(name: str, cells: Sequence[Any]) -> dict[str, Any]:
    """A column of numbers, exact and with infinities; or of texts, if one of its cells is one."""
    if all(isinstance(cell, int | float | None) for cell in cells):
        return {"name": name, "number": True, "values": _exact(np.array(cells, np.float64))}
    texts = [None if cell is None else str(cell) for cell in cells]
    return {"name": name, "number": False, "values": texts}


def _page(
    body: str, names: Sequence[str], data: dict[str, Any], title: str, plotly: str, x: str = ""
) -> str:
    """The page with a body, scripts, and data for them; x is that of `html_page`."""
    script = "\n".join(map(_file, names))
    blocks = [
        f'<script type="application/json" id="data-{name}">{_inert(each)}</script>\n'
        for name, each in data.items()
    ]
    parts = {"title": html.escape(title)}
    parts |= {
        "policy": _policy(plotly, script),
        "style": _file("page.css"),
        "x": html.escape(x),
        "body": _filled(_file(body), parts),
        "data": "".join(blocks),
        "plotly": plotly,
        "script": script,
    }
    return _filled(_file("page.html"), parts)


def _filled(text: str, parts: Mapping[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], text)


def _names(windows: Sequence[Window]) -> list[str]:
    """The names of the runs that the windows show, in order."""
    named = (trace.run for window in windows for trace in window.traces if trace.run is not None)
    return list(dict.fromkeys(named))


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")  # also out of a zip


def _policy(*scripts: str) -> str:
    """The content security policy: scripts by digest, pictures from the file, nothing else."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in scripts)
    allowed = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _packed(value: Any) -> Any:
    """Write many numbers as whole numbers, or as {"f64": base64 of float64}: shorter, and exact."""
    if isinstance(value, dict):
        return {name: _packed(item) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) < _MANY or not all(item is None or isinstance(item, float) for item in value):
        return [_packed(item) for item in value]
    numbers = np.array(value, "<f8")  # None becomes NaN
    if (np.abs(numbers) < _WHOLE).all() and (numbers == np.floor(numbers)).all():
        return numbers.astype(np.int64).tolist()
    return _exact(numbers)


def _exact(numbers: NDArray[np.float64]) -> dict[str, str]:
    return {"f64": base64.b64encode(numbers.astype("<f8").tobytes()).decode()}


_MANY = 32
_WHOLE = 1e7  # larger whole numbers are shorter in base64


def _inert(data: Any) -> str:
    """JSON that cannot end the HTML element around it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
