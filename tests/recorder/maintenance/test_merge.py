"""Recordings of several ranks made into one: what one process would have recorded."""

import gc
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from flexrec.recorder import (
    FlexrecError,
    OutputError,
    Recorder,
    Recording,
    RecordingError,
    merge_recordings,
)
from flexrec.recorder.events import Add, Event, Log, Reset
from flexrec.recorder.maintenance import merge
from flexrec.recorder.maintenance.merge import Merged
from flexrec.recorder.maintenance.repair import verify
from flexrec.recorder.storage import format as fmt
from flexrec.replay import Window, play, preset
from support.block_cases import blocks_of
from support.commands import fails, flexrec
from support.crashing import crash
from support.event_cases import events as any_event
from support.event_cases import same_event

Parts = Sequence[Sequence[Event]]


def recorded(
    parts: Parts, folder: Path, *, close: bool = True
) -> tuple[list[Path], list[Recorder]]:
    """A recording of each part; unless closed, what is on disk is the live layout."""
    paths = [folder / f"run-{rank}.h5" for rank in range(len(parts))]
    recorders = []
    for path, part in zip(paths, parts, strict=True):
        rec = Recorder(path, mode="w", facts=False, flush_seconds=60)
        for event in part:
            rec.record(event)
        rec.flush()
        recorders.append(rec)
        if close:
            rec.close()
    return paths, recorders


def merged(parts: Parts, folder: Path, *, close: bool = True) -> list[Event]:
    """The events of the one recording that the parts make; it is whole, and nothing lies by it."""
    paths, recorders = recorded(parts, folder, close=close)
    into = folder / "run.h5"
    count = merge_recordings(paths, into, overwrite=True).events
    with Recording(into) as run:
        found = list(run.events())
        assert run.event_count == count == len(found)
    for rec in recorders:
        rec.close()
    assert sorted(os.listdir(folder)) == sorted(path.name for path in (*paths, into))
    return found


@contextmanager
def few_at_a_time(events: int | None) -> Iterator[None]:
    """Merge so few events at a time that the little that is tested is much."""
    if events is None:
        yield
        return
    with (
        blocks_of(events),
        patch("flexrec.recorder.maintenance.merge_order._HELD", events),
        patch("flexrec.recorder.maintenance.merge_order._FEW", events),
        patch("flexrec.recorder.maintenance.merged_store._GAP", events),
        patch("flexrec.recorder.maintenance.merge._PIECE", events),
    ):
        yield


def add(step: int, name: str = "a", **values: Any) -> Event:
    """An add that can be told from others."""
    return Add(values or {"from": name}, step, 1e9 + step)


def log(x: float, step: int) -> Event:
    """A mark of all meters."""
    return Log(x, None, True, step, 2e9 + step)


def told(events: Sequence[Event]) -> str:
    """Events in short: an add's text and step, or the x of a log."""
    return " ".join(
        f"{e.values['from']}{e.step}"
        if isinstance(e, Add)
        else f"|{e.x:g}|"
        if isinstance(e, Log)
        else "reset"
        for e in events
    )


# ---------------------------------------------------------------------- order


LEAST = -(1 << 63)


def in_order(parts: Parts, *, closed: bool) -> list[Event]:
    """The same, one by one: the rule as it is written down."""
    marks = [[event for event in part if not isinstance(event, Add)] for part in parts]
    longest = marks.index(max(marks, key=len))
    cuts, high = list[int](), LEAST
    for event in parts[longest]:
        if isinstance(event, Add):
            high = max(high, event.step)
        else:
            cuts.append(max([*cuts, event.step - (high < event.step)]))
    cuts = without_end(cuts, parts, marks[longest], closed=closed)
    found: list[tuple[tuple[int, bool, int, int], Event]] = []
    for rank, part in enumerate(parts):
        others = max(map(len, marks[:rank]), default=0)
        stretch, high = 0, LEAST
        for event in part:
            if isinstance(event, Add):
                high = max(high, event.step)
                if not marks[rank]:
                    stretch = sum(cut < high for cut in cuts)
                found.append(((stretch, False, high, rank), event))
            else:
                if stretch >= others:
                    found.append(((stretch, True, 0, rank), event))
                stretch, high = stretch + 1, LEAST
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


