"""A comparison drawn: layers by steps, the first difference marked, and the metrics."""

from pathlib import Path

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.replay.diff.compare import diff, runs_of
from flexrec.replay.diff.windows import windows_of
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks import EnvFileSink
from support.diff_cases import LAYERS, Step, bent, both, noisy, record

CHANGED = {"middle/outputs/mean": 1.0, "last/inputs/mean": 1.0, "train_loss": 0.5}


def drawn(*paths: Path) -> dict[str, Window]:
    """The windows of two recordings compared, by the others' spread if there are others."""
    recordings = [Recording(path) for path in paths]
    found = diff(*recordings[:2], noise=recordings[2:])
    return {window.win: window for window in windows_of(found, *runs_of(recordings))}


def test_layers_by_steps(tmp_path: Path) -> None:
    a, b = record(tmp_path / "a.h5"), record(tmp_path / "b.h5", bent(5, CHANGED))
    windows = drawn(a, b)
    assert list(windows) == ["diff/report", "diff/layers", "diff/train_loss"]
    heat = windows["diff/layers"]
    assert heat.opts["rownames"] == list(LAYERS)
    assert heat.traces[0].x.tolist() == list(range(8))
    equal, least = np.unique(heat.traces[0].y)[:2]
    assert equal == pytest.approx(least - 1)  # a tenth of the smallest difference
    assert (heat.traces[0].y[0] == equal).all()
    assert (heat.traces[0].y[1:, :5] == equal).all()
    assert heat.traces[0].y[1, 5] == pytest.approx(np.log10(1 / 5.1))
    what = "log10 of the relative difference, by layer and step"
    assert heat.title == f"{what}; first: step 5, middle"
    marked = heat.opts["layoutopts"]["plotly"]
    assert (marked["shapes"][0]["x0"], marked["annotations"][0]["y"]) == (5, "middle")
    losses = windows["diff/train_loss"].traces
    assert [trace.run for trace in losses] == ["a.h5", "b.h5"]
    assert losses[1].y[6] == pytest.approx(losses[0].y[6] + 0.5)


def test_every_window_can_be_drawn(tmp_path: Path) -> None:
    a, b = record(tmp_path / "a.h5"), record(tmp_path / "b.h5", bent(5, CHANGED))
    sink = EnvFileSink(tmp_path / "env.json")
    sink.show(list(drawn(a, b).values()))
    sink.close()
    assert "first: step 5, middle" in (tmp_path / "env.json").read_text()


def test_many_steps_share_a_column(tmp_path: Path) -> None:
    a = record(tmp_path / "a.h5", steps=1000)
    heat = drawn(a, record(tmp_path / "b.h5", bent(503, CHANGED), steps=1000))["diff/layers"]
    assert heat.traces[0].y.shape == (3, 200)
    assert heat.traces[0].x.tolist()[:3] == [0, 5, 10]
    assert (
        np.flatnonzero(heat.traces[0].y[1] > heat.traces[0].y.min())[0],
        heat.traces[0].x[100],
    ) == (100, 500)
    assert heat.opts["layoutopts"]["plotly"]["shapes"][0]["x0"] == 500


def test_uneven_steps_leave_no_gaps(tmp_path: Path) -> None:
    for name in "ab":
        with Recorder(tmp_path / f"{name}.h5") as rec:
            for step in (0, 1, 2, 50, 51, 1000, 5000):
                rec.add({"first/outputs/mean": float(step)}, step=step)
    heat = drawn(tmp_path / "a.h5", tmp_path / "b.h5")["diff/layers"].traces[0]
    assert heat.x.tolist() == [0, 1, 2, 50, 51, 1000, 5000]
    assert np.isfinite(heat.y).all()


def test_by_the_spread_of_references(tmp_path: Path) -> None:
    runs = [record(tmp_path / f"{i}.h5", noisy(i), steps=30) for i in range(3)]
    b = record(tmp_path / "b.h5", both(noisy(9), bent(12, CHANGED)), steps=30)
    windows = drawn(runs[0], b, *runs[1:])
    heat = windows["diff/layers"]
    assert heat.title.startswith("log10 of how many times the spread b is outside it")
    assert (heat.traces[0].y[1:, 12:] > 1).all()
    assert (heat.traces[0].y[:, :12] < 1).all()
    assert [trace.run for trace in windows["diff/train_loss"].traces] == [
        "0.h5",
        "b.h5",
        "1.h5",
        "2.h5",
    ]


def test_values_that_are_not_finite_or_not_there(tmp_path: Path) -> None:
    def bend(step: int, found: Step) -> None:
        found["first/outputs/mean"] = np.nan if step == 2 else 0.0
        found["last/outputs/mean"] = np.nan
        if step > 5:
            for key in [key for key in found if key.startswith("middle/")]:
                del found[key]

    def more(step: int, found: Step) -> None:
        bend(step, found)
        found["first/outputs/mean"] = 0.0

    a, b = record(tmp_path / "a.h5", bend), record(tmp_path / "b.h5", more)
    values = drawn(a, b)["diff/layers"].traces[0].y
    assert values[0].tolist() == [-17, -17, 3, -17, -17, -17, -17, -17]
    assert np.isnan(values[1]).tolist() == [False] * 6 + [True] * 2
    assert (values[2] == -17).all()


def test_keys_that_are_compared_are_drawn(tmp_path: Path) -> None:
    runs = [Recording(record(tmp_path / name)) for name in ("a.h5", "b.h5")]
    patterns = ["middle/*"]
    windows = windows_of(diff(*runs, keys=patterns), *runs_of(runs), patterns=patterns)
    assert [window.win for window in windows] == ["diff/report", "diff/layers"]
    assert windows[1].opts["rownames"] == ["middle"]


def test_runs_without_layers_have_metrics(tmp_path: Path) -> None:
    def bend(_: int, found: Step) -> None:
        for key in [key for key in found if "/" in key]:
            del found[key]

    a, b = (record(tmp_path / name, bend) for name in ("a.h5", "b.h5"))
    assert list(drawn(a, b)) == ["diff/report", "diff/train_loss"]


def test_a_mean_is_compared_with_the_size_of_its_tensor(tmp_path: Path) -> None:
    """A mean that is 0 but for rounding would be as far apart as anything that is wrong."""
    paths = tmp_path / "a.h5", tmp_path / "b.h5"
    for path, mean in zip(paths, (1e-12, 1e-9), strict=True):
        with Recorder(path) as rec:
            for _ in range(3):
                rec.add({"0/grad_out/mean": mean, "0/grad_out/std": 0.5, "loss/fingerprint": 7})
                rec.step()
    windows = drawn(*paths)
    assert windows["diff/layers"].traces[0].y[0] == pytest.approx(np.log10(999e-12 / 0.5))
    assert "diff/loss/fingerprint" not in windows
