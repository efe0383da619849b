"""What does importing 1M scalars take, beside TensorBoard's own reader?

    python benchmarks/importing.py [--quick]

Each row is the median of 3 processes, in turn, less their imports; memory is the peak of the whole
process. TensorBoard's reader is EventAccumulator, which keeps every scalar.
"""

import csv
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import begin, bytes_in, folder, in_child, show
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from trackio import sqlite_storage

KEYS = ("loss/train", "loss/val", "accuracy", "lr")
START = 1.7e9  # seconds since 1970
MEASURED = """
import sys, time
from pathlib import Path
path = Path(sys.argv[1])
{imports}
start, busy = time.perf_counter(), time.process_time()
{work}
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
print(time.perf_counter() - start, time.process_time() - busy, peak, count)
"""
THEIRS = MEASURED.format(
    imports="from tensorboard.backend.event_processing.event_accumulator import EventAccumulator",
    work="""
found = EventAccumulator(str(path), size_guidance={"scalars": 0})
found.Reload()
count = sum(len(found.Scalars(tag)) for tag in found.Tags()["scalars"])
""",
)
OURS = MEASURED.format(
    imports="""
from flexrec.recorder.integrations.importing.importer import import_runs
import flexrec.recorder.integrations.importing.tensorboard
""",
    work="""
(found,) = import_runs(path, path.parent / "out.h5", overwrite=True)
assert not found.damage and not found.left_out, found
count = found.values
""",
)

Values = Iterator[tuple[int, float, dict[str, float]]]


def main() -> None:
    """1M scalars of four keys, in each format."""
    count, rounds = (100_000, 1) if begin(__doc__ or "") else (1_000_000, 3)
    with folder() as name:
        place, rows = Path(name), list[list[str]]()
        for kind, write in WRITERS.items():
            path = write(place / kind, values(count // len(KEYS)))
            works = {"flexrec import": OURS}
            if kind == "tensorboard":
                works["TensorBoard's reader"] = THEIRS
            rows += measured(kind, path, works, count, rounds)
    show(rows, "format", "MB", "read by", "s", "processor, s", "peak, MiB")


def values(steps: int) -> Values:
    """A step's number, its time, and its value of each key."""
    for step in range(steps):
        yield step, START + step / 100, {key: (step + i) / 7 for i, key in enumerate(KEYS)}


def measured(
    kind: str, path: Path, works: dict[str, str], count: int, rounds: int
) -> list[list[str]]:
    """A row for each work."""
    found: dict[str, list[list[float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            *took, read = map(float, in_child(work, path))
            assert read == count, f"{name} found {read} of {count} values"
            found[name].append(took)
    size = f"{bytes_in(path) / 1e6:,.0f}"
    medians = {
        name: [statistics.median(column) for column in zip(*each, strict=True)]
        for name, each in found.items()
    }
    return [
        [kind, size, name, f"{wall:.1f}", f"{busy:.1f}", f"{peak:.0f}"]
        for name, (wall, busy, peak) in medians.items()
    ]


def write_tensorboard(folder: Path, rows: Values) -> Path:
    """An event file."""
    folder.mkdir()
    with (folder / "events.out.tfevents.1").open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
        for step, time, row in rows:
            for tag, value in row.items():
                summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                event = Event(step=step, wall_time=time, summary=summary)
                writer.write(event.SerializeToString())
    return folder


def write_csv(folder: Path, rows: Values) -> Path:
    """A CSV file with a column for each key."""
    folder.mkdir()
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "time", *KEYS])
        writer.writerows([step, time, *row.values()] for step, time, row in rows)
    return folder


def write_json_lines(folder: Path, rows: Values) -> Path:
    """A file of JSON lines."""
    folder.mkdir()
    with (folder / "log.jsonl").open("w") as file:
        for step, time, row in rows:
            file.write(json.dumps({"step": step, "time": time, **row}) + "\n")
    return folder


def write_mlflow(folder: Path, rows: Values) -> Path:
    """A run of MLflow's, as its client writes it in half an hour."""
    files = {}
    for key in KEYS:
        path = folder / "1" / "abc" / "metrics" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        files[key] = path.open("w")
    (folder / "1" / "abc" / "meta.yaml").write_text("run_id: abc\nrun_name: first\n")
    for step, time, row in rows:
        for key, value in row.items():
            files[key].write(f"{round(time * 1000)} {value} {step}\n")
    for file in files.values():
        file.close()
    return folder


def write_trackio(folder: Path, rows: Values) -> Path:
    """A database of trackio's."""
    sqlite_storage.TRACKIO_DIR = folder
    steps, _, values = zip(*rows, strict=True)
    sqlite_storage.SQLiteStorage.bulk_log("digits", "first", list(values), steps=list(steps))
    return folder


WRITERS: dict[str, Callable[[Path, Values], Path]] = {
    "tensorboard": write_tensorboard,
    "csv": write_csv,
    "json lines": write_json_lines,
    "mlflow": write_mlflow,
    "trackio": write_trackio,
}

if __name__ == "__main__":
    main()
