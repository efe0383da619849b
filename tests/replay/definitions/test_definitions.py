"""Definitions as a user writes them: titles, ids, patterns, phases; and what is wrong with them."""

import glob
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexrec.recorder import DefinitionError, Recorder, Recording, TooledModel
from flexrec.replay import FlexLogger, TooledModelLogger, define, play, preset
from flexrec.replay.definitions.definitions import Definitions, MeterDefinition
from flexrec.replay.definitions.presets import preset_names
from flexrec.replay.player.player import count_unlogged, fitting, undrawn_keys
from flexrec.replay.sinks.base import ListSink

LOSS = {"train_loss": {"type": "AverageValueMeter", "target": "loss"}}


def test_the_meters_of_a_key_are_those_that_match() -> None:
    keys = ["a", "a[1]", "a*", "a]", "train_loss", "x/y", "a[[]1]", "b?", "b1"]
    names = [*keys, *map(glob.escape, keys), "a*", "*", "[ab]*", "{train}_loss", "x/*", "a[*]"]
    meters = {
        f"m{i}": {"type": "AverageValueMeter", "target": "loss", "key": name}
        for i, name in enumerate(names)
    }
    found = define({"loss": {"type": "line"}}, meters)
    for key in [*keys, "a1", "loss/train", "none"]:
        expected = [(i, m) for i, m in enumerate(found.meters.values()) if m.matches(key)]
        assert found.taking(key) == expected
        assert found.takes(key) == bool(expected)


def test_a_target_that_is_named_twice_is_drawn_once(tmp_path: Path) -> None:
    twice = {"train_loss": {"type": "LastValueMeter", "target": ["loss", "loss"]}}
    definitions = define({"loss": {"type": "line"}}, twice)
    with recorded(tmp_path / "run.h5", train_loss=1.0) as run:
        ((trace,),) = (window.traces for window in play(run, definitions))
    assert list(trace.x) == [0]


