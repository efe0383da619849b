"""Keys that come together by the dozen lie in tables: the same values, in few datasets."""

import gzip
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrec.recorder import Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.events import Event
from flexrec.recorder.maintenance.repair import _examine, repair
from flexrec.recorder.storage import format as fmt
from flexrec.replay import define, play
from support.block_cases import blocks_of
from support.event_cases import events, same_event

DATA = Path(__file__).parents[3] / "data"
Fill = Callable[[Recorder], None]


def recorder(path: Path, **options: Any) -> Recorder:
    """A recorder that writes only when told to."""
    return Recorder(path, facts=False, flush_seconds=60, **options)


def bits(value: Any) -> Any:
    """A value that is equal to another if all bits are."""
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return struct.pack("<d", value) if isinstance(value, float) else value


def contents(path: Path) -> dict[str, Any]:
    """All that a recording holds, each value to the bit."""
    with Recording(path) as run:
        superseded = run.taken_back()
        return {
            "events": [
                (type(event), event.step, event.time, shown(event)) for event in run.events()
            ],
            "series": {
                key: (
                    *(getattr(of, name).tolist() for name in ("position", "step", "time")),
                    values,
                )
                for key, of in run.series(run.keys()).items()
                for values in [[bits(value) for value in of.value]]
            },
            "superseded": {
                key: [(row.step, bits(row.value)) for row in superseded.rows(key)]
                for key in superseded
            },
            "counts": run.counts(),
            "kinds": {key: run.kind(key) for key in run},
        }


def shown(event: Event) -> Any:
    """The values of an add, in order and to the bit; the text of a mark."""
    values = getattr(event, "values", None)
    return [(key, bits(v)) for key, v in values.items()] if values is not None else repr(event)


def table_of(path: Path, name: str = "tables") -> list[list[str]]:
    """The keys of each table, as h5py alone reads them."""
    with h5py.File(path) as file:
        count = int(file.attrs[name])
        assert count == len(file.get(name, ()))
        return [json.loads(file[f"{name}/{i}/keys"][:].tobytes()) for i in range(count)]


def closed(path: Path, fill: Fill, **options: Any) -> dict[str, Any]:
    """Record; the closed file must hold what the live one held, which is returned."""
    rec = recorder(path, **options)
    fill(rec)
    rec.flush()
    live = contents(path)
    rec.close()
    assert contents(path) == live
    assert _examine(path)["state"] == "whole"
    return live


def keys(count: int, name: str = "k") -> list[str]:
    """So many keys."""
    return [f"{name}{i}" for i in range(count)]


@pytest.mark.parametrize(("count", "tables"), [(63, 0), (64, 1), (65, 1)])
def test_a_table_has_64_keys_or_more(tmp_path: Path, count: int, tables: int) -> None:
    def fill(rec: Recorder) -> None:
        for step in range(3):
            rec.add({key: step + i / 7 for i, key in enumerate(keys(count))})
            rec.step()

    closed(tmp_path / "a.h5", fill)
    assert table_of(tmp_path / "a.h5") == [keys(count)] * tables
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["version"] == fmt.VERSION == 2
        assert ("k0" in file["series"]) is (not tables)


def test_a_table_is_plain_to_h5py(tmp_path: Path) -> None:
    with recorder(tmp_path / "a.h5") as rec:
        for step in range(10):
            rec.add({key: step * 100.0 + i for i, key in enumerate(keys(100))} | {"text": "t"})
            rec.step()
    with h5py.File(tmp_path / "a.h5") as file:
        table = file["tables/0"]
        row = json.loads(table["keys"][:].tobytes()).index("k70")
        assert table["value"][row].tolist() == [step * 100 + 70 for step in range(10)]
        assert table["step"][:].tolist() == list(range(10))
        assert table["value"].dtype == np.float32
        assert file["series/text/step"] == table["step"], "added together: one dataset, two links"


