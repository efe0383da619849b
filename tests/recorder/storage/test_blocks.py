"""Going through a recording block by block: the same in blocks of any size, and little memory."""

import tracemalloc
import zlib
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrec.recorder import Recorder, Recording, RecordingError, Series
from flexrec.recorder.events import Add, Event
from flexrec.recorder.hdf5.chunks import share_out
from flexrec.recorder.hdf5.deflate import deflated
from flexrec.recorder.maintenance.repair import repair, verify
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.closing.compact import close_recording
from flexrec.recorder.storage.store import Finder
from flexrec.replay import define, play
from flexrec.replay.meters import (
    AverageValueMeter,
    BestValueMeter,
    LastValueMeter,
    Meter,
    MovingAverageValueMeter,
)
from support.block_cases import blocks_of
from support.event_cases import events, same, same_event
from support.recorders import recorder

histories = st.lists(
    st.tuples(st.lists(events(), min_size=1, max_size=12), st.none() | st.integers(0, 40)),
    min_size=1,
    max_size=3,
)


def record(path: Path, history: list[tuple[list[Event], int | None]], *, close: bool) -> None:
    """Runs, the later ones resumed at a step; the last is closed, or left as a kill leaves it."""
    for i, (some, at_step) in enumerate(history):
        rec = recorder(path, mode="resume", **({"at_step": at_step} if i else {}))
        for event in some:
            rec.record(event)
        rec.flush()
        live = path.read_bytes()
        rec.close()
        if not close:
            path.write_bytes(live)


def contents(path: Path) -> tuple[list[Event], list[Any]]:
    """The events, and all else that can be asked."""
    with Recording(path) as run:
        found: list[Any] = [
            (run.keys(), run.counts(), run.event_count, run.superseded, run.resumes, run.dropped),
            (run.state, [(key, run.kind(key), run.columns.stored_bytes(key)) for key in run]),
            tuple(run.marks.keys),
            *(run.marks.position, run.marks.x, run.marks.step, run.marks.time),
        ]
        assert [key for group in run.columns.groups(run, 5) for key in group] == run.keys()
        parts_of: dict[str, list[Series]] = {key: [] for key in run}
        for part in run.columns.parts(run, 5):
            parts_of[part.key].append(part)
        for key, series in run.series(run.keys()).items():
            for name in ("position", "step", "time"):
                joined = [getattr(part, name) for part in parts_of[key]]
                assert np.array_equal(np.concatenate(joined), getattr(series, name))
            assert all(map(same, chain(*(p.value for p in parts_of[key])), series.value))
            index, rows = run.columns.index(key), list(run.rows(key))
            assert [row.position for row in rows] == series.position.tolist()
            values = series.value.tolist() if run.is_number(key) else series.value
            assert all(same(row.value, value) for row, value in zip(rows, values, strict=True))
            for name in ("position", "step", "time"):
                assert np.array_equal(getattr(index, name), getattr(series, name))
            found += [series.position, series.step, series.time, tuple(values)]
            if run.is_number(key):
                ends, parts = zip(*run.columns.numbers(key), strict=True)
                for column in (
                    run.columns.columns([key])[key],
                    map(np.concatenate, zip(*parts, strict=True)),
                ):
                    position, value = column
                    assert np.array_equal(position, series.position)
                    assert np.array_equal(value, series.value, equal_nan=True)
                assert all((at < last).all() for last, (at, _) in zip(ends, parts, strict=True))
        return list(run.events()), found


def assert_same(a: tuple[list[Event], list[Any]], b: tuple[list[Event], list[Any]]) -> None:
    """Whether the contents of two recordings are equal."""
    assert len(a[0]) == len(b[0])
    assert all(map(same_event, a[0], b[0]))
    assert len(a[1]) == len(b[1])
    for v, w in zip(a[1], b[1], strict=True):
        if isinstance(v, np.ndarray):
            assert same(v, w)
        else:
            assert len(v) == len(w)
            assert all(same(x, y) or x == y for x, y in zip(v, w, strict=True))


