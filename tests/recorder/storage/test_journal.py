"""The journal of a live file: nothing that HDF5 rewrites is needed, and nothing torn is data."""

import errno
import gzip
import os
import random
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.hdf5.superblock import lookup3
from flexrec.recorder.maintenance.repair import repair, verify
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.follow import Follower
from flexrec.recorder.storage.journal import reader as journal_reader
from flexrec.recorder.storage.journal import records as journals
from flexrec.recorder.storage.journal.records import BLOCK, EXTENT, NEXT, PLACE, RECORD, sealed
from support.crashing import check_prefix, check_resumes, crash, event_at, record
from support.event_cases import same_event
from support.recorders import recorder

DATA = Path(__file__).parents[2] / "data"


def killed(path: Path, blocks: int = 5, *, each: int = 20, synced: int = 0) -> None:
    """What a killed run leaves that flushed so many blocks, and synced after some of them."""
    rec = recorder(path)
    for block in range(blocks):
        record(rec, block * each, block * each + each)
        rec.flush(fsync=block + 1 == synced)
    crash(rec)


def journal(path: Path) -> tuple[int, np.ndarray[Any, np.dtype[Any]], int]:
    """Where the first extent lies, its records up to the last, and the journal's id."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        address, identity = int(file.attrs["journal"]), int(file.attrs["journal_id"])
    records = np.frombuffer(path.read_bytes()[address:], RECORD, EXTENT)
    count = int((records["kind"] == 0).argmax()) or EXTENT
    return address, records[:count], identity


def put(path: Path, offset: int, data: bytes) -> None:
    """Write over bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def places(path: Path) -> dict[str, int]:
    """Where the first chunk of each dataset lies."""
    _, records, _ = journal(path)
    found = records[records["kind"] == PLACE]
    names = list(fmt.LIVE_LAYOUT)
    return {names[int(r["dataset"])]: int(r["numbers"][1]) for r in found if r["numbers"][0] == 0}


def test_a_live_file_from_before_there_were_journals(path: Path) -> None:
    path.write_bytes(gzip.decompress((DATA / "live_version_1.h5.gz").read_bytes()))
    assert check_prefix(path, 300, closed=False) == 300
    assert verify(path).state == "unfinished"
    check_resumes(path, 300)


@pytest.mark.parametrize("seed", range(3))
def test_what_hdf5_rewrites_is_not_needed(path: Path, seed: int) -> None:
    killed(path, 40, each=30)
    data, chance = bytearray(path.read_bytes()), random.Random(seed)  # noqa: S311 - no secret
    first = data.find(b"OHDR", data.find(b"OHDR") + 1)  # the root's own is never rewritten
    torn = 0
    for name in (b"EAHD", b"EAIB", b"EADB", b"FAHD", b"OHDR"):
        at = data.find(name, first)
        while at >= 0:
            if name != b"OHDR" or _is_of_a_growing_dataset(data, at):
                data[at : at + 64] = chance.randbytes(64)
                torn += 1
            at = data.find(name, at + 4)
    assert torn >= 8
    path.write_bytes(data)
    assert check_prefix(path, 1200, closed=False) == 1200
    repair(path)
    assert check_prefix(path, 1200, closed=True) == 1200


def _is_of_a_growing_dataset(data: bytearray, at: int) -> bool:
    """Whether an object header has room for a dimension without limit: config and facts do not."""
    return b"\xff" * 8 in data[at : at + 268]


@pytest.mark.parametrize("name", [fmt.SCHEMA, fmt.BLOBS, fmt.VALUES, fmt.EVENTS])
def test_a_torn_block_ends_the_recording_and_is_no_damage(path: Path, name: str) -> None:
    killed(path, 5)
    _, records, _ = journal(path)
    lengths = records[records["kind"] == BLOCK]["numbers"]
    column = list(fmt.LIVE_LAYOUT).index(name)
    grew = [i for i in range(1, 5) if lengths[i, column] > lengths[i - 1, column]]
    block = grew[-1]  # the last that added to this dataset
    row = int(lengths[block, column]) - 1
    size = fmt.LIVE_LAYOUT[name][0].itemsize
    put(path, places(path)[name] + row * size, bytes([7] * size))  # the last that it added
    assert check_prefix(path, block * 20, closed=False) == block * 20
    with Recording(path) as run:
        assert "was torn by a loss of power" in run.state
    verdict = verify(path)
    assert verdict.state == "unfinished"
    assert (verdict.left_out, verdict.is_torn) == (100 - block * 20, True)
    before = path.read_bytes()
    assert repair(path).left_out == verdict.left_out
    assert check_prefix(path, block * 20, closed=True) == block * 20
    assert path.with_name("run.original.h5").read_bytes() == before


