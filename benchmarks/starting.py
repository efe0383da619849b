"""How quickly do commands start, and what do they import?

python benchmarks/starting.py [--quick]

All of Python's files are compiled, as pip leaves them, whatever the environment says.
"""

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from measuring import begin, folder, interleaved, ratio, seconds, show

from flexrec.recorder import Recorder

FLEXREC = Path(sys.executable).with_name("flexrec")
HEAVY = ("torch", "visdom", "scipy", "matplotlib", "sklearn", "pandas")
BARE = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
TAKING = """
import pathlib, sys, typer
app = typer.Typer()
@app.command()
def show(path: pathlib.Path) -> None:
    print(path.stat().st_size)
app()
"""


def main() -> None:
    """Beside a bare typer app and a bare interpreter."""
    quick = begin(__doc__ or "")
    with folder() as place:
        path = Path(place) / "small.h5"
        with Recorder(path, facts=False) as rec:
            for i in range(100):
                rec.add(train_loss=1 / (i + 1))
                rec.step()
        commands: dict[str, Sequence[str]] = {
            "a bare typer app's --help": [sys.executable, "-c", BARE],
            "flexrec --help": [str(FLEXREC), "--help"],
            "a bare typer app that takes a path": [sys.executable, "-c", TAKING, str(path)],
            "flexrec show small.h5": [str(FLEXREC), "show", str(path)],
            "python -c 'import h5py'": [sys.executable, "-c", "import h5py"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(place) / "compiled")}
        compiled.pop("PYTHONDONTWRITEBYTECODE", None)
        heavy = {name: imported(command, compiled) for name, command in commands.items()}
        busy: dict[str, list[float]] = {name: [] for name in commands}
        taken, _ = interleaved(
            {name: run(command, compiled, busy[name]) for name, command in commands.items()},
            3 if quick else 21,
        )
        bare = taken["a bare typer app's --help"]
        taking = taken["a bare typer app that takes a path"]
        show(
            [
                [
                    name,
                    f"{taken[name]:.3f}",
                    f"{statistics.median(busy[name]):.3f}",
                    ratio(taken[name], bare),
                    ratio(taken[name], taking),
                    heavy[name],
                ]
                for name in commands
            ],
            "command",
            "s",
            "CPU s",
            "of a bare typer app's --help",
            "of one that takes a path",
            "heavy imports",
        )


def run(
    command: Sequence[str], environment: Mapping[str, str], busy: list[float]
) -> Callable[[], float]:
    """Seconds that a command takes; its processor's seconds are added to `busy`."""

    def work() -> None:
        before = _children()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        busy.append(_children() - before)

    return lambda: seconds(work)


def imported(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command imports that is known to be slow."""
    words = [sys.executable, "-X", "importtime", *command[1:]]
    if command[0] != sys.executable:
        words[3:3] = [command[0]]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return ", ".join(name for name in HEAVY if name in names) or "none"


def _children() -> float:
    """Processor seconds of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
