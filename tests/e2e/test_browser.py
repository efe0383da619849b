"""The pages in a real browser, on a real server, with nothing but the loopback to reach.

What plotly holds and what it has drawn are counted in the page itself; see `browser`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flexrec.recorder import Recorder
from flexrec.replay.plots.colours import CYCLE
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.server.assets import provide
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks.env_file import EnvFileSink
from flexrec.replay.sinks.html import HtmlSink
from flexrec.replay.sinks.visdom import VisdomSink
from support.window_cases import WINDOWS, window

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.viewing]
FLEXREC = Path(sys.executable).with_name("flexrec")
SHOTS = Path(os.environ.get("FLEXREC_SCREENSHOTS", "build/screenshots"))
PLOTS = [w for w in WINDOWS if w.type not in ("image", "images", "text")]
READY = "document.querySelectorAll('.js-plotly-plot .main-svg:first-child').length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose page is whole."""
    folder = tmp_path_factory.mktemp("envs")
    with start_server(env_path=folder, files=provide().files) as started:
        yield started


class Viewed:
    """A page with windows on it."""

    def __init__(self, page: "Page", complaints: list[str]) -> None:
        self.page = page
        self.complaints = complaints

    @property
    def plots(self) -> dict[str, dict[str, Any]]:
        """What is drawn, by title."""
        from support.browser import drawn

        return drawn(self.page)

    def until(self, condition: str) -> None:
        """Wait until this is true in the page."""
        from support.browser import until

        until(self.page, condition)

    def shoot(self, name: str) -> None:
        """Keep a picture for whoever wants to look."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


class Viewer:
    """Shows windows, in visdom's page or in a file from the disk."""

    def __init__(self, kind: str, browser: "Browser", server: Server, folder: Path) -> None:
        self.kind, self._browser, self._server, self._folder = kind, browser, server, folder
        self._closing: list[Any] = []
        self._count = 0

    def open(self, address: str, *, height: int = 900) -> Viewed:
        """Open an address."""
        from support.browser import quiet_page

        opened = quiet_page(self._browser, height=height)
        page, complaints = opened.__enter__()
        self._closing.append(opened)
        page.goto(address)
        return Viewed(page, complaints)

    def show(self, windows: list[Window], name: str, *, height: int = 900) -> Viewed:
        """Show windows and wait until all plots are drawn."""
        if self.kind == "visdom":
            sink = VisdomSink(server=self._server.url, env=name)
            sink.show(windows)
            sink.close()
            address = f"{self._server.url}/env/{name}"
        else:
            path = self._folder / f"{name}.html"
            file = HtmlSink(path, overwrite=True)
            file.show(windows)
            file.close()
            address = path.as_uri()
        view = self.open(address, height=height)
        plots = sum(w.type not in ("image", "images", "text") for w in windows)
        view.until(f"{READY} >= {plots}")
        view.page.wait_for_timeout(300)  # plotly draws legends and images a moment later
        view.shoot(f"{self.kind}-{name}")
        return view

    def close(self) -> None:
        """Close every page."""
        for opened in self._closing:
            opened.__exit__(None, None, None)


@pytest.fixture(params=["visdom", "html"])
def viewer(
    request: pytest.FixtureRequest, browser: "Browser", server: Server, tmp_path: Path
) -> Iterator[Viewer]:
    """visdom's page, and a file."""
    made = Viewer(request.param, browser, server, tmp_path)
    yield made
    made.close()


def curve(name: str, values: Any) -> Trace:
    return Trace(name, np.asarray(values, float), np.arange(len(values), dtype=float))


def test_every_plot_type_is_drawn(viewer: Viewer) -> None:
    view = viewer.show([w for w in PLOTS if not w.opts.get("webgl")], "types", height=6000)
    view.until("document.querySelectorAll('.gl-container canvas').length > 0")
    plots = view.plots
    drawn = {w.win: plots[str(w.opts.get("title") or w.win)] for w in PLOTS
             if not w.opts.get("webgl")}  # fmt: skip
    assert drawn["line"]["lines"][0] == 2
    assert [len(trace["y"]) for trace in drawn["line"]["data"]] == [4, 2]
    assert drawn["line/one"]["points"] == 3
    assert drawn["line/styled"]["fills"] == 2
    assert drawn["scatter"]["points"] == 4
    assert drawn["stem"]["lines"].count(2) == 4  # four uprights
    assert drawn["dual_axis_lines"]["lines"][0] == 2
    assert len(drawn["dual_axis_lines"]["data"]) == 2
    assert drawn["bar"]["bars"] == 3
    assert drawn["histogram"]["bars"] == 5
    assert drawn["boxplot"]["boxes"] == 2
    assert drawn["pie"]["slices"] == 3
    assert drawn["heatmap"]["heatmaps"] == 1
    assert drawn["heat"]["heatmaps"] >= 1
    assert [trace.get("fill") for trace in drawn["fan"]["data"]] == [None, "tonexty"] * 3 + [None]
    assert drawn["fan"]["fills"] == 3
    assert drawn["contour"]["contours"] >= 1
    assert drawn["surf"]["scenes"] >= 1
    for title, plot in plots.items():
        assert plot["title"] == title
    assert view.complaints == []


