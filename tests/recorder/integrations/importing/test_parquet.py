"""What was exported as Parquet becomes recordings again."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.recorder.integrations.importing.importer import (
    Imported,
    find_sources,
    import_runs,
)
from flexrec.recorder.integrations.importing.source import Notes
from flexrec.replay import Runs
from flexrec.replay.export.tables import write_table


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def imported(path: Path, out: Path) -> list[Imported]:
    return list(import_runs(path, out))


def values(path: Path) -> dict[str, tuple[list[int], bytes, object]]:
    """The steps, the times' bytes and the values, to the bit, of each key."""
    with Recording(path) as run:
        return {
            key: (s.step.tolist(), s.time.tobytes(), exact(s.value))
            for key, s in run.series(run).items()
        }


def exact(value: Any) -> object:
    return value.tobytes() if isinstance(value, np.ndarray) else list(map(repr, value))


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """Two runs with numbers of every kind, texts, and a key of both; one without a value."""
    for i in range(2):
        config = {"lr": 0.1 * i, "layers": [1, {"a": True}], "name": None}
        with Recorder(tmp_path / "exp" / "g" / f"r{i}.h5", config=config, facts=False) as rec:
            for step, value in enumerate([1 / 3, math.nan, math.inf, -0.0, 5e-324, 2.0**60]):
                rec.add({"loss": value, "layer0/mean": i, "note": f"ü\n{step}"}, step=3 * step)
                rec.add(mixed=value if step % 2 else "")
    with Recorder(tmp_path / "exp" / "empty.h5", facts=False):
        pass
    return tmp_path / "exp"


def test_a_dataset_is_imported_as_it_was(exp: Path, tmp_path: Path) -> None:
    Runs(exp).export(tmp_path / "dataset")
    found = imported(tmp_path / "dataset", tmp_path / "again")
    again = tmp_path / "again"
    assert [one.path for one in found] == [
        again / name for name in ("empty.h5", "g/r0.h5", "g/r1.h5")
    ]
    for name in ("empty.h5", "g/r0.h5", "g/r1.h5"):
        assert values(again / name) == values(exp / name)
        with Recording(again / name) as run, Recording(exp / name) as original:
            assert (run.config or None) == original.config
    assert [(one.values, one.keys) for one in found] == [(0, 0), (24, 4), (24, 4)]
    assert not any(one.left_out or one.damage for one in found)


def test_the_file_of_one_run(exp: Path, tmp_path: Path) -> None:
    out = tmp_path / "tables" / "one.parquet"
    out.parent.mkdir()
    with Recording(exp / "g" / "r1.h5") as run:
        write_table(run, run.keys(), out, overwrite=False)
    for path, target in ((out, "one.h5"), (out.parent, "again/one.h5")):
        (found,) = imported(path, tmp_path / ("one.h5" if target == "one.h5" else "again"))
        assert found.path == tmp_path / target
        assert values(found.path) == values(exp / "g" / "r1.h5")


def test_a_file_of_several_runs(exp: Path, tmp_path: Path) -> None:
    Runs(exp).export(tmp_path / "dataset")
    (tmp_path / "dataset" / "values" / "00000.parquet").rename(tmp_path / "all.parquet")
    found = imported(tmp_path / "all.parquet", tmp_path / "again")
    assert [one.path.relative_to(tmp_path) for one in found] == [
        Path("again/g/r0.h5"),
        Path("again/g/r1.h5"),
    ]
    assert values(found[1].path) == values(exp / "g" / "r1.h5")


def rows(path: Path, **columns: Any) -> Path:
    given: dict[str, Any] = {"key": ["a"], "step": [0], "time": [0.0], "value": [1.0], **columns}
    pq.write_table(pa.table(given), path)
    return path


