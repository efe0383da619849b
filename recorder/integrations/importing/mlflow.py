"""Read the runs in a folder of MLflow's: a text file for each metric, param and tag.

MLflow's own reader has a whole metric in memory, so the files are read without it. Tested with
mlflow 3.17.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.events import Add
from flexrec.recorder.integrations.importing.logged import decimal
from flexrec.recorder.integrations.importing.source import NOT_ENDED, Item, Notes, Settings

META = "meta.yaml"
_IDENTITIES = ("run_id", "run_uuid")
OWN_TAGS = ("mlflow.runName", "mlflow.log-model.history")  # that are no settings
_RUNNING = 1  # of MLflow's RunStatus
_LONGEST = 1 << 20  # characters of a line, a param, or a tag
_PLAIN: dict[str, Any] = {"True": True, "False": False, "None": None}


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return any(name in _meta(folder) for name in _IDENTITIES)


def is_deleted(folder: Path) -> bool:
    """Whether a run was deleted, and not yet removed."""
    return _meta(folder).get("lifecycle_stage") == "deleted"


def run_name(folder: Path) -> str:
    """The name of a run."""
    return str(_meta(folder).get("run_name") or folder.name)


def experiment_name(folder: Path) -> str:
    """The name of the experiment that a run's folder is in."""
    return str(_meta(folder.parent).get("name") or folder.parent.name)


def read_run(files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The params, tags and metrics of runs, given by their files META; metric after metric."""
    for path in files:
        if _meta(path.parent).get("status") == _RUNNING:
            notes.damage.append(NOT_ENDED)
        yield Settings(
            {name: setting(text) for name, text in _texts(path.parent / "params", notes)}
        )
        tags = dict(_texts(path.parent / "tags", notes))
        tags = {name: text for name, text in tags.items() if name not in OWN_TAGS}
        if tags:
            yield Settings({"tags": tags})
        for key, file in _files(path.parent / "metrics"):
            yield from _adds(key, file, notes)


def _meta(folder: Path) -> dict[str, Any]:
    """What a folder's file META says; empty if there is none, or it is damaged."""
    path = folder / META
    if not path.is_file():
        return {}
    try:
        import yaml
    except ImportError as missing:
        raise MissingDependency.of("MLflow's files", "pyyaml") from missing
    with suppress(OSError, RecursionError, ValueError, yaml.YAMLError):
        with path.open(encoding="utf-8") as file:
            found = yaml.safe_load(file.read(_LONGEST))
        if isinstance(found, dict):
            return found
    return {}


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The regular files in a folder and those within, with their names; `a/b` is in a folder."""
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(here, name)
            if path.is_file():  # reading a pipe may never end
                yield path.relative_to(folder).as_posix(), path


def _texts(folder: Path, notes: Notes) -> Iterator[tuple[str, str]]:
    for name, path in _files(folder):
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_LONGEST)
        yield name, notes.text(text.encode("utf-8", "surrogateescape"))


def setting(text: str) -> Any:
    """The number, boolean or None that a param's text stands for, else the text."""
    for kind in (int, decimal):
        with suppress(ValueError):
            return kind(text)
    return _PLAIN.get(text, text)


def _adds(key: str, path: Path, notes: Notes) -> Iterator[Add]:
    """A metric's values: lines of the time in milliseconds, the value, and the step."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST), ""), 1):
            try:
                time, value, *rest = line.split()
                if not line.endswith("\n"):
                    raise ValueError("it was cut off")
                yield Add({key: decimal(value)}, int(rest[0]) if rest else 0, int(time) / 1000)
            except (OverflowError, ValueError):
                notes.damage.append(f"{path}: line {number} is not whole, and left out")
