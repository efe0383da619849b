"""Read the runs in a database of MLflow's, such as mlflow.db, where it keeps them by default.

MLflow's own reader has a whole metric in memory, and needs SQLAlchemy, so the tables are read
without it. Tested with mlflow 3.17.
"""

import sqlite3
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from flexrec.recorder.events import Add
from flexrec.recorder.integrations.importing.mlflow import OWN_TAGS, setting
from flexrec.recorder.integrations.importing.source import NOT_ENDED, Item, Notes, Settings
from flexrec.recorder.integrations.importing.sqlite import columns

_COLUMNS = {
    "experiments": {"experiment_id", "name"},
    "runs": {"run_uuid", "name", "experiment_id", "lifecycle_stage", "status"},
    "params": {"run_uuid", "key", "value"},
    "tags": {"run_uuid", "key", "value"},
    "metrics": {"run_uuid", "key", "value", "is_nan", "step", "timestamp"},
}
_RUNS = """
    SELECT run_uuid, experiments.name, COALESCE(NULLIF(runs.name, ''), run_uuid)
    FROM runs JOIN experiments USING (experiment_id)
    WHERE runs.lifecycle_stage IS NOT 'deleted' ORDER BY experiment_id, runs.rowid
"""
_RUNNING = "SELECT 1 FROM runs WHERE run_uuid = ? AND status = 'RUNNING'"
_TEXTS = "SELECT key, value FROM {} WHERE run_uuid = ? ORDER BY key"
_METRICS = """
    SELECT key, value, is_nan, step, timestamp FROM metrics WHERE run_uuid = ? ORDER BY rowid
"""
_INFINITY = sys.float_info.max  # is written in its place


class Run(NamedTuple):
    """A run: what identifies it, its experiment, and its name."""

    number: str
    experiment: str
    name: str


def is_store(base: sqlite3.Connection) -> bool:
    """Whether a database has MLflow's tables."""
    return all(columns(base, table) >= wanted for table, wanted in _COLUMNS.items())


def runs_in(base: sqlite3.Connection) -> Iterator[Run]:
    """The runs that are not deleted, experiment after experiment, in the order of their making."""
    return (Run(*map(str, row)) for row in base.execute(_RUNS))


def read_run(run: str, base: sqlite3.Connection, notes: Notes) -> Iterator[Item]:
    """The params, tags and metrics of a run; its values are in the order of their logging."""
    if base.execute(_RUNNING, (run,)).fetchone():
        notes.damage.append(NOT_ENDED)
    yield Settings({name: setting(text) for name, text in _texts(base, "params", run)})
    tags = {name: text for name, text in _texts(base, "tags", run) if name not in OWN_TAGS}
    if tags:
        yield Settings({"tags": tags})
    for key, value, is_nan, step, time in base.execute(_METRICS, (run,)):
        try:
            yield Add({str(key): _number(value, is_nan)}, int(step), int(time) / 1000)
        except (OverflowError, TypeError, ValueError):  # whatever a file may hold
            notes.left_out["damaged row"] += 1


def _texts(base: sqlite3.Connection, table: str, run: str) -> Iterator[tuple[str, str]]:
    for name, text in base.execute(_TEXTS.format(table), (run,)):
        yield str(name), "" if text is None else str(text)


def _number(value: Any, is_nan: Any) -> float:
    """A metric's value: SQL has neither NaN nor infinities, and MLflow writes others for them."""
    if is_nan:
        return float("nan")
    return float(value) * float("inf") if abs(value) == _INFINITY else float(value)
