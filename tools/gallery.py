"""Draw every plot type and every preset once, and keep pictures of them: `make gallery`.

    python tools/gallery.py [FOLDER]

The pages and their pictures go to FOLDER (build/gallery): 420, 1400 and 2560 pixels wide, light and
dark. What is drawn is made up, and the same every time. Needs Chromium.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from flexrec.recorder import Recorder, Recording  # noqa: E402
from flexrec.replay import Trace, Window, play, preset, preset_names  # noqa: E402
from flexrec.replay.plots.registry import TYPES  # noqa: E402
from flexrec.replay.sinks import HtmlSink  # noqa: E402
from support.browser import chromium, chromium_path, quiet_page, until  # noqa: E402 - beside the tests

WIDTHS, THEMES = (420, 1400, 2560), ("light", "dark")
MOST = 12_000  # the height of a picture, in pixels; a longer page has several
LAYERS = ("conv1", "relu1", "conv2", "relu2", "fc")
EPOCHS, STEPS = 12, 5
RNG = np.random.default_rng(0)
X = np.arange(30.0)


def falling(scale: float = 1.0) -> Any:
    """Thirty values that fall, with noise."""
    return scale * np.exp(-X / 8) + 0.04 * scale * RNG.random(30)


def types() -> list[Window]:
    """A window or two of each plot type, some of them awkward."""
    train, val = Trace("train", falling(), X), Trace("val", falling(1.2), X)
    gaps = Trace("gaps", np.where(X % 7 == 3, np.nan, falling(0.7)), X)
    tiny = Trace("tiny", np.where(X % 9 == 8, 0.0, 1e-5 * falling()), X)
    many = [Trace(f"layer{k}", falling(k + 1.0), X) for k in range(16)]
    matrix, blob = RNG.random((10, 10)) + 3 * np.eye(10), np.hypot(*np.mgrid[-3:3:20j, -3:3:20j])
    fan = np.sort(RNG.normal(size=(7, 30)) * np.exp(X / 10), axis=0)
    marks = [Trace(f"layer {k}", np.sqrt(X[:12]) / 3, 8 - X[:12] / (k + 2), marks=X[:12] ** 2)
             for k in range(3)]  # fmt: skip
    images = np.clip(RNG.random((12, 9, 9)) * np.linspace(0, 1, 9), 0, 1)
    long = (
        "a long title that goes on and on, as those do that are made of the names of keys and runs"
    )
    return [
        _window("line", train, val, gaps, xlabel="epoch", ylabel="nats", title=long),
        _window("line", train, tiny, win="log", ytype="log", guide=1e-3, xlabel="epoch"),
        _window("line", *many, win="many lines", xlabel="step"),
        _window("line", Trace("bold", falling(), X, band=(falling(0.8), falling(1.3)), note="n=5"),
                win="band"),
        _window("line", Trace("rate", np.full(30, 0.03), X), win="constant"),
        _window("line", Trace("dates", falling(), 1.7e9 + 3600 * X), win="dates", xtype="date"),
        _window("scatter", train, val),
        _window("stem", train, val),
        _window("dual_axis_lines", Trace("loss", falling(), X),
                Trace("accuracy", 100 - 90 * falling(), X), xlabel="epoch"),
        _window("bar", Trace("a", [3.0, 1.0, 2.0]), Trace("b", [2.0, 2.0, np.nan]),
                rownames=["cat", "dog", "owl"]),
        _window("bar", Trace("a", 0.5), Trace("b", 1.5), win="numbers as bars"),
        _window("histogram", Trace("w", RNG.normal(size=500)), Trace("v", RNG.normal(1, 2, 500))),
        _window("histograms", Trace("w", RNG.random((40, 12)) * np.hanning(40)[:, None], X[:12],
                                    rows=np.linspace(-1, 1, 40)), xlabel="epoch"),
        _window("fan", Trace("w", fan, X), xlabel="epoch"),
        _window("fan", *(Trace(f"layer{k}", fan * (k + 1), X) for k in range(3)), win="three fans"),
        _window("heat", *many, xlabel="epoch", zlabel="norm", ztype="log"),
        _window("heat", tiny, train, gaps, win="heat of odd values", ztype="log"),
        _window("plane", *marks, xlabel="I(X;T) in bits", ylabel="I(T;Y) in bits", zlabel="epoch",
                ztype="log", mode="lines+markers"),
        _window("boxplot", *(Trace(n, RNG.normal(k, 1 + k, 60)) for k, n in enumerate("abc"))),
        _window("pie", Trace("share", [5, 3, 2, 1]), legend=["cat", "dog", "owl", "bee"]),
        _window("heatmap", Trace("m", matrix), title="heatmap"),
        _window("heatmap", Trace("m", matrix / matrix.sum(1, keepdims=True)), win="confusion",
                numbers=True, xlabel="predicted", ylabel="true"),
        _window("contour", Trace("m", np.exp(-blob))),
        _window("surf", Trace("m", np.exp(-blob)), zlabel="height"),
        _window("image", Trace("i", images[0]), caption="a picture"),
        _window("images", Trace("i", images)),
        _window("text", Trace("t", "epoch 1: the loss falls\n  lr 0.1 <b>no markup</b>\n" * 3)),
    ]  # fmt: skip


def _window(kind: str, *traces: Trace, win: str = "", **opts: Any) -> Window:
    return Window(win or kind, None, kind, traces, opts)


def record(path: Path) -> None:
    """A recording with the keys of every preset but infoplane, whose plot is among the types."""
    stats = ("mean", "std", "norm", "nonfinite", "dead", "update_ratio", "grad_ratio", "snr",
             "signal", "noise", "histogram")  # fmt: skip
    sources = ("grad_in", "grad_out", "grad_weights", "inputs", "outputs", "weights", "updates")
    with Recorder(path, mode="w", config={"lr": 0.1, "seed": 0}) as rec:
        for epoch in range(EPOCHS):
            for step in range(STEPS):
                for phase, slow in (("train", 4), ("test", 6)):
                    rec.add(_of_a_phase(phase, np.exp(-epoch / slow)))
                shrinking = {f"{layer}/{source}/{stat}": _statistic(stat, epoch, depth)
                             for depth, layer in enumerate(LAYERS)
                             for source in sources for stat in stats}  # fmt: skip
                times = {
                    f"{layer}/{part}/seconds": 1e-3 * _statistic("std", 0, depth)
                    for depth, layer in enumerate(LAYERS)
                    for part in ("forward", "backward")
                }
                shares = {f"{layer}/step/share": 0.2 + 0.02 * RNG.random() for layer in LAYERS}
                rec.add({**shrinking, **times, **shares}, step=epoch * STEPS + step)
            rec.add({"lr": 0.1, "samples": RNG.random((8, 9, 9)) * epoch / EPOCHS,
                     "note": f"epoch {epoch}"})  # fmt: skip
            rec.log(epoch=epoch)


def _of_a_phase(phase: str, wrong: float) -> dict[str, Any]:
    target = RNG.integers(0, 4, 64)
    scores = np.eye(4)[target] + 2 * wrong * RNG.random((64, 4))
    pair = (scores[:, 0], (target == 0).astype(int))
    return {
        f"{phase}_loss": wrong + 0.1 * RNG.random(),
        f"{phase}_mse": (scores, np.eye(4)[target]),
        f"{phase}_acc": (scores, target),
        f"{phase}_err": (scores, target),
        f"{phase}_confusion": (scores, target),
        f"{phase}_auc": pair,
        f"{phase}_map": (scores, np.eye(4, dtype=int)[target]),
    }


def _statistic(stat: str, epoch: int, depth: int) -> Any:
    size = float(np.exp(-epoch / (3 + depth)) * (1 + 0.2 * RNG.random()))
    if stat == "histogram":
        return np.quantile(RNG.normal(0, size, 200), np.linspace(0, 1, 33))
    return {"nonfinite": 0.0, "dead": min(1.0, size / 2), "mean": size - 0.5}.get(stat, 1e-2 * size)


def shoot(page: Path, folder: Path) -> None:
    """Keep a picture of a page for each width and theme."""
    path = chromium_path()
    if path is None:
        sys.exit("there is no Chromium: make browser installs it")
    with chromium(path) as browser:
        for width, theme in ((width, theme) for width in WIDTHS for theme in THEMES):
            with quiet_page(browser, width=width) as (view, complaints):
                view.emulate_media(color_scheme="dark" if theme == "dark" else "light")
                view.goto(page.as_uri())
                until(view, "typeof cards !== 'undefined'")
                height = view.evaluate("document.documentElement.scrollHeight")
                view.set_viewport_size({"width": width, "height": min(height, MOST)})
                for part in range(-(-height // MOST)):
                    view.evaluate(f"scrollTo(0, {part * MOST})")
                    view.wait_for_timeout(300)
                    until(view, "cards.every(card => !card.plot || !card.inView || !card.stale)")
                    view.wait_for_timeout(700)
                    picture = (
                        folder / f"{page.stem}-{width}-{theme}{f'-{part}' if part else ''}.png"
                    )
                    view.screenshot(path=picture)
                    print(picture, *complaints)


def main(folder: Path) -> None:
    """Write the pages, and keep their pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    windows = types()
    if missing := set(TYPES) - {window.type for window in windows}:
        sys.exit(f"there is no window of {', '.join(missing)}: add one")
    record(folder / "run.h5")
    with Recording(folder / "run.h5") as run:
        presets = [
            window
            for name in preset_names()
            if name != "infoplane"
            for window in play(run, preset(name), uid=name)
        ]
        for name, drawn in (("types", windows), ("presets", presets)):
            sink = HtmlSink(folder / f"{name}.html", overwrite=True)
            sink.show(drawn)
            if name == "presets":
                sink.describe({"run": run})
            sink.close()
            shoot((folder / f"{name}.html").resolve(), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "gallery")
