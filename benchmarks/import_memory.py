"""How much memory does importing take, whatever the size of the file?

    python benchmarks/import_memory.py [--scale 0.1] [--only csv] [--quick]

Target: 512 MiB. At scale 1, CSV and JSON lines have 1,000 MB, TensorBoard's events 500 MB, Parquet
300 MB, and MLflow's database 300 MB: a quarter of an hour or more, and 3 GB on the disk. Memory is
the peak of the whole process. A file is written, imported, and removed before the next one.
"""

import argparse
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import folder, in_child, machine, show
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

KEYS = tuple(f"key/{number}" for number in range(8))
START = 1.7e9  # seconds since 1970
BLOCK = 5_000  # rows that are written at a time
IMPORT = """
import sys, time
from pathlib import Path
from flexrec.recorder.integrations.importing.importer import import_runs
start = time.perf_counter()
(found,) = import_runs(Path(sys.argv[1]), Path(sys.argv[2]))
assert not found.damage and not found.left_out, found
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
print(found.values, time.perf_counter() - start, peak)
"""


def main() -> None:
    """A row for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the files' sizes")
    parser.add_argument("--only", choices=WRITERS, help="one format alone")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the sizes")
    given = parser.parse_args()
    print(f"{machine()}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
    scale, rows = 0.01 if given.quick else given.scale, list[list[str]]()
    for kind, (name, megabytes, write) in WRITERS.items():
        if given.only in (None, kind):
            with folder() as place:
                path = Path(place, name)
                write(path, round(megabytes * 1e6 * scale))
                size = path.stat().st_size / 1e6
                values, took, peak = map(float, in_child(IMPORT, path, Path(place, "out.h5")))
            rows.append([kind, f"{size:,.0f}", f"{values / 1e6:.2f}", f"{took:.0f}", f"{peak:.0f}"])
    show(rows, "format", "MB", "M values", "s", "peak, MiB")


def blocks() -> Iterator[tuple[range, list[list[float]]]]:
    """Steps, and the values of their keys (steps, keys); without an end."""
    chance = np.random.default_rng(0)
    step = 0
    while True:
        yield range(step, step + BLOCK), chance.random((BLOCK, len(KEYS))).tolist()
        step += BLOCK


def write_csv(path: Path, size: int) -> None:
    """A column for each key."""
    with path.open("w") as file:
        file.write(f"step,time,{','.join(KEYS)}\n")
        for steps, rows in blocks():
            for step, row in zip(steps, rows, strict=True):
                file.write(f"{step},{START + step},{','.join(map(repr, row))}\n")
            if file.tell() > size:
                return


def write_json_lines(path: Path, size: int) -> None:
    """An object for each step."""
    with path.open("w") as file:
        for steps, rows in blocks():
            for step, row in zip(steps, rows, strict=True):
                values = dict(zip(KEYS, row, strict=True))
                file.write(json.dumps({"step": step, "time": START + step, **values}) + "\n")
            if file.tell() > size:
                return


def write_events(path: Path, size: int) -> None:
    """Scalars; the records of one block, again and again: their checksums take long."""
    data = io.BytesIO()
    writer = RecordWriter(data)
    for step, row in zip(*next(blocks()), strict=True):
        for tag, value in zip(KEYS, row, strict=True):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            event = Event(step=step, wall_time=START + step, summary=summary)
            writer.write(event.SerializeToString())
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(data.getvalue())


def write_parquet(path: Path, size: int) -> None:
    """A row for each value, as `flexrec export` writes them."""
    kinds = [pa.string(), pa.int64(), pa.float64(), pa.float64()]
    schema = pa.schema(list(zip(("key", "step", "time", "value"), kinds, strict=True)))
    with path.open("wb") as file, pq.ParquetWriter(file, schema) as writer:
        for steps, rows in blocks():
            keys = list(KEYS) * BLOCK
            at = np.repeat(np.array(steps), len(KEYS))
            columns = [keys, at, at + START, np.ravel(rows)]
            arrays = [pa.array(each, kind) for each, kind in zip(columns, kinds, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            if file.tell() > size:
                return


def write_database(path: Path, size: int) -> None:
    """MLflow's tables, as far as they are read; a row for each value."""
    with closing(sqlite3.connect(path)) as base, base:
        base.executescript("""
            CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name);
            CREATE TABLE runs (run_uuid, name, experiment_id, lifecycle_stage, status);
            CREATE TABLE params (key, value, run_uuid);
            CREATE TABLE tags (key, value, run_uuid);
            CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan,
                PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan));
            CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid);
            INSERT INTO experiments VALUES (1, 'e');
            INSERT INTO runs VALUES ('abc', 'run', 1, 'active', 'FINISHED');
        """)
        for steps, rows in blocks():
            found = (
                (key, value, round(START + step) * 1000, "abc", step, 0)
                for step, row in zip(steps, rows, strict=True)
                for key, value in zip(KEYS, row, strict=True)
            )
            base.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", found)
            base.commit()
            if path.stat().st_size > size:
                return


WRITERS: dict[str, tuple[str, int, Callable[[Path, int], None]]] = {
    "CSV": ("log.csv", 1000, write_csv),
    "JSON lines": ("log.jsonl", 1000, write_json_lines),
    "TensorBoard": ("events.out.tfevents.1", 500, write_events),
    "Parquet": ("run.parquet", 300, write_parquet),
    "MLflow": ("mlflow.db", 300, write_database),
}

if __name__ == "__main__":
    main()
