"""A headless Chromium that reaches nothing but the loopback, and what it has drawn."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, sync_playwright

__all__ = ["chromium", "chromium_path", "curves", "drawn", "quiet_page", "until"]

WAIT_MS = 60_000
FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1",  # other sites
    "--no-first-run",
    "--no-sandbox",
)
# What plotly holds of every plot on the page, and how many points it has really drawn.
DRAWN = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
    data: plot.data,
    width: plot.getBoundingClientRect().width,
    layout: plot.layout,
    lines: [...plot.querySelectorAll('.scatterlayer .js-line')].map(
        line => (line.getAttribute('d') || '').split(/[ML]/).length - 1),
    fills: plot.querySelectorAll('.scatterlayer .js-fill').length,
    bars: [...plot.querySelectorAll('.barlayer .point path')].filter(
        path => path.getBBox().height > 0).length,
    boxes: plot.querySelectorAll('.boxlayer .box').length,
    slices: plot.querySelectorAll('.pielayer .slice').length,
    points: plot.querySelectorAll('.scatterlayer .point').length,
    heatmaps: plot.querySelectorAll('.heatmaplayer image').length,
    contours: plot.querySelectorAll('.contourlayer .contour').length,
    scenes: plot.querySelectorAll('.gl-container canvas, canvas').length,
    title: (plot.querySelector('.gtitle') ?? plot.closest('figure')?.querySelector('h2')
        )?.textContent || '',
    legend: [...plot.parentElement.querySelectorAll('.legendtext, .legend button')].map(
        text => text.textContent),
    xtitle: plot.querySelector('.xtitle')?.textContent || '',
    ytitle: plot.querySelector('.ytitle')?.textContent || '',
    yticks: [...plot.querySelectorAll('.ytick text')].map(text => [text.textContent,
        text.getBoundingClientRect().y]),
    xticks: [...plot.querySelectorAll('.xtick text')].map(text => text.textContent),
    colours: [...plot.querySelectorAll('.scatterlayer .js-line')].map(
        line => line.style.stroke),
}))"""


def chromium_path() -> Path | None:
    """The distribution's Chromium, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    return None


@contextmanager
def chromium(path: Path) -> Iterator[Browser]:
    """The browser, with a profile of its own that goes with it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def quiet_page(
    browser: Browser, *, width: int = 1280, height: int = 900
) -> Iterator[tuple[Page, list[str]]]:
    """A page that asks nothing of the network, and what it complained of."""
    complaints: list[str] = []

    def hold(route: Route) -> None:
        parts = urlsplit(route.request.url)
        if parts.scheme in ("data", "blob", "file") or parts.hostname == "127.0.0.1":
            route.continue_()
        else:
            complaints.append(f"asked for {route.request.url}")
            route.abort()

    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(WAIT_MS)
    context.route("**/*", hold)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("response", lambda got: _note(got.status, got.url, complaints))
    yield page, complaints
    context.close()


def drawn(page: Page) -> dict[str, dict[str, Any]]:
    """What plotly has drawn on the page, by the plots' titles."""
    return {plot["title"]: plot for plot in page.evaluate(DRAWN)}


def curves(plot: dict[str, Any]) -> dict[str, list[Any]]:
    """The lines of a plot: {name: values}."""
    return {trace["name"]: trace["y"] for trace in plot["data"]}


def until(page: Page, condition: str) -> None:
    """Wait until an expression is true in the page.

    Not by `wait_for_function`, which evaluates texts inside the page: our page's policy forbids it.
    """
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"it does not become true: {condition}"
        page.wait_for_timeout(20)


def _note(status: int, url: str, complaints: list[str]) -> None:
    if status >= 400 and not url.endswith("favicon.png"):
        complaints.append(f"{status} for {url}")
