"""Are equal runs ever said to differ? By flexrec diff, and by two goldens of runs.

    python benchmarks/false_alarms.py pairs               # 50 pairs of traced runs, with torch
    python benchmarks/false_alarms.py re-runs             # 200 runs against two goldens, with numpy
    python benchmarks/false_alarms.py re-runs --python OTHER/bin/python    # by another Python
    python benchmarks/false_alarms.py draws               # learnt goldens of 2, 3, 5 and 10 runs

The pairs are of the five models in tests/support/planted_faults.py, from ten seeds each. The first
runs of all pairs are trained in one process, the second ones in another, in another order.

Re-runs are in 10 processes, each with its own hash seed, time zone, locale and number of threads.
Each trains a small network in numpy twice: exactly, which is compared with a golden to the bit; and
with noise in its gradients, which no two runs share, compared with a golden that was learnt from
five such runs. It also trains with noise and a learning rate that is 2 % higher: how many of these
are found says that the learnt golden is not too wide. Both goldens are made by this Python first.
"""

import argparse
import collections
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tabulate import tabulate

from flexrec.recorder import Recorder, Recording
from flexrec.replay.golden.run.check import check_run, learn_golden
from flexrec.replay.golden.run.envelope import compare_learnt, learn
from flexrec.replay.golden.run.kept import KeptRun
from flexrec.replay.golden.run.reading import kept_of

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("mlp", "cnn", "gpt", "lstm", "gan")
CHOICES = ("pairs", "re-runs", "draws", "train-pairs", "some-runs")
SEEDS = 10
PROCESSES = 10  # of the re-runs
STEPS, LEARNT = 100, 5


def main() -> int:
    """Run one of them; return 1 where there was a false alarm."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("what", choices=CHOICES)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the re-runs")
    parser.add_argument("--re-runs", type=int, default=200, help="how many; a multiple of 10")
    parser.add_argument("--folder", type=Path, help="of goldens or recordings, for the processes")
    parser.add_argument("--number", type=int, default=0, help="of the process")
    parser.add_argument("--count", type=int, default=1, help="how many runs the process makes")
    chosen = parser.parse_args()
    seeds = 1 if chosen.quick else SEEDS
    if chosen.what == "train-pairs":
        train_pairs(chosen.folder, seeds, is_second=bool(chosen.number))
        return 0
    if chosen.what == "some-runs":
        first = chosen.number * chosen.count
        runs = [one_run(chosen.folder, first + i) for i in range(chosen.count)]
        print(json.dumps([f"{platform.python_version()}, numpy {np.__version__}", runs]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if chosen.what == "pairs":
            return pairs(Path(folder), seeds)
        if chosen.what == "draws":
            draws(Path(folder), 20 if chosen.quick else 200)
            return 0
        return re_runs(Path(folder), chosen.python, 20 if chosen.quick else chosen.re_runs)


# ---------------------------------------------------------------- pairs


def pairs(folder: Path, seeds: int) -> int:
    """Train every pair, and compare it."""
    from flexrec import diff

    for number in (0, 1):
        (folder / str(number)).mkdir()
        command = [sys.executable, __file__, "train-pairs", "--folder", str(folder / str(number))]
        command += ["--quick"] * (seeds < SEEDS) + ["--number", str(number)]
        subprocess.run(command, env=surroundings(number) | {"OMP_NUM_THREADS": "1"}, check=True)
    alarms, values = [], 0
    for path in sorted((folder / "0").iterdir()):
        found = diff(path, folder / "1" / path.name)
        with Recording(path) as run:
            rows = (row.value for key in run for row in run.rows(key))
            values += sum(value.size if isinstance(value, np.ndarray) else 1 for value in rows)
        if not found.equal:
            alarms.append(f"{path.name}: {found}")
    count = len(MODELS) * seeds
    print(f"{count} pairs of equal runs, {values:,} values each side: {len(alarms)} differences")
    print("\n".join(alarms))
    return int(bool(alarms))


def train_pairs(folder: Path, seeds: int, *, is_second: bool) -> None:
    """Train one run of every pair."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.planted_faults import train

    all_runs = [(model, seed) for model in MODELS for seed in range(seeds)]
    for model, seed in reversed(all_runs) if is_second else all_runs:
        train(folder / f"{model}-{seed}.h5", model, seed=seed)


# ---------------------------------------------------------------- re-runs


