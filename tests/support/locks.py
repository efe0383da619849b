"""Everything is done where every lock fails: with one error, or with each that there is.

python tests/support/locks.py [--quick]
"""

import argparse
import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NO_LOCKS = ("ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EIO")
HELD = ("EAGAIN", "EWOULDBLOCK", "EACCES")
"""With these errors another process has the lock."""
RETRIED = ("EINTR",)
"""Python itself asks again, for ever."""
SCRIPT = """
import fcntl, os, sys, warnings
from pathlib import Path

warnings.simplefilter("error")
from flexrec.cli.commands import app
from flexrec.recorder import Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.storage.follow import Follower
from flexrec.recorder.maintenance.repair import repair, verify

path, number = Path(sys.argv[1]), int(sys.argv[2])
with open(path.with_name("any"), "w") as file:
    for lock in (fcntl.flock, fcntl.lockf):
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            assert error.errno == number
        else:
            raise AssertionError("the shim is not there")


def values(path):
    with Recording(path) as run:
        return run["a"].value.tolist()


rec = Recorder(path)
rec.add(a=1.0)
rec.flush(fsync=True)
assert values(path) == [1]
try:
    Recorder(path, mode="resume")
except RecordingError as error:
    assert "is being recorded by another Recorder of this process" in str(error), error
else:
    raise AssertionError("two recorders have one path")
with Follower(path) as follower:
    assert len(list(follower.poll())) == 1
    rec.add(a=2.0)
    rec.flush()
    assert len(list(follower.poll())) == 1
live = path.with_name("live.h5")
live.write_bytes(path.read_bytes())
rec.close()
with Recording(path) as run:
    assert run.state == "closed", run.state
assert values(path) == [1, 2]
with Recorder(path, mode="resume") as rec:
    rec.add(a=3.0)
assert values(path) == [1, 2, 3]
assert verify(path).state == "whole", verify(path)
assert verify(live).state == "unfinished", verify(live)
assert repair(live).events == 2
into = path.with_name("into.h5")
assert merge_recordings([path, live], into).events == 5
assert sorted(values(into)) == [1, 1, 2, 2, 3]
for command in (["export", str(path), "--out", str(path.with_name("run.csv"))],
                ["show", str(path)],
                ["merge", str(path), str(live), "--into", str(into), "--force"]):
    app(command, standalone_mode=False)
assert path.with_name("run.csv").read_text().count("a,") == 3
print("done")
"""


def build_lock_shim(folder: Path) -> Path:
    """Compile the library that makes every lock fail."""
    library, source = folder / "lock_shim.so", Path(__file__).with_name("lock_shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def under(
    shim: Path, number: int, script: str, path: Path, *, hdf5: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run Python code where every lock fails with this error, and HDF5 may be told to lock."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "LOCK_ERRNO": str(number)}
    environment.pop("HDF5_USE_FILE_LOCKING", None)
    environment |= {"HDF5_USE_FILE_LOCKING": hdf5} if hdf5 else {}
    return subprocess.run(
        [sys.executable, "-c", script, str(path), str(number)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def is_done(shim: Path, number: int, folder: Path) -> str:
    """What is wrong where every lock fails with this error; empty if everything is done."""
    done = under(shim, number, SCRIPT, folder / "run.h5")
    left = {"any", "into.h5", "live.h5", "run.csv", "run.h5"}
    if done.returncode or not done.stdout.endswith("done\n"):
        return done.stderr or done.stdout
    return "" if set(os.listdir(folder)) == left else f"left: {sorted(os.listdir(folder))}"


def main() -> int:
    """Try every error; return 1 if something was not done."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only those of real file systems")
    names = NO_LOCKS if parser.parse_args().quick else sorted(errno.errorcode.values())
    numbers = {getattr(errno, name): name for name in names if name not in HELD + RETRIED}
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        shim = build_lock_shim(Path(place))
        for number, name in numbers.items():
            folder = Path(place) / name
            folder.mkdir()
            wrong = is_done(shim, number, folder)
            print(f"{name}: {wrong[-500:] or 'done'}", flush=True)
            bad += bool(wrong)
    print(f"{len(numbers)} errors of locks, {bad} with which not everything was done")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
