"""Goldens: what is caught, what is let pass, and how it is told."""

import doctest
import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flexrec.recorder import Recording
from flexrec.recorder.errors import DefinitionError, GoldenError
from flexrec.replay import FlexLogger, compare, define, play, preset, snapshot
from flexrec.replay.golden.check import check
from flexrec.replay.golden.files import obtained_path
from flexrec.replay.golden.model import KINDS
from flexrec.replay.golden.report import report_json, report_text
from flexrec.replay.golden.snapshot import read_golden, write_golden
from flexrec.replay.golden.sources import played_from
from flexrec.replay.golden.trace import Tolerance, compare_leaves
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.base import ListSink
from flexrec.replay.sinks.env_file import dump
from support.golden_cases import (
    BASE,
    MUTATIONS,
    NAN,
    TEST,
    Windows,
    feed,
    with_opts,
    with_trace,
    with_value,
)
from support.window_cases import WINDOWS


def documents(windows: Mapping[str, Window]) -> Any:
    """A snapshot, as it comes back from a file."""
    return json.loads(dump(snapshot(windows.values())))


def windows_of(source: Any, *args: Any, **named: Any) -> list[Window]:
    """What a source shows."""
    return played_from(source, *args, **named).windows


GOLDEN = documents(BASE)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught_and_named(name: str) -> None:
    windows, kind, window, trace, field, message = MUTATIONS[name]
    found = compare(GOLDEN, documents(windows), rtol=0.0, atol=2.0**-20)
    assert not found
    told = [d for d in found.differences if (d.window, d.trace, d.field) == (window, trace, field)]
    assert [d.kind for d in told] == [kind]
    assert message in told[0].message
    # An axis has its type and its ticks; a point without neighbours its mode, size and symbol.
    most = {"type": 6, "layout": 6}.get(kind, 4)
    assert len(found.differences) <= most, found.differences
    text = report_text(found, full=True)
    for part in (window, trace or "", field, message):
        assert part in text, text
    assert json.loads(json.dumps(report_json(found, full=True)))["equal"] is False


@pytest.mark.parametrize(("old", "new"), [(10, [10, 0]), ([10, 0], 10), (10, [])])
def test_a_list_in_place_of_a_number_is_a_difference(old: Any, new: Any) -> None:
    (told,) = compare_leaves("w", "t", "marker.size", old, new, Tolerance(0.0, 0.0))
    assert (told.kind, told.golden, told.obtained) == ("layout", old, new)


def test_every_kind_has_a_mutation() -> None:
    assert {kind for _, kind, *_ in MUTATIONS.values()} == set(KINDS) - {"left out"}


