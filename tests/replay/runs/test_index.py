"""The index: a cache that is right, that comes again, and that several processes may use."""

import errno
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flexrec.recorder import Recorder
from flexrec.replay import Runs
from flexrec.replay.runs import index
from flexrec.replay.runs.row import Row, row_of
from flexrec.replay.runs.scan import scan


def states(place: Path) -> list[tuple[object, ...]]:
    """The names and losses of the runs."""
    return list(Runs(place).table(["name", "train_loss.last"]).rows)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose rows were read."""
    seen: list[str] = []

    def counted(path: str, asked: Sequence[str]) -> Row:
        seen.append(Path(path).name)
        return row_of(path, asked)

    monkeypatch.setattr(index, "row_of", counted)
    return seen


def test_only_what_changed_is_read(exp: Path, cache: Path, reads: list[str]) -> None:
    whole = states(exp)
    assert len(reads) == 4
    (file,) = cache.iterdir()
    before = file.stat()
    assert states(exp) == whole
    assert len(reads) == 4
    assert file.stat().st_ino == before.st_ino  # nobody wrote it
    assert cache.stat().st_mode & 0o777 == 0o700
    with Recorder(exp / "new.h5") as rec:
        rec.add(train_loss=7.0)
    assert states(exp) == [*whole, ("new", 7.0)]
    with Recorder(exp / "new.h5", mode="w") as rec:
        rec.add(train_loss=8.0)
    assert states(exp)[-1] == ("new", 8.0)
    assert reads[4:] == ["new.h5", "new.h5"]
    (exp / "new.h5").unlink()
    assert states(exp) == whole
    assert states(exp / "lr0.1") == [("seed0", whole[2][1]), ("seed1", whole[3][1])]


def test_a_file_with_a_large_number(
    exp: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems, such as FUSE's, number files beyond SQLite's integers."""
    found = [replace(one, inode=(1 << 64) - 1 - i) for i, one in enumerate(scan([exp]))]
    monkeypatch.setattr("flexrec.replay.runs.collection.scan", lambda _: found)
    assert len(Runs(exp)) == len(Runs(exp)) == 4
    assert len(reads) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="it keeps no time of the last change")
def test_a_file_is_rewritten_with_its_old_time(exp: Path, reads: list[str]) -> None:
    path = exp / "lr0.1" / "seed0.h5"
    states(exp)
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    states(exp)
    assert reads[4:] == ["seed0.h5"]


