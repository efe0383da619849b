"""Phases wherever a key has them, and what presets make of them."""

from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.errors import DefinitionError
from flexrec.replay import FlexLogger, define, play, preset
from flexrec.replay.definitions.phases import fnmatch_patterns, part_of, split_phase, written
from flexrec.replay.player.player import missing_keys, undrawn_keys
from flexrec.replay.sinks.base import ListSink

pytestmark = pytest.mark.viewing


def recorded(path: Path, *keys: str) -> Recording:
    with Recorder(path, facts=False) as rec:
        for epoch in range(2):
            rec.add(dict.fromkeys(keys, float(epoch)))
            rec.log(epoch)
    return Recording(path)


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("train_loss", "train"),
        ("val.loss", "val"),
        ("valid-loss", "valid"),
        ("validation/loss", "validation"),
        ("loss/test", "test"),
        ("Loss/Eval", "eval"),
        ("loss_train", "train"),
        ("train_loss_step", "train step"),
        ("train_loss_epoch", "train epoch"),
        ("loss", "loss"),
        ("loss_step", "loss_step"),
    ],
)
def test_a_loss_is_drawn_however_its_phase_is_written(key: str, label: str, tmp_path: Path) -> None:
    with recorded(tmp_path / "run.h5", key) as run:
        (window,) = play(run, preset("loss"))
        assert missing_keys(run, preset("loss")) == []
    assert (window.win, [trace.name for trace in window.traces]) == ("loss", [label])


@pytest.mark.parametrize(
    "key", ["dev_loss", "loss_dev", "trainloss", "train_loss_x", "x_train_loss"]
)
def test_what_only_looks_like_a_loss_is_not_drawn_but_named(key: str, tmp_path: Path) -> None:
    with recorded(tmp_path / "run.h5", key, "train_loss") as run:
        (window,) = play(run, preset("loss"))
        assert len(window.traces) == 1
        assert undrawn_keys(run, preset("loss")) == ([key] if key != "trainloss" else [])


def test_phases_that_are_asked_for_are_the_only_ones(tmp_path: Path) -> None:
    asked = preset("loss", phases=["dev", "train"])
    assert asked.by_plot() == {"loss": ["dev_loss", "train_loss"]}
    with recorded(tmp_path / "run.h5", "train_loss", "test_loss", "loss/dev") as run:
        (window,) = play(run, asked)
        assert missing_keys(run, preset("loss", phases=["dev", "fold"])) == ["fold_loss"]
    assert [trace.name for trace in window.traces] == ["dev", "train"]


def test_a_metric_is_missing_where_no_phase_has_it(tmp_path: Path) -> None:
    with recorded(tmp_path / "run.h5", "val_loss") as run:
        assert missing_keys(run, preset("loss")) == []
        assert missing_keys(run, preset("loss+mse")) == ["train_mse", "test_mse"]


def test_each_phase_has_its_confusion_matrix() -> None:
    logger = FlexLogger(preset("confusion"), sink=ListSink())
    pair: Any = ([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    import numpy as np

    pair = tuple(map(np.array, pair))
    logger.add({"valid/confusion": pair, "confusion": pair})
    logger.log(0)
    shown = [(window.win, window.title) for window in logger.windows()]
    assert shown == [("valid_confusion", "Confusion, valid"), ("confusion", "Confusion")]


def test_a_logger_tells_of_phases_once_they_come() -> None:
    logger = FlexLogger(preset("loss"), sink=ListSink())
    assert logger.get_definitions() == {"loss": ["train_loss", "test_loss"]}
    logger.add({"loss/val": 1.0})
    assert logger.get_definitions() == {"loss": ["train_loss", "val_loss", "test_loss"]}


def test_a_table_may_have_a_phased_key() -> None:
    definitions = define(
        {"p": {"type": "line"}},
        {"m": {"type": "AverageValueMeter", "target": "p", "key": "{train}_top5"}},
    )
    assert definitions.takes("top5/train")
    assert not definitions.takes("top5")
    tables = definitions.tables()
    assert define(tables["plots"], tables["meters"]) == definitions


@pytest.mark.parametrize("template", ["{train}_mse", "{}_mse", "{test}_a/b"])
def test_shell_patterns_fit_what_the_template_fits(template: str) -> None:
    from fnmatch import fnmatchcase

    for key in ("train_mse", "mse/train", "mse", "test.a/b", "a/b-test", "val_mse", "trainmse"):
        fits = any(fnmatchcase(key, pattern) for pattern in fnmatch_patterns(template))
        assert fits == (part_of(template, key) is not None), key
    assert part_of(template, written(template)) == ""


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("train_loss", ("train", "loss")),
        ("validation.acc", ("validation", "acc")),
        ("Loss/Train", ("train", "Loss")),
        ("train", ("", "train")),
        ("training_loss", ("", "training_loss")),
        ("train_", ("", "train_")),
    ],
)
def test_a_key_is_split_at_its_phase(key: str, found: tuple[str, str]) -> None:
    assert split_phase(key) == found


def test_a_logger_does_not_take_auto() -> None:
    with pytest.raises(DefinitionError, match="cannot know beforehand"):
        FlexLogger(preset("loss+auto"), sink=ListSink())
