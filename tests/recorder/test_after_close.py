"""What was closed says so, whatever it is asked: it never reads the file that has its number since.

Every public method and property is tried, by the name that it has: a new one has to be told here.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.hdf5.dataset import UntrustedDataset
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.maintenance.merge import _sources, _texts
from flexrec.recorder.maintenance.merged_store import MergedStore
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn
from flexrec.recorder.storage.closed_store import ClosedStore
from flexrec.recorder.storage.columns import ColumnReader
from flexrec.recorder.storage.follow import Follower
from flexrec.recorder.storage.live_store import LiveStore
from flexrec.recorder.storage.store import Store
from flexrec.replay import play, preset
from support.block_cases import blocks_of
from support.crashing import crash
from support.unclosed_shared import with_flags

Use = Callable[[Any], Any]
KINDS = ("killed", "stopped", "closed", "unclosed")

# Of each public name, a use of it that reads what it can. What it gives is gone through.
RECORDING: dict[str, Use] = {
    "__contains__": lambda run: "k3" in run,
    "__getitem__": lambda run: run["k3"],
    "__iter__": list,
    "__len__": len,
    "columns": lambda run: list(run.columns.of),
    "complete": lambda run: run.complete,
    "config": lambda run: run.config,
    "counts": lambda run: run.counts(),
    "created": lambda run: run.created,
    "dropped": lambda run: run.dropped,
    "event_count": lambda run: run.event_count,
    "events": lambda run: run.events(),
    "facts": lambda run: run.facts,
    "follow": lambda run: run.follow(poll_seconds=0.01, timeout=0.01),
    "is_number": lambda run: run.is_number("k3"),
    "keys": lambda run: run.keys(),
    "kind": lambda run: run.kind("array"),
    "marks": lambda run: run.marks,
    "models": lambda run: run.models,
    "path": lambda run: run.path,
    "resume_points": lambda run: run.resume_points(),
    "resumes": lambda run: run.resumes,
    "rows": lambda run: run.rows("array"),
    "series": lambda run: run.series(["k3", "array"]),
    "state": lambda run: run.state,
    "superseded": lambda run: run.superseded,
    "taken_back": lambda run: run.taken_back().event_count,
}
REMAINS = {"complete", "config", "facts", "models", "path"}
COLUMNS: dict[str, Use] = {
    "added_with": lambda run: run.columns.added_with("k3"),
    "alike": lambda run: run.columns.alike("k3", run.columns, "k3"),
    "between": lambda run: run.columns.between(["k3"], 0, 5),
    "columns": lambda run: run.columns.columns(["k3", "k1"]),
    "counts": lambda run: run.columns.counts(),
    "file_bytes": lambda run: run.columns.file_bytes,
    "groups": lambda run: run.columns.groups(run.keys(), most=1),
    "index": lambda run: run.columns.index("k3"),
    "is_number": lambda run: run.columns.is_number("k3"),
    "is_plain": lambda run: run.columns.is_plain("text"),
    "kind": lambda run: run.columns.kind("array"),
    "numbers": lambda run: run.columns.numbers("k3"),
    "of": lambda run: run.columns.of,
    "parts": lambda run: run.columns.parts(["k3", "array"], most=2),
    "read_bytes": lambda run: run.columns.read_bytes > 0,
    "rows": lambda run: run.columns.rows("array"),
    "series": lambda run: run.columns.series(["k3", "array"]),
    "stored_bytes": lambda run: run.columns.stored_bytes("k3"),
    "when": lambda run: run.columns.when(["k3", "array"]),
}
COLUMNS_READ = {"between", "columns", "index", "numbers", "parts", "rows", "series", "when"}
STORE: dict[str, Use] = {
    "alike": lambda store: store.alike(0, store, 0),
    "blocks": lambda store: store.blocks(),
    "chunks": lambda store: store.chunks(store.columns_held(), *next(store.blocks())),
    "codes": lambda store: store.codes(*next(store.blocks())),
    "columns_held": lambda store: store.columns_held(),
    "created": lambda store: store.created,
    "accept_damage": lambda store: store.accept_damage(),
    "damage": lambda store: store.damage(),
    "damaged_from": lambda store: store.damaged_from(),
    "effective": lambda store: store.effective(),
    "effective_count": lambda store: store.effective_count(),
    "everything": lambda store: store.everything(store.columns_held()),
    "hiding": lambda store: store.hiding(((0, 1),)).effective_count(),
    "linked": lambda store: store.linked(0, 0),
    "marks": lambda store: store.marks(*next(store.blocks())),
    "recorded": lambda store: store.recorded().effective_count(),
    "row_count": lambda store: store.row_count(0),
    "row_counts": lambda store: store.row_counts(),
    "scan": lambda store: store.scan(store.columns_held()),
    "sizes": lambda store: store.sizes(np.array([0])),
    "slot_offsets": lambda store: store.slot_offsets(0, np.zeros(1, int)),
    "stored_bytes": lambda store: store.stored_bytes(0),
    "superseded": lambda store: store.superseded().effective_count(),
    "tables": lambda store: store.tables([numbers(store)], *next(store.blocks())),
    "tail": lambda store: store.tail().count,
    "tally": lambda store: store.tally(),
    "text": lambda store: store.text(fmt.CONFIG),
    "views": lambda store: [view.effective_count() for view in store.views()],
    "within": lambda store: store.within(0),
}
FILE: dict[str, Use] = {
    "allow": lambda file: file.allow(1, "a byte"),
    "attribute": lambda file: file.attribute(fmt.ATTR_FORMAT),
    "check_open": lambda file: file.check_open(),
    "damaged": lambda file: str(file.damaged("it")),
    "dataset": lambda file: len(file.dataset(fmt.SCHEMA, [np.dtype("u1")])),
    "only_checked": lambda file: file.only_checked,
    "pread": lambda file: file.pread(8, 0),
    "read_into": lambda file: file.read_into(np.empty(8, "u1"), 0),
    "refresh": lambda file: file.refresh(),
}
DATASET: dict[str, Use] = {
    "alike": lambda data: data.alike(data),
    "chunk_rows": lambda data: data.chunk_rows,
    "same_chunk": lambda data: data.same_chunk(0, data, 0),
    "__getitem__": lambda data: data[:],
    "__len__": len,
    "damaged": lambda data: str(data.damaged("it")),
    "fill": lambda data: data.fill(0, np.empty(1, "u1"), []),
    "refresh": lambda data: data.refresh(),
    "stored": lambda data: data.stored() if len(data) else 0,
    "stored_bytes": lambda data: data.stored_bytes,
}


def numbers(store: Any) -> list[int]:
    """A column of numbers."""
    return [c for c in store.columns_held() if store.schema.columns[c].is_number][:1]


def public(*kinds: type, of: object = None) -> set[str]:
    """The names that are told in the tables above."""
    found = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    found |= {name for kind in kinds for name in vars(kind) if name.startswith("__")} & {
        "__contains__",
        "__getitem__",
        "__iter__",
        "__len__",
    }
    found |= {name for name in vars(of) if not name.startswith("_")} if of is not None else set()
    return found - {"close"}


def plain(value: Any) -> Any:
    """What can be compared with ==; what is read when it is gone through is read."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, ArrayColumn):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | Iterator):
        return [plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return [plain(getattr(value, field.name)) for field in fields(value)]
    return value


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A recording with several blocks of events, some of them superseded."""
    path = tmp_path / "run.h5"
    record(path, 0.0)
    if request.param in ("killed", "stopped"):
        rec = Recorder(path, mode="resume", at_step=20)
        rec.add(k3=1.0)
        crash(rec)
    if request.param == "stopped":
        path.write_bytes(with_flags(path.read_bytes(), 0))
    if request.param == "unclosed":
        path.write_bytes(with_flags(path.read_bytes(), 1))
    return path


def record(path: Path, start: float) -> None:
    with Recorder(path, config={"lr": 1}, flush_seconds=60) as rec:
        for i in range(30):
            rec.add(train_loss=start)
            rec.add({f"k{j}": start + i + j / 10 for j in range(5)})
            rec.add(array=np.arange(i % 4) + start, text=f"at {start + i}")
            rec.step()
            if i % 10 == 9:
                rec.log(i)


@contextmanager
def closed(path: Path, given: Any, file: UntrustedFile) -> Iterator[None]:
    """Close it, and have another recording under its file's number."""
    other = path.with_name("other.h5")
    if not other.exists():
        record(other, 1000.0)
        other.write_bytes(other.read_bytes() + bytes(path.stat().st_size))
    number = file._descriptor
    given.close()
    opened = [os.open(other, os.O_RDONLY) for _ in range(8)]
    try:
        assert number in opened
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)