@pytest.mark.filterwarnings(
    "ignore:.*(training continues with step|step numbers go down in this recording)"
)
@settings(max_examples=12, deadline=None)
@given(history=histories, block=st.integers(1, 7), close=st.booleans())
def test_all_is_the_same_in_blocks_of_any_size(
    history: list[tuple[list[Event], int | None]],
    block: int,
    close: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    record(folder / "a.h5", history, close=close)
    whole = contents(folder / "a.h5")
    with blocks_of(block):
        assert_same(contents(folder / "a.h5"), whole)
        record(folder / "b.h5", history, close=close)
        assert verify(folder / "a.h5").state == ("whole" if close else "unfinished")
    assert_same(contents(folder / "b.h5"), whole)


def test_a_copy_closed_in_small_blocks_is_the_same_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    some: list[Event] = [
        Add({"a": float(v), "b": rng.normal(size=(2, i % 3)), "c": f"{i}"}, i, 1e9 + i)
        for i, v in enumerate(rng.normal(size=50))
    ]
    for name, block in (("a", None), ("b", 3)):
        with blocks_of(block):
            record(tmp_path / f"{name}.h5", [(some, None), (some[20:], 30)], close=False)
            repair(tmp_path / f"{name}.h5")
    found: list[dict[str, Any]] = []
    for name in "ab":
        with h5py.File(tmp_path / f"{name}.h5") as file:
            kept: dict[str, Any] = {}
            file.visititems(
                lambda path, item, kept=kept: kept.update(
                    {path: item[:].tobytes() if isinstance(item, h5py.Dataset) else None}
                )
            )
            found.append(kept)
    assert found[0].keys() == found[1].keys()
    differing = {path for path in found[0] if found[0][path] != found[1][path]}
    assert differing <= {"marks", "summary"}, "the times at which the runs were made and resumed"


def test_several_threads_read_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    rows = 5 * (1 << 14) + 7  # of six chunks
    values = np.random.default_rng(0).normal(size=rows)
    with recorder(path) as rec:
        for value in values.tolist():
            rec.add(a=value, b=0.5)
            rec.step()
    monkeypatch.setattr("flexrec.recorder.hdf5.chunks._WORKERS", 3)
    monkeypatch.setattr("flexrec.recorder.hdf5.chunks._WORTH_SHARING", 1)
    with Recording(path) as run:
        found = run.series(run.keys())
        assert np.array_equal(found["a"].value, values)
        assert np.array_equal(found["a"].step, np.arange(rows))
    with h5py.File(path) as file:
        places = [file["series/a/value"].id.get_chunk_info(i).byte_offset for i in (2, 4)]
    data = bytearray(path.read_bytes())
    for place in places:
        data[place + 100] ^= 255
    path.write_bytes(data)
    with Recording(path) as run:
        assert np.array_equal(run["b"].value, np.full(rows, 0.5))
        with pytest.raises(RecordingError, match=str(path)):
            run["a"]


def test_several_threads_close_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, rng = tmp_path / "live.h5", np.random.default_rng(0)
    rec, arrays = recorder(tmp_path / "a.h5"), list[Any]()
    for i in range(40):
        arrays.append(rng.normal(size=(64, 1000)))
        rec.add(a=arrays[-1], b=(rng.integers(0, 9, 1 << 15), i))
    rec.flush()
    live.write_bytes((tmp_path / "a.h5").read_bytes())
    rec.close()
    for workers in (1, 3):
        monkeypatch.setattr("flexrec.recorder.hdf5.chunks._WORKERS", workers)
        close_recording(live, tmp_path / f"{workers}.h5")
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "3.h5").read_bytes()
    with Recording(tmp_path / "3.h5") as run:
        assert np.array_equal(list(run["a"].value), arrays)


def shuffled(data: bytes, count: int) -> bytes:
    """Lanes, as elements again."""
    return np.frombuffer(zlib.decompress(data), "u1").reshape(-1, count).T.tobytes()


@pytest.mark.parametrize("dtype", ["u1", "<f2", "<f4", "<f8", "<c16", fmt.MARK], ids=str)
@pytest.mark.parametrize("count", [1, 2, 63, 64, 100, 1000, 20_000, 140_000])
def test_noise_takes_little_more_than_itself(dtype: Any, count: int) -> None:
    noise = np.random.default_rng(0).bytes(count * np.dtype(dtype).itemsize)
    data = deflated(np.frombuffer(noise, dtype))
    assert len(data) <= len(noise) + len(noise) // 1000 + 64, "no reader takes more"
    assert shuffled(data, count) == noise


@pytest.mark.parametrize("least", [0, 100, 5000, 5003, 100_000])
def test_a_stream_takes_at_least_so_many_bytes(least: int) -> None:
    data = deflated(np.arange(2000.0), least)
    assert max(least, len(deflated(np.arange(2000.0)))) <= len(data) <= max(least + 4, 5000)
    assert shuffled(data, 2000) == np.arange(2000.0).tobytes()


@pytest.mark.parametrize("count", [64, 100, 5000])
def test_a_zlib_that_makes_noise_larger_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    make = zlib.compressobj
    monkeypatch.setattr(zlib, "compressobj", lambda *_: make(1, strategy=zlib.Z_FIXED))
    noise = np.random.default_rng(0).integers(0, 256, count, "u1")
    data = deflated(noise)
    assert len(data) <= count + 5 + 11
    assert shuffled(data, count) == noise.tobytes()


@pytest.mark.parametrize("count", [8191, 8192, 16_384, 262_144])
@pytest.mark.parametrize(
    ("make", "most"),
    [
        pytest.param(lambda _, n: np.zeros(n), 0.02, id="nothing"),
        pytest.param(lambda _, n: np.arange(n), 0.02, id="steps"),
        pytest.param(lambda rng, n: rng.normal(size=n).astype("f4"), 0.87, id="exponents"),
        pytest.param(lambda rng, n: rng.integers(0, 10, n), 0.08, id="classes"),
        pytest.param(
            lambda rng, n: np.resize(rng.normal(size=500), n), 0.09, id="what comes again"
        ),
        pytest.param(
            lambda rng, n: np.maximum(rng.normal(size=n).astype("f4"), 0), 0.66, id="many zeros"
        ),
    ],
)
def test_what_is_not_noise_takes_less(
    make: Callable[[np.random.Generator, int], Any], most: float, count: int
) -> None:
    rows = make(np.random.default_rng(0), count)
    data = deflated(rows)
    assert shuffled(data, count) == rows.tobytes()
    assert len(data) <= most * rows.nbytes


