"""One window or more of every plot type, fixed for good: what is drawn is held by a golden."""

from typing import Any

import numpy as np

from flexrec.replay.plots.window import Trace, Window

NAN, INF = float("nan"), float("inf")


def window(kind: str, *traces: Trace, win: str = "", **opts: Any) -> Window:
    return Window(win or kind, None, kind, traces, opts)


def _ramp(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


TRAIN = Trace("train", y=np.array([1.0, 0.5, NAN, 0.25]), x=np.array([0.0, 1.0, 2.0, 3.0]))
TEST = Trace("test", y=np.array([2.0, INF]), x=np.array([1.0, 3.0]))
EMPTY = Trace("empty", y=np.array([]), x=np.array([]))

WINDOWS: tuple[Window, ...] = (
    window("line", TRAIN, TEST, title="loss", xlabel="epoch", ylabel="loss", width=400),
    window("line", TRAIN, win="line/one", markers=True, xtick=False, ytype="log"),
    window("line", TRAIN, EMPTY, win="line/empty", legend=["a", "b"], title=3),
    window("line", TRAIN, TEST, win="line/styled", dash=["dot", "solid"], fillarea=True,
           linecolor=[[255, 0, 0], [0, 0, 255]], xtickmin=0, xtickmax=4, title=None,
           layoutopts={"plotly": {"hovermode": "x"}},
           traceopts={"plotly": {"test": {"opacity": 0.5}}}),
    window("line", Trace("f32", y=np.array([0.1, 0.2], np.float32), x=np.array([0, 2**40])),
           win="line/f32", width=np.int64(300), webgl=np.bool_(True)),
    window("scatter", TRAIN, TEST, markersymbol="cross", markersize=np.float32(4)),
    window("scatter", TRAIN, TEST, win="scatter/coloured", markercolor=[[255, 0, 0], [0, 9, 0]]),
    window("stem", TRAIN, TEST, ylabel=""),
    window("stem", Trace("lone", y=[2.0], x=[5.0]), win="stem/lone"),
    window("dual_axis_lines", TRAIN, TEST, name_y2="percent"),
    window("bar", Trace("a", y=[1.0, 2.0, NAN]), Trace("b", y=[3.0]), stacked=True,
           rownames=("x", "y", "z")),
    window("bar", Trace("a", y=0.5), win="bar/lone"),
    window("bar", Trace("a", y=0.5), Trace("b", y=np.float64(1.5)), win="bar/numbers"),
    window("bar", Trace("a", y=np.array([4, 5, 6]), x=[10, 20, 30]), win="bar/placed"),
    window("bar", Trace("a", y=[]), win="bar/empty"),
    window("histogram", Trace("w", y=_ramp(10) % 7), numbins=5),
    window("histogram", Trace("w", y=_ramp(2, 3)), Trace("b", y=[NAN, -1.0, INF]),
           win="histogram/two"),
    window("histogram", Trace("one", y=[3.0]), win="histogram/one"),
    window("histogram", Trace("none", y=[]), win="histogram/none"),
    window("histogram", Trace("counted", y=[3, 0, 1], x=[0.5, 1.5, 2.5]), win="histogram/counted"),
    window("histograms", Trace("w", y=_ramp(3, 2) / 3, x=[0.0, 5.0], rows=[-1.0, 0.0, 1.0])),
    window("line", TRAIN, win="line/guide", ytype="log", guide=1e-3),
    window("fan", Trace("w", y=_ramp(7, 4) - 14.0, x=[0.0, 1.0, 2.0, 3.0])),
    window("fan", Trace("a", y=_ramp(7, 4) * [1.0, NAN, 1e-4, 1e4], x=[0.0, 1.0, 2.0, 3.0]),
           Trace("b", y=_ramp(7, 1), x=[5.0]), win="fan/two"),
    window("fan", *(Trace(name, y=_ramp(7, 2), x=[0.0, 1.0]) for name in "abc"), win="fan/three",
           ytype="linear", linecolor=[[255, 0, 0], [0, 9, 0], [0, 0, 255]]),
    window("heat", TRAIN, TEST, xlabel="epoch", zlabel="norm"),
    window("heat", Trace("0", y=[1.0, 0.0, 1e-9], x=[0.0, 1.0, 2.0]), win="heat/log", ztype="log",
           nancolor="red"),
    window("plane", Trace("fc1", y=[0.5, 1.0], x=[8.0, 11.0], marks=[0.0, 9.0]),
           Trace("fc2", y=[0.25], x=[4.0], marks=[9.0]), xlabel="I(X;T)"),
    window("plane", Trace("fc1", y=[0.5, 1.0], x=[8.0, 11.0], marks=[0.0, 9.0]),
           Trace("fc2", y=[0.25, NAN], x=[4.0, 5.0], marks=[9.0, 0.0]),
           Trace("fc3", y=[], x=[], marks=[]), win="plane/joined", mode="lines+markers"),
    window("boxplot", Trace("a", y=_ramp(7)), Trace("b", y=[1.0, NAN]), legend=["A", "B"]),
    window("boxplot", Trace("a", y=[1.0]), win="boxplot/lone"),
    window("boxplot", Trace("a", y=[]), win="boxplot/empty"),
    window("pie", Trace("share", y=[1, 2, 3]), legend=["a", "b", "c"]),
    window("pie", Trace("a", y=1.0), Trace("b", y=NAN), win="pie/numbers"),
    window("pie", Trace("share", y=[1.0, 2.0]), win="pie/nameless"),
    window("pie", Trace("all", y=7), win="pie/lone"),
    window("heatmap", Trace("confusion", y=np.array([[5, 0], [1, 4]])), columnnames=["a", "b"],
           rownames=["a", "b"], colormap="Electric"),
    window("heatmap", Trace("m", y=[[NAN, INF, 1.0]]), win="heatmap/row", nancolor="red"),
    window("heatmap", Trace("m", y=np.eye(2, dtype=bool)), win="heatmap/bool", xmin=0, xmax=1),
    window("contour", Trace("m", y=_ramp(2, 3))),
    window("contour", Trace("m", y=[[NAN, NAN], [NAN, INF]]), win="contour/nan"),
    window("surf", Trace("m", y=[[0.0, 1.0], [NAN, 3.0]]), zlabel="height", xmax=2.0),
    window("image", Trace("i", y=_ramp(3, 4) / 11), caption="<b>&"),
    window("image", Trace("i", y=_ramp(1, 2, 2)), win="image/1hw", width=200),
    window("image", Trace("i", y=_ramp(4, 2, 2).astype(np.uint8) * 16), win="image/rgba",
           jpgquality=50),
    window("images", Trace("i", y=_ramp(3, 3, 2, 2) / 40), nrow=2, padding=1),
    window("images", Trace("i", y=_ramp(2, 3, 3)), win="images/gray"),
    window("text", Trace("t", y="<b>a & b</b>\nsecond  line\r\n")),
)  # fmt: skip
