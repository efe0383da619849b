"""A run of MLflow, out of a recording and back in."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from flexrec.recorder import OutputError, Recorder, Recording
from flexrec.recorder.events import Add
from flexrec.recorder.integrations.importing.importer import import_runs
from flexrec.replay.export.mlflow import _Metrics, metric_names, write_mlflow
from support.export_cases import CONFIG, export, odd, recorded, same


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "digits").mkdir()
    return recorded(tmp_path / "digits")


def test_what_is_exported_and_imported_again_is_the_same(run: Path, tmp_path: Path) -> None:
    code, out, said = export(run, "--to", "mlflow", "--out", tmp_path / "mlruns")
    assert code == 0
    assert out == f"{tmp_path}/mlruns: 10 rows of 2 keys\n"
    assert "MLflow has times in milliseconds" in said
    assert "not exported (MLflow takes numbers alone): note (text), mixed" in said
    (found,) = import_runs(tmp_path / "mlruns", tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "digits" / "run.h5"
    same(run, found.path, "train/loss", "nan", within=0.00051)
    with Recording(found.path) as again:
        assert again.config == {**CONFIG, "sizes": "[1, 2]"}


def test_the_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s: "1"'
    folder.mkdir()
    for _ in range(2):  # the experiment is made, and then there
        assert export(recorded(folder), "--to", "mlflow", "--out", tmp_path / "mlruns")[0] == 0
        (folder / "run.h5").unlink()


def test_mlflows_client_reads_it(run: Path, tmp_path: Path) -> None:
    place = (tmp_path / "mlruns").as_uri()
    assert export(run, "--to", "mlflow", "--out", place)[0] == 0
    client = MlflowClient(tracking_uri=place)
    experiment = client.get_experiment_by_name("digits")
    (made,) = client.search_runs([experiment.experiment_id])
    assert (made.info.run_name, made.info.status) == ("run", "FINISHED")
    assert made.data.params == {"lr": "0.1", "name": "a", "sizes": "[1, 2]"}
    values = [each.value for each in client.get_metric_history(made.info.run_id, "train/loss")]
    assert values == [1 / (i + 3) for i in range(5)]


def test_names_that_mlflow_refuses_are_changed_and_said(tmp_path: Path) -> None:
    keys = ("loss", "loss/a", "w[0]", "w_0_", "../up", "/", "a//b", "é:1 -.")
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.add(dict.fromkeys(keys, 1.0))
    code, _, said = export(rec.path, "--to", "mlflow", "--out", tmp_path / "mlruns")
    assert code == 0
    assert "loss as loss_2, w[0] as w_0_, w_0_ as w_0__2" in said
    (found,) = import_runs(tmp_path / "mlruns", tmp_path / "again.h5")
    assert (found.keys, found.values) == (len(keys), len(keys))


def test_names_are_of_their_own_and_short() -> None:
    keys = ["a", "a/b", "a?", "a_", f"{'x' * 300}1", f"{'x' * 300}2"]
    names = metric_names(keys, as_files=True)
    assert len(set(names.values())) == len(keys)
    assert max(map(len, names.values())) <= 250
    assert metric_names(["a", "a/b"], as_files=False) == {"a": "a", "a/b": "a/b"}


def test_mlflows_refusal_is_one_sentence(run: Path) -> None:
    with Recording(run) as recording, pytest.raises(OutputError, match=r"to none://here: .+") as no:
        write_mlflow(recording, ["nan"], "none://here")
    assert "\n" not in str(no.value)


def test_times_that_mlflow_refuses_are_left_out_and_said(tmp_path: Path) -> None:
    code, out, said = export(odd(tmp_path), "--to", "mlflow", "--out", tmp_path / "mlruns")
    assert (code, out) == (0, f"{tmp_path}/mlruns: 1 row of 1 key\n")
    assert "5 values left out: the time is not in the years from 1970 to 9999" in said


@pytest.mark.parametrize(("created", "start"), [(1e9, 1_000_000_000_000), (1e300, None)])
def test_a_run_has_its_own_begin_and_end(tmp_path: Path, created: float, start: int | None) -> None:
    with Recorder(tmp_path / "run.h5", facts=False, created=created) as rec:
        for step, time in enumerate((1e9 + 60, 1e9 + 90, 1e9 + 30)):
            rec.record(Add({"loss": 0.5}, step, time))
    place = (tmp_path / "mlruns").as_uri()
    assert export(rec.path, "--to", "mlflow", "--out", place)[0] == 0
    client = MlflowClient(tracking_uri=place)
    experiments = [each.experiment_id for each in client.search_experiments()]
    (made,) = client.search_runs(experiments)
    if start is not None:
        assert (made.info.start_time, made.info.end_time) == (start, 1_000_000_090_000)
    else:
        assert made.info.start_time == made.info.end_time


def test_a_database_has_one_of_equal_rows() -> None:
    nan = float("nan")
    adds = [
        Add({"a": 1.0, "b": 1.0}, 0, 0.0001),
        Add({"a": 1.0, "b": nan}, 0, 0.0002),
        Add({"a": 2.0, "b": nan}, 0, 0.0002),
        Add({"a": 2.0, "b": nan}, 1, 0.0002),
        Add({"a": 2.0, "b": nan}, 1, 0.1),
    ]
    names = {"a": "a", "b": "b"}
    rows, lines = (_Metrics(adds, names, are_rows=are_rows) for are_rows in (True, False))
    assert (len(list(rows)), len(list(lines))) == (8, 10)
    assert rows.notes() == [
        "2 values left out: a database has one of the equal ones of a key, step and millisecond"
    ]
    assert not lines.notes()
