"""What recording and replaying do, counted: calls, bytes, system calls, memory, imports.

Costs that machines differ in are not asserted; docs/benchmarks.md has them. What is counted here
is the same on every machine, and grows when somebody makes the hot path do more.
"""

import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.storage.columns import ColumnReader
from flexrec.recorder.storage.store import Store
from flexrec.replay import define, play

LINE = {"all": {"type": "line"}}
MEAN = define(LINE, {"k*": {"type": "AverageValueMeter", "target": "all"}})


def calls(work: Callable[[], object]) -> Counter[str]:
    """How often functions are called meanwhile, those written in C too, on this thread."""
    found: Counter[str] = Counter()

    def count(_: FrameType, event: str, __: object) -> None:
        found[event] += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def add(rec: Recorder, values: dict[str, Any], count: int) -> None:
    """The same again and again."""
    for _ in range(count):
        rec.add(values)


def recorder(path: Path, **options: Any) -> Recorder:
    """A recorder that writes only when told to."""
    return Recorder(path, facts=False, flush_seconds=3600, **options)


def fill(rec: Recorder, count: int, keys: int) -> None:
    """So many dicts of so many keys, float32-born, and a mark after each hundred."""
    names = [f"k{i}" for i in range(keys)]
    noise = np.random.default_rng(0).normal(size=(count, keys))
    values = (1 + 0.1 * noise).astype("f4").astype(float)
    for i, row in enumerate(values.tolist()):
        rec.add(dict(zip(names, row, strict=True)))
        rec.step()
        if i % 100 == 99:
            rec.log()


def made(path: Path, count: int, keys: int) -> Path:
    """A closed recording."""
    with recorder(path) as rec:
        fill(rec, count, keys)
    return path


def written() -> tuple[int, int]:
    """How many bytes this process has written so far, and with how many system calls."""
    try:
        text = Path("/proc/self/io").read_text(encoding="utf-8")
    except OSError:
        pytest.skip("this system does not count system calls")
    fields = dict(line.split(": ") for line in text.splitlines())
    return int(fields["wchar"]), int(fields["syscw"])


def read_bytes() -> int:
    """How many bytes this process has read so far."""
    try:
        text = Path("/proc/self/io").read_text(encoding="utf-8")
    except OSError:
        pytest.skip("this system does not count what is read")
    return int(text.split("rchar: ")[1].split()[0])


@pytest.mark.parametrize("keys", [2, 800])
def test_adding_numbers_calls_the_same_few_functions_however_many_keys(
    tmp_path: Path, keys: int
) -> None:
    values = dict.fromkeys([f"k{i}" for i in range(keys)], 0.5)
    with recorder(tmp_path / "a.h5") as rec:
        rec.add(values)
        found = calls(lambda: add(rec, values, 100))
    assert found["call"] <= 100 * 2 + 10, "Python functions: the recorder's add, and the queue's"
    assert found["c_call"] <= 100 * 10


@pytest.mark.parametrize("kind", ["array", "float32", "bfloat16"])
def test_adding_arrays_again_takes_a_bounded_number_of_calls(tmp_path: Path, kind: str) -> None:
    pair: tuple[Any, Any] = (np.ones((4, 20), "f4"), np.ones((4, 20), "f4"))
    if kind != "array":
        torch = pytest.importorskip("torch")
        pair = tuple(torch.from_numpy(part).to(getattr(torch, kind)) for part in pair)
    with recorder(tmp_path / "a.h5") as rec:
        for _ in range(2):
            rec.add(pair=pair)
        found = calls(lambda: add(rec, {"pair": pair}, 100))
    assert found["call"] <= 100 * 16
    assert found["c_call"] <= 100 * 40