def test_pictures_and_texts_are_shown(viewer: Viewer) -> None:
    cases = [w for w in WINDOWS if w.type in ("image", "images", "text")]
    wide = window("image", Trace("i", np.zeros((20, 60))), win="wide", title="wide")
    view = viewer.show([*cases, wide], "pictures")
    view.until("document.querySelectorAll('img').length >= 6")
    view.until("[...document.images].every(image => image.naturalWidth > 0)")
    sizes = view.page.evaluate(
        "() => [...document.images].map(i => { const box = i.getBoundingClientRect();"
        "return [box.width / box.height, i.naturalWidth / i.naturalHeight, box.width] })"
    )
    assert len(sizes) == 6
    for shown, natural, width in sizes:
        assert shown == pytest.approx(natural, rel=0.05)
        assert width > 60  # a picture of few pixels is enlarged
    assert "<b>a & b</b>" in view.page.inner_text("body")
    assert view.complaints == []


def test_titles_legends_axes_and_gaps(viewer: Viewer) -> None:
    values = [1.0, 10.0, np.nan, 100.0, 1000.0]
    plot = window("line", curve("train", values), title="Loss", xlabel="epoch", ylabel="nats",
                  ytype="log")  # fmt: skip
    drawn = viewer.show([plot], "axes").plots["Loss"]
    assert (drawn["xtitle"], drawn["ytitle"]) == ("epoch", "nats")
    assert drawn["data"][0]["y"] == [1.0, 10.0, None, 100.0, 1000.0]
    assert drawn["layout"]["yaxis"]["type"] == "log"
    ticks = {text.replace("\u200b", ""): y for text, y in drawn["yticks"]}
    decades = ("1", "10", "100", "1000", "102", "103")  # visdom's page has 10^2 and 10^3
    heights = {text: y for text, y in ticks.items() if text in decades}
    assert len(heights) >= 3
    steps = np.diff(list(heights.values()))
    assert steps == pytest.approx([steps[0]] * len(steps), rel=0.05)
    assert drawn["lines"] == [2, 2]  # two strokes of two points each: a gap between


def test_colours_stay_with_a_layer(viewer: Viewer) -> None:
    out = window("line", *(curve(str(k), [k, k]) for k in range(4)), win="grad_out", title="out")
    into = window("line", *(curve(str(k), [k, k]) for k in (2, 3)), win="grad_in", title="in")
    view = viewer.show([out, into], "colours")
    plots = view.plots
    stroked = dict(zip(map(str, range(4)), plots["out"]["colours"], strict=True))
    assert plots["out"]["colours"] == [f"rgb{CYCLE[k]}" for k in range(4)]
    assert plots["in"]["colours"] == [stroked["2"], stroked["3"]]
    assert plots["in"]["legend"] == ["2", "3"]


def test_a_confusion_matrix_is_the_right_way_up(viewer: Viewer) -> None:
    names = ["cat", "dog", "owl"]
    plot = window("heatmap", Trace("c", np.eye(3)), title="Confusion", xlabel="predicted",
                  ylabel="true", rownames=names, columnnames=names)  # fmt: skip
    plain = window("heatmap", Trace("c", np.eye(10)), win="plain", title="Plain")
    plots = viewer.show([plot, plain], "confusion").plots
    assert plots["Confusion"]["xticks"] == names
    assert downwards(plots["Confusion"]) == names
    assert plots["Plain"]["xticks"] == [str(k) for k in range(10)]
    assert downwards(plots["Plain"]) == [str(k) for k in range(10)]


def downwards(plot: dict[str, Any]) -> list[str]:
    """The names at the upright axis, from the top of the page."""
    return [text for text, _ in sorted(plot["yticks"], key=lambda tick: float(tick[1]))]


@pytest.mark.parametrize("count", [1, 6, 40])
def test_windows_stand_side_by_side_in_order(count: int, viewer: Viewer) -> None:
    windows = [window("line", curve("t", [1, k]), win=f"w{k}", title=f"w{k}") for k in range(count)]
    view = viewer.show(windows, f"many{count}", height=9000)
    boxes = view.page.evaluate(
        "() => [...document.querySelectorAll('.js-plotly-plot')].map(p => {"
        "const b = p.getBoundingClientRect();"
        "const title = p.querySelector('.gtitle') ?? p.closest('figure').querySelector('h2');"
        "return [title.textContent, b.x, b.y, b.right, b.bottom] })"
    )
    placed = sorted(boxes, key=lambda box: (round(box[2]), box[1]))
    assert [box[0] for box in placed] == [w.title for w in windows]
    for k, (_, x, y, right, bottom) in enumerate(placed):
        assert right - x > 250
        assert bottom - y > 200
        for _, other_x, other_y, other_right, other_bottom in placed[k + 1 :]:
            beside = other_x >= right - 2 or x >= other_right - 2
            assert beside or other_y >= bottom - 2 or y >= other_bottom - 2


