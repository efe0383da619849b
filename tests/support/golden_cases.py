"""Windows, and what may be wrong with them, for tests of goldens."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder import Recorder
from flexrec.replay.plots.window import Trace, Window

X = np.arange(6.0)


NAN = float("nan")


BASE: dict[str, Window] = {
    window.win: window
    for window in (
        Window(
            "loss",
            None,
            "line",
            (
                Trace("train", y=np.array([3.0, 2.0, 1.5, NAN, 1.0, 0.75]), x=X),
                Trace("test", y=np.array([4.0, 3.0, 2.5, 2.25, 2.0, 2.0]), x=X),
            ),
            {"title": "Loss", "xlabel": "epoch"},
        ),
        Window("bars", None, "bar", (Trace("counts", y=np.array([4, 2, 1])),), {"title": "Bars"}),
        Window("matrix", None, "heatmap", (Trace("m", y=np.eye(3)),), {"title": "Matrix"}),
        Window("note", None, "text", (Trace("t", y="all is well"),), {"title": "Note"}),
        Window(
            "picture",
            None,
            "image",
            (Trace("p", y=np.arange(48, dtype=np.uint8).reshape(3, 4, 4)),),
            {"title": "Picture"},
        ),
    )
}


Windows = dict[str, Window]


def with_trace(win: str, k: int, **changes: Any) -> Windows:
    """The base, one trace of one window changed."""
    traces = list(BASE[win].traces)
    traces[k] = replace(traces[k], **changes)
    return BASE | {win: replace(BASE[win], traces=tuple(traces))}


def with_value(name: str, k: int, index: Any, value: Any) -> Windows:
    """The base, one value of one trace changed."""
    y = np.array(BASE[name].traces[k].y)
    y[index] = value
    return with_trace(name, k, y=y)


def with_opts(name: str, **opts: Any) -> Windows:
    """The base, some opts of one window changed."""
    return BASE | {name: replace(BASE[name], opts={**BASE[name].opts, **opts})}


def with_traces(name: str, *traces: Trace) -> Windows:
    """The base, one window with other traces."""
    return BASE | {name: replace(BASE[name], traces=traces)}


TRAIN, TEST = BASE["loss"].traces


EXTRA = Window("extra", None, "line", (TRAIN,), {"title": "Extra"})


PIXEL = np.array(BASE["picture"].traces[0].y)
PIXEL[2, 1, 3] += 9


# What is changed, and what must be said: kind, window, trace, field, and a part of the message.
MUTATIONS: dict[str, tuple[Windows, str, str, str | None, str, str]] = {
    "a value": (
        with_value("loss", 1, 2, 2.75), "values", "loss", "test", "y",
        "1 of 6 points differs, first at index 2 (x = 2): 2.75, golden 2.5; "
        "largest error 0.25 absolute, 0.1 relative",
    ),
    "a value in the last bit over": (
        with_value("loss", 1, 4, np.nextafter(2.0 + 2.0**-20, 3)), "values", "loss", "test", "y",
        "index 4 (x = 4)",
    ),
    "every value": (
        with_trace("loss", 1, y=TEST.y + 1), "values", "loss", "test", "y",
        "6 of 6 points differ, first at index 0 (x = 0): 5.0, golden 4.0",
    ),
    "an x": (
        with_trace("loss", 1, x=np.array([0.0, 1, 2, 3, 4, 6])), "values", "loss", "test", "x",
        "1 of 6 points differs, first at index 5: 6.0, golden 5.0",
    ),
    "a missing point": (
        with_trace("loss", 1, y=np.delete(TEST.y, 3), x=np.delete(X, 3)),
        "missing", "loss", "test", "points", "1 of 6 points is missing, first at index 3 (x = 3)",
    ),
    "an added point": (
        with_trace("loss", 1, y=np.append(TEST.y, 1.0), x=np.append(X, 6)),
        "extra", "loss", "test", "points", "1 of 7 points is not in the golden, first at index 6",
    ),
    "a NaN for a number": (
        with_value("loss", 1, 1, NAN), "values", "loss", "test", "y",
        "index 1 (x = 1): a gap (NaN), golden 3.0",
    ),
    "an infinity for a number": (
        with_value("loss", 1, 1, math.inf), "values", "loss", "test", "y", "a gap (NaN), golden",
    ),
    "a number for a NaN": (
        with_value("loss", 0, 3, 1.25), "values", "loss", "train", "y",
        "index 3 (x = 3): 1.25, golden a gap (NaN)",
    ),
    "a missing trace": (
        with_traces("loss", TRAIN), "missing", "loss", "test", "", "the trace is missing",
    ),
    "an added trace": (
        with_traces("loss", TRAIN, TEST, replace(TEST, name="valid")),
        "extra", "loss", "valid", "", "the trace is not in the golden",
    ),
    "a renamed trace": (
        with_trace("loss", 1, name="valid"), "renamed", "loss", "test", "name", "'valid' now",
    ),
    "traces in another order": (
        with_traces("loss", TEST, TRAIN), "reordered", "loss", None, "order",
        "the traces are in another order: test, train; golden train, test",
    ),
    "swapped data": (
        with_traces("loss", replace(TRAIN, y=TEST.y), replace(TEST, y=TRAIN.y)),
        "reordered", "loss", "train", "data", "'train' and 'test' have changed places",
    ),
    "a changed title": (
        with_opts("loss", title="Losses"), "layout", "loss", None, "title",
        '"Losses", golden "Loss"',
    ),
    "a log axis": (
        with_opts("loss", ytype="log"), "layout", "loss", None, "layout.yaxis.type",
        '"log", golden nothing',
    ),
    "an axis label": (
        with_opts("loss", xlabel="step"), "layout", "loss", None, "layout.xaxis.title",
        '"step", golden "epoch"',
    ),
    "a width": (with_opts("loss", width=400), "layout", "loss", None, "width", "400, golden a gap"),
    "a style": (
        with_opts("loss", dash=["dot", "dot"]), "layout", "loss", "train", "line.dash", '"dot"',
    ),
    "another type of plot": (
        BASE | {"loss": replace(BASE["loss"], type="scatter")},
        "layout", "loss", "train", "mode", '"markers", golden "lines"',
    ),
    "bars for a line": (
        BASE | {"loss": Window("loss", None, "bar", (replace(TRAIN, name="train"), TEST),
                               BASE["loss"].opts)},
        "type", "loss", "train", "type", "the trace is drawn as 'bar', the golden's as 'scatter'",
    ),
    "text for bars": (
        BASE | {"bars": replace(BASE["note"], win="bars")}, "type", "bars", None, "type",
        "the window is of type 'text', the golden's of 'plot'",
    ),
    "a float for an integer": (
        with_trace("bars", 0, y=np.array([4.0, 2.0, 1.0])), "type", "bars", "counts", "y",
        "3 of 3 points changed type, first at index 0 (x = 1): 4.0, golden 4, now a float",
    ),
    "an environment": (
        BASE | {"loss": replace(BASE["loss"], env="other")}, "layout", "loss", None, "env",
        '"other", golden nothing',
    ),
    "a cell": (
        with_value("matrix", 0, (1, 2), 0.5), "values", "matrix", "heatmap", "z",
        "1 of 9 points differs, first at [1, 2]: 0.5, golden 0.0",
    ),
    "a matrix of another shape": (
        with_trace("matrix", 0, y=np.eye(4)), "values", "matrix", "heatmap", "z",
        "4 by 4 values, golden 3 by 3",
    ),
    "a word": (
        with_trace("note", 0, y="all is bad"), "values", "note", None, "text",
        "from character 7 on",
    ),
    "a pixel": (
        with_trace("picture", 0, y=PIXEL), "values", "picture", None, "pixels",
        "1 of 48 points differs, first at [1, 3, 2]: 48, golden 39",
    ),
    "a missing window": (
        {name: w for name, w in BASE.items() if name != "bars"},
        "missing", "bars", None, "", "the window is missing ('Bars', 1 trace)",
    ),
    "an added window": (
        BASE | {"extra": EXTRA}, "extra", "extra", None, "",
        "the window is not in the golden ('Extra', 1 trace)",
    ),
    "a window added in front": (
        {"extra": EXTRA} | BASE, "extra", "extra", None, "", "the window is not in the golden",
    ),
    "a renamed window": (
        {(n := "losses" if name == "loss" else name): replace(w, win=n)
         for name, w in BASE.items()},
        "renamed", "loss", None, "id", "the window is called 'losses' now",
    ),
    "windows in another order": (
        dict(reversed(BASE.items())), "reordered", "", None, "order",
        "the windows are in another order: picture, note",
    ),
}  # fmt: skip


def feed(path: Path, factor: float = 1.0) -> None:
    with Recorder(path, mode="w") as rec:
        for epoch in range(4):
            for step in range(10):
                rec.add(train_loss=factor / (10 * epoch + step + 1))
                rec.step()
            rec.add(test_loss=2.0 / (epoch + 1))
            rec.log(epoch)