def says_closed(error: RecordingError) -> None:
    assert "is closed" in str(error)
    assert "damaged" not in str(error)


def used(use: Use, given: Any, expected: Any) -> bool:
    """Use what is closed: it says so (True), or gives what it gave before."""
    try:
        found = plain(use(given))
    except RecordingError as error:
        says_closed(error)
        return True
    assert found == expected
    return False


def test_every_use_of_a_recording(path: Path) -> None:
    with Recording(path) as run:
        assert public(Recording, of=run) == {*RECORDING, "to_pandas"}
    with blocks_of(8):
        for name, use in RECORDING.items():
            run = Recording(path)
            expected = plain(use(run))  # what is kept from it is not given any more
            with closed(path, run, run._store.file):
                assert used(use, run, expected) == (name not in REMAINS), name
                assert used(use, run, expected) == (name not in REMAINS), name


def test_every_use_of_its_columns(path: Path) -> None:
    with Recording(path) as run:
        assert public(ColumnReader, of=run.columns) == set(COLUMNS)
    with blocks_of(8):
        for name, use in COLUMNS.items():
            run = Recording(path)
            given = SimpleNamespace(columns=run.columns, keys=list(run).copy)
            with Recording(path) as again:
                expected = plain(use(again))
            with closed(path, run, run._store.file):
                assert used(use, given, expected) or name not in COLUMNS_READ, name
                assert used(use, given, expected) or name not in COLUMNS_READ, name


