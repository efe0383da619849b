"""trackio's databases become recordings."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from trackio import sqlite_storage

from flexrec.recorder import Recording, RecordingError
from flexrec.recorder.integrations.importing.importer import import_runs

SCRIPT = """
import trackio

trackio.init(project="digits", name="first run", config={"lr": 0.1, "n": {"a": 1}})
for step in range(3):
    values = {"loss": 1 / (step + 3), "train": {"acc": float("nan")}, "note": "hi"}
    trackio.log({**values, "list": [1.5, float("nan")]})
trackio.log({"h": trackio.Histogram([1, 2, 3.5]), "loss": float("-inf")}, step=10)
trackio.log({"table": trackio.Table(columns=["a"], data=[[1]])}, step=11)
trackio.finish()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that trackio itself recorded."""
    folder = tmp_path_factory.mktemp("trackio")
    where = {**os.environ, "TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT], env=where, check=True, capture_output=True)
    return folder


def test_rows_and_config_are_imported(store: Path, tmp_path: Path) -> None:
    before = sorted(store.iterdir())
    (found,) = import_runs(store, tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "digits" / "first run.h5"
    assert (found.damage, dict(found.left_out)) == ([], {"trackio.table": 1})
    with Recording(found.path) as run:
        assert run.config == {"lr": 0.1, "n": {"a": 1}}
        assert run["loss"].value.tolist() == [1 / 3, 1 / 4, 1 / 5, -float("inf")]
        assert run["loss"].step.tolist() == [0, 1, 2, 10]
        assert list(map(repr, run["train/acc"].value.tolist())) == ["nan"] * 3
        assert run["note"].value == ["hi"] * 3
        assert repr(run["list"].value[0].tolist()) == "[1.5, nan]"
        assert run["h"].value[0][0].sum() == 3
        assert abs(run["loss"].time[0] - (store / "digits.db").stat().st_mtime) < 600
    assert sorted(store.iterdir()) == before


def test_what_is_in_the_log_of_a_database_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that goes on, or was killed."""
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path)
    storage = sqlite_storage.SQLiteStorage
    storage.bulk_log("p", "a", [{"x": 1.0}], steps=[4])
    with closing(sqlite3.connect(tmp_path / "p.db")) as base:
        base.execute("PRAGMA journal_mode = WAL")
        storage.bulk_log("p", "a", [{"x": 2.0}], steps=[3])
        assert (tmp_path / "p.db-wal").stat().st_size
        (found,) = import_runs(tmp_path / "p.db", tmp_path / "runs")
    with Recording(found.path) as run:
        assert run["x"].step.tolist() == [3, 4]


def test_a_torn_database_is_said(store: Path, tmp_path: Path) -> None:
    torn, data = tmp_path / "torn.db", (store / "digits.db").read_bytes()
    for length in (20, 5_000, len(data) // 2, len(data) - 100):
        torn.write_bytes(data[:length])
        (found,) = import_runs(torn, tmp_path / str(length))
        assert found.damage[0].startswith(f"{torn}: cannot be read further (")
        assert not found.values


def base_of(path: Path, *rows: tuple[object, ...]) -> Path:
    """A database as trackio's older versions made it, with rows of a step, a time and values."""
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_name, step, timestamp, metrics)"
        )
        for row in rows:
            base.execute("INSERT INTO metrics VALUES (NULL, 'run', ?, ?, ?)", row)
    return path


def test_rows_that_make_no_sense_are_counted(tmp_path: Path) -> None:
    time = "2026-01-01T00:00:00+00:00"
    bad = [
        (1, time, "{"),
        (1, time, "[1]"),
        (1, time, "[" * 100_000),
        (1, time, None),
        (1, "yesterday", '{"x": 1}'),
        (1, 5, '{"x": 1}'),
        ("one", time, '{"x": 1}'),
        (1, time, '{"h": {"_type": "trackio.histogram", "values": [1], "bins": [1]}}'),
    ]
    path = base_of(tmp_path / "old.db", *bad, (2, time, json.dumps({"x": 0.5, "n": "Infinity"})))
    (found,) = import_runs(path, tmp_path / "runs")
    assert found.left_out == {"damaged row": len(bad)}
    with Recording(found.path) as run:
        assert (run["x"].value.tolist(), run["n"].value.tolist()) == ([0.5], [float("inf")])
        assert run["x"].time.tolist() == [1767225600.0]


def test_numbers_that_are_too_large_and_what_is_not_utf8_are_counted(tmp_path: Path) -> None:
    time = "2026-01-01T00:00:00+00:00"
    row = '{"x": 1e999, "y": 1.0, "note": "caf\u00e9"}'.encode("latin-1")
    path = base_of(tmp_path / "old.db")
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("INSERT INTO metrics VALUES (1, 'run', 1, ?, CAST(? AS TEXT))", (time, row))
    (found,) = import_runs(path, tmp_path / "runs")
    with Recording(found.path) as run:
        assert {key: list(series.value) for key, series in run.series(run).items()} == {
            "y": [1.0],
            "note": ["caf\ufffd"],
        }
    told = list(found.left_out)
    assert any("not UTF-8" in each for each in told)
    assert any("'x'" in each for each in told)
    assert set(found.left_out.values()) == {1}


def test_other_databases_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "text.db").write_text("no database")
    with closing(sqlite3.connect(folder / "other.db")) as base:
        base.execute("CREATE TABLE metrics (id INTEGER)")
        base.execute("CREATE VIEW more AS SELECT 1")
    with closing(sqlite3.connect(folder / "view.db")) as base:
        base.execute(
            "CREATE VIEW metrics AS SELECT 1 id, 2 run_name, 3 step, 4 timestamp, 5 metrics"
        )
    for path in (*folder.iterdir(), folder):
        with pytest.raises(RecordingError, match=r"cannot be imported|nothing to import"):
            list(import_runs(path, tmp_path / "runs"))
