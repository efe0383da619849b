"""An offline run of wandb, out of a recording and back in."""

from pathlib import Path

import pytest
import wandb

from flexrec.recorder import OutputError, Recorder, Recording
from flexrec.recorder.integrations.importing.importer import import_runs
from flexrec.replay.export.wandb import write_wandb
from support.export_cases import CONFIG, export, recorded, same


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded(tmp_path)


def test_what_is_exported_and_imported_again_is_the_same(run: Path, tmp_path: Path) -> None:
    code, out, said = export(run, "--to", "wandb", "--out", tmp_path / "new" / "logs")
    assert code == 0
    assert out == f"{tmp_path}/new/logs: 25 rows of 5 keys\n"
    (place,) = (tmp_path / "new" / "logs" / "wandb").glob("offline-run-*")
    assert said.splitlines() == [
        "flexrec: 5 adds with the time of the last one of the same step",
        f"flexrec: wandb sync {place} sends it",
        "flexrec: not exported (only Python can read them): pair ((float64:1, float64:1))",
    ]
    (found,) = import_runs(tmp_path / "new" / "logs", tmp_path / "again.h5")
    assert (found.damage, dict(found.left_out)) == ([], {})
    same(run, found.path, "mixed", "weights")  # the last adds of their steps
    same(run, found.path, "train/loss", "note", "nan", within=1.0)
    with Recording(found.path) as again:
        assert again.config == CONFIG
        assert (again["train/loss"].time == again["mixed"].time).all()


def test_what_wandb_lacks_is_said(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.add({"_step": 1.0, "loss": 1.0}, step=-2)
        rec.add({"loss": 2.0}, step=1 << 40)
        rec.add({"loss": 3.0}, step=1 << 40)
        rec.add({"loss": 4.0}, step=3)
    _, _, said = export(rec.path, "--to", "wandb", "--out", tmp_path)
    assert said.splitlines()[:-1] == [
        "flexrec: _step: wandb has keys of this name itself",
        "flexrec: 1 value at steps below 0, which wandb refuses: left out",
        "flexrec: 1 value left out for the last one of the same key and step",
        "flexrec: 1 add with the time of the last one of the same step",
    ]
    (path,) = tmp_path.rglob("*.wandb")
    (found,) = import_runs(path, tmp_path / "again.h5")
    with Recording(found.path) as again:
        assert list(zip(again["loss"].step, again["loss"].value)) == [(3, 4.0), (1 << 40, 3.0)]  # noqa: B905


def test_a_project_has_a_name_that_wandb_takes(tmp_path: Path) -> None:
    folder = tmp_path / "100%: a#b?"
    folder.mkdir()
    assert export(recorded(folder), "--to", "wandb", "--out", tmp_path, "-k", "nan")[0] == 0


def test_wandbs_refusal_is_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise wandb.Error("no")

    monkeypatch.setattr(wandb, "init", refuse)
    with Recording(run) as recording, pytest.raises(OutputError, match=r"cannot write to .*: no$"):
        write_wandb(recording, list(recording), tmp_path)


@pytest.mark.parametrize("to", ["wandb", "mlflow", "trackio"])
def test_a_run_is_added_so_nothing_is_overwritten(run: Path, tmp_path: Path, to: str) -> None:
    code, _, said = export(run, "--to", to, "--out", tmp_path, "--force")
    assert code == 2
    assert f"--force does nothing with --to {to}" in said
