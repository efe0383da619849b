"""A comparison drawn: golden, obtained and difference as messages to visdom. Nothing is sent here
but by `show_in_visdom`."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flexrec.replay.compare_traces import aligned_lines, named
from flexrec.replay.differences import Comparison
from flexrec.replay.looks import CYCLE
from flexrec.replay.pictures import decoded
from flexrec.replay.report import report_text
from flexrec.replay.tolerance import numbers

__all__ = ["messages", "show_in_visdom"]

Message = dict[str, Any]

_ROW = "check/"  # what the ids of our windows start with
_SIZE = {"width": 420, "height": 340}
_CURVES = ("scatter", "bar")
_MATRICES = ("heatmap", "contour", "surface")


def messages(
    golden: Mapping[str, Any], obtained: Mapping[str, Any], comparison: Comparison
) -> list[Message]:
    """What to send to visdom: the report, then a row for each window that differs.

    A row is the golden window, the obtained one, and, where it can be drawn, the difference:
    lines overlaid with obtained − golden below, or a heatmap of it for a matrix or a picture.
    A window that one side lacks has one window in its row.
    """
    text = f'<pre style="white-space: pre-wrap">{html.escape(report_text(comparison))}</pre>'
    report = _message("report", "check", {"content": text, "type": "text", "title": "report"})
    report["opts"] |= {"width": 3 * _SIZE["width"] + 20, "height": 240}  # a row of its own
    drawn = [report]
    renamed = {d.golden: d.obtained for d in comparison.differences if d.field == "id"}
    for name in dict.fromkeys(d.window for d in comparison.differences):
        pair = golden["jsons"].get(name), obtained["jsons"].get(renamed.get(name, name))
        for part, window in zip(("golden", "obtained"), pair, strict=True):
            if window is not None:
                drawn.append(_message(name, part, window))
        if pair[0] is not None and pair[1] is not None:
            difference = _difference(*pair, _traces(name, comparison))
            if difference is not None:
                shown = {**pair[0], "content": difference, "type": "plot"}
                drawn.append(_message(name, "difference", shown))
    return drawn


def show_in_visdom(
    drawn: Sequence[Message], *, server: str, port: int, base_url: str, env: str
) -> str:
    """Send the messages to an environment, in place of what an earlier check showed there.

    Returns:
        The address to look at.

    Raises:
        ServerError: the server fails.
    """
    from flexrec.replay.visdom_http import Connection  # imports requests
    from flexrec.replay.visdom_sink import VisdomSink

    sink = VisdomSink(server=server, port=port, base_url=base_url, env=env)
    sink.probe()
    connection = Connection(server, port, base_url=base_url)
    try:
        for win in sink.windows(env):
            if win.startswith(_ROW):
                connection.post("close", {"win": win, "eid": env})
        for message in drawn:
            connection.post("events", {**message, "eid": env})
    finally:
        connection.close()
        sink.close()
    return f"{sink.url}/env/{env}"


def _traces(window: str, comparison: Comparison) -> set[str]:
    """The names of the window's traces that differ, on either side."""
    names = set()
    for difference in comparison.differences:
        if difference.window == window and difference.trace is not None:
            names.add(difference.trace)
            if difference.kind in ("renamed", "reordered"):
                names |= {difference.golden, difference.obtained}
    return names


def _message(name: str, part: str, window: Mapping[str, Any]) -> Message:
    """The message that makes visdom show a window of an environment file."""
    content, title = window["content"], f"{part}: {window.get('title')}"
    head = {"win": f"{_ROW}{name}/{part}", "opts": {"title": title, **_SIZE}}
    if window["type"] in ("image", "text"):
        return {**head, "data": [{"content": content, "type": window["type"]}]}
    layout = {**content.get("layout", {}), "title": title}
    return {**head, "data": content["data"], "layout": layout}


def _difference(
    golden: Mapping[str, Any], obtained: Mapping[str, Any], names: set[str]
) -> Message | None:
    """The content of a plot that shows the difference, or None where there is nothing to draw."""
    a, b = golden["content"], obtained["content"]
    if golden["type"] == obtained["type"] == "image":
        old, new = (decoded(content["src"]).astype(int) for content in (a, b))
        upright = {"yaxis": {"autorange": "reversed"}}
        return _matrix(np.abs(new - old).max(axis=2), upright) if old.shape == new.shape else None
    if not golden["type"] == obtained["type"] == "plot" or not names or not a["data"]:
        return None
    kind = a["data"][0].get("type")
    if kind in _CURVES:
        return _overlaid(a, b, names)
    if kind in _MATRICES and b["data"]:
        old_z, new_z = (numbers(content["data"][0].get("z")) for content in (a, b))
        if old_z is not None and new_z is not None and old_z.shape == new_z.shape:
            layout = {axis: a["layout"][axis] for axis in ("xaxis", "yaxis") if axis in a["layout"]}
            return _matrix((new_z.array - old_z.array).reshape(old_z.shape), layout)
    return None


def _matrix(values: Any, layout: Message) -> Message:
    cells = [[v if np.isfinite(v) else None for v in row] for row in values.tolist()]
    trace = {"z": cells, "type": "heatmap", "colorscale": "RdBu", "zmid": 0}
    return {"data": [trace], "layout": layout}


def _overlaid(golden: Mapping[str, Any], obtained: Mapping[str, Any], names: set[str]) -> Message:
    """Golden dotted, obtained drawn through, obtained − golden below; a colour for each trace."""
    sides = named(golden["data"]), named(obtained["data"])
    order = [name for name in dict.fromkeys((*sides[0], *sides[1])) if name in names]
    colours = {name: f"rgb{CYCLE[k % len(CYCLE)]}" for k, name in enumerate(order)}
    data: list[Message] = []
    for part, side in (("golden", sides[0]), ("obtained", sides[1])):
        for name in order:
            if name in side:
                line = {"dash": "dot" if part == "golden" else "solid", "color": colours[name]}
                look = {"line": line, "marker": {"color": colours[name]}, "yaxis": "y"}
                opacity = 0.5 if part == "golden" else 1.0
                data.append({**side[name], **look, "name": f"{part} {name}", "opacity": opacity})
    for name, (x, old, new) in aligned_lines(golden["data"], obtained["data"]).items():
        if name in names:
            pairs = zip(old, new, strict=True)
            residual = [None if p is None or q is None else q - p for p, q in pairs]
            look = {"mode": "lines+markers", "marker": {"color": colours[name]}}
            head = {"type": "scatter", "name": f"difference {name}", "yaxis": "y2"}
            data.append({**head, **look, "line": {"color": colours[name]}, "x": x, "y": residual})
    layout = {key: value for key, value in golden.get("layout", {}).items() if key != "yaxis2"}
    above, below = layout.get("yaxis", {}), {"domain": [0, 0.26], "title": "difference"}
    return {
        "data": data,
        "layout": {
            **layout,
            "showlegend": True,
            "xaxis": {**layout.get("xaxis", {}), "anchor": "y2"},
            "yaxis": {**above, "domain": [0.36, 1]},
            "yaxis2": below,
        },
    }
