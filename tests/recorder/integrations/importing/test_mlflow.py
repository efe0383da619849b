"""MLflow's folders of runs become recordings."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from flexrec.recorder import Recording, RecordingError
from flexrec.recorder.integrations.importing.importer import Imported, import_runs

TIME = 1_700_000_000_123  # milliseconds


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of one name in an experiment, and a deleted one, that MLflow itself wrote."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.create_experiment('digits: "all"')
    for number in range(3):
        run = client.create_run(experiment, run_name="first/try")
        client.log_batch(
            run.info.run_id,
            metrics=[
                *(Metric("train/loss", 1 / (i + 3), TIME + i, i) for i in range(4)),
                Metric("best", float("inf"), TIME, -5),
                Metric("best", float("nan"), TIME, 7),
            ],
            params=[Param("lr", "1e-3"), Param("size", "16"), Param("amp", "True")],
            tags=[RunTag("note", "two\nlines")],
        )
        client.set_terminated(run.info.run_id)
        if number == 2:
            client.delete_run(run.info.run_id)
    return tmp_path / "mlruns"


def imported(path: Path, out: Path) -> list[Imported]:
    return list(import_runs(path, out))


def test_metrics_params_and_tags_are_imported(folder: Path, tmp_path: Path) -> None:
    found = imported(folder, tmp_path / "runs")
    inside = [each.path.relative_to(tmp_path / "runs").as_posix() for each in found]
    assert inside == ["digits_ _all_/first_try.h5", "digits_ _all_/first_try_2.h5"]
    for each in found:
        assert (each.damage, each.values, each.keys) == ([], 6, 2)
        with Recording(each.path) as run:
            assert run.config["tags"]["note"] == "two\nlines"
            assert {name: run.config[name] for name in ("lr", "size", "amp")} == {
                "lr": 1e-3,
                "size": 16,
                "amp": True,
            }
            assert run["train/loss"].value.tolist() == [1 / (i + 3) for i in range(4)]
            assert run["train/loss"].step.tolist() == [0, 1, 2, 3]
            assert run["train/loss"].time.tolist() == [(TIME + i) / 1000 for i in range(4)]
            assert list(map(repr, run["best"].value.tolist())) == ["inf", "nan"]
            assert run["best"].step.tolist() == [-5, 7]


def test_an_experiment_and_a_run_have_less_in_their_names(folder: Path, tmp_path: Path) -> None:
    (experiment,) = (each for each in folder.iterdir() if each.name not in ("0", ".trash"))
    (run, *_) = runs(folder)
    outs = [each.path for each in imported(experiment, tmp_path / "a")]
    assert outs[0] == tmp_path / "a" / "digits_ _all_" / "first_try.h5"
    (alone,) = imported(run, tmp_path / "b")
    assert alone.path == tmp_path / "b" / "first_try.h5"


def runs(folder: Path) -> Iterator[Path]:
    """The folders of the runs that are not deleted."""
    for path in sorted(folder.glob("*/*/meta.yaml")):
        if "lifecycle_stage: active" in path.read_text():
            yield path.parent


def test_a_run_that_has_not_ended_is_said(folder: Path, tmp_path: Path) -> None:
    run, *_ = runs(folder)
    MlflowClient(tracking_uri=folder.as_uri()).update_run(run.name, "RUNNING")
    (found,) = imported(run, tmp_path / "runs")
    assert found.damage == ["the run has not ended, or was killed"]


def test_a_torn_last_line_is_said(folder: Path, tmp_path: Path) -> None:
    run, *_ = runs(folder)
    for more in ("1700000000126 0.1", "1700000000126 0.16666 4"):  # each would be a value
        with (run / "metrics" / "train" / "loss").open("a") as file:
            file.write(more)
    (found,) = imported(run, tmp_path / "runs")
    assert found.damage == [f"{run}/metrics/train/loss: line 5 is not whole, and left out"]
    assert found.values == 6


@pytest.mark.parametrize(
    "line", ["a 1 1", "5 1 x", "5", "1 1 1 1e999 x", f"5 1 {10**30}", "5 1 1.5", "5 1e999 1"]
)
def test_a_line_that_makes_no_sense_is_named(folder: Path, tmp_path: Path, line: str) -> None:
    run, *_ = runs(folder)
    (run / "metrics" / "best").write_text(f"{line}\n7 0.5 3\n")
    (found,) = imported(run, tmp_path / "runs")
    is_named = len(found.damage) == 1 or sum(found.left_out.values()) == 1
    with Recording(found.path) as recording:
        assert recording["best"].value.tolist()[-1] == 0.5
        assert is_named == (len(recording["best"]) == 1)


def test_params_are_neither_infinity_nor_changed_unsaid(folder: Path, tmp_path: Path) -> None:
    run, *_ = runs(folder)
    for name, data in {"large": b"1e999", "inf": b"-inf", "note": b"caf\xe9"}.items():
        (run / "params" / name).write_bytes(data)
    (found,) = imported(run, tmp_path / "runs")
    with Recording(found.path) as recording:
        config = recording.config
    assert [config[name] for name in ("large", "inf", "note")] == [
        "1e999",
        float("-inf"),
        "caf\ufffd",
    ]
    ((said, count),) = found.left_out.items()
    assert "not UTF-8" in said
    assert count == 1


def test_a_file_meta_that_makes_no_sense_is_no_run(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*/*/meta.yaml"):
        path.write_text("[" * 10_000)
    with pytest.raises(RecordingError, match="nothing to import"):
        imported(folder, tmp_path / "runs")
