"""`flexrec import`: recordings of the runs of other tools."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import Recorder, Recording


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["import", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_what_each_run_has_is_printed(tmp_path: Path) -> None:
    (tmp_path / "logs" / "b").mkdir(parents=True)
    (tmp_path / "logs" / "a.csv").write_text("step,loss\n0,1\n1,2\n")
    (tmp_path / "logs" / "b" / "m.jsonl").write_text('{"step": 0, "loss": 1}\n{"st')
    code, out, said = run(tmp_path / "logs", "-o", tmp_path / "runs")
    assert code == 0
    assert out.splitlines() == [
        f"{tmp_path}/runs/a.h5: 2 values of 1 key",
        f"{tmp_path}/runs/b/m.h5: 1 value of 1 key",
    ]
    assert said == (
        f"flexrec: {tmp_path}/runs/b/m.h5: "
        f"{tmp_path}/logs/b/m.jsonl: line 2 is not a JSON object, and left out\n"
    )
    with Recording(tmp_path / "runs" / "a.h5") as recording:
        assert recording["loss"].value.tolist() == [1.0, 2.0]


def test_each_message_says_of_which_run_it_is(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for name in "ab":
        (tmp_path / "logs" / f"{name}.jsonl").write_text('{"step": "x", "loss": 1}\n')
    _, _, said = run(tmp_path / "logs", "-o", tmp_path / "runs")
    for name, line in zip("ab", said.splitlines(), strict=True):
        assert line.startswith(f"flexrec: {tmp_path}/runs/{name}.h5: not imported: step that is")


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,loss\n0,1\n")
    assert run(tmp_path / "a.csv", "-o", tmp_path / "a.h5")[0] == 0
    assert run(tmp_path / "a.csv", "-o", tmp_path / "a.h5")[0] != 0
    assert run(tmp_path / "a.csv", "-o", tmp_path / "a.h5", "--force")[0] == 0


def test_processes_import_a_run_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    for i in range(3):
        (tmp_path / "logs" / f"{i}.csv").write_text(f"step,loss\n0,{i}\n")
    (tmp_path / "logs" / "2.jsonl").write_text('{"step": 0, "loss": 2, "odd": {"x": []}}\n{"st')
    told = [run("logs", "-o", "one"), run("logs", "-o", "two", "--workers", 2)]
    assert "is not a JSON object" in told[0][2]
    assert told[0] == (0, *(text.replace("two", "one") for text in told[1][1:]))
    monkeypatch.chdir(tmp_path / "logs")
    told = [run(".", "-o", "../three"), run(".", "-o", "../four", "--workers", 2)]
    assert told[0] == (0, *(text.replace("four", "three") for text in told[1][1:]))
    monkeypatch.chdir(tmp_path)
    for name in ("0.h5", "1.h5", "2.h5", "2_2.h5"):
        with Recording(Path("one", name)) as a, Recording(Path("two", name)) as b:
            assert a["loss"].value.tolist() == b["loss"].value.tolist()
    Path("two", "0.h5").unlink()
    assert run("logs", "-o", "two", "--workers", 2)[0] == 1  # the others exist
    assert not Path("two", "0.h5").exists()


def test_what_exists_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("step,loss\n0,1\n")
    (tmp_path / "runs").mkdir()
    Recorder(tmp_path / "runs" / "b.h5").close()
    assert run(tmp_path, "-o", tmp_path / "runs")[0] == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["b.h5"]
