"""`flexrec export`: CSV out of a recording."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import Recorder, Recording, RecordingError

FLEXREC = Path(sys.executable).with_name("flexrec")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Numbers, texts, a key of both, and arrays."""
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        for i in range(3):
            rec.add({"loss": 1 / (i + 1), "layer0/mean": float("nan"), "note": 'a,"b"\nc'})
            rec.add(mixed=0.5 if i else "first", pair=(np.ones(2), np.zeros(2)), late=i)
            rec.step()
        rec.log()
    return path


def exported(run: Path, *options: object) -> list[dict[str, str]]:
    """The rows that come out."""
    done = CliRunner().invoke(app, ["export", str(run), *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_every_value_is_a_row_and_reads_back_exactly(run: Path) -> None:
    rows = exported(run)
    assert [row["key"] for row in rows] == [
        key for key in ("loss", "layer0/mean", "note", "mixed", "late") for _ in range(3)
    ]
    with Recording(run) as recording:
        loss = recording["loss"]
        assert [float(row["value"]) for row in rows[:3]] == loss.value.tolist()
        assert [float(row["time"]) for row in rows[:3]] == loss.time.tolist()
        assert [int(row["step"]) for row in rows[:3]] == [0, 1, 2]
    assert rows[3]["value"] == "nan"
    assert rows[6]["value"] == 'a,"b"\nc'
    assert [row["value"] for row in rows[9:12]] == ["first", "0.5", "0.5"]


def test_keys_are_chosen_by_name_and_pattern_in_the_recordings_order(run: Path) -> None:
    rows = exported(run, "-k", "late", "-k", "l*")
    assert list(dict.fromkeys(row["key"] for row in rows)) == ["loss", "layer0/mean", "late"]


def test_what_csv_cannot_hold_is_told(run: Path) -> None:
    done = subprocess.run([FLEXREC, "export", run], capture_output=True, text=True, check=True)
    assert done.stderr == ("flexrec: left out, for Python alone: pair ((float64:1, float64:1))\n")


def test_a_file_is_written_once(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.csv"
    done = CliRunner().invoke(app, ["export", str(run), "-o", str(out), "-k", "loss"])
    assert done.stdout == f"{out}: 3 rows of 1 key\n"
    whole = out.read_text()
    assert whole.startswith("key,step,time,value\nloss,0,")
    with pytest.raises(RecordingError, match="exists already; --force"):
        exported(run, "-o", out)
    assert out.read_text() == whole
    exported(run, "-o", out, "--force")
    assert len(out.read_text()) > len(whole)


def test_no_half_table_is_left(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RecordingError("torn")

    monkeypatch.setattr(Recording, "rows", fail)
    with pytest.raises(RecordingError, match="torn"):
        exported(run, "-o", tmp_path / "run.csv")
    assert not (tmp_path / "run.csv").exists()


def test_an_unknown_key_and_a_folder_that_is_not_there_are_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no key that fits 'lss'; there are loss, layer0"):
        exported(run, "-k", "lss")
    with pytest.raises(RecordingError, match=r"cannot write .*No such file"):
        exported(run, "-o", tmp_path / "none" / "run.csv")


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "long.h5"
    with Recorder(path, facts=False) as rec:
        for i in range(20_000):
            rec.add(loss=i)
    script = f"'{FLEXREC}' export '{path}' | head -n 2"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""
