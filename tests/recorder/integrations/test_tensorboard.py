"""SummaryWriter, given what scripts give to torch's."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.utils import tensorboard as torchs

import flexrec
from flexrec.recorder import InputError, Recording
from flexrec.recorder.integrations.tensorboard import SummaryWriter
from flexrec.replay.meters import HistogramMeter
from flexrec.replay.player.player import play
from support.framework_cases import numbers


def recorded(folder: Path) -> Path:
    """The only recording in a folder."""
    (path,) = folder.glob("*.h5")
    return path


def test_it_is_a_name_of_the_package() -> None:
    assert flexrec.SummaryWriter is SummaryWriter


@pytest.mark.parametrize(
    "name", [name for name in vars(SummaryWriter) if name.startswith("add_") or name == "__init__"]
)
def test_methods_take_what_torchs_take(name: str) -> None:
    ours, theirs = (
        list(inspect.signature(getattr(kind, name)).parameters.values())
        for kind in (SummaryWriter, torchs.SummaryWriter)
    )
    assert [each.name for each in ours] == [each.name for each in theirs]
    assert [each.default for each in ours] == [each.default for each in theirs]


def test_every_method_of_torchs_is_taken(tmp_path: Path) -> None:
    writer: Any = SummaryWriter(tmp_path)
    names = [name for name in vars(torchs.SummaryWriter) if name.startswith("add_")]
    lacking = [name for name in names if name not in vars(SummaryWriter)]
    assert lacking
    for name in lacking:
        with pytest.warns(RuntimeWarning, match=f"{name}: flexrec cannot record this"):
            getattr(writer, name)("tag", object(), global_step=1)
        getattr(writer, name)("tag", object(), global_step=2)  # a warning is an error here
    with pytest.raises(AttributeError, match="no such_method"):
        writer.such_method()


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5]), np.array([[0.5]])]
)
def test_a_scalar_may_be_of_any_kind(tmp_path: Path, value: Any) -> None:
    with SummaryWriter(tmp_path) as writer:
        for step in (3, np.int64(4), torch.tensor(5), 6.0):
            writer.add_scalar("Loss/train", value, step)
    assert numbers(recorded(tmp_path)) == {"Loss/train": [(step, 0.5) for step in (3, 4, 5, 6)]}


def test_times_may_be_given(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("a", 1.0, 7, walltime=1e9)
        writer.add_scalars("group", {"x": 1, "y": torch.tensor(2)}, 8, 2e9)
        writer.add_text("note", "hello", walltime=3e9)
    with Recording(recorded(tmp_path)) as run:
        found = {key: (s.step[0], s.time[0], s.value[0]) for key, s in run.series(run).items()}
    assert found == {
        "a": (7, 1e9, 1.0),
        "group/x": (8, 2e9, 1.0),
        "group/y": (8, 2e9, 2.0),
        "note": (8, 3e9, "hello"),
    }


def test_histograms_are_counted_as_the_meter_counts(tmp_path: Path) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("weights", values.reshape(10, 100).requires_grad_(), 0)
    meter = HistogramMeter()
    meter.add(values.numpy())
    with Recording(recorded(tmp_path)) as run:
        again = HistogramMeter()
        again.merge(*run["weights"].value[0])
        assert run.columns.stored_bytes("weights") < 1000
    for found, expected in zip(again.value(), meter.value(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("CHW", (3, 4, 5)),
        ("HWC", (4, 5, 3)),
        ("HW", (4, 5)),
        ("wh", (5, 4)),
        ("NCHW", (2, 3, 4, 5)),
        ("NHWC", (2, 4, 5, 3)),
    ],
)
def test_pictures_have_their_channels_first(
    tmp_path: Path, axes: str, shape: tuple[int, ...]
) -> None:
    image = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    with SummaryWriter(tmp_path) as writer:
        writer.add_images("image", image, 1, dataformats=axes)
    order = [axes.upper().index(axis) for axis in "NCHW" if axis in axes.upper()]
    with Recording(recorded(tmp_path)) as run:
        np.testing.assert_array_equal(run["image"].value[0], image.transpose(order))


def test_figures_are_pictures(tmp_path: Path) -> None:
    figures = [Figure(figsize=(2, 1), dpi=50) for _ in range(2)]
    for figure in figures:
        figure.add_subplot().plot([1, 2])
    with SummaryWriter(tmp_path) as writer:
        writer.add_figure("one", figures[0], 1)
        writer.add_figure("two", figures, 1, close=False)
    with Recording(recorded(tmp_path)) as run:
        one, two = run["one"].value[0], run["two"].value[0]
    assert one.shape == (3, 50, 100)
    assert one.std() > 0
    np.testing.assert_array_equal(two, np.stack([one, one]))


def test_hyperparameters_are_the_config(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.add_hparams({"lr": 0.1, "device": torch.device("cpu")}, {"accuracy": 0.5})
    with Recording(recorded(tmp_path)) as run:
        assert run.config == {"lr": 0.1, "device": "cpu"}
    assert numbers(recorded(tmp_path)) == {"accuracy": [(0, 0.5)]}


def test_it_is_plotted_without_definitions(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    with SummaryWriter(tmp_path) as writer:
        for step in range(3):
            writer.add_scalar("Loss/train", 1 / (step + 1), step)
            writer.add_histogram("weights", chance.normal(size=50), step)
            writer.add_image("image", chance.random((3, 4, 4)), step)
            writer.add_pr_curve("curve", np.arange(9) % 2, chance.random(9), step)
            writer.add_text("note", "hello", step)
    with Recording(recorded(tmp_path)) as run:
        types = {window.title: window.type for window in play(run)}
    assert types == {
        "Loss": "line",
        "Curve AUC": "line",
        "Weights": "histograms",
        "Image": "image",
        "Note": "text",
    }


def test_the_last_recording_continues_at_the_step_that_is_purged(tmp_path: Path) -> None:
    for first, last in ((0, 8), (5, 10)):
        with SummaryWriter(tmp_path, purge_step=first or None) as writer:
            for step in range(first, last):
                writer.add_scalar("a", step, step)
    assert numbers(recorded(tmp_path))["a"] == [(step, step) for step in range(10)]


def test_it_opens_again_and_a_folder_has_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = SummaryWriter(comment="-first")
    for step in range(2):
        writer.add_scalar("a", 1.0, step)
        writer.close()
    assert writer.log_dir.startswith("runs/")
    assert writer.log_dir.endswith("-first")
    path = recorded(Path(writer.get_logdir()))
    assert numbers(path)["a"] == [(0, 1.0), (1, 1.0)]
    with SummaryWriter(writer.log_dir) as other:
        other.add_scalar("a", 1.0, 0)
    assert len(list(Path(writer.log_dir).glob("*.h5"))) == 2


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("add_scalars", ("a", [1]), "add_scalars takes a dict"),
        ("add_hparams", ([], {}), "add_hparams takes a dict"),
        ("add_hparams", ({}, "x"), "add_hparams takes a dict"),
        ("add_figure", ("a", 5), "add_figure takes figures"),
        ("add_scalar", ("a", 1, "x"), "a step is an integer"),
        ("add_scalar", ("a", 1, float("nan")), "a step is an integer"),
    ],
)
def test_what_a_method_does_not_take_is_an_error(
    tmp_path: Path, method: str, given: tuple[Any, ...], said: str
) -> None:
    with SummaryWriter(tmp_path) as writer, pytest.raises(InputError, match=said):
        getattr(writer, method)(*given)