def test_adding_tensors_of_no_dimension_reads_each_once(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = {f"k{i}": torch.tensor(float(i)) for i in range(50)}
    with recorder(tmp_path / "a.h5") as rec:
        rec.add(values)
        found = calls(lambda: rec.add(values))
    assert found["c_call"] <= 40  # to read one is no call of the interpreter's


def test_what_waits_in_memory_is_little_more_than_the_values(tmp_path: Path) -> None:
    values = dict.fromkeys([f"k{i}" for i in range(100)], 0.5)
    with recorder(tmp_path / "a.h5") as rec:
        rec.add(values)
        rec.flush()
        tracemalloc.start()
        for _ in range(1000):
            rec.add(values)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 1.3 * 1000 * (100 * 8 + 32)


def test_a_flush_writes_the_values_in_a_few_system_calls(tmp_path: Path) -> None:
    values = dict.fromkeys([f"k{i}" for i in range(10)], 0.5)
    with recorder(tmp_path / "a.h5") as rec:
        rec.add(values)
        rec.flush()
        counts = []
        for adds in (10, 1000):
            for _ in range(adds):
                rec.add(values)
            before = written()
            rec.flush()
            counts.append(tuple(a - b for a, b in zip(written(), before, strict=True)))
    (_, few_calls), (many_bytes, many_calls) = counts
    assert many_bytes < 1000 * (10 * 8 + 32) + (64 << 10), "the values, once, and some of HDF5's"
    assert many_calls < few_calls + 40, "not one for each add"


def test_only_what_must_be_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def counted(number: int) -> None:
        synced.append(number)
        fsync(number)

    monkeypatch.setattr(os, "fsync", counted)
    rec = recorder(tmp_path / "a.h5")
    synced.clear()
    for _ in range(5):
        rec.add(a=1.0)
        rec.flush()
    assert not synced
    rec.flush(fsync=True)
    assert len(synced) == 1
    rec.close()
    assert len(synced) <= 4, "the live file, the closed one, and the folder"


@pytest.mark.parametrize(("keys", "count"), [(800, 500), (2, 50_000)])
def test_a_closed_scalar_takes_few_bytes(tmp_path: Path, keys: int, count: int) -> None:
    path = made(tmp_path / "a.h5", count, keys)
    with h5py.File(path) as file:
        values = [file[f"series/k{i}/value"] for i in range(keys)] if keys < 64 else []
        stored = sum(value.id.get_storage_size() for value in values or [file["tables/0/value"]])
        group = file["series/k0" if values else "tables/0"]
        times = sum(group[name].id.get_storage_size() for name in ("step", "time"))
    assert stored / (keys * count) < 3.2, "a float32 with a constant exponent, compressed"
    assert times / count < 3
    assert path.stat().st_size - stored - times < 20_000 + 1024 * min(keys, 64)


def test_the_live_file_takes_eight_bytes_a_value_and_thirty_two_an_event(tmp_path: Path) -> None:
    with recorder(tmp_path / "a.h5") as rec:
        fill(rec, 99, 50)
        rec.flush()
        with h5py.File(tmp_path / "a.h5", "r", swmr=True, locking=False) as file:
            assert file["values"].shape == (99 * 50,)
            assert file["events"].shape == (99,)
            assert file["events"].dtype.itemsize == 32


def test_closing_twice_the_keys_is_twice_the_work(tmp_path: Path) -> None:
    found = []
    for keys in (60, 120, 240):
        rec = recorder(tmp_path / f"{keys}.h5")
        fill(rec, 20, keys)
        found.append(calls(rec.close).total())
    assert found[1] < 2.1 * found[0]
    assert found[2] < 2.1 * found[1]


def test_closing_holds_few_keys_open_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    scan = Store.scan

    def counted(self: Store, columns: Any, what: Any = "all") -> Any:
        asked.append(len(columns))
        return scan(self, columns, what)

    monkeypatch.setattr(Store, "scan", counted)
    monkeypatch.setattr("flexrec.recorder.storage.closing.compact._HELD", 100_000)
    path = made(tmp_path / "a.h5", 20, 40)
    assert asked[0] == 40, "all are measured"
    assert max(asked[1:]) < 15
    with Recording(path) as run:
        assert len(run.series(run.keys())) == sum(asked[1:]) == 40


def test_reading_one_key_of_many_leaves_the_others_alone(tmp_path: Path) -> None:
    path = made(tmp_path / "a.h5", 2000, 100)
    with Recording(path) as run:
        before = read_bytes()
        run["k50"]
        taken = read_bytes() - before
    assert taken < path.stat().st_size / 10, "of a table, the chunk of eight keys"


def test_replaying_numbers_is_not_paid_for_by_the_row(tmp_path: Path) -> None:
    found = []
    for count in (1000, 10_000):
        with Recording(made(tmp_path / f"{count}.h5", count, 3)) as run:
            found.append(calls(lambda run=run: play(run, MEAN)).total())  # type: ignore[misc]
    assert found[1] - found[0] < 20 * 90, "a few calls for each further mark, none for a row"


def test_replaying_holds_few_columns_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "a.h5", 500, 40)
    asked: list[int] = []
    columns = ColumnReader.columns

    def counted(self: ColumnReader, keys: Any) -> Any:
        keys = list(keys)
        asked.append(len(keys))
        return columns(self, keys)

    monkeypatch.setattr(ColumnReader, "columns", counted)
    monkeypatch.setattr(sys.modules["flexrec.replay.player.player"], "_HELD", 5000)
    with Recording(path) as run:
        (window,) = play(run, MEAN)
    assert asked == [10] * 4
    assert len(window.traces) == 40


