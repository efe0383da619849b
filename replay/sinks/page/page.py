"""Put the page together: its data, its style and its scripts, in one text."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.page.runs import Run
from flexrec.replay.sinks.page.windows import shown, side_by_side

_PICTURES = 400_000  # bytes of pictures of earlier marks in a page
_SCRIPTS = ("figure.js", "board.js", "head.js")


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
    script = "\n".join(map(_file, _SCRIPTS))
    parts = {
        "policy": _policy(plotly_js, script),
        "title": html.escape(title),
        "style": _file("page.css"),
        "x": html.escape(x),
        "windows": _inert(drawn),
        "runs": _inert([run.shown(windows) for run in runs]),
        "plotly": plotly_js,
        "script": script,
    }
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], _file("page.html"))


def _names(windows: Sequence[Window]) -> list[str]:
    """The names of the runs that the windows show, in order."""
    named = (trace.run for window in windows for trace in window.traces if trace.run is not None)
    return list(dict.fromkeys(named))


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


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
    return {"f64": base64.b64encode(numbers.tobytes()).decode()}


_MANY = 32
_WHOLE = 1e7  # larger whole numbers are shorter in base64


def _inert(data: Any) -> str:
    """JSON that cannot end the HTML element around it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
