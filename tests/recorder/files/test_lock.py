"""File systems that give no locks: everything is done there, and nothing asks HDF5 to lock."""

import ast
import errno
from pathlib import Path

import h5py
import pytest

from flexrec import recorder
from support.locks import NO_LOCKS, build_lock_shim, is_done, under


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_lock_shim(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("name", NO_LOCKS)
def test_without_locks_everything_is_done(shim: Path, tmp_path: Path, name: str) -> None:
    assert is_done(shim, getattr(errno, name), tmp_path) == ""


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