def test_of_several_errors_on_several_threads_the_first_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flexrec.recorder.hdf5.chunks._WORKERS", 3)
    done = list[int]()

    def task(i: int) -> None:
        if i in (50, 51, 52):
            raise ValueError(f"{i}")
        done.append(i)

    for _ in range(20):
        with pytest.raises(ValueError, match="50"):
            share_out([partial(task, i) for i in range(1000)])
    assert len(done) < 20 * 997, "no more is begun once one has failed"
    done.clear()
    share_out([partial(task, i) for i in range(50)])
    assert sorted(done) == list(range(50))


def peak(work: Callable[[], object]) -> int:
    """The most bytes that Python and numpy hold at a time meanwhile."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fill(rec: Recorder, count: int, keys: int) -> None:
    """So many dicts, a log without reset after each tenth of them."""
    names = [f"k{i}" for i in range(keys)]
    for i in range(count):
        rec.add(dict.fromkeys(names, i / 7))
        rec.step()
        if i % (count // 10) == count // 10 - 1:
            rec.log(reset=False)


def test_rows_of_two_forms_are_read_one_by_one_too(tmp_path: Path) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        for i in range(400):
            rec.add(a=np.full(1 << 15, i) if i else np.zeros((2, 2)))
    with Recording(tmp_path / "run.h5") as run:
        assert len(run.kind("a").split(" or ")) == 2
        rows = iter(run.rows("a"))
        assert same(next(rows).value, np.zeros((2, 2)))
        assert peak(lambda: deque(rows, 0)) < 400 * (1 << 18) / 2


@pytest.mark.parametrize("keys", [1, 10])
def test_closing_more_events_takes_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: int
) -> None:
    monkeypatch.setattr("flexrec.recorder.storage.closing.output._AT_ONCE", 1 << 18)
    found = []
    for count in (20_000, 60_000):  # chunks of 16 Ki rows are filled by both
        rec = recorder(tmp_path / f"{count}.h5")
        fill(rec, count, keys)
        rec.flush()
        with blocks_of(500):
            found.append(peak(rec.close))
    assert found[1] < 1.1 * found[0] + 20_000


MEAN = define({"all": {"type": "line"}}, {"k*": {"type": "AverageValueMeter", "target": "all"}})


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("every", [None, 2000])
def test_replaying_more_values_takes_little_more_memory(
    tmp_path: Path, close: bool, every: int | None
) -> None:
    found = []
    for count in (20_000, 60_000):
        path = tmp_path / f"{count}.h5"
        rec = recorder(path)
        fill(rec, count, 1)
        rec.flush()
        if close:
            rec.close()
        with blocks_of(500), Recording(path) as run:
            play(run, MEAN, every=every)
            found.append(peak(lambda run=run: play(run, MEAN, every=every)))  # type: ignore[misc]
        rec.close()
    assert found[1] - found[0] < 3 * 40_000, "an event takes a byte or two, and a value nothing"


@pytest.mark.parametrize(
    "meter",
    [AverageValueMeter(), MovingAverageValueMeter(3), BestValueMeter("max"), LastValueMeter()],
    ids=lambda meter: type(meter).__name__,
)
@pytest.mark.parametrize("extra", [[], [np.nan], [np.inf, 2.0]])
def test_adding_all_is_adding_each(meter: Meter, extra: list[float]) -> None:
    rng = np.random.default_rng(0)
    pieces = [np.array([*rng.normal(5, 2, n), *extra]) for n in (1, 4, 2, 7)]
    meter.reset()
    for value in np.concatenate(pieces).tolist():
        meter.add(value)
    wanted = meter.value()
    meter.reset()
    for piece in pieces:
        meter.add_all(piece)
    np.testing.assert_allclose(meter.value(), wanted, rtol=1e-12)


class Watched(np.ndarray):
    """Codes that count how often all of them are looked at."""

    looks = 0

    def __eq__(self, other: object) -> Any:
        Watched.looks += 1
        return np.asarray(self) == other


@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<i8"])
def test_the_rows_of_many_columns_are_found_without_a_look_at_all_events_for_each(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-3, 300, 5000).astype(dtype).view(Watched)
    monkeypatch.setattr(Watched, "looks", 0)
    places = [[s] if s % 3 else [s, s + 1, 299] for s in range(298)]
    finder = Finder(codes, 310)
    for place in [*places, [], [309], [299, 309]]:  # a schema may have what no event has
        found = finder.rows(place)
        assert np.array_equal(found, np.flatnonzero(np.isin(np.asarray(codes), place)))
        found += 1  # as readers do: it is theirs
    assert 0 < Watched.looks < 100
    tracemalloc.start()
    finder.rows([5])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(codes), "all codes were converted to look for one"
