"""Where points lie along x: at marks, steps or times, quickly and plainly the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.events import Add, Log
from flexrec.replay import FlexLogger, define, load_toml, play, preset
from flexrec.replay.definitions.definitions import X_AXES
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import ListSink

START = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two epochs of ten steps, a step a second, that begin with a key which is not drawn."""
    found = tmp_path / "run.h5"
    with Recorder(found, facts=False) as rec:
        rec.record(Add({"other": 1.0}, 0, START))
        for epoch in range(2):
            for step in range(10 * epoch, 10 * epoch + 10):
                rec.record(Add({"train_loss": 1.0}, step, START + step + 1))
            rec.record(Log(float(epoch), None, True, step, START + step + 1.5, "epoch"))
    return found


def drawn(path: Path, x: str, **options: Any) -> Window:
    with Recording(path) as run:
        (window,) = play(run, preset("loss").along(x), **options)
    return window


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("x", "places", "label"),
    [
        ("mark", [0, 1], "epoch"),
        ("step", [9, 19], "step"),
        ("time", [START + 10.5, START + 20.5], "time (UTC)"),
        ("relative", [10.5, 20.5], "seconds since the start"),
    ],
)
def test_points_lie_where_they_are_asked_for(
    path: Path, plain: bool, x: str, places: list[float], label: str
) -> None:
    window = drawn(path, x, plain=plain)
    assert window.traces[0].x.tolist() == places
    assert window.opts["xlabel"] == label
    assert window.opts.get("xtype") == ("date" if x == "time" else None)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("x", "places"),
    [("mark", [0, 5, 10, 15]), ("step", [0, 5, 10, 15]), ("relative", [5, 10, 15, 20])],
)
def test_every_n_steps_too(path: Path, plain: bool, x: str, places: list[float]) -> None:
    assert drawn(path, x, plain=plain, every=5).traces[0].x.tolist() == places


def test_live_plotting_knows_it() -> None:
    logger = FlexLogger(preset("loss").along("step"), sink=ListSink())
    logger.add({"train_loss": 1.0}, step=7)
    logger.log(epoch=0)
    logger.add_plot("more", {"type": "line"})
    logger.add({"train_loss": 1.0}, step=8)
    logger.log(epoch=1)
    assert logger.windows()[0].traces[0].x.tolist() == [7, 8]


def test_a_plane_keeps_the_colours_of_its_marks() -> None:
    definitions = define({"p": {"type": "plane"}}, {"m": {"type": "LastValueMeter", "target": "p"}})
    logger = FlexLogger(definitions.along("time"), sink=ListSink())
    logger.add(m=np.array([1.0, 2.0]))
    logger.log(epoch=3)
    assert logger.windows()[0].traces[0].marks.tolist() == [3]


def test_a_file_and_sums_of_definitions_keep_it(tmp_path: Path) -> None:
    file = tmp_path / "plots.toml"
    file.write_text('preset = "loss"\nx = "relative"\n')
    assert (load_toml(file) + preset("acc")).x == "relative"
    assert (preset("acc") + load_toml(file)).x == "relative"
    file.write_text('preset = "loss"\nx = "hours"\n')
    with pytest.raises(DefinitionError, match=r"plots.toml: x is one of mark, .* not 'hours'"):
        load_toml(file)
    assert X_AXES[0] == preset("loss").x
