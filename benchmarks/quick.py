"""What recording and replaying cost on this machine: a minute, four tables.

make bench
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tabulate import tabulate

from flexrec.recorder import Recorder, Recording
from flexrec.replay import play, preset

ROUNDS = 5
FLEXREC = Path(sys.executable).with_name("flexrec")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        print(_table(add_costs(Path(folder)), "keys", "µs a scalar", "bytes a scalar, closed"))
        print(_table(replay_costs(Path(folder)), "replay of 1M scalars, 10k marks", "s"))
        print(_table(start_costs(), "command", "s"))


def add_costs(folder: Path) -> list[list[object]]:
    """Cost of `add` on the calling thread, and bytes of the closed file; float32-born values."""
    rows: list[list[object]] = []
    rng = np.random.default_rng(0)
    for keys, adds in ((2, 100_000), (10, 30_000), (800, 500)):
        names = [f"layer{i}/grad_out/mean" for i in range(keys)]
        values = rng.normal(size=(adds, keys)).astype(np.float32).astype(float).tolist()
        dicts = [dict(zip(names, row, strict=True)) for row in values]
        costs = []
        for i in range(ROUNDS):
            path = folder / f"add{keys}-{i}.h5"
            with Recorder(path, facts=False) as rec:
                costs.append(_seconds(lambda d=dicts, r=rec: _add_all(r, d)))  # type: ignore[misc]
        size = path.stat().st_size / (adds * keys)
        cost = statistics.median(costs) / (adds * keys) * 1e6
        rows.append([keys, f"{cost:.3f}", f"{size:.2f}"])
    return rows


def _add_all(rec: Recorder, dicts: list[dict[str, float]]) -> None:
    for values in dicts:
        rec.add(values)
        rec.step()


def replay_costs(folder: Path) -> list[list[object]]:
    """From file to finished windows: the quick way, and the plain engine."""
    path = folder / "replay.h5"
    rng = np.random.default_rng(0)
    with Recorder(path, facts=False) as rec:
        for mark in range(10_000):
            for value in rng.normal(size=50).tolist():
                rec.add(train_loss=value, test_loss=-value)
                rec.step()
            rec.log(mark)
    definitions = preset("loss")

    def run(plain: bool) -> Callable[[], object]:
        def played() -> object:
            with Recording(path) as recording:
                return play(recording, definitions, plain=plain)

        return played

    quick = statistics.median(_seconds(run(False)) for _ in range(ROUNDS))
    plain = _seconds(run(True))
    return [["over columns", f"{quick:.3f}"], ["event by event, once", f"{plain:.2f}"]]


def start_costs() -> list[list[object]]:
    """How long `flexrec --help` takes, beside a bare typer app and a bare interpreter."""
    bare = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    commands = {
        "flexrec --help": [str(FLEXREC), "--help"],
        "a bare typer app's --help": [sys.executable, "-c", bare],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            taken[name].append(_seconds(lambda c=command: _run(c)))  # type: ignore[misc]
    return [[name, f"{statistics.median(times):.3f}"] for name, times in taken.items()]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _table(rows: list[list[object]], *headers: str) -> str:
    return tabulate(rows, headers, disable_numparse=True) + "\n"


if __name__ == "__main__":
    main()
