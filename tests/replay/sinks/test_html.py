"""One HTML file: whole by itself, and deaf to whatever a recording says."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexrec
from flexrec.recorder.errors import DefinitionError, MissingDependency
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.html import HtmlSink
from flexrec.replay.sinks.page.page import html_page
from flexrec.replay.sinks.visdom import payload
from support.window_cases import WINDOWS, window

PLOTLY = "window.Plotly = 'library';"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"


class Elements(HTMLParser):
    """Every element, with its attributes; and the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def shown(text: str) -> list[dict[str, Any]]:
    """What the page's script is told of the windows."""
    found: list[dict[str, Any]] = json.loads(Elements(text).scripts[0], object_hook=unpacked)
    return found


def unpacked(item: dict[str, Any]) -> Any:
    """The numbers that the page packs."""
    if "f64" not in item:
        return item
    numbers = np.frombuffer(base64.b64decode(item["f64"]), "<f8").tolist()
    return [None if np.isnan(number) else number for number in numbers]


def told(text: str) -> list[dict[str, Any]]:
    """What the page's script is told of the runs."""
    found: list[dict[str, Any]] = json.loads(Elements(text).scripts[1])
    return found


def page(*windows: Window, title: str = "a page") -> str:
    return html_page(windows, title=title, plotly_js=PLOTLY)


def test_every_window_is_there_as_visdom_would_have_it() -> None:
    found = shown(page(*WINDOWS))
    assert [item["title"] for item in found] == [w.title if w.opts.get("title") else w.win
                                                 for w in WINDOWS]  # fmt: skip
    for item, drawn in zip(found, WINDOWS, strict=True):
        message = payload(drawn)
        if "data" not in item:
            assert ("src" in item) == (drawn.type in ("image", "images"))
            continue
        for trace, expected in zip(item["data"], message["data"], strict=True):
            assert {k: trace[k] for k in "xyz" if k in trace} == {
                k: expected[k] for k in "xyz" if k in expected
            }
        assert "title" not in item["layout"]  # it is the page's own


def test_nothing_is_fetched_from_anywhere() -> None:
    text = page(*WINDOWS)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    policy = next(
        attributes["content"]
        for tag, attributes in Elements(text).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    scripts = Elements(text).scripts[2:]
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy


def test_what_a_recording_says_stays_text() -> None:
    hostile = Trace(HOSTILE, y=np.arange(3.0), x=np.arange(3.0))
    windows = (
        window("line", hostile, win=HOSTILE, title=HOSTILE, xlabel=HOSTILE),
        window("text", Trace(HOSTILE, HOSTILE), win="text", title=HOSTILE),
        window("image", Trace("i", np.eye(2)), win="image", caption=HOSTILE),
    )
    text = page(*windows, title=HOSTILE)
    plain = page(*(window(w.type, w.traces[0], win=w.win) for w in windows))
    assert [tag for tag, _ in Elements(text).elements] == [
        tag for tag, _ in Elements(plain).elements
    ]
    line, note, image = shown(text)
    assert line["title"] == note["text"] == image["caption"] == HOSTILE
    assert line["data"][0]["name"] == line["layout"]["xaxis"]["title"]["text"] == HOSTILE


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    HtmlSink(path).close()
    before = path.read_text("utf-8")
    sink = HtmlSink(path, overwrite=True)
    sink.show([window("text", Trace("t", "first"))])
    sink.show([window("text", Trace("t", "second")), window("heatmap", Trace("t", 1.0))])
    with pytest.raises(DefinitionError):
        sink.close()
    assert path.read_text("utf-8") == before
    assert list(tmp_path.iterdir()) == [path]
    sink = HtmlSink(path, overwrite=True)
    sink.show([window("text", Trace("t", "second"))])
    sink.close()
    assert [item["text"] for item in shown(path.read_text("utf-8"))] == ["second"]
    assert "<title>run</title>" in path.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_not_utf8_is_escaped_in_the_title(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.html")
    HtmlSink(path).close()
    assert "<title>caf\\udce9</title>" in path.read_text("utf-8")


def test_many_numbers_are_packed_exactly() -> None:
    rng = np.random.default_rng(0)
    y = np.where(np.arange(99) % 7 == 0, np.nan, rng.normal(size=99))
    x = np.arange(99.0)
    text = page(window("line", Trace("t", y, x)), window("heatmap", Trace("m", [y, 1e9 * x])))
    assert text.count('"f64"') == 3
    line, matrix = shown(text)
    values = [None if np.isnan(value) else value for value in y.tolist()]
    assert (line["data"][0]["x"], line["data"][0]["y"]) == (x.tolist(), values)
    assert matrix["data"][0]["z"] == [values, (1e9 * x).tolist()]


def test_lines_are_thinned_unless_all_are_wanted(tmp_path: Path) -> None:
    long = window("line", Trace("t", y=np.sin(np.arange(5000.0)), x=np.arange(5000.0)))
    for max_points, count in ((0, 5000), (100, 100)):
        sink = HtmlSink(tmp_path / "x.html", max_points=max_points, overwrite=True)
        sink.show([long])
        sink.close()
        (item,) = shown((tmp_path / "x.html").read_text("utf-8"))
        assert len(item["data"][0]["y"]) <= count
        assert len(item["data"][0]["y"]) > count // 2


def test_a_long_legend_makes_a_window_wide_but_not_high(tmp_path: Path) -> None:
    lines = [Trace(f"t{k}", y=np.arange(3.0), x=np.arange(3.0)) for k in range(20)]
    sink = HtmlSink(tmp_path / "x.html")
    sink.show([window("line", *lines), window("line", *lines, win="own", height=500)])
    sink.close()
    sizes = [(item["width"], item["height"]) for item in shown((tmp_path / "x.html").read_text())]
    assert sizes == [(720, None), (720, 500)]


def test_without_plotly_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match="pip install 'plotly"):
        HtmlSink(tmp_path / "x.html")


def test_a_page_is_written_out_of_a_zip(tmp_path: Path) -> None:
    home = Path(str(flexrec.__file__)).parent
    with zipfile.ZipFile(tmp_path / "flexrec.zip", "w") as archive:
        for floor in ("recorder", "replay"):
            for file in (home / floor).resolve().rglob("*.*"):
                archive.write(file, f"flexrec/{floor}/{file.relative_to((home / floor).resolve())}")
        archive.write((home / "__init__.py").resolve(), "flexrec/__init__.py")
    code = """
import os, sys
there = [path for path in sys.path if os.path.isdir(os.path.join(path, "flexrec"))]
sys.path[:] = ["flexrec.zip", *(path for path in sys.path if path not in there)]
from flexrec.replay import Trace, Window
from flexrec.replay.sinks import HtmlSink
from flexrec.replay.sinks.page import page
from flexrec.replay.server.asset_list import all_assets
assert "flexrec.zip" in page.__file__
assert all_assets()
sink = HtmlSink("page.html")
sink.show([Window("w", None, "text", (Trace("t", "found"),))])
sink.close()
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "found" in (tmp_path / "page.html").read_text()
