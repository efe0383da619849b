"""Threads that add, mark and close at the same time: what was taken in is there, in order."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.recorder.writing import event_queue, flusher, live_file
from flexrec.recorder.writing.values import encoders

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
    """The writer is woken after a few dozen events."""
    monkeypatch.setattr(encoders, "RECORD_BYTES", 2000)
    monkeypatch.setattr(event_queue, "RECORD_BYTES", 2000)


def together(*works: Callable[[], None]) -> None:
    """Run them, a thread each."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("small_buffers")
def test_numbers_of_many_threads_are_whole_and_in_order(tmp_path: Path) -> None:
    """They are added without a lock; key sets of every size, so that a slip would show."""
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
        encoders = rec._queue._encoders.items()
        assert [encoder.is_quick for keys, encoder in encoders if "/" in keys[0]] == [True] * 5
    with Recording(path) as run:
        for keys, place in itertools.chain.from_iterable(
            ((keys, place) for place in range(keys)) for keys in (1, 2, 3, 5, 8)
        ):
            found = run[f"{keys}/{place}"].value
            assert found.tolist() == [i + keys / 16 for i in range(COUNT)]
        assert [a.tolist() for a in run["array"].value] == [[i] * (i % 7) for i in range(300)]
        assert list(run["text"].value) == [str(i) for i in range(300)]


@pytest.mark.usefixtures("small_buffers")
def test_what_is_dropped_while_threads_add_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    rec = Recorder(path, facts=False, flush_seconds=0.001, buffer_bytes=20_000)
    write, calls = rec._flusher._file.write, itertools.count()

    def fails(block: object) -> live_file.Position:
        if next(calls) % 50:
            raise OSError(28, "No space left on device")
        return write(block)  # type: ignore[arg-type]

    monkeypatch.setattr(rec._flusher._file, "write", fails)

    def work() -> None:
        for i in range(COUNT):
            rec.add(a=float(i))

    rec.add(a=-1.0)
    together(work, work, work)
    monkeypatch.setattr(rec._flusher._file, "write", write)
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


@pytest.mark.parametrize("flush_seconds", [0.001, 60])
def test_what_many_threads_add_while_closing_is_recorded_or_refused(
    tmp_path: Path, flush_seconds: float
) -> None:
    """Without a GIL, the writer empties the queue while these threads look for their last add."""
    for trial in range(10):
        path, taken = tmp_path / f"{trial}.h5", [0] * 8
        rec = Recorder(path, facts=False, flush_seconds=flush_seconds)

        def add_on(thread: int) -> None:
            for value in itertools.count():
                key = f"{'number' if value % 2 else 'text'}{thread}"
                rec.add({key: float(value) if value % 2 else f"{value}"}, step=value)  # noqa: B023
                taken[thread] = value + 1  # noqa: B023 - joined before the next

        def work(thread: int) -> None:
            with pytest.raises(RecordingError, match="is closed"):
                add_on(thread)

        def close() -> None:
            sleep(0.05)
            rec.close()  # noqa: B023

        together(close, *(partial(work, thread) for thread in range(8)))
        with Recording(path) as run:
            for thread, count in enumerate(taken):
                numbers = run[f"number{thread}"].value if count > 1 else []
                texts = run[f"text{thread}"].value if count else []
                assert list(numbers) == list(range(1, count, 2))
                assert list(texts) == [f"{value}" for value in range(0, count, 2)]


def test_a_config_that_meets_a_close_is_recorded_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    rec = Recorder(path, facts=False, config={"lr": 1})
    refused = event_queue.EventQueue.refused
    closing = iter([rec.close])  # once, right after the queue has said that it is open

    def refused_then_close(self: event_queue.EventQueue) -> bool:
        try:
            return refused(self)
        finally:
            together(*closing)

    monkeypatch.setattr(event_queue.EventQueue, "refused", refused_then_close)
    with pytest.raises(RecordingError, match="is closed"):
        rec.config.update(lr=2)
    assert rec.config["lr"] == 1
    with Recording(path) as run:
        assert run.config == {"lr": 1}


@pytest.mark.usefixtures("small_buffers")
def test_a_loop_that_only_adds_gives_the_writer_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    monkeypatch.setattr(flusher, "_PLENTY", 10_000)
    monkeypatch.setattr(flusher, "sleep", turns.append)
    with Recorder(tmp_path / "run.h5", facts=False, flush_seconds=60) as rec:
        with rec._flusher._writing:  # the writer is behind
            for i in range(COUNT):
                rec.add(a=i / 2)
        assert len(turns) > 10
