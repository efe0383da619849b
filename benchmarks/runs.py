"""A folder of many recordings: how long a table of them takes, and a plot of means.

    python benchmarks/runs.py [--count 10000] [--distinct 100] [--steps 1000] [--into FOLDER]

Recordings are made in FOLDER if it has none, and stay there if it was given. The distinct ones are
recorded; the others are copies of them, with another seed in their summaries. Times are of the
whole command, in a process of its own: processor time, the best of several, since the machine may
be busy; and the most memory. The page cache is warm. Then a hundred recordings are exported as
event files, and TensorBoard's own reader makes a table of the last values of their keys, as
`flexrec runs` does.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import machine
from tabulate import tabulate

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.storage.summary.head import MOST, put, sealed
from flexrec.replay.export.tensorboard import write_events

KEYS, ROUNDS, PLOTTED, BESIDE = 20, 3, 1000, 100
SEED = 100_000  # of the first: all have as many digits
COMMAND = (sys.executable, "-m", "flexrec")
TENSORBOARD = """
import pathlib, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    print(folder.name, *(events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]))
"""


class Cost(NamedTuple):
    """What a command took: processor seconds, seconds, MiB."""

    cpu: float
    wall: float
    memory: float


def main() -> None:
    """Make the recordings, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000, help="how many recordings")
    parser.add_argument("--distinct", type=int, default=100, help="how many of them are no copies")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each")
    parser.add_argument("--into", type=Path, help="the folder; default: a temporary one")
    parser.add_argument("--quick", action="store_true", help="50 recordings of 20 steps")
    asked = parser.parse_args()
    count, steps = (50, 20) if asked.quick else (asked.count, asked.steps)
    print(f"{machine()}; {count:,} recordings of {KEYS} keys x {steps:,} steps\n")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        place = asked.into or Path(folder) / "exp"
        if not place.is_dir():
            begin = time.process_time()
            make(place, count, min(count, asked.distinct), steps)
            took = time.process_time() - begin
            print(f"making them: {took:.0f} s of processor time\n")
        rows = [[name, *best(name, place, Path(folder))] for name in MEASURED]
        print(tabulate(rows, HEADERS, floatfmt=".2f"))
        print(tabulate(beside(place, Path(folder), min(count, BESIDE)), HEADERS, floatfmt=".2f"))


def make(place: Path, count: int, distinct: int, steps: int) -> None:
    """Runs of a grid: learning rates and seeds, losses that fall with noise."""
    rng, choice = np.random.default_rng(0), random.Random(0)  # noqa: S311 - no secret
    for number in range(distinct):
        record(place, number, choice.choice((0.3, 0.1, 0.03, 0.01)), steps, rng)
    for number in range(distinct, count):
        copy(place, number % distinct, number)


def path_of(place: Path, number: int) -> Path:
    """The recording with a number."""
    return place / f"{number // 1000:03d}" / f"run{number:05d}.h5"


def copy(place: Path, number: int, to: int) -> None:
    """A copy of a recording whose summary has another seed."""
    path = path_of(place, to)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path_of(place, number), path)
    data = path.read_bytes()
    begin = data.index(b'{"flexrec_summary"')
    (head, length) = json.JSONDecoder().raw_decode(data[begin : begin + MOST].decode("latin-1"))
    body = data[begin + len(sealed(b"{}", 0)) - 1 : begin + length]
    old, new = (b'"seed":%d,' % (SEED + n) for n in (number, to))
    assert head["config"]["seed"] == SEED + number
    put(path, begin, b"{" + body.replace(old, new))


