"""MLflow's databases become recordings, as its folders do.

MLflow needs SQLAlchemy and alembic to make one. So the tables that it documents are made by SQL,
and where those two are there, a database that MLflow made is tried too.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, connect

import pytest

from flexrec.recorder import Recording, RecordingError
from flexrec.recorder.integrations.importing.importer import import_runs
from flexrec.recorder.integrations.importing.source import NOT_ENDED

TIME = 1_700_000_000_123  # milliseconds
LARGEST = sys.float_info.max
TABLES = """
    CREATE TABLE experiments (
        experiment_id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(256) NOT NULL,
        lifecycle_stage VARCHAR(32)
    );
    CREATE TABLE runs (
        run_uuid VARCHAR(32) NOT NULL PRIMARY KEY, name VARCHAR(250), status VARCHAR(9),
        lifecycle_stage VARCHAR(20), experiment_id INTEGER
    );
    CREATE TABLE metrics (
        key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL,
        run_uuid VARCHAR(32) NOT NULL, step BIGINT DEFAULT '0' NOT NULL,
        is_nan BOOLEAN DEFAULT '0' NOT NULL,
        PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan)
    );
    CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid);
    CREATE TABLE params (
        key VARCHAR(250) NOT NULL, value VARCHAR(8000) NOT NULL, run_uuid VARCHAR(32) NOT NULL,
        PRIMARY KEY (key, run_uuid)
    );
    CREATE TABLE tags (
        key VARCHAR(250) NOT NULL, value VARCHAR(8000), run_uuid VARCHAR(32) NOT NULL,
        PRIMARY KEY (key, run_uuid)
    );
"""
RUNS = [
    ("a0", "first/try", "RUNNING", "active", 2),
    ("b0", "first/try", "FINISHED", "active", 2),
    ("c0", "gone", "FINISHED", "deleted", 2),
    ("d0", "", "FINISHED", "active", 1),
]
METRICS = [
    *(("train/loss", 1 / (i + 3), TIME + i, i, 0) for i in range(4)),
    ("best", LARGEST, TIME, -5, 0),
    ("train/loss", -LARGEST, TIME + 9, 2, 0),
    ("best", 0.0, TIME, 7, 1),
]
VALUES = {  # what they are: steps, times, and values
    "train/loss": (
        [0, 1, 2, 3, 2],
        [(TIME + i) / 1000 for i in (0, 1, 2, 3, 9)],
        ["0.3333333333333333", "0.25", "0.2", "0.16666666666666666", "-inf"],
    ),
    "best": ([-5, 7], [TIME / 1000] * 2, ["inf", "nan"]),
}
CONFIG = {
    "lr": 1e-3,
    "size": 16,
    "amp": True,
    "name": "None of them",
    "tags": {"note": "two\nlines"},
}


def fill(base: Connection) -> None:
    base.executescript(TABLES)
    base.executemany(
        "INSERT INTO experiments VALUES (?, ?, 'active')", [(1, "Default"), (2, "a: b")]
    )
    base.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", RUNS)
    for run in ("a0", "b0", "c0"):
        base.executemany(
            f"INSERT INTO metrics VALUES (?, ?, ?, '{run}', ?, ?)",  # noqa: S608
            METRICS,
        )
        params = [("lr", "1e-3"), ("size", "16"), ("amp", "True"), ("name", "None of them")]
        base.executemany(f"INSERT INTO params VALUES (?, ?, '{run}')", params)  # noqa: S608
        tags = [("mlflow.runName", "first/try"), ("note", "two\nlines")]
        base.executemany(f"INSERT INTO tags VALUES (?, ?, '{run}')", tags)  # noqa: S608


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with four runs, one of them deleted, in two experiments."""
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    with closing(connect(path)) as base, base:
        fill(base)
    return path


def same_runs(path: Path, out: Path) -> None:
    """Import a database, and look at each recording."""
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    found = list(import_runs(path, out))
    inside = [each.path.relative_to(out).as_posix() for each in found]
    assert inside == ["Default/d0.h5", "a_ b/first_try.h5", "a_ b/first_try_2.h5"]
    assert [each.damage for each in found] == [[], [NOT_ENDED], []]
    assert [each.values for each in found] == [0, 7, 7]
    for each in found[1:]:
        with Recording(each.path) as run:
            assert run.config == CONFIG
            assert list(run.keys()) == list(VALUES)
            for key, (steps, times, values) in VALUES.items():
                assert run[key].step.tolist() == steps
                assert run[key].time.tolist() == times
                assert list(map(repr, run[key].value.tolist())) == values
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_metrics_params_and_tags_are_imported(path: Path, tmp_path: Path) -> None:
    same_runs(path, tmp_path / "runs")


def test_in_a_folder_the_database_is_in_the_names(path: Path, tmp_path: Path) -> None:
    found = list(import_runs(path.parent, tmp_path / "runs"))
    assert found[0].path == tmp_path / "runs" / "mlflow" / "Default" / "d0.h5"


