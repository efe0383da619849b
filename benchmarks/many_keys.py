"""What does a key cost: to close, in the file, to read as a series, to show and to replay?

python benchmarks/many_keys.py [--quick]

Ten steps of so many keys: in adds of 10 keys, each of which is stored by itself, or of 1,000 keys,
which are stored as tables. Times are of the processor. `one series` opens the file and reads one
key; `all series` reads all keys of an open file; `replay` draws one key with the command's code.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from measuring import begin, folder, show

from flexrec.cli.showing.contents import recording_text
from flexrec.recorder import Recorder, Recording
from flexrec.replay import define, play

STEPS = 10


def main() -> None:
    """A row for each number of keys, in both ways."""
    quick = begin(__doc__ or "")
    rows = []
    for width in (10, 1000):
        for keys in (100, 1_000) if quick else (100, 1_000, 10_000, 100_000):
            rows.append([min(width, keys), f"{keys:,}", *measured(keys, width)])
            print(*rows[-1], file=sys.stderr, flush=True)
    names = ("add", "close", "bytes a key", "one series", "all series", "show", "replay")
    show(rows, "keys an add", "keys", *names)


def measured(keys: int, width: int) -> list[str]:
    """Seconds, and ms a key; bytes a key beside its values."""
    names = [f"layer{i // 8}/grad_out/stat{i % 8}" for i in range(keys)]
    one = names[keys // 2]
    with folder() as place:
        path = Path(place) / "run.h5"
        rec = Recorder(path, facts=False)
        found = {"add": seconds(lambda: fill(rec, names, width)), "close": seconds(rec.close)}
        found["one series"] = seconds(lambda: Recording(path)[one])
        with Recording(path) as run:
            found["all series"] = seconds(lambda: run.series(run.keys()))
        found["show"] = seconds(lambda: recording_text(path, ["*"]))
        drawn = define(
            {"one": {"type": "line"}}, {one: {"type": "LastValueMeter", "target": "one"}}
        )
        with Recording(path) as run:
            found["replay"] = seconds(lambda: play(run, drawn))
        size = path.stat().st_size
    shown = {name: f"{taken:.3f} s, {1e3 * taken / keys:.3f} ms" for name, taken in found.items()}
    shown["one series"] = f"{found['one series']:.3f} s"
    size_shown = f"{size / keys - 4 * STEPS:.0f}"
    return [shown["add"], shown["close"], size_shown, *list(shown.values())[2:]]


def fill(rec: Recorder, names: list[str], width: int) -> None:
    """Ten steps: numbers that a float32 holds, out of a simple generator."""
    state = 1
    for _ in range(STEPS):
        for first in range(0, len(names), width):
            values = {}
            for name in names[first : first + width]:
                state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
                values[name] = (state >> 8) / 2**23
            rec.add(values)
        rec.step()
    rec.log()
    rec.flush()


def seconds(work: Callable[[], object]) -> float:
    """Processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
