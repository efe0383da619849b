"""Where a recording goes: folders, names of its own, and what is no path."""

import os
import re
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import InputError, OutputError, Recording, RecordingError
from flexrec.recorder.files import rename
from flexrec.recorder.writing.opening.facts import _RANKS
from support.recorders import recorder


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dir" / "run.h5"
    with recorder(path) as rec:
        rec.add(a=1)
    with Recording(path) as run:
        assert run["a"].value.tolist() == [1]


def test_the_names_of_folders_on_the_way_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set[int]()
    monkeypatch.setattr(rename, "sync", lambda opened: synced.add(os.fstat(opened).st_ino))
    with recorder(tmp_path / "new" / "dir" / "run.h5"):
        assert synced >= {each.stat().st_ino for each in (tmp_path, tmp_path / "new")}


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("mode", ["x", "w"])
def test_in_a_folder_a_recording_has_a_name_of_its_own(
    tmp_path: Path, is_there: bool, mode: Any
) -> None:
    folder = tmp_path / "runs"
    given = f"{folder}/"
    if is_there:
        folder.mkdir()
        given = str(folder)
    names = set()
    for _ in range(2):
        with recorder(given, mode=mode) as rec:
            rec.add(a=1)
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}\.h5", rec.path.name)
        names.add(rec.path.name)
    assert set(os.listdir(folder)) == names
    assert len(names) == 2


def test_each_rank_may_have_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with recorder(f"{tmp_path}/{{rank}}/") as rec:
        assert rec.path.parent == tmp_path / "3"


def test_a_folder_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"is a folder.*to resume one, give the path of its"):
        recorder(tmp_path, mode="resume")
    assert list(tmp_path.iterdir()) == []


NO_PATHS = [
    (b"run.h5", "path must be a str or a pathlib.Path, got bytes"),
    (None, "got NoneType"),
    (3, "got int"),
    ("", "got ''"),
]


@pytest.mark.parametrize(("given", "message"), NO_PATHS)
def test_what_is_no_path_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recorder(given)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for given in (
        tmp_path / "file" / "run.h5",
        f"{tmp_path}/file/runs/",
        f"{tmp_path}/a\0b/run.h5",
        f"{tmp_path}/a\0b.h5",
        f"{tmp_path}/\ud800.h5",
    ):
        with pytest.raises(OutputError, match="cannot create"):
            recorder(given)
    for given in (tmp_path / "file" / "run.h5", f"{tmp_path}/file/runs/"):
        with pytest.raises(OutputError, match=r"file is no folder|Not a directory"):
            recorder(given)


@pytest.mark.parametrize("given", ["~/new/run.h5", "~/", Path("~someone/run.h5")])
def test_no_folder_is_made_that_is_called_as_ones_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"write os\.path\.expanduser\('~"):
        recorder(given)
    assert list(tmp_path.iterdir()) == []
    recorder("~run.h5").close()  # a file of that name is no folder
    (tmp_path / "~").mkdir()
    recorder("~/run.h5").close()
    assert (tmp_path / "~" / "run.h5").is_file()


def _record_by_rank(folder: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        recorder(f"{folder}/plain.h5").close()
        recorder(f"{folder}/{{rank}}.h5").close()
    Path(folder, "told").write_text("\n".join(str(warning.message) for warning in told))


@pytest.mark.parametrize("given", [None, "3"])
def test_a_child_process_is_told_that_it_has_no_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    for name in _RANKS:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv("RANK", given)
    child = get_context("spawn").Process(target=_record_by_rank, args=(str(tmp_path),))
    child.start()
    child.join()
    assert child.exitcode == 0
    told = (tmp_path / "told").read_text()
    assert ("has no rank yet" in told) == (given is None)
    assert told.count("\n") == 0
    assert (tmp_path / f"{given or 0}.h5").is_file()
