"""Recorder and Recording: what goes in comes out, live and closed."""

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexrec.recorder import (
    ExistsError,
    InputError,
    Recorder,
    Recording,
    RecordingError,
    UnknownKeyError,
)
from flexrec.recorder.events import Add, Event, Log, normalise
from flexrec.recorder.writing import event_queue
from flexrec.recorder.writing.values import encoders
from support.event_cases import events, same, same_event
from support.recorders import recorder

quiet = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path: Path) -> list[Event]:
    """All events of a recording."""
    with Recording(path) as run:
        return list(run.events())


@quiet
@given(recorded=st.lists(events(), max_size=12), flush_after=st.integers(0, 12))
def test_events_come_back_from_the_live_and_the_closed_file(
    recorded: list[Event], flush_after: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.h5"
    with recorder(path) as rec:
        for i, event in enumerate(recorded):
            rec.record(event)
            if i == flush_after:
                rec.flush()
        rec.flush()
        live = read(path)
    closed = read(path)
    for found in (live, closed):
        assert len(found) == len(recorded)
        assert all(map(same_event, found, recorded))
    with Recording(path) as run:
        for key in run:
            expected = [
                (i, event.step, event.values[key])
                for i, event in enumerate(recorded)
                if isinstance(event, Add) and key in event.values
            ]
            series = run[key]
            assert series.position.tolist() == [i for i, _, _ in expected]
            assert series.step.tolist() == [step for _, step, _ in expected]
            assert len(series.value) == len(expected)
            assert all(
                same(normalise(key, v), e)
                for v, (_, _, e) in zip(series.value, expected, strict=True)
            )
            rows = list(run.rows(key))
            assert [row.position for row in rows] == series.position.tolist()
            assert all(same(row.value, e) for row, (_, _, e) in zip(rows, expected, strict=True))


def test_many_blocks_come_back_in_order(path: Path) -> None:
    with recorder(path) as rec:
        for i in range(3000):
            rec.add({f"k{j}": float(i * 1000 + j) for j in range(800 if i % 2 else 3)})
            if i % 7 == 0:
                rec.add({"pair": (np.full((3, i % 5), i), np.arange(i % 3))})
            rec.step()
        rec.flush()
        with Recording(path) as live:
            assert not live.complete
            seen = [live["k2"], live["k700"]]
    with Recording(path) as closed:
        for series, key in zip(seen, ("k2", "k700"), strict=True):
            assert np.array_equal(series.value, closed[key].value)
            assert np.array_equal(series.step, closed[key].step)
            assert np.array_equal(series.time, closed[key].time)
        assert np.array_equal(closed["k2"].value, np.arange(3000) * 1000.0 + 2)
        assert np.array_equal(closed["k700"].step, np.arange(1, 3000, 2))
        pairs = closed["pair"].value
        assert [first.shape for first, _ in pairs] == [(3, i % 5) for i in range(0, 3000, 7)]
        assert all(
            (first == i).all() for (first, _), i in zip(pairs, range(0, 3000, 7), strict=True)
        )
        counted = [
            e.values["k0"] for e in closed.events() if isinstance(e, Add) and "k0" in e.values
        ]
        assert counted == [i * 1000.0 for i in range(3000)]


def test_the_closed_file_is_plain_hdf5(path: Path) -> None:
    with recorder(path) as rec:
        for i in range(10):
            rec.add({"train_loss": i / 3, "acc": i / 4, "train_mse": (np.ones((2, 3)), np.ones(2))})
            rec.step()
    with h5py.File(path) as file:
        group = file["series/train_loss"]
        assert group["value"][:].tolist() == [i / 3 for i in range(10)]
        assert group["step"][:].tolist() == list(range(10))
        assert (np.diff(group["time"][:]) >= 0).all()
        assert group["time"] == file["series/acc/time"], "added together: one dataset, two links"
        assert file["series/acc/value"].dtype == np.float32, "exactly a float32"
        assert group["value"].dtype == np.float64
        pair = file["series/train_mse/value_0"]
        assert pair["shape"][:].tolist() == [[2, 3]] * 10
        assert pair["data"].shape == (60,)


VALUES = [
    (3, 3.0),
    (True, 1.0),
    (np.float32(0.1), float(np.float32(0.1))),
    (np.int64(7), 7.0),
    (np.array(2.5), 2.5),
    ("text ☃ \ud800", "text ☃ \ud800"),
    ([1, 2], (1.0, 2.0)),
    ((np.ones(2), "a", 1), (np.ones(2), "a", 1.0)),
    (np.arange(6).reshape(2, 3)[:, ::2], np.array([[0, 2], [3, 5]])),
    (np.array([1.0, 2.0], ">f4"), np.array([1.0, 2.0], "<f4")),
    (np.array([1.5], np.longdouble), np.array([1.5])),
    (float("nan"), float("nan")),
    (Decimal("0.5"), 0.5),
    (Fraction(1, 4), 0.25),
    (np.ma.array([1.0, 2.0]), np.array([1.0, 2.0])),
]


@pytest.mark.parametrize(("given", "expected"), VALUES)
def test_a_value_is_normalised_and_comes_back(path: Path, given: Any, expected: Any) -> None:
    assert same(normalise("k", given), expected)
    with recorder(path) as rec:
        rec.add(k=given)
    with Recording(path) as run:
        assert same(next(run.rows("k")).value, expected)


BAD = [
    ({"k": object()}, "'k': cannot record a object; accepted are a number"),
    ({"k": {"a": 1}}, "cannot record a dict"),
    ({"k": [[1]]}, "cannot record a list"),
    ({"k": []}, "an empty list has nothing to record"),
    ({"k": np.array(["a"])}, "cannot record an array of dtype <U1"),
    ({"k": 1j}, "cannot record a complex"),
    ({"k": 10**400}, "too large for a float64"),
    ({"k": np.timedelta64(3, "s")}, "cannot record a numpy.timedelta64"),
    ({"k": (1, None)}, "cannot record a NoneType"),
    ({"k": np.ma.array([1.0, 999.0], mask=[False, True])}, "masked elements; pass array.filled"),
    ({"k": (np.zeros(2), np.ma.masked)}, "'k': cannot record an array with masked elements"),
    ({"k": Decimal("sNaN")}, "cannot record a decimal.Decimal"),
    ({3: 1.0}, "keys must be strings, got int"),
    ({"\ud800": 1.0}, "not valid Unicode"),
    ([1], "add takes a mapping or keywords, got list"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_a_bad_value_is_a_clear_error_and_nothing_of_the_call_is_recorded(
    path: Path, given: Any, message: str
) -> None:
    with recorder(path) as rec:
        rec.add(good=1)
        with pytest.raises(InputError, match=message) as caught:
            rec.add({"good": 2.0, **given} if isinstance(given, dict) else given)
        assert isinstance(caught.value, TypeError)
        rec.add(good=3, other=[1.0])
    with Recording(path) as run:
        assert run["good"].value.tolist() == [1.0, 3.0]


def test_an_int_too_large_among_numbers_leaves_no_trace(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(a=1.0, b=2.0)
        with pytest.raises(InputError, match="'b': 1000000"):
            rec.add(a=3.0, b=10**400)
        rec.add(a=5.0, b=6.0)
    with Recording(path) as run:
        assert run["a"].value.tolist() == [1.0, 5.0]
        assert run["b"].value.tolist() == [2.0, 6.0]


@pytest.mark.parametrize("arrays", [False, True])
def test_values_are_added_at_a_step(path: Path, arrays: bool) -> None:
    more = {"array": np.zeros(2)} if arrays else {}
    with recorder(path) as rec:
        for i in range(0, 40, 10):
            rec.add({"loss": i, **more}, step=i)
        assert rec.current_step == 30
        rec.add({"step": 7.0}, acc=1)
        rec.step()
        rec.add(acc=2)
        at: Any = np.int64(50)
        rec.add(step=at)
        rec.add(acc=3)
        for wrong in (1.5, "3", True, 1 << 63, np.arange(2), np.ones(1)):
            with pytest.raises(InputError, match="step must be a 64-bit integer"):
                rec.add(acc=4, step=wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="cannot record a object"):
            rec.add(acc=object(), step=60)
        assert rec.current_step == 50
    with Recording(path) as run:
        assert set(run.keys()) - {"array"} == {"loss", "step", "acc"}
        assert run["loss"].step.tolist() == [0, 10, 20, 30]
        assert run["step"].value.tolist() == [7]
        assert run["acc"].step.tolist() == [30, 31, 50]


def test_an_add_at_a_step_does_not_end_the_watched_models_step(path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(2, 1))
    with recorder(path) as rec:
        rec.watch(model, sources=["weights"])
        for i in range(3):
            model(torch.ones(1, 2)).sum().backward()
            rec.add(loss=1.0, step=2 * i)
            rec.add(acc=1.0, step=2 * i)
            rec.step()
    with Recording(path) as run:
        assert run["0/weights/mean"].step.tolist() == [0, 2, 4]


@pytest.mark.parametrize("x", [float("nan"), float("inf")])
def test_a_log_is_at_a_finite_position(path: Path, x: float) -> None:
    with recorder(path) as rec:
        with pytest.raises(InputError, match=r"x must be a finite number, got (nan|inf)"):
            rec.log(x)
        rec.log(3)
    with Recording(path) as run:
        assert run.marks.x.tolist() == [3]


def test_a_recording_may_be_closed_without_compressing(path: Path) -> None:
    sizes = []
    for compress in (True, False):
        with recorder(path, mode="w", compress=compress) as rec:
            for i in range(200):
                rec.add(a=1.0, d=np.zeros(100), text="t", step=i)
        sizes.append(path.stat().st_size)
        with Recording(path) as run:
            assert run.complete
            assert run["a"].value.tolist() == [1.0] * 200
            assert all(not d.any() for d in run["d"].value)
        with h5py.File(path) as file:
            assert file["series/a/step"][:].tolist() == list(range(200))
    assert sizes[0] * 10 < sizes[1]
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"\0" * 4000) + 2000] = 1
    path.write_bytes(damaged)
    with Recording(path) as run, pytest.raises(RecordingError, match="is damaged"):
        list(run.events())


def test_a_recorder_says_what_it_is(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(a=1, step=4)
        assert repr(rec) == f"<Recorder {path}: recording; step 4, 1 event>"
    assert repr(rec) == f"<Recorder {path}: closed; step 4, 1 event>"


def test_none_is_nothing_to_add(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(a=None)
        rec.add(a=1.0, b=None)
        rec.add()
        rec.add(a=2.0, b=3.0)
    assert [e.values for e in read(path) if isinstance(e, Add)] == [
        {"a": 1.0},
        {"a": 2.0, "b": 3.0},
    ]


def test_an_array_is_recorded_as_it_was_at_add(path: Path) -> None:
    torch = pytest.importorskip("torch")
    array, tensor, number = np.zeros(3), torch.zeros(3), torch.tensor(1.0)
    with recorder(path) as rec:
        rec.add(array=array, tensor=tensor, number=number)
        array += 1
        tensor += 1
        number += 1
    with Recording(path) as run:
        assert run["array"].value[0].tolist() == [0, 0, 0]
        assert run["tensor"].value[0].tolist() == [0, 0, 0]
        assert run["number"].value.tolist() == [1.0]


def test_tensors_of_every_dtype(path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = torch.tensor([[0.5, 1.5], [2.0, 3.0]])
    names = ("bfloat16", "float16", "float32", "float64", "int8", "uint8", "int64", "bool")
    with recorder(path) as rec:
        for name in (*names, "complex64"):
            rec.add({name: source.to(getattr(torch, name))})
        rec.add(grad=source.clone().requires_grad_())
        rec.add(scalar=torch.tensor(2.5, dtype=torch.bfloat16), sparse=source.to_sparse())
    with Recording(path) as run:
        for name in names:
            expected = source.to(getattr(torch, name)).double().numpy()
            found = run[name].value[0]
            assert found.dtype == ("float32" if name == "bfloat16" else name)
            assert np.array_equal(found.astype("float64"), expected)
        assert run["complex64"].value[0].dtype == np.complex64
        assert run["scalar"].value.tolist() == [2.5]
        assert np.array_equal(run["sparse"].value[0], source.numpy())


def test_marks_steps_and_x(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(a=1)
        rec.step()
        rec.step(10)
        rec.log()
        rec.log(2.5, keys="a", reset=False)
        rec.reset(["a", "b"])
        assert rec.current_step == 10
    logs = [e for e in read(path) if isinstance(e, Log)]
    assert [(e.x, e.keys, e.reset, e.step) for e in logs] == [
        (10.0, None, True, 10),
        (2.5, ("a",), False, 10),
    ]
    with Recording(path) as run:
        assert run.marks.is_log.tolist() == [True, True, False]
        assert run.marks.keys == [None, ("a",), ("a", "b")]


@pytest.mark.parametrize("bad", [1.5, "a", True])
def test_a_step_is_a_whole_number(path: Path, bad: Any) -> None:
    with recorder(path) as rec, pytest.raises(InputError, match="step must be a 64-bit integer"):
        rec.step(bad)


def test_config_and_facts(path: Path) -> None:
    with Recorder(path, config={"lr": 0.1, "é": [1, None]}):
        pass
    with Recording(path) as run:
        assert run.config == {"lr": 0.1, "é": [1, None]}
        assert run.facts is not None
        assert run.facts["pid"] == os.getpid()
        assert run.facts["packages"]["h5py"] == h5py.__version__
        assert list(run.events()) == []
    with recorder(path, mode="w"):
        pass
    with Recording(path) as run:
        assert (run.config, run.facts) == (None, None)


def test_a_config_may_hold_paths_and_numpys_numbers(path: Path) -> None:
    config = {"data": path, "lr": np.float32(0.5), "sizes": [np.int64(3)], "fast": np.True_}
    Recorder(path, config=config).close()
    with Recording(path) as run:
        assert run.config == {"data": str(path), "lr": 0.5, "sizes": [3], "fast": True}


def test_a_config_that_is_not_json_is_refused(path: Path) -> None:
    with pytest.raises(RecordingError, match="config must be plain JSON data: JSON has no object"):
        Recorder(path, config=[object()])
    with pytest.raises(RecordingError, match=r"config\['a'\]\['deep'\] must.*: JSON has no bytes"):
        Recorder(path, config={"lr": 0.1, "a": {"deep": b""}})
    Recorder(path).close()


def test_modes(path: Path) -> None:
    recorder(path).close()
    with pytest.raises(ExistsError, match='exists already; pass mode="w" to overwrite'):
        Recorder(path)
    with recorder(path, mode="w") as rec:
        rec.add(a=1)
    with Recording(path) as run:
        assert run.keys() == ["a"]
    with pytest.raises(ValueError, match="mode must be"):
        Recorder(path, mode="a")  # type: ignore[arg-type]


def test_a_recorder_after_close_says_so(path: Path) -> None:
    rec = recorder(path)
    rec.close()
    rec.close()
    calls: list[Callable[[], None]] = [lambda: rec.add(a=1), rec.log, rec.reset, rec.flush]
    for call in calls:
        with pytest.raises(RecordingError, match="is closed"):
            call()


def test_the_rank_is_put_into_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with recorder(tmp_path / "run-{rank}.h5") as rec:
        assert rec.path == tmp_path / "run-3.h5"
    assert (tmp_path / "run-3.h5").exists()


def test_values_reach_the_file_without_further_adds(path: Path) -> None:
    with Recorder(path, facts=False, flush_seconds=0.05) as rec:
        rec.add(a=1.0)
        deadline = time.monotonic() + 30
        while not read(path):
            assert time.monotonic() < deadline, "nothing was flushed"
            time.sleep(0.02)


def test_a_kill_loses_nothing_that_was_flushed(path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from flexrec.recorder import Recorder\n"
        "rec = Recorder(sys.argv[1], flush_seconds=60)\n"
        "for i in range(500):\n"
        "    rec.add(a=i, pair=([1.0] and (float(i), 'x')))\n"
        "    rec.step()\n"
        "rec.flush()\n"
        "rec.add(a=-1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    with Recording(path) as run:
        assert not run.complete
        assert run.state == "the run has not ended, or was killed; it is whole up to step 499"
        assert run["a"].value.tolist() == list(range(500))


def test_an_exit_without_close_closes(path: Path) -> None:
    code = "from flexrec.recorder import Recorder; import sys; Recorder(sys.argv[1]).add(a=1)"
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], check=True)
    with Recording(path) as run:
        assert run.complete
        assert run["a"].value.tolist() == [1.0]


def test_threads_add_at_the_same_time(path: Path) -> None:
    with Recorder(path, facts=False, flush_seconds=0.01) as rec:

        def work(name: str) -> None:
            for i in range(2000):
                rec.add({name: i})

        threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Recording(path) as run:
        for i in range(4):
            assert run[f"t{i}"].value.tolist() == list(range(2000))


def test_a_forked_child_records_nothing(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork while threads run
        with recorder(path) as rec:
            rec.add(a=1)
            rec.flush()
            child = os.fork()
            if child == 0:
                rec.add(a=2)
                rec.log()
                rec.flush()
                rec.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            rec.add(a=3)
    with Recording(path) as run:
        assert run["a"].value.tolist() == [1.0, 3.0]


def test_a_failing_file_is_warned_of_once_and_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = recorder(path, buffer_bytes=1 << 20)
    write = rec._flusher._file.write

    def fail(block: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rec._flusher._file, "write", fail)
    rec.add(a=1)
    with pytest.warns(RuntimeWarning, match="cannot write .*No space left"):
        rec.flush()
    rec.add(a=2)
    rec.flush()  # no second warning
    for i in range(5):
        rec.add(blob=np.zeros(1 << 20), i=i)
        rec.flush()
    monkeypatch.setattr(rec._flusher._file, "write", write)
    rec.add(a=3)
    with pytest.warns(RuntimeWarning, match="5 events could not be written"):
        rec.close()
    with Recording(path) as run:
        assert run.complete
        assert run["a"].value.tolist() == [1.0, 2.0, 3.0]
        assert run.dropped == 5


def test_on_error_raise(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = recorder(path, on_error="raise")

    def fail(block: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rec._flusher._file, "write", fail)
        rec.add(a=1)
        with pytest.raises(RecordingError, match="No space left"):
            rec.flush()
        with pytest.raises(RecordingError, match="No space left"):
            rec.add(a=2)
    rec.close()
    with Recording(path) as run:
        assert run["a"].value.tolist() == [1.0]


def not_recordings(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Files that cannot be read, and what is said of each."""
    yield tmp_path / "none.h5", "does not exist"
    yield tmp_path, "is a folder"
    text = tmp_path / "text.h5"
    text.write_text("hello")
    yield text, "is not an HDF5 file"
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    yield other, "not a flexrec recording"
    newer = tmp_path / "newer.h5"
    recorder(newer).close()
    with h5py.File(newer, "r+") as file:
        file.attrs["version"] = 99
    yield newer, "has format version 99, this flexrec reads up to 2"
    damaged = tmp_path / "damaged.h5"
    recorder(damaged).close()
    with h5py.File(damaged, "r+") as file:
        del file["schema"]
    yield damaged, "is damaged"


@pytest.mark.parametrize("values", [{"a": 0.5}, {"b": np.arange(3.0)}, {"b": np.arange(99_999.0)}])
def test_memory_that_runs_out_amid_an_event_leaves_it_out(
    path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    rec = recorder(path)
    for _ in range(2):
        rec.add(values)
    with monkeypatch.context() as patch:
        encoder = rec._queue._encoders[tuple(values)]
        patch.setattr(encoder, "pack", fail)
        patch.setattr(encoders, "_TOP", SimpleNamespace(pack=fail))
        patch.setattr(event_queue, "pack_record", fail)
        with pytest.raises(MemoryError, match="no room"):
            rec.add(values)
    rec.add(b=np.arange(3.0), c="text")
    rec.close()
    with Recording(path) as run:
        assert len(list(run.events())) == 3
        assert list(run["c"].value) == ["text"]


def test_what_cannot_be_read_is_told_apart(tmp_path: Path) -> None:
    for path, message in not_recordings(tmp_path):
        with pytest.raises(RecordingError, match=message):
            Recording(path)


def test_an_unknown_key_names_the_nearest(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(train_loss=1)
    with Recording(path) as run:
        assert "train_loss" in run
        with pytest.raises(UnknownKeyError, match="no key 'train_los'; did you mean 'train_loss'"):
            run["train_los"]
        assert str(json.dumps(run.keys())) == '["train_loss"]'


@pytest.mark.parametrize("name", ["flush_seconds", "fsync_seconds", "buffer_bytes", "created"])
@pytest.mark.parametrize("wrong", [0, -1, "1", True, float("nan")])
def test_what_is_no_number_above_0_is_refused(tmp_path: Path, name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number above 0"):
        Recorder(tmp_path / "run.h5", **{name: wrong})
    assert not list(tmp_path.iterdir())


def test_a_run_may_have_begun_earlier(tmp_path: Path) -> None:
    for mode, created in (("x", 1e9), ("resume", 2e9)):
        with Recorder(tmp_path / "run.h5", mode=mode, created=created) as rec:  # type: ignore[arg-type]
            rec.add(loss=1.0)
        with Recording(tmp_path / "run.h5") as run:
            assert run.created == 1e9
    for wrong in (float("inf"), 10**400):
        with pytest.raises(ValueError, match="created must be seconds since 1970, got"):
            Recorder(tmp_path / "new.h5", created=wrong)
    with Recorder(tmp_path / "new.h5", created=1 << 70):
        pass
    with Recording(tmp_path / "new.h5") as run:
        assert run.created == 2.0**70


def test_a_flush_interval_that_keeps_a_processor_busy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"flush_seconds must be at least 0\.001, got 1e-09"):
        Recorder(tmp_path / "run.h5", flush_seconds=1e-9)
    assert not list(tmp_path.iterdir())


def test_names_of_the_system_that_are_no_utf8_are_recorded_as_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NAME", os.fsdecode(b"exp\xe9rience"))
    with Recorder(tmp_path / "run.h5"):
        pass
    with Recording(tmp_path / "run.h5") as run:
        assert run.facts is not None
        assert run.facts["job"]["SLURM_JOB_NAME"] == "exp?rience"
