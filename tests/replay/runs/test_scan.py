"""Finding recordings in folders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flexrec.replay.runs.scan import scan


class Refused:
    """An entry of a folder that may be listed, but not entered."""

    def __init__(self, entry: "os.DirEntry[str]") -> None:
        self.name, self.path, self.is_dir = entry.name, entry.path, entry.is_dir

    def is_file(self) -> bool:
        return True

    def stat(self) -> os.stat_result:
        raise PermissionError(13, "Permission denied")


def test_files_that_may_not_be_read_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.h5", "a/2.h5", "b/3.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scandir = os.scandir

    @contextmanager
    def refusing(folder: str) -> Iterator[list[Any]]:
        with scandir(folder) as entries:
            yield [Refused(e) if e.path.startswith(f"{tmp_path}/a/") else e for e in entries]

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.warns(RuntimeWarning) as told:
        found = scan([tmp_path])
    assert [one.name for one in found] == ["b/3"]
    assert [str(w.message) for w in told] == [
        f"the files in {tmp_path / 'a'} cannot be read: Permission denied"
    ]