EQUAL: dict[str, Windows] = {
    "nothing": BASE,
    "a value below tolerance": with_value("loss", 1, 2, 2.5 - 2.0**-21),
    "a value at the tolerance": with_value("loss", 1, 4, 2.0 + 2.0**-20),
    "every value below tolerance": with_trace("loss", 1, y=TEST.y + 2.0**-22),
    "an infinity for a NaN, which the browser cannot tell": with_value("loss", 0, 3, math.inf),
    "an opt that says what is so anyway": with_opts("loss", legend=["train", "test"]),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_does_not_matter_is_let_pass(name: str) -> None:
    found = compare(GOLDEN, documents(EQUAL[name]), rtol=0.0, atol=2.0**-20)
    assert found, report_text(found)
    assert report_text(found).startswith("equal: 5 windows, 4 traces, 24 points")


def test_an_integer_for_a_float_is_caught_in_every_place() -> None:
    """visdom makes floats of a line's values: the file itself is changed here."""
    for path in (("loss", 0, "y", 0), ("loss", 1, "x", 5), ("matrix", 0, "z", 1)):
        mutant = json.loads(json.dumps(GOLDEN))
        win, k, field, i = path
        values = mutant["jsons"][win]["content"]["data"][k][field]
        values[i] = [int(v) for v in values[i]] if field == "z" else int(values[i])
        (told,) = compare(GOLDEN, mutant, rtol=1.0, atol=1.0).differences
        assert (told.kind, told.window, told.field) == ("type", win, field)
        assert "now an integer" in told.message


@pytest.mark.parametrize("win", sorted(GOLDEN["jsons"]))
def test_what_visdom_makes_up_is_not_looked_at(win: str) -> None:
    kept = json.loads(json.dumps(GOLDEN))
    kept["jsons"][win] |= {"contentID": "x", "version": 9, "comment": "mine"}
    if kept["jsons"][win]["type"] == "plot":
        kept["jsons"][win]["content"]["caption"] = "0.3.0 adds this"
    kept["reload"] = {"a": 1}
    for other in kept["jsons"].values():
        other["i"] += 7
    assert compare(GOLDEN, kept, rtol=0.0)


FLOATS = st.just(0.0) | st.floats(1e-200, 1e300) | st.floats(-1e300, -1e-200)
TOLERANCES = st.sampled_from([0.0, 1e-12, 1e-9, 1e-6, 0.1]) | st.floats(1e-12, 1.0)


@settings(max_examples=300, deadline=None)
@given(golden=FLOATS, rtol=TOLERANCES, atol=TOLERANCES, sign=st.sampled_from([-1, 1]))
@example(golden=0.0, rtol=0.5, atol=0.0, sign=1)
@example(golden=0.1, rtol=0.0, atol=0.0, sign=1)
def test_the_verdict_turns_at_the_tolerance(
    golden: float, rtol: float, atol: float, sign: int
) -> None:
    """With none, at the next bit."""
    allowed = atol + rtol * abs(golden)
    inside = golden + sign * 0.9 * allowed
    beyond = math.nextafter(golden + sign * 1.1 * allowed, sign * math.inf)
    a, inner, over = (
        {"jsons": {"w": {"type": "plot", "content": {"data": [{"y": [1.0, v]}], "layout": {}}}}}
        for v in (golden, inside, beyond)
    )
    assert compare(a, inner, rtol=rtol, atol=atol)
    found = compare(a, over, rtol=rtol, atol=atol)
    assert not found
    assert found.differences[0].index == (1,)


def test_integers_beyond_floats_are_told_apart() -> None:
    a, b = (
        {"jsons": {"w": {"type": "plot", "content": {"data": [{"y": [n]}], "layout": {}}}}}
        for n in (2**53, 2**53 + 1)
    )
    assert compare(a, b, rtol=0.0).differences[0].kind == "values"
    assert compare(a, b, rtol=0.0, atol=1.0)


@pytest.mark.parametrize("bad", [-1.0, NAN, math.inf])
def test_a_tolerance_is_a_number(bad: float) -> None:
    for given_ in ({"rtol": bad}, {"atol": bad}):
        with pytest.raises(DefinitionError, match="must be a number, 0 or more"):
            compare(GOLDEN, GOLDEN, **given_)


def test_compare_is_pure() -> None:
    mutant = documents(MUTATIONS["swapped data"][0])
    before = dump(GOLDEN), dump(mutant)
    compare(GOLDEN, mutant)
    assert (dump(GOLDEN), dump(mutant)) == before


# ---------------------------------------------------------------------- the snapshot and its file


def test_every_plot_type_equals_itself_through_a_file(tmp_path: Path) -> None:
    write_golden(tmp_path / "g.json", snapshot(WINDOWS))
    assert compare(read_golden(tmp_path / "g.json"), snapshot(WINDOWS), rtol=0.0)
    assert [p.name for p in tmp_path.iterdir()] == ["g.json"]


def long_line() -> Window:
    y = np.sin(np.arange(5000.0) / 300) + 1e-9 * np.arange(5000)
    return Window("long", "env", "line", (Trace("sin", y=y, x=np.arange(5000.0)),))


def test_thinning_and_rounding_are_stated(tmp_path: Path) -> None:
    plain = snapshot(BASE.values())
    assert sorted(plain) == ["jsons", "reload"]
    small = snapshot([long_line()], max_points=100, digits=4)
    assert small["flexrec"] == {"digits": 4, "envs": {"long": "env"}, "max_points": 100}
    (trace,) = small["jsons"]["long"]["content"]["data"]
    assert len(trace["y"]) <= 100
    assert all(v == float(f"{v:.4g}") for v in trace["y"])
    assert set(trace["x"]) <= set(np.arange(5000.0).tolist())
    for bad in ({"max_points": -1}, {"digits": 0}, {"digits": 18}):
        with pytest.raises(DefinitionError, match="max_points is 0 or more, digits 1 to 17"):
            snapshot([], **bad)


def test_a_check_thins_and_rounds_as_the_golden_states(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    assert check([long_line()], path, update=True, max_points=100, digits=4).written
    assert path.stat().st_size < 4000
    noisy = replace(
        long_line(),
        traces=(replace(long_line().traces[0], y=long_line().traces[0].y * (1 + 1e-13)),),
    )
    assert check([noisy], path).comparison
    other = check([long_line()], path, max_points=50).comparison
    assert other is not None
    assert next((d.window, d.field) for d in other.differences) == ("", "max_points")
    bent = np.array(long_line().traces[0].y)
    bent[2500] += 0.5
    spike = replace(long_line(), traces=(replace(long_line().traces[0], y=bent),))
    assert not check([spike], path).comparison


def test_what_was_obtained_is_kept_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "g.json"
    bent = list(MUTATIONS["a value"][0].values())
    with pytest.raises(GoldenError, match=r"there is no golden .*g\.json; update=True writes it"):
        check(BASE.values(), path)
    assert check(BASE.values(), path, update=True).written
    first = path.read_bytes()
    outcome = check(bent, path)
    assert outcome.kept == obtained_path(path) == tmp_path / "deep" / "g.obtained.json"
    assert outcome.kept.read_text() == dump(snapshot(bent))
    assert path.read_bytes() == first
    assert check(BASE.values(), path).comparison
    assert not outcome.kept.exists()
    check(bent, path)
    assert check(bent, path, update=True).written
    assert path.read_text() == dump(snapshot(bent))
    assert not outcome.kept.exists()


def test_an_update_leaves_what_is_equal_within_tolerance(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    check(BASE.values(), path, update=True)
    before = path.read_bytes()
    near = list(EQUAL["a value below tolerance"].values())
    assert not check(near, path, update=True, atol=1e-3).written
    assert path.read_bytes() == before
    assert check(near, path, update=True, rtol=0.0).written


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"jsons": 3}', '{"jsons": {"a": 3}}', '{"jsons": {"a": {}}}',
             '{"jsons": {}, "flexrec": {"digits": "x"}}', "<<<<<<< HEAD\n{}"],
)  # fmt: skip
def test_a_file_that_is_no_golden_is_told_and_left(tmp_path: Path, text: str) -> None:
    path = tmp_path / "g.json"
    path.write_text(text)
    for update in (False, True):
        with pytest.raises(GoldenError, match=r"g\.json is no golden"):
            check(BASE.values(), path, update=update)
    assert path.read_text() == text