def odd(rec: Recorder) -> None:
    """Numbers of every kind, of 130 keys; texts, arrays and other forms among them."""
    payload = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0001 | 5 << 40))[0]
    some = [payload, -payload, math.nan, -0.0, math.inf, 2**53 + 2, 2**63, True, 1e308, 5e-324]
    for step in range(12):
        values = {key: some[(i + step) % len(some)] for i, key in enumerate(keys(130, "odd"))}
        rec.add(values | {"text": f"é{step}", "pair": (step, np.arange(step))})
        if step == 5:
            rec.add({"odd3": "another form", "odd4": (1.0, 2.0)})
        rec.step()


def late_and_early(rec: Recorder) -> None:
    """Keys that come late, that stop, that are missing now and then."""
    for step in range(20):
        rec.add(
            {
                key: float(i * step)
                for i, key in enumerate(keys(300))
                if not (i < 70 and step > 9) and not (i >= 230 and step < 5)
            }
        )
        rec.add(dict.fromkeys(keys(80, "gap"), None if step % 3 else step / 3))
        rec.step()
        if step % 4 == 3:
            rec.log(step)


def interleaved(rec: Recorder) -> None:
    """Keys of one table between those of another, in signatures of several orders."""
    a, b = keys(100, "a"), keys(100, "b")
    mixed = [key for pair in zip(a, b, strict=True) for key in pair]
    for step in range(15):
        chosen = (mixed, a, list(reversed(mixed)))[step % 3]
        rec.add({key: step + i / 3 for i, key in enumerate(chosen)})
        rec.step()


def named(rec: Recorder) -> None:
    """Keys with names that JSON or HDF5 would change."""
    names = ["", "a/b", "%", "\n", '"', "\\", "é☃", "value", "step", ".", "..", "\0", "[", "\u2028"]
    for _ in range(3):
        rec.add({f"{name}{i}" if i else name: i / 3 for name in names for i in range(9)})
        rec.step()


@pytest.mark.parametrize("fill", [odd, late_and_early, interleaved, named])
@pytest.mark.parametrize("block", [None, 3])
def test_a_closed_file_holds_what_the_live_one_held(
    tmp_path: Path, fill: Fill, block: int | None
) -> None:
    with blocks_of(block):
        closed(tmp_path / "a.h5", fill)
    assert table_of(tmp_path / "a.h5")


def test_superseded_rows_have_tables_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for begin, count in ((0, 100), (4, 90)):
        rec = recorder(path, mode="resume", **({"at_step": begin - 1} if begin else {}))
        for step in range(begin, begin + 8):
            rec.add({key: step + i / 3 + begin for i, key in enumerate(keys(count))})
            rec.step()
        rec.flush()
        live = contents(path)
        rec.close()
        assert contents(path) == live
    assert [step for step, _ in live["superseded"]["k5"]] == [4, 5, 6, 7]
    assert table_of(path, "superseded_tables") == [keys(90)], "k90 was always alone"
    rec = recorder(path, mode="resume", at_step=-1)  # all is superseded: tables without rows
    rec.flush()
    live = contents(path)
    rec.close()
    assert contents(path) == live
    assert table_of(path) == [keys(90)]


def test_a_long_key_has_chunks_of_its_own(tmp_path: Path) -> None:
    def fill(rec: Recorder) -> None:
        for step in range(41):
            rec.add(
                {
                    key: step + i / 3
                    for i, key in enumerate(keys(70, "short" if step % 2 else "long"))
                }
            )
            rec.step()

    with (
        patch("flexrec.recorder.storage.closing.plans.ROWS", 20),
        patch("flexrec.recorder.storage.closing.tables.ROWS", 20),
        patch("flexrec.recorder.storage.closing.compact._HELD", 1000),
    ):
        closed(tmp_path / "a.h5", fill)
    assert table_of(tmp_path / "a.h5") == [keys(70, "short")]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["tables/0/value"].chunks == (1, 20)
        assert len(file["series/long3/value"]) == 21


def test_the_states_of_meters_are_no_numbers(tmp_path: Path) -> None:
    def fill(rec: Recorder) -> None:
        for step in range(4):
            pairs: Any = {key: (np.ones(3) * step, np.zeros(3)) for key in keys(70, "mse")}
            rec.add(dict.fromkeys(keys(70), step / 3) | pairs)
            rec.step()

    closed(tmp_path / "a.h5", fill, reduce={"mse*": "MSEMeter"})
    assert table_of(tmp_path / "a.h5") == [keys(70)]


