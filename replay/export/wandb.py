"""Write a recording's keys as an offline run of wandb, with wandb itself; nothing is sent.

Tested with wandb 0.31.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import MissingDependency, OutputError, counted
from flexrec.recorder.events import Add, State
from flexrec.recorder.files.atomic_write import writing
from flexrec.recorder.recording import Recording
from flexrec.replay.export.tables import Written
from flexrec.replay.export.tracked import (
    adds_by_step,
    bins_of,
    config_of,
    name_of,
    project_of,
)

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it is set up to report its errors
try:
    import wandb
except ImportError as missing:
    raise MissingDependency.of("wandb's files", "wandb") from missing

_OWN = ("_step", "_timestamp", "_runtime", "_wandb")  # keys that wandb writes itself
_UNFINISHED = "unfinished-export"  # a file in the folder of a run that is not yet whole
_REFUSED = str.maketrans("/\\#?%:", "______")  # in a project's name


def write_wandb(run: Recording, keys: Sequence[str], folder: Path) -> Written:
    """Write an offline run in a folder, for `wandb sync`; return the number of values.

    Raises:
        OutputError: wandb or the system refuses.
    """
    rows, lost = _Rows(run, [key for key in keys if key and key not in _OWN]), list[str]()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK):  # wandb would write elsewhere
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        lost += [
            f"{mark.parent} is a part of a run: its export was killed, failed, or still runs"
            for mark in sorted(folder.glob(f"wandb/offline-run-*/{_UNFINISHED}"))
        ]
        place = _write(run, rows, folder)
    if own := [key for key in keys if key in _OWN]:
        lost.append(f"{', '.join(own)}: wandb has keys of this name itself")
    if "" in keys:
        lost.append("the empty key: wandb has no place for it")
    return Written(rows.written, [*lost, *rows.notes(), f"wandb sync {place} sends it"])


def _write(run: Recording, rows: "_Rows", folder: Path) -> str:
    """Write a run with wandb; return its folder."""
    try:
        with wandb.init(
            project=project_of(run).translate(_REFUSED)[:128],
            name=name_of(run),
            mode="offline",
            dir=folder,
            config=config_of(run),
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                silent=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        ) as offline:
            mark = Path(offline.settings.sync_dir, _UNFINISHED)
            mark.touch()
            for add in rows:
                values = {key: _value(value) for key, value in add.values.items()}
                offline.log({**values, "_timestamp": add.time}, step=add.step)
        mark.unlink()
        return str(mark.parent)
    except wandb.Error as error:
        raise OutputError(f"wandb cannot write to {folder}: {error}") from error


def _value(value: Any) -> Any:
    return wandb.Histogram(np_histogram=bins_of(value)) if isinstance(value, State) else value


class _Rows:
    """The rows of wandb's history: one a step, with one value of each key and one time.

    Attributes:
        written: how many values they have.
    """

    def __init__(self, run: Recording, keys: Sequence[str]) -> None:
        self._run, self._keys = run, keys
        self.written = self._below = self._replaced = self._moved = 0

    def __iter__(self) -> Iterator[Add]:
        for step, group in groupby(adds_by_step(self._run, self._keys), lambda add: add.step):
            adds, values = list(group), dict[str, Any]()
            count = sum(len(add.values) for add in adds)
            if step < 0:
                self._below += count
                continue
            for add in adds:
                values |= add.values
            time = adds[-1].time
            self._moved += sum(add.time != time for add in adds)
            self._replaced += count - len(values)
            self.written += len(values)
            yield Add(values, step, time)

    def notes(self) -> list[str]:
        """What wandb has no place for."""
        lost = (
            (self._below, "value", "at steps below 0, which wandb refuses: left out"),
            (self._replaced, "value", "left out for the last one of the same key and step"),
            (self._moved, "add", "with the time of the last one of the same step"),
        )
        return [f"{counted(number, noun)} {what}" for number, noun, what in lost if number]