def test_a_torn_record_ends_the_recording(path: Path) -> None:
    killed(path, 5)
    address, records, _ = journal(path)
    put(path, address + (len(records) - 1) * RECORD.itemsize + 40, b"\1\2\3")
    assert check_prefix(path, 80, closed=False) == 80
    check_resumes(path, 80)


def test_what_was_synced_is_taken_at_its_word_and_verify_checks_it(path: Path) -> None:
    killed(path, 5, synced=3)
    _, records, _ = journal(path)
    assert records["synced"][-1] > 0, "the block after the sync says so"
    values = places(path)[fmt.VALUES]
    put(path, values, np.float64(-1).tobytes())  # the first value of all
    with Recording(path) as run:
        assert run.event_count == 100
    verdict = verify(path)
    assert verdict.state == "damaged"
    assert "event 0 of 100 events is not as it was written" in verdict.fault


def test_a_damaged_record_that_was_synced_ends_the_recording_as_damage(path: Path) -> None:
    killed(path, 5, synced=5)
    rec = recorder(path, mode="resume")
    record(rec, 100, 140)
    rec.flush(fsync=True)
    record(rec, 140, 150)
    crash(rec)
    address, records, _ = journal(path)
    synced = int(records["synced"][-1])
    at = int(np.flatnonzero(records["kind"][:synced] == BLOCK)[-1])
    put(path, address + at * RECORD.itemsize + 8, b"\1")
    with Recording(path) as run:
        assert "is not whole and left out" in run.state
    assert verify(path).state == "damaged"


def test_more_blocks_than_an_extent_has_records(path: Path) -> None:
    blocks = 2 * EXTENT + 100
    rec = recorder(path)
    for block in range(blocks):
        rec.record(event_at(block))
        rec.flush(fsync=block == EXTENT + 500)
    crash(rec)
    _, records, _ = journal(path)
    assert len(records) == EXTENT
    assert records["kind"][-1] == NEXT
    assert check_prefix(path, blocks, closed=False) == blocks
    assert verify(path).state == "unfinished"
    check_resumes(path, blocks)


def test_a_reader_that_follows_sees_every_block_once(path: Path) -> None:
    rec = recorder(path)
    with Follower(path) as follower:
        given = []
        for block in range(EXTENT + 50):
            rec.record(event_at(block))
            rec.flush(fsync=block % 300 == 0)
            if block % 7 == 0:
                given += list(follower.poll())
        given += list(follower.poll())
        rec.close()
    assert len(given) == EXTENT + 50
    assert all(same_event(event, event_at(i)) for i, event in enumerate(given))  # type: ignore[arg-type]


def test_a_block_that_failed_is_written_again_to_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec, write = recorder(path), os.pwrite
    record(rec, 0, 50)
    left = 0

    for failing in range(8):  # each write of the block in turn, and those of its records
        left = failing

        def failed(descriptor: int, data: Any, offset: int) -> int:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", failed)
        rec._flusher.write()
        monkeypatch.setattr(os, "pwrite", write)
    rec._flusher._warnings.clear()
    record(rec, 50, 60)
    rec.flush(fsync=True)
    assert check_prefix(path, 60, closed=False) == 60
    rec.close()
    assert check_prefix(path, 60, closed=True) == 60


