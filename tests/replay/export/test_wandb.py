"""An offline run of wandb, out of a recording and back in."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb

from flexrec.recorder import OutputError, Recorder, Recording
from flexrec.recorder.integrations.importing.importer import import_runs
from flexrec.replay.export.wandb import write_wandb
from support.export_cases import CONFIG, export, odd, recorded, same
from support.fake_http import answering


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


def test_the_part_of_an_export_that_was_killed_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    with monkeypatch.context() as patch, Recording(run) as recording:
        patch.setattr("flexrec.replay.export.wandb._value", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_wandb(recording, ["train/loss"], folder)
    (part,) = folder.glob("wandb/offline-run-*")
    for _ in range(2):
        _, _, said = export(run, "--to", "wandb", "--out", folder)
        assert said.count("is a part of a run") == 1
        assert f"{part} is a part of a run" in said


def interrupted(_: object) -> None:
    raise KeyboardInterrupt


def test_texts_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    assert export(odd(tmp_path), "--to", "wandb", "--out", tmp_path / "logs")[0] == 0
    (found,) = import_runs(tmp_path / "logs", tmp_path / "again.h5")
    with Recording(found.path) as run:
        assert run["note"].value == ["", "\\ud800", "\0", "1.5", 'a\n,"é"']
        assert run.config["deep"] == [{"a": None, "\\ud800": "\\ud801"}]


def test_a_folder_that_cannot_be_written_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wandb would write to the folder of temporary files."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Recording(run) as recording, pytest.raises(OutputError, match="Permission denied"):
        write_wandb(recording, list(recording), tmp_path / "logs")


def wandb_server(history: list[Any]) -> Callable[[str, dict[str, Any]], tuple[int, str]]:
    """Answers as wandb's server does to a run that is sent; keeps the rows of its history."""
    project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}
    bucket = {"id": "b", "name": "run", "project": project, "config": "{}", "historyLineCount": 0}

    def answer(path: str, message: dict[str, Any]) -> tuple[int, str]:
        data = {}
        if "upsertBucket" in message.get("query", ""):
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        elif "createRunFiles" in message.get("query", ""):
            data = {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        lines = message.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        history.extend(map(json.loads, lines))
        return 200, json.dumps({"data": data})

    return answer


def test_wandb_sync_sends_it(run: Path, tmp_path: Path) -> None:
    """wandb's own program reads the folder; a server on this machine gets what it sends."""
    assert export(run, "--to", "wandb", "--out", tmp_path / "logs", "-k", "train/loss")[0] == 0
    (place,) = (tmp_path / "logs" / "wandb").glob("offline-run-*")
    history = list[Any]()
    with answering(wandb_server(history)) as port:
        where = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": "a" * 40}
        own = {"HOME": str(tmp_path), "WANDB_ERROR_REPORTING": "false"}
        command: list[str | Path] = [Path(sys.executable).with_name("wandb"), "sync", place]
        done = subprocess.run(
            command,
            env={**os.environ, **where, **own},
            cwd=tmp_path,  # where it writes its logs
            check=True,
            capture_output=True,
            text=True,
        )
    assert "Finished syncing" in done.stderr
    with Recording(run) as recording:
        loss = recording["train/loss"]
        expected = zip(loss.step.tolist(), loss.value.tolist(), loss.time.tolist(), strict=True)
    sent = [(row["_step"], row["train/loss"], row["_timestamp"]) for row in history]
    assert sent == list(expected)


def test_a_key_that_wandb_does_not_take_is_said(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.add({"": 1.0, "loss": 2.0})
    _, out, said = export(tmp_path / "run.h5", "--to", "wandb", "--out", tmp_path / "logs")
    assert "1 row of" in out
    assert "the empty key: wandb has no place for it" in said