KILLED = """
import os, sqlite3, sys
from test_mlflow_database import TIME, fill

base = sqlite3.connect(sys.argv[1])
base.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
with base:
    fill(base)
base.execute("PRAGMA cache_size = 1")
base.execute("BEGIN")
rows = [(f"k{i:0200}", 0.5, TIME, "a0", i, 0) for i in range(500)]
base.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
os._exit(9)
"""


def python(code: str, *words: str | Path) -> int:
    """Run a script that may import this file; return its exit code."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=Path(__file__).parent, check=False).returncode


@pytest.mark.parametrize("how", ["WAL", "DELETE"])
def test_what_a_killed_process_had_not_finished_is_undone_without_writing(
    tmp_path: Path, how: str
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    assert python(KILLED, store / "mlflow.db", how) == 9
    beside = {"WAL": "mlflow.db-wal", "DELETE": "mlflow.db-journal"}[how]
    assert (store / beside).stat().st_size > 4096
    (store / "mlflow.db-shm").unlink(missing_ok=True)  # as in a copy of the others
    same_runs(store / "mlflow.db", tmp_path / "runs")


def test_the_log_of_a_database_in_use_is_read(path: Path, tmp_path: Path) -> None:
    with closing(connect(path)) as base:
        base.execute("PRAGMA journal_mode = WAL")
        with base:
            base.execute("UPDATE runs SET name = 'new' WHERE run_uuid = 'd0'")
        assert path.with_name("mlflow.db-wal").stat().st_size
        first, *_ = import_runs(path, tmp_path / "runs")
    assert first.path.name == "new.h5"


def test_a_database_with_a_log_that_is_not_there_gets_none(path: Path, tmp_path: Path) -> None:
    with closing(connect(path)) as base:
        base.execute("PRAGMA journal_mode = WAL")
    same_runs(path, tmp_path / "runs")


def test_a_torn_database_is_said(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for length in (20, 5_000, len(data) - 100):
        path.write_bytes(data[:length])
        (found,) = import_runs(path, tmp_path / str(length))
        assert found.damage[0].startswith(f"{path}: cannot be read further (")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE metrics SET value = 'x' WHERE key = 'best'",
        "UPDATE metrics SET step = 1e300 WHERE key = 'best'",
        "UPDATE metrics SET timestamp = x'00ff' WHERE key = 'best'",
        "UPDATE metrics SET key = CAST(x'ff' AS TEXT) WHERE step = 7",
        "UPDATE metrics SET step = 9223372036854775807 WHERE key = 'best'",
        "UPDATE params SET value = x'ff'",
        "UPDATE tags SET value = NULL",
    ],
)
def test_rows_that_make_no_sense_do_no_harm(path: Path, tmp_path: Path, change: str) -> None:
    with closing(connect(path)) as base, base:
        base.execute(change)
    _, found, _ = import_runs(path, tmp_path / "runs")
    with Recording(found.path) as run:
        assert len(run["train/loss"]) == 5
        counted = [n for kind, n in found.left_out.items() if "replaced" not in kind]
        assert found.values + sum(counted) == 7


def no_metrics(base: Connection) -> None:
    base.execute("DROP TABLE metrics")


def a_view(base: Connection) -> None:
    base.execute("ALTER TABLE metrics RENAME TO others")
    base.execute("CREATE VIEW metrics AS SELECT * FROM others")


@pytest.mark.parametrize("change", [no_metrics, a_view])
def test_a_database_of_others_is_refused(
    path: Path, tmp_path: Path, change: Callable[[Connection], None]
) -> None:
    with closing(connect(path)) as base, base:
        change(base)
    with pytest.raises(RecordingError, match=r"cannot be imported; .*MLflow's \(….db\)"):
        list(import_runs(path, tmp_path / "runs"))


REAL = """
import sys
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from test_mlflow_database import TIME

client = MlflowClient(tracking_uri=f"sqlite:///{sys.argv[1]}")
client.set_terminated(client.create_run("0", run_name="d0").info.run_id)
experiment = client.create_experiment("a: b")
for number in range(3):
    run = client.create_run(experiment, run_name="first/try").info.run_id
    metrics = [Metric("train/loss", 1 / (i + 3), TIME + i, i) for i in range(4)]
    metrics += [
        Metric("best", float("inf"), TIME, -5),
        Metric("train/loss", float("-inf"), TIME + 9, 2),
        Metric("best", float("nan"), TIME, 7),
    ]
    params = {"lr": "1e-3", "size": "16", "amp": "True", "name": "None of them"}
    params = [Param(name, text) for name, text in params.items()]
    client.log_batch(run, metrics, params, [RunTag("note", "two\\nlines")])
    if number == 1:
        client.set_terminated(run)
    if number == 2:
        client.delete_run(run)
"""


def test_a_database_that_mlflow_made_is_imported(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="MLflow's databases are made by SQL alone")
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    assert python(REAL, path) == 0
    same_runs(path, tmp_path / "runs")
