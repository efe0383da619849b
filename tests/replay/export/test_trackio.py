"""A run in trackio's store, out of a recording and back in."""

from pathlib import Path
from typing import Any

import pytest
from trackio import sqlite_storage

from flexrec.recorder import OutputError, Recorder, Recording
from flexrec.recorder.integrations.importing.importer import import_runs
from flexrec.replay.export.trackio import write_trackio
from support.export_cases import CONFIG, export, odd, recorded, same


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "digits").mkdir()
    return recorded(tmp_path / "digits")


def test_what_is_exported_and_imported_again_is_the_same(run: Path, tmp_path: Path) -> None:
    code, out, said = export(run, "--to", "trackio", "--out", tmp_path / "store")
    assert code == 0
    assert out == f"{tmp_path}/store: 25 rows of 5 keys\n"
    assert "trackio has times in microseconds" in said
    (found,) = import_runs(tmp_path / "store", tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "digits" / "run.h5"
    assert (found.damage, dict(found.left_out)) == ([], {})
    same(run, found.path, "train/loss", "note", "nan", "mixed", "weights", within=1e-6)
    with Recording(found.path) as again:
        assert again.config == CONFIG


def test_trackio_reads_it_and_each_export_is_a_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert export(run, "--to", "trackio", "--out", tmp_path / "store")[0] == 0
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "store")
    storage = sqlite_storage.SQLiteStorage
    assert storage.get_projects() == ["digits"]
    assert storage.get_runs("digits") == ["run", "run"]
    rows = storage.get_logs("digits", "run")
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [
        1 / (i + 3) for i in range(5)
    ]
    found = list(import_runs(tmp_path / "store", tmp_path / "runs"))
    assert [each.path.name for each in found] == ["run.h5", "run_2.h5"]


def test_an_export_that_was_killed_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(project: str, *args: Any, **named: Any) -> None:
        if list((tmp_path / "store").glob("*.db")):
            raise KeyboardInterrupt
        log(project, *args, **named)

    log = sqlite_storage.SQLiteStorage.bulk_log
    monkeypatch.setattr(sqlite_storage.SQLiteStorage, "bulk_log", staticmethod(write))
    monkeypatch.setattr("flexrec.replay.export.trackio._ROWS", 3)
    with Recording(run) as opened, pytest.raises(KeyboardInterrupt):
        write_trackio(opened, ["nan"], tmp_path / "store")
    (found,) = import_runs(tmp_path / "store", tmp_path / "runs")
    assert found.damage == ["the export of this run was not finished, or killed"]
    assert found.values == 3


def test_trackios_refusal_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "a_system"  # a name that trackio keeps for itself
    folder.mkdir()
    with Recording(recorded(folder)) as run, pytest.raises(OutputError, match="'a_system' is not"):
        write_trackio(run, ["nan"], tmp_path / "store")


def test_what_trackio_refuses_is_written_otherwise_or_said(tmp_path: Path) -> None:
    code, out, said = export(odd(tmp_path), "--to", "trackio", "--out", tmp_path / "store")
    assert (code, out) == (0, f"{tmp_path}/store: 6 rows of 2 keys\n")
    assert "5 values left out: the time is not in the years from 1970 to 9999" in said
    (found,) = import_runs(tmp_path / "store", tmp_path / "again.h5")
    with Recording(found.path) as run:
        assert run["note"].value == ["", "\\ud800", "\0", "1.5", 'a\n,"é"']
        assert run["loss"].value.tolist() == [0.0]
        assert repr(run.config["nan"]) == "nan"
        assert run.config["big"] == f"{10**30}"
        assert run.config["deep"] == [{"a": None, "\\ud800": "\\ud801"}]


def test_a_run_without_values_is_said(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False, config=CONFIG) as rec:
        pass
    code, _, said = export(rec.path, "--to", "trackio", "--out", tmp_path / "store")
    assert code == 0
    assert "trackio has no runs without values: nothing was written" in said