def re_runs(folder: Path, python: str, count: int) -> int:
    """Run `one_run` in fresh processes, each in other surroundings."""
    make_goldens(folder)
    totals: collections.Counter[str] = collections.Counter()
    version = ""
    for process in range(PROCESSES):
        command = [python, __file__, "some-runs", "--folder", str(folder)]
        command += ["--number", str(process), "--count", str(count // PROCESSES)]
        done = subprocess.run(
            command, env=surroundings(process), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        version, found = json.loads(done.stdout)
        for each in found:
            totals.update({name: text is not None for name, text in each.items()})
            for name in ("to the bit", "learnt"):
                if each[name] is not None:
                    print(each[name])
    print(
        f"Python {version}: {count} re-runs, {totals['to the bit']} false alarms of the golden to "
        f"the bit, {totals['learnt']} of the learnt one; {totals['changed']} of {count} runs with "
        "another rate found",
        flush=True,
    )
    return int(totals["to the bit"] + totals["learnt"] > 0)


def make_goldens(folder: Path) -> None:
    """A golden of an exact run, and one learnt from several with noise."""
    train(folder / "exact.h5")
    with Recording(folder / "exact.h5") as run:
        check_run(run, folder / "exact.json", update=True)
    paths = [folder / f"noisy{i}.h5" for i in range(LEARNT)]
    for i, path in enumerate(paths):
        train(path, noise_of=1_000_000 + i)
    runs = [Recording(path) for path in paths]
    learn_golden(runs, folder / "learnt.json")
    for run in runs:
        run.close()
    for name in ("exact.json", "learnt.json"):
        print(f"{name}: {(folder / name).stat().st_size} bytes")


def one_run(folder: Path, number: int) -> dict[str, str | None]:
    """Train and compare: how each run differs from its golden, if it does."""
    found: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as own:
        for name, golden, noise, lr in (
            ("to the bit", "exact.json", None, 0.1),
            ("learnt", "learnt.json", number, 0.1),
            ("changed", "learnt.json", number, 0.102),
        ):
            path = Path(own) / f"{name}.h5"
            train(path, noise_of=noise, lr=lr)
            with Recording(path) as run, tempfile.TemporaryDirectory() as beside:
                copy = Path(beside) / golden  # what is obtained is kept beside it
                copy.write_bytes((folder / golden).read_bytes())
                outcome = check_run(run, copy)
                found[name] = None if outcome.holds else str(outcome.diff)
    return found


def draws(folder: Path, count: int) -> None:
    """Print how many equal and how many changed runs differ from goldens of some others."""
    equal = [_kept(folder, number, 0.1) for number in range(60)]
    changed = [_kept(folder, number, 0.102) for number in range(100, 130)]
    order = random.Random(0)  # noqa: S311 - no secret
    rows = []
    for runs in (2, 3, 5, 10):
        found = [0, 0]
        for _ in range(count):
            *learnt, other = order.sample(equal, runs + 1)
            golden = learn(learnt, "").golden
            for i, run in enumerate((other, order.choice(changed))):
                found[i] += not compare_learnt(golden, run).equal
        rows.append((runs, *(f"{each / count:.1%}" for each in found)))
    print(tabulate(rows, ("runs", "equal runs that differ", "2 % more rate found")))


def _kept(folder: Path, number: int, lr: float) -> KeptRun:
    path = folder / f"{number}.h5"
    train(path, noise_of=number, lr=lr)
    with Recording(path) as run:
        return kept_of(run)


def train(path: Path, *, noise_of: int | None = None, lr: float = 0.1) -> None:
    """Train two layers on a fixed problem; the noise of a number is its own."""
    rng = np.random.default_rng(0)
    noise = None if noise_of is None else np.random.default_rng(noise_of)
    weights = [rng.normal(size=shape) / 3 for shape in ((8, 16), (16, 1))]
    with Recorder(path, mode="w", config={"lr": 0.1}) as rec:
        for step in range(STEPS):
            x = rng.normal(size=(32, 8))
            hidden = np.tanh(x @ weights[0])
            error = hidden @ weights[1] - x.sum(1, keepdims=True)
            loss = float(np.mean(error**2))
            back = 2 * error / len(x)
            gradients = [x.T @ ((back @ weights[1].T) * (1 - hidden**2)), hidden.T @ back]
            values = {"train_loss": loss, "lr": 0.1 / (1 + step / 50)}
            for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                if noise is not None:
                    gradient *= 1 + 1e-3 * noise.normal(size=gradient.shape)
                weight -= lr / (1 + step / 50) * gradient
                for source, array in (("grad_weights", gradient), ("weights", weight)):
                    values[f"{i}/{source}/mean"] = float(array.mean())
                    values[f"{i}/{source}/std"] = float(array.std())
                    values[f"{i}/{source}/norm"] = float(np.sqrt((array**2).sum()))
            rec.add(values, prediction=error[:4])
            rec.step()


def surroundings(number: int) -> dict[str, str]:
    """The environment of a process: another one for each."""
    zones, locales = ("UTC", "Asia/Kathmandu", "Pacific/Apia"), ("C", "C.UTF-8", "POSIX")
    return os.environ | {
        "PYTHONHASHSEED": str(number),
        "TZ": zones[number % 3],
        "LC_ALL": locales[number % 3],
        "OMP_NUM_THREADS": str(1 + number % 2),
        "OPENBLAS_NUM_THREADS": str(1 + number % 2),
    }


if __name__ == "__main__":
    sys.exit(main())
