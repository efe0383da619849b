"""Each write fails in turn, and the disk recovers: nothing is lost. All of it: `make soak`."""

import json
import subprocess
import sys
from typing import Any

import pytest
from crashing import HERE
from fault_work import CASES
from full_disk import NO_MOUNT

_SLOW = {"events", "events anew", "values", "blobs", "names"}  # they fill a chunk first


def trials(script: str, *arguments: str) -> list[dict[str, Any]]:
    """What a script of trials found that is not as it must be."""
    command = [sys.executable, "-W", "ignore", str(HERE / script), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NO_MOUNT:
        pytest.skip(done.stdout.strip())
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tried"], "nothing was tried"
    assert done.returncode == bool(found["bad"]), done.stderr
    return list(found["bad"])


def test_a_call_that_fails_once_loses_nothing() -> None:
    cases = ",".join(name for name in CASES if name not in _SLOW)
    bad = trials("write_faults.py", "--cases", cases, "--most", "80")
    assert not bad, bad


def test_a_call_that_fails_at_a_chunk_boundary_loses_nothing() -> None:
    bad = trials("write_faults.py", "--cases", "events anew", "--faults", "ENOSPC")
    bad += trials("write_faults.py", "--cases", ",".join(_SLOW), "--most", "8")
    assert not bad, bad


def test_a_disk_that_is_really_full_loses_nothing() -> None:
    # Of the first: nothing was written yet, and the rows that come have room while the events
    # themselves have none.
    assert not (bad := trials("full_disk.py", "--trials", "1", "--seed", "104")), bad
    assert not (bad := trials("full_disk.py", "--trials", "4")), bad
