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

from flexrec.recorder import Recorder, Recording
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
def record(mode):  # no name for a recorder is left if Ctrl-C comes before its __exit__ begins
    with Recorder(sys.argv[1], mode=mode, facts=False) as rec:
        rec.add(a=1)
seen = 0
while seen < 40:
    try:
        print(seen, flush=True)
        while True:
            for mode in ("w", "resume"):
                record(mode)
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


def test_ctrl_c_just_before_close_does_not_leave_the_recording_open(path: Path) -> None:
    """In every call that `with` makes at its end until signals are held back."""
    number, has_come = 0, True
    while has_come:
        number, left, has_come = number + 1, number + 1, False

        def profile(frame: FrameType, event: str, _: object) -> None:
            nonlocal left, has_come
            if event != "call" or frame.f_code.co_name == "__exit__":
                return
            left -= 1
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                sys.setprofile(None)
            elif not left:
                sys.setprofile(None)
                has_come = True
                signal.raise_signal(signal.SIGINT)

        came = False
        try:
            with Recorder(path, mode="w", facts=False) as rec:
                rec.add(a=number)
                sys.setprofile(profile)
        except KeyboardInterrupt:
            came = True
        assert came == has_come
        with Recorder(path, mode="resume", facts=False) as again:
            assert rec is not again
        with Recording(path) as run:
            assert run["a"].value.tolist() == [number]
    assert number > 9


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


def test_a_handler_that_raises_while_others_are_given_back() -> None:
    """Ctrl-C at every instruction of the end: all handlers are back, and all that came is heard."""
    number = left = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != HeldInterrupts.__exit__.__code__.co_filename:
            return None
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if not left and event == "opcode":
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return trace

    def work() -> None:
        held = HeldInterrupts()
        held.__enter__()
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        sys.settrace(trace)
        try:
            held.__exit__()
        finally:
            sys.settrace(None)

    came: list[int] = []
    handlers = {
        number: (lambda number, _: came.append(number))
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    }
    handlers[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        while left <= 0:
            number, came[:] = number + 1, []
            left = number
            try:
                work()
                assert left > 0, f"Ctrl-C at instruction {number} was lost"
            except KeyboardInterrupt:
                pass
            assert {each: signal.getsignal(each) for each in handlers} == handlers, number
            assert sorted(came) == [signal.SIGUSR1, signal.SIGUSR2], number
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert number > 50
