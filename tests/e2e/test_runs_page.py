"""The page of `flexrec runs --html`, in a real browser: what its reader can choose."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flexrec.replay.sinks.html import write_table_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.viewing]
HOSTILE = "</script><img src=x onerror=window.hurt=1><script>window.hurt=1</script><a href=//x>$x$"
COLUMNS = ("name", "state", "config.lr", "config.opt", "loss.last", "loss.min", HOSTILE)
POINTS = "document.querySelectorAll('.scatterlayer .point').length"


def rows(count: int) -> list[tuple[Any, ...]]:
    """Runs with rising learning rates; the last has an infinite loss, the one before it none."""
    found = []
    for i in range(count):
        loss = math.inf if i == count - 1 else None if i == count - 2 else float((i - 4) ** 2)
        opt = ("adam", "sgd")[i % 2]
        found.append((f"run{i}", "closed", 10.0 ** (i % 40 / 4 - 4), opt, loss, loss, HOSTILE))
    return found


@contextmanager
def opened(browser: "Browser", folder: Path, count: int, width: int = 1280) -> "Iterator[Page]":
    """The page of so many runs, which complains of nothing."""
    from support.browser import quiet_page, until

    path = folder / "runs.html"
    write_table_page(COLUMNS, rows(count), path, title=f"a {HOSTILE}")
    with quiet_page(browser, width=width) as (page, complaints):
        page.goto(path.as_uri())
        until(page, f"{POINTS} > 0")
        yield page
        assert page.evaluate("window.hurt") is None
        assert complaints == []


def names(page: "Page") -> list[str]:
    return page.locator("tbody th").all_inner_texts()


def test_the_table_is_sorted_and_filtered(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, tmp_path, 8) as page:
        assert page.inner_text("h1") == f"a {HOSTILE}"
        assert page.inner_text("#count") == "8 runs"
        assert names(page) == [f"run{i}" for i in range(8)]
        loss = page.locator("thead th", has_text="loss.min")
        loss.locator("button").click()
        assert loss.get_attribute("aria-sort") == "ascending"
        assert names(page) == [f"run{i}" for i in (4, 3, 5, 2, 1, 0, 7, 6)]
        loss.locator("button").click()
        assert loss.get_attribute("aria-sort") == "descending"
        assert names(page) == [f"run{i}" for i in (7, 0, 1, 2, 3, 5, 4, 6)]
        assert page.locator("tbody tr").first.locator("td").nth(4).inner_text() == "Infinity"
        page.keyboard.press("/")
        page.keyboard.type("sgd")
        assert names(page) == ["run7", "run1", "run3", "run5"]
        assert page.inner_text("#count") == "4 of 8 runs"
        assert page.evaluate(POINTS) == 3  # an infinite one has no place
        page.click("#clear")
        assert len(names(page)) == 8
        cells = page.locator("tbody tr").first.locator("td").all_inner_texts()
        assert cells[-1] == HOSTILE


def test_two_columns_are_drawn_over_each_other(browser: "Browser", tmp_path: Path) -> None:
    from support.browser import until

    with opened(browser, tmp_path, 8) as page:
        assert page.inner_text("#scatter-card h2") == "loss.min over config.lr"
        drawn: dict[str, Any] = page.evaluate("({data: scatter.data, layout: scatter.layout})")
        assert drawn["layout"]["xaxis"]["type"] == "log"
        assert drawn["data"][0]["text"] == [f"run{i}" for i in (0, 1, 2, 3, 4, 5, 7)]
        assert drawn["data"][0]["y"][:6] == [16, 9, 4, 1, 0, 1]
        page.select_option("#across", label="config.opt")
        until(page, "scatter.layout.xaxis.type === 'category'")
        assert page.inner_text("#scatter-card h2") == "loss.min over config.opt"
        page.select_option("#along", label=HOSTILE)
        assert page.inner_text("#scatter-card h2") == f"{HOSTILE} over config.opt"


def test_numbers_come_before_texts(browser: "Browser", tmp_path: Path) -> None:
    from support.browser import quiet_page, until

    values: list[Any] = ["auto", 0.1, 1e-05, "10", 2.0, "", None]
    rows = [(f"run{i}", value, float(i)) for i, value in enumerate(values)]
    write_table_page(("name", "config.lr", "loss.min"), rows, tmp_path / "p.html", title="mixed")
    with quiet_page(browser) as (page, _):
        page.goto((tmp_path / "p.html").as_uri())
        until(page, f"{POINTS} > 0")
        page.locator("thead th", has_text="config.lr").locator("button").click()
        assert names(page) == [f"run{i}" for i in (2, 1, 4, 3, 5, 0, 6)]
        axis = "columns[1].scale.labels.map(([, text]) => text)"
        assert page.evaluate(axis) == ["1e-05", "0.1", "2.0", "10", "", "auto"]


def test_a_range_of_an_axis_chooses_runs(browser: "Browser", tmp_path: Path) -> None:
    from support.browser import until

    with opened(browser, tmp_path, 8) as page:
        axes = page.evaluate("[...document.querySelectorAll('.axis')].map((a) => a.dataset.name)")
        assert axes == ["config.lr", "config.opt", "loss.min"]
        assert page.evaluate("document.querySelector('.none').textContent") == "none"
        box = page.locator(".handle").first.bounding_box()
        assert box is not None
        x, top, bottom = box["x"] + box["width"] / 2, box["y"] + 6, box["y"] + box["height"] - 6
        page.mouse.move(x, bottom)
        page.mouse.down()
        page.mouse.move(x, (top + bottom) / 2, steps=4)
        page.mouse.up()
        until(page, "document.querySelectorAll('tbody tr').length === 4")
        assert names(page) == ["run0", "run1", "run2", "run3"]  # the lower half of the axis
        assert page.locator(".range").count() == 1
        page.mouse.click(x, (top + bottom) / 2)
        until(page, "document.querySelectorAll('tbody tr').length === 8")
        page.locator("tbody tr").nth(2).hover()
        assert page.locator(".highlight").get_attribute("d").startswith("M")  # type: ignore[union-attr]


def test_many_runs_on_a_narrow_page(browser: "Browser", tmp_path: Path) -> None:
    from support.browser import until

    with opened(browser, tmp_path, 2000, width=420) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert page.inner_text("#count") == "2000 runs"
        shown = page.locator("tbody tr").count()
        assert 0 < shown < 2000
        page.locator("#rows").scroll_into_view_if_needed()
        page.evaluate("document.getElementById('rows').scrollTop = 1e6")
        until(page, f"document.querySelectorAll('tbody tr').length > {shown}")
        page.fill("#filter", "run1999")
        assert names(page) == ["run1999"]


def test_it_is_dark_or_light_and_holds_little(browser: "Browser", tmp_path: Path) -> None:
    from support.browser import until

    with opened(browser, tmp_path, 3) as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.emulate_media(color_scheme="dark")
        until(page, f"{ground} !== {light!r}")
        page.locator("#theme label", has_text="light").click()
        until(page, f"{ground} === {light!r}")
    write_table_page(("name", "state"), [("a", "closed")], tmp_path / "few.html", title="few")
    write_table_page(("name", "state"), [], tmp_path / "none.html", title="none")
    from support.browser import quiet_page

    for name, told in (("few", "1 run"), ("none", "0 runs")):
        with quiet_page(browser) as (page, complaints):
            page.goto((tmp_path / f"{name}.html").as_uri())
            assert page.inner_text("#count") == told
            assert page.locator("#axes-card").is_hidden()
            assert page.locator("#scatter-card").is_hidden()
            assert complaints == []
