"""Trials in forks of this process: thousands take minutes; one that crashes or hangs is told."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.known import LostError, WrongError

__all__ = ["Found", "doing", "fault_of", "in_forks", "preloaded"]

Found = tuple[str, str]
"""Which kind of fault, or "" for none; and what it is."""

_SECONDS = 60  # after which a trial hangs
_FOLDER = "FLEXREC_TRIALS"  # of a process under the shim: where its trials are


def in_forks(works: Iterable[Callable[[], Found]], jobs: int) -> Iterator[tuple[int, Found]]:
    """Run each in a fork of its own, several at a time; give its number and what it found."""
    running: dict[int, tuple[int, int]] = {}

    def ended() -> tuple[int, Found]:
        child, status = os.wait()
        number, reading = running.pop(child)
        with open(reading, "rb") as told:
            said = told.read()
        if os.WIFSIGNALED(status):
            hangs = os.WTERMSIG(status) == signal.SIGALRM
            how = f"no end in {_SECONDS} s" if hangs else f"signal {os.WTERMSIG(status)}"
            return number, ("hangs" if hangs else "crashes", how)
        if status:
            return number, ("crashes", f"exit status {os.waitstatus_to_exitcode(status)}")
        kind, what = json.loads(said)
        return number, (kind, what)

    for number, work in enumerate(works):
        if len(running) >= jobs:
            yield ended()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(_SECONDS)
                os.write(writing, json.dumps(work()).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        running[child] = number, reading
    while running:
        yield ended()


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Note on what is raised within, what was being done."""
    try:
        yield
    except Exception as error:
        error.add_note(what)
        raise


def fault_of(error: Exception) -> Found:
    """What an error is called that came of checking a file, and what it says."""
    stage = getattr(error, "__notes__", ["read"])[0]
    kinds: dict[type[Exception], str] = {LostError: "lost", WrongError: "wrong"}
    kind = kinds.get(type(error), "unreadable") if stage == "read" else stage
    return kind, f"{type(error).__name__}: {error!s:.250}".replace("\n", " ")


def preloaded(build: Callable[[Path], Path], run: Callable[[Path], int]) -> int:
    """Run trials under a shim, in a folder for them: begin this script anew where it has none.

    The folder is temporary, and in memory where there is a place for that.
    """
    if _FOLDER in os.environ:
        return run(Path(os.environ[_FOLDER]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave nothing
    memory = "/dev/shm"  # noqa: S108 - the folder in it has a name of its own
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        base = Path(os.path.realpath(made))
        environment = {**os.environ, "LD_PRELOAD": str(build(base)), _FOLDER: str(base)}
        command = [sys.executable, "-W", "ignore", *sys.argv]
        return subprocess.run(command, env=environment, check=False).returncode
