"""Many runs in one plot: means and bands of groups, the best ones, colours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import DefinitionError, QueryError, Recorder, Recording
from flexrec.replay import Runs, Window, define, play, preset
from flexrec.replay.plots.colours import CYCLE, GREY, paler, ramp, written
from flexrec.replay.plots.window import equal
from flexrec.replay.runs.comparing.playing import Settings
from flexrec.replay.sinks.palette import Palette
from flexrec.replay.sinks.visdom import payload

LOSS = preset("loss")


def lines(window: Window) -> dict[str, list[float]]:
    """The values of each trace."""
    return {trace.name: list(trace.y) for trace in window.traces}


def test_a_line_for_each_group(exp: Path) -> None:
    (window,) = Runs(exp).group("config.lr").play(LOSS)
    assert [trace.name for trace in window.traces] == ["lr=0.01 train", "lr=0.1 train"]
    assert [trace.note for trace in window.traces] == ["n=2→1, ± std", "n=2, ± std"]
    assert [trace.run for trace in window.traces] == ["lr=0.01", "lr=0.1"]
    each = [play(Recording(exp / "lr0.1" / f"seed{k}.h5"), LOSS)[0].traces[0].y for k in (0, 1)]
    trace = window.traces[1]
    np.testing.assert_allclose(trace.y, np.mean(each, axis=0), rtol=1e-15)
    assert trace.band is not None
    np.testing.assert_allclose(trace.band[1] - trace.y, np.std(each, axis=0, ddof=1), rtol=1e-12)
    assert "linecolor" not in window.opts  # the palette gives each run its colour


def test_groups_of_several_columns_and_of_none(exp: Path) -> None:
    with Recorder(exp / "other.h5", config={"seed": 7}) as rec:
        rec.add(train_loss=1.0)
        rec.log(0)
    runs = Runs(exp)
    (window,) = runs.group("config.lr", "config.seed").play(LOSS, band="none")
    assert [trace.run for trace in window.traces] == [
        *("lr=0.01 seed=0", "lr=0.01 seed=1", "lr=0.1 seed=0", "lr=0.1 seed=1", "lr=none seed=7")
    ]
    assert all(trace.band is None for trace in window.traces)
    (alone,) = runs.where("config.lr = 0.1").group("config.opt.name").play(LOSS, band="minmax")
    assert [trace.note for trace in alone.traces] == ["n=2, minmax"]
    with pytest.raises(QueryError, match=r"no run has a column 'config\.l'"):
        runs.group("config.l")
    with pytest.raises(DefinitionError, match="there is no band 'sd'"):
        runs.group("config.lr").play(LOSS, band="sd")
    with pytest.raises(DefinitionError, match="there is no band 'sd'"):
        runs.play(LOSS, band="sd")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((1.2345678e-4, 1.2345679e-4, 1.2345679e-4), ("lr=0.00012345678", "lr=0.00012345679")),
        (("", "none", None), ("lr=''", "lr='none'", "lr=none")),
        ((1, "1", 1.0), ("lr=1", "lr='1'")),
        (("x" * 50 + "a", "x" * 50 + "b"), (f"lr='{'x' * 50}a'", f"lr='{'x' * 50}b'")),
        (("", "b"), ("lr=''", "lr=b")),
    ],
)
def test_runs_of_other_values_are_no_group(
    tmp_path: Path, values: tuple[object, ...], labels: tuple[str, ...]
) -> None:
    for k, value in enumerate(values):
        config = {"is": 1} if value is None else {"is": 1, "lr": value}
        with Recorder(tmp_path / f"{k}.h5", config=config) as rec:
            rec.add(train_loss=1.0)
            rec.log(0)
    (window,) = Runs(tmp_path).group("config.lr").play(LOSS, band="none")
    assert {trace.run for trace in window.traces} == set(labels)
    assert sum(int((trace.note or "").removeprefix("n=")) for trace in window.traces) == len(values)


def test_all_runs_are_as_played_together(exp: Path) -> None:
    runs = Runs(exp)
    (window,) = runs.play(LOSS)
    recordings = [Recording(path) for path in runs]
    (wanted,) = play(recordings, LOSS)
    assert equal(window, wanted)
    for recording in recordings:
        recording.close()


def test_the_best_stand_out(exp: Path) -> None:
    runs = Runs(exp)
    (window,) = runs.play(LOSS, best="test_acc.max", top=1)
    assert [trace.muted for trace in window.traces] == [True, True, True, False]
    assert window.traces[-1].run == "lr0.1/seed1"
    assert window.opts["linecolor"][-1] == list(CYCLE[0])
    (least,) = runs.play(LOSS, best="train_loss.last", top=2)
    assert {t.run for t in least.traces if not t.muted} == {"lr0.01/seed0", "lr0.1/seed0"}
    (most,) = runs.play(LOSS, best="train_loss.last desc", top=1)
    assert [t.run for t in most.traces if not t.muted] == ["lr0.01/seed1"]
    with pytest.raises(QueryError, match="no run has a column 'acc"):
        runs.play(LOSS, best="acc")
    with pytest.raises(QueryError, match="not for groups"):
        runs.group("config.lr").play(LOSS, best="test_acc.max")


@pytest.mark.parametrize("name", ["sel ect", "null", 'a"b', "desc", "x desc"])
def test_the_best_by_a_column_of_any_name(tmp_path: Path, name: str) -> None:
    for k in (0, 1):
        with Recorder(tmp_path / f"{k}.h5", config={name: k}) as rec:
            rec.add(train_loss=1.0)
            rec.log(0)
    column = f"config.{name}"
    quoted = '"{}"'.format(column.replace('"', '""'))
    for best, found in ((quoted, "1"), (f"{quoted} asc", "0"), (f"{column} desc", "1")):
        (window,) = Runs(tmp_path).play(LOSS, best=best, top=1)
        assert [trace.run for trace in window.traces if not trace.muted] == [found]


def test_runs_are_coloured_by_a_column(exp: Path) -> None:
    (window,) = Runs(exp).play(preset("loss"), color="config.lr")
    assert window.opts["linecolor"] == [ramp(0.0), ramp(0.0), ramp(1.0), ramp(1.0)]
    assert [trace.note for trace in window.traces] == ["lr 0.01"] * 2 + ["lr 0.1"] * 2


def test_phases_have_dashes_and_a_common_last_name_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / name / "run.h5") as rec:
            rec.add(train_loss=1.0, test_loss=2.0)
            rec.log(0)
    (window,) = Runs(tmp_path).play(LOSS, best="test_loss.min", top=1)
    assert [trace.name for trace in window.traces] == ["b train", "b test", "a train", "a test"]
    assert window.opts["dash"] == ["solid", "dash", "solid", "dash"]
    (mean,) = Runs(tmp_path).group().play(LOSS)
    for drawn in (window, mean):
        assert [trace.phase for trace in drawn.traces[:2]] == ["train", "test"]


@pytest.mark.parametrize("chosen", [{"best": "lr.last", "top": 1}, {"color": "lr.last"}, {}])
def test_a_phase_has_its_dash_in_all_windows(tmp_path: Path, chosen: dict[str, Any]) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / f"{name}.h5") as rec:
            rec.add(train_loss=1.0, val_loss=2.0, val_acc=1.0, test_acc=1.0, val_f1=1.0, lr=0.1)
            rec.log(0)
    windows = Palette().paint(Runs(tmp_path).play(**chosen))
    found = {window.win: window.opts.get("dash", ["solid"] * 4)[:2] for window in windows}
    assert found == {
        "loss": ["solid", "dash"],
        "acc": ["dash", "dot"],
        "f1": ["dash", "dash"],
        "lr": ["solid", "solid"],
    }


def test_a_run_has_its_colour_in_windows_of_other_types(tmp_path: Path) -> None:
    for k, name in enumerate("abc"):
        with Recorder(tmp_path / f"{name}.h5", config={"k": k}) as rec:
            rec.add(loss=float(k), train_acc=1.0, val_acc=2.0)
            rec.log(0)
    plots = {"loss": {"type": "line"}, "acc": {"type": "scatter"}}
    targets = {"loss": "loss", "train_acc": "acc", "val_acc": "acc"}
    meters = {key: {"type": "LastValueMeter", "target": plot} for key, plot in targets.items()}
    line, points = Runs(tmp_path).play(define(plots, meters), color="config.k")
    assert line.opts["linecolor"] == [ramp(k / 2) for k in range(3)]
    assert points.opts["markercolor"][::2] == line.opts["linecolor"]
    assert points.opts["markercolor"][1::2] == [paler(ramp(k / 2), 1) for k in range(3)]
    line, points = Runs(tmp_path).play(define(plots, meters), best="config.k", top=1)
    assert points.opts["markercolor"][:4] == [list(GREY)] * 4
    assert points.opts["markercolor"][4] == line.opts["linecolor"][2] == list(CYCLE[0])


@pytest.mark.parametrize("kind", ["bar", "histogram", "boxplot"])
def test_bars_have_the_colours_of_their_runs(kind: str, tmp_path: Path) -> None:
    for k, name in enumerate("abc"):
        with Recorder(tmp_path / f"{name}.h5", config={"k": k}) as rec:
            rec.add(w=np.arange(3.0) + k)
    drawn = define({"w": {"type": kind}}, {"w": {"type": "LastValueMeter", "target": "w"}})
    (window,) = Runs(tmp_path).play(drawn, color="config.k")
    expected = [written(tuple(ramp(k / 2))) for k in range(3)]
    assert payload(window)["layout"]["colorway"] == expected


def test_lines_of_one_phase_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / f"{name}.h5") as rec:
            rec.add(x=1.0, y=2.0, train_x=3.0)
            rec.log(0)
    meters = {key: {"type": "LastValueMeter", "target": "all"} for key in ("x", "y", "train_x")}
    definitions = define({"all": {"type": "line"}}, meters)
    (window,) = Runs(tmp_path).play(definitions, color="x.last")
    dashes = dict(zip([trace.name for trace in window.traces], window.opts["dash"], strict=True))
    assert len({dashes[name] for name in dashes if name.startswith("a")}) == 3


def test_runs_that_cannot_be_drawn_are_told_of(exp: Path) -> None:
    with Recorder(exp / "other.h5") as rec:
        rec.add(other=1.0)
    (exp / "lr0.1" / "seed0.h5").write_bytes((exp / "lr0.1" / "seed0.h5").read_bytes()[:-200])
    runs = Runs(exp)
    with pytest.warns(RuntimeWarning) as told:
        (window,) = runs.play(LOSS)
    said = [str(one.message) for one in told]
    assert said[0] == "1 run has none of the keys that are to be plotted"
    assert "seed0.h5 is damaged" in said[1]
    assert len(said) == 2
    assert len(window.traces) == 3
    with pytest.raises(DefinitionError, match="has none of the keys"):
        runs.where("other.last = 1").play(LOSS)
    with pytest.raises(DefinitionError, match="has none of the keys"):  # one is damaged as well
        runs.where("other.last = 1 or state = 'damaged'").play(LOSS)


def test_means_are_of_lines(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / f"{name}.h5", config={"lr": 1}) as rec:
            rec.add(train_loss=1.0, notes="a text")
            rec.log(0)
    with pytest.warns(RuntimeWarning, match="means are drawn of lines alone; not drawn: "):
        (window,) = Runs(tmp_path).group("config.lr").play()
    assert [trace.note for trace in window.traces] == ["n=2, ± std"]


def test_the_title_of_a_group_names_the_class_that_all_have(tmp_path: Path) -> None:
    for name, kind in (("a", "Tanh"), ("b", "ReLU")):
        with Recorder(tmp_path / f"{name}.h5", config={"lr": 0.1, "kind": kind}) as rec:
            rec.add({"0/weights/mean": 1.0, "1/weights/mean": 1.0})
            rec.describe({"net": {"0": {"class": "Linear"}, "1": {"class": kind}}})
            rec.log(0)
    both = Runs(tmp_path).group("config.lr").play(preset("layers"))
    assert [window.title for window in both] == ["0 Linear", "1"]
    each = Runs(tmp_path).group("config.kind").play(preset("layers"))
    assert [window.title for window in each] == ["0 Linear", "1"]


def test_no_more_than_one_recording_is_open(exp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    class Counted(Recording):
        now = 0

        def __init__(self, path: Path) -> None:
            nonlocal most
            super().__init__(path)
            Counted.now += 1
            most = max(most, Counted.now)

        def close(self) -> None:
            Counted.now -= 1
            super().close()

    monkeypatch.setattr("flexrec.replay.runs.comparing.playing.Recording", Counted)
    Runs(exp).play(LOSS)
    assert most == 1


def test_values_after_the_last_log_are_told_of(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        with Recorder(tmp_path / f"{name}.h5", config={"lr": 1}, facts=False) as rec:
            rec.add(train_loss=1.0)
            rec.log(0)
            for _ in range(name != "a"):
                rec.add(train_loss=2.0, test_loss=2.0)
    for runs in (Runs(tmp_path), Runs(tmp_path).group("config.lr")):
        (note,) = runs.play_all(Settings(LOSS)).notes
        assert note.startswith("4 values of 2 runs after the last log are not plotted: call log()")
        assert not runs.play_all(Settings(LOSS, every=1)).notes
