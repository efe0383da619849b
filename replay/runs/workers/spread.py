"""spread: call a function for many items, here or in other processes; results in their order.

Workers get chunks of items, and may finish them in any order. The results do not depend on it, and
whoever combines them does so in this process: sums of floats in another order have other bits.
"""

import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol, TypeVar

from flexrec.recorder.errors import WorkerError, warn
from flexrec.recorder.files.remote import is_copy

T = TypeVar("T")
R = TypeVar("R")

_MOST, _EACH = 50, 4  # items of a chunk; chunks for each worker, or more: they take unequal times


class Chunk(NamedTuple):
    """Items that a worker gets at once.

    Attributes:
        first: the place of the first among all items.
        items: the items.
        paths: a file that the work on each reads.
    """

    first: int
    items: Sequence[Any]
    paths: Sequence[str]


class Done(NamedTuple):
    """What a worker did with a chunk.

    Attributes:
        results: those of the items, up to the first that failed.
        error: the error of the item behind them.
        unseen: the path of the item behind them, which does not exist where the worker is.
        host: where the worker is.
        warned: the texts of warnings.
    """

    results: list[Any]
    error: Exception | None
    unseen: str
    host: str
    warned: tuple[str, ...]


class Workers(Protocol):
    """Processes that work through chunks."""

    def __len__(self) -> int:
        """How many there are; they may become more or fewer."""

    def work(
        self, function: Callable[[Any], Any], chunks: Sequence[Chunk]
    ) -> Generator[tuple[Chunk, Done], None, None]:
        """Work through chunks, and yield each when it is done; an unfinished one may be split.

        Raises:
            WorkerError: they cannot be reached or cannot do it, or died several times of the same.
        """


def spread(
    function: Callable[[T], R],
    items: Sequence[T],
    workers: Workers | None = None,
    *,
    reads: Callable[[T], str | os.PathLike[str]],
) -> Generator[R, None, None]:
    """Yield `function(item)` for each item, in the order of the items.

        >>> list(spread(len, ["/a", "/bcd"], reads=str))
        [2, 4]

    An error of the function is raised in the place of the result.

    Args:
        function: a function of a module, or a functools.partial of one. Another process gets it and
            the items pickled, and may have another working directory: paths in them are absolute.
        items: what the function takes.
        workers: who calls it; None: this process does.
        reads: returns a file that the function reads, for an item.

    Raises:
        WorkerError: the workers cannot be reached or do not see a file, or some died several times
            of the same item.
    """
    if workers is None or len(items) < 2:
        yield from map(function, items)
        return
    size = min(_MOST, max(1, len(items) // (_EACH * max(1, len(workers)))))
    chunks = [
        Chunk(first, part, [os.path.abspath(reads(item)) for item in part])
        for first in range(0, len(items), size)
        if (part := items[first : first + size])
    ]
    with closing(workers.work(function, chunks)) as working:
        for chunk, done in _in_order(working):
            for text in done.warned:
                warn(text)
            yield from done.results
            if done.error is not None:
                raise done.error
            if done.unseen:
                if os.path.lexists(done.unseen):
                    raise _unseen(done.unseen, done.host)
                yield from map(function, chunk.items[len(done.results) :])  # it was just deleted


def _unseen(path: str, host: str) -> WorkerError:
    where = "on a file system that they share"
    if is_copy(path):  # the message names its URL
        return WorkerError(
            f"a worker on {host} does not see the copy of {path}, which is in "
            f"{tempfile.gettempdir()} of this machine; set TMPDIR to a folder {where}"
        )
    return WorkerError(
        f"a worker on {host} does not see {path}; workers need every file at the same path as "
        f"here, {where}"
    )


def _in_order(working: Iterator[tuple[Chunk, Done]]) -> Iterator[tuple[Chunk, Done]]:
    early = dict[int, tuple[Chunk, Done]]()
    place = 0
    for chunk, done in working:
        early[chunk.first] = chunk, done
        while place in early:
            ready = early.pop(place)
            yield ready
            place += len(ready[0].items)


def work_through(function: Callable[[Any], Any], chunk: Chunk) -> Done:
    """Work through a chunk, in the worker; errors and warnings are returned."""
    results, error, unseen = list[Any](), None, ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for item, path in zip(chunk.items, chunk.paths, strict=True):
            if not os.path.lexists(path):
                unseen = path
                break
            try:
                results.append(function(item))
            except Exception as raised:  # noqa: BLE001 - it is raised again where it is expected
                error = raised
                break
    texts = dict.fromkeys(str(one.message) for one in caught)
    return Done(results, error, unseen, socket.gethostname(), tuple(texts))
