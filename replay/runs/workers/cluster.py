"""The workers of a Dask cluster, by a client; and connecting to its scheduler."""

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexrec.recorder.errors import MissingDependency, WorkerError, counted, listed, warn
from flexrec.replay.runs.workers.spread import Chunk, Done, work_through

if TYPE_CHECKING:
    from distributed import Client, Future

_ANSWER, _WORKERS, _LOOK = 10.0, 60.0, 1.0  # seconds: until a scheduler answers; without a worker;
# until it is looked again which workers there are


@contextmanager
def connected(*, address: str | None = None, file: Path | None = None) -> "Iterator[Client]":
    """A client of a scheduler, until the block ends.

    Args:
        address: the scheduler's address, such as `tcp://node1:8786`; or else
        file: the file that the scheduler wrote its address into, which may appear soon.

    Raises:
        MissingDependency: distributed is not installed.
        WorkerError: no scheduler answers within ten seconds.
    """
    distributed = _distributed()
    # It tells on stderr, at length, what is an error or a warning here.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = _written(file) if file is not None else address
    try:
        client = distributed.Client(address, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise WorkerError(
            f"no Dask scheduler answers at {address}"
            + (f", the address in {file}: it may be of one that has ended" if file else "")
            + f" ({str(error).splitlines()[0]})"
        ) from error
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=_ANSWER)


class ClusterWorkers:
    """The workers that a client's scheduler has, as many as there are at each moment.

    A chunk whose worker dies is given to another; Dask gives up when several died of it.

    Args:
        client: a `distributed.Client`.

    Raises:
        MissingDependency: distributed is not installed.
        TypeError: it is no client, or an asynchronous one.
    """

    def __init__(self, client: "Client") -> None:
        if not isinstance(client, _distributed().Client) or client.asynchronous:
            raise TypeError(
                f"workers is a number of processes or a synchronous distributed.Client, not "
                f"{type(client).__name__}"
            )
        self._client = client

    def __len__(self) -> int:
        return sum(self._threads().values())

    def work(
        self, function: Callable[[Any], Any], chunks: Sequence[Chunk]
    ) -> Generator[tuple[Chunk, Done], None, None]:
        """As in `spread.Workers`."""
        distributed = _distributed()
        self._wait_for_one()
        ask_versions = partial(self._client.get_versions, packages=["flexrec"])
        check_versions(_told(ask_versions)["workers"])
        submitted = {
            self._client.submit(work_through, function, chunk, pure=False): chunk
            for chunk in chunks
        }
        watch = _Watch(self._threads())
        try:
            while submitted:
                with suppress(TimeoutError), _losing(), self._client.as_current():
                    distributed.wait(list(submitted), _LOOK, return_when="FIRST_COMPLETED")
                for future in [future for future in submitted if future.done()]:
                    chunk = submitted[future]
                    done = _result(future, chunk)
                    if done is not None:
                        del submitted[future]  # what it holds is freed
                        yield chunk, done
                watch.look(self._threads())
        finally:
            with suppress(Exception):  # the scheduler may be gone
                self._client.cancel(list(submitted))

    def _threads(self) -> dict[str, int]:
        """The number of threads of each worker, by its address."""
        return dict(_told(self._client.nthreads))

    def _wait_for_one(self) -> None:
        end = time.monotonic() + _WORKERS
        while not self._threads():
            if time.monotonic() > end:
                raise _nobody()
            time.sleep(_LOOK)


class _Watch:
    """Tells of workers that leave."""

    def __init__(self, there: Mapping[str, int]) -> None:
        self._there, self._last = set(there), time.monotonic()

    def look(self, there: Mapping[str, int]) -> None:
        """Compare with the workers that are there now.

        Raises:
            WorkerError: there have been none for long.
        """
        gone = self._there - set(there)
        if gone:
            was = "was" if len(gone) == 1 else "were"
            warn(
                f"{counted(len(gone), 'worker')} of the cluster {was} lost "
                f"({listed(sorted(gone), most=4)}); others do their work again"
            )
        self._there = set(there)
        if there:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > _WORKERS:
            raise _nobody()


def check_versions(workers: Mapping[str, Any]) -> None:
    """Raise WorkerError if a worker has no flexrec, or another version of it.

    Args:
        workers: what `Client.get_versions` says of each worker, by its address.
    """
    own = version("flexrec")
    for address, told in workers.items():
        packages = told.get("packages", {}) if isinstance(told, Mapping) else {}
        other = packages.get("flexrec")
        if other != own:
            has = f"has flexrec {other}" if other else "has no flexrec"
            raise WorkerError(
                f"the worker {address} {has}; install flexrec {own}, the version used here, where "
                "the workers run"
            )


def _told(ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the scheduler answers; WorkerError if it does not."""
    try:
        return ask()
    except Exception as error:
        raise WorkerError("the Dask scheduler does not answer any more") from error


@contextmanager
def _losing() -> Iterator[None]:
    """Context manager: raise WorkerError if the connection to the scheduler is lost."""
    try:
        yield
    except CancelledError as error:
        raise WorkerError("the Dask scheduler has ended, or was lost") from error


def _result(future: "Future", chunk: Chunk) -> Done | None:
    """What was done with a chunk; None if it has to be done again: the worker that has it died."""
    distributed = _distributed()
    try:
        with _losing():
            done: Done = future.result(_ANSWER)
    except TimeoutError:
        return None
    except distributed.KilledWorker as error:
        raise WorkerError(
            f"several workers died, one after the other, of {_named(chunk)}: {error}"
        ) from error
    except WorkerError:
        raise
    except Exception as error:
        raise WorkerError(
            f"the workers cannot do it: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    return done


def _named(chunk: Chunk) -> str:
    if len(chunk.paths) == 1:
        return chunk.paths[0]
    return f"one of the {len(chunk.paths)} recordings from {chunk.paths[0]} to {chunk.paths[-1]}"


def _nobody() -> WorkerError:
    return WorkerError(f"the Dask scheduler has had no workers for {_WORKERS:.0f} s")


def _written(file: Path) -> str:
    """The address in a scheduler's file; waits for the file, which may be being written."""
    end = time.monotonic() + _ANSWER
    while True:
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > end:
                raise WorkerError(
                    f"{file} is no file that a Dask scheduler wrote: {error}"
                    if file.exists()
                    else f"{file} does not exist; a Dask scheduler writes it as it starts"
                ) from error
        time.sleep(_LOOK / 4)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingDependency.of("a Dask cluster", "distributed") from error
    return distributed
