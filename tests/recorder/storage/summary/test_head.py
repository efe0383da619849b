"""The summary in a file: found in one read, and never believed where it is not as written."""

import gzip
import json
import math
import os
import re
import shutil
from pathlib import Path

import h5py
import pytest

from flexrec.recorder import Recorder, Recording, merge_recordings
from flexrec.recorder.maintenance.repair import repair
from flexrec.recorder.storage.closing.compact import close_recording
from flexrec.recorder.storage.summary.head import MOST, glance, sealed
from support.crashing import crash

CONFIG = {"lr": 0.1, "opt": {"name": "adam"}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("summary") / "run.h5"
    with Recorder(path, config=CONFIG, facts="no patch") as rec:
        for step in range(5):
            rec.add(loss=1.0 / (step + 1), note="text")
            rec.step()
        rec.log(1)
    return path


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """The file of a killed run whose config was changed."""
    path = tmp_path / "live.h5"
    rec = Recorder(path, config=CONFIG, facts="no patch")
    rec.config.update(lr=0.2)
    rec.add(loss=1.0)
    rec.flush()
    crash(rec)
    return path


def test_it_is_the_first_dataset_and_plain_json(run: Path) -> None:
    found = glance(run)
    assert found is not None
    assert found["state"] == "closed"
    assert found["config"] == CONFIG
    assert dict(zip(found["statistics"], found["keys"]["loss"], strict=True)) == {
        "count": 5,
        "not_finite": 0,
        "step": 4,
        "last": 0.2,
        "min": 0.2,
        "min_at": 4,
        "max": 1.0,
        "max_at": 0,
        "mean": sum(1 / n for n in range(1, 6)) / 5,
    }
    assert found["keys"]["note"] == [5]
    with Recording(run) as recording, h5py.File(run) as file:
        assert found["facts"] == recording.facts
        assert found["ended"] == recording.marks.time[-1]
        assert found["created"] == file.attrs["created"]
        offset = file["summary"].id.get_offset()
        assert offset == min(
            item.id.get_offset() or offset for item in file.values() if hasattr(item, "dtype")
        )
        whole = json.loads(file["summary"][:].tobytes())
    assert whole.pop("flexrec_summary")[0] == 1
    assert whole == found
    assert run.read_bytes()[: 1 << 12].find(b'{"flexrec_summary"') == offset


def test_that_of_a_live_file_says_how_the_run_began(live: Path) -> None:
    found = glance(live)
    assert found is not None
    with Recording(live) as recording, h5py.File(live, swmr=True) as file:
        assert found == {
            "state": "live",
            "created": recording.created,
            "config": CONFIG,
            "facts": recording.facts,
            "left_out": {},
        }
        offset = file["summary"].id.get_offset()
    assert live.read_bytes()[: 1 << 12].find(b'{"flexrec_summary"') == offset


@pytest.mark.parametrize("layout", ["run", "live"])
def test_one_flipped_bit_is_never_a_wrong_summary(
    layout: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(layout)
    data, whole = run.read_bytes(), glance(run)
    flipped = tmp_path / "flipped.h5"
    told = 0
    for at in range(0, min(len(data), 6000), 5):
        other = bytearray(data)
        other[at] ^= 1 << at % 8
        flipped.write_bytes(other)
        found = glance(flipped)
        assert found in (None, whole), at
        told += found is None
    assert told > 100


def test_files_that_have_none(run: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5"
    cut.write_bytes(run.read_bytes()[:-1])
    assert glance(cut) is None
    empty = tmp_path / "empty.h5"
    empty.touch()
    assert glance(empty) is None
    pipe = tmp_path / "pipe.h5"
    os.mkfifo(pipe)
    assert glance(pipe) is None  # without waiting for a writer
    with h5py.File(tmp_path / "other.h5", "w", libver="v110") as file:
        file["x"] = [1]
    assert glance(tmp_path / "other.h5") is None
    older = tmp_path / "older.h5"
    data = Path(__file__).parents[3] / "data" / "closed_without_summary.h5.gz"
    older.write_bytes(gzip.decompress(data.read_bytes()))
    assert glance(older) is None
    with Recording(older) as recording:
        assert len(recording["train_loss"].value) == 30
    with pytest.raises(FileNotFoundError):
        glance(tmp_path / "nothing.h5")


def test_a_file_that_another_program_changed_has_none(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.h5"
    path.write_bytes(run.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "x" * 4000
    assert glance(path) is None


@pytest.mark.parametrize(
    ("body", "length"),
    [(b"[" * 5000, None), (b"{}", 2**33), (b"9" * 9000, None), (b"\xff\xff", None)],
)
def test_a_body_that_is_no_summary(
    body: bytes, length: int | None, run: Path, tmp_path: Path
) -> None:
    data = run.read_bytes()
    end = int.from_bytes(data[28:36], "little")
    forged = sealed(body, end)
    if length is not None:
        forged = re.sub(rb'"\d{10}"', b'"%010d"' % length, forged)
    at = data.find(b'{"flexrec_summary"')
    path = tmp_path / "forged.h5"
    path.write_bytes(data[:at] + forged + data[at + len(forged) :])
    assert glance(path) is None


def test_repaired_merged_and_resumed_files_have_it(tmp_path: Path) -> None:
    killed = tmp_path / "killed.h5"
    rec = Recorder(killed, config=CONFIG)
    rec.add(loss=1.0)
    rec.flush()
    crash(rec)
    assert glance(killed)["state"] == "live"  # type: ignore[index]
    repair(killed)
    assert glance(killed)["keys"]["loss"][0] == 1  # type: ignore[index]
    with Recorder(killed, mode="resume") as rec:
        assert glance(killed)["state"] == "live"  # type: ignore[index]
        rec.add(loss=3.0)
    again = glance(killed)
    assert again is not None
    assert again["keys"]["loss"][:4] == [2, 0, 1, 3.0]
    assert again["resumes"] == 1
    merge_recordings([killed], tmp_path / "merged.h5")
    assert glance(tmp_path / "merged.h5")["keys"] == again["keys"]  # type: ignore[index]


@pytest.mark.parametrize("created", [math.nan, math.inf, -math.inf])
def test_a_run_that_began_at_no_time_is_resumed(run: Path, tmp_path: Path, created: float) -> None:
    path = Path(shutil.copy(run, tmp_path / "odd.h5"))
    with h5py.File(path, "r+") as file:
        file.attrs["created"] = created
    with Recorder(path, mode="resume"):
        assert glance(path)["created"] == str(created)  # type: ignore[index]
    assert glance(path)["created"] == str(created)  # type: ignore[index]


def test_superseded_values_are_not_in_it(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts="no patch") as rec:
        for step in range(5):
            rec.add({"loss": float(step), "late": 1.0} if step == 4 else {"loss": float(step)})
            rec.step()
    with Recorder(path, facts="no patch", mode="resume", at_step=1) as rec:
        rec.add(loss=9.0)
    found = glance(path)
    assert found is not None
    assert found["keys"] == {
        "loss": [3, 0, 2, 9.0, 0.0, 0, 9.0, 2, 10 / 3],
        "late": found["keys"]["late"],
    }
    assert found["keys"]["late"][0] == 0


def test_it_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(
        path, config={"big": "x" * 30_000, "lr": 0.1, "nan": float("nan")}, facts="no patch"
    ) as rec:
        rec.add({f"layer/{i}/mean": 1.0 for i in range(2000)})
        rec.add(loss=float("inf"))
    found = glance(path)
    assert found is not None
    assert found["config"] == {"lr": 0.1, "nan": "nan"}
    assert found["left_out"] == {"config": 1, "keys": 2001 - len(found["keys"])}
    assert found["keys"]["loss"] == [1, 1, 0, "inf", "nan", 0, "nan", 0, "nan"]
    with h5py.File(path) as file:
        assert MOST // 2 < file["summary"].size <= MOST


def test_what_no_flexrec_wrote_can_be_closed(run: Path, tmp_path: Path) -> None:
    """A config that is no JSON is kept as it is: closing fails for nothing in it."""
    path, text = tmp_path / "odd.h5", b"[" * 100_000
    path.write_bytes(run.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["config"]
        file.create_dataset("config", data=list(text), dtype="u1", chunks=(1000,), compression=1)
    close_recording(path, path)
    found = glance(path)
    assert found is not None
    assert found["config"] is None
    assert found["left_out"] == {"config": 1}
