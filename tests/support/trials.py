"""Runs the scripts of trials for the tests, which keep their short forms."""

import json
import subprocess
import sys
from typing import Any

import pytest

from support.crashing import HERE
from support.full_disk import NO_MOUNT


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
