"""What is drawn where nobody chose: the preset auto."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.errors import DefinitionError
from flexrec.replay import Window, define, play, preset
from flexrec.replay.player.follow import follow_recordings
from flexrec.replay.player.player import play_all
from flexrec.replay.plots.window import equal

pytestmark = pytest.mark.viewing
SCORES = np.eye(3, dtype=np.float32)
CLASSES = np.arange(3)


def recorded(path: Path, *adds: dict[str, Any]) -> Recording:
    with Recorder(path, facts=False) as rec:
        for epoch, values in enumerate(adds):
            rec.add(values)
            rec.log(epoch=epoch)
    return Recording(path)


def shown(windows: list[Window]) -> dict[str, tuple[str, list[str]]]:
    return {w.title: (w.type, [trace.name for trace in w.traces]) for w in windows}


def test_everything_that_is_there_is_drawn(tmp_path: Path) -> None:
    values = {
        "notes": "a text",
        "train_loss": 1.0,
        "lr": 0.1,
        "val/loss": 2.0,
        "acc/val": (SCORES, CLASSES),
        "train_loss_step": 1.0,
        "train_mse": (SCORES, SCORES),
        "photo": np.zeros((3, 8, 8)),
        "batch": np.zeros((2, 3, 8, 8)),
        "kernel": np.zeros((3, 4)),
        "long": np.zeros(100),
        "0/grad_weights/norm": 1.0,
        "0/weights/mean": 1.0,
        "0/weights/std": 1.0,
        "loss/fingerprint": 123456789.0,  # says nothing as a curve
    }
    with recorded(tmp_path / "run.h5", values) as run:
        found = shown(play(run))
    assert found == {
        "Loss": ("line", ["train", "val"]),
        "Learning rate": ("line", ["Learning rate"]),
        "Accuracy": ("line", ["val"]),
        "Loss_step": ("line", ["train"]),
        "MSE": ("line", ["train"]),
        "Kernel": ("heatmap", ["Kernel"]),
        "Long": ("histogram", ["Long"]),
        "Photo": ("image", ["Photo"]),
        "Batch": ("images", ["Batch"]),
        "Notes": ("text", ["Notes"]),
        "Gradient norm": ("line", ["0"]),
        "weights std": ("line", ["0"]),
    }


@pytest.mark.parametrize(
    ("pair", "titles"),
    [
        ((SCORES, CLASSES), ["Out accuracy", "Out confusion, train"]),
        ((np.zeros((4, 30)), np.arange(4)), ["Out accuracy"]),
        ((SCORES, SCORES), ["Out MSE"]),
        ((SCORES[0], np.array([1, 0, 1])), ["Out AUC"]),
        ((SCORES, np.eye(3, dtype=int)), ["Out mAP"]),
        ((SCORES, np.zeros((7, 7))), []),
        ((6.0, 3), ["Out"]),
    ],
)
def test_a_pair_goes_to_the_meter_that_fits_its_shapes(
    pair: Any, titles: list[str], tmp_path: Path
) -> None:
    with recorded(tmp_path / "run.h5", {"train_out": pair, "loss": 1.0}) as run:
        windows = play(run)
    assert [window.title for window in windows if window.title != "Loss"] == titles


def test_lightnings_two_values_are_one_plot(tmp_path: Path) -> None:
    keys = ("train_f1_step", "train_f1_epoch", "global_step")
    with recorded(tmp_path / "run.h5", dict.fromkeys(keys, 1.0)) as run:
        found = shown(play(run))
    assert found["F1"] == ("line", ["train step", "train epoch"])
    assert found["Global_step"] == ("line", ["Global_step"])


def test_what_was_reduced_is_drawn_by_its_meter(tmp_path: Path) -> None:
    reduce: dict[str, Any] = {
        "*_confusion": ("ConfusionMeter", {"k": 3}),
        "*_mse": "MSEMeter",
        "w": "HistogramMeter",
    }
    with Recorder(tmp_path / "run.h5", facts=False, reduce=reduce) as rec:
        rec.add({"val_confusion": (SCORES, CLASSES), "val_mse": (SCORES, SCORES), "w": SCORES})
        rec.log(0)
    with Recording(tmp_path / "run.h5") as run:
        assert {w.title: w.type for w in play(run)} == {
            "MSE": "line",
            "Confusion, val": "heatmap",
            "W": "histograms",
        }


def test_keys_with_signs_of_patterns_are_themselves(tmp_path: Path) -> None:
    keys = ("a[0]", "a0", "b*", "bc", "{layer}")
    with recorded(tmp_path / "run.h5", {key: float(i) for i, key in enumerate(keys)}) as run:
        drawn = {window.win: [trace.y.tolist() for trace in window.traces] for window in play(run)}
    assert list(drawn.values()) == [[[0.0]], [[1.0]], [[2.0]], [[3.0]], [[4.0]]]


def test_several_runs_have_all_their_keys_drawn(tmp_path: Path) -> None:
    with (
        recorded(tmp_path / "a.h5", {"train_loss": 1.0, "only_a": 1.0}) as a,
        recorded(tmp_path / "b.h5", {"loss/train": 1.0, "only_b": "x"}) as b,
    ):
        windows = play([a, b])
    assert shown(windows) == {
        "Loss": ("line", ["a train", "b train"]),
        "Only_a": ("line", ["a"]),
        "b: Only_b": ("text", ["Only_b"]),
    }


def test_auto_leaves_what_others_draw_and_minds_only_and_opts(tmp_path: Path) -> None:
    values = {"train_loss": 1.0, "train_x": 2.0, "val_x": 3.0}
    with recorded(tmp_path / "run.h5", values) as run:
        assert list(shown(play(run, preset("loss+auto")))) == ["Loss", "X"]
        chosen = preset("auto").only(["val*"]).with_opts({"ytype": "log"})
        (window,) = play(run, chosen)
    assert ([t.name for t in window.traces], window.opts["ytype"]) == (["val"], "log")


def test_phases_of_ones_own(tmp_path: Path) -> None:
    with recorded(tmp_path / "run.h5", {"dev_x": 1.0, "fit_x": 2.0}) as run:
        assert shown(play(run, preset("auto", phases=["dev", "fit"]))) == {
            "X": ("line", ["dev", "fit"])
        }


def test_lines_know_their_phases(tmp_path: Path) -> None:
    values = {"dev_loss": 1.0, "fit_loss": 2.0, "loss": 3.0}
    with recorded(tmp_path / "run.h5", values) as run:
        for name in ("auto", "loss"):
            (drawn, *_) = play(run, preset(name, phases=["dev", "fit"]))
            assert [trace.phase for trace in drawn.traces[:2]] == ["dev", "fit"], name
        (drawn,) = play(run, preset("loss"))
        assert [trace.phase for trace in drawn.traces] == [""]


def test_an_empty_recording_says_so(tmp_path: Path) -> None:
    with (
        recorded(tmp_path / "run.h5") as run,
        pytest.raises(DefinitionError, match="holds no values"),
    ):
        play(run)


@pytest.mark.parametrize("odd", ["text", np.ones(1), ("a", "b")])
def test_a_key_that_has_numbers_is_drawn(odd: Any, tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.h5") as rec:
        for value in (odd, 1.0, 3.0):
            rec.add(key=value)
            rec.step()
    played = play_all(Recording(tmp_path / "a.h5"))
    (window,) = played.windows
    assert (window.type, list(window.traces[0].y)[-2:]) == ("line", [1.0, 3.0])
    assert [left.key for left in played.left_out] == (
        [] if isinstance(odd, np.ndarray) else ["key"]
    )


def test_following_draws_keys_as_they_come(tmp_path: Path) -> None:
    adds = ({"train_loss": 1.0}, {"train_loss": 2.0, "val_loss": 3.0}, {"note": "late"})
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    runs = [recorded(paths[0], *adds), recorded(paths[1], {"train_loss": 0.5})]
    followed = follow_recordings(paths, preset("auto"), None, poll_seconds=0.01, tell=print).windows
    played = play(runs, preset("auto"))
    assert len(followed) == len(played) == 2
    assert all(map(equal, followed, played))
    for run in runs:
        run.close()


def test_one_metric_in_two_spellings_is_one_plot(tmp_path: Path) -> None:
    values = {"Loss/train": 1.0, "val_loss": 2.0, "Accuracy/val": 0.5, "train_accuracy": 0.6}
    with (
        recorded(tmp_path / "a.h5", values) as a,
        recorded(tmp_path / "b.h5", {"train_loss": 1.0}) as b,
    ):
        assert shown(play(a)) == {
            "Loss": ("line", ["train", "val"]),
            "Accuracy": ("line", ["val", "train"]),
        }
        windows = [window for run in (a, b) for window in play(run) if window.title == "Loss"]
    assert len({window.win for window in windows}) == 1, "runs that are played one by one"


def test_a_bare_key_beside_phases_is_of_train(tmp_path: Path) -> None:
    """As Keras and Transformers log it; no line has a name that the title has."""
    values = {"loss": 1.0, "eval_loss": 2.0, "acc": 1.0, "train_acc": 2.0, "val_acc": 3.0}
    with recorded(tmp_path / "run.h5", values | {"lr": 0.1, "f1": 0.5, "dev_f1": 0.4}) as run:
        assert shown(play(run)) == {
            "Loss": ("line", ["train", "eval"]),
            "Accuracy": ("line", ["no phase", "train", "val"]),
            "Learning rate": ("line", ["Learning rate"]),
            "F1": ("line", ["F1"]),
            "Dev_f1": ("line", ["Dev_f1"]),
        }
        found = shown(play(run, preset("auto", phases=["dev"])))
        assert found["F1"] == ("line", ["no phase", "dev"])


def test_two_keys_of_a_phase_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    values = {"train_loss": 1.0, "loss/train": 2.0, "val_loss": 3.0}
    with recorded(tmp_path / "run.h5", values) as run:
        for definitions in (None, preset("loss")):
            (window,) = play(run, definitions)
            assert {trace.name: trace.y.tolist() for trace in window.traces} == {
                "train (train_loss)": [1.0], "train (loss/train)": [2.0], "val": [3.0]
            }  # fmt: skip


def test_keys_with_the_names_of_other_definitions_are_drawn_too(tmp_path: Path) -> None:
    mine = define(
        {"note": {"type": "line"}},
        {"lr": {"key": "train_loss", "type": "AverageValueMeter", "target": "note"}},
    )
    with recorded(tmp_path / "run.h5", {"train_loss": 1.0, "note": "text", "lr": 0.1}) as run:
        windows = play(run, mine + preset("auto"))
    drawn = {window.win: (window.type, window.traces[0].name) for window in windows}
    assert drawn == {
        "note": ("line", "lr"),
        "note (auto)": ("text", "Note"),
        "lr": ("line", "Learning rate"),
    }


def test_many_layers_of_any_source_are_drawn_as_heat(tmp_path: Path) -> None:
    layers = {f"{layer}/grad_out/std": float(layer) for layer in range(13)}
    with recorded(tmp_path / "run.h5", layers) as run:
        (window,) = play(run)
    assert (window.type, len(window.traces)) == ("heat", 13)
