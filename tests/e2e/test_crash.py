"""Kills anywhere, failing writes, verify and repair. benchmarks/reliability.py has more kills."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import NotARecordingError, Recording, RecordingError
from flexrec.recorder.maintenance.repair import Repaired, repair, verify
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.writing.live_file import Block
from support.crashing import HERE, build_shim, check_prefix, check_resumes, record, under_shim
from support.recorders import recorder


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("shim"))


def unfinished(path: Path, events: int = 100) -> Path:
    """What a killed run leaves."""
    copy = path.with_suffix(".copy")
    with recorder(path) as rec:
        record(rec, 0, events)
        rec.flush()
        shutil.copyfile(path, copy)
    os.replace(copy, path)
    return path


@pytest.mark.parametrize(
    "trial", ["kill-time", "kill-write", "kill-close", "kill-repair", "kill-resume"]
)
def test_kills(shim: Path, trial: str) -> None:
    run = f"c.run(c.TRIALS[{trial!r}], 5000, 12)"
    script = f"from support import crash_trials as c; raise SystemExit({run} != 12)"
    done = under_shim(shim, script)
    assert done.returncode == 0, done.stdout + done.stderr


FAILING = """
import sys, warnings
from pathlib import Path
from support.crashing import fail_writes, record
from flexrec.recorder import Recorder
warnings.simplefilter("always")
path, number = Path(sys.argv[1]), int(sys.argv[2])
rec = Recorder(path, facts=False, flush_seconds=60, buffer_bytes=1 << 16)
record(rec, 0, 50); rec.flush()
fail_writes(number)
record(rec, 50, 100); rec.flush()
for _ in range(30):  # more than may be buffered
    rec.add(big=bytes(9000).decode()); rec.flush()
