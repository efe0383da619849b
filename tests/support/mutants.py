"""Damage recordings at random, and read every mutant whole: data or a RecordingError, nothing else.

    python benchmarks/mutants.py                 # 10,000 mutants, some minutes
    python benchmarks/mutants.py --quick         # 300
    python benchmarks/mutants.py --truncations   # 500 cuts at random offsets

A live, a killed and a closed recording are made first. Mutant `k` of a seed is always the same
file. Reading happens in a child process with limited memory and time, which is started anew after
a crash; what a reader could meet is told in docs/hostile_files.md.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.recorder.events import Add, Event
from flexrec.recorder.hdf5.superblock import lookup3
from flexrec.recorder.maintenance.repair import _examine

__all__ = ["DAMAGES", "FORGED", "FOUND", "UNSEEN", "Reader", "mutate", "plan", "sources", "trial"]

MEMORY = 512 << 20  # bytes that reading one mutant may take
SECONDS = 10.0  # that it may last
_STRUCTURES = tuple(
    b"OHDR OCHK FAHD FADB EAHD EAIB EADB EASB BTHD BTLF BTIN FRHP FHDB FHIB GCOL SNOD".split()
)
_SEALED = 600  # bytes of a structure, at most, for its checksum to be found
FOUND, UNSEEN = "different, found by verify", "different"
GOOD = ("equal", "prefix", FOUND, UNSEEN, "RecordingError")
_LINE = 64  # bytes: where all of so many are 0, nothing was written


# ---------------------------------------------------------------- the recordings


def record(path: Path, *, end: str, steps: int = 200) -> None:
    """Make a recording with values of every kind; `end` is close, kill or leave."""
    rng = np.random.default_rng(7)
    rec = Recorder(path, config={"lr": 0.1, "é": [1, None]}, flush_seconds=60)
    for i in range(steps):
        rec.add({"loss": i / 3, "acc": float(i), "0/weights/std": rng.normal()})
        if i % 10 == 0:
            rec.add(
                {f"layer{k}/std": rng.normal() for k in range(70)}
            )  # a table, when it is closed
        rec.add({"mse": (rng.normal(size=(4, 3)).astype("f4"), rng.integers(0, 9, 4))})
        if i % 5 == 0:
            rec.add(note=f"step {i} ☃", histogram=rng.normal(size=(2, 8)))
        if i % 7 == 0:
            rec.add(loss=np.arange(i % 4))  # a second form
        if i % 50 == 49:
            rec.log(i, keys=["loss"] if i % 100 == 49 else None)
            rec.flush(fsync=i > steps // 2)
        rec.step()
    rec.flush()
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "leave":
        os._exit(0)
    rec.close()


def sources(folder: Path, *, steps: int = 200) -> dict[str, bytes]:
    """The bytes of a live, a killed and a closed recording."""
    found = {}
    ends = (("live", "leave", 0), ("killed", "kill", -signal.SIGKILL), ("closed", "close", 0))
    for name, end, status in ends:
        path = folder / f"{name}.h5"
        command = [sys.executable, __file__, "--record", str(path), end, str(steps)]
        assert subprocess.run(command, check=False).returncode == status
        found[name] = path.read_bytes()
    return found


# ---------------------------------------------------------------- the damage


def flip_bytes(data: bytearray, rng: random.Random) -> None:
    """One to eight bytes change."""
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= rng.randint(1, 255)


def swap_blocks(data: bytearray, rng: random.Random) -> None:
    """Two blocks change places, as after a bad merge of a file's parts."""
    size = rng.choice((64, 512, 4096))
    a, b = (rng.randrange(max(1, len(data) - size)) // 8 * 8 for _ in range(2))
    if abs(a - b) >= size:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def lose_block(data: bytearray, rng: random.Random) -> None:
    """A block is zeros, as after a loss of power."""
    size = min(rng.choice((64, 512, 4096)), len(data))
    start = rng.randrange(len(data) - size + 1) // 8 * 8
    data[start : start + size] = bytes(size)


def truncate(data: bytearray, rng: random.Random) -> None:
    """The end is missing."""
    del data[rng.randrange(len(data)) :]


def set_number(data: bytearray, rng: random.Random) -> None:
    """A 64-bit word becomes one that breaks arithmetic."""
    word = rng.choice((0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, len(data), len(data) - 8))
    start = rng.randrange(max(1, len(data) - 8))
    data[start : start + 8] = struct.pack("<Q", word)


def structure(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Where HDF5's own structures lie: (start, end) of each that begins with a signature."""
    found = [(0, min(48, len(data)))]
    for mark in _STRUCTURES:
        start = data.find(mark)
        while start >= 0:
            found.append((start, min(start + 256, len(data))))
            start = data.find(mark, start + 1)
    return sorted(found)


def aimed(damage: Callable[[bytearray, random.Random], None]) -> Callable[..., None]:
    """The same damage, inside one of HDF5's structures: they are a small part of a file."""

    def hit(data: bytearray, rng: random.Random) -> None:
        start, end = rng.choice(structure(data))
        piece = data[start:end]
        damage(piece, rng)
        data[start:end] = piece

    return hit


@cache
def sealed(data: bytes) -> list[tuple[int, int]]:
    """The structures whose checksum was found: (start, where the checksum is)."""
    found = []
    for start, _ in structure(data):
        for end in range(start + 12, min(start + _SEALED, len(data) - 4)):
            if lookup3(data[start:end]) == int.from_bytes(data[end : end + 4], "little"):
                found.append((start, end))
                break
    return found


def forge(data: bytearray, rng: random.Random, places: list[tuple[int, int]]) -> None:
    """Damage in a structure of HDF5's whose checksum is made to fit: HDF5 believes it."""
    start, end = rng.choice(places)
    piece = data[start + 4 : end]
    rng.choice((flip_byte, set_number, set_byte))(piece, rng)
    data[start + 4 : end] = piece
    data[end : end + 4] = lookup3(bytes(data[start:end])).to_bytes(4, "little")


def flip_byte(data: bytearray, rng: random.Random) -> None:
    """One bit of one byte changes."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_byte(data: bytearray, rng: random.Random) -> None:
    """One byte becomes another."""
    data[rng.randrange(len(data))] = rng.randrange(256)


@cache
def written(data: bytes) -> list[int]:
    """Where lines begin that hold more than zeros: a live file is mostly room."""
    lines = np.frombuffer(data[: len(data) // _LINE * _LINE], np.uint8).reshape(-1, _LINE)
    return (np.flatnonzero(lines.any(axis=1)) * _LINE).tolist()


def flip_written(data: bytearray, rng: random.Random) -> None:
    """One bit of what was written changes."""
    data[rng.choice(written(bytes(data))) + rng.randrange(_LINE)] ^= 1 << rng.randrange(8)


FORGED = "forged structures"
DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flipped bytes": flip_bytes,
    "one bit of what was written": flip_written,
    "flipped bytes of structures": aimed(flip_bytes),
    "numbers of structures": aimed(set_number),
    "swapped blocks": swap_blocks,
    "lost blocks": lose_block,
    "truncated": truncate,
}


def mutate(data: bytes, damage: str, seed: int) -> bytes:
    """Mutant `seed`: the same bytes every time."""
    mutant = bytearray(data)
    rng = random.Random(f"{damage} {seed}")  # noqa: S311 - no secret
    if damage == FORGED:
        forge(mutant, rng, sealed(data))
    else:
        DAMAGES[damage](mutant, rng)
    return bytes(mutant)


# ---------------------------------------------------------------- reading one, in the child


def fingerprint(event: Event) -> str:
    """An event's bits."""
    text = hashlib.sha256()
    if isinstance(event, Add):
        for key, value in event.values.items():
            for part in value if isinstance(value, tuple) else (value,):
                bits = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
                text.update(f"{key} {type(part)} {np.shape(part)}".encode() + bits)
        text.update(f"{event.step} {event.time!r}".encode())
    else:
        text.update(repr(event).encode())
    return text.hexdigest()[:16]


def read_whole(path: str) -> list[str]:
    """Read all that a recording holds, in every way there is; the prints of its events."""
    with Recording(path) as run:
        events = [fingerprint(event) for event in run.events()]
        keys = run.keys()
        assert len(run.series(keys)) == len(keys)
        for key in (*keys[:3], *keys[3:73:10], *keys[73:]):  # of a table's 70 a few do
            rows = sum(1 for _ in run.rows(key))
            assert len(run[key]) == len(run.columns.index(key).step) == rows, key
        head = json.dumps([run.config, run.facts, run.keys(), run.state], default=str)
        return [hashlib.sha256(head.encode()).hexdigest()[:16] if run.complete else "", *events]


def serve() -> None:
    """Read files whose names come in, one a line; answer each with a line of JSON."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = _memory("VmRSS")
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        answer: dict[str, Any] = {"prints": []}
        try:
            answer["prints"] = read_whole(line.strip())
            answer["state"] = _examine(Path(line.strip()))["state"]
        except RecordingError as error:
            answer["error"] = "RecordingError"
            answer["message"] = str(error)
        except Exception as error:  # noqa: BLE001 - exactly what is looked for
            answer["error"] = type(error).__name__
            answer["message"] = str(error)
        answer["memory"] = _memory("VmHWM") - before
        print(json.dumps(answer), flush=True)


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(name)


class Reader:
    """The child that reads; one that crashed or hung is replaced."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None

    def read(self, path: Path) -> dict[str, Any]:
        """What came of reading a file: prints, or an error: its name, a crash or a hang."""
        if self.child is None:
            command = [sys.executable, __file__, "--serve"]
            # Its stacks would count as memory.
            env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONMALLOC": "malloc"}
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
            )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        with suppress(BrokenPipeError):  # it is dead: the answer says so
            self.child.stdin.write(f"{path}\n".encode())
            self.child.stdin.flush()
        if not select.select([self.child.stdout], [], [], SECONDS)[0]:
            self.close()
            return {"error": "hang", "message": f"no answer in {SECONDS} s", "memory": 0}
        line = self.child.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self.child.wait()
        self.close()
        return {"error": "crash", "message": f"exit status {status}", "memory": 0}

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()
            with suppress(BrokenPipeError):
                self.child.communicate()
            self.child = None


# ---------------------------------------------------------------- the trial


@dataclass
class Result:
    """What came of all mutants."""

    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    memory: int = 0
    slowest: float = 0.0


def verdict(answer: dict[str, Any], original: list[str]) -> str:
    """One word for an answer."""
    if "error" in answer:
        return str(answer["error"])
    prints: list[str] = answer["prints"]
    if prints == original:
        return "equal"
    if prints == original[: len(prints)]:
        return "prefix"
    return FOUND if answer["state"] == "damaged" else UNSEEN


def plan(files: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, str, int]]:
    """Which file, which damage and which seed, `count` times."""
    pairs = [(name, damage) for name in files for damage in DAMAGES]
    for k in range(count):
        yield (*pairs[k % len(pairs)], seed + k // len(pairs))


def trial(folder: Path, todo: list[tuple[str, str, int]], files: dict[str, bytes]) -> Result:
    """Read every mutant: which file, which damage, which seed."""
    reader, result, path = Reader(), Result(), folder / "mutant.h5"
    originals = {}
    for name, data in files.items():
        path.write_bytes(data)
        answer = reader.read(path)
        assert "error" not in answer, answer
        originals[name] = answer["prints"]
    for name, damage, seed in todo:
        path.write_bytes(mutate(files[name], damage, seed))
        os.utime(path, (0, 0))  # a file just written is tried again, as it may be torn
        began = time.perf_counter()
        answer = reader.read(path)
        result.slowest = max(result.slowest, time.perf_counter() - began)
        word = verdict(answer, originals[name])
        result.verdicts[name, damage, word] += 1
        result.memory = max(result.memory, answer["memory"])
        if "message" in answer:
            result.messages[answer["message"].replace(str(path), "").strip()[:70]] += 1
        if word not in GOOD or answer["memory"] > MEMORY:
            result.failures.append(f"{name}, {damage}, {seed}: {word}: {answer.get('message')}")
    reader.close()
    return result


def report(result: Result) -> None:
    """Print the table of verdicts."""
    words = [*GOOD, *sorted({w for _, _, w in result.verdicts} - set(GOOD))]
    print("| file | damage |", " | ".join(words), "|")
    print("|---|---|", "---|" * len(words), sep="")
    for name, damage in dict.fromkeys((n, d) for n, d, _ in result.verdicts):
        counts = (str(result.verdicts[name, damage, word]) for word in words)
        print(f"| {name} | {damage} |", " | ".join(counts), "|")
    print(f"most memory for one: {result.memory / 2**20:.0f} MiB; longest: {result.slowest:.2f} s")
    for failure in result.failures[:40]:
        print("FAILED", failure)


def main() -> int:
    """Run a trial; the exit code says whether every mutant gave data or a RecordingError."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="300 mutants")
    parser.add_argument("--truncations", action="store_true", help="500 cuts and nothing else")
    parser.add_argument("--forged", action="store_true", help="checksums of HDF5's made to fit")
    parser.add_argument("--messages", action="store_true", help="list what was said of mutants")
    parser.add_argument("--record", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    if options.record:
        path, end, steps = options.record
        record(Path(path), end=end, steps=int(steps))
        return 0
    count = 300 if options.quick else 500 if options.truncations else options.count
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files = sources(Path(folder))
        if options.truncations:
            todo = [(list(files)[k % 3], "truncated", options.seed + k // 3) for k in range(count)]
        elif options.forged:
            todo = [(list(files)[k % 3], FORGED, options.seed + k // 3) for k in range(count)]
        else:
            todo = list(plan(files, count, options.seed))
        result = trial(Path(folder), todo, files)
    report(result)
    if options.messages:
        for message, n in result.messages.most_common():
            print(f"{n:6} {message}")
    print(f"{count} mutants in {time.perf_counter() - began:.0f} s")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