def test_a_failed_sync_is_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec, fsync = recorder(path), os.fsync
    record(rec, 0, 20)
    rec.flush()

    def failed(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.warns(RuntimeWarning, match=os.strerror(errno.EIO)):
        rec.flush(fsync=True)
    monkeypatch.setattr(os, "fsync", fsync)
    for first in (20, 40):
        record(rec, first, first + 20)
        with pytest.warns(RuntimeWarning, match="events could not be written to disk"):
            rec.flush(fsync=True)
    _, records, _ = journal(path)
    assert not records["synced"].any(), "what the failed one covered may never reach the disk"
    with pytest.warns(
        RuntimeWarning, match="60 events before this checkpoint could not be written to disk"
    ):
        state = rec.state_dict()
    assert (state["events"], state["waiting"]) == (0, 60), "a checkpoint promises none of them"
    rec.close()


# ---------------------------------------------------------------------- hostile journals


def forged(path: Path, number: int, **fields: Any) -> None:
    """Change fields of a record, and make its checksum fit."""
    address, records, identity = journal(path)
    record = records[number : number + 1].copy()
    for name, value in fields.items():
        record[name] = value
    body = record.tobytes()[4:]
    put(path, address + number * RECORD.itemsize, sealed(identity, number, body))


def block_numbers(path: Path) -> list[int]:
    return np.flatnonzero(journal(path)[1]["kind"] == BLOCK).tolist()


@pytest.mark.parametrize(
    "fields",
    [
        {"numbers": (2**62, 2**62, 2**62, 2**62)},
        {"numbers": (-1, -1, -1, -1)},
        {"numbers": (0, 0, 0, 2**40)},
        {"kind": PLACE, "dataset": 9, "numbers": (0, 0, 0, 0)},
        {"kind": PLACE, "dataset": 1, "numbers": (7, 0, 0, 0)},
        {"kind": PLACE, "dataset": 1, "numbers": (1, -(2**62), 0, 0)},
        {"kind": NEXT},
        {"synced": 2**62, "numbers": (2**40, 0, 0, 2**40)},
    ],
)
def test_a_forged_record_ends_the_recording(path: Path, fields: dict[str, Any]) -> None:
    killed(path, 5)
    forged(path, block_numbers(path)[3], **fields)
    count = check_prefix(path, 60, closed=False)
    assert count in (60, 100)  # a record of a place alone moves nothing


def test_places_outside_of_the_file_are_no_data(path: Path) -> None:
    killed(path, 5, synced=2)
    _, records, _ = journal(path)
    for number in np.flatnonzero(records["kind"] == PLACE).tolist():
        chunk = int(records["numbers"][number][0])
        forged(path, number, numbers=(chunk, 2**61, 0, 0))
    with Recording(path) as run:
        assert list(run.events()) == []
        assert "what follows, 100 events, is not whole" in run.state


@pytest.mark.parametrize("address", [0, -5, 2**40, 2**63 - 1, 0.5])
def test_a_journal_that_is_not_in_the_file_is_damage(path: Path, address: float) -> None:
    killed(path, 2)
    set_attribute(path, "journal", address)
    with pytest.raises(RecordingError, match="its journal"):
        Recording(path)


def test_a_journal_that_begins_elsewhere_holds_nothing(path: Path) -> None:
    killed(path, 2)
    set_attribute(path, "journal", 48)
    with Recording(path) as run:
        assert run.event_count == 0


def set_attribute(path: Path, name: str, value: float) -> None:
    """Change a root attribute; HDF5 itself makes the checksum of its header fit."""
    head = bytearray(path.read_bytes()[:48])
    head[11] = 0
    head[28:36] = path.stat().st_size.to_bytes(8, "little")
    head[44:48] = lookup3(bytes(head[:44])).to_bytes(4, "little")
    put(path, 0, bytes(head))
    with h5py.File(path, "r+", libver=fmt.LIBVER, locking=False) as file:
        file.attrs[name] = value


def test_both_checksums_are_crc32() -> None:
    data = bytes(range(256)) * 40
    assert journals.checksum(data[5_000:], journals.checksum(data[:5_000])) == zlib.crc32(data)


# ---------------------------------------------------------------------- what changed since


def bent(path: Path, name: str, element: int) -> None:
    """A recording of 100 events in five blocks, the last synced, of which one bit changed."""
    killed(path, 5, synced=4)
    size = fmt.LIVE_LAYOUT[name][0].itemsize
    at = places(path)[name] + element * size
    put(path, at, bytes([path.read_bytes()[at] ^ 4]))


@pytest.mark.parametrize("name", [fmt.VALUES, fmt.BLOBS])
def test_no_new_file_is_made_of_damage_without_a_word(path: Path, name: str) -> None:
    bent(path, name, 5)
    before = path.read_bytes()
    assert verify(path).state == "damaged"
    with pytest.raises(RecordingError, match="damaged"):
        merge_recordings([path], path.with_name("merged.h5"))
    copy = path.with_name("copy.h5")
    copy.write_bytes(before)
    with pytest.warns(RuntimeWarning, match="is not as it was written; the file as it was is"):
        Recorder(copy, mode="resume", facts=False).close()
    assert copy.with_name("copy.original.h5").read_bytes() == before
    done = repair(path)
    assert "not as it was written" in done.damage
    assert done.original == path.with_name("run.original.h5")
    assert path.with_name("run.original.h5").read_bytes() == before
    with Recording(path) as run:
        assert run.event_count == 100


def test_arrays_that_changed_are_an_error_when_they_are_read(path: Path) -> None:
    bent(path, fmt.BLOBS, 5)
    with Recording(path) as run:
        assert run.event_count == 100
        assert len(run["a"]) > 60
        with pytest.raises(RecordingError, match="arrays or texts in it are not as they were"):
            list(run["pair"].value)


def test_a_copy_that_was_taken_while_it_was_written_has_no_zeros(path: Path) -> None:
    """Front to back, as over a slow link: the journal's second extent is newer than the values."""
    rec, copy = recorder(path), path.with_name("copy.h5")
    for block in range(EXTENT):
        rec.add(a=float(block + 1))
        rec.flush()
    first = path.read_bytes()
    for block in range(EXTENT, EXTENT + 300):
        rec.add(a=float(block + 1))
        rec.flush(fsync=block % 50 == 0)
    second = path.read_bytes()
    rec.close()
    with h5py.File(copy_of(path, second), "r", swmr=True, locking=False) as file:
        extent = file["journal"].id.get_chunk_info_by_coord((EXTENT,)).byte_offset
    copy.write_bytes(first[:extent] + second[extent:])
    with Recording(copy) as run:
        assert run["a"].value.tolist() == [float(i + 1) for i in range(EXTENT)]
        assert "what follows" in run.state


def copy_of(path: Path, data: bytes) -> Path:
    copy = path.with_name("whole.h5")
    copy.write_bytes(data)
    return copy


def test_extents_upon_one_another_take_no_memory(path: Path) -> None:
    killed(path, 2)
    address, _, identity = journal(path)
    head = path.read_bytes()[:address]
    count = 2 * EXTENT
    data = bytearray(head)
    begin, number = address, 0
    for _ in range(count // EXTENT * 40):
        end = begin + (EXTENT - 1) * RECORD.itemsize
        data.extend(bytes(max(end + RECORD.itemsize - len(data), 0)))
        number += EXTENT
        body = journals.next_record(begin + RECORD.itemsize)
        data[end : end + RECORD.itemsize] = sealed(identity, number - 1, body)
        begin += RECORD.itemsize
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with Recording(path) as run:
            assert run.event_count == 0
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data)
    finally:
        tracemalloc.stop()


def test_what_is_written_while_the_journal_is_read_is_not_called_torn(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = recorder(path)
    record(rec, 0, 20)
    rec.flush()
    extents = journal_reader.Journal._extents

    def slowly(self: journal_reader.Journal) -> Any:
        rec.add(large=np.zeros(1 << 21))  # the file grows
        rec.flush()
        return extents(self)

    monkeypatch.setattr(journal_reader.Journal, "_extents", slowly)
    with Recording(path) as run:
        assert "torn" not in run.state
        assert run.event_count == 21
    monkeypatch.undo()
    rec.close()


@pytest.mark.parametrize("name", ["config", "facts"])
@pytest.mark.parametrize("bit", [1, 0x80])  # JSON as before, and no JSON
def test_a_bent_config_is_told_and_nothing_else_is_lost(path: Path, name: str, bit: int) -> None:
    with Recorder(path, config={"lr": 100}, facts=True, flush_seconds=60) as rec:
        rec.add(loss=1.5)
        rec.flush()
        data = path.read_bytes()
    # The summary has no spaces.
    at = data.index(b": 100" if name == "config" else b'"pid": ') + (2 if name == "config" else 8)
    for each in ("run.killed.h5", "run.resumed.h5"):
        path.with_name(each).write_bytes(data)
        put(path.with_name(each), at, bytes([data[at] ^ bit]))
    bent, resumed = path.with_name("run.killed.h5"), path.with_name("run.resumed.h5")
    what = f"its {name} is not as it was written"
    with pytest.warns(RuntimeWarning, match=f"{what}; it is left out"):
        run = Recording(bent)
    with run:
        assert getattr(run, name) is None
        assert run["loss"].value.tolist() == [1.5]
    assert (verify(bent).state, what in verify(bent).fault) == ("damaged", True)
    with pytest.warns(RuntimeWarning, match=f"{what}; the file as it was is"):
        rec = recorder(resumed, mode="resume")
    rec.close()
    done = repair(bent)
    assert done.damage == what
    assert done.original is not None
    for one in (bent, resumed):
        with Recording(one) as run:
            assert (run.config is None, run.facts is None) == (name == "config", name == "facts")
            assert run["loss"].value.tolist() == [1.5]
