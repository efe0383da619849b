"""Where anything of ours writes: what is never replaced, and what a file has when it is.

Every writer of `writers.WRITERS` is held to the same rules; `check` and `repair`, which are asked
otherwise, have tests of their own.
"""

import errno
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexrec.cli.commands import app
from flexrec.recorder import FlexrecError, OutputError, Recorder, Recording
from flexrec.recorder.files.atomic_write import ANYTHING, beside, check_target, keep, replacing
from flexrec.recorder.maintenance.repair import repair, verify
from flexrec.replay.golden.check import check
from flexrec.replay.golden.files import obtained_path
from flexrec.replay.server import assets
from support.writers import WRITERS, Writer, record

ALL = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture(autouse=True)
def page_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of visdom's page has to be fetched."""
    monkeypatch.setattr(assets, "_at_hand", lambda asset: asset.name.encode())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A recording to read."""
    return record(tmp_path / "run.h5")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where is written; nothing else is in it."""
    made = tmp_path / "out"
    made.mkdir()
    return made


def refused(writer: Writer, path: Path, run: Path, *, overwrite: bool, match: str) -> None:
    """The writer raises, and the folder is as it was."""
    before = [(p, p.lstat().st_mode, p.lstat().st_ino) for p in sorted(path.parent.iterdir())]
    whole = path.read_bytes() if path.is_file() else None
    with pytest.raises(FlexrecError, match=match):
        writer.write(path, run, overwrite)
    after = [(p, p.lstat().st_mode, p.lstat().st_ino) for p in sorted(path.parent.iterdir())]
    assert after == before
    assert whole == (path.read_bytes() if path.is_file() else None)


# ---------------------------------------------------------------------- other kinds


def foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = range(10)
        file.attrs["note"] = "made of a recording of flexrec"


def foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", b"numbers")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "train.py": lambda path: path.write_text("import torch\n"),
    "model.h5": foreign_hdf5,
    "config.json": lambda path: path.write_text('{"lr": 0.1, "jsons": 3}'),
    "deep.json": lambda path: path.write_text('{"a": ' + "[" * 100_000),
    "list.json": lambda path: path.write_text("[1, 2]"),
    "site.html": lambda path: path.write_text("<!doctype html>\n<html></html>\n"),
    "table.csv": lambda path: path.write_text("step,loss\n1,2.0\n"),
    "table.parquet": lambda path: pq.write_table(pa.table({"a": [1, 2]}), path),
    "torn.parquet": lambda path: path.write_bytes(b"PAR1" + bytes(30)),
    "data.zip": foreign_zip,
    "torn.zip": lambda path: path.write_bytes(b"PK\3\4" + bytes(30)),
    "blob": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "one": lambda path: path.write_bytes(b"\0"),
}


@ALL
def test_a_file_that_flexrec_did_not_write_is_never_replaced(
    name: str, run: Path, folder: Path
) -> None:
    writer = WRITERS[name]
    for other, make in FOREIGN.items():
        path = folder / f"{other}.{writer.ending}"
        make(path)
        link = path.with_name(f"link-{path.name}")
        link.symlink_to(path)
        for overwrite in (False, True):
            for there in (path, link):
                match = f"{there.name} is there already and is not an? .*choose another path"
                refused(writer, there, run, overwrite=overwrite, match=match)


@ALL
def test_a_file_of_another_kind_of_ours_is_never_replaced(
    name: str, run: Path, folder: Path
) -> None:
    writer = WRITERS[name]
    for other in WRITERS.values():
        if other.ending != writer.ending:
            path = folder / f"{other.ending}.{writer.ending}"
            made = folder / f"made.{other.ending}"
            if not path.exists():
                other.write(made, run, False)
                made.rename(path)
            for overwrite in (False, True):
                refused(writer, path, run, overwrite=overwrite, match="is there already and is not")


@ALL
def test_an_input_is_never_written(name: str, run: Path) -> None:
    """Whatever way it is named; a recorder has none."""
    writer = WRITERS[name]
    links = [run.with_name(f"{kind}.{writer.ending}") for kind in ("soft", "hard")]
    links[0].symlink_to(run)
    os.link(run, links[1])
    if name != "Recorder":
        for path in ([run] if writer.ending in ("h5", "json") else []) + links:
            for overwrite in (False, True):
                refused(writer, path, run, overwrite=overwrite, match="is read here|is not an? ")
    assert verify(run).state == "whole"