fail_writes(0)
rec.flush()
record(rec, 100, 110)
rec.close()
"""


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE"])
def test_a_failing_file_system(shim: Path, path: Path, name: str) -> None:
    number = getattr(errno, name)
    done = under_shim(shim, FAILING, str(path), str(number))
    assert done.returncode == 0, done.stderr
    with Recording(path) as run:
        assert run.complete
        found = run["a"].value
        added = sum(1 for i in range(110) if i % 29 != 28)
        assert len(found) == added, "none of those that fit is lost"
        assert 15 < run.dropped < 30
        assert len(run["big"]) + run.dropped == 30
        lost = run.dropped
    assert done.stderr.count(os.strerror(number)) == 1, "told once"
    assert f"{lost} events could not be written and are lost" in done.stderr


def test_room_that_was_made_and_not_written_does_not_count(path: Path) -> None:
    rec = recorder(path)
    record(rec, 0, 50)
    rec.flush()
    rec._flusher._file._ids[3].set_extent((60,))
    rec._flusher._file._file.flush()
    check_prefix(path, 50, closed=False)
    record(rec, 50, 70)
    rec.close()
    assert check_prefix(path, 70, closed=True) == 70


def test_an_event_of_an_unknown_kind_does_not_count(path: Path) -> None:
    copy = path.with_suffix(".copy")
    rec = recorder(path)
    record(rec, 0, 50)
    rec.flush()
    rows = np.full(10, 99, fmt.EVENT)  # of a signature that is not there
    rec._flusher._file.append(Block(events=rows))
    shutil.copyfile(path, copy)
    with pytest.warns(RuntimeWarning, match="10 events at its end cannot be read"):
        rec.close()
    os.replace(copy, path)
    check_prefix(path, 50)
    with Recording(path) as run:
        assert run.event_count == 50
    assert verify(path).state == "damaged"
    assert "50 events are whole" in verify(path).fault
    before = path.read_bytes()
    with pytest.warns(RuntimeWarning, match="10 events at its end are not whole"):
        check_resumes(path, 50)
    assert path.with_name("run.original.h5").read_bytes() == before


# ---------------------------------------------------------------------- verify and repair


def test_verify(path: Path) -> None:
    unfinished(path)
    assert verify(path).state == "unfinished"
    assert verify(path).last_step == 33
    check_resumes(path, 100)
    whole = verify(path)
    assert (whole.state, whole.events) == ("whole", 111)
    with recorder(path, mode="resume", at_step=10):
        pass
    assert verify(path).state == "whole"
    text = path.with_name("text")
    text.write_text("text")
    with pytest.raises(NotARecordingError):
        verify(text)
    with pytest.raises(RecordingError, match="does not exist"):
        verify(path.with_name("none"))


def test_verify_names_what_is_damaged(path: Path) -> None:
    with recorder(path) as rec:
        for i in range(5000):
            rec.add(good=i, bad=i * 0.37)
    with h5py.File(path) as file:
        info = file["series/bad/value"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[info.byte_offset + info.size // 2] ^= 0x10
    path.write_bytes(data)
    found = verify(path)
    assert found.state == "damaged"
    assert found.fault.startswith("bad: ")
    with pytest.raises(RecordingError, match=r"cannot be repaired: .*bad"):
        repair(path)
    assert path.read_bytes() == data


def test_repair(path: Path) -> None:
    before = unfinished(path).read_bytes()
    (path.parent / ".run.h5.closing").write_text("litter")
    (path.parent / ".run.h5.making").write_text("litter")
    original = path.with_name("run.original.h5")
    assert repair(path, keep_original=True) == Repaired(path, True, 100, original=original)
    check_prefix(path, 100, closed=True)
    after = path.read_bytes()
    assert (path.parent / "run.original.h5").read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["run.h5", "run.original.h5"]
    assert not repair(path, keep_original=True).is_changed
    assert path.read_bytes() == after, "idempotent"
    assert sorted(os.listdir(path.parent)) == ["run.h5", "run.original.h5"]


def test_repair_keeps_the_original_of_what_is_left_out(path: Path) -> None:
    unfinished(path, 3000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = repair(path)
    assert done.left_out
    assert done.original == path.with_name("run.original.h5")
    check_prefix(path, 0, closed=True)
    assert (path.parent / "run.original.h5").read_bytes() == whole[: len(whole) // 2]


def test_a_recording_that_is_being_written_is_not_repaired(path: Path) -> None:
    with recorder(path) as rec:
        record(rec, 0, 10)
        rec.flush()
        with pytest.raises(RecordingError, match="being recorded by another Recorder of this"):
            repair(path)
        assert verify(path).state == "unfinished"
    check_prefix(path, 10, closed=True)


@pytest.mark.parametrize("crash", ["while True: pass", "import os; os.kill(os.getpid(), 11)"])
def test_what_hangs_or_crashes_is_contained(
    path: Path, crash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = unfinished(path).read_bytes()
    popen = subprocess.Popen

    def instead(command: list[str], **options: Any) -> Any:
        return popen([sys.executable, "-c", crash], **options)

    monkeypatch.setattr(subprocess, "Popen", instead)
    found = verify(path, seconds=1)
    assert found.state == "damaged"
    assert "did not end within 1 s" in found.fault or "ended with status -11" in found.fault
    with pytest.raises(RecordingError, match="cannot be repaired"):
        repair(path, seconds=1)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["run.h5"]


def flexrec(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-c", "from flexrec.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_commands(path: Path) -> None:
    unfinished(path)
    code, said = flexrec("verify", path)
    assert (code, said.splitlines()) == (
        1,
        [
            f"{path}: unfinished: 100 events, up to step 33; "
            "if its run is over, flexrec repair closes it"
        ],
    )
    code, said = flexrec("repair", "--keep-original", path)
    assert code == 0
    assert said.startswith(f"{path} is closed now: 100 events; the original is")
    assert flexrec("verify", path) == (0, f"{path}: whole: 100 events\n")
    assert flexrec("verify", HERE / "crashing.py")[0] == 2
    assert flexrec("repair", path.with_name("none"))[0] == 2
