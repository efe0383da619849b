"""The facts of a run: where, when, with what. Nothing here may fail or take long."""

import getpass
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from typing import Any

_PACKAGES = ("flexrec", "h5py", "numpy", "torch", "visdom")
_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_JOB = ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_NODELIST", "SLURM_ARRAY_TASK_ID", "WORLD_SIZE")


def gather_facts() -> dict[str, Any]:
    """What a reader of the recording will want to know about the run, as plain JSON data."""
    facts: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": _text(platform.node()),
        "user": _user(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
        "argv": list(map(_text, sys.argv)),
        "rank": rank(),
    }
    job = {name: _text(os.environ[name]) for name in _JOB if name in os.environ}
    return {**facts, "job": job, "git_commit": _git_commit()}


def rank() -> int:
    """This process's rank under torchrun, SLURM or MPI; 0 where there is none."""
    for name in _RANKS:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _text(value: str) -> str:
    """What the system gave, as JSON can hold it: it may be no UTF-8."""
    return value.encode("utf-8", "replace").decode()


def _user() -> str | None:
    try:
        return _text(getpass.getuser())
    except (KeyError, OSError, ImportError):  # a container without a passwd entry
        return None


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