def without_end(
    cuts: list[int], parts: Parts, marks: Sequence[Event], *, closed: bool
) -> list[int]:
    """Without the cuts from the log on that the run ended with, if it did."""
    logs = [i for i, mark in enumerate(marks) if isinstance(mark, Log)]
    if not logs or not closed:
        return cuts
    for part in parts:
        left = list(part)
        if sum(not isinstance(event, Add) for event in part) == len(marks):
            for _ in range(logs[-1] + 1):
                left = left[[isinstance(event, Add) for event in left].index(False) + 1 :]
            if any(isinstance(event, Add) and event.values for event in left):
                return cuts
    return [cut for cut in cuts if cut < cuts[logs[-1]]]


@st.composite
def ranks(draw: st.DrawFn) -> list[list[Event]]:
    """Parts with the same marks, of which some have but the first few, or none."""
    chosen, steps = st.none() | st.just(("from",)), st.integers(0, 9)
    marks = draw(
        st.lists(
            st.builds(Log, st.floats(), chosen, st.booleans(), steps, st.just(0.0))
            | st.builds(Reset, chosen, steps, st.just(0.0)),
            max_size=4,
        )
    )
    adds = st.lists(any_event().filter(lambda event: isinstance(event, Add)), max_size=5)
    parts: list[list[Event]] = []
    for _ in range(draw(st.integers(1, 4))):
        part: list[Event] = []
        for mark in [*marks[: draw(st.integers(0, len(marks)))], None]:
            part += [Add(e.values, draw(steps), e.time) for e in draw(adds) if isinstance(e, Add)]
            part += [mark] if mark is not None else []
        parts.append(part)
    return parts