def test_a_golden_of_visdoms_own_with_infinity_is_read(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text(dump(GOLDEN).replace("null, 1.0, 0.75", "Infinity, 1.0, 0.75"))
    assert "Infinity" in path.read_text()
    assert check(BASE.values(), path).comparison


# ---------------------------------------------------------------------- what can be checked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of four epochs with ten steps each."""
    path = tmp_path_factory.mktemp("check") / "run.h5"
    feed(path)
    return path


def live(sink: ListSink | None = None) -> FlexLogger:
    """A logger that was fed the same."""
    logger = FlexLogger(preset("loss"), sink=sink or ListSink())
    for epoch in range(4):
        for step in range(10):
            logger.add(train_loss=1.0 / (10 * epoch + step + 1))
        logger.add(test_loss=2.0 / (epoch + 1))
        logger.log(epoch)
    return logger


def test_a_live_logger_equals_its_recording(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    sink, loss = ListSink(), preset("loss")
    logger = live(sink)
    assert check(windows_of(run, loss), path, update=True).written
    sources: list[Any] = [run, str(run), [run], logger]
    for source in sources:
        assert check(windows_of(source, loss), path).comparison
    with Recording(run) as open_run:
        assert check(windows_of(open_run, loss), path).comparison
        assert check(windows_of(play(open_run, loss)), path).comparison
        assert list(open_run)  # it was not closed
    assert check(windows_of(logger), path).comparison
    assert check(sink.windows.values(), path).comparison


def test_sources_that_make_no_sense_are_refused(run: Path) -> None:
    logger = live()
    mse = preset("MSE")
    with pytest.raises(DefinitionError, match="not the definitions that were given"):
        windows_of(logger, mse)
    with pytest.raises(DefinitionError, match="`every` is only for recordings"):
        windows_of(logger, every=2)
    with pytest.raises(DefinitionError, match="windows are already drawn"):
        windows_of(logger.windows(), mse)
    for wrong in (3, [], [run, 3], None):
        with pytest.raises(TypeError, match="what is checked is a recording"):
            windows_of(wrong, mse)


def test_redefining_a_logger_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    logger = live()
    check(windows_of(logger), path, update=True)
    logger.update_definition("loss", {"opts": {"ytype": "log"}})
    found = check(windows_of(logger), path).comparison
    assert found is not None
    assert [d.field for d in found.differences] == [
        "layout.yaxis.type",
        "layout.yaxis.exponentformat",
        "layout.yaxis.dtick",
    ]


def test_a_changed_meter_is_caught(run: Path, tmp_path: Path) -> None:
    plots = {"loss": {"type": "line"}}
    table = {"type": "AverageValueMeter", "target": "loss"}
    path = tmp_path / "g.json"
    check(windows_of(run, define(plots, {"train_loss": table})), path, update=True)
    for change in ({"field": "std"}, {"type": "LastValueMeter"}, {"type": "BestValueMeter"}):
        meters = {"train_loss": {**table, **change}}
        found = check(windows_of(run, define(plots, meters)), path).comparison
        assert found is not None
        assert {(d.kind, d.trace, d.field) for d in found.differences} == {("values", "train", "y")}


def test_two_hundred_re_runs_give_no_false_alarm_and_one_text(tmp_path: Path) -> None:
    """Recorded, replayed and drawn anew each time, quick way and plain; benchmarks/check.py has
    the long form."""
    path, texts = tmp_path / "g.json", set()
    for i in range(20):
        recording = tmp_path / f"run{i}.h5"
        feed(recording)
        with Recording(recording) as open_run:
            for plain in (False, True):
                outcome = check(play(open_run, preset("loss"), plain=plain), path, update=i == 0)
                assert outcome.comparison is None or outcome.comparison
            texts.add(dump(snapshot(play(open_run, preset("loss")))))
    assert len(texts) == 1


# ---------------------------------------------------------------------- the report


def test_a_short_report_is_short_and_a_full_one_full() -> None:
    many = [
        Window(
            f"w{i}",
            None,
            "line",
            tuple(Trace(f"t{k}", y=[0.5] * 50, x=range(50)) for k in range(6)),
        )
        for i in range(12)
    ]
    bent = [replace(w, traces=tuple(replace(t, y=[0.75] * 50) for t in w.traces)) for w in many]
    found = compare(snapshot(many), snapshot(bent))
    assert len(found.differences) == 72
    short, full = report_text(found), report_text(found, full=True)
    assert short.startswith("72 differences in 12 windows (rtol 1e-09, atol 0)\nwindow w0:\n")
    assert len(short.splitlines()) == 1 + 10 * 6 + 1
    assert "  and 2 more\n" in short
    assert short.endswith("and 2 more windows")
    hinted = report_text(found, hint="so shows all")
    assert "  and 2 more (so shows all)\n" in hinted
    assert hinted.endswith("and 2 more windows (so shows all)")
    assert len(full.splitlines()) == 1 + 12 * (1 + 6 * 51)
    assert "      index 49 (x = 49): 0.75, golden 0.5; error 0.25" in full
    tables = report_json(found, full=True)["differences"]
    assert tables[0]["points"][7] == {"index": [7], "x": 7.0, "golden": 0.5, "obtained": 0.75}
    assert "points" not in report_json(found)["differences"][0]
    assert tables[0] | {"points": []} == {
        "kind": "values", "window": "w0", "trace": "t0", "field": "y",
        "message": "50 of 50 points differ, first at index 0 (x = 0): 0.75, golden 0.5; "
                   "largest error 0.25 absolute, 0.5 relative",
        "golden": 0.5, "obtained": 0.75, "index": [0], "x": 0.0,
        "max_abs": 0.25, "max_rel": 0.5, "count": 50, "total": 50, "points": [],
    }  # fmt: skip


def test_errors_relative_to_zero_are_infinite_and_null_in_json() -> None:
    zero, one = (
        snapshot([Window("w", None, "line", (Trace("t", y=[v], x=[0]),))]) for v in (0.0, 1.0)
    )
    (told,) = compare(zero, one).differences
    assert (told.max_abs, told.max_rel) == (1.0, math.inf)
    assert "inf relative" in told.message
    assert report_json(compare(zero, one))["differences"][0]["max_rel"] is None


MODULES = ("compare", "files", "model", "report", "snapshot", "tolerance")


@pytest.mark.parametrize("name", MODULES)
def test_the_docs_examples_are_true(name: str) -> None:
    result = doctest.testmod(
        importlib.import_module(f"flexrec.replay.golden.{name}"),
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert result.failed == 0
    assert result.attempted > 0 or name == "model"
