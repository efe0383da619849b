"""Many recordings as a folder of Parquet files, read by those who will read it."""

import errno
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import (
    ExistsError,
    OutputError,
    QueryError,
    Recorder,
    Recording,
    RecordingError,
    UnknownKeyError,
    WorkerError,
)
from flexrec.replay import Runs
from flexrec.replay.export import dataset
from flexrec.replay.runs.workers.local import LocalWorkers
from flexrec.replay.runs.workers.spread import spread
from support.commands import flexrec
from support.worker_cases import done_then_dead

RUNS, STEPS = 5, 40


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """Runs of numbers, texts, and a key of arrays; recorded in no order of the names."""
    for i in reversed(range(RUNS)):
        path = tmp_path / "exp" / f"g{i % 2}" / f"run{i}.h5"
        with Recorder(path, config={"lr": 0.1 * i, "opt": {"name": "adam"}}, facts=False) as rec:
            for step in range(STEPS):
                rec.add(loss=1 / (step + 1) + i, acc=math.nan if step == 3 else float(step))
                if step % 10 == 0:
                    rec.add({"note": f"step {step}", "pair": [1.0, 2.0]})
                rec.step()
    return tmp_path / "exp"


def damage(path: Path) -> None:
    """Change the values of a recording, not its summary."""
    data = path.read_bytes()
    kept = len(data) * 2 // 3
    path.write_bytes(data[:kept] + bytes(len(data) - kept))


def sql(query: str) -> list[Any]:
    return duckdb.execute(query).fetchall()