# ---------------------------------------------------------------------- what is no regular file


def device(path: Path) -> None:
    """One like /dev/null, where that is allowed; else a pipe."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # a socket's path is short


NODES: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": device,
    "folder": Path.mkdir,
    "socket": listening,
}


@ALL
@pytest.mark.parametrize("node", NODES)
def test_what_is_no_regular_file_is_never_replaced(
    name: str, node: str, run: Path, folder: Path
) -> None:
    if (name, node) == ("Recorder", "folder"):  # it makes a file of its own name in it
        return
    writer = WRITERS[name]
    path, link = folder / f"node.{writer.ending}", folder / f"link.{writer.ending}"
    NODES[node](path)
    link.symlink_to(path)
    for overwrite in (False, True):
        for there in (path, link):
            match = rf"{there.name} is a \w+, not a regular file: it is left as it is"
            refused(writer, there, run, overwrite=overwrite, match=match)


@pytest.mark.parametrize("node", NODES)
def test_no_golden_takes_the_place_of_what_is_no_regular_file(
    node: str, run: Path, folder: Path
) -> None:
    golden = folder / "golden.json"
    NODES[node](golden)
    command = ["check", str(run), "-p", "loss", "--golden", str(golden)]
    with pytest.raises(FlexrecError, match="not a regular file"):
        app([*command, "--update"], standalone_mode=False)
    assert stat.S_IFMT(golden.lstat().st_mode) != stat.S_IFREG
    assert list(folder.iterdir()) == [golden]


# ---------------------------------------------------------------------- files of the same kind


@ALL
def test_a_file_of_the_same_kind_is_replaced_where_that_is_said(
    name: str, run: Path, folder: Path
) -> None:
    writer, path = WRITERS[name], folder / f"made.{WRITERS[name].ending}"
    writer.write(path, run, False)
    refused(writer, path, run, overwrite=False, match=f"exists already; .*{writer.hint}")
    before = path.stat().st_ctime_ns  # the inode's number may be given again
    writer.write(path, run, True)
    assert path.stat().st_ctime_ns != before
    assert list(folder.iterdir()) == [path]


@ALL
def test_an_empty_file_counts_as_any_kind(name: str, run: Path, folder: Path) -> None:
    writer, path = WRITERS[name], folder / f"made.{WRITERS[name].ending}"
    path.touch()
    refused(writer, path, run, overwrite=False, match="exists already")
    writer.write(path, run, True)
    assert path.stat().st_size
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_a_table_that_a_spreadsheet_saved_is_still_a_table(
    run: Path, tmp_path: Path, ending: bytes
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfkey,step,time,value,text" + ending + b"loss,0,0,1,")
    WRITERS["export"].write(path, run, True)


@pytest.mark.parametrize("damage", [slice(0, 300), slice(0, -10), slice(0, 60)])
def test_a_damaged_recording_is_replaced_as_a_whole_one(
    run: Path, tmp_path: Path, damage: slice
) -> None:
    whole = run.read_bytes()
    run.write_bytes(whole[damage])
    if damage.stop == 60:  # nothing says that it was a recording
        with pytest.raises(OutputError, match="is not a flexrec recording"):
            Recorder(run, mode="w", facts=False)
        return
    Recorder(run, mode="w", facts=False).close()
    assert verify(run).state == "whole"


def test_a_recording_that_another_tool_of_hdf5_copied_is_one(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    with h5py.File(run) as source, h5py.File(copy, "w", libver=("v110", "v110")) as file:
        file["filler"] = [0.0] * 10_000
        for name in source:
            source.copy(name, file)
        del file["filler"]
        for name, value in source.attrs.items():
            file.attrs[name] = value
    Recording(copy).close()
    Recorder(copy, mode="w", facts=False).close()


def test_a_loop_of_links_is_told(tmp_path: Path, run: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    with pytest.raises(FlexrecError, match=r"loop\.json: Too many levels of symbolic links"):
        WRITERS["replay --save"].write(loop, run, True)


def test_two_sinks_of_one_environment_write_nothing_where_one_file_is_taken(
    tmp_path: Path,
) -> None:
    from flexrec.replay import Trace, Window
    from flexrec.replay.sinks.env_file import EnvFileSink

    sink = EnvFileSink(tmp_path / "run.json")
    sink.show([Window("w", env, "text", (Trace("t", "word"),)) for env in (None, "b")])
    (tmp_path / "run-b.json").write_text("notes")
    with pytest.raises(OutputError, match=r"run-b\.json is there already and is not"):
        sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run-b.json"]


def test_what_a_check_obtained_replaces_and_removes_nothing_else(tmp_path: Path) -> None:
    from flexrec.replay import Trace, Window

    golden, windows = tmp_path / "g.json", [Window("w", None, "text", (Trace("t", "one"),))]
    others = [Window("w", None, "text", (Trace("t", "two"),))]
    check(windows, golden, update=True)
    obtained = obtained_path(golden)
    assert check(others, golden).kept == obtained
    assert check(others, golden).kept == obtained  # its own is replaced
    check(windows, golden)
    assert not obtained.exists()
    obtained.write_text("notes")
    assert "g.obtained.json is there already and is not" in check(others, golden).unkept
    check(windows, golden)
    check(others, golden, update=True)
    assert obtained.read_text() == "notes"


def test_what_a_check_obtained_is_never_written_through_a_link(tmp_path: Path) -> None:
    from flexrec.replay import Trace, Window

    golden, windows = tmp_path / "g.json", [Window("w", None, "text", (Trace("t", "one"),))]
    others = [Window("w", None, "text", (Trace("t", "two"),))]
    check(windows, golden, update=True)
    whole, obtained, other = golden.read_bytes(), obtained_path(golden), tmp_path / "other.json"
    check(others, other, update=True)
    for there in (golden, other, tmp_path / "nowhere"):
        obtained.symlink_to(there)
        assert "g.obtained.json is a link" in check(others, golden).unkept
        assert check(windows, golden).comparison
        assert obtained.is_symlink()
        obtained.unlink()
    os.link(golden, obtained)
    assert "is read here, so it is not written" in check(others, golden).unkept
    assert check(windows, golden).comparison
    assert golden.read_bytes() == obtained.read_bytes() == whole


def test_a_golden_that_has_the_name_of_what_was_obtained_stays(tmp_path: Path) -> None:
    """Where it is reached through a link of the other name."""
    from flexrec.replay import Trace, Window

    golden, windows = tmp_path / "g.json", [Window("w", None, "text", (Trace("t", "one"),))]
    others = [Window("w", None, "text", (Trace("t", "two"),))]
    there = obtained_path(golden)
    golden.symlink_to(there)
    check(windows, golden, update=True)
    whole = there.read_bytes()
    assert check(windows, golden).comparison
    assert "is read here, so it is not written" in check(others, golden).unkept
    assert there.read_bytes() == whole
    check(others, golden, update=True)
    assert there.read_bytes() != whole


# ---------------------------------------------------------------------- names


@ALL
@pytest.mark.parametrize("letter", ["n", "\u00e9"])
def test_a_name_may_be_as_long_as_the_file_system_takes(
    name: str, letter: str, run: Path, folder: Path
) -> None:
    """What is written beside it has a shorter one, which is still its own."""
    writer = WRITERS[name]
    size = 255 - len(f"1.{writer.ending}")
    stem = letter * (size // len(letter.encode()))
    paths = [folder / f"{stem}{i}.{writer.ending}" for i in range(2)]
    for path in paths:
        writer.write(path, run, False)
        writer.write(path, run, True)
    assert sorted(folder.iterdir()) == paths
    beside_them = [beside(path, "closing") for path in paths]
    assert len(set(beside_them)) == 2
    old = beside(paths[0], "4711.partial")
    old.touch()  # of a process that is gone
    with replacing(paths[0], ANYTHING, overwrite=True) as partial:
        partial.write_text("made")
    assert not old.exists()


def test_an_original_with_a_long_name_is_kept(run: Path, folder: Path) -> None:
    path = folder / f"{'n' * 252}.h5"
    shutil.copy(run, path)
    original = keep(path)
    assert original.name.endswith(".original.h5")
    assert original.read_bytes() == run.read_bytes()
    assert keep(path).name.endswith(".original1.h5")


@ALL
def test_the_name_of_a_folder_that_is_not_there_is_refused(
    name: str, run: Path, folder: Path
) -> None:
    writer = WRITERS[name]
    if name in ("write_golden", "Recorder"):  # given a Path, as of `check`; it makes the folder
        return
    with pytest.raises(FlexrecError, match=r"runs/ ends with a slash, as a folder's name"):
        writer.write(f"{folder}/runs/", run, False)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []


def test_check_refuses_the_name_of_a_folder_that_is_not_there(run: Path, folder: Path) -> None:
    command = ["check", str(run), "-p", "loss", "--update", "--golden", f"{folder}/goldens/"]
    with pytest.raises(FlexrecError, match="goldens/ ends with a slash"):
        app(command, standalone_mode=False)
    assert list(folder.iterdir()) == []


# ---------------------------------------------------------------------- empty files


def test_an_empty_file_is_recorded_to(folder: Path) -> None:
    path = folder / "run.h5"
    path.touch()
    with pytest.raises(OutputError, match='exists already, empty; pass mode="w"') as told:
        Recorder(path, facts=False)
    assert "resume" not in str(told.value)
    with Recorder(path, mode="resume", facts=False) as rec:
        rec.add(a=1.0)
    with Recording(path) as read:
        assert list(read["a"].value) == [1.0]
    with pytest.raises(OutputError, match=r'exists already; .*mode="resume"'):
        Recorder(path, facts=False)


def test_an_empty_golden_is_written(run: Path, folder: Path) -> None:
    golden = folder / "g.json"
    golden.touch()
    command = ["check", str(run), "-p", "loss", "--golden", str(golden)]
    with pytest.raises(FlexrecError, match=r"g\.json is empty; update=True writes it"):
        app(command, standalone_mode=False)
    app([*command, "--update"], standalone_mode=False)
    app(command, standalone_mode=False)
    assert list(folder.iterdir()) == [golden]


@pytest.mark.parametrize("update", [[], ["--update"]])
def test_a_golden_that_is_a_recording_is_told(run: Path, folder: Path, update: list[str]) -> None:
    other = folder / "blob"
    other.write_bytes(b"\xff\xfe")
    for path, kind in ((run, "a flexrec recording"), (other, "no text")):
        command = ["check", str(run), "-p", "loss", "--golden", str(path), *update]
        with pytest.raises(FlexrecError, match=f"{path.name} is {kind}, and no golden, which is a"):
            app(command, standalone_mode=False)
    assert verify(run).state == "whole"


# ---------------------------------------------------------------------- mode, group, attributes


def access_list() -> bytes:
    """One more user may read; the group may not, though the mode's middle digit is 4."""
    entries = [(1, 6, -1), (2, 4, 1234), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def properties(path: Path) -> dict[str, object]:
    status = path.stat()
    attributes = {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}
    return {
        "mode": stat.S_IMODE(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "attributes": attributes,
    }


def make_special(path: Path, mode: int, *, with_list: bool = False) -> dict[str, object]:
    """Give a file a mode, another group and owner where that is allowed, and attributes."""
    if os.geteuid() == 0:
        os.chown(path, 1234, 12)
    names = {"user.flexrec": b"kept"}
    if with_list:
        names["system.posix_acl_access"] = access_list()
    path.chmod(mode)
    for name, value in names.items():
        try:
            os.setxattr(path, name, value)
        except OSError as error:  # a file system without
            if error.errno != errno.ENOTSUP:
                raise
    return properties(path)


@pytest.fixture
def privately(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The modes that files have as they are written, and, at last, as they come to their paths."""
    modes: list[int] = []
    real, link_, open_ = os.replace, os.link, os.open

    def replace(made: Path, path: Path) -> None:
        modes.append(stat.S_IMODE(os.stat(made).st_mode))
        real(made, path)

    def link(made: Path, path: Path) -> None:
        modes.append(stat.S_IMODE(os.stat(made).st_mode))
        link_(made, path)

    def opened(path: Path, flags: int, mode: int = 0o777, **options: int) -> int:
        descriptor = open_(path, flags, mode, **options)
        if flags & os.O_EXCL and str(path).endswith(("ing", "partial")):
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "open", opened)
    before = os.umask(0o022)
    yield modes
    os.umask(before)


@ALL
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o444])
def test_what_is_replaced_hands_down_mode_owner_and_attributes(
    name: str, mode: int, run: Path, folder: Path, privately: list[int]
) -> None:
    writer, path = WRITERS[name], folder / f"made.{WRITERS[name].ending}"
    writer.write(path, run, False)
    assert properties(path)["mode"] == 0o644  # a new file follows the umask
    before = make_special(path, mode, with_list=mode == 0o660)
    del privately[:]
    writer.write(path, run, True)
    assert properties(path) == before
    times = 2 if name == "Recorder" else 1  # made, closed
    assert privately == [0o600, before["mode"]] * times


def test_a_private_recording_stays_private(run: Path, privately: list[int]) -> None:
    """Live and closed, resumed, repaired, deleted and written anew."""
    before = make_special(run, 0o600)
    for ending in ("close", "repair", "delete"):
        rec = Recorder(run, mode="resume", facts=False, flush_seconds=60)
        rec.add(train_loss=3.0)
        rec.flush()
        assert properties(run) == before
        if ending == "close":
            rec.close()
        elif ending == "repair":
            killed = run.with_name("killed.h5")
            shutil.copyfile(run, killed)
            make_special(killed, 0o600)
            rec.close()
            assert repair(killed, keep_original=True).is_changed
            assert properties(killed) == before
            assert properties(killed.with_name("killed.original.h5")) == before
        else:
            run.unlink()
            with pytest.warns(RuntimeWarning, match="was deleted"):
                rec.close()
        assert properties(run) == before
    assert set(privately) == {0o600}


def test_a_group_that_cannot_be_kept_gets_what_everybody_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not allowed")

    real = Path.stat

    def stat_of_another_group(path: Path, **options: bool) -> os.stat_result:
        status = list(real(path, **options))
        if path.name.endswith("partial"):
            status[5] += 1
        return os.stat_result(status)

    monkeypatch.setattr(os, "chown", fail)
    monkeypatch.setattr(Path, "stat", stat_of_another_group)
    path = folder / "file"
    for mode, left in ((0o660, 0o600), (0o664, 0o644), (0o670, 0o600), (0o604, 0o604)):
        path.write_text("old")
        path.chmod(mode)
        told = "without its group; its group now has the permissions of everybody else"
        with (
            pytest.warns(RuntimeWarning, match=told),
            replacing(path, ANYTHING, overwrite=True) as partial,
        ):
            partial.write_text("new")
        assert stat.S_IMODE(path.lstat().st_mode) == left


def test_attributes_that_cannot_be_kept_are_told(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(run, "user.mine", b"1")
    os.setxattr(run, "system.posix_acl_access", access_list())
    rec = Recorder(run, mode="resume", facts=False)

    def fail(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not allowed")

    monkeypatch.setattr(os, "setxattr", fail)
    with pytest.warns(
        RuntimeWarning, match=r"run.h5 was replaced without its access list, user.mine; its"
    ):
        rec.close()
    assert stat.S_IMODE(run.stat().st_mode) == 0o600


def test_an_original_is_kept_without_hard_links(
    run: Path, monkeypatch: pytest.MonkeyPatch, privately: list[int]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    before, nowhere = make_special(run, 0o600), run.with_name("nowhere")
    run.with_name("run.original.h5").symlink_to(nowhere)  # is not written through
    monkeypatch.setattr(os, "link", fail)
    original = keep(run)
    assert original.name == "run.original1.h5"
    assert original.read_bytes() == run.read_bytes()
    assert properties(original) == before
    assert privately == [0o600, 0o600]
    assert not nowhere.exists()


# ---------------------------------------------------------------------- a loss of power


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is put in place: whether it was synced as it is, and then its folder."""
    told: list[str] = []
    content: dict[tuple[int, int], bytes] = {}
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            told.append("folder")
        else:
            link = f"/proc/self/fd/{descriptor}"
            content[status.st_dev, status.st_ino] = Path(link).read_bytes()

    def watched(put: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def watching(made: Path, path: Path) -> None:
            status = os.stat(made)
            as_it_is = content.get((status.st_dev, status.st_ino)) == Path(made).read_bytes()
            told.append("synced" if as_it_is else f"{path} is not on the disk as it is")
            put(made, path)

        return watching

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    return told


@ALL
def test_what_is_put_in_place_survives_a_loss_of_power(
    name: str, run: Path, folder: Path, synced: list[str]
) -> None:
    writer = WRITERS[name]
    writer.write(folder / f"made.{writer.ending}", run, False)
    assert synced == ["synced", "folder"] * (2 if name == "Recorder" else 1)


def test_so_does_what_is_resumed_and_repaired(run: Path, folder: Path, synced: list[str]) -> None:
    with Recorder(run, mode="resume", facts=False) as rec:
        rec.add(train_loss=3.0)
        rec.flush()
        killed = Path(shutil.copyfile(run, folder / "killed.h5"))
    assert synced == ["synced", "folder"] * 2
    del synced[:]
    repair(killed)
    assert synced == ["synced", "folder"]


def test_a_folder_that_cannot_be_synced_is_no_failure(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no such thing."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not here")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    WRITERS["export"].write(folder / "t.csv", run, False)


# ---------------------------------------------------------------------- a folder that is gone


def test_a_folder_that_was_removed_is_made_again_at_close(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "today" / "run.h5"
    path.parent.mkdir(parents=True)
    rec = Recorder(path, facts=False, flush_seconds=60)
    rec.add(a=1.0)
    rec.flush()
    shutil.rmtree(tmp_path / "runs")
    with pytest.warns(RuntimeWarning, match="was deleted, moved or replaced"):
        rec.close()
    with Recording(path) as read:
        assert list(read["a"].value) == [1.0]
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_anew_is_told_to_be_lost(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run.h5"
    path.parent.mkdir()
    for state in ("is lost", "is where it was moved to, not compressed"):
        rec = Recorder(path, facts=False, flush_seconds=60)
        rec.add(a=1.0)
        rec.flush()
        if "moved" in state:
            path.parent.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(path.parent)
        path.parent.write_text("a file where the folder was")
        with pytest.warns(RuntimeWarning, match="") as warned:
            rec.close()
        told = [str(warning.message) for warning in warned]
        assert f"{path} cannot be written" in told[-1]
        assert told[-1].endswith(f"what was recorded {state}")
        assert "kept as it was" not in "".join(told)
        path.parent.unlink()
        path.parent.mkdir()
    assert verify(tmp_path / "elsewhere" / "run.h5").state == "unfinished"


def test_no_other_file_is_replaced_where_ours_was(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    taken = tmp_path / f"run.{os.getpid()}.h5"
    rec = Recorder(path, facts=False)
    rec.add(a=1.0)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    taken.write_text("somebody else's")
    with pytest.warns(RuntimeWarning, match="") as warned:
        rec.close()
    told = [str(warning.message) for warning in warned]
    assert told[-1].endswith(f"the recording is in {tmp_path}/run.{os.getpid()}1.h5")
    assert taken.read_text() == "somebody else's"
    assert verify(tmp_path / f"run.{os.getpid()}1.h5").state == "whole"
    assert path.is_symlink()


# ---------------------------------------------------------------------- litter


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.writers import WRITERS
from flexrec.replay.server import assets
assets._at_hand = lambda asset: asset.name.encode()
link, overwrite = os.link, sys.argv[5] == "before renaming"
def kill(*paths):
    if not overwrite:
        link(*paths)
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = os.link = kill
WRITERS[sys.argv[2]].write(Path(sys.argv[3]), Path(sys.argv[4]), overwrite)
"""


def killed(name: str, path: Path, run: Path, when: str) -> None:
    """Kill a writer just before it renames what it wrote, or between link and unlink."""
    words = [str(Path(__file__).parents[1]), name, str(path), str(run), when]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
    assert done.returncode == -signal.SIGKILL


@ALL
def test_what_a_killed_writer_left_goes_with_the_next(name: str, run: Path, folder: Path) -> None:
    writer, path = WRITERS[name], folder / f"made.{WRITERS[name].ending}"
    killed(name, path, run, "before renaming")
    litter = list(folder.iterdir())
    assert litter
    assert path not in litter
    writer.write(path, run, False)
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("name", ["Recorder", "merge_recordings", "EnvFileSink"])
def test_the_first_name_of_a_file_goes_with_the_next(name: str, run: Path, folder: Path) -> None:
    writer, path = WRITERS[name], folder / f"made.{WRITERS[name].ending}"
    killed(name, path, run, "after linking")
    assert path in folder.iterdir()
    assert len(list(folder.iterdir())) > 1
    with pytest.raises(FlexrecError, match="exists already"):
        writer.write(path, run, False)
    assert list(folder.iterdir()) == [path]


def test_what_a_living_writer_writes_is_left_alone(folder: Path) -> None:
    path = folder / "run.json"
    others = [folder / f".run.json.{name}.partial" for name in ("notes", "0a.b")]
    for other in others:
        other.touch()
    pipe, old = folder / ".run.json.0123.partial", folder / ".run.json.4711.partial"
    os.mkfifo(pipe)
    old.touch()  # of a process that is gone
    code = (
        "import sys; from flexrec.recorder.files.atomic_write import ANYTHING, replacing\n"
        "with replacing(sys.argv[1], ANYTHING, overwrite=True) as partial:\n"
        "    partial.write_text('theirs'); print(partial, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        theirs = Path(os.fsdecode(process.stdout.readline().strip()))
        with replacing(path, ANYTHING) as mine:
            assert {theirs, mine, pipe, *others} == set(folder.iterdir())
            mine.write_text("mine")
        process.communicate()  # its end of input
    assert process.returncode == 0
    assert path.read_text() == "theirs"
    assert set(folder.iterdir()) == {path, pipe, *others}


def test_what_came_to_the_path_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.json"

    def write(meanwhile: Callable[[], object], *, overwrite: bool) -> None:
        with replacing(path, ANYTHING, overwrite=overwrite) as partial:
            partial.write_text("mine")
            meanwhile()

    with pytest.raises(OutputError, match="exists already"):
        write(lambda: path.write_text("theirs"), overwrite=False)
    assert path.read_text() == "theirs"
    path.unlink()
    with pytest.raises(OutputError, match="is a folder"):
        write(path.mkdir, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("has_links", [True, False])
def test_what_comes_to_the_path_amid_the_sync_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not has_links:
        monkeypatch.setattr(os, "link", fail)
    sync, path = os.fsync, tmp_path / "run.json"

    def write(meanwhile: Callable[[], object], *, overwrite: bool) -> None:
        def fsync(descriptor: int) -> None:
            sync(descriptor)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                meanwhile()

        monkeypatch.setattr(os, "fsync", fsync)
        with replacing(path, ANYTHING, overwrite=overwrite) as partial:
            partial.write_text("mine")

    with pytest.raises(OutputError, match="exists already"):
        write(lambda: path.write_text("theirs"), overwrite=False)
    assert path.read_text() == "theirs"
    path.unlink()
    with pytest.raises(OutputError, match="is a pipe"):
        write(lambda: os.mkfifo(path), overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    write(lambda: None, overwrite=False)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_what_comes_to_the_path_at_the_last_moment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look: renaming would replace it."""
    path, link = tmp_path / "run.json", os.link
    came: list[Callable[[], object]] = [
        lambda: path.write_text("theirs"),
        lambda: path.symlink_to(tmp_path / "nowhere"),
    ]
    for come in came:

        def late(made: Path, there: Path, come: Callable[[], object] = come) -> None:
            come()
            link(made, there)

        monkeypatch.setattr(os, "link", late)
        with (
            pytest.raises(OutputError, match="exists already"),
            replacing(path, ANYTHING) as partial,
        ):
            partial.write_text("mine")
        assert path.is_symlink() or path.read_text() == "theirs"
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


def test_links_are_followed_to_where_nothing_is(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    assert check_target(link, ANYTHING) == tmp_path / "target"
    with replacing(link, ANYTHING) as partial:
        partial.write_text("made")
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "made"
