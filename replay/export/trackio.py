"""Write a recording's keys as a run of trackio, into its local store.

SQLiteStorage is private to trackio; its own import of CSV files uses the same method. Tested with
trackio 0.43.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import MissingDependency, OutputError
from flexrec.recorder.events import State
from flexrec.recorder.files.atomic_write import writing
from flexrec.recorder.integrations.importing.trackio import EXPORT, FINISHED, UNFINISHED
from flexrec.recorder.recording import Recording
from flexrec.replay.export.tables import Written
from flexrec.replay.export.tracked import (
    Dated,
    adds_by_step,
    bins_of,
    config_of,
    name_of,
    project_of,
)

try:
    from trackio import Histogram, sqlite_storage
except ImportError as missing:
    raise MissingDependency.of("trackio's files", "trackio") from missing

_ROWS = 1 << 14  # of a transaction


def write_trackio(run: Recording, keys: Sequence[str], folder: Path) -> Written:
    """Write a run in a folder, for `TRACKIO_DIR=folder trackio show`; return the number of values.

    Raises:
        OutputError: trackio or the system refuses.
    """
    name, number, written = project_of(run), uuid.uuid4().hex, 0
    dated, config = Dated(adds_by_step(run, keys)), _storable(config_of(run))
    adds = iter(dated)
    with writing(folder), _store(folder) as store:
        try:
            store.validate_project_name(name)
            following = list(islice(adds, _ROWS))
            while batch := following:
                following = list(islice(adds, _ROWS))
                store.bulk_log(
                    name,
                    name_of(run),
                    [{key: _value(value) for key, value in add.values.items()} for add in batch],
                    steps=[add.step for add in batch],
                    timestamps=[datetime.fromtimestamp(add.time, UTC).isoformat() for add in batch],
                    config={**config, EXPORT: UNFINISHED if following else FINISHED},
                    run_id=number,
                )
                written += sum(len(add.values) for add in batch)
        except ValueError as error:
            raise OutputError(f"trackio cannot write to {folder}: {error}") from error
    notes = [*dated.notes(), "trackio has times in microseconds, and rounds them"]
    if not written:
        notes.append("trackio has no runs without values: nothing was written")
    return Written(written, notes)


def _value(value: Any) -> Any:
    if isinstance(value, State):
        return Histogram(np_histogram=bins_of(value))._to_dict()
    return value


def _storable(config: Any) -> Any:
    """The config, with integers of more than 64 bits as texts, because trackio refuses them."""
    if isinstance(config, dict):
        return {name: _storable(value) for name, value in config.items()}
    if isinstance(config, list):
        return [_storable(value) for value in config]
    return str(config) if isinstance(config, int) and config.bit_length() > 63 else config


@contextmanager
def _store(folder: Path) -> Iterator[Any]:
    """trackio's storage, in a folder, and without what it may fetch first."""
    storage = sqlite_storage.SQLiteStorage
    before = sqlite_storage.TRACKIO_DIR, storage._dataset_import_attempted
    sqlite_storage.TRACKIO_DIR, storage._dataset_import_attempted = folder, True
    try:
        yield storage
    finally:
        sqlite_storage.TRACKIO_DIR, storage._dataset_import_attempted = before