def run(*arguments: object, code: int = 0) -> str:
    """What the command prints, in this process, on one line."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return " ".join(done.output.replace("│", " ").split())


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # Dask's own, of pandas 3.1
def test_duckdb_polars_and_dask_read_the_same_as_we(exp: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    found = Runs(exp).export(out)
    assert (found.runs, found.rows) == (RUNS, RUNS * (2 * STEPS + 4))
    assert found.other_keys == {"pair ((number, number))": RUNS}
    assert found.left_out == found.unfinished == []
    with Recording(exp / "g1" / "run3.h5") as run:
        loss = run["loss"]
        times, values = loss.time.tolist(), loss.value.tolist()
    where = "run = 'g1/run3' and key = 'loss'"
    rows = sql(f"select step, time, value from '{out}/values/*.parquet' where {where}")  # noqa: S608
    assert rows == list(zip(range(STEPS), times, values, strict=True))
    chosen = (pl.col("run") == "g1/run3") & (pl.col("key") == "loss")
    table = pl.scan_parquet(f"{out}/values/*.parquet").filter(chosen).collect()
    assert table["value"].to_list() == values
    assert table["time"].to_list() == times
    frame = dd.read_parquet(f"{out}/values", filters=[("run", "==", "g1/run3")])
    mine = frame[(frame["run"] == "g1/run3") & (frame["key"] == "loss")].compute()
    assert mine["value"].tolist() == values
    assert mine["step"].tolist() == list(range(STEPS))
    texts = f"select text from '{out}/values/*.parquet' where run = 'g0/run0' and key = 'note'"  # noqa: S608
    assert sql(texts) == [(f"step {step}",) for step in range(0, STEPS, 10)]
    joined = sql(
        f"""select r."config.lr", any_value(r."loss.last"), last(v.value order by v.step)
        from '{out}/runs.parquet' r join '{out}/values/*.parquet' v on r.name = v.run
        where v.key = 'loss' group by all order by all"""  # noqa: S608
    )
    assert [lr for lr, _, _ in joined] == [0.1 * i for i in range(RUNS)]
    assert [last for _, _, last in joined] == [said for _, said, _ in joined]


def test_rows_are_sorted_and_in_groups_of_a_useful_size(
    exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_GROUP", 100)
    monkeypatch.setattr(dataset, "_FILE", 1000)
    Runs(exp).sort("config.lr desc").export(tmp_path / "out")
    files = sorted((tmp_path / "out" / "values").iterdir())
    assert len(files) > 1
    groups = [
        pq.ParquetFile(file).metadata.row_group(i).num_rows
        for file in files
        for i in range(pq.ParquetFile(file).num_row_groups)
    ]
    assert min(groups[:-1]) >= 100
    assert max(groups) < 200
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    order = [(row["run"], row["key"]) for row in rows]
    assert order == sorted(order)
    assert len(order) == RUNS * (2 * STEPS + 4)
    runs = pq.read_table(tmp_path / "out" / "runs.parquet")
    assert runs["name"].to_pylist() == sorted(runs["name"].to_pylist())
    assert json.loads(runs["config"][0].as_py()) == {"lr": 0.0, "opt": {"name": "adam"}}
    assert runs["config.lr"].to_pylist() == [0.0, 0.2, 0.4, 0.1 * 1, 0.1 * 3]


def test_what_cannot_be_read_is_left_out_as_a_whole(exp: Path, tmp_path: Path) -> None:
    bad, killed = exp / "g0" / "run2.h5", exp / "killed.h5"
    damage(bad)
    rec = Recorder(tmp_path / "live.h5", facts=False)
    rec.add(loss=1.0)
    rec.flush()
    shutil.copyfile(tmp_path / "live.h5", killed)
    rec.close()
    out = tmp_path / "out"
    printed, error = flexrec("export", exp, "-o", f"{out}/", code=1)
    assert printed == f"{out}/: {(RUNS - 1) * (2 * STEPS + 4) + 1:,} rows of {RUNS} runs\n"
    assert f"left out: {bad} is damaged" in error
    assert "not ended, or killed, and exported as far as they are whole: killed\n" in error
    assert "pair ((number, number))" in error
    names = {"g0/run0", "g0/run4", "g1/run1", "g1/run3", "killed"}
    runs = set(pq.read_table(out / "values")["run"].to_pylist())
    assert runs == names == set(pq.read_table(out / "runs.parquet")["name"].to_pylist())
    with pytest.raises(RecordingError, match=r"nothing is exported: .* is damaged"):
        Runs(bad).export(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_workers_change_no_byte(exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    damage(exp / "g0" / "run2.h5")
    said = [
        flexrec("export", "exp", "-o", "out", "--force", *by, code=1)
        for by in ((), ("--workers", "2"))
    ]
    assert said[0] == said[1]
    assert "left out: exp/g0/run2.h5 is damaged" in said[0][1]
    alone, spread_out = (Runs("exp", workers=by) for by in (None, 2))
    found = [runs.export(tmp_path / f"{runs is alone}") for runs in (alone, spread_out)]
    assert found[0] == found[1]
    one, two, three = (contents(tmp_path / name) for name in ("out", "True", "False"))
    assert one == two == three
    assert sorted(one) == ["runs.parquet", "values/00000.parquet"]
    only = exp / "g0" / "run0.h5"
    assert "--workers does nothing without several" in run("export", only, "--workers", 2, code=2)


def test_a_worker_that_dies_or_does_not_see_the_folder(exp: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    paths = Runs(exp).paths
    sources = [dataset.Source(path.stem, path) for path in paths]

    def each(read: Any, paths: Sequence[str]) -> Any:
        work = partial(done_then_dead, work=read, marker=str(marker))
        return spread(work, paths, LocalWorkers(2), reads=str)

    def elsewhere(read: Any, paths: Sequence[str]) -> Any:
        there = partial(read.func, **{**read.keywords, "folder": str(tmp_path / "mnt")})
        return spread(there, paths, LocalWorkers(1), reads=str)

    table = Runs(exp).to_arrow()
    dataset.write_dataset(sources, table, tmp_path / "one", each=each)
    marker.touch()
    with pytest.warns(RuntimeWarning, match="ended by signal 9; another does its 1 recording"):
        dataset.write_dataset(sources, table, tmp_path / "two", each=each)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    with pytest.raises(WorkerError, match=r"a worker on \S+ does not see \S+mnt; workers need"):
        dataset.write_dataset(sources, table, tmp_path / "three", each=elsewhere)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "one", "two"]


def test_runs_and_keys_are_chosen(exp: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("export", exp, "-o", out, "--where", "config.lr > 0.25", "-k", "l*", "-k", "acc")
    table = pq.read_table(out / "values")
    assert set(table["run"].to_pylist()) == {"g1/run3", "g0/run4"}
    assert set(table["key"].to_pylist()) == {"loss", "acc"}
    run("export", exp / "g0" / "run0.h5", exp / "g1" / "run1.h5", "-o", tmp_path / "two")
    names = pq.read_table(tmp_path / "two" / "runs.parquet")["name"].to_pylist()
    assert names == ["g0/run0", "g1/run1"]
    with pytest.raises(UnknownKeyError, match="no run has a key that fits 'los'"):
        Runs(exp).export(tmp_path / "none", keys=["loss", "los"])
    with pytest.raises(QueryError, match="no run was chosen"):
        run("export", exp, "-o", out, "--where", "config.lr > 9")
    with pytest.raises(OutputError, match="give a name such as dataset/"):
        run("export", exp, "-o", tmp_path / "x.csv")
    assert "give --out FOLDER" in run("export", exp, code=2)
    assert "--to does nothing with several" in run(
        *("export", exp, "-o", out, "--to", "csv"), code=2
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "out", "two"]


def test_runs_of_one_name_from_two_places_are_told_apart(exp: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(exp / "g0", other)
    Runs(exp / "g0", other).export(tmp_path / "out")
    names = pq.read_table(tmp_path / "out" / "runs.parquet")["name"].to_pylist()
    assert names == [f"{where}/run{i}" for where in ("g0", "other") for i in (0, 2, 4)]
    assert set(pq.read_table(tmp_path / "out" / "values")["run"].to_pylist()) == set(names)


def test_only_a_dataset_is_replaced(exp: Path, tmp_path: Path) -> None:
    out, runs = tmp_path / "out", Runs(exp)
    out.mkdir()
    runs.export(out)  # an empty folder may be filled
    with pytest.raises(ExistsError, match="exists already"):
        runs.export(out)
    runs.where("config.lr > 0.25").export(out, overwrite=True)
    assert len(pq.read_table(out / "runs.parquet")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "out"]
    for name in ("mine.txt", "values/mine.parquet", "values/mine.txt"):
        (out / name).write_text("mine")
        with pytest.raises(OutputError, match=f"is not a dataset .* it holds {name}"):
            runs.export(out, overwrite=True)
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    with pytest.raises(OutputError, match="is not a dataset that flexrec wrote"):
        runs.export(exp, overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        runs.export(tmp_path / "file", overwrite=True)
    assert len(list(exp.rglob("*.h5"))) == RUNS


def test_an_error_leaves_what_was_there(
    exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    Runs(exp).export(out)
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "write_run_table", fail)
    with pytest.raises(KeyboardInterrupt):
        Runs(exp).export(out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "out"]


@pytest.fixture
def left(tmp_path: Path) -> list[Path]:
    """What killed exports left: two folders, one of them with a file of the user's in it."""
    folders = [tmp_path / f".out.{name}.partial" for name in ("0123abcd", "4567cdef")]
    for folder in folders:
        (folder / "values").mkdir(parents=True)
        (folder / "values" / "00000.parquet").write_bytes(b"PAR1")
        (folder / "parts").mkdir()
        (folder / "parts" / "0123abcd.arrow").write_bytes(b"")
    (folders[1] / "mine.txt").write_text("mine")
    return folders


