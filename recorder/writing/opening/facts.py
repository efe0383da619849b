"""Gather the facts of a run: host, time, versions and so on. Must be quick and never fail."""

import getpass
import hashlib
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from flexrec.recorder.writing.opening.git import git_facts

_PACKAGES = ("flexrec", "h5py", "numpy", "torch", "visdom")
# In order of precedence: a launcher inside a job takes precedence over the job.
_RANKS = (
    "RANK",  # torchrun
    "OMPI_COMM_WORLD_RANK",  # Open MPI
    "MV2_COMM_WORLD_RANK",  # MVAPICH
    "PMIX_RANK",
    "PMI_RANK",  # MPICH, Intel MPI
    "FLUX_TASK_RANK",
    "SLURM_PROCID",
)
_JOB = ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_NODELIST", "SLURM_ARRAY_TASK_ID", "WORLD_SIZE")


def gather_facts(*, patch: bool = True) -> dict[str, Any]:
    """The facts to store with the recording, as plain JSON data.

    Args:
        patch: whether to store what is not committed; of several processes, only rank 0 does.
    """
    facts: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": _text(platform.node()),
        "user": _user(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
        "argv": list(map(_text, sys.argv)),
        "script": _script(),
        "rank": rank() or 0,
    }
    job = {name: _text(os.environ[name]) for name in _JOB if name in os.environ}
    return {**facts, "job": job, **git_facts(patch=patch and not facts["rank"])}


def rank() -> int | None:
    """This process's rank: from torch.distributed if initialised, else from the environment
    variables of torchrun, MPI, Flux or SLURM; None if there is none."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for name in _RANKS:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def _text(value: str) -> str:
    """Make a string from the system valid UTF-8, for JSON."""
    return value.encode("utf-8", "replace").decode()


def _user() -> str | None:
    try:
        return _text(getpass.getuser())
    except (KeyError, OSError, ImportError):  # a container without a passwd entry
        return None


def _script() -> str | None:
    """The SHA-256 of the program's main file; None if there is none."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return None if main is None else hashlib.sha256(Path(main).read_bytes()).hexdigest()
    except (OSError, TypeError, ValueError):
        return None


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
