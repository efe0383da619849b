"""File systems that give no locks: everything is done there, and nothing asks HDF5 to lock."""

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from flexrec import recorder

HERE = Path(__file__).parents[2]
NO_LOCKS = ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EIO"]
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


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "lock_shim.so"
    source = HERE / "support" / "lock_shim.c"
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


@pytest.mark.parametrize("name", NO_LOCKS)
def test_without_locks_everything_is_done(shim: Path, tmp_path: Path, name: str) -> None:
    done = under(shim, getattr(errno, name), SCRIPT, tmp_path / "run.h5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
    left = {"any", "into.h5", "live.h5", "run.csv", "run.h5"}
    assert set(os.listdir(tmp_path)) == left


READING = """
import sys
from flexrec.recorder import Recorder, Recording, RecordingError
with Recording(sys.argv[1]) as run:
    print(run["a"].value.tolist())
try:
    Recorder(sys.argv[1], mode="resume")
except RecordingError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["EWOULDBLOCK", "EACCES"])
def test_where_another_has_the_lock_it_is_read_and_not_written(
    shim: Path, tmp_path: Path, name: str
) -> None:
    """EACCES is how SMB says so."""
    path = tmp_path / "run.h5"
    with recorder.Recorder(path) as rec:
        rec.add(a=1.0)
    done = under(shim, getattr(errno, name), READING, path)
    assert done.stdout.splitlines()[0] == "[1.0]", done.stderr
    assert "is being recorded by another process" in done.stdout


@pytest.mark.parametrize("told", ["TRUE", "BEST_EFFORT"])
def test_a_recording_is_read_even_where_hdf5_is_told_to_lock(
    shim: Path, tmp_path: Path, told: str
) -> None:
    path = tmp_path / "run.h5"
    with recorder.Recorder(path) as rec:
        rec.add(a=1.0)
    done = under(shim, errno.ENOLCK, READING, path, hdf5=told)
    assert done.stdout.splitlines()[0] == "[1.0]", done.stderr


@pytest.mark.parametrize("locking", [None, True, False])
def test_plain_hdf5_may_have_the_file_open_too(tmp_path: Path, locking: bool | None) -> None:
    """In either order, and with or without its lock: HDF5 refuses two ways at once."""
    path = tmp_path / "run.h5"
    with recorder.Recorder(path) as rec:
        rec.add(a=1.0)
    with h5py.File(path, locking=locking) as plain, recorder.Recording(path) as run:
        assert run["a"].value.tolist() == plain["series/a/value"][:].tolist() == [1]
    with recorder.Recording(path) as run, h5py.File(path, locking=locking) as plain:
        assert run["a"].value.tolist() == plain["series/a/value"][:].tolist() == [1]


def test_hdf5_is_never_asked_to_lock() -> None:
    """Wherever we open a file with h5py, it is told not to."""
    assert recorder.__file__ is not None
    found = 0
    root = Path(recorder.__file__).resolve().parent.parent
    for source in (
        path for part in ("recorder", "replay", "cli") for path in root.glob(f"{part}/**/*.py")
    ):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("h5py.File"):
                locking = [k.value for k in node.keywords if k.arg == "locking"]
                assert [ast.unparse(value) for value in locking] == ["False"], (source, node.lineno)
                found += 1
    assert found
