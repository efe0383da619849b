"""Processes of this machine that work through chunks. A process that dies is replaced.

They are spawned, not forked: a fork of a process with threads, such as those of HDF5 or BLAS, may
hang.
"""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pickle import PicklingError
from types import FrameType
from typing import Any

from flexrec.recorder.errors import WorkerError, counted, warn
from flexrec.replay.runs.workers.spread import Chunk, Done, work_through

_PATIENCE = 5.0  # seconds until a process that was asked to end is killed
_UNPICKLED = (PicklingError, AttributeError, TypeError)
_SPAWN = get_context("spawn")


class LocalWorkers:
    """Some processes of this machine; they start when there is work, and end with it.

    A recording that a process died of is tried once more, alone.

    Args:
        count: how many.

    Raises:
        ValueError: the number is less than 1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"workers must be at least 1, got {count}")
        self._count = count

    def __len__(self) -> int:
        return self._count

    def work(
        self, function: Callable[[Any], Any], chunks: Sequence[Chunk]
    ) -> Generator[tuple[Chunk, Done], None, None]:
        """As in `spread.Workers`."""
        waiting, suspects = deque(chunks), set[int]()
        hands = [_Hand() for _ in range(min(self._count, len(chunks)))]
        try:
            while waiting or any(hand.chunk for hand in hands):
                for hand in hands:
                    if waiting and hand.chunk is None:
                        hand.give(function, waiting.popleft())
                busy = {hand.pipe: hand for hand in hands if hand.chunk is not None}
                for pipe in wait(list(busy)):
                    hand = busy[pipe]  # type: ignore[index]
                    if not hand.is_ready:
                        hand.begin()
                        continue
                    chunk, done = hand.taken()
                    if done is not None:
                        yield chunk, done
                        continue
                    waiting.extendleft(reversed(_again(chunk, hand.why, suspects)))
                    hands[hands.index(hand)] = _Hand()
        finally:
            for hand in hands:
                hand.end()


class _Hand:
    """A process and the chunk that it works through.

    Attributes:
        pipe: the pipe to it.
        chunk: the chunk; None: it waits for one.
        is_ready: whether it has begun.
    """

    def __init__(self) -> None:
        self.pipe, inner = _SPAWN.Pipe()
        self.chunk: Chunk | None = None
        self.is_ready = False
        self._process = _SPAWN.Process(target=_serve, args=(inner,), daemon=True)
        with _uninterrupted():
            self._process.start()
        inner.close()

    def give(self, function: Callable[[Any], Any], chunk: Chunk) -> None:
        """Let it work through a chunk.

        Raises:
            WorkerError: the function or its arguments cannot be pickled.
        """
        self.chunk = chunk
        try:
            self.pipe.send((function, chunk))
        except _UNPICKLED as error:
            raise WorkerError(
                f"what is to be done cannot be passed to another process: {error}"
            ) from error
        except OSError:  # it has died, which `taken` tells
            pass

    def begin(self) -> None:
        """Take note that it has begun.

        Raises:
            WorkerError: it has ended instead.
        """
        try:
            self.is_ready = bool(self.pipe.recv())
        except (EOFError, OSError):
            self.end()
            raise WorkerError(
                f"a worker process ended {self.why} before it began; a script that asks for "
                'workers has to do so below `if __name__ == "__main__":`, since each imports it'
            ) from None

    def taken(self) -> tuple[Chunk, Done | None]:
        """The chunk, and what was done with it; None if the process died."""
        chunk, self.chunk = self.chunk, None
        assert chunk is not None  # noqa: S101 - who has none is not asked
        try:
            return chunk, self.pipe.recv()
        except (EOFError, OSError):
            self.end()
            return chunk, None

    @property
    def why(self) -> str:
        """How the process ended."""
        code = self._process.exitcode or 0
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"

    def end(self) -> None:
        """End the process."""
        is_busy = self.chunk is not None
        self.pipe.close()  # one that waits ends by itself
        if is_busy:
            self._process.terminate()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _again(chunk: Chunk, why: str, suspects: set[int]) -> list[Chunk]:
    """The chunks to do again after a process died: one for each item, to find which it is."""
    if chunk.first in suspects:
        raise WorkerError(f"a worker process ended twice, {why}, at {chunk.paths[0]}")
    warn(
        f"a worker process ended {why}; another does its "
        f"{counted(len(chunk.items), 'recording')} again"
    )
    suspects.update(range(chunk.first, chunk.first + len(chunk.items)))
    parts = zip(chunk.items, chunk.paths, strict=True)
    return [Chunk(chunk.first + i, [item], [path]) for i, (item, path) in enumerate(parts)]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C; what is started meanwhile never gets it, not even while it begins."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: "Connection[Any, Any]") -> None:
    """Work through the chunks that come, until the pipe is closed. The process does this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C the other side ends it
    signal.signal(signal.SIGTERM, _leave)
    # A thread for each core would only be in the way of the other processes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with suppress(EOFError, OSError):  # the other side has ended
        pipe.send(True)
        while True:
            done = _worked(pipe)
            try:
                pipe.send(done)
            except _UNPICKLED as error:
                pipe.send(_failed(f"a result cannot be passed back: {error}"))


def _worked(pipe: "Connection[Any, Any]") -> Done:
    try:
        function, chunk = pipe.recv()
    except (EOFError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a class that this process cannot import
        return _failed(f"a worker process does not know what is to be done: {error}")
    return work_through(function, chunk)


def _failed(message: str) -> Done:
    return Done([], WorkerError(message), "", "", ())


def _leave(_: int, __: FrameType | None) -> None:
    """End as after an error, so that files that were half written are removed."""
    sys.exit(1)