def imported(words: list[str], folder: Path) -> set[str]:
    """What a command imports that is run in a folder with a small recording."""
    made(folder / "small.h5", 10, 2)
    flexrec = Path(sys.executable).with_name("flexrec")
    command = [sys.executable, "-X", "importtime", str(flexrec), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("words", [["--help"], ["show", "small.h5"], ["presets"]])
def test_commands_that_need_nothing_heavy_import_nothing_heavy(
    words: list[str], tmp_path: Path
) -> None:
    names = imported(words, tmp_path)
    assert "flexrec.cli.commands" in names
    heavy = {"torch", "visdom", "scipy", "matplotlib", "sklearn", "pandas", "requests", "tornado"}
    assert not names & heavy
    if words == ["--help"]:
        assert not names & {"numpy", "h5py"}


def test_showing_imports_what_reads_and_nothing_else(tmp_path: Path) -> None:
    names = imported(["show", "small.h5"], tmp_path)
    folders = ("flexrec.recorder.writing", "flexrec.recorder.reduction", "flexrec.recorder.layers.")
    found = {name for name in names if name.startswith(folders)}
    # What a trace is called, and which layers are watched, for resumes that are audited.
    audited = ("models", "tracing", "tracing.format")
    assert found <= {f"flexrec.recorder.layers.{name}" for name in audited}
    assert not names & {"flexrec.recorder.recorder", "flexrec.recorder.storage.closing.compact"}
    folders = ("flexrec.replay.definitions", "flexrec.replay.engine", "flexrec.replay.meters")
    assert not [name for name in names if name.startswith(folders)]
    assert not names & {"numpy.ma", "numpy.testing", "uniplot"}


def test_showing_waits_for_no_threads_and_searches_for_no_garbage(tmp_path: Path) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("this system does not count threads")
    made(tmp_path / "small.h5", 10, 2)
    code = (
        "import contextlib, gc, os, sys\n"
        "from flexrec.cli import main\n"
        "before = gc.get_stats()\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(gc.get_stats() == before, len(os.listdir('/proc/self/task')), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "show", str(tmp_path / "small.h5")]
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.split() == ["True", "1"], "neither collections nor OpenBLAS's threads"


def test_recording_does_not_import_the_viewing_side() -> None:
    code = (
        "import sys, flexrec.recorder as r, tempfile, os\n"
        "path = os.path.join(tempfile.mkdtemp(), 'a.h5')\n"
        "with r.Recorder(path, reduce={'a': 'MSEMeter'}) as rec: rec.add(a=(1.0, 2.0), b=1)\n"
        "print(sorted(name for name in sys.modules if name.startswith('flexrec.replay')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
