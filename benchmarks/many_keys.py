"""What does a key cost: to close, in the file, to read as a series, to show and to replay?

python benchmarks/many_keys.py [--quick]

Ten steps of so many keys: in adds of one key or of 10, each of which is stored by itself, or in
larger adds, which are stored as tables. Times are of the processor. What a file of one key takes is
not counted in a key's `close`, `bytes a key` and `summary`; the first row has it. `summary` is the
part of the bytes a key that is in the summary, which has room for some hundreds of keys; the second
table has what it would be with fewer digits, or compressed. `one series` opens the file and reads
one key; `all series` reads all keys of an open file; `replay` draws one key that a definition
names. The command's `-k` takes longer: it chooses plots for all keys before it leaves out those of
the others.
"""

import json
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
from measuring import begin, folder, show

from flexrec.cli.showing.contents import recording_text
from flexrec.recorder import Recorder, Recording
from flexrec.replay import define, play

STEPS = 10
_ALL = 30_000  # about so many keys are in all the recordings of which medians are taken


def main() -> None:
    """A row for each number of keys, in all three ways."""
    quick = begin(__doc__ or "")
    one = measured(1, 1)
    rows = [["1", "1", f"{one['close']:.4f} s", f"{one['bytes']:.0f}", "", "", "", "", "", ""]]
    counts = (100, 1_000) if quick else (100, 1_000, 10_000, 100_000)
    for width, sizes in ((1, counts[:3]), (10, counts), (1000, (64, *counts))):
        for keys in sizes:
            rows.append([f"{keys:,}", str(min(width, keys)), *costs(keys, width, one)])
            print(*rows[-1], file=sys.stderr, flush=True)
    names = ("close", "bytes", "bytes a key", "summary", "add", "one series", "all series", "show")
    show(rows, "keys", "keys an add", *names, "replay")
    show([smaller(keys) for keys in (64, 100, 1_000)], "keys", "summary", "9 digits", "compressed")


def smaller(keys: int) -> list[str]:
    """The bytes a key of a summary as it is, and in two forms that are smaller."""
    with folder() as place:
        path = Path(place) / "run.h5"
        with Recorder(path, facts=False) as rec:
            fill(rec, key_names(keys), keys)
        with h5py.File(path) as file:
            text = file["summary"][:].tobytes()
    short = json.loads(text, parse_float=lambda number: float(f"{float(number):.9g}"))
    forms = text, json.dumps(short, separators=(",", ":")).encode(), zlib.compress(text)
    return [f"{keys:,}", *(f"{len(form) / keys:.0f}" for form in forms)]


def costs(keys: int, width: int, one: Mapping[str, float]) -> list[str]:
    """What a file of so many keys takes, and each of them more than a file of one key does."""
    found = measured(keys, width)
    more = {name: (found[name] - one[name]) / (keys - 1) for name in ("close", "bytes", "summary")}
    each = {name: f"{1e3 * found[name] / keys:.3f} ms" for name in ("add", "all series", "show")}
    return [
        f"{found['close']:.3f} s, {1e3 * more['close']:.3f} ms a key",
        f"{found['bytes']:,.0f}",
        f"{more['bytes']:.0f}",
        f"{more['summary']:.0f}",
        each["add"],
        f"{found['one series']:.4f} s",
        each["all series"],
        each["show"],
        f"{found['replay']:.3f} s",
    ]


def measured(keys: int, width: int) -> dict[str, float]:
    """Seconds, and bytes beside the values, of the file and of its summary; medians of several."""
    rounds = min(max(_ALL // keys, 1), 31)
    each = [measured_once(keys, width) for _ in range(rounds)]
    return {name: statistics.median(found[name] for found in each) for name in each[0]}


def measured_once(keys: int, width: int) -> dict[str, float]:
    """As `measured`, of one recording."""
    names = key_names(keys)
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
        found["bytes"] = path.stat().st_size - 4 * STEPS * keys
        with h5py.File(path) as file:
            found["summary"] = len(file["summary"])
    return found


def key_names(keys: int) -> list[str]:
    """Names such as those of statistics of layers."""
    return [f"layer{i // 8}/grad_out/stat{i % 8}" for i in range(keys)]


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
