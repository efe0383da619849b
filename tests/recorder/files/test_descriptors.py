"""Syncing where fsync(2) does not reach the disk."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from flexrec.recorder.files import descriptors

CALL = 12345  # of no system


@pytest.mark.parametrize("has_it", [True, False])
def test_macos_syncs_past_the_drives_cache(
    tmp_path: Path, has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[object]()

    def full(*arguments: object) -> None:
        calls.append(arguments)
        if not has_it:
            raise OSError("not on this file system")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", CALL, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", calls.append)
    descriptors.sync(7)
    assert calls == [(7, CALL), *([] if has_it else [7])]
