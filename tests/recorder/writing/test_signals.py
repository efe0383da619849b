"""A signal's handler records, flushes or closes, whatever the program was amid: nothing is lost."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.recorder.reduction.reductions import SquaredErrors
from flexrec.recorder.writing.values import copies
from support.moments import apart, at_moment

LARGE = np.arange(copies.SMALL / 8 + 1)


def add_and_flush(rec: Recorder) -> None:
    """What a handler may do that has something to say."""
    rec.add({"a": 1.0, "d": LARGE[:-1]})
    rec.flush()


def flush_and_add(rec: Recorder) -> None:
    """The memory of what was flushed is there for what is added."""
    rec.flush()
    rec.add({"a": 1.0, "d": -LARGE})


# What is interrupted, and every how many moments: those that have many are tried at some.
WORKS: dict[str, tuple[Callable[[Recorder], object], int]] = {
    "numbers": (lambda rec: rec.add(a=1.0, b=2.0), 1),
    "arrays": (lambda rec: rec.add({"a": 1.0, "d": np.arange(3.0)}), 2),
    "another shape": (lambda rec: rec.add({"a": 1.0, "d": np.arange(2.0)}), 13),
    "large arrays": (lambda rec: rec.add({"a": 1.0, "d": LARGE}), 13),
    "texts": (lambda rec: rec.add({"a": 1.0, "t": "text"}), 41),
    "a reduced key": (lambda rec: rec.add({"a": 1.0, "reduced": (LARGE, LARGE)}), 23),
    "new keys": (lambda rec: rec.add({"a": 1.0, "new": 2.0}), 29),
    "a mark": (lambda rec: rec.log(3.0, keys="a"), 1),
    "a flush": (lambda rec: rec.flush(), 31),
}
HANDLERS: dict[str, Callable[[Recorder], object]] = {
    "adds": lambda rec: rec.add({"a": 1.0, "d": LARGE[:-1], "newer": 2.0}),
    "marks": lambda rec: rec.log(4.0, keys="d"),
    "flushes": lambda rec: rec.flush(),
    "saves": lambda rec: rec.state_dict(),
    "adds and flushes": add_and_flush,
    "flushes and adds": flush_and_add,
    "closes": lambda rec: rec.close(),
}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("work", WORKS)
def test_a_handler_may_come_at_any_moment(tmp_path: Path, work: str, handler: str) -> None:
    does, stride = WORKS[work]
    for moment in itertools.count(0, apart(stride)):
        path, refused = tmp_path / f"{moment}.h5", 0
        reduce: Any = {"reduced": SquaredErrors()}
        rec = Recorder(path, facts=False, flush_seconds=60, reduce=reduce)
        for _ in range(2):
            rec.add(a=1.0, b=2.0)
            rec.add({"a": 1.0, "d": np.arange(3.0)})
            rec.log(3.0, keys="a")
        rec.flush()
        rec.add(a=1.0, b=2.0)
        acts = partial(HANDLERS[handler], rec)
        try:
            has_come = at_moment(moment, partial(does, rec), acts)
        except RecordingError:
            assert handler == "closes"
            has_come, refused = True, 1
        if handler != "closes" or not has_come:
            rec.add({"a": 1.0, "d": np.arange(3.0)})
        rec.close()
        rec.close()
        with Recording(path) as run:
            events = len(list(run.events()))
            values = [d.tolist() for d in run["d"].value]
            assert run.complete
            assert run.dropped == 0
            assert set(run["a"].value) == {1.0}
        wanted = 7 + (work != "a flush") - refused * (work != "a flush")
        wanted += has_come * (handler in ("adds", "marks", "adds and flushes", "flushes and adds"))
        wanted += handler != "closes" or not has_come
        assert events == wanted
        for value in values:
            assert value == (-LARGE if value[-1] < 0 else LARGE)[: len(value)].tolist()
        if not has_come:
            break
    assert moment > 3 * stride


@pytest.mark.parametrize("does", ["rec.close(); os._exit(0)", "rec.flush()", "sys.exit()"])
def test_sigterm_in_a_loop_of_adds(tmp_path: Path, does: str) -> None:
    """With the writer at work too: they wait for each other never."""
    code = f"""
import os, signal, sys
import numpy as np
from flexrec.recorder import Recorder
def handle(*_):
    {does}
rec = Recorder(sys.argv[1], facts=False, flush_seconds=0.001)
signal.signal(signal.SIGTERM, handle)
many = np.zeros(4000)
for i in range(1 << 60):
    rec.add(i=i, many=many, text="t")
    if i == 100:
        print("begun", flush=True)
    if os.path.exists(sys.argv[1] + ".end"):
        rec.close()
        break
"""
    for i in range(5):
        path = tmp_path / f"{i}.h5"
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            for _ in range(20 if does == "rec.flush()" else 1):
                os.kill(child.pid, signal.SIGTERM)
            if does == "rec.flush()":
                path.with_name(f"{i}.h5.end").touch()
            assert child.wait(timeout=30) == 0
        with Recording(path) as run:
            assert run.complete
            assert run["i"].value.tolist() == list(range(len(run["i"])))
            assert len(run["i"]) > 100


def test_a_handler_that_adds_while_a_recorder_is_closed_does_not_keep_it_from_closing(
    tmp_path: Path,
) -> None:
    """Whether the add comes in time or is refused, what was added before is there."""
    for moment in itertools.count(0, 41):
        path, added = tmp_path / f"{moment}.h5", 0
        rec = Recorder(path, facts=False, flush_seconds=60, reduce={"mse": "MSEMeter"})
        rec.add({"mse": (LARGE, LARGE), "a": 1.0})

        def handle(rec: Recorder = rec) -> None:
            nonlocal added
            try:
                rec.add({f"new{i}": 1.0 for i in range(3)})
                added = 1
            except RecordingError:
                added = 0

        has_come = at_moment(moment, rec.close, handle)
        rec.close()
        with Recording(path) as run:
            assert run.complete
            assert len(list(run.events())) == 1 + added
        if not has_come:
            break
    assert moment > 10 * 41