def test_a_killed_file_is_repaired_into_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    rec = recorder(path)
    late_and_early(rec)
    rec.flush()
    killed, live = path.read_bytes(), contents(path)
    rec.close()
    path.write_bytes(killed)
    assert repair(path).is_changed
    assert contents(path) == live
    assert table_of(path)


def test_tables_of_ranks_are_merged(tmp_path: Path) -> None:
    paths = [tmp_path / f"{rank}.h5" for rank in range(3)]
    for rank, path in enumerate(paths):
        with recorder(path) as rec:
            for step in range(6):
                rec.add({key: rank + step * i / 3 for i, key in enumerate(keys(500))})
                rec.add(dict.fromkeys(keys(500, f"rank{rank}/"), step / 3))
                rec.step()
    merge_recordings(paths, tmp_path / "run.h5")
    assert [len(found) for found in table_of(tmp_path / "run.h5")] == [500] * 4
    with Recording(tmp_path / "run.h5") as merged:
        for rank, path in enumerate(paths):
            with Recording(path) as run:
                for key, series in run.series(keys(500) + keys(500, f"rank{rank}/")).items():
                    found = merged[key]
                    where = slice(rank, None, 3) if key.startswith("k") else slice(None)
                    assert bits(found.value[where].copy()) == bits(series.value)
                    assert found.step[where].tolist() == series.step.tolist()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of steps that go down
