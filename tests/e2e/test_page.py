"""The HTML page of --html, in a real browser: what its reader can choose, and what cannot run."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flexrec.recorder import Recorder
from flexrec.replay.plots.smoothing import smoothed
from support.commands import flexrec

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Download, Page

pytestmark = [pytest.mark.browser, pytest.mark.viewing]
HOSTILE = "</script><img src=x onerror=window.hurt=1><script>window.hurt=1</script><a href=//x>$x$"
FRESH = """
chosen.off.clear();
chosen.offPhases.clear();
Object.assign(chosen, {smooth: null, x: "mark", scale: "linear"});
document.getElementById("filter").value = "";
turn(0, false); turn(0, false);
"""
LOSS = ".plot[aria-label^='Loss']"


def record(path: Path, seed: int, name: str = "loss", **config: Any) -> None:
    """Four marks, at the steps 1, 3, 5 and 7."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True)
    with Recorder(path, config={"seed": seed, "lr": 0.1, "state": "own", **config}) as rec:
        for step in range(8):
            for phase in ("train", "test"):
                rec.add({f"{phase}_{name}": rng.random(), f"{phase}_acc": rng.random()}, step=step)
            if step % 2:
                rec.log(epoch=step // 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / f"run{seed}.h5" for seed in range(3)]
    for seed, path in enumerate(paths):
        record(path, seed)
    flexrec("replay", *paths, "--html", folder / "three.html")
    return folder / "three.html"


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pages of twenty runs: all, coloured, in groups, along another axis, the best."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(20):
        path = folder / "runs" / f"a_long_name_that_all_runs_share_seed{seed}.h5"
        record(path, seed, lr=0.2 if seed % 2 else 0.1)
    options = {"many": (), "colour": ("--color", "config.lr"), "group": ("--group", "config.lr"),
               "along": ("--x", "relative"), "best": ("--best", "test_acc.max")}  # fmt: skip
    for name, own in options.items():
        flexrec("replay", folder / "runs", *own, "--html", folder / f"{name}.html")
    return folder


class Opened:
    """A page that is open, with its plots drawn."""

    def __init__(self, page: "Page") -> None:
        self.page = page

    @property
    def loss(self) -> dict[str, Any]:
        """What plotly holds of the first plot."""
        found: dict[str, Any] = self.page.evaluate(
            "() => { const p = document.querySelector('.js-plotly-plot');"
            "return {data: p.data.filter(t => t.visible), layout: p.layout} }"
        )
        return found

    def settle(self) -> None:
        """Wait until no plot that is in view has still to be drawn."""
        from support.browser import until

        until(self.page, "cards.every(card => !card.plot || !card.inView || !card.stale)")

    def choose(self, name: str, value: str) -> None:
        """Take one of the choices in the head."""
        self.page.locator(f"#{name} label", has=self.page.locator(f"[value={value}]")).click()
        self.settle()


@pytest.fixture(scope="module")
def once(browser: "Browser", three: Path) -> Iterator[Opened]:
    """The page of three runs; it takes seconds to open."""
    with open_page(browser, three) as found:
        yield found


@pytest.fixture
def opened(once: Opened) -> Opened:
    """The page of three runs as it was when it was opened."""
    once.page.set_viewport_size({"width": 1280, "height": 900})
    once.page.evaluate(FRESH)
    once.settle()
    return once


@contextmanager
def open_page(browser: "Browser", path: Path) -> Iterator[Opened]:
    """Open a page, and see that it complains of nothing."""
    from support.browser import quiet_page, until

    with quiet_page(browser) as (page, complaints):
        page.goto(path.as_uri())
        until(page, "document.querySelectorAll('.js-plotly-plot').length > 0")
        found = Opened(page)
        found.settle()
        yield found
        assert complaints == []


def test_the_head_tells_of_the_runs_and_turns_them_off(opened: Opened) -> None:
    page = opened.page
    assert page.inner_text("#count").startswith("3 runs · ")
    page.locator("#about summary").first.click()
    rows = page.locator("#about table").first.inner_text().splitlines()
    assert re.match(r"run\t.*Loss train, last.*\tseed\b", rows[0])
    assert [row.split("\t")[0] for row in rows[1:]] == ["run0", "run1", "run2"]
    page.locator("#about summary").nth(1).click()
    assert {"lr\t0.1", "config.state\town", "state\tclosed"} <= {
        line.strip() for line in page.inner_text("#about").splitlines()
    }
    assert len(opened.loss["data"]) == 6
    page.locator("#runs input").nth(1).uncheck()
    opened.settle()
    assert {trace["run"] for trace in opened.loss["data"]} == {0, 2}
    page.locator("#runs label").nth(1).click(modifiers=["Shift"])
    opened.settle()
    assert {trace["run"] for trace in opened.loss["data"]} == {1}
    assert [box.is_checked() for box in page.locator("#runs input").all()] == [False, True, False]


def test_smoothing_axes_and_theme_are_chosen(opened: Opened) -> None:
    page = opened.page
    before = opened.loss
    page.locator("#smooth input").fill("0.6")
    opened.settle()
    pale, smooth = opened.loss["data"][:2]
    assert pale["y"] == before["data"][0]["y"]
    assert pale["opacity"] < 0.5
    assert smooth["y"] == pytest.approx(smoothed(before["data"][0]["y"], 0.6))
    opened.choose("x", "step")
    assert opened.loss["data"][0]["x"] == [1, 3, 5, 7]
    assert opened.loss["layout"]["xaxis"]["title"]["text"] == "step"
    opened.choose("x", "time")
    assert opened.loss["layout"]["xaxis"]["type"] == "date"
    opened.choose("x", "relative")
    assert all(0 <= x < 60 for x in opened.loss["data"][0]["x"])
    opened.choose("scale", "log")
    assert opened.loss["layout"]["yaxis"]["type"] == "log"


def test_a_phase_is_turned_off_in_all_plots(opened: Opened) -> None:
    page = opened.page
    assert [box.inner_text() for box in page.locator("#phases label").all()] == ["train", "test"]
    page.locator("#phases input").first.uncheck()
    opened.settle()
    assert {trace["phase"] for trace in opened.loss["data"]} == {"test"}
    assert len(opened.loss["data"]) == 3
    page.locator("#phases label").first.click(modifiers=["Shift"])
    opened.settle()
    assert {trace["phase"] for trace in opened.loss["data"]} == {"train"}
    assert [box.is_checked() for box in page.locator("#phases input").all()] == [True, False]


def test_a_lone_phase_of_several_runs_is_named(
    browser: "Browser", three: Path, tmp_path: Path
) -> None:
    files = sorted(three.parent.glob("*.h5"))
    flexrec("replay", *files, "-k", "test_*", "--html", tmp_path / "test.html")
    with open_page(browser, tmp_path / "test.html") as found:
        assert found.page.locator(".legend li").count() == 0, "the head has the runs' colours"
        assert found.page.locator("#phases label:visible").all_inner_texts() == ["test"]


def test_phases_of_every_spelling_are_turned_off(browser: "Browser", tmp_path: Path) -> None:
    for name in "ab":
        with Recorder(tmp_path / f"{name}.h5", facts=False) as rec:
            for epoch in range(3):
                rec.add(train_loss_step=1.0, train_loss_epoch=2.0, dev_loss=3.0)
                rec.add(acc=4.0, train_acc=4.5, dev_acc=5.0)
                rec.log(epoch=epoch)
    for paths in (["a.h5"], ["a.h5", "b.h5"]):
        made = tmp_path / f"{len(paths)}.html"
        files = [tmp_path / path for path in paths]
        flexrec("replay", *files, "--phases", "train,dev", "--html", made)
        with open_page(browser, made) as found:
            page = found.page
            labels = [box.inner_text() for box in page.locator("#phases label").all()]
            assert labels == ["train", "dev", "no phase"]
            page.locator("#phases label").nth(1).click(modifiers=["Shift"])
            found.settle()
            left = page.evaluate("cards.map(({plot}) => plot.data.filter((t) => t.visible))")
            assert [{t["phase"] for t in lines} for lines in left] == [{"dev"}] * 2
            assert {t["line"]["dash"] for lines in left for t in lines} == {"dash"}
            assert page.locator(".legend span", has_text="train step").count() == len(paths)


def test_a_plot_without_values_that_it_can_show_says_so(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.h5", facts=False) as rec:
        for epoch in range(3):
            rec.add(train_loss=float("nan"), val_loss=float("inf"), gain=epoch - 9.0, x=1.0 - epoch)
            rec.add(none=0.0)
            rec.log(epoch=epoch)
    flexrec("replay", tmp_path / "a.h5", "--html", tmp_path / "a.html")
    with open_page(browser, tmp_path / "a.html") as found:
        texts = found.page.locator("figure").all_text_contents()
        assert ["no finite values" in text for text in texts] == [True, False, False, False]
        found.choose("scale", "log")
        texts = found.page.locator("figure").all_text_contents()
        assert ["no positive values" in text for text in texts] == [False, True, False, False]
        drawn = found.page.evaluate("cards.at(-2).plot.data.map(({y}) => y)")
        assert drawn == [[1, None, None], [1 / 3]], "a gap at -1, a mark for 0"
        mode = found.page.evaluate("cards.at(-2).plot.data[0].mode")
        assert mode == "lines+markers", "no line shows the 1"
        assert found.page.locator("figure").last.locator(".ytick").all_text_contents() == []


def test_plots_are_found_by_the_names_of_their_lines(opened: Opened) -> None:
    page = opened.page
    page.fill("#filter", "run1 TEST")
    assert page.locator("figure:visible").count() == 2
    assert page.locator("#none:visible").count() == 0
    page.fill("#filter", "vall")
    assert page.locator("figure:visible").count() == 0
    assert "vall" in page.inner_text("#none")


def test_the_pointer_shows_the_values_of_twenty_runs(browser: "Browser", twenty: Path) -> None:
    with open_page(browser, twenty / "many.html") as found:
        page, plot = found.page, found.page.locator(LOSS)
        box = plot.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.locator(".values").wait_for()
        lines = page.inner_text(".values").splitlines()
        assert lines[0] == "epoch 1"
        assert lines[-1] == "and 16 more"  # of forty lines
        shown = page.locator(".values").bounding_box()
        assert shown is not None
        assert shown["y"] >= 0
        assert shown["y"] + shown["height"] <= 900
        values = [float(text) for text in page.locator(".values b").all_inner_texts()]
        assert values == sorted(values, reverse=True)
        assert page.locator(".values .near").count() == 1


def test_runs_have_short_names_and_the_colours_of_a_column(
    browser: "Browser", twenty: Path
) -> None:
    with open_page(browser, twenty / "colour.html") as found:
        page = found.page
        chips = page.locator("#runs label")
        assert chips.first.inner_text().split() == ["seed0", "lr", "0.1"]
        assert chips.first.locator("i").count() == 1
        assert page.inner_text("#runs .scale").split() == ["lr", "0.1", "lr", "0.2"]
        page.set_viewport_size({"width": 420, "height": 900})
        page.evaluate("makeChips()")
        assert page.evaluate("document.getElementById('runs').scrollWidth") <= 420
        before = page.evaluate("document.getElementById('runs').clientHeight")
        page.click("#more")
        whole = "e => e.scrollHeight <= e.clientHeight"
        assert page.locator("#runs").evaluate(whole)
        assert page.evaluate("document.getElementById('runs').clientHeight") > before


def test_groups_and_pages_of_other_axes_have_the_choice_of_x(
    browser: "Browser", twenty: Path
) -> None:
    with open_page(browser, twenty / "group.html") as found:
        assert found.page.inner_text("#count").startswith("20 runs in 2 groups · ")
        assert found.page.locator("#x span").all_inner_texts() == ["epoch", "step", "relative"]
        assert found.page.locator("#runs label").first.inner_text().split()[1:] == [
            "n=10,",
            "±",
            "std",
        ]
        found.choose("x", "step")
        assert found.loss["data"][0]["x"] == [1, 3, 5, 7]
    with open_page(browser, twenty / "along.html") as found:
        choices = ["epoch", "step", "time", "relative"]
        assert found.page.locator("#x span").all_inner_texts() == choices
        assert found.page.locator("#x input:checked").get_attribute("value") == "relative"
        found.choose("x", "mark")
        assert found.loss["data"][0]["x"] == [0, 1, 2, 3]
        assert found.loss["layout"]["xaxis"]["title"]["text"] == "epoch"


def test_where_plots_differ_each_has_its_own_scale_at_first(
    browser: "Browser", three: Path, tmp_path: Path
) -> None:
    definitions = [
        f'plots.{name} = {{ type = "line", opts = {{ ytype = "{scale}" }} }}\n'
        f'meters.train_{name} = {{ type = "AverageValueMeter", target = "{name}" }}\n'
        for name, scale in (("loss", "log"), ("acc", "linear"))
    ]
    (tmp_path / "two.toml").write_text("".join(definitions))
    run = three.parent / "run0.h5"
    flexrec("replay", run, "--config", tmp_path / "two.toml", "--html", tmp_path / "two.html")

    with open_page(browser, tmp_path / "two.html") as found:

        def types() -> list[str]:
            every = "[...document.querySelectorAll('.js-plotly-plot')]"
            return list(found.page.evaluate(f"{every}.map(p => p.layout.yaxis.type)"))

        assert found.page.locator("#scale input:checked").get_attribute("value") == "own"
        assert types() == ["log", "linear"]
        found.choose("scale", "linear")
        assert types() == ["linear", "linear"]
        found.choose("scale", "own")
        assert types() == ["log", "linear"]


def test_a_logarithmic_axis_has_labels_wherever_one_zooms(opened: Opened) -> None:
    page = opened.page
    opened.choose("scale", "log")
    for low, high in ((-7, 1), (-2, 0.2), (-0.6, -0.1), (-0.32, -0.3)):
        page.evaluate(
            f"Plotly.relayout(document.querySelector({LOSS!r}), {{'yaxis.range': [{low}, {high}]}})"
        )
        page.wait_for_timeout(50)
        opened.settle()
        texts = page.locator(f"{LOSS} .ytick text").all_text_contents()
        assert 2 <= len(texts) <= 12, (low, high, texts)
    assert page.evaluate("powerText(2e-5)") == "2×10⁻⁵"


def test_the_page_is_dark_or_light(opened: Opened) -> None:
    from support.browser import until

    page, ground = opened.page, "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")  # the system's, which the page follows
    until(page, f"{ground} !== {light!r}")
    opened.settle()
    ink = opened.loss["layout"]["template"]["layout"]["font"]["color"]
    opened.choose("theme", "light")
    assert page.evaluate(ground) == light
    assert opened.loss["layout"]["template"]["layout"]["font"]["color"] != ink
    page.emulate_media(color_scheme="light")


def test_runs_in_the_background_do_not_stand_out_on_a_dark_page(
    browser: "Browser", twenty: Path
) -> None:
    with open_page(browser, twenty / "best.html") as found:

        def opacities() -> dict[bool, set[float]]:
            """Those of the lines in the background, and of those in the legend."""
            seen: dict[bool, set[float]] = {}
            for trace in found.loss["data"]:
                is_muted = trace.get("showlegend") is False
                seen.setdefault(is_muted, set()).add(trace.get("opacity", 1))
            return seen

        found.choose("theme", "light")
        assert opacities() == {True: {1}, False: {1}}
        found.choose("theme", "dark")
        assert opacities() == {True: {0.3}, False: {1}}


@pytest.mark.parametrize("width", [420, 900, 2560])
def test_the_grid_fills_the_page(width: int, opened: Opened) -> None:
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.page.wait_for_timeout(100)  # for what observes sizes
    rows: dict[int, list[Any]] = {}
    for card in opened.page.locator("figure").all():
        box = card.bounding_box()
        assert box is not None
        rows.setdefault(round(box["y"]), []).append(box)
    assert (len(rows) == 2) == (width == 420)
    for row in rows.values():
        assert row[0]["x"] < 20
        assert row[-1]["x"] + row[-1]["width"] > width - 40
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_plot_is_read_with_the_keys_and_saved(opened: Opened, tmp_path: Path) -> None:
    page, plot = opened.page, opened.page.locator(LOSS)
    plot.focus()
    for pressed in ("Home", "ArrowRight"):
        page.keyboard.press(pressed)
    first = opened.loss["data"][0]
    said = str(plot.get_attribute("aria-valuetext"))
    assert said.startswith("epoch 1: run0 train")
    assert f"{first['y'][1]:.5g}" in said
    assert page.locator(".cursor:visible").count() == 2  # in the other plot too
    page.keyboard.press("Escape")
    assert page.locator(".cursor:visible").count() == 0

    def saved(kind: str) -> bytes:
        page.locator("figure", has=plot).locator(".menu summary").click()
        with page.expect_download() as waiting:
            page.locator(".menu[open] button", has_text=kind).click()
        download: Download = waiting.value
        assert download.suggested_filename.endswith(f" Loss.{kind.lower()}")
        download.save_as(tmp_path / kind)
        return (tmp_path / kind).read_bytes()

    assert saved("PNG").startswith(b"\x89PNG")
    assert b"run0 train" in saved("SVG")
    lines = saved("CSV").decode().splitlines()
    assert lines[0] == "trace,epoch,value"
    assert lines[2] == f"run0 train,1,{first['y'][1]!r}"


def test_dates_and_the_values_of_a_fan_are_written_out(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        for day in range(3):
            rec.add(w=np.array([-20.0, 0.5, 3e-5, 7.0, 1000.0]), loss=1.0)
            rec.log(86400.0 * day)
    (tmp_path / "p.toml").write_text(
        '[plots.w]\ntype = "fan"\n[plots.loss]\ntype = "line"\nopts = { xtype = "date" }\n'
        '[meters.w]\ntype = "LastValueMeter"\ntarget = "w"\n'
        '[meters.loss]\ntype = "LastValueMeter"\ntarget = "loss"\n'
    )
    flexrec("replay", tmp_path / "run.h5", "-c", tmp_path / "p.toml", "--html", tmp_path / "a.html")
    with open_page(browser, tmp_path / "a.html") as found:
        fan, loss = (found.page.evaluate(f"csvOf(cards[{k}])").splitlines() for k in (0, 1))
        values = {(name, x): float(y) for name, x, y in list(csv.reader(fan))[1:]}
        of_day = [values[name, "86400"] for name in ("least, lower", "median", "5 to 95 %, upper")]
        assert of_day == [-20.0, 0.5, pytest.approx(801.4)]
        assert loss[2] == "loss,1970-01-02 00:00:00.000,1"
        found.page.locator("[role=slider]").focus()
        for pressed in ("Home", "ArrowRight"):
            found.page.keyboard.press(pressed)
        said = str(found.page.locator("[role=slider]").get_attribute("aria-valuetext"))
        assert "1970-01-02 00:00:00: " in said


def test_a_picture_has_its_history_on_a_slider(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.h5", facts=False) as rec:
        for epoch in range(5):
            rec.add(samples=np.full((3, 8, 8), epoch / 4), train_loss=1.0)
            rec.log(epoch=epoch)
    flexrec("replay", tmp_path / "a.h5", "--html", tmp_path / "a.html")
    with open_page(browser, tmp_path / "a.html") as found:
        page = found.page
        slider, picture = page.locator(".history input"), page.locator("figure img")
        seen = [picture.get_attribute("src")]
        assert slider.get_attribute("aria-valuetext") == "latest"
        slider.focus()
        for place in ("3", "2", "1", "0"):
            page.keyboard.press("ArrowLeft")
            assert slider.get_attribute("aria-valuetext") == f"epoch {place}"
            seen.append(picture.get_attribute("src"))
        assert len(set(seen)) == 5


def test_what_a_recording_says_stays_text_without_mathjax(
    browser: "Browser", tmp_path: Path
) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for seed, path in enumerate(paths):
        record(path, seed, name=HOSTILE, **{HOSTILE: f"{HOSTILE}{seed}"})
    table = tmp_path / "plots.toml"
    table.write_text('[plots.odd]\ntype = "line"\n[meters."*onerror*"]\ntarget = "odd"\n'
                     'type = "AverageValueMeter"\n')  # fmt: skip
    page = tmp_path / "a.html"
    flexrec("replay", *paths, "--config", table, "--env", HOSTILE, "--html", page)
    with open_page(browser, page) as found:
        found.page.locator("#about summary").first.click()
        assert HOSTILE in found.page.inner_text("h1")
        assert f"{HOSTILE}1" in found.page.inner_text("#about")
        plot = found.page.locator(".plot").first
        plot.focus()
        found.page.keyboard.press("Home")
        found.page.locator(".values").wait_for()
        assert "onerror" in found.page.inner_text(".values")
        assert "onerror" in str(plot.get_attribute("aria-valuetext"))
        assert found.page.locator(".plot a, img[src=x]").count() == 0
        assert found.page.evaluate("window.hurt === undefined")
        assert found.page.evaluate("csvCell('=cmd')") == "'=cmd"


def test_whole_numbers_are_written_out(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        for step in (0, 123456, 246913):
            rec.add(train_loss=1 / (step + 1), step=step)
    flexrec("replay", tmp_path / "run.h5", "--html", tmp_path / "run.html")
    with open_page(browser, tmp_path / "run.html") as found:
        ticks = found.page.locator(f"{LOSS} .xtick text").all_text_contents()
        assert "100,000" in ticks
        found.page.locator(LOSS).focus()
        for pressed in ("Home", "ArrowRight"):
            found.page.keyboard.press(pressed)
        said = str(found.page.locator(LOSS).get_attribute("aria-valuetext"))
        assert "123456: " in said


def test_of_marks_at_one_x_the_last_value_is_read(browser: "Browser", tmp_path: Path) -> None:
    """The keys stop there, where a gap lies before the value, or behind it."""
    with Recorder(tmp_path / "run.h5") as rec:
        for epoch, loss in enumerate([5.0, np.nan, 7.0, 8.0, 9.0, np.nan]):
            rec.add(loss=loss)
            rec.log(epoch=epoch // 2)
    flexrec("replay", tmp_path / "run.h5", "--html", tmp_path / "x.html")
    with open_page(browser, tmp_path / "x.html") as found:
        plot, read = found.page.locator(LOSS), []
        plot.focus()
        for pressed in ("Home", "ArrowRight", "End"):
            found.page.keyboard.press(pressed)
            read.append(plot.get_attribute("aria-valuetext"))
    assert read == ["epoch 0: Loss 5", "epoch 1: Loss 8", "epoch 2: Loss 9"]


def test_labels_of_axes_do_not_overlap(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        for _ in range(2):
            rec.add({"loss": 0.01, "few": np.ones((5, 5)), "many": np.ones((20, 20))})
            rec.step()
    flexrec("replay", tmp_path / "run.h5", "--log-y", "--html", tmp_path / "run.html")
    with open_page(browser, tmp_path / "run.html") as found:
        found.page.set_viewport_size({"width": 900, "height": 900})
        found.settle()

        def labels(title: str, axis: str) -> list[str]:
            card = found.page.locator("figure", has_text=title)
            return card.locator(f".{axis}tick text").all_text_contents()

        assert {"0.001", "0.01", "0.1"} >= set(labels("Loss", "y")) >= {"0.01"}
        assert labels("Few", "x") == list("01234")
        found.choose("scale", "linear")  # a constant: its 0 must not lie on that of x
        low, high = found.page.evaluate(f"document.querySelector({LOSS!r}).layout.yaxis.range")
        assert low < 0 < 0.02 < high
        for axis in "xy":
            assert 3 <= len(labels("Many", axis)) <= 10


def test_a_long_config_is_read_on_a_narrow_page(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", config={"note": "a long word " * 40}) as rec:
        rec.add(loss=1.0)
    flexrec("replay", tmp_path / "run.h5", "--html", tmp_path / "run.html")
    with open_page(browser, tmp_path / "run.html") as found:
        found.page.set_viewport_size({"width": 420, "height": 900})
        found.page.locator("#about summary").click()
        table = found.page.locator("#about .scroll")
        assert table.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_a_surface_has_the_whole_card(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add(m=np.eye(4))
    text = '[plots.m]\ntype = "surf"\n[meters.m]\ntype = "LastValueMeter"\ntarget = "m"\n'
    (tmp_path / "p.toml").write_text(text)
    flexrec("replay", tmp_path / "run.h5", "-c", tmp_path / "p.toml", "--html", tmp_path / "a.html")
    with open_page(browser, tmp_path / "a.html") as found:
        size = found.page.evaluate("cards[0].plot._fullLayout._size")
        assert (size["l"], size["b"]) == (0, 0), "the names of axes would be cut"


def test_a_long_text_fills_its_card(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add(loss=1.0, note="a line\n" * 100)
    flexrec("replay", tmp_path / "run.h5", "--html", tmp_path / "run.html")
    with open_page(browser, tmp_path / "run.html") as found:
        text = found.page.locator("pre").bounding_box()
        card = found.page.locator("figure", has=found.page.locator("pre")).bounding_box()
        assert text is not None
        assert card is not None
        assert card["height"] < 600
        assert text["y"] + text["height"] > card["y"] + card["height"] - 20


def test_a_long_legend_does_not_cover_the_name_of_x(browser: "Browser", tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        for epoch in range(2):
            rec.add({f"a/long/name/of/layer{k}": np.arange(5.0) for k in range(14)})
            rec.log(epoch=epoch)
    text = '[plots.w]\ntype = "fan"\n[meters."a/*"]\ntype = "LastValueMeter"\ntarget = "w"\n'
    (tmp_path / "p.toml").write_text(text)
    flexrec("replay", tmp_path / "run.h5", "-c", tmp_path / "p.toml", "--html", tmp_path / "a.html")
    with open_page(browser, tmp_path / "a.html") as found:
        found.page.set_viewport_size({"width": 420, "height": 900})
        found.settle()
        title, legend = (
            found.page.locator(name).bounding_box() for name in (".xtitle", "g.legend")
        )
        assert title is not None
        assert legend is not None
        assert title["y"] + title["height"] <= legend["y"]


def test_numbers_of_twenty_classes_can_be_read(browser: "Browser", tmp_path: Path) -> None:
    right = np.eye(20)
    half_right = (np.vstack([right, np.roll(right, 1, 1)]), np.tile(np.arange(20), 2))
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add(loss=1.0, acc=1.0, test_confusion=half_right)
    flexrec("replay", tmp_path / "run.h5", "--html", tmp_path / "run.html")
    with open_page(browser, tmp_path / "run.html") as found:
        numbers = found.page.locator(".heatmap-label text")
        assert numbers.count() > 0
        size = numbers.first.evaluate("label => parseFloat(getComputedStyle(label).fontSize)")
        assert size >= 8


def test_a_plot_that_cannot_be_drawn_leaves_the_others(browser: "Browser", three: Path) -> None:
    from support.browser import quiet_page, until

    with quiet_page(browser) as (page, _):
        page.goto(three.as_uri())
        until(page, "document.querySelectorAll('.js-plotly-plot').length > 1")
        page.evaluate("""() => {
            const react = Plotly.react, broken = cards.find((card) => card.drawn).plot;
            Plotly.react = (plot, ...rest) => {
              if (plot === broken) throw new Error("broken");
              return react(plot, ...rest);
            };
            redraw();
        }""")
        until(page, "document.body.textContent.includes('cannot be drawn: broken')")
        until(page, "!cards.some((card) => card.plot && card.stale && card.inView)")
