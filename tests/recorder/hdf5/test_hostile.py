"""Files of unknown origin: each is refused or contained, with a RecordingError that names it."""

import json
import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import NotARecordingError, Recorder, Recording, RecordingError
from flexrec.recorder.events import Add, Event
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.hdf5.superblock import SIZE, Superblock, lookup3
from flexrec.recorder.maintenance.repair import repair, verify
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.writing.live_file import Block, LiveFile
from support.event_cases import same

Change = Callable[[h5py.File], object]


def read_whole(path: Path) -> list[Event]:
    """Read all there is, in every way."""
    with Recording(path) as run:
        events = list(run.events())
        assert run.dropped >= 0
        for key in run:
            assert len(list(run.rows(key))) == len(run[key]) == len(run.columns.index(key).step)
        return events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed recording with a number, a pair of arrays, a text and a log."""
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False, config={"lr": 0.1}) as rec:
        for i in range(10):
            rec.add(loss=i / 3, pair=(np.full((2, 3), i), np.arange(i)), note=f"step {i}")
            rec.step()
        rec.log(0, keys="loss")
    return path


def replaced(file: h5py.File, name: str, data: Any, **options: Any) -> None:
    """Another dataset under a name."""
    del file[name]
    file.create_dataset(name, data=data, **options)


def linked(file: h5py.File, name: str, link: Any) -> None:
    """A link in a dataset's place."""
    del file[name]
    file[name] = link


