"""Draw a comparison in visdom: golden, obtained and difference. Only `show_in_visdom` sends."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from flexrec.replay.golden.model import Comparison
from flexrec.replay.golden.report import report_text
from flexrec.replay.plots.registry import side_by_side_of
from flexrec.replay.sinks.base import page_of

Message = dict[str, Any]

_ROW = "check/"  # the prefix of our windows' ids
_SIZE = {"width": 420, "height": 340}


def messages(
    golden: Mapping[str, Any], obtained: Mapping[str, Any], comparison: Comparison
) -> list[Message]:
    """The messages to visdom: the report, then a row for each window that differs.

    A row has the golden window, the obtained one, and, if it can be drawn, the difference: lines
    overlaid with obtained − golden below, or a heatmap of it for a matrix or a picture. If one side
    lacks the window, the row has only the other.
    """
    text = f'<pre style="white-space: pre-wrap">{html.escape(report_text(comparison))}</pre>'
    report = _message("report", "check", {"content": text, "type": "text", "title": "report"})
    report["opts"] |= {"width": 3 * _SIZE["width"] + 20, "height": 240}  # fills a row
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
    """Send the messages to an environment, replacing those of an earlier check.

    Returns:
        The address of the environment.

    Raises:
        ServerError: the server fails.
    """
    from flexrec.replay.sinks.http import Connection  # imports requests
    from flexrec.replay.sinks.visdom import VisdomSink

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
    return page_of(sink.url, env)


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
    """The content of a plot of the difference, or None if there is nothing to draw."""
    if golden["type"] != obtained["type"]:
        return None
    shown_as, content = golden["type"], golden["content"]
    if shown_as == "plot":
        if not names or not content["data"]:
            return None
        shown_as = content["data"][0].get("type")
    draw = side_by_side_of(shown_as)
    return None if draw is None else draw(content, obtained["content"], names)
