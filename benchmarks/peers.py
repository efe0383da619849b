"""The peers that the benchmarks compare with, installed in a virtual environment of their own.

    python benchmarks/peers.py            # .venv-peers, beside flexrec itself and torch

A peer that cannot be installed is named, and left out of the tables: nothing is guessed.
"""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["PEERS", "python_of_peers"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
PEERS = (
    "tensorboard",
    "tensorboardX",
    "torchmetrics",
    "scikit-learn",
    "torchnet==0.0.4",
    "wandb",
    "trackio",
    "aim",
)


def python_of_peers() -> Path:
    """The interpreter beside the peers; what is missing is installed first, which takes minutes."""
    python = FOLDER / "bin" / "python"
    done = FOLDER / ".done"
    if done.exists():
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    if not _install(python, "--editable", f"{ROOT}[all]"):
        raise SystemExit("flexrec itself could not be installed")
    missing = [peer for peer in PEERS if not _install(python, peer)]
    done.write_text("".join(f"{peer}\n" for peer in missing), encoding="utf-8")
    return python


def missing_peers() -> list[str]:
    """The peers that could not be installed here."""
    done = FOLDER / ".done"
    return done.read_text(encoding="utf-8").split() if done.exists() else list(PEERS)


def _install(python: Path, *what: str) -> bool:
    constraints = str(ROOT / "constraints.txt")
    environment = os.environ | {
        "PIP_CONSTRAINT": constraints,
        "PIP_BUILD_CONSTRAINT": constraints,
    }
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print(f"installing {' '.join(what)}", flush=True)
    return subprocess.run([*command, *what], env=environment, check=False).returncode == 0


if __name__ == "__main__":
    python_of_peers()
    print("not to be had here:", ", ".join(missing_peers()) or "none")