@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(events(), min_size=1, max_size=12), st.none() | st.integers(0, 40)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([None, 1, 4]),
)
def test_any_history_in_tables_of_one_key(
    tmp_path_factory: pytest.TempPathFactory, history: Any, block: int | None
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.h5"
    with blocks_of(block), patch("flexrec.recorder.storage.closing.plans._MANY", 1):
        for i, (some, at_step) in enumerate(history):
            rec = recorder(path, mode="resume", **({"at_step": at_step} if i else {}))
            for event in some:
                rec.record(event)
            rec.flush()
            with Recording(path) as run:
                live = list(run.events())
            rec.close()
            with Recording(path) as run:
                found = list(run.events())
        assert len(live) == len(found)
        assert all(map(same_event, live, found))


def test_a_table_is_replayed_and_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with recorder(tmp_path / f"{name}.h5") as rec:
            for step in range(10):
                value = 1 / (step + 1)
                rec.add({key: value + (name == "b" and key == "k90") for key in keys(100)})
                rec.step()
    drawn = define({"one": {"type": "line"}}, {"k7": {"type": "LastValueMeter", "target": "one"}})
    with Recording(tmp_path / "a.h5") as a, Recording(tmp_path / "b.h5") as b:
        (window,) = play(a, drawn)
        assert window.traces[0].y.tolist() == [1 / (step + 1) for step in range(10)]
        assert a.columns.alike("k7", b.columns, "k7") == 0, "k90 is in the same chunk"
        assert a.columns.alike("k7", a.columns, "k7") == 10


def test_a_closed_file_of_version_1(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(gzip.decompress((DATA / "closed_version_1.h5.gz").read_bytes()))
    assert _examine(path)["state"] == "whole"
    with Recording(path) as run:
        assert len(run) == 73
        found = run.series(run)
        for i in range(70):
            series = found[f"layer{i}/std"]
            assert series.step.tolist() == list(range(8))
            assert series.value.tolist() == [step + i / 3 for step in range(8)]
        assert found["note"].value == [f"step {step}" for step in (1, 3, 5, 7)]
        assert [bits(value) for value in found["pair"].value] == [
            bits((np.arange(step, dtype="<f4"), float(step))) for step in range(8)
        ]
        gone = run.taken_back()
        assert gone["layer69/std"].value.tolist() == [4 + 23.0, 5 + 23.0]
        assert [row.value for row in gone.rows("note")] == ["step 5"]


# ---------------------------------------------------------------- hostile files


def made(path: Path) -> Path:
    """A recording with a table of 70 keys × 10."""
    with recorder(path) as rec:
        for step in range(10):
            rec.add({key: step + i / 3 for i, key in enumerate(keys(70))})
            rec.step()
    return path


def replaced(file: h5py.File, name: str, data: Any, **options: Any) -> None:
    """Put another dataset in place of one."""
    del file[name]
    file.create_dataset(name, data=data, **options)


def names(found: Any) -> np.ndarray[Any, Any]:
    """The bytes of a table's keys."""
    return np.frombuffer(json.dumps(found).encode(), np.uint8)


def attribute(file: h5py.File, value: Any) -> None:
    """Set the number of tables."""
    file.attrs["tables"] = value


VALUES = np.zeros((70, 10), "<f4")
HOSTILE = [
    ("no tables", lambda f: attribute(f, 0), "series/k0/step is missing"),
    ("a negative number", lambda f: attribute(f, -1), "claims -1 tables"),
    ("too many", lambda f: attribute(f, 2**40), "claims 1099511627776 tables"),
    ("no number", lambda f: attribute(f, np.bytes_("x")), "claims b'x' tables"),
    ("one more", lambda f: attribute(f, 2), "tables/1/keys is missing"),
    ("no keys", lambda f: replaced(f, "tables/0/keys", names([])), "no list of keys"),
    ("numbers", lambda f: replaced(f, "tables/0/keys", names([1] * 70)), "no list of keys"),
    ("not JSON", lambda f: replaced(f, "tables/0/keys", np.zeros(9, "u1")), "no list of keys"),
    ("deep", lambda f: replaced(f, "tables/0/keys", np.full(9**5, 91, "u1")), "no list of keys"),
    (
        "an unknown key",
        lambda f: replaced(f, "tables/0/keys", names([*keys(69), "x"])),
        "a key that no number has",
    ),
    (
        "a key twice",
        lambda f: replaced(f, "tables/0/keys", names([*keys(69), "k0"])),
        "or one twice",
    ),
    (
        "a key less",
        lambda f: replaced(f, "tables/0/keys", names(keys(69))),
        "70 rows for 69 keys|series/k69/step is missing",
    ),
    (
        "fewer rows",
        lambda f: replaced(f, "tables/0/value", VALUES[:, :9], chunks=(70, 9)),
        "value has the shape",
    ),
    ("one dimension", lambda f: replaced(f, "tables/0/value", VALUES[0]), "value has the shape"),
    (
        "chunks of a part of the rows",
        lambda f: replaced(f, "tables/0/value", VALUES, chunks=(70, 5)),
        "has chunks of",
    ),
    (
        "integers",
        lambda f: replaced(f, "tables/0/value", VALUES.astype("i4"), chunks=(70, 10)),
        "holds int32",
    ),
    ("a link", lambda f: soft(f, "tables/0/value"), "is a link to elsewhere"),
    (
        "steps",
        lambda f: replaced(f, "tables/0/step", np.arange(9)),
        "tables/0/step has 9 rows where the events say 10",
    ),
]


def soft(file: h5py.File, name: str) -> None:
    """Put a soft link in place of a dataset."""
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink("/elsewhere")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with a table."""
    return made(tmp_path_factory.mktemp("table") / "a.h5").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"), [case[1:] for case in HOSTILE], ids=[c[0] for c in HOSTILE]
)
def test_a_hostile_table(
    tmp_path: Path, sample: bytes, change: Callable[[h5py.File], None], said: str
) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(sample)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(RecordingError, match=said), Recording(path) as run:
        run.series(run.keys())
    with pytest.raises(RecordingError, match=said):
        _examine(path)


def test_a_chunk_of_a_hostile_table_is_small(
    tmp_path: Path, sample: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(sample)
    monkeypatch.setattr("flexrec.recorder.storage.closed_store._TABLE_CHUNK", 1000)
    with pytest.raises(RecordingError, match=r"in chunks of 5,600 bytes"):
        Recording(path)["k5"]