@settings(max_examples=40, deadline=None)
@given(parts=ranks(), close=st.booleans(), few=st.none() | st.integers(1, 4))
def test_any_events_are_merged_in_order_to_the_bit(
    parts: list[list[Event]],
    close: bool,
    few: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with few_at_a_time(few):
        found = merged(parts, tmp_path_factory.mktemp("merge"), close=close)
    expected = in_order(parts, closed=close)
    assert len(found) == len(expected)
    assert all(map(same_event, found, expected))


@settings(max_examples=20, deadline=None)
@given(events=st.lists(any_event(), max_size=20), few=st.none() | st.integers(1, 4))
def test_one_recording_alone_stays_as_it_is(
    events: list[Event], few: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with few_at_a_time(few):
        found = merged([events], tmp_path_factory.mktemp("merge"))
    expected = [event for event in events if not isinstance(event, Add) or event.values]
    # Only what is between two marks is put in order, and of one recording that changes nothing.
    assert len(found) == len(expected)
    assert all(map(same_event, found, expected))


def test_what_lies_between_marks_comes_together_by_step_then_by_file(tmp_path: Path) -> None:
    a = [add(0), add(1), log(0, 2), add(2), add(3), log(1, 4), add(9)]
    b = [add(0, "b"), log(0, 7), add(3, "b"), add(2, "b"), add(4, "b"), log(1, 9), add(4, "b")]
    expected = "a0 b0 a1 |0| a2 a3 b3 b2 b4 |1| b4 a9"
    found = merged([a, b], tmp_path)
    assert told(found) == expected
    marks = [event for event in found if isinstance(event, Log)]
    assert [mark.step for mark in marks] == [2, 4]  # as the first file has them


@pytest.mark.parametrize("few", [None, 1, 2])
def test_a_rank_that_ended_early_gives_what_it_has(tmp_path: Path, few: int | None) -> None:
    a = [add(0), log(0, 1), add(1)]
    b = [add(0, "b"), log(0, 1), add(1, "b"), log(1, 2), add(2, "b"), log(2, 3)]
    with few_at_a_time(few):
        assert told(merged([a, b], tmp_path)) == "a0 b0 |0| a1 b1 |1| b2 |2|"


@pytest.mark.parametrize("stepped", [True, False])
@pytest.mark.parametrize("few", [None, 1, 2])
def test_a_rank_without_marks_is_cut_by_step(
    tmp_path: Path, stepped: bool, few: int | None
) -> None:
    """Whether a loop says `step(); log()` or `log(); step()`."""
    marks = (2, 4) if stepped else (1, 3)
    a = [add(0), add(1), log(0, marks[0]), add(2), add(3), log(1, marks[1])]
    b = [add(step, "b") for step in (0, 1, 2, 3, 4)]
    sparse = [add(0, "c"), add(2, "c")]
    with few_at_a_time(few):
        found = told(merged([b, a, sparse], tmp_path))
    assert found == "b0 a0 c0 b1 a1 |0| b2 a2 c2 b3 a3 b4 |1|"
    with few_at_a_time(few):
        found = told(merged([b, [*a, add(4)], sparse], tmp_path))
    assert found == "b0 a0 c0 b1 a1 |0| b2 a2 c2 b3 a3 |1| b4 a4"


@pytest.mark.parametrize("close", [True, False])
def test_a_rank_that_only_marks_cuts_the_others(tmp_path: Path, close: bool) -> None:
    a = [log(0, 2), log(1, 4)]
    b = [add(step, "b") for step in (0, 1, 2, 3, 4)]
    end = "b4 |1|" if close else "|1| b4"  # what is not closed may not have ended there
    assert told(merged([a, b], tmp_path, close=close)) == f"b0 b1 |0| b2 b3 {end}"


def test_a_rank_that_was_killed_before_its_first_log_is_counted_whole(tmp_path: Path) -> None:
    """Also where the logger goes on to reset, or logs other meters, at the same step."""
    values = [1.0, 1.0, 9.0, 9.0, 9.0, 9.0]
    first = [add(step, train_loss=1.0) for step in (0, 1)]
    test = Log(0.0, ("test_loss",), True, 2, 0.0)
    for ending in ([], [Reset(None, 2, 0.0)], [Reset(None, 3, 0.0)], [test]):
        (first_path, killed), _ = recorded([[*first, log(0, 2), *ending], []], tmp_path)
        with Recorder(killed, mode="w", facts=False) as rec:
            for step in range(4):
                rec.record(add(step, train_loss=9.0))
            crash(rec)
        merge_recordings([first_path, killed], tmp_path / "run.h5", overwrite=True)
        with Recording(tmp_path / "run.h5") as run:
            assert sorted(run["train_loss"].value) == values
            (window,) = play(run, preset("loss", phases=("train",)))
            assert window.traces[0].y.tolist() == [pytest.approx(np.mean(values))]


def test_an_empty_rank_changes_nothing(tmp_path: Path) -> None:
    a = [add(0), log(0, 1), add(1), log(1, 2)]
    assert told(merged([[], a, []], tmp_path)) == told(a)
    assert merged([[], [], []], tmp_path) == []


Left = tuple[list[Event], int, int | None, bool]
"""What a rank records, how much of it is there at a kill, where it then resumes, whether it
closes."""


@st.composite
def lives(draw: st.DrawFn) -> list[Left]:
    """Ranks with the first few of the same marks and with adds of any number, which are killed,
    resumed and closed."""
    marks = [log(float(x), 3 * x + 3) for x in range(draw(st.integers(0, 3)))]
    found: list[Left] = []
    for rank in range(draw(st.integers(1, 4))):
        events, step = list[Event](), 0
        for mark in [*marks[: draw(st.integers(0, len(marks)))], None]:
            for _ in range(draw(st.integers(0, 5))):
                key = draw(st.sampled_from(["a", "b", f"of{rank}"]))
                events.append(Add({key: float(1000 * rank + step)}, step, 0.0))
                step += 1
            events += [mark] if mark is not None else []
        killed = draw(st.integers(0, len(events)))
        back = draw(st.none() | st.integers(-1, 20))
        found.append((events, killed, back, draw(st.booleans())))
    return found


@pytest.mark.filterwarnings(
    "ignore:.*(training continues with step|step numbers go down in this recording)"
)
@settings(max_examples=40, deadline=None)
@given(lives=lives(), few=st.none() | st.integers(1, 4))
def test_what_is_made_has_all_values_of_the_ranks(
    lives: list[Left], few: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever killed them, and wherever they went on: each as often as the ranks have it."""
    folder = tmp_path_factory.mktemp("merge")
    paths = []
    for rank, (events, killed, back, closes) in enumerate(lives):
        paths.append(folder / f"run-{rank}.h5")
        rec = Recorder(paths[-1], facts=False, flush_seconds=60)
        for event in events[:killed]:
            rec.record(event)
        crash(rec)
        if back is not None:
            rec = Recorder(paths[-1], mode="resume", at_step=back, facts=False, flush_seconds=60)
            with Recording(paths[-1]) as run:
                left = run.event_count
            for event in events[left:]:
                rec.record(event)
            if closes:
                rec.close()
            else:
                crash(rec)
    with few_at_a_time(few):
        try:
            merge_recordings(paths, folder / "run.h5")
        except RecordingError as error:
            if "cannot be merged: mark" not in str(error):
                raise
            reject()  # a rank that went back further than the others lacks marks that they have
    expected = Counter(pair for path in paths for pair in pairs_of(path))
    assert Counter(pairs_of(folder / "run.h5")) == expected
    with Recording(folder / "run.h5") as run:
        most = 0
        for path in paths:
            with Recording(path) as one:
                most = max(most, len(one.marks))
        assert len(run.marks) == most


def pairs_of(path: Path) -> list[tuple[str, float]]:
    """Every key and value of a recording."""
    with Recording(path) as run:
        return [(key, value) for key in run for value in run[key].value.tolist()]


def test_without_any_marks_all_comes_by_step(tmp_path: Path) -> None:
    assert told(merged([[add(0), add(2)], [add(1, "b"), add(1, "c")]], tmp_path)) == "a0 b1 c1 a2"


def test_steps_that_begin_anew_after_a_mark_are_in_order_too(tmp_path: Path) -> None:
    a = [add(8), add(9), log(0, 9), add(0), add(1), log(1, 1)]
    b = [add(8, "b"), add(9, "b"), log(0, 9), add(0, "b"), add(1, "b"), log(1, 1)]
    assert told(merged([a, b], tmp_path)) == "a8 b8 a9 b9 |0| a0 b0 a1 b1 |1|"


def test_many_ranks_with_one_step_each_are_merged_whole(tmp_path: Path) -> None:
    parts = [[add(0, f"{rank}-")] * 3 for rank in range(20)]
    with few_at_a_time(2):
        found = told(merged(parts, tmp_path))
    assert found == " ".join(f"{rank}-0" for rank in range(20) for _ in range(3))


# ---------------------------------------------------------------------- meters


def curves(windows: Sequence[Window]) -> dict[tuple[str, str], tuple[Any, Any]]:
    """What windows show, by their names: which comes first depends on who adds first."""
    return {(w.title, t.name): (t.x, t.y) for w in windows for t in w.traces}


@st.composite
def trainings(draw: st.DrawFn) -> list[Event]:
    """A run whose meters do not mind in which order of adds they are fed."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    events: list[Event] = []
    for step in range(draw(st.integers(1, 20))):
        n = draw(st.integers(1, 4))
        scores, classes = rng.normal(size=(n, 3)).astype("f4"), rng.integers(0, 3, n)
        values: dict[str, Any] = {
            "train_loss": draw(st.floats(1e-3, 1e6)),
            "train_mse": (scores, scores[::-1].copy()),
            "train_acc": (scores, classes),
            "train_confusion": (scores, classes),
        }
        keys = draw(st.lists(st.sampled_from(list(values)), min_size=1, unique=True))
        events.append(Add({key: values[key] for key in keys}, step, float(step)))
        if draw(st.integers(0, 4)) == 0:
            events.append(Log(float(step), None, draw(st.booleans()), step, float(step)))
    return [*events, Log(99.0, None, True, 99, 99.0)]


@settings(max_examples=20, deadline=None)
@given(
    events=trainings(), deal=st.randoms(use_true_random=False), few=st.none() | st.integers(1, 4)
)
def test_the_dealt_out_parts_of_a_run_show_what_the_run_shows(
    events: list[Event], deal: Any, few: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    parts: list[list[Event]] = [[], [], []]
    for event in events:
        for part in [deal.choice(parts)] if isinstance(event, Add) else parts:
            part.append(event)
    (whole,), _ = recorded([events], folder)
    whole = whole.rename(folder / "whole.h5")
    paths, _ = recorded(parts, folder)
    with few_at_a_time(few):
        merge_recordings(paths, folder / "run.h5")
    definitions = preset("loss+MSE+acc+confusion", phases=("train",))
    with Recording(whole) as one, Recording(folder / "run.h5") as run:
        shown, expected = curves(play(run, definitions)), curves(play(one, definitions))
    assert shown.keys() == expected.keys()
    for name, (x, y) in expected.items():
        np.testing.assert_array_equal(shown[name][0], x)
        exact = not {"loss", "mse"} & set(name[1].replace("_", " ").lower().split())
        np.testing.assert_allclose(shown[name][1], y, rtol=0 if exact else 1e-12)


def test_states_are_merged_and_two_reductions_of_a_key_live_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(5, 3)).astype("f4"), rng.integers(0, 3, 5)) for _ in range(6)]
    rules: list[dict[str, Any]] = [
        {},
        {"*_confusion": ("ConfusionMeter", {"k": 3}), "*_mse": "MSEMeter"},
        {"*_confusion": "ClassErrorMeter"},
    ]
    for rank, rule in enumerate(rules):
        with Recorder(tmp_path / f"{rank}.h5", reduce=rule, facts=False) as rec:
            for output, target in pairs[2 * rank : 2 * rank + 2]:
                rec.add(train_confusion=(output, target), train_mse=(output, output * 2))
                rec.step()
            rec.log(0)
    with Recorder(tmp_path / "raw.h5", facts=False) as rec:
        for output, target in pairs[:4]:
            rec.add(train_confusion=(output, target), train_mse=(output, output * 2))
        rec.log(0)
    merge_recordings([tmp_path / "0.h5", tmp_path / "1.h5"], tmp_path / "run.h5")
    definitions = preset("confusion+MSE", phases=("train",))
    with Recording(tmp_path / "run.h5") as run, Recording(tmp_path / "raw.h5") as raw:
        assert run.kind("train_confusion").endswith("or state of ConfusionMeter(k=3)")
        shown, expected = curves(play(run, definitions)), curves(play(raw, definitions))
    assert shown.keys() == expected.keys()
    for name, (_, y) in expected.items():
        np.testing.assert_allclose(shown[name][1], y, rtol=1e-12)
    merge_recordings([tmp_path / "1.h5", tmp_path / "2.h5"], tmp_path / "both.h5")
    with Recording(tmp_path / "both.h5") as run:
        kind = "state of ConfusionMeter(k=3) or state of ClassErrorMeter"
        assert run.kind("train_confusion").startswith(kind)


# ---------------------------------------------------------------------- what a run leaves


def test_ranks_of_a_run_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        with Recorder(tmp_path / "run-{rank}.h5", config={"lr": 1, "rank": rank}) as rec:
            for epoch in range(2):
                for batch in range(3):
                    rec.add(train_loss=epoch + 10 * rank + batch)
                    rec.step()
                rec.log(epoch)
    paths = [tmp_path / f"run-{rank}.h5" for rank in range(2)]
    made = merge_recordings(map(str, paths), tmp_path / "run.h5")
    assert made == Merged(tmp_path / "run.h5", 2, 2 * 2 * 3 + 2)
    assert verify(tmp_path / "run.h5").state == "whole"
    with Recording(tmp_path / "run.h5") as run, Recording(paths[1]) as second:
        (window,) = play(run, preset("loss", phases=("train",)))
        assert window.traces[0].x is not None
        assert window.traces[0].x.tolist() == [0, 1]
        assert window.traces[0].y.tolist() == [6, 7]
        assert run.config == {"lr": 1, "rank": 0}
        assert run.facts is not None
        assert run.facts["rank"] == 0
        first, last = run.facts["merged"]
        assert first["file"] == str(paths[0])
        assert "config" not in first
        assert last == {"file": str(paths[1]), "facts": second.facts, "config": second.config}


def test_what_was_superseded_is_left_out_and_what_was_dropped_is_told(tmp_path: Path) -> None:
    paths, _ = recorded([[add(s) for s in range(6)], [add(s, "b") for s in range(6)]], tmp_path)
    with Recorder(paths[0], mode="resume", at_step=1) as rec:
        rec.record(add(2, "new"))
        rec._queue.mark(fmt.DROPPED, 7, step=3, now=0.0)
        rec.record(log(0, 3))
    with Recorder(paths[1], mode="resume") as rec:
        rec._queue.mark(fmt.DROPPED, 4, step=3, now=0.0)
        rec.record(log(0, 3))
    with few_at_a_time(2):
        merge_recordings(paths, tmp_path / "run.h5")
    with Recording(tmp_path / "run.h5") as run:
        assert told(list(run.events())) == "a0 b0 a1 b1 new2 b2 b3 b4 b5 |0|"
        assert (run.dropped, run.superseded, run.resumes) == (11, 0, 0)
        assert run.keys() == ["from"]


def test_marks_name_the_meters_that_they_named(tmp_path: Path) -> None:
    """Also where key sets have other numbers in the recordings than in what is made."""

    def of(x: float, name: str) -> Event:
        return Log(x, (name,), True, 9, 0.0)

    paths, _ = recorded([[of(0, "a")], [add(0), add(5), of(7, "b")]], tmp_path)
    with Recorder(paths[1], mode="resume", at_step=0) as rec:
        rec.record(of(0, "a"))
        rec.record(of(1, "b"))
    merge_recordings(paths, tmp_path / "run.h5")
    with Recording(tmp_path / "run.h5") as run:
        assert list(run.events()) == [add(0), of(0, "a"), of(1, "b")]


def test_keys_come_in_the_order_in_which_they_were_first_added(tmp_path: Path) -> None:
    a, b = [add(1, x=1.0), add(2, y=2.0)], [add(0, z=0.0), add(3, x=3.0, w="w")]
    merged([a, b], tmp_path)
    with Recording(tmp_path / "run.h5") as run:
        assert run.keys() == ["z", "x", "y", "w"]
        assert run["x"].value.tolist() == [1, 3]


def test_merging_holds_few_events_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte for each event, and a bounded number of them."""
    monkeypatch.setattr("flexrec.recorder.storage.closing.output._AT_ONCE", 1 << 18)

    def peak(count: int) -> int:
        for rank in range(2):
            with Recorder(tmp_path / f"{rank}.h5", mode="w", facts=False) as rec:
                for i in range(count // 2):
                    rec.add(a=i * 0.1, b=i * 0.2)
                    rec.step()
        gc.collect()
        tracemalloc.start()
        with few_at_a_time(1000):
            paths = [tmp_path / f"{rank}.h5" for rank in range(2)]
            merge_recordings(paths, tmp_path / "run.h5", overwrite=True)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2_000)  # imports
    assert peak(80_000) - peak(20_000) < 60_000 * 6


# ---------------------------------------------------------------------- refusals


def refused(paths: Sequence[Path], into: Path, match: str, *, overwrite: bool = False) -> None:
    """Merging raises, and changes nothing in the folder."""
    before = {path: path.read_bytes() for path in into.parent.iterdir()}
    with pytest.raises(FlexrecError, match=match):
        merge_recordings(paths, into, overwrite=overwrite)
    assert {path: path.read_bytes() for path in into.parent.iterdir()} == before


def test_marks_that_differ_are_refused(tmp_path: Path) -> None:
    paths, _ = recorded(
        [
            [log(0, 1), log(1, 2)],
            [log(0, 1), Reset(("a",), 2, 0.0)],
            [log(0, 1), log(2, 2)],
            [log(float("nan"), 1)],
            [log(0, 1), Log(1.0, None, False, 2, 0.0)],
        ],
        tmp_path,
    )
    into = tmp_path / "run.h5"
    match = (
        r"run-1.h5 and .*run-0.h5 cannot be merged: mark 2 is reset\(keys=\('a',\)\) in the one "
        r"and log\(x=1.0, keys=None, reset=True\) in the other. The first has 2 marks \(near it, "
        r"logs at x = 0\), the second 2 marks \(near it, logs at x = 0, 1\). If .* resume both "
        r'at the same checkpoint .*mode="resume"\) and load_state_dict\(state\)'
    )
    refused(paths[:2], into, match)
    refused([paths[0], paths[2]], into, "mark 2 is .*x=2.0, .* and .*x=1.0")
    refused([paths[3], paths[0]], into, "mark 1 is .*x=nan, .* and .*x=0.0")
    refused([paths[0], paths[4]], into, "mark 2 is .*reset=False.* and .*reset=True")
    merge_recordings([paths[3]], into)


def test_no_recording_is_counted_twice_or_overwritten(tmp_path: Path) -> None:
    paths, _ = recorded([[add(0)], [add(0, "b")]], tmp_path)
    (tmp_path / "link.h5").symlink_to(paths[0])
    into = tmp_path / "run.h5"
    refused([], into, "nothing to merge")
    refused([*paths, tmp_path / "link.h5"], into, "run-0.h5 and .*link.h5 are one file")
    (tmp_path / "name.h5").hardlink_to(paths[1])  # as the name in other letters, on macOS
    refused([*paths, tmp_path / "name.h5"], into, "run-1.h5 and .*name.h5 are one file")
    refused(paths, paths[1], "run-1.h5 is read here, so it is not written", overwrite=True)
    refused([paths[0], tmp_path / "none.h5"], into, "none.h5 does not exist")
    into.write_bytes(b"something else")
    refused(paths, into, "run.h5 is there already and is not a flexrec recording", overwrite=True)
    into.unlink()
    os.link(paths[0], into)
    refused(paths, into, "run.h5 is read here, so it is not written", overwrite=True)
    into.unlink()
    merge_recordings(paths[:1], into)
    refused(paths, into, "run.h5 exists already; overwrite=True overwrites it")
    assert merge_recordings(paths, into, overwrite=True).events == 2
    with pytest.raises(OutputError, match=r"cannot write .*there is no folder"):
        merge_recordings(paths, tmp_path / "none" / "run.h5")
    with (
        Recorder(into, mode="w", facts=False),
        pytest.raises(RecordingError, match="is being recorded by another Recorder of this"),
    ):
        merge_recordings(paths, into, overwrite=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_ends_it_early_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    paths, _ = recorded([[add(0)], [add(0, "b")]], tmp_path)

    def end(store: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(merge, "write_closed", end)
    raised = KeyboardInterrupt if error is KeyboardInterrupt else OutputError
    with pytest.raises(raised, match=None if raised is KeyboardInterrupt else "No space left"):
        merge_recordings(paths, tmp_path / "run.h5")
    assert sorted(tmp_path.iterdir()) == paths


# ---------------------------------------------------------------------- the command


def test_the_command_merges_and_tells_what_is_not_whole(tmp_path: Path) -> None:
    paths, recorders = recorded([[add(0), add(1)], [add(0, "b")]], tmp_path, close=False)
    recorders[1].close()
    into = tmp_path / "run.h5"
    out, error = flexrec("merge", *paths, "--into", into)
    assert out == f"{into}: 3 events of 2 recordings\n"
    assert error == (
        f"flexrec: {paths[0]}: the run has not ended, or was killed; it is whole up to step 1\n"
    )
    recorders[0].close()
    assert "exists already; --force" in fails("merge", *paths, "--into", into)
    flexrec("merge", *paths, "--into", into, "--force")
    with Recording(into) as run:
        assert told(list(run.events())) == "a0 b0 a1"


def test_a_checkpoint_of_a_rank_does_not_hide_events_of_the_merged_recording(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / f"{rank}.h5" for rank in range(2)]
    for path in reversed(paths):
        with Recorder(path, facts=False) as rec:
            for i in range(10):
                rec.add({f"loss{path.stem}": float(i)})
                rec.step()
            state = rec.state_dict()
    merge_recordings(paths, tmp_path / "all.h5")
    for path in (*paths, tmp_path / "all.h5"):
        with Recorder(path, mode="resume", facts=False) as rec:
            rec.load_state_dict(state)
    with Recording(tmp_path / "all.h5") as run:
        assert run.superseded == 0
        assert run.counts() == {"loss0": 10, "loss1": 10}
