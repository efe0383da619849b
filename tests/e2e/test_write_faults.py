"""Each write fails in turn, and the disk recovers: nothing is lost. All of it: `make soak`."""

from support.fault_work import CASES
from support.trials import trials

_SLOW = {"events", "events anew", "values", "blobs", "names"}  # they fill a chunk first


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