@pytest.mark.parametrize("name", ["groups", "events", "numbers", "parts", "rows", "when"])
def test_what_is_read_little_by_little(path: Path, name: str) -> None:
    """Closed after the first: what was read already may still come, nothing else does."""
    use = {**RECORDING, **COLUMNS}[name]
    with blocks_of(8):
        with Recording(path) as run:
            expected = plain(use(run))
        run = Recording(path)
        going = iter(use(run))
        found = [plain(next(going))]
        with closed(path, run, run._store.file):
            found += taken(going, ends=name == "groups")
    assert found == expected[: len(found)]
    assert name == "groups" or len(found) < len(expected)


def taken(going: Iterable[Any], *, ends: bool = False) -> list[Any]:
    """What still comes, and whether it then ends or says that it is closed."""
    found = list[Any]()
    try:
        for each in going:
            found.append(plain(each))
        assert ends
    except RecordingError as error:
        says_closed(error)
    return found


def merged_store(paths: list[Path]) -> MergedStore:
    runs = [Recording(path) for path in paths]
    return MergedStore(_sources(runs), _texts(runs))


@pytest.mark.parametrize("merged", [False, True])
def test_every_use_of_a_store(path: Path, merged: bool) -> None:
    def opened() -> tuple[Store, UntrustedFile]:
        if merged:
            store: Store = merged_store([path, second])
            return store, store._sources[0].store.file  # type: ignore[attr-defined]
        store = Recording(path)._store
        return store, store.file

    second = path.with_name("second.h5")
    record(second, 500.0)
    assert public(Store, LiveStore, ClosedStore, MergedStore) - set(STORE) == {
        "cut",
        "is_torn",
        "last_step",
        "orderly",
        "resumes",
    }
    with blocks_of(8):
        for name, use in STORE.items():
            store, _ = opened()
            if hasattr(store, name):
                expected = plain(use(store))
                store.close()
                store, file = opened()
                with closed(path, store, file):
                    used(use, store, expected)


def test_every_use_of_a_file_and_its_datasets(path: Path) -> None:
    file = UntrustedFile(path)
    found = file.dataset(fmt.SCHEMA, [np.dtype("u1")])
    attributes = {"path", "read_bytes", "size", "unclosed", "cut_short", "is_closed"}
    assert public(UntrustedFile, of=file) - attributes == set(FILE)
    assert public(UntrustedDataset, of=found) - {"dtype"} == set(DATASET)
    with closed(path, file, file):
        for table, given, same in (
            (
                FILE,
                file,
                {"allow": None, "damaged": f"{path} is damaged: it", "only_checked": False},
            ),
            (
                DATASET,
                found,
                {
                    "__len__": len(found),
                    "alike": 0,
                    "chunk_rows": found.chunk_rows,
                    "damaged": f"{path} is damaged: it",
                    "same_chunk": False,
                },
            ),
        ):
            for name, use in table.items():
                assert used(use, given, same.get(name)) == (name not in same), name
    file.close()


def test_a_follower(path: Path) -> None:
    assert public(Follower, of=Follower(path)) == {"path", "ended", "facts", "poll"}
    for first in (False, True):
        with blocks_of(8):
            follower = Follower(path)
            going = follower.poll()
            assert isinstance(going, Generator)
            found = [plain(next(going))] if first else []
            if first:
                assert follower._store is not None
                with closed(path, follower, follower._store.file):
                    found += taken(going)
                with Recording(path) as run:
                    assert found == plain(run.events())[: len(found)]
            follower.close()
            with pytest.raises(RecordingError, match="is closed"):
                list(follower.poll())


def test_what_takes_a_recording_says_that_it_is_closed(path: Path) -> None:
    run = Recording(path)
    into = path.with_name("into.h5")
    with closed(path, run, run._store.file):
        with pytest.raises(RecordingError, match=r"run.h5 is closed"):
            merge_recordings([run], into)
        assert not into.exists()
        with pytest.raises(RecordingError, match=r"run.h5 is closed"):
            play(run, preset("loss", phases=("train",)))
