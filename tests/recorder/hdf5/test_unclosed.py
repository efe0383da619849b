"""Closed recordings whose last bytes a loss of power kept back, so that they seem open for writing.

HDF5 writes them after everything else was synced: all that was recorded is there.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.events import Event
from flexrec.recorder.hdf5.superblock import SIZE, Superblock
from flexrec.recorder.maintenance.repair import repair, verify
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.follow import Follower
from support import mutants
from support.commands import flexrec
from support.event_cases import same_event
from support.unclosed_shared import with_flags


def unclosed(data: bytes, end: int | None = None) -> bytes:
    """A closed file's bytes, the first of them as they were before it was closed."""
    return with_flags(data, 1, end)


def record(path: Path, count: int = 300) -> Path:
    """A closed recording of numbers, arrays, texts, logs, and of what was superseded."""
    rng = np.random.default_rng(0)
    for at_step, rows in ((None, count), (count // 2, 20)):
        with Recorder(
            path, mode="w" if at_step is None else "resume", at_step=at_step, config={"lr": 1e-3}
        ) as rec:
            for i in range(rows):
                rec.add(loss=float(rng.normal()), image=rng.normal(size=(3, i % 5)), note=f"at {i}")
                rec.step()
                if i % 50 == 0:
                    rec.log(i)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return record(tmp_path / "run.h5")


def events_of(path: Path) -> list[Event]:
    with Recording(path) as run:
        return list(run.events())


def same_events(a: list[Event], b: list[Event]) -> bool:
    return len(a) == len(b) and all(map(same_event, a, b))


def opens(path: Path) -> bool:
    """Whether plain HDF5 takes the file."""
    try:
        h5py.File(path).close()
    except OSError:
        return False
    return True


# ---------------------------------------------------------------------- all is there


def close_recording(path: Path) -> None:
    with Recorder(path, mode="resume") as rec:
        rec.add(loss=1.0)


def merge_recording(path: Path) -> None:
    merge_recordings([path], path.with_name("merged.h5"))


@pytest.mark.parametrize("work", [close_recording, merge_recording])
def test_what_was_synced_when_power_fails_is_read(
    path: Path, work: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file as it was when its data was synced, at the place where it is renamed to."""
    left, real = path.with_name("left.h5"), os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith(".closing") and not left.exists():
            shutil.copyfile(name, left)

    monkeypatch.setattr(os, "fsync", fsync)
    work(path)
    made = path.with_name("merged.h5") if work is merge_recording else path
    assert same_events(events_of(left), events_of(made))
    assert verify(left).state == "whole"
    repair(left)
    assert opens(left)


@pytest.mark.parametrize("end", [None, SIZE, 4096])
def test_it_is_read_and_verified_and_repaired(path: Path, end: int | None) -> None:
    """Also where its end was noted too early."""
    expected, whole = events_of(path), path.read_bytes()
    path.write_bytes(unclosed(whole, end))
    assert not opens(path)
    with Recording(path) as run:
        assert run.complete
        assert run.superseded
        assert "closed, except for its last bytes" in run.state
        assert run.config == {"lr": 1e-3}
        assert same_events(list(run.events()), expected)
    found = verify(path)
    assert (found.state, found.is_clean) == ("whole", False)
    out, _ = flexrec("verify", path)
    assert out.startswith(f"{path}: whole: {found.events} events; closing it was not finished")
    assert repair(path, keep_original=True).is_changed
    assert path.with_name("run.original.h5").read_bytes() == unclosed(whole, end)
    assert opens(path)
    assert verify(path).is_clean
    assert same_events(events_of(path), expected)
    assert not repair(path).is_changed


def test_it_is_resumed_merged_and_followed(path: Path) -> None:
    expected = events_of(path)
    path.write_bytes(unclosed(path.read_bytes(), SIZE))
    merge_recordings([path], path.with_name("merged.h5"))
    assert same_events(events_of(path.with_name("merged.h5")), expected)
    with Follower(path) as follower:
        assert same_events([e for e in follower.poll() if isinstance(e, Event)], expected)
        assert follower.ended
    with Recorder(path, mode="resume") as rec:
        rec.add(loss=1.0)
    assert same_events(events_of(path)[:-1], expected)
    assert opens(path)


# ---------------------------------------------------------------------- not all is there


def test_what_is_shorter_than_it_says_is_refused(path: Path) -> None:
    whole = unclosed(path.read_bytes())
    for cut in (len(whole) - 1, len(whole) // 2, 2000):
        path.write_bytes(whole[:cut])
        os.utime(path, (0, 0))  # nobody is writing it
        with pytest.raises(RecordingError, match=r"end is missing|cut short"):
            Recording(path)
        assert verify(path).state == "damaged"
        with pytest.raises(RecordingError, match="cannot be repaired"):
            repair(path)
        assert path.read_bytes() == whole[:cut]


@pytest.mark.parametrize("filling", [0, 1])
def test_what_is_missing_is_never_read_as_data(path: Path, filling: int) -> None:
    """Its end was noted early, so that nothing but the checksums tells."""
    expected, whole = events_of(path), unclosed(path.read_bytes(), SIZE)
    for cut in np.linspace(SIZE, len(whole) - 1, 40).astype(int).tolist():
        path.write_bytes(whole[:cut] + bytes(filling * (len(whole) - cut)))
        os.utime(path, (0, 0))
        try:
            found = events_of(path)
            with Recording(path) as run:
                assert run.config == {"lr": 1e-3}
        except RecordingError:
            continue
        assert same_events(found, expected), f"cut at {cut}"


def test_verify_names_what_is_missing(path: Path) -> None:
    whole = unclosed(path.read_bytes(), SIZE)
    path.write_bytes(whole[: len(whole) - 40])
    os.utime(path, (0, 0))
    found = verify(path)
    assert found.state == "damaged"
    with pytest.raises(RecordingError, match="cannot be repaired"):
        repair(path)
    assert path.read_bytes() == whole[: len(whole) - 40]


@pytest.mark.parametrize("name", [fmt.CONFIG, fmt.FACTS])
def test_verify_reads_the_config_and_the_facts_too(path: Path, name: str) -> None:
    with h5py.File(path) as file:
        info = file[name].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[info.byte_offset + info.size - 1] ^= 1  # of the checksum
    path.write_bytes(data)
    assert verify(path).state == "damaged"


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (7,)},
        {"chunks": (7,), "shuffle": True},
        {},
    ],
)
def test_what_has_no_checksum_is_refused_in_it(path: Path, options: dict[str, Any]) -> None:
    """We write no such data; what does may have left it torn."""
    key = "series/loss/value"
    with h5py.File(path, "r+", libver=fmt.LIBVER) as file:
        data = file[key][:]
        del file[key]
        file.create_dataset(key, data=data, **options)
    with Recording(path) as run:
        assert np.array_equal(run["loss"].value, data)
    assert verify(path).state == "whole"
    path.write_bytes(unclosed(path.read_bytes()))
    with Recording(path) as run, pytest.raises(RecordingError, match="has no checksum"):
        run.series(["loss"])
    assert verify(path).state == "damaged"
    with pytest.raises(RecordingError, match=r"cannot be repaired: .*no checksum"):
        repair(path)


def test_a_chunk_that_leaves_its_checksum_out_is_refused_in_it(path: Path) -> None:
    with h5py.File(path, "r+", libver=fmt.LIBVER) as file:
        dataset = file["series/loss/value"]
        data = dataset[:]
        raw = np.zeros(dataset.chunks[0], dataset.dtype)
        raw[: len(data)] = data
        dataset.id.write_direct_chunk((0,), raw.tobytes(), filter_mask=3)
    with Recording(path) as run:
        assert np.array_equal(run["loss"].value, data)
    path.write_bytes(unclosed(path.read_bytes()))
    with Recording(path) as run, pytest.raises(RecordingError, match="has no checksum"):
        run.series(["loss"])


def test_nothing_of_it_changes_unseen(tmp_path: Path) -> None:
    files = mutants.sources(tmp_path, steps=120)
    files = {"unclosed": unclosed(files["closed"]), "early": unclosed(files["closed"], SIZE)}
    for data in files.values():
        block = Superblock.parse(data[:SIZE])
        assert block is not None
        assert block.sound
    plan = [
        (name, damage, 900 + k) for name in files for k in range(4) for damage in mutants.DAMAGES
    ]
    result = mutants.trial(tmp_path, plan, files)
    assert not result.failures
    assert {word for _, _, word in result.verdicts} <= {"equal", "RecordingError"}


@pytest.mark.parametrize("flags", [0, 1, 4])
def test_first_bytes_that_were_half_written_lose_nothing(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, flush_seconds=60) as rec:
        rec.add(loss=1.5)
        rec.flush()
        data = bytearray(path.read_bytes())
    data[11] = flags  # the flags, with the checksum of others
    path.write_bytes(data)
    with Recording(path) as run:
        assert run["loss"].value.tolist() == [1.5]
    assert verify(path).state == "unfinished"
    assert repair(path).is_changed
    assert verify(path).state == "whole"
