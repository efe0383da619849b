"""What is synced before and after a rename; folders that cannot be synced."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flexrec.recorder import Recorder, Recording, merge_recordings
from flexrec.recorder.files import descriptors, rename
from flexrec.recorder.files.atomic_write import ANYTHING, Kind
from flexrec.recorder.files.folder_write import FolderKind, replacing_folder
from flexrec.recorder.maintenance.repair import repair
from support.crashing import crash
from support.recorders import recorder


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every sync of a folder fails."""
    sync = descriptors.sync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(rename, "sync", fail)
    return monkeypatch


def begun(path: Path) -> Recorder:
    rec = recorder(path, on_error="raise")
    rec.add(a=1.0)
    return rec


def killed(path: Path) -> Path:
    rec = begun(path)
    crash(rec)
    return path


def _close(path: Path) -> Callable[[], object]:
    return begun(path).close


def _close_deleted(path: Path) -> Callable[[], object]:
    rec = begun(path)
    rec.flush()
    path.unlink()
    rec._flusher._missed = True  # so that only what close() says is a warning
    return rec.close


def _repair(path: Path) -> Callable[[], object]:
    killed(path)
    return lambda: repair(path)


def _merge(path: Path) -> Callable[[], object]:
    parts = [killed(path.with_name(f"{rank}.h5")) for rank in range(2)]
    return lambda: merge_recordings(parts, path)


@pytest.mark.parametrize("begin", [_close, _close_deleted, _repair, _merge])
def test_a_recording_is_there(
    path: Path, unsynced: pytest.MonkeyPatch, begin: Callable[[Path], Callable[[], object]]
) -> None:
    with unsynced.context() as patch:
        patch.setattr(rename, "sync", lambda _: None)
        finish = begin(path)
    with pytest.warns(RuntimeWarning, match="is written, but its folder could not") as warned:
        finish()
    assert [str(each.message) for each in warned] == [
        f"{path} is written, but its folder could not be synced, so a loss of power may undo "
        "that: Input/output error"
    ]
    with Recording(path) as run:
        assert run.complete
        assert set(run["a"].value) == {1.0}


def test_a_new_recording_goes_on(path: Path, unsynced: pytest.MonkeyPatch) -> None:
    with pytest.warns(RuntimeWarning, match="folder could not be synced"):
        rec = begun(path)
    unsynced.undo()
    rec.close()
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.usefixtures("unsynced")
def test_a_folder_is_there(tmp_path: Path) -> None:
    text = FolderKind("texts", {"*.txt": Kind("a text", lambda _: True)})
    with (
        pytest.warns(RuntimeWarning, match="texts is written, but its folder could not"),
        replacing_folder(tmp_path / "texts", text) as made,
    ):
        (made / "a.txt").write_text("a")
    assert (tmp_path / "texts" / "a.txt").read_text() == "a"


def test_the_names_in_a_folder_are_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[int]()
    monkeypatch.setattr(rename, "sync", lambda opened: synced.append(os.fstat(opened).st_ino))
    target = tmp_path / "texts"
    with replacing_folder(target, FolderKind("texts", {"in/*.txt": ANYTHING})) as made:
        (made / "in").mkdir()
        (made / "in" / "a.txt").write_text("a")
    file, *folders, above = synced
    assert file == (target / "in" / "a.txt").stat().st_ino
    assert sorted(folders) == sorted(each.stat().st_ino for each in (target, target / "in"))
    assert above == tmp_path.stat().st_ino
