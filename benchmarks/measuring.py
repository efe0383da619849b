"""How the benchmarks measure: all tools in turn, several rounds, medians. No question is here.

The order is another one in each round: what comes after a tool that leaves much behind is slower.

Scripts that call `begin` take --quick: smaller sizes and fewer rounds, to see that they run.
"""

import argparse
import gc
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tabulate import tabulate

__all__ = [
    "begin",
    "bytes_in",
    "compute",
    "folder",
    "in_child",
    "interleaved",
    "ratio",
    "seconds",
    "show",
]


def begin(question: str) -> bool:
    """Read the command line, say what is asked, where and when; return whether to be quick."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    quick: bool = parser.parse_args().quick
    print(f"## {question.splitlines()[0]}")
    print(f"{machine()}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{'; quick' if quick else ''}\n")
    return quick


def machine() -> str:
    """The machine in one line, and how busy it is with other things."""
    model = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = next((line.split()[1] for line in _lines("/proc/meminfo")), "0")
    load = f", load {os.getloadavg()[0]:.1f}"
    return (
        f"{os.cpu_count()} × {model}, {int(memory) >> 20} GiB, "
        f"Python {platform.python_version()}{load}"
    )


def interleaved(
    tools: Mapping[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, float], dict[str, str]]:
    """The median of what each tool returns, and why a tool failed; one round is all tools once."""
    found: dict[str, list[float]] = {name: [] for name in tools}
    failed: dict[str, str] = {}
    order = random.Random(0)  # noqa: S311 - no secret
    for _ in range(rounds):
        for name in order.sample(list(tools), len(tools)):
            if name in failed:
                continue
            # What others left behind is not gone through again when this one makes objects.
            gc.collect()
            gc.freeze()
            try:
                found[name].append(tools[name]())
            except Exception as error:  # noqa: BLE001 - a peer that fails is reported as such
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:60]
    medians = {name: statistics.median(each) for name, each in found.items() if name not in failed}
    return medians, failed


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compute(budget: float) -> None:
    """Work of a training step: so much processor time, whatever else the machine does."""
    end = time.thread_time() + budget
    while time.thread_time() < end:
        _ = _MATRIX @ _MATRIX


_MATRIX = np.random.default_rng(0).normal(size=(64, 64))


def ratio(theirs: float | None, ours: float) -> str:
    """How many times ours theirs is."""
    return "" if theirs is None else f"{theirs / ours:.3g}"


def bytes_in(folder: Path) -> int:
    """The bytes of all files below a folder, or of one file."""
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def in_child(code: str, *arguments: object) -> list[str]:
    """Run Python code in a process of its own; return the words that it printed last."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1].split()


def show(rows: Iterable[Sequence[object]], *headers: str) -> None:
    """Print a table."""
    print(
        tabulate(list(rows), headers, tablefmt="github", disable_numparse=True) + "\n", flush=True
    )


def folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for a while."""
    return tempfile.TemporaryDirectory(prefix="flexrec-bench-", ignore_cleanup_errors=True)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
