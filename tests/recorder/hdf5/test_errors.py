"""Only damage is told as damage: not what the system refuses, nor want of memory, nor a bug."""

import errno
import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import DamagedError, Recorder, Recording, RecordingError
from flexrec.recorder.files.descriptors import read_into
from flexrec.recorder.hdf5 import chunks, superblock
from flexrec.recorder.storage.closed_store import ClosedStore
from flexrec.recorder.storage.live_store import LiveStore
from support.crashing import crash

Patch = pytest.MonkeyPatch


@pytest.fixture(params=["live", "closed", "live_version_1"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "run.h5"
    if request.param == "live_version_1":
        packed = Path(__file__).parents[2] / "data" / f"{request.param}.h5.gz"
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        return path
    rec = Recorder(path, facts=False)
    for i in range(200):
        rec.add(loss=i, array=np.arange(i))
        rec.step()
    rec.log()
    if request.param == "live":
        crash(rec)
    else:
        rec.close()
    return path


def read(path: Path) -> list[Any]:
    with Recording(path) as run:
        return [run.series(run), list(run.events()), run.state, run.marks]


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("call", ["open", "preadv", "pread"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM, errno.ESTALE])
def test_what_the_system_refuses(path: Path, call: str, number: int, monkeypatch: Patch) -> None:
    """Whether HDF5 reads, or we do."""
    monkeypatch.setattr(os, call, failing(OSError(number, os.strerror(number))))
    with pytest.raises(RecordingError, match=os.strerror(number)) as caught:
        read(path)
    assert not isinstance(caught.value, DamagedError)
    assert "damaged" not in str(caught.value)
    assert str(path) in str(caught.value)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == number


def test_what_the_system_refuses_later(path: Path, monkeypatch: Patch) -> None:
    with Recording(path) as run:
        for call in ("preadv", "pread"):
            monkeypatch.setattr(os, call, failing(OSError(errno.EIO, os.strerror(errno.EIO))))
        for key in run:
            with pytest.raises(
                RecordingError, match="cannot be read: Input/output error"
            ) as caught:
                _ = run[key]
            assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("name", ["chunks", "marks", "_codes_between"])
@pytest.mark.parametrize(
    "bug", [MemoryError(), AttributeError("x"), KeyError("x"), TypeError("x"), ValueError("x")]
)
def test_want_of_memory_and_bugs_are_what_they_are(
    path: Path, name: str, bug: Exception, monkeypatch: Patch
) -> None:
    for store in (LiveStore, ClosedStore):
        monkeypatch.setattr(store, name, failing(bug))
    with pytest.raises(type(bug)) as caught:
        read(path)
    assert caught.value is bug


@pytest.mark.parametrize("bug", [RecursionError("x"), TypeError("x"), ValueError("x")])
def test_a_bug_in_what_h5py_calls_is_no_damage(
    bug: Exception, path: Path, monkeypatch: Patch
) -> None:
    """At every read of HDF5: none is told as damage, and none hides rows."""
    calls, last = 0, -1

    def counted(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == last:
            raise bug
        return read_into(*args)

    monkeypatch.setattr(superblock, "read_into", counted)
    read(path)
    for last in range(1, calls + 1):  # noqa: B007 - `counted` reads it
        calls = 0
        with pytest.raises(type(bug)) as caught:
            read(path)
        assert caught.value is bug


def test_damage_in_the_place_of_a_chunk_is_no_bug() -> None:
    """Whatever number of 64 bits HDF5 gives."""
    rows = chunks.Places(_Scattered(), 1, 1).of(0, 9, 9)
    assert rows.tolist() == [[100, 8, 0]]


@pytest.mark.parametrize("place", [1 << 61, 1 << 63, (1 << 64) - 8])
def test_damage_in_an_address_is_no_bug(place: int, path: Path) -> None:
    """HDF5 asks for whatever place a damaged file names."""
    with open(path, "rb") as file:
        view = superblock.UnclosedFile(file.fileno())
        view.seek(place)
        with pytest.raises(OSError, match=f"8 bytes at {place} are not in the file"):
            view.readinto(memoryview(bytearray(8)))


class _Scattered:
    """A dataset whose second chunk is out of the world."""

    def chunk_iter(self, note: Callable[[Any], Any]) -> None:
        for i in range(9):
            where = 100 if i == 0 else 2**64 - 2
            if note(SimpleNamespace(chunk_offset=(i,), byte_offset=where, size=8, filter_mask=0)):
                break


def test_memory_that_numpy_does_not_get(path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(np, "empty", failing(MemoryError("Unable to allocate 1 GiB")))
    with pytest.raises(MemoryError, match="1 GiB"):
        read(path)


def test_no_more_threads(path: Path, monkeypatch: Patch) -> None:
    """Then those that there are do the work."""
    expected = repr(read(path))
    started: list[int] = []

    def start(self: threading.Thread) -> None:
        started.append(1)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(chunks, "_WORKERS", 4)
    monkeypatch.setattr(chunks, "_WORTH_SHARING", 1)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert repr(read(path)) == expected
    done: list[int] = []
    chunks.share_out([lambda i=i: done.append(i) for i in range(50)])  # type: ignore[misc]
    assert done == list(range(50))
    assert started


def test_damage_has_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        rec.add(loss=1)
    data = bytearray(path.read_bytes())
    data[48:2000] = os.urandom(1952)
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"run\.h5 is damaged: ") as caught:
        read(path)
    assert caught.value.__cause__ is not None
