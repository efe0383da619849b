"""Ctrl-C reaches the program, also where h5py runs Python code as it frees its objects."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from flexrec.recorder import Recorder
from flexrec.recorder.hdf5.interrupts import HeldInterrupts

CALLBACKS = {("weakref.py", "remove"), ("_weakrefset.py", "_remove"), ("weakref.py", "_remove")}


@pytest.fixture(autouse=True)
def _as_in_a_program() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_in_callback(number: int, work: Any) -> bool:
    """Run it, with Ctrl-C in the n-th callback of a weak reference; whether there were so many."""
    left = number

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        code = frame.f_code
        if event == "call" and (os.path.basename(code.co_filename), code.co_name) in CALLBACKS:
            left -= 1
            if left < 0:
                sys.setprofile(None)
                os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return left < 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the test's subject
def test_ctrl_c_is_not_lost_while_a_recording_is_made_closed_and_resumed(tmp_path: Path) -> None:
    def work() -> None:
        for mode in ("x", "resume"):
            with Recorder(path, mode=mode, facts=False, flush_seconds=60) as rec:
                rec.add(a=1.0)
                rec.flush()

    for number in itertools.count(0, 29):
        path, came = tmp_path / f"{number}.h5", False
        try:
            has_come = interrupted_in_callback(number, work)
        except KeyboardInterrupt:
            has_come = came = True
        assert came == has_come, f"the interrupt in callback {number} was lost"
        if not has_come:
            break
    assert number > 29


def test_a_loop_of_recordings_sees_every_ctrl_c(tmp_path: Path) -> None:
    code = """
import sys
from flexrec.recorder import Recorder
seen = 0
while seen < 40:
    try:
        print(seen, flush=True)
        while True:
            for mode in ("w", "resume"):
                with Recorder(sys.argv[1], mode=mode, facts=False) as rec:
                    rec.add(a=1)
    except KeyboardInterrupt:
        seen += 1
"""
    command = [sys.executable, "-c", code, str(tmp_path / "run.h5")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        try:
            for number in range(40):
                if child.stdout.readline() != f"{number}\n":
                    break  # the child has ended; what it said is below
                time.sleep(number % 8 * 0.007)  # so that it comes anywhere
                child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0, said
    assert said == ""


def test_a_second_signal_is_not_held_back() -> None:
    def twice() -> None:
        with HeldInterrupts():
            signal.raise_signal(signal.SIGINT)
            reached.append(1)
            signal.raise_signal(signal.SIGINT)
            reached.append(2)

    reached: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        twice()
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_come_in_the_end_also_where_one_raises() -> None:
    def both() -> None:
        with HeldInterrupts(), HeldInterrupts():
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGINT)
            came.append(0)

    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            both()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came == [0, signal.SIGUSR1]
