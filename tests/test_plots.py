"""The plot types are data: complete, documented, and true to visdom."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.board import _edges, _shares
from flexrec.replay.drawing import DRAW
from flexrec.replay.plots import RANKS, plot_info, plot_type, plot_types, rank

DOCS = Path(__file__).parents[1] / "docs" / "plots.md"


def test_types_are_listed_in_order_and_all_can_be_drawn() -> None:
    assert plot_types() == sorted(DRAW)
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
    assert plot_type(name).opts - known == set()


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
    assert _shares(values, edges) == pytest.approx(counted, abs=1e-4)
    assert _shares(bounds, edges) == pytest.approx(counted, abs=0.012)


@pytest.mark.parametrize(
    ("samples", "shares"),
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
def test_few_and_equal_samples_have_their_shares(samples: list[float], shares: list[float]) -> None:
    assert _shares(np.array(samples), np.linspace(0, 1, 5)) == pytest.approx(shares)


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
    edges = _edges(np.array(samples), 50)
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= min(samples)
    assert max(samples) <= edges[-1]
    assert _shares(np.array(samples), edges).sum() == pytest.approx(1.0)


def test_bins_are_numpys_where_it_makes_any() -> None:
    samples = np.random.default_rng(0).normal(size=1000) * 1e-3
    assert _edges(samples, 50).tolist() == np.histogram_bin_edges(samples, 50).tolist()
    assert _edges(np.zeros(0), 2).tolist() == [0.0, 0.5, 1.0]
