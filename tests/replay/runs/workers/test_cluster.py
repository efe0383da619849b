"""A Dask cluster gives what this process would give: in any chunks, and when a worker dies."""

import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import MissingDependency, Recorder, RecordingError, WorkerError
from flexrec.replay import Definitions, Runs, Window, define
from flexrec.replay.plots.window import equal
from flexrec.replay.runs.comparing.bands import BANDS
from flexrec.replay.runs.workers import cluster
from flexrec.replay.runs.workers.cluster import ClusterWorkers, check_versions, connected
from flexrec.replay.runs.workers.spread import spread
from support.worker_cases import dask_cluster, ends_other, fatal, number, picky

if TYPE_CHECKING:
    from distributed import Client

COUNT = 12


@pytest.fixture(scope="module")
def scheduler_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a scheduler that has two workers."""
    with dask_cluster(tmp_path_factory.mktemp("dask")) as file:
        yield file


@pytest.fixture(scope="module")
def client(scheduler_file: Path) -> "Iterator[Client]":
    """A client of the cluster."""
    with connected(file=scheduler_file) as client:
        client.wait_for_workers(2)
        yield client
    # A task of Dask's whose error nobody asked for logs a traceback when it is collected; Python
    # 3.11 cannot do that while it parses a module that another test imports.
    gc.collect()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs whose mean has other bits if they are added in another order."""
    place = tmp_path_factory.mktemp("many")
    for i in range(COUNT):
        with Recorder(place / f"run{i:02d}.h5", config={"lr": i % 2, "i": i}) as rec:
            for step in range(20 - i):
                rec.add(train_loss=10.0 ** (i - 6) / (step + 1.7))
                rec.log(step)
    (place / "damaged.h5").write_bytes((place / "run00.h5").read_bytes()[:-50])
    return place


def drawn(runs: Runs, band: str, definitions: Definitions) -> list[Window]:
    """The means of two groups."""
    return runs.where("state = 'closed'").group("config.lr").play(definitions, band=band)


def test_chunks_change_nothing_nor_does_a_death(
    many: Path, client: "Client", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    plots, meter = {"loss": {"type": "line"}}, {"target": "loss", "key": "train_loss"}
    deadly = {"type": "support.deadly_meter.DeadlyMeter", "args": {"marker": str(marker)}}
    definitions = define(plots, {"train_loss": {**meter, **deadly}})

    @settings(max_examples=5, deadline=None)
    @given(st.integers(1, COUNT), st.sampled_from(BANDS))
    def check(size: int, band: str) -> None:
        monkeypatch.setattr("flexrec.replay.runs.workers.spread._MOST", size)
        monkeypatch.setattr("flexrec.replay.runs.workers.spread._EACH", 0.1)
        found = drawn(Runs(many, workers=client), band, definitions)
        wanted = drawn(Runs(many), band, definitions)
        assert len(found) == len(wanted) == 1
        assert equal(found[0], wanted[0])

    check()
    assert len(client.nthreads()) == 2
    marker.touch()
    with pytest.warns(RuntimeWarning, match=r"1 worker of the cluster was lost \(tcp://127"):
        (found,) = drawn(Runs(many, workers=client), "std", definitions)
    assert not marker.exists()
    assert len(client.nthreads()) == 1
    (wanted,) = drawn(Runs(many), "std", definitions)
    assert equal(found, wanted)


def test_the_table_is_the_same(
    many: Path, client: "Client", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for workers in (None, client):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"{workers is None}"))
        runs = Runs(many, workers=workers)
        found.append((runs.columns, runs.records(), str(runs), runs.notes()))
    assert found[0] == found[1]
    assert len(found[0][1]) == COUNT + 1


def run(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; return what it printed."""
    done = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def test_the_commands(many: Path, scheduler_file: Path, tmp_path: Path) -> None:
    at = ("--scheduler-file", scheduler_file)
    address = json.loads(scheduler_file.read_text())["address"]
    out = run("runs", many, "--scheduler", address, "--json")
    assert len(json.loads(out)["runs"]) == COUNT + 1
    plot = ("--where", "config.i < 4", "-p", "loss", "--save")
    run("replay", many, *plot, tmp_path / "a.json", *at)
    run("replay", many, *plot, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    for name, by in (("a", at), ("b", ())):
        run("export", many, "--where", "state = 'closed'", "-o", tmp_path / name, *by)
    for file in ("runs.parquet", "values/00000.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert "choose one of --workers" in run("runs", many, "--workers", 2, *at, code=2)
    one = many / "run00.h5"
    assert "do nothing without a folder" in run("replay", one, "--workers", 2, *at, code=2)


def test_errors_are_raised_here(client: "Client", tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i}.txt") for i in range(4)]
    for i, path in enumerate(files):
        Path(path).write_text(str(i))
    with pytest.raises(RecordingError, match=r"2\.txt is 2; overwrite=True"):
        list(spread(picky, files, ClusterWorkers(client), reads=str))
    assert list(spread(number, files, ClusterWorkers(client), reads=str)) == [0, 1, 2, 3]


def test_what_is_no_cluster(
    client: "Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER", 0.5)
    (tmp_path / "stale.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    (tmp_path / "other.json").write_text("[]")
    for file, says in (
        ("none.json", "does not exist; a Dask scheduler writes it"),
        ("other.json", "is no file that a Dask scheduler wrote"),
        (
            "stale.json",
            r"no Dask scheduler answers at tcp://127\.0\.0\.1:9, the address in .*stale",
        ),
    ):
        with pytest.raises(WorkerError, match=says), connected(file=tmp_path / file):
            pass
    with pytest.raises(TypeError, match=r"synchronous distributed\.Client, not str"):
        Runs(tmp_path, workers="tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependency, match="a Dask cluster needs distributed, which is not"):
        Runs(tmp_path, workers=client)


def test_workers_of_another_version(
    many: Path, client: "Client", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cluster, "version", lambda _: "99.0")
    with pytest.raises(WorkerError, match=r"has flexrec \S+; install flexrec 99\.0, the version"):
        Runs(many, workers=client)
    with pytest.raises(WorkerError, match="the worker tcp://a:1 has no flexrec; install"):
        check_versions({"tcp://a:1": {"packages": {"flexrec": None}}})


def test_the_scheduler_ends(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i}.txt") for i in range(4)]
    with dask_cluster(tmp_path) as file, connected(file=file) as client:
        client.wait_for_workers(2)
        for path in files:
            Path(path).write_text(str(client.run_on_scheduler(os.getpid)))
        with pytest.raises(WorkerError, match=r"the Dask scheduler has ended|does not answer any"):
            list(spread(ends_other, files, ClusterWorkers(client), reads=str))


def test_a_cluster_without_workers(
    many: Path, client: "Client", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last test of this file: no worker is left."""
    files = [str(tmp_path / f"{i}.txt") for i in range(4)]
    for i, path in enumerate(files):
        Path(path).write_text(str(i))
    monkeypatch.setattr(cluster, "_WORKERS", 0.5)
    monkeypatch.setattr(cluster, "_ANSWER", 1.0)
    with (
        pytest.warns(RuntimeWarning, match="lost"),
        pytest.raises(WorkerError, match="has had no workers for"),
    ):
        list(spread(fatal, files, ClusterWorkers(client), reads=str))
    with pytest.raises(WorkerError, match="has had no workers for"):
        list(spread(number, files, ClusterWorkers(client), reads=str))
