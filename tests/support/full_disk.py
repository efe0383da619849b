"""Trials of a disk that is really full: a tmpfs of 6 MiB, which another file fills meanwhile.

    python tests/support/full_disk.py [--trials 200] [--seed 0] [--json]

Root alone may mount one, here in a namespace of mounts of its own, so that nothing is left of it.
The disk is freed while the recorder goes on, or is full when it closes, or when the process ends.
The exit status is 1 where a trial is not as it must be, 77 where nothing can be mounted.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.maintenance.repair import repair
from support.forks import Found, doing, fault_of
from support.known import KINDS, check, record_known

__all__ = ["NO_MOUNT", "can_mount", "main"]

NO_MOUNT = 77
_OWN_MOUNTS = ["unshare", "--mount", "--propagation", "private"]
ENDS = ("freed", "freed", "close", "exit")
_KINDS = ("scalars", "scalars", "mixed", "arrays", "keys", "reduced")
_ROOM = 6 << 20  # bytes


def _record(folder: Path, roomy: Path, seed: int) -> Found:
    """One trial, as of a program that goes on recording; `roomy` is on a disk that has room."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    end, kind, count = ENDS[seed % len(ENDS)], chance.choice(_KINDS), 0
    path, ballast, copy = folder / "run.h5", folder / "ballast", roomy / "copy.h5"
    rec = Recorder(path, facts=False, flush_seconds=60, reduce=KINDS[kind].reduce or None)

    def more(most: int) -> None:
        nonlocal count
        last = count + chance.randint(1, most)
        record_known(rec, kind, count, last)
        count = last

    # Nothing was written of any dataset, or some; or the events' next chunk (of 32,768) is near.
    before = chance.choice((0, 0, 30, 400))
    if kind == "scalars" and chance.random() < 0.6:
        before = 32_768 - chance.choice((0, 0, chance.randint(0, 3000)))
    record_known(rec, kind, 0, before)
    count = before
    if before:
        rec.flush(fsync=True)
    # What points at something is written after that: which of them has no room is by chance.
    _fill(ballast, 4096 * chance.choice((0, chance.randint(0, 4), chance.randint(0, 28))))
    block = chance.choice((40, 300, 3000))
    while not rec._flusher.is_failing:
        more(block)
        rec.flush(fsync=chance.random() < 0.2)
    for _ in range(chance.randint(0, 3)):
        more(block)
        rec.flush()
    if end == "freed":
        ballast.unlink()
        more(40)
        rec.flush(fsync=True)
        shutil.copyfile(path, copy)
        with doing("live"):
            check(copy, kind, count, most=count)
        before = count
    if end != "exit":
        rec.close()
        rec = None  # type: ignore[assignment]
    with doing("closed" if end == "freed" else "full"):
        check(path, kind, before, most=count)
        with Recording(path) as run:
            if end == "freed" and not run.complete:  # many keys: the closed copy is the larger one
                shutil.copyfile(path, copy)
                repair(copy)
                assert copy.stat().st_size > shutil.disk_usage(folder).free, run.state
    return "", f"{kind}, {end}"


def _fill(ballast: Path, room: int) -> None:
    """Fill the disk, but for so many bytes."""
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(file.tell() - room, 0))


def _try(folder: Path, roomy: Path, seed: int) -> Found:
    """One trial, in an interpreter of its own, which must end as it should."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", str(seed)]
    try:
        done = subprocess.run(
            [*command, str(folder), str(roomy)], capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return "hangs", "no end in 120 s"
    finally:
        for file in (*folder.iterdir(), *roomy.iterdir()):
            file.unlink()
    if done.returncode:
        return "crashes", f"exit status {done.returncode}: {done.stderr.strip()[-200:]}"
    kind, what = json.loads(done.stdout)
    return kind, what


def _one(seed: str, folder: str, roomy: str) -> None:
    try:
        found = _record(Path(folder), Path(roomy), int(seed))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        found = fault_of(error)
    print(json.dumps(found))


def _main(options: argparse.Namespace) -> int:
    """All trials, in a namespace of mounts of our own."""
    found, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as roomy:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", folder]
        subprocess.run(mount, check=True)
        try:
            for seed in range(options.seed, options.seed + options.trials):
                kind, what = _try(Path(folder), Path(roomy), seed)
                if kind:
                    end = ENDS[seed % len(ENDS)]
                    found.append({"trial": seed, "end": end, "kind": kind, "what": what})
                    if not options.json:
                        print(f"{kind:10} seed {seed}, {end}: {what}", flush=True)
        finally:
            subprocess.run(["umount", folder], check=True)
    if options.json:
        print(json.dumps({"tried": options.trials, "bad": found}))
        return bool(found)
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(str(f["kind"]) for f in found).items())
    spent = time.monotonic() - started
    print(f"{options.trials} full disks, {len(found)} not as they must be ({spent:.0f} s)  {kinds}")
    return bool(found)


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="what was found, for programs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(*options.one)
        return 0
    if options.inside:
        return _main(options)
    if not can_mount():
        print("full disks: root alone may mount a small tmpfs, and this is not root here")
        return NO_MOUNT
    command = [*_OWN_MOUNTS, sys.executable, "-W", "ignore", *sys.argv, "--inside"]
    return subprocess.run(command).returncode


def can_mount() -> bool:
    """Whether this process may mount a tmpfs that it alone sees."""
    script = "d=$(mktemp -d) && mount -t tmpfs tmpfs $d; s=$?; umount $d; rmdir $d; exit $s"
    tried = [*_OWN_MOUNTS, "sh", "-c", script]
    return not os.geteuid() and not subprocess.run(tried, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(main())