def record(place: Path, number: int, lr: float, steps: int, rng: np.random.Generator) -> None:
    """One run."""
    config = {"lr": lr, "seed": SEED + number, "opt": {"name": "adam", "betas": [0.9, 0.999]}}
    config |= {f"option{i}": i for i in range(20)}
    curve = np.exp(-lr * np.arange(steps) / 50)
    noise = rng.normal(scale=0.1, size=(steps, KEYS))
    names = ["train_loss", "test_acc", *(f"metric{i}" for i in range(KEYS - 2))]
    with Recorder(path_of(place, number), config=config) as rec:
        for step in range(steps):
            values = (curve[step] + noise[step]).tolist()
            rec.add(dict(zip(names, values, strict=True)))
            rec.step()
        rec.log(steps)


def best(name: str, place: Path, folder: Path) -> Cost:
    """The best of several rounds of a command, each after what it needs."""
    found = []
    for number in range(ROUNDS):
        if name in (FROM_NOTHING, FROM_NOTHING_BY_TWO):
            for index in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.sqlite"):
                index.unlink()
        if name == ADDED:
            record(place, 90_000 + number, 0.1, 10, np.random.default_rng(number))
        found.append(cost([*COMMAND, *MEASURED[name](place, folder)]))
    for path in place.rglob("run9000?.h5"):
        path.unlink()
    return Cost(*map(min, zip(*found, strict=True)))


def beside(place: Path, folder: Path, count: int) -> list[list[object]]:
    """Tables of the last values of some runs: the best of ours, and one by TensorBoard's reader."""
    some, logs = folder / "some", folder / "logs"
    some.mkdir()
    for number in range(count):
        path = some / f"run{number:03d}.h5"
        shutil.copyfile(path_of(place, number), path)
        with Recording(path) as run:
            write_events(run, run.keys(), logs / path.stem, overwrite=False)
    keys = ["train_loss", "test_acc", *(f"metric{i}" for i in range(KEYS - 2))]
    columns = ",".join(["name", *(f"{key}.last" for key in keys)])
    ours = [*COMMAND, "runs", str(some), "--columns", columns]
    found: dict[str, list[Cost]] = {"flexrec runs": [], "the same again": []}
    for _ in range(ROUNDS):
        for index in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.sqlite"):
            index.unlink()
        for costs in found.values():
            costs.append(cost(ours))
    found["TensorBoard"] = [cost([sys.executable, "-c", TENSORBOARD, str(logs)])]
    return [
        [f"last values of {count}: {name}", *map(min, zip(*each, strict=True))]
        for name, each in found.items()
    ]


def cost(command: list[str]) -> Cost:
    """Run a command and return what it took."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed: {status}")
    wall = time.perf_counter() - begin
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def shown(place: Path, _: Path) -> list[str]:
    return ["runs", str(place), "--limit", "20"]


def chosen(place: Path, _: Path) -> list[str]:
    where = "config.lr < 0.2 and test_acc.max > 1"
    return [*shown(place, _), "--where", where, "--sort", "test_acc.max desc"]


def drawn(place: Path, folder: Path) -> list[str]:
    which = ("--where", f"config.seed < {SEED + PLOTTED}", "--group", "config.lr")
    how = ("--preset", "loss", "--every", "1", "--save", str(folder / "env.json"), "--force")
    return ["replay", str(place), *which, *how]


def drawn_by_two(place: Path, folder: Path) -> list[str]:
    return [*drawn(place, folder), "--workers", "2"]


def read_by_two(place: Path, folder: Path) -> list[str]:
    return [*shown(place, folder), "--workers", "2"]


HEADERS = ("", "processor s", "s", "MiB")
FROM_NOTHING, FROM_NOTHING_BY_TWO, AGAIN, ADDED = (
    "table from nothing",
    "table from nothing, by 2 workers",
    "the same again, with --where and --sort",
    "one recording added",
)
MEASURED = {
    FROM_NOTHING: shown,
    AGAIN: chosen,
    ADDED: shown,
    f"mean and band of the loss of {PLOTTED:,}, by config.lr": drawn,
    "the same, by 2 workers": drawn_by_two,
    FROM_NOTHING_BY_TWO: read_by_two,
}


if __name__ == "__main__":
    main()
