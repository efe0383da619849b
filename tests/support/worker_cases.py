"""What workers are given to do in tests, and a Dask cluster. Other processes import this file."""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import flexrec
from flexrec.recorder import RecordingError

_DASK = (sys.executable, "-m")
_HERE = ("--host", "127.0.0.1", "--no-dashboard")


def number(path: str) -> float:
    """The number that a file holds."""
    return float(Path(path).read_text())


def numbered(path: str) -> tuple[float, int]:
    """The number that a file holds, and the process that reads it."""
    return number(path), os.getpid()


def picky(path: str) -> float:
    """The number that a file holds; 2 is refused."""
    found = number(path)
    if found == 2:
        raise RecordingError(f"{path} is 2", hint="overwrite=True")
    return found


def talkative(path: str) -> float:
    """The number that a file holds; 1 causes a warning."""
    found = number(path)
    if found == 1:
        warnings.warn("it is 1", RuntimeWarning, stacklevel=1)
    return found


def deadly(path: str, marker: str) -> float:
    """The number that a file holds; as 2 is read, the process dies, if there is a marker."""
    found = number(path)
    if found == 2:
        die_once(marker)
    return found


def fatal(path: str) -> float:
    """The number that a file holds; as 2 is read, the process dies."""
    found = number(path)
    if found == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def ends_other(path: str) -> float:
    """The number that a file holds, after the process that has this number was killed."""
    found = number(path)
    os.kill(int(found), signal.SIGKILL)
    return found


def done_then_dead(path: str, work: Callable[[str], Any], marker: str) -> Any:
    """What the work on a path gives; then the process dies, if there is a marker."""
    found = work(path)
    die_once(marker)
    return found


def die_once(marker: str) -> None:
    """Remove the marker and kill this process; do nothing if there is none."""
    try:
        os.unlink(marker)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def dask_cluster(folder: Path) -> Iterator[Path]:
    """A scheduler and two workers of one thread each; yields the scheduler's file."""
    file = folder / "scheduler.json"
    home = [*map(str, (Path(flexrec.__file__).parents[1], Path(__file__).parents[1]))]
    home += filter(None, [os.environ.get("PYTHONPATH")])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(home)}
    scheduler = ["distributed.cli.dask_scheduler", "--port", "0"]
    worker = ["distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny"]
    with ExitStack() as stack:
        for module, *options in (scheduler, worker, worker):
            command = [*_DASK, module, *options, *_HERE, "--scheduler-file", str(file)]
            with (folder / "dask.log").open("a") as log:
                process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield file