def test_the_work_of_many_keys_is_in_proportion_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key has a meter of its own; none is compared with every key."""
    count, compared, matches = 300, 0, MeterDefinition.matches

    def counting(self: MeterDefinition, key: str) -> bool:
        nonlocal compared
        compared += 1
        return matches(self, key)

    monkeypatch.setattr(MeterDefinition, "matches", counting)
    with recorded(tmp_path / "run.h5", **{f"key[{i}]": 1.0 for i in range(count)}) as run:
        chosen = fitting([run], preset("auto").only(["key[[]7]"]))
        assert len(play(run, chosen)) == 1
        assert len(undrawn_keys(run, chosen, alike=False)) == 0
        assert count_unlogged(run, chosen) == 0
    assert compared < 20 * count


def recorded(path: Path, **values: Any) -> Recording:
    with Recorder(path, facts=False) as rec:
        rec.add(values)
        rec.log(0)
    return Recording(path)


@pytest.mark.parametrize("title", [r"$\mathrm{loss}$", "{}", "a {b} c"])
def test_braces_in_a_title_are_shown_as_they_are(tmp_path: Path, title: str) -> None:
    plots = {"loss": {"type": "line", "opts": {"title": title}}}
    with recorded(tmp_path / "run.h5", train_loss=1.0) as run:
        (window,) = play(run, define(plots, LOSS))
    assert window.title == title


def test_braces_in_a_key_are_shown_as_they_are(tmp_path: Path) -> None:
    with recorded(tmp_path / "run.h5", **{"a{b}/weights/mean": 1.0}) as run:
        (window,) = play(run, preset("layers"))
    assert window.title == "a{b}"


def test_a_title_keeps_its_key_when_the_plot_is_redefined() -> None:
    sink = ListSink()
    logger = FlexLogger(preset("sources"), sink=sink)
    logger.add({"fc/weights/mean": 1.0})
    logger.log()
    logger.update_definition("{source} {stat}", {"opts": {"title": "{stat} of {source}"}})
    logger.show()
    assert [window.title for window in sink.windows.values()] == ["mean of weights"]


def test_several_windows_of_one_plot_have_ids_of_their_own(tmp_path: Path) -> None:
    opts = {"win": "mine"}
    plots = {"m": {"type": "heatmap", "opts": opts}, "one": {"type": "line", "opts": opts}}
    meters = {name: {"type": "LastValueMeter", "target": "m"} for name in "ab"}
    meters["c"] = {"type": "LastValueMeter", "target": "one"}
    with recorded(tmp_path / "run.h5", a=np.eye(2), b=np.eye(3), c=1.0) as run:
        windows = play(run, define(plots, meters))
    assert [window.win for window in windows] == ["mine.m.a", "mine.m.b", "mine"]


def test_two_runs_of_a_plot_for_two_have_a_window_each(tmp_path: Path) -> None:
    meters = {name: {"type": "LastValueMeter", "target": "p"} for name in "ab"}
    definitions = define({"p": {"type": "dual_axis_lines"}}, meters)
    with (
        recorded(tmp_path / "x.h5", a=1.0, b=2.0) as x,
        recorded(tmp_path / "y.h5", a=3.0, b=4.0) as y,
    ):
        windows = play([x, y], definitions)
    assert [len(window.traces) for window in windows] == [2, 2]


def test_two_runs_have_an_information_plane_each(tmp_path: Path) -> None:
    found = (torch.randn(8, 3), torch.arange(8) % 2)
    with (
        recorded(tmp_path / "x.h5", **{"0/activations": found}) as x,
        recorded(tmp_path / "y.h5", **{"0/activations": found}) as y,
    ):
        windows = play([x, y], preset("infoplane"))
    titles = [window.title for window in windows]
    assert titles == ["x: Information plane", "y: Information plane"]
    assert [trace.name for window in windows for trace in window.traces] == ["0", "0"]


@pytest.mark.parametrize("phases", ["val", ["val"], iter(["val"])])
def test_phases_may_be_one_or_any_iterable(phases: Any) -> None:
    assert list(preset("loss+acc", phases=phases).meters) == ["val_loss", "val_acc"]


def test_only_and_exclude_are_part_of_the_definitions() -> None:
    table = {"type": "AverageValueMeter", "target": "p"}
    definitions = define(
        {"p": {"type": "line"}},
        {"*/w": {**table, "only": ["a*", "b/w"], "exclude": "*2*"}},
    )
    (meter,) = definitions.meters.values()
    keys = ("a/w", "a2/w", "b/w", "bb/w")
    assert [key for key in keys if meter.matches(key)] == ["a/w", "b/w"]
    tables = definitions.tables()
    assert define(tables["plots"], tables["meters"]) == definitions
    assert definitions.reductions() == {}
    (meter,) = definitions.only(["b*"]).meters.values()
    assert [key for key in keys if meter.matches(key)] == ["b/w"], "which does not forget its own"
    tables = definitions.only(["b*"]).tables()
    assert list(define(tables["plots"], tables["meters"]).meters.values()) == [meter]


def test_only_some_keys_stay_chosen_when_a_plot_is_added() -> None:
    logger = FlexLogger(preset("loss").only(["train*"]), sink=ListSink())
    logger.add_plot("more", {"type": "line"})
    assert logger.takes("train_loss")
    assert not logger.takes("test_loss")


def test_what_only_would_leave_out_is_not_reduced() -> None:
    assert preset("MSE").only(["train*"]).reductions() == {}


def test_a_recording_without_the_chosen_keys_says_which_they_were(tmp_path: Path) -> None:
    with recorded(tmp_path / "run.h5", train_loss=1.0) as run:
        with pytest.raises(
            DefinitionError, match=r"and of these only nope\*; there are train_loss"
        ):
            play(run, preset("loss").only(["nope*"]))
        with pytest.raises(DefinitionError, match=r"wanted are \*/\*/\*; there are train_loss"):
            play(run, preset("layers"))  # whose own meters take only some keys
        with pytest.raises(DefinitionError, match="no meter is defined that takes its keys"):
            play(run, Definitions())


@pytest.mark.parametrize(
    ("plot", "meter", "message"),
    [
        ({}, {"target": 5}, r"target must be a name or a list of names, got 5"),
        ({}, {"exclude": [""]}, r"exclude must be a name or a list of names"),
        ({"type": 3}, {}, r"^plots\.p\.type must be a name, got int 3$"),
        ({"title": "P"}, {}, r"^plots\.p: 'title' belongs in opts = { title = … }$"),
        ({"opt": {}}, {}, r"^plots\.p: unknown key 'opt'; did you mean 'opts'\? \(there are type,"),
        ({"opts": {"numbins": 0}}, {}, r"numbins must be a whole number of bins, got 0"),
        ({"opts": {"numbins": "x"}}, {}, r"numbins must be a whole number of bins, got 'x'"),
    ],
)
def test_what_is_wrong_is_named(plot: Any, meter: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define(
            {"p": {"type": "histograms", **plot}},
            {"m": {"type": "LastValueMeter", "target": "p", **meter}},
        )


def test_a_tooled_model_logger_leaves_out_what_is_not_drawn_and_begins_snr_anew() -> None:
    model = torch.nn.Linear(3, 2)
    sink = ListSink()
    logger = TooledModelLogger(
        model, sources=("weights",), stats=("mean", "histogram", "noise"), sink=sink
    )
    for _ in range(2):
        for _ in range(3):
            model.zero_grad()
            model(torch.randn(5, 3)).sum().backward()
            logger.step()
        stream = next(iter(logger.tooled._streams.values()))
        assert stream._batches == 3.0
        logger.log()
    assert sink.windows


def test_a_warning_points_at_the_line_that_called(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Recorder(tmp_path / "run.h5", facts=False) as rec:
            rec.watch(torch.nn.Linear(3, 2)).fail("0/weights", RuntimeError("cannot"))
            rec.step()
            alone = TooledModel(torch.nn.Linear(3, 2))
            alone.fail("0/weights", RuntimeError("cannot"))
            alone.step()
    assert len(said) == 3, "of each model, and of what the first told at the end"
    assert {Path(warning.filename).name for warning in said} == {Path(__file__).name}


def test_a_meter_may_run_across_marks() -> None:
    table = {"type": "BestValueMeter", "target": "p", "key": "a"}
    definitions = define(
        {"p": {"type": "line"}, "t": {"type": "text"}},
        {
            "best": {**table, "reset": False},
            "each": table,
            "notes": {"type": "TextMeter", "target": "t", "key": "n", "reset": False},
        },
    )
    tables = definitions.tables()
    assert define(tables["plots"], tables["meters"]) == definitions
    logger = FlexLogger(definitions, sink=ListSink())
    for value in (2.0, 1.0, 3.0):
        logger.add(a=value, n=f"{value}")
        logger.log()
    lines, notes = logger.windows()
    assert [t.y.tolist() for t in lines.traces] == [[2.0, 1.0, 1.0], [2.0, 1.0, 3.0]]
    assert all(text in notes.traces[0].y for text in ("2.0", "1.0", "3.0"))
    logger.reset()
    logger.add(a=5.0)
    logger.log()
    assert logger.windows()[0].traces[0].y.tolist()[-1] == 5.0, "which reset() resets"
    with pytest.raises(DefinitionError, match="reset must be true or false, got 0"):
        define({"p": {"type": "line"}}, {"m": {**table, "reset": 0}})


def test_any_two_presets_can_be_combined() -> None:
    for one, other in combinations(preset_names(), 2):
        both = preset(f"{one}+{other}")
        assert both.plots.keys() == preset(one).plots.keys() | preset(other).plots.keys()
        assert both.meters.keys() == preset(one).meters.keys() | preset(other).meters.keys()