def test_a_hundred_layers_go_along_a_ramp(viewer: Viewer) -> None:
    layers = [curve(f"block{k}", [k, k + 1]) for k in range(100)]
    view = viewer.show([window("line", *layers, title="Deep")], "deep")
    drawn = view.plots["Deep"]
    assert len(drawn["lines"]) == 100
    assert len(set(drawn["colours"])) == 100
    assert drawn["width"] > 500
    assert view.complaints == []


def test_what_a_recording_says_does_not_run(viewer: Viewer) -> None:
    hostile = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>{}"
    windows = [
        window("line", curve(hostile, [1, 2]), win="l", title=hostile.format("line")),
        window("text", Trace("t", hostile), win="t", title=hostile),
        window("image", Trace("i", np.eye(30)), win="i", title=hostile, caption=hostile),
    ]
    view = viewer.show(windows, "hostile")
    assert view.page.evaluate("() => window.hurt === undefined")
    assert not [c for c in view.complaints if not c.startswith("404")]


def test_many_points_are_all_drawn_from_a_file(browser: "Browser", tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sink = HtmlSink(tmp_path / "many.html", max_points=0)
    sink.show([window("line", curve("walk", rng.normal(size=100_000).cumsum()), title="Walk")])
    sink.close()
    viewer = Viewer("html", browser, Server.__new__(Server), tmp_path)
    view = viewer.open((tmp_path / "many.html").as_uri())
    view.until(f"{READY} >= 1")
    assert len(view.plots["Walk"]["data"][0]["y"]) == 100_000
    assert view.plots["Walk"]["lines"][0] > 1000
    viewer.close()


def test_the_file_is_filtered_by_title(browser: "Browser", tmp_path: Path) -> None:
    sink = HtmlSink(tmp_path / "f.html")
    sink.show([window("line", curve("t", [1, 2]), win=name) for name in ("loss", "acc")])
    sink.close()
    viewer = Viewer("html", browser, Server.__new__(Server), tmp_path)
    view = viewer.open((tmp_path / "f.html").as_uri())
    view.page.fill("#filter", "LOS")
    assert view.page.inner_text("#count") == "1 of 2 windows"
    assert view.page.locator("figure:visible").count() == 1
    sink = HtmlSink(tmp_path / "one.html")
    sink.show([window("line", curve("t", [1]), win="loss")])
    sink.close()
    view = viewer.open((tmp_path / "one.html").as_uri())
    assert view.page.inner_text("#count") == "1 window"
    assert view.page.locator(".scatterlayer .point").count() == 1
    viewer.close()


def test_visdom_opens_a_golden(browser: "Browser", tmp_path: Path) -> None:
    sink = EnvFileSink(tmp_path / "golden.json")
    sink.show([window("line", curve("train", [3, 1, 2]), title="Golden")])
    sink.close()
    with start_server(env_path=tmp_path, files=provide().files) as own:
        viewer = Viewer("visdom", browser, own, tmp_path)
        view = viewer.open(f"{own.url}/env/golden")
        view.until(f"{READY} >= 1")
        assert view.plots["Golden"]["lines"] == [3]
        assert view.complaints == []
        viewer.close()


@pytest.fixture
def following(server: Server, tmp_path: Path) -> Iterator[tuple[Recorder, "subprocess.Popen[str]"]]:
    """A run that is being recorded, and a replay that follows it into visdom."""
    path = tmp_path / "live.h5"
    with Recorder(path, flush_seconds=0.1) as rec:
        rec.add(train_loss=9.0)
        rec.log(0)
        rec.flush()
        command = ["replay", str(path), "-p", "loss", "--phases", "train", "--follow"]
        command += ["--server", server.url, "--env", "live"]
        with subprocess.Popen(
            [FLEXREC, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield rec, process
            finally:
                process.kill()


def test_a_live_run_grows_on_the_page(
    following: "tuple[Recorder, subprocess.Popen[str]]",
    browser: "Browser",
    server: Server,
    tmp_path: Path,
) -> None:
    rec, process = following
    viewer = Viewer("visdom", browser, server, tmp_path)
    sink = VisdomSink(server=server.url)
    while not sink.windows("live"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    sink.close()
    view = viewer.open(f"{server.url}/env/live")
    view.until(f"{READY} >= 1")
    for count, loss in ((2, 4.0), (3, 3.0)):
        rec.add(train_loss=loss)
        rec.log(count - 1)
        rec.flush()
        view.until(f"document.querySelector('.js-plotly-plot')?.data?.[0].y.length >= {count}")
    view.until("document.querySelector('.scatterlayer .js-line')")
    view.shoot("visdom-live")
    assert view.plots["Loss"]["lines"] == [3]
    rec.close()
    assert process.wait(60) == 0
    viewer.close()
