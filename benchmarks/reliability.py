"""Trials of what must never be lost: kills, failing and full disks, losses of power, followers.

    python benchmarks/reliability.py kills [--quick]      SIGKILL anywhere, thousands of times
    python benchmarks/reliability.py faults [--quick]     each write fails once, in turn
    python benchmarks/reliability.py disk [--quick]       a full disk that is freed again, or not
    python benchmarks/reliability.py power [--quick]      what a loss of power may leave
    python benchmarks/reliability.py locks [--quick]      file systems that give no locks
    python benchmarks/reliability.py follow [--quick]     a reader while the writer is killed
    python benchmarks/reliability.py peers [--quick]      SIGKILL one second after the last add
    python benchmarks/reliability.py soak [--quick]       all of them but the peers

Results are in docs/reliability.md. The exit code is 1 where a trial failed.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers_killed

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from flexrec.recorder import Recorder, Recording  # noqa: E402
from flexrec.recorder.events import Event  # noqa: E402
from flexrec.recorder.storage.follow import Follower, Superseded  # noqa: E402
from support.crashing import HERE, build_shim, event_at, killed, record  # noqa: E402
from support.event_cases import same_event  # noqa: E402

KILLS = {
    "kill-time": ("at random times", 1000),
    "kill-write": ("just before a random write, or within it where a page ends", 1000),
    "kill-close": ("within close", 300),
    "kill-repair": ("within repair", 300),
    "kill-resume": ("within resume", 300),
}


def kills(quick: bool) -> bool:
    """Every kill of tests/support/crash_trials.py."""
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        library = build_shim(Path(folder))
        environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(TESTS)}
        for name, (what, count) in KILLS.items():
            count = 20 if quick else count
            command = [sys.executable, "-W", "ignore", str(HERE / "crash_trials.py")]
            started = time.monotonic()
            done = subprocess.run(
                [*command, name, "0", str(count)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            said = done.stdout.strip() or done.stderr[-500:]
            print(f"SIGKILL {what}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
            fine = fine and said.startswith(f"{count} of {count} ")
    return fine


# ---------------------------------------------------------------------- disks and power


def faults(quick: bool) -> bool:
    """Every call that changes a file fails once, in every case of tests/support/write_faults.py."""
    return _script("write_faults.py", *["--most", "150"] * quick)


def disk(quick: bool) -> bool:
    """A disk of 6 MiB that fills up; then it is freed, or the recorder closes, or just ends."""
    return _script("full_disk.py", "--trials", "6" if quick else "200")


def power(quick: bool) -> bool:
    """States of every workload of tests/support/power_work.py, at both sizes of sectors."""
    return _script("power_trials.py", "--states", "60" if quick else "2000")


def locks(quick: bool) -> bool:
    """Every lock fails, with each error that there is: everything is done without locks."""
    return _script("locks.py", *["--quick"] * quick)


def _script(name: str, *arguments: str) -> bool:
    """Run one of the tests' scripts, which prints its table."""
    command = [sys.executable, "-W", "ignore", str(HERE / name), *arguments]
    return not subprocess.run(command, check=False).returncode


# ---------------------------------------------------------------------- a follower


def follow(quick: bool) -> bool:
    """A reader follows while the writer is killed and resumes; every row comes once, in order."""
    kills, seconds = (4, 12) if quick else (20, 600)
    chance = random.Random(1)  # noqa: S311 - no secret
    seen: list[Event] = []
    polls, given = 0, 0

    def poll(follower: Follower) -> None:
        nonlocal polls, given
        polls += 1
        for event in follower.poll():
            if isinstance(event, Superseded):
                del seen[-event.count :]
            else:
                given += 1
                # Out of order, twice, or not at all: then it is another event than this one.
                assert same_event(event, event_at(len(seen))), f"{event} came at {len(seen)}"
                seen.append(event)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        killed(lambda _: Recorder(path, facts=False).flush())
        # The follower lives in a process of its own; this one makes the writers.
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with Follower(path) as follower:
                    while not follower.ended:
                        poll(follower)
                        time.sleep(0.02)
                with Recording(path) as run:
                    count = run.event_count
                    assert all(map(same_event, run.events(), map(event_at, range(count))))
                assert len(seen) == count
                os.write(writing, f"{count} rows, {polls} polls, {given} rows given".encode())
                status = 0
            finally:
                os._exit(status)
        for i in range(kills + 1):
            last = i == kills
            share = seconds / (kills + 1)

            def work(_: object, share: float = share if last else 3600) -> None:
                _write_on(path, share)

            killed(work, after=None if last else share * chance.uniform(0.5, 1.5))
        os.close(writing)
        _, status = os.waitpid(child, 0)
        told = os.read(reading, 4096).decode()
    print(f"follower, {seconds} s, {kills} kills and resumes: {told or 'failed'}")
    return status == 0


def _write_on(path: Path, seconds: float) -> None:
    """Resume, and record for so long; then close."""
    with Recording(path) as run:
        count = run.event_count
    rec = Recorder(path, mode="resume", facts=False, flush_seconds=0.05)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        record(rec, count, count + 10)
        count += 10
        time.sleep(0.005)
    rec.close()


def peers(quick: bool) -> bool:
    """The same kill, one second after the last add, for other recorders."""
    return peers_killed.main(2 if quick else 10)


TRIALS = {
    "kills": kills,
    "faults": faults,
    "disk": disk,
    "power": power,
    "locks": locks,
    "follow": follow,
}
"""What `soak` runs; another question of ours is added here."""


def soak(quick: bool) -> bool:
    """Every question of our own; which of them failed is said at the end too."""
    print(f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, Python {sys.version.split()[0]}")
    failed = []
    for name, trial in TRIALS.items():
        print(f"\n== {name}: {str(trial.__doc__).splitlines()[0]}", flush=True)
        started = time.monotonic()
        if not trial(quick):
            failed.append(name)
        print(f"({name}: {time.monotonic() - started:.0f} s)", flush=True)
    print(f"\nnot as they must be: {', '.join(failed)}" if failed else "\nall as they must be")
    return not failed


def main() -> None:
    """Run what is asked for."""
    trials = {**TRIALS, "peers": peers, "soak": soak}
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("trial", choices=trials)
    parser.add_argument("--quick", action="store_true", help="a few of each, in a minute or so")
    arguments = parser.parse_args()
    sys.exit(0 if trials[arguments.trial](arguments.quick) else 1)


if __name__ == "__main__":
    main()
