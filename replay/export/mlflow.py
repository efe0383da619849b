"""Write a recording's numbers as a run of MLflow, with its client. Tested with mlflow 3.17."""

import json
import os
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from flexrec.recorder.errors import MissingDependency, OutputError, counted, listed
from flexrec.recorder.events import Add
from flexrec.recorder.files.atomic_write import writing
from flexrec.recorder.recording import Recording
from flexrec.replay.export.tables import Written
from flexrec.replay.export.tracked import (
    LAST,
    Dated,
    adds_by_step,
    config_of,
    name_of,
    project_of,
)

try:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
except ImportError as missing:
    raise MissingDependency.of("MLflow's runs", "mlflow") from missing

_REFUSED = re.compile(r"[^\w\-. :/]")  # in names
_LONGEST = 240  # characters of a name
_METRICS, _PARAMS = 1000, 100  # of a request
_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"  # newer clients refuse a folder without it

T = TypeVar("T")


def write_mlflow(run: Recording, keys: Sequence[str], to: str) -> Written:
    """Write a run; return the number of values.

    Args:
        run: the recording; its folder is the experiment, its config the params.
        keys: the keys of numbers.
        to: a folder, or the address of a tracking server or database, such as `sqlite:///ml.db`.

    Raises:
        OutputError: MLflow or the system refuses.
    """
    is_folder = "://" not in to
    names = metric_names(keys, as_files=is_folder)
    dated = Dated(adds_by_step(run, list(names)))
    metrics = _Metrics(dated, names, are_rows=not is_folder and not to.startswith("file:"))
    with writing(to):
        try:
            if is_folder:
                os.environ.setdefault(_ALLOWED, "true")
                to = Path(to).absolute().as_uri()
            written = _write(MlflowClient(tracking_uri=to), run, metrics)
        except MlflowException as error:
            raise OutputError(f"MLflow cannot write to {to}: {error}".splitlines()[0]) from error
    params = metric_names(config_of(run), as_files=True)
    renamed = [
        f"{key} as {name}" for each in (names, params) for key, name in each.items() if key != name
    ]
    said = (
        [f"names that MLflow refuses are written otherwise: {listed(renamed)}"] if renamed else []
    )
    said += [*dated.notes(), *metrics.notes()]
    return Written(written, [*said, "MLflow has times in milliseconds, and rounds them"])


def metric_names(keys: Iterable[str], *, as_files: bool) -> dict[str, str]:
    """A name that MLflow takes for each key, no two of them the same.

    Args:
        keys: the keys.
        as_files: whether names are paths of files, so that there is no `loss` beside `loss/a`.
    """
    wanted = {key: _clean(key) for key in keys}
    taken, given = set(wanted.values()), set[str]()
    folders = {parent for name in taken for parent in _parents(name)} if as_files else set[str]()
    names = dict[str, str]()
    for key, name in wanted.items():
        if name in given or name in folders:
            numbered = (f"{name}_{number}" for number in count(2))
            name = next(each for each in numbered if each not in taken | folders)
            taken.add(name)
        given.add(name)
        names[key] = name
    return names


def _clean(key: str) -> str:
    safe = posixpath.normpath(_REFUSED.sub("_", key)[:_LONGEST]).strip("/")
    return "_" if safe.startswith("..") or safe in (".", "") else safe


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[:number]) for number in range(1, len(parts)))


def _write(client: Any, run: Recording, metrics: "_Metrics") -> int:
    project, written = project_of(run).replace("'", "_"), 0  # MLflow cannot find a quote again
    experiment = client.get_experiment_by_name(project)
    begin = run.created if 0 <= run.created <= LAST else time.time()
    end = round(begin * 1000)
    made = client.create_run(
        experiment.experiment_id if experiment else client.create_experiment(project),
        start_time=end,
        run_name=name_of(run),
    )
    status = "FAILED"
    try:
        params = (Param(name, text) for name, text in _params(run))
        for batch in _batches(params, _PARAMS):
            client.log_batch(made.info.run_id, params=batch)
        for batch in _batches(metrics, _METRICS):
            client.log_batch(made.info.run_id, metrics=batch)
            written += len(batch)
            end = max(end, *(metric.timestamp for metric in batch))
        status = "FINISHED"
    finally:
        client.set_terminated(made.info.run_id, status, end_time=end)
    return written


def _params(run: Recording) -> Iterator[tuple[str, str]]:
    config = config_of(run)
    for key, name in metric_names(config, as_files=True).items():
        value = config[key]
        yield name, json.dumps(value) if isinstance(value, (dict, list)) else str(value)


class _Metrics:
    """MLflow's metrics of adds, in the order of steps.

    Args:
        adds: the adds.
        names: the name of each key.
        are_rows: whether they are rows of a database, which cannot have two equal ones.
    """

    def __init__(self, adds: Iterable[Add], names: Mapping[str, str], *, are_rows: bool) -> None:
        self._adds, self._names, self._are_rows = adds, names, are_rows
        self._equal = 0

    def __iter__(self) -> Iterator[Any]:
        for _, group in groupby(self._adds, lambda add: add.step):
            rows = set[tuple[Any, ...]]()
            for add in group:
                for key, value in add.values.items():
                    metric = Metric(self._names[key], value, round(add.time * 1000), add.step)
                    row = (metric.key, metric.timestamp, None if value != value else value)
                    if self._are_rows and row in rows:
                        self._equal += 1
                        continue
                    rows.add(row)
                    yield metric

    def notes(self) -> list[str]:
        """What was left out."""
        what = "left out: a database has one of the equal ones of a key, step and millisecond"
        return [f"{counted(self._equal, 'value')} {what}"] if self._equal else []


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
