"""Threads that add, mark and close at the same time: what was taken in is there, in order."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError, intake, layouts, outbox, writer

COUNT = 3000


@pytest.fixture(autouse=True)
def _switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer is handed on after a few dozen events."""
    monkeypatch.setattr(intake, "_FULL_RECORDS", 2000)


def together(*works: Callable[[], None]) -> None:
    """Run them, a thread each."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("is_locked", [False, True], ids=["the interpreter's lock", "ours"])
def test_numbers_of_many_threads_are_whole_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_locked: bool
) -> None:
    """They are added without a lock; key sets of every size, so that a slip would show."""
    for module in (intake, layouts):
        monkeypatch.setattr(module, "ONE_THREAD_AT_A_TIME", not is_locked)
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False, flush_seconds=0.001) as rec:

        def numbers(keys: int) -> Callable[[], None]:
            names = [f"{keys}/{i}" for i in range(keys)]

            def work() -> None:
                for i in range(COUNT):
                    rec.add(dict.fromkeys(names, i + keys / 16))

            return work

        def arrays() -> None:
            for i in range(COUNT // 10):
                rec.add(array=np.full(i % 7, i), text=str(i))
                rec.log(i)

        together(*(numbers(keys) for keys in (1, 2, 3, 5, 8)), arrays)
        are_quick = [layout.is_quick for keys, layout in rec._layouts.items() if "/" in keys[0]]
        assert are_quick == [not is_locked] * 5
    with Recording(path) as run:
        for keys, place in itertools.chain.from_iterable(
            ((keys, place) for place in range(keys)) for keys in (1, 2, 3, 5, 8)
        ):
            found = run[f"{keys}/{place}"].value
            assert found.tolist() == [i + keys / 16 for i in range(COUNT)]
        assert [a.tolist() for a in run["array"].value] == [[i] * (i % 7) for i in range(300)]
        assert list(run["text"].value) == [str(i) for i in range(300)]


LARGE = np.arange(writer.SMALL / 8 + 1)
PAIR = {"b": 1.0, "d": np.arange(3.0)}
WORKS: dict[str, tuple[dict[str, Any], int]] = {
    "add": ({"b": 1.0, "c": 0.5}, 1),
    "add arrays": (PAIR, 1),
    "add arrays of another shape": ({"b": 1.0, "d": LARGE[:2]}, 1),
    "add large arrays": ({"b": 1.0, "d": LARGE}, 1),
    "flush": ({"b": 1.0, "c": 0.5}, 5),
    "flush arrays": (PAIR, 5),
    "drop": ({"b": 1.0, "c": 0.5}, 5),
}


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.filterwarnings("ignore:.* could not be written:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:cannot write:RuntimeWarning")
def test_a_thread_may_add_at_any_moment_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    (values, stride), moment, is_done = WORKS[work], 0, False
    does, _, _ = work.partition(" ")
    while not is_done:
        path = tmp_path / f"{moment}.h5"
        rec = Recorder(path, facts=False, flush_seconds=60, buffer_bytes=1)
        for i in range(3):
            rec.add(a=i / 2)
            rec.add(b=1.0, c=0.5)
            rec.add(PAIR)
            rec.add(e=np.full(4, i))
        rec.flush()
        with monkeypatch.context() as patch:
            if does == "drop":
                patch.setattr(rec._file, "write", fail)
            is_done = at_moment(moment, rec, values, flushes=does in ("flush", "drop"))
        rec.add(b=1.0, c=0.75)
        rec.add(PAIR)
        rec.close()
        with Recording(path) as run:
            if does == "drop":
                assert run.dropped > 0
                found = sum(len(run[key]) for key in "abe")
                assert found + run.dropped == (15 if is_done else 17)
            else:
                assert run["a"].value.tolist() == [0.0, 0.5, 1.0] + ([] if is_done else [5.0])
                assert run["b"].value.tolist() == [1.0] * 9
                assert run["c"].value.tolist()[-1] == 0.75
                assert len(run["c"]) + len(run["d"]) == 9
            assert [e[0] for e in run["e"].value] == ([0, 1, 2] + [7] * (not is_done))[
                : len(run["e"])
            ]
            assert all(e.tolist() == [e[0]] * 4 for e in run["e"].value)
            assert all(d.tolist() == LARGE[: len(d)].tolist() for d in run["d"].value)
            assert {len(d) for d in run["d"].value} <= {2, 3, len(LARGE)}
        moment += stride
    assert moment > 10


def fail(block: object) -> None:
    """In place of a write."""
    raise OSError(28, "No space left on device")


def at_moment(moment: int, rec: Recorder, values: dict[str, Any], *, flushes: bool) -> bool:
    """Add; at the n-th call, return or line of that another thread adds too; true: none did."""
    left, me = moment, threading.get_ident()

    def also() -> None:
        rec.add(a=5.0)
        rec.add(e=np.full(4, 7))

    def notice(*_: object) -> object:
        nonlocal left
        if threading.get_ident() == me:
            left -= 1
            if left == -1:
                together(also)
        return notice

    def trace(frame: FrameType, *_: object) -> object:
        return notice if "flexrec" in frame.f_globals["__name__"] else None

    sys.setprofile(notice)
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        rec.add(values)
        if flushes:
            rec.flush()
    finally:
        sys.settrace(None)
        sys.setprofile(None)
    return left >= 0


@pytest.mark.usefixtures("small_buffers")
def test_what_is_dropped_while_threads_add_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    rec = Recorder(path, facts=False, flush_seconds=0.001, buffer_bytes=20_000)
    write, calls = rec._file.write, itertools.count()

    def fails(block: object) -> writer.Position:
        if next(calls) % 50:
            raise OSError(28, "No space left on device")
        return write(block)  # type: ignore[arg-type]

    monkeypatch.setattr(rec._file, "write", fails)

    def work() -> None:
        for i in range(COUNT):
            rec.add(a=float(i))

    rec.add(a=-1.0)
    together(work, work, work)
    monkeypatch.setattr(rec._file, "write", write)
    with pytest.warns(RuntimeWarning, match="events could not be written"):
        rec.close()
    with Recording(path) as run:
        assert run.dropped > 0
        assert len(run["a"]) + run.dropped == 3 * COUNT + 1


@pytest.mark.parametrize("size", [0, 1, 40_000], ids=["numbers", "arrays", "large arrays"])
def test_what_another_thread_adds_while_closing_is_recorded_or_refused(
    tmp_path: Path, size: int
) -> None:
    for i in range(20):
        path, taken = tmp_path / f"{i}.h5", 0
        rec = Recorder(path, facts=False, flush_seconds=60)
        rec.add(a=0.5)
        is_adding = threading.Event()

        def add_on() -> None:
            nonlocal taken
            for value in itertools.count(1):
                more = {"b": np.full(size, value)} if size else {}
                rec.add(more, a=float(value))  # noqa: B023 - joined before the next
                taken = value
                is_adding.set()  # noqa: B023

        def work() -> None:
            with pytest.raises(RecordingError, match="is closed"):
                add_on()

        def close() -> None:
            is_adding.wait()  # noqa: B023
            rec.close()  # noqa: B023

        together(work, close)
        with Recording(path) as run:
            assert run["a"].value.tolist() == [0.5, *map(float, range(1, taken + 1))]
            if size:
                assert [b[-1] for b in run["b"].value] == list(range(1, taken + 1))


@pytest.mark.usefixtures("small_buffers")
def test_a_loop_that_only_adds_gives_the_writer_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    monkeypatch.setattr(outbox, "_PLENTY", 10_000)
    monkeypatch.setattr(outbox, "sleep", turns.append)
    with Recorder(tmp_path / "run.h5", facts=False, flush_seconds=60) as rec:
        with rec._writing:  # the writer is behind
            for i in range(COUNT):
                rec.add(a=i / 2)
        assert len(turns) > 10