KILLED = """
import os, signal, sys
from pathlib import Path
from flexrec.replay import Runs
from flexrec.replay.export import dataset

def wait(*_):
    print("writing", flush=True)
    signal.pause()

if sys.argv[3] == "write":
    dataset.write_run_table = wait
else:
    Path.rename = lambda old, new, rename=Path.rename: (rename(old, new), wait())
Runs(sys.argv[1]).export(Path(sys.argv[2]), overwrite=True)
"""


@pytest.mark.parametrize("at", ["write", "rename"])
def test_what_a_killed_export_left_is_removed_by_the_next_and_nothing_of_a_living_one(
    exp: Path, tmp_path: Path, at: str
) -> None:
    out = tmp_path / "out"
    Runs(exp).export(out)
    command = [sys.executable, "-c", KILLED, str(exp), str(out), at]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "writing\n"
            living = set(tmp_path.glob(".out.*"))
            assert len(living) == 1 + (at == "rename")
            Runs(exp).export(out, overwrite=True)
            assert set(tmp_path.glob(".out.*")) == living
        finally:
            child.kill()
    Runs(exp).export(out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "out"]


def test_a_dataset_whose_successor_was_killed_between_two_renames_is_put_back(
    exp: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    Runs(exp).export(out)
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    command = [sys.executable, "-c", KILLED, str(exp), str(out), "rename"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "writing\n"
        finally:
            child.kill()
    assert not out.exists()
    with pytest.raises(ExistsError, match="exists already"):
        Runs(exp).export(out)
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before
    with pytest.raises(UnknownKeyError):
        Runs(exp).export(out, keys=["no such key"], overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "out"]


def test_a_file_of_the_users_in_what_a_kill_left_stays(
    exp: Path, tmp_path: Path, left: list[Path]
) -> None:
    Runs(exp).export(tmp_path / "out")
    assert [folder.exists() for folder in left] == [False, True]
    assert (left[1] / "mine.txt").read_text() == "mine"


def test_without_locks_what_a_kill_left_is_removed_after_an_hour(
    exp: Path, tmp_path: Path, left: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for age, there in ((1800, True), (7200, False)):
        old = time.time() - age
        for path in (left[0], *left[0].rglob("*")):
            os.utime(path, (old, old))
        Runs(exp).export(tmp_path / "out", overwrite=True)
        assert left[0].exists() == there


def test_a_replaced_dataset_keeps_its_modes_and_attributes(exp: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Runs(exp).export(out)
    (out / "values" / "00000.parquet").chmod(0o604)
    for path, mode in ((out, 0o750), (out / "values", 0o710), (out / "runs.parquet", 0o600)):
        path.chmod(mode)
        os.setxattr(path, "user.mine", b"kept")
    paths = [out, *sorted(out.rglob("*"))]

    def properties() -> list[tuple[int, list[str]]]:
        return [(path.stat().st_mode, os.listxattr(path)) for path in paths]

    before = properties()
    Runs(exp).export(out, overwrite=True)
    assert properties() == before


def test_nothing_to_export(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    with pytest.raises(RecordingError, match="nothing is exported: no run"):
        Runs(tmp_path / "exp").export(tmp_path / "out")
    with Recorder(tmp_path / "exp" / "empty.h5", facts=False):
        pass
    found = Runs(tmp_path / "exp").export(tmp_path / "out")
    assert (found.runs, found.rows) == (1, 0)
    Runs(tmp_path / "exp").export(tmp_path / "out", overwrite=True)
