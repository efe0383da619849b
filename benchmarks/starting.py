"""How quickly do commands start, and what do they import?

python benchmarks/starting.py [--quick]
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
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
        taken, _ = interleaved(
            {name: run(command) for name, command in commands.items()}, 3 if quick else 11
        )
        bare = taken["a bare typer app's --help"]
        taking = taken["a bare typer app that takes a path"]
        show(
            [
                [
                    name,
                    f"{taken[name]:.3f}",
                    ratio(taken[name], bare),
                    ratio(taken[name], taking),
                    imported(command),
                ]
                for name, command in commands.items()
            ],
            "command",
            "s",
            "of a bare typer app's --help",
            "of one that takes a path",
            "heavy imports",
        )


def run(command: Sequence[str]) -> Callable[[], float]:
    """Seconds that a command takes."""
    return lambda: seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def imported(command: Sequence[str]) -> str:
    """What a command imports that is known to be slow."""
    words = [sys.executable, "-X", "importtime", *command[1:]]
    if command[0] != sys.executable:
        words[3:3] = [command[0]]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return ", ".join(name for name in HEAVY if name in names) or "none"


if __name__ == "__main__":
    main()
