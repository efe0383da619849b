"""How many rooms a value's way goes through: files entered, and crossings from one to another.

    python benchmarks/crossings.py [--list]

A crossing is a call from one of flexrec's files into another, whatever lies between them. Imports
are warm: each way is gone once before it is counted. Nothing here is a time, so one run tells.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tabulate import tabulate

import flexrec
from flexrec.cli.commands import app
from flexrec.recorder import Recorder

HOME = Path(str(flexrec.__file__)).parent
FLOORS = [HOME / floor for floor in ("recorder", "replay", "cli")]
ROOTS = tuple(f"{path}/" for floor in FLOORS for path in (floor, floor.resolve()))
POINTS = 20


def file_of(frame: FrameType | None) -> str | None:
    """Which of flexrec's files a frame is of; None for those of others."""
    name = frame.f_code.co_filename if frame is not None else ""
    return name if name.startswith(ROOTS) else None


def caller_of(frame: FrameType) -> str | None:
    """The file of the nearest of flexrec's frames that called this one."""
    at = frame.f_back
    while at is not None and file_of(at) is None:
        at = at.f_back
    return file_of(at)


def crossings(work: Callable[[], object]) -> tuple[Counter[str], int]:
    """How often each file is entered from another, and how many calls cross."""
    entered = Counter[str]()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            file = file_of(frame)
            if file is not None and file != caller_of(frame):
                entered[file] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return entered, sum(entered.values())


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="how often each file is entered")
    is_listed = parser.parse_args().list
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Recorder(Path(folder) / "other.h5", flush_seconds=3600) as recorder,
    ):
        for name, work in ways(Path(folder), recorder):
            entered, count = crossings(work)
            rows.append([name, len(entered), count])
            if is_listed:
                print(name)
                for file, times in entered.most_common():
                    print(f"{times:6} {'/'.join(Path(file).parts[-3:])}")
    print(tabulate(rows, ("way", "files", "crossings")))


def ways(folder: Path, recorder: Recorder) -> list[tuple[str, Callable[[], object]]]:
    """What is counted, each gone once before."""
    run = folder / "run.h5"
    with Recorder(run, facts=False) as rec:
        for point in range(POINTS):
            rec.add(train_loss=1 / (point + 1))
            rec.step()
            rec.log(point)

    def replay() -> None:
        out = folder / "run.json"
        words = ["replay", str(run), "--preset", "loss", "--save", str(out), "--force"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            app(words, standalone_mode=False)

    replay()
    return [
        (f"replay --preset loss, {POINTS} points", replay),
        ("the first add", lambda: recorder.add({"loss": 0.1})),
        ("a later add", lambda: recorder.add({"loss": 0.1})),
        ("a flush", recorder.flush),
    ]


if __name__ == "__main__":
    main()
