"""The plot types are data: complete, documented, and true to visdom."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.definitions.definitions import define
from flexrec.replay.engine.left_out import LeftOuts
from flexrec.replay.engine.window_builder import WindowBuilder
from flexrec.replay.golden.model import Comparison, Difference
from flexrec.replay.golden.visual import messages
from flexrec.replay.plots.colours import ramp
from flexrec.replay.plots.plot_type import RANKS, History, PlotType, rank
from flexrec.replay.plots.registry import TYPES, plot_info, plot_type, plot_types, side_by_side_of
from flexrec.replay.plots.types.curves import curve, names_of, scattered
from flexrec.replay.plots.types.histograms import edges_of, shares
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.palette import FEW, Palette
from flexrec.replay.sinks.visdom import payload
from support.window_cases import WINDOWS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "plots.md"


def test_types_are_listed_in_order() -> None:
    assert plot_types() == sorted(plot_types())
    assert {"line", "scatter", "bar", "stem", "pie", "histogram", "boxplot", "heatmap",
            "contour", "surf", "image", "images", "text"} <= set(plot_types())  # fmt: skip


@pytest.mark.parametrize("name", plot_types())
def test_every_type_says_what_it_is(name: str) -> None:
    kind = plot_type(name)
    info = plot_info(name.upper())
    assert info.splitlines()[0] == f"{name}: {kind.doc}"
    assert all(len(line) <= 100 for line in info.splitlines())
    assert set(kind.ranks) <= set(RANKS)
    assert kind.ranks
    for opt in kind.opts:
        assert re.search(rf"\b{opt}\b", info)


def _total(label: str, xs: Any, values: Any, _opts: Any) -> list[Trace]:
    """One curve: the sum so far."""
    return [Trace(label, np.cumsum([np.sum(value) for value in values]), np.array(xs))]


def _dots(client: Any, traces: Any, opts: Any) -> Any:
    return scattered(client, [curve(trace) for trace in traces], names_of(traces, opts), opts)


def _sums(golden: Any, obtained: Any, names: set[str]) -> dict[str, Any]:
    totals = [sum(content["data"][0]["y"]) for content in (golden, obtained)]
    return {"data": [{"type": "bar", "x": sorted(names), "y": [totals[1] - totals[0]]}]}


TOY = PlotType(
    name="total",
    doc="the sum so far, as dots",
    takes="a vector at every mark",
    ranks=("vector",),
    opts=frozenset({"title", "markercolor", "width", "height"}),
    draw=_dots,
    shown_as="toy",
    history=History("vector", lambda value: len(np.shape(value)) or None, _total),
    side_by_side=_sums,
    colour_opt="markercolor",
)


def test_one_entry_is_all_that_a_plot_type_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TYPES, "total", TOY)
    assert "total" in plot_types()
    assert (
        plot_info("Total").splitlines()[2]
        == "  meters  any number of meters; every mark adds to it"
    )
    assert side_by_side_of("toy") is _sums

    meters = {f"m{k}": {"type": "LastValueMeter", "target": "w"} for k in range(FEW + 1)}
    definitions = define({"w": {"type": "total"}}, meters)
    board = WindowBuilder(definitions, LeftOuts())
    for mark in range(3):
        for k, meter in enumerate(definitions.meters.values()):
            board.point(meter, meter.name, (k, 0), [mark], [np.array([mark, k])])
    (window,) = Palette().paint(board.windows())
    assert window.opts["markercolor"] == [ramp(k / FEW) for k in range(FEW + 1)]
    drawn = payload(window)
    assert [trace["y"] for trace in drawn["data"][:2]] == [[0, 1, 3], [1, 3, 6]]

    golden, obtained = ({"content": {"data": [{"type": "toy", "name": "m0", "y": [y]}]},
                         "type": "plot", "title": "w"} for y in (1.0, 3.0))  # fmt: skip
    difference = Difference("values", "w", "m0", "y", "", golden=1.0, obtained=3.0)
    comparison = Comparison((difference,), 0.0, 0.0, windows=1, traces=1, points=1)
    *_, message = messages({"jsons": {"w": golden}}, {"jsons": {"w": obtained}}, comparison)
    assert message["data"] == [{"type": "bar", "x": ["m0"], "y": [2.0]}]


def test_an_entry_says_what_its_values_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TYPES, "total", TOY)
    definitions = define({"w": {"type": "total"}}, {"m": {"type": "LastValueMeter", "target": "w"}})
    board = WindowBuilder(definitions, LeftOuts(strict=True))
    board.point(definitions.meters["m"], "m", (0, 0), [0.0], [1.0])
    with pytest.raises(DefinitionError, match="takes a vector at every mark; 'm' gives a scalar"):
        board.windows()


def test_what_visdom_shows_alike_is_compared_alike() -> None:
    for kind in TYPES.values():
        assert side_by_side_of(kind.shown_as) is kind.side_by_side, kind.name


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.win)
def test_types_say_what_visdom_makes_of_them(window: Window) -> None:
    shown = payload(window)["data"][0]
    shown_as = TYPES[window.type].shown_as
    assert shown["type"] in (shown_as, f"{shown_as}gl")


def test_only_what_has_an_x_accumulates() -> None:
    accumulating = [name for name in plot_types() if plot_type(name).accumulates]
    assert accumulating == ["dual_axis_lines", "line", "scatter", "stem"]
    assert {plot_type(name).ranks for name in accumulating} == {("scalar",)}


@pytest.mark.parametrize("name", plot_types())
def test_opts_are_visdoms_own(name: str) -> None:
    spec = importlib.util.find_spec("visdom")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    source = (package / "__init__.py").read_text() + (package / "utils/server_utils.py").read_text()
    known = set(re.findall(r'"(\w+)"', source)) | {"nrow", "padding"}
    known |= {f"{axis}{opt}" for axis in "xyz" for opt in known}
    known |= {f"{mark}color" for mark in ("marker", "line")} | {"dash"}
    ours = {"line": {"guide", "heat_above", "smooth"}, "heatmap": {"numbers"}}
    assert plot_type(name).opts - known == ours.get(name, set())


@pytest.mark.parametrize("name", plot_types())
def test_the_docs_table_names_every_type_and_its_opts(name: str) -> None:
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    common = set.intersection(*(set(plot_type(other).opts) for other in plot_types()))
    own = {opt for opt in plot_type(name).opts - common if not opt.startswith("margin")}
    own -= {opt for opt in own if opt[0] in "xyz" and opt[1:] in AXIS}
    own -= {"showlegend", "layoutopts"} if name != "dual_axis_lines" else set()
    assert set(re.findall(r"`(\w+)`", row.split("|")[4])) == own


AXIS = {"type", "label", "tick", "tickmin", "tickmax", "tickvals", "ticklabels", "tickstep",
        "tickfont"}  # fmt: skip


def test_names_are_found_in_any_letter_case() -> None:
    assert plot_type("HeatMap") is plot_type("heatmap")


@pytest.mark.parametrize(
    ("name", "hint"), [("lines", "did you mean 'line'?"), ("hist", "flexrec plots"), (3, "3")]
)
def test_an_unknown_type_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(hint)):
        plot_type(name)


def test_an_unknown_opt_is_refused_with_the_nearest() -> None:
    plot_type("line").check_opts({"title": "a", "xlabel": "b", "xtickmin": 0, "xtickmax": 1})
    with pytest.raises(DefinitionError, match=r"no opt 'titel'; did you mean 'title'\?"):
        plot_type("line").check_opts({"titel": "a"})
    with pytest.raises(DefinitionError, match="no opt 'xlabel'"):
        plot_type("text").check_opts({"xlabel": "a"})
    with pytest.raises(DefinitionError, match="ytickmin and ytickmax go together"):
        plot_type("line").check_opts({"ytickmin": 0})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "scalar"),
        (np.float32(1), "scalar"),
        ([1, 2], "vector"),
        (np.zeros((2, 2)), "matrix"),
        (np.zeros((1, 2, 2)), "3-D"),
        (np.zeros((1, 1, 2, 2)), "4-D"),
        (np.zeros((1, 1, 1, 2, 2)), "5-D"),
        ("text", "text"),
    ],
)
def test_rank(value: object, expected: str) -> None:
    assert rank(value) == expected


def test_a_column_of_bounds_is_drawn_as_all_values_would_be() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=20_000), rng.normal(3, 0.1, size=5_000)])
    edges = np.linspace(-5, 5, 51)
    counted = np.histogram(values, edges)[0] / len(values)
    bounds = np.quantile(values, np.arange(65) / 64)
    assert shares(values, edges) == pytest.approx(counted, abs=1e-4)
    assert shares(bounds, edges) == pytest.approx(counted, abs=0.012)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.0, 1.0], [0.25, 0.25, 0.25, 0.25]),
        ([0.6] * 9, [0, 0, 1, 0]),
        ([0.5] * 9, [0, 0, 1, 0]),
        ([0.0] * 9, [1, 0, 0, 0]),
        ([1.0] * 9, [0, 0, 0, 1]),
        ([0.3], [0, 1, 0, 0]),
        ([], [0, 0, 0, 0]),
    ],
)
def test_few_and_equal_samples_have_their_shares(
    samples: list[float], expected: list[float]
) -> None:
    assert shares(np.array(samples), np.linspace(0, 1, 5)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "samples",
    [
        [0.0],
        [0.1, 0.1],
        [1.0, 1.0 + 2**-52],
        [0.0, 5e-324],
        [1e308, -1e308],
        [-1e300, -1e300],
        [1e17, 1e17 + 16],
    ],
)
def test_bins_of_any_samples_can_be_told_apart(samples: list[float]) -> None:
    edges = edges_of(np.array(samples), 50)
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= min(samples)
    assert max(samples) <= edges[-1]
    assert shares(np.array(samples), edges).sum() == pytest.approx(1.0)


def test_bins_are_numpys_where_it_makes_any() -> None:
    samples = np.random.default_rng(0).normal(size=1000) * 1e-3
    assert edges_of(samples, 50).tolist() == np.histogram_bin_edges(samples, 50).tolist()
    assert edges_of(np.zeros(0), 2).tolist() == [0.0, 0.5, 1.0]