def test_a_file_becomes_readable_that_did_not_change(
    exp: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def glance(_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr("flexrec.replay.runs.row.glance", glance)
        assert {state for (state,) in Runs(exp).table(["state"]).rows} == {"unreadable"}
    assert {state for (state,) in Runs(exp).table(["state"]).rows} == {"closed"}
    assert "config.lr" in Runs(exp).columns
    assert len(reads) == 8, "what was read is not read again"


def test_a_run_that_was_moved_away_and_back(exp: Path) -> None:
    whole = states(exp)
    (exp / "lr0.1").rename(exp.parent / "away")
    assert states(exp) == whole[:2]
    (exp.parent / "away").rename(exp / "lr0.1")
    assert states(exp) == whole


@pytest.mark.parametrize(
    "kind",
    ["deleted", "empty", "text", "cut", "version", "foreign", "flipped", "number", "view"],
)
def test_it_comes_again(exp: Path, cache: Path, kind: str) -> None:
    whole = states(exp)
    (file,) = cache.iterdir()
    data = file.read_bytes()
    if kind == "deleted":
        file.unlink()
    elif kind == "version":
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version=77")
    elif kind == "foreign":
        file.unlink()
        with sqlite3.connect(file) as db:
            db.executescript("CREATE TABLE run(id); PRAGMA user_version=1")
    elif kind == "number":  # SQLite does not notice
        with sqlite3.connect(file) as db:
            name = f"c{_number(db, 'train_loss.last')}"
            db.execute(f"UPDATE val0 SET {name}=7")  # noqa: S608
    elif kind == "view":
        with sqlite3.connect(file) as db:
            names = [row[1] for row in db.execute("PRAGMA table_info(val0)")]
            rest = ", ".join(f"load_extension('x') {name}" for name in names[1:])
            view = f"CREATE VIEW val0 AS SELECT id, {rest} FROM run"  # noqa: S608
            db.executescript(f"DROP TABLE val0; {view}")
    else:
        half = data[: len(data) // 2]
        torn = half + bytes(random.Random(0).randbytes(len(data) - len(half)))  # noqa: S311
        file.write_bytes({"empty": b"", "text": b"no database", "cut": half, "flipped": torn}[kind])
    assert states(exp) == whole
    assert states(exp) == whole


def _number(db: sqlite3.Connection, column: str) -> int:
    ((number,),) = db.execute("SELECT id FROM col WHERE name=?", (column,))
    return int(number)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_in_its_place(exp: Path, cache: Path) -> None:
    whole = states(exp)
    (file,) = cache.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert states(exp) == whole
    assert file.is_file()


def test_no_cache_can_be_written(exp: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file, where the folder is to be")
    assert len(states(exp)) == 4
    cache.parent.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(states(exp)) == 4
    assert list(cache.iterdir()) == []


def test_the_disk_is_full(exp: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = index._connected

    def small(name: str) -> sqlite3.Connection:
        db = connected(name)
        if name != ":memory:":
            db.execute("PRAGMA max_page_count=4")
        return db

    monkeypatch.setattr(index, "_connected", small)
    assert len(states(exp)) == 4
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("text", ["'{'", "NULL", "x'ff'", "CAST(x'ff' AS TEXT)"])
def test_a_config_in_the_index_is_damaged(exp: Path, cache: Path, text: str) -> None:
    whole = Runs(exp).records()
    (file,) = cache.iterdir()
    with sqlite3.connect(file) as db:
        db.execute(f"UPDATE config SET text={text}")  # noqa: S608
    assert Runs(exp).records() == whole
    runs = Runs(exp)
    with sqlite3.connect(file) as db:
        db.execute("UPDATE val0 SET c0=CAST(x'ff' AS TEXT)")
    assert len(runs.table().rows) == 4
    assert Runs(exp).records() == whole


def test_a_reader_sees_one_index_while_it_is_replaced(exp: Path) -> None:
    runs = Runs(exp)
    with Recorder(exp / "new.h5") as rec:
        rec.add(train_loss=7.0)
    assert len(Runs(exp)) == 5
    assert len(runs.where("state = 'closed'")) == 4


def test_several_at_once(exp: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from flexrec.replay import Runs\n"
        "for i in range(5): print(len(Runs(sys.argv[1]).where('train_loss.count > 0')))"
    )
    command = [sys.executable, "-c", script, str(exp)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for i in range(3):
        with Recorder(exp / f"new{i}.h5") as rec:
            rec.add(train_loss=7.0)
        assert len(Runs(exp)) == 5 + i
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert all(4 <= int(count) <= 7 for count in out.split())
    assert len(Runs(exp)) == 7


def test_litter_is_removed(exp: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    for name, age in (("old.making", 7200), ("new.making", 60), ("old.sqlite", 91 * 86400)):
        (cache / name).touch()
        now = (cache / name).stat().st_mtime - age
        os.utime(cache / name, (now, now))
    states(exp)
    assert {path.name for path in cache.iterdir()} & {"old.making", "new.making", "old.sqlite"} == {
        "new.making"
    }


def test_a_table_needs_neither_numpy_nor_h5py(exp: Path) -> None:
    script = (
        "import sys; from flexrec.replay.runs.collection import Runs\n"
        "str(Runs(sys.argv[1]).where('config.lr < 1').table())\n"
        "print(sorted({'numpy', 'h5py', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(exp)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