def lines(file: h5py.File, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Other lines in the schema."""
    found = [json.loads(line) for line in bytes(file["schema"][:]).splitlines()]
    change(found)
    text = b"".join(json.dumps(line).encode() + b"\n" for line in found)
    replaced(file, "schema", np.frombuffer(text, "u1"))


def with_external_storage(file: h5py.File) -> None:
    """A dataset whose bytes are those of a file of the user's."""
    del file["config"]
    secret = Path(file.filename).with_name("secret.txt")
    secret.write_text('"the secret"')
    file.create_dataset("config", (12,), "u1", external=[(str(secret), 0, 12)])


def with_a_virtual_dataset(file: h5py.File) -> None:
    """A dataset that is pieced together from another file."""
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["config"] = np.frombuffer(b'"the secret"', "u1")
    del file["config"]
    layout = h5py.VirtualLayout((12,), "u1")
    layout[:] = h5py.VirtualSource(other, "config", (12,))
    file.create_virtual_dataset("config", layout)


def with_a_compact_dataset(file: h5py.File) -> None:
    """A dataset inside its own header."""
    del file["config"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"config", h5py.h5t.NATIVE_UINT8, space, plan)


def bomb(file: h5py.File, name: str, nbytes: int, dtype: str = "u1", whole: int = 1 << 20) -> None:
    """A dataset with one chunk that inflates to far more than the chunk holds."""
    del file[name]
    options: dict[str, Any] = {"compression": "gzip", "chunks": (whole,)}
    made = file.create_dataset(name, (whole,), dtype, **options)
    made.id.write_direct_chunk((0,), zlib.compress(bytes(nbytes), 1))


def many_zeros(file: h5py.File) -> None:
    """Honest chunks of zeros, 2 GiB of them from a file of 10 MB."""
    del file["events"]
    rows = 1 << 31
    made = file.create_dataset("events", (rows,), "i1", chunks=(1 << 24,), compression="gzip")
    chunk = zlib.compress(bytes(1 << 24), 9)
    for start in range(0, rows, 1 << 24):
        made.id.write_direct_chunk((start,), chunk)


def words(file: h5py.File) -> None:
    """Honest chunks, too, of a text that takes ten times its room when it is parsed."""
    text = np.frombuffer(b'{"keys":[]}\n' * 2_000_000, "u1")
    replaced(file, "schema", text, compression="gzip", chunks=(1 << 20,))


EVENT_CODES = np.array([0] * 10 + [-1], "i1")
PAIR, LOSS, NOTE = "series/pair/value_0", "series/loss", "series/note/value"

DATASETS: list[tuple[str, Change, str]] = [
    ("a missing dataset", lambda f: f.pop("schema"), "schema is missing"),
    ("a missing column", lambda f: f.pop(f"{LOSS}/value"), "series/loss/value is missing"),
    ("a missing group", lambda f: f.pop("series/pair"), "series/pair/value_0/shape is missing"),
    ("a group for a dataset", lambda f: [f.pop("marks"), f.create_group("marks")], "no.* dataset"),
    ("a dataset for a group", lambda f: replaced(f, "series", [1]), "series/.* is missing"),
    ("a named type", lambda f: linked(f, "config", np.dtype("i4")), "not a dataset"),
    (
        "an external link",
        lambda f: linked(f, "config", h5py.ExternalLink("/etc/passwd", "x")),
        "config is a link to elsewhere",
    ),
    (
        "an external link to a group",
        lambda f: linked(f, LOSS, h5py.ExternalLink(f.filename, "series/note")),
        "series/loss/step is a link to elsewhere",
    ),
    ("a soft link", lambda f: linked(f, "config", h5py.SoftLink("/schema")), "link to elsewhere"),
    ("a loop", lambda f: linked(f, "marks", h5py.SoftLink("/marks")), "link to elsewhere"),
    ("a loop of groups", lambda f: linked(f, LOSS, h5py.SoftLink("/series")), "link to elsewhere"),
    ("external storage", with_external_storage, "config lies in another file"),
    ("a virtual dataset", with_a_virtual_dataset, "config is laid out in a way"),
    ("a compact dataset", with_a_compact_dataset, "config is laid out in a way"),
    (
        "text of variable length",
        lambda f: replaced(f, "config", "{}", dtype=h5py.string_dtype()),
        "has the shape|holds object",
    ),
    (
        "variable lengths",
        lambda f: [f.pop("config"), f.create_dataset("config", (3,), h5py.vlen_dtype("u1"))],
        "config holds object",
    ),
    (
        "references",
        lambda f: replaced(f, "config", np.array([f.ref], object), dtype=h5py.ref_dtype),
        "config holds object",
    ),
    ("floats", lambda f: replaced(f, "events", EVENT_CODES.astype("f4")), "events holds float32"),
    ("big-endian", lambda f: replaced(f, "events", EVENT_CODES.astype(">i4")), "events holds >i4"),
    (
        "other fields",
        lambda f: replaced(f, "marks", np.zeros(1, [("code", "<i8"), ("x", "<i8")])),
        "marks holds",
    ),
    ("rank 0", lambda f: replaced(f, "config", np.uint8(1)), r"has the shape \(\)"),
    ("rank 2", lambda f: replaced(f, "events", EVENT_CODES[None]), r"has the shape \(1, 11\)"),
    (
        "another width",
        lambda f: replaced(f, f"{PAIR}/shape", np.ones((10, 3), "i8")),
        r"shape has the shape \(10, 3\)",
    ),
    ("an empty dataset", lambda f: replaced(f, "config", h5py.Empty("u1")), "shape"),
    (
        "too few rows",
        lambda f: replaced(f, f"{LOSS}/value", np.zeros(9, "f4")),
        "series/loss/value has 9 rows where the events say 10",
    ),
    (
        "too many rows",
        lambda f: replaced(f, f"{LOSS}/step", np.zeros(11, "i8")),
        "series/loss/step has 11 rows where the events say 10",
    ),
    (
        "an unknown filter",
        lambda f: replaced(f, "config", np.zeros(99, "u1"), compression="lzf"),
        "config is compressed in a way that is not read",
    ),
    (
        "a lossy filter",
        lambda f: replaced(f, "config", np.zeros(99, "u1"), scaleoffset=2),
        "config is compressed in a way that is not read",
    ),
    (
        "nothing behind a shape",
        lambda f: [f.pop("config"), f.create_dataset("config", (2**62,), "u1", chunks=(64,))],
        "config would take .* bytes of memory",
    ),
    (
        "nothing behind a compressed shape",
        lambda f: [
            f.pop("config"),
            f.create_dataset("config", (2**62,), "u1", chunks=(2**20,), compression="gzip"),
        ],
        "claims .* bytes, more than the file can hold",
    ),
    (
        "huge chunks",
        lambda f: [f.pop("config"), f.create_dataset("config", (2**30,), "u1", chunks=(2**30,))],
        "config has chunks of 1,073,741,824 bytes",
    ),
    (
        "a part that is not there",
        lambda f: [f.pop("config"), f.create_dataset("config", (64,), "u1", chunks=(64,))],
        "not in the file|claims",
    ),
    ("a bomb of words", words, "schema would take .* bytes of memory"),
    ("a bomb", lambda f: bomb(f, "config", 1 << 27), "does not inflate to what it should hold"),
    (
        "a bomb in a column",
        lambda f: bomb(f, f"{LOSS}/value", 1 << 28, "f8", 10),
        "part of series/loss/value is larger than what it holds",
    ),
    ("a mountain of zeros", many_zeros, "the list of events would take 17,179,869,184 bytes"),
]


def dropped(file: h5py.File) -> None:
    """The mark says that NaN events were dropped."""
    file["events"][10] = fmt.DROPPED
    mark = file["marks"][:]
    mark["code"], mark["x"] = fmt.DROPPED, np.nan
    file["marks"][:] = mark


MEANINGS: list[tuple[str, Change, str]] = [
    ("a signature that is not there", lambda f: f["events"].__setitem__(0, 9), "signature that is"),
    ("a code of no meaning", lambda f: f["events"].__setitem__(0, -99), "signature that is not"),
    ("fewer marks", lambda f: replaced(f, "marks", np.zeros(0, fmt.MARK)), "table of marks"),
    ("dropped events that are no number", dropped, "nan events were dropped"),
    ("a mark of no key set", lambda f: f["marks"].__setitem__("keys", 7), "names unknown keys"),
    (
        "a shape below 0",
        lambda f: f[f"{PAIR}/shape"].__setitem__((0, 0), -2),
        "shape is impossible",
    ),
    (
        "a huge shape",
        lambda f: f[f"{PAIR}/shape"].__setitem__((0, 0), 2**60),
        "shape is impossible",
    ),
    ("a shape too small", lambda f: f[f"{PAIR}/shape"].__setitem__((0, 0), 1), "shapes do not fit"),
    (
        "shapes whose sum wraps around",
        lambda f: f[f"{PAIR}/shape"].__setitem__(slice(None), 2**31),
        "shape is impossible",
    ),
    (
        "text that is not UTF-8",
        lambda f: f[f"{NOTE}/data"].__setitem__(0, 0xFF),
        "utf-8.* can't decode",
    ),
    ("a config that is not JSON", lambda f: f["config"].__setitem__(0, 0x7D), "config: Expecting"),
    ("a config that is not UTF-8", lambda f: f["config"].__setitem__(1, 0xFF), "config: .*utf-8"),
    (
        "a config that is nested deeply",
        lambda f: replaced(f, "config", np.frombuffer(b"[" * 10**6, "u1")),
        "config: it is nested too deeply",
    ),
    (
        "facts that are no object",
        lambda f: replaced(f, "facts", np.frombuffer(b"[1]", "u1")),
        "facts",
    ),
    (
        "a schema that is not UTF-8",
        lambda f: f["schema"].__setitem__(2, 0xFF),
        "schema is damaged",
    ),
    ("a key twice", lambda f: lines(f, lambda s: s.insert(0, s[0])), "is there twice"),
    (
        "a signature that repeats a column",
        lambda f: lines(f, lambda s: s[3]["columns"].append(0)),
        "repeats a column",
    ),
    (
        "a dangling column",
        lambda f: lines(f, lambda s: s[3]["columns"].append(3)),
        "names a column that is not there",
    ),
    (
        "a column that is no number",
        lambda f: lines(f, lambda s: s[3].update(columns=["0"])),
        "names a column that is not there",
    ),
    ("a key that is no text", lambda f: lines(f, lambda s: s[0].update(key=[1])), "be strings"),
    ("half a surrogate", lambda f: lines(f, lambda s: s[0].update(key="\ud800")), "valid Unicode"),
    ("no form", lambda f: lines(f, lambda s: s[0].update(forms=[])), "has 0 forms"),
    ("a form of no meaning", lambda f: lines(f, lambda s: s[0].update(forms=["O:1"])), "unknown f"),
    ("99 axes", lambda f: lines(f, lambda s: s[1].update(forms=["int64:99"])), "unknown form"),
    ("forms that are no list", lambda f: lines(f, lambda s: s[0].update(forms=3)), "is damaged"),
    ("a line that is a number", lambda f: lines(f, lambda s: s.insert(0, 3)), "is damaged"),  # type: ignore[arg-type]
    ("no version", lambda f: f.attrs.pop("version"), "version is None"),
    ("a version that is text", lambda f: f.attrs.update(version=np.bytes_("1")), "version is b'1'"),
    ("a format that is long", lambda f: f.attrs.update(format=np.bytes_(b"x" * 9999)), "no short"),
    ("a format that is an array", lambda f: f.attrs.update(format=np.zeros(9)), "no short text"),
    ("a format of any length", lambda f: f.attrs.update(format="flexrec"), "no short text"),
    ("another format", lambda f: f.attrs.update(format=np.bytes_("x")), "not a flexrec recording"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [pytest.param(c, m, id=name) for name, c, m in DATASETS + MEANINGS],
)
def test_a_hostile_file_is_refused(path: Path, change: Change, message: str) -> None:
    with h5py.File(path, "r+", libver=fmt.LIBVER) as file:
        change(file)
    with pytest.raises(RecordingError, match=message) as caught:
        read_whole(path)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_recording_as_it_should_be_is_read(path: Path) -> None:
    assert len(read_whole(path)) == 11


BOMBS = [name for name, _, _ in DATASETS if "bomb" in name or "zeros" in name or "shape" in name]


@pytest.mark.parametrize("name", BOMBS)
def test_memory_is_bounded_by_the_file(path: Path, name: str) -> None:
    with h5py.File(path, "r+", libver=fmt.LIBVER) as file:
        next(change for known, change, _ in DATASETS if known == name)(file)
    code = (
        "import resource, sys\n"
        "from flexrec.recorder import Recording, RecordingError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    with Recording(sys.argv[1]) as run:\n"
        "        run.series(run.keys())\n"
        "except RecordingError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True)
    assert int(done.stdout) << 10 < 64 << 20


def test_the_first_bytes_are_checked(path: Path) -> None:
    whole = path.read_bytes()
    for data, message in [
        (whole[:20], "not an HDF5 file|not a flexrec recording"),
        (b"", "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5 file, but not a flexrec recording"),
        (whole[:30] + b"\1" + whole[31:], "its first bytes are not as written"),
        (whole[:-1], "cut short|end is missing"),
    ]:
        path.write_bytes(data)
        with pytest.raises(RecordingError, match=message):
            Recording(path)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.h5"
    os.mkfifo(pipe)
    for there, kind in {
        tmp_path: "is a folder",
        pipe: "is a pipe",
        Path("/dev/zero"): "is a device",
        tmp_path / "none": "does not exist",
        tmp_path / "no\0name": "does not exist",
    }.items():
        for read in (Recording, verify):
            with pytest.raises(RecordingError, match=f"{kind}; give the path of a recording"):
                read(there)
        with pytest.raises(RecordingError, match=f"{kind}; give the path of a recording"):
            repair(there)


def test_other_hdf5_files_are_not_recordings(tmp_path: Path) -> None:
    for libver in ("earliest", "latest", "v110"):
        other = tmp_path / f"{libver}.h5"
        with h5py.File(other, "w", libver=libver) as file:
            file["x"] = 1
        with pytest.raises(NotARecordingError, match="not a flexrec recording"):
            Recording(other)


# ---------------------------------------------------------------- the live layout


SCHEMA = b"".join(
    [
        b'{"key":"loss","forms":["number"],"bare":true}\n',
        b'{"key":"image","forms":["uint8:2"],"bare":true}\n',
        b'{"columns":[0]}\n',
        b'{"columns":[1]}\n',
    ]
)


def live(path: Path, values: list[float], events: list[tuple[int, int]], blobs: int = 100) -> None:
    """A live recording with these values and (code, start) of events."""
    file = LiveFile(path, config=None, facts=None)
    rows = np.zeros(len(events), fmt.EVENT)
    rows["code"], rows["start"] = zip(*events, strict=True)
    rows["step"] = np.arange(len(events))
    file.append(Block(SCHEMA, [np.arange(blobs, dtype="u1")], np.array(values), rows))
    file.close()


GOOD = [0.5, 0.0, 2.0, 3.0, 0.25]  # a number; an array of 2 × 3 bytes at 0; a number
PLACES = [(0, 0), (1, 1), (0, 4)]
BAD_EVENTS: list[tuple[str, list[float], list[tuple[int, int]], int]] = [
    ("an array beyond the blobs", [0.5, 99, 2, 3, 0.25], PLACES, 1),
    ("an offset below 0", [0.5, -1, 2, 3, 0.25], PLACES, 1),
    ("an offset that is no number", [0.5, float("nan"), 2, 3, 0.25], PLACES, 1),
    ("an offset that is no whole number", [0.5, 0.5, 2, 3, 0.25], PLACES, 1),
    ("an infinite shape", [0.5, 0, float("inf"), 3, 0.25], PLACES, 1),
    ("a shape below 0", [0.5, 0, -2, 3, 0.25], PLACES, 1),
    ("a shape that wraps around", [0.5, 0, 2.0**32, 2.0**32, 0.25], PLACES, 1),
    ("an empty array of absurd width", [0.5, 0, 2.0**52, 0, 0.25], PLACES, 3),
    ("an unknown signature", GOOD, [(0, 0), (9, 1), (0, 4)], 1),
    ("an unknown mark", GOOD, [(0, 0), (-9, 1), (0, 4)], 1),
    ("a start elsewhere", GOOD, [(0, 0), (1, 2), (0, 4)], 1),
    ("a start far outside", GOOD, [(0, 0), (1, 2**62), (0, 4)], 1),
    ("a start below 0", GOOD, [(0, -1), (1, 1), (0, 4)], 0),
    ("too few values", GOOD[:3], PLACES, 1),
]


@pytest.mark.parametrize(
    ("values", "events", "whole"), [pytest.param(*case[1:], id=case[0]) for case in BAD_EVENTS]
)
def test_what_is_not_whole_ends_a_live_recording(
    tmp_path: Path, values: list[float], events: list[tuple[int, int]], whole: int
) -> None:
    path = tmp_path / "run.h5"
    live(path, values, events)
    found = read_whole(path)
    assert [event.step for event in found] == list(range(whole))
    with Recording(path) as run:
        told = f"what follows, {3 - whole} events, is not whole and left out"
        assert (told in run.state) == (whole < 3)


def test_arrays_that_lie_upon_one_another_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    live(path, [0.0, 2.0, 3.0] * 17, [(1, 3 * i) for i in range(17)])
    with pytest.raises(RecordingError, match="arrays lie upon one another"):
        read_whole(path)
    live(path, [v for i in range(16) for v in (6.0 * i, 2.0, 3.0)], [(1, 3 * i) for i in range(16)])
    assert len(read_whole(path)) == 16


def test_many_keys_that_share_one_dataset_take_no_memory_of_their_own(path: Path) -> None:
    with h5py.File(path, "w", libver=fmt.LIBVER) as file:
        file.attrs.update(fmt.root_attributes(fmt.CLOSED, 0.0))
        rows, keys = 1 << 20, 64
        columns = [{"key": f"k{i}", "forms": ["number"], "bare": True} for i in range(keys)]
        schema = [*columns, {"columns": list(range(keys))}]
        text = b"".join(json.dumps(line).encode() + b"\n" for line in schema)
        small: dict[str, Any] = {"compression": "gzip", "chunks": (1 << 18,)}
        for name, data in (("config", b"null"), ("facts", b"null"), ("schema", text)):
            file[name] = np.frombuffer(data, "u1")
        file.create_dataset("events", data=np.zeros(rows, "i1"), **small)
        file["marks"] = np.zeros(0, fmt.MARK)
        for name, dtype in (("step", "i8"), ("time", "f8"), ("value", "f4")):
            file.create_dataset(f"series/k0/{name}", data=np.zeros(rows, dtype), **small)
        for i in range(1, keys):
            file[f"series/k{i}"] = file["series/k0"]
    with Recording(path) as run:
        assert len(run["k5"]) == rows
        with pytest.raises(RecordingError, match="all of 64 keys at once would take"):
            run.series(run)


def test_a_live_recording_that_is_cut_keeps_what_lies_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False, flush_seconds=60) as rec:
        for i in range(6000):
            rec.add(loss=float(i), image=np.full((5, i % 40), i, "i4"))
            rec.step()
            if i % 1000 == 999:
                rec.flush()
        whole = path.read_bytes()
        expected = read_whole(path)
    path.write_bytes(whole)
    places = chunk_places(path)
    for cut in np.linspace(SIZE, len(whole), 14).astype(int).tolist():
        path.write_bytes(whole[:cut])
        if cut < places["first"]:
            with suppress(RecordingError):
                read_whole(path)
            continue
        found = read_whole(path)
        kept = rows_before(places, cut)
        assert len(found) >= kept, (cut, len(found), kept)
        assert [e.step for e in found] == list(range(len(found)))
        for a, b in zip(found, expected, strict=False):
            assert isinstance(a, Add)
            assert isinstance(b, Add)
            assert all(same(a.values[key], b.values[key]) for key in ("loss", "image"))


def chunk_places(path: Path) -> dict[str, Any]:
    """Where a live recording's chunks end, and what each event needs of each dataset."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        found: dict[str, Any] = {"first": 1 << 14}
        for name in ("values", "blobs", "events"):
            dataset = file[name]
            rows, ends = dataset.chunks[0], []
            for i in range(dataset.id.get_num_chunks()):
                ends.append(dataset.id.get_chunk_info(i).byte_offset)
            found[name] = rows, dataset.dtype.itemsize, ends
        values = file["values"][:].reshape(-1, 4)
        found["needs"] = {
            "events": np.arange(1, len(values) + 1),
            "values": np.arange(1, len(values) + 1) * 4,
            "blobs": values[:, 1] + values[:, 2] * values[:, 3] * 4,
        }
        return found


def rows_before(places: dict[str, Any], cut: int) -> int:
    """How many events lie before a cut with all that they need."""
    whole = []
    for name in ("values", "blobs", "events"):
        rows, itemsize, starts = places[name]
        there = 0
        for i, start in enumerate(starts):
            there = i * rows + min(max(cut - start, 0) // itemsize, rows)
            if start + rows * itemsize > cut:
                break
        whole.append(int((places["needs"][name] <= there).sum()))
    return min(whole)


# ---------------------------------------------------------------- the guard itself


def test_the_checksum_is_that_of_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "sum.h5", "w", libver=fmt.LIBVER) as file:
        file["x"] = 1
    head = (tmp_path / "sum.h5").read_bytes()[:SIZE]
    assert lookup3(head[:-4]) == int.from_bytes(head[-4:], "little")
    found = Superblock.parse(head)
    assert found is not None
    assert found.sound


def test_the_guard_reads_what_h5py_reads(path: Path) -> None:
    rng = np.random.default_rng(3)
    cases: list[dict[str, Any]] = [
        {},
        {"chunks": (7,)},
        {"chunks": (7,), "compression": "gzip"},
        {"chunks": (64,), "compression": "gzip", "shuffle": True},
        {"chunks": (9,), "shuffle": True, "compression": 9},
        {"chunks": (100,), "shuffle": True},
    ]
    with h5py.File(path, "r+", libver=fmt.LIBVER) as file:
        for i, options in enumerate(cases):
            file.create_dataset(f"a{i}", data=rng.integers(0, 99, 100), **options)
    file = UntrustedFile(path)
    for i in range(len(cases)):
        found = file.dataset(f"a{i}", [np.dtype("<i8")])
        with h5py.File(path) as plain:
            for rows in (slice(None), slice(3, 50), slice(63, 64), slice(50, 20), slice(98, 200)):
                assert np.array_equal(found[rows], plain[f"a{i}"][rows])
    file.close()
    file.close()


def test_a_recording_left_open_does_not_crash_the_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    live(path, GOOD, PLACES)
    path.write_bytes(as_killed(path.read_bytes()))
    code = (
        "import sys; from flexrec.recorder import Recording; r = Recording(sys.argv[1]); r['loss']"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], check=True)
    with Recording(path) as run:
        assert run._store.file.unclosed
        assert run["loss"].value.tolist() == [0.5, 0.25]


def as_killed(data: bytes) -> bytes:
    """A file's bytes, its first ones saying that a writer has it open."""
    head = bytearray(data[:SIZE])
    head[11] = 5
    head[-4:] = lookup3(bytes(head[:-4])).to_bytes(4, "little")
    return bytes(head) + data[SIZE:]


def test_files_are_closed_again(path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))
    try:
        damaged = path.with_name("damaged.h5")
        damaged.write_bytes(as_killed(path.read_bytes()[:-1]))
        os.utime(damaged, (0, 0))  # nobody is writing it
        for _ in range(200):
            Recording(path)
            with pytest.raises(RecordingError):
                Recording(damaged)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
