"""What the tests of exports share: a recording, the command, and comparing two recordings."""

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import Recorder, Recording
from flexrec.recorder.events import Add

__all__ = ["CONFIG", "export", "odd", "recorded", "same"]

CONFIG = {"lr": 0.1, "name": "a", "sizes": [1, 2]}


def recorded(folder: Path) -> Path:
    """Numbers, texts, a key of both, a histogram, and arrays."""
    chance = np.random.default_rng(0)
    with Recorder(
        folder / "run.h5", facts=False, config=CONFIG, reduce={"weights": "HistogramMeter"}
    ) as rec:
        for i in range(5):
            rec.add({"train/loss": 1 / (i + 3), "note": f"step {i}", "nan": float("nan")})
            rec.add({"mixed": 0.1 if i % 3 else "text", "weights": chance.normal(size=50)})
            rec.add(pair=(np.ones(2), np.zeros(2)))
            rec.step()
    return folder / "run.h5"


def odd(folder: Path) -> Path:
    """Texts and settings that not every format has, and times that no calendar has."""
    config = {"big": 10**30, "nan": float("nan"), "deep": [{"a": None, "\ud800": "\ud801"}]}
    with Recorder(folder / "odd.h5", facts=False, config=config) as rec:
        for step, text in enumerate(("", "\ud800", "\0", "1.5", 'a\n,"é"')):
            rec.add({"note": text}, step=step)
        for step, time in enumerate((0.5, -1.0, 1e12, 1e300, float("nan"), float("inf"))):
            rec.record(Add({"loss": float(step)}, step, time))
    return folder / "odd.h5"


def export(*words: object) -> tuple[int, str, str]:
    """The exit code, and what is printed to stdout and stderr."""
    done = CliRunner().invoke(app, ["export", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def same(first: Path, second: Path, *keys: str, within: float = 0.0) -> None:
    """The keys have the same steps and values, to the bit, and times within so many seconds."""
    with Recording(first) as a, Recording(second) as b:
        for key in keys:
            for name in ("step", "value"):
                left, right = (list(map(repr, getattr(run[key], name))) for run in (a, b))
                assert left == right, (key, name)
            assert np.abs(a[key].time - b[key].time).max() <= within, key
