"""Work in other processes gives what this one would give, in the same order."""

import os
import random
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrec.recorder import RecordingError, WorkerError
from flexrec.replay.runs.workers.local import LocalWorkers
from flexrec.replay.runs.workers.spread import Chunk, Done, Workers, spread, work_through
from support.worker_cases import deadly, fatal, number, numbered, picky, talkative


class Shuffled:
    """Workers in this process that finish chunks in a given order."""

    def __init__(
        self,
        order: Callable[[list[Chunk]], list[Chunk]],
        count: int = 2,
        work: Callable[[Callable[[Any], Any], Chunk], Done] = work_through,
    ) -> None:
        self._order, self._count, self._work = order, count, work

    def __len__(self) -> int:
        return self._count

    def work(
        self, function: Callable[[Any], Any], chunks: Sequence[Chunk]
    ) -> Generator[tuple[Chunk, Done], None, None]:
        for chunk in self._order(list(chunks)):
            yield chunk, self._work(function, chunk)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Files that hold the numbers from 0 to 9."""
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text(str(i))
    return [str(tmp_path / f"{i}.txt") for i in range(10)]


@given(st.integers(0, 130), st.integers(1, 20), st.randoms(use_true_random=False))
def test_any_order_of_any_chunks(count: int, workers: int, chance: random.Random) -> None:
    items = [f"/{i}" for i in range(count)]
    shuffled = Shuffled(lambda chunks: chance.sample(chunks, len(chunks)), workers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.path.lexists", lambda _: True)
        assert list(spread(str.upper, items, shuffled, reads=str)) == items


def test_processes_of_this_machine(files: list[str]) -> None:
    found = list(spread(numbered, files, LocalWorkers(2), reads=str))
    assert [value for value, _ in found] == list(range(10))
    assert os.getpid() not in {process for _, process in found}
    with pytest.raises(ValueError, match="at least 1, got 0"):
        LocalWorkers(0)


@pytest.mark.parametrize("workers", [None, Shuffled(lambda chunks: chunks[::-1]), LocalWorkers(1)])
def test_an_error_comes_in_the_place_of_its_result(files: list[str], workers: Workers) -> None:
    found = spread(picky, files, workers, reads=str)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(RecordingError, match=r"2\.txt is 2") as caught:
        next(found)
    assert caught.value.hint == "overwrite=True"
    assert list(found) == []


def test_warnings_are_given_here(files: list[str]) -> None:
    with pytest.warns(RuntimeWarning, match="it is 1"):
        assert list(spread(talkative, files, LocalWorkers(1), reads=str)) == list(range(10))


def test_a_process_that_dies_is_replaced(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    work = partial(deadly, marker=str(tmp_path / "marker"))
    with pytest.warns(RuntimeWarning, match="ended by signal 9; another does its 1 recording"):
        assert list(spread(work, files, LocalWorkers(2), reads=str)) == list(range(10))
    with (
        pytest.warns(RuntimeWarning, match="ended by signal 9"),
        pytest.raises(WorkerError, match=r"ended twice, by signal 9, at .*2\.txt"),
    ):
        list(spread(fatal, files, LocalWorkers(1), reads=str))


def test_what_cannot_be_passed_on(files: list[str]) -> None:
    with pytest.raises(WorkerError, match="cannot be passed to another process"):
        list(spread(lambda path: path, files, LocalWorkers(1), reads=str))
    with pytest.raises(WorkerError, match="cannot be passed back"):
        list(spread(open, files, LocalWorkers(1), reads=str))


def test_files_that_a_worker_does_not_see(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(function: Callable[[Any], Any], chunk: Chunk) -> Done:
        kept = [path for path in chunk.paths if not path.endswith("3.txt")]
        done = work_through(function, chunk._replace(items=chunk.items[: len(kept)], paths=kept))
        unseen = "" if len(kept) == len(chunk.paths) else str(tmp_path / "3.txt")
        return done._replace(unseen=unseen, host="node7")

    workers = Shuffled(lambda chunks: chunks, work=blind)
    with pytest.raises(WorkerError, match=r"on node7 does not see \S+3\.txt; workers need every"):
        list(spread(number, files, workers, reads=str))
    monkeypatch.setattr("flexrec.replay.runs.workers.spread.is_copy", lambda _: True)
    with pytest.raises(WorkerError, match=r"does not see the copy of .*3\.txt.*; set TMPDIR to"):
        list(spread(number, files, workers, reads=str))
    (tmp_path / "5.txt").unlink()  # just now: the function says what it makes of that
    with pytest.raises(FileNotFoundError, match=r"5\.txt"):
        list(spread(number, files[4:], LocalWorkers(1), reads=str))