def test_names_of_runs_stay_within_the_folder(tmp_path: Path) -> None:
    names = ["../../up", "/etc/x", "..", "a/./b", "A/b"]
    given = {"key": ["k"] * 5, "step": [1] * 5, "time": [0.0] * 5, "value": [2.0] * 5}
    path = rows(tmp_path / "x.parquet", run=names, **given)
    found = imported(path, tmp_path / "out")
    assert [str(one.path.relative_to(tmp_path / "out")) for one in found] == [
        *("up.h5", "etc/x.h5", "run.h5", "a/b.h5", "A/b_2.h5")
    ]
    assert all(one.values == 1 for one in found)


def test_what_cannot_be_imported_is_named(exp: Path, tmp_path: Path) -> None:
    path = rows(tmp_path / "x.parquet", key=[None, "a", "a"], step=[0, 1, 2], time=[0.0, 0.0, 0.0],
        value=[1.0, None, 3.0])  # fmt: skip
    (found,) = imported(path, tmp_path / "out")
    assert (found.values, dict(found.left_out)) == (
        1,
        {"row without a key, step, time or value": 2},
    )
    (found,) = imported(rows(tmp_path / "y.parquet", value=["many"]), tmp_path / "out")
    assert found.values == 0
    assert "many" in found.damage[0]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(RecordingError, match=r"cannot be imported; .* Parquet"):
        imported(tmp_path / "other.parquet", tmp_path / "out")
    Runs(exp).export(tmp_path / "dataset")
    pq.write_table(pa.table({"names": ["a"]}), tmp_path / "dataset" / "runs.parquet")
    with pytest.raises(RecordingError, match="dataset cannot be read as Parquet"):
        imported(tmp_path / "dataset", tmp_path / "out")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(RecordingError, match="cannot be read as Parquet"):
        imported(tmp_path / "bad.parquet", tmp_path / "out")


def test_what_is_not_utf8_is_replaced_and_said(tmp_path: Path) -> None:
    bounds = pa.py_buffer(np.array([0, 4], "<i4").tobytes())
    text = pa.StringArray.from_buffers(1, bounds, pa.py_buffer(b"caf\xe9"))
    path = rows(tmp_path / "a.parquet", value=pa.array([None], pa.float64()), text=text)
    (found,) = imported(path, tmp_path / "out")
    with Recording(found.path) as run:
        assert list(run["a"].value) == ["caf\ufffd"]
    ((said, count),) = found.left_out.items()
    assert "not UTF-8" in said
    assert count == 1


def test_a_file_of_a_folder_that_cannot_be_read_keeps_no_other_back(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "dataset" / "values").mkdir(parents=True)
    (logs / "dataset" / "runs.parquet").touch()
    (logs / "dataset" / "values" / "part.parquet").touch()
    (logs / "empty.parquet").touch()
    (logs / "loss.csv").write_text("step,loss\n1,0.5\n")
    found = {each.path.stem: each for each in imported(logs, tmp_path / "out")}
    assert found["loss"].values == 1
    assert not found["loss"].damage
    assert "empty.parquet cannot be read as Parquet" in found["empty"].damage[0]
    assert "dataset cannot be read as Parquet" in found["dataset"].damage[0]


def test_a_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    schema = pa.schema([("key", pa.string()), ("step", pa.int64()), ("time", pa.float64())])
    schema = schema.append(pa.field("value", pa.float64())).append(pa.field("text", pa.string()))
    with pq.ParquetWriter(tmp_path / "run.parquet", schema, compression="none") as writer:
        for group in range(200):
            text = pa.array([f"{group}-{row}-{'x' * 3000}" for row in range(100)])
            step, time = pa.array(range(100)), pa.array([1.0] * 100)
            columns = [pa.array(["a"] * 100), step, time, pa.nulls(100, pa.float64()), text]
            writer.write_table(pa.table(columns, schema=schema))
    (source,) = find_sources(tmp_path / "run.parquet")
    before, most = pa.total_allocated_bytes(), 0
    for number, _ in enumerate(source.read(source.files, Notes())):
        if number % 25 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert number == 19_999
    assert most < 0.75 * (tmp_path / "run.parquet").stat().st_size
