"""`flexrec import`: recordings of the runs of other tools."""

from pathlib import Path

from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import Recording


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
    assert (
        said == f"flexrec: {tmp_path}/logs/b/m.jsonl: line 2 is not a JSON object, and left out\n"
    )
    with Recording(tmp_path / "runs" / "a.h5") as recording:
        assert recording["loss"].value.tolist() == [1.0, 2.0]


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,loss\n0,1\n")
    assert run(tmp_path / "a.csv", "-o", tmp_path / "a.h5")[0] == 0
    assert run(tmp_path / "a.csv", "-o", tmp_path / "a.h5")[0] != 0
    assert run(tmp_path / "a.csv", "-o", tmp_path / "a.h5", "--force")[0] == 0
