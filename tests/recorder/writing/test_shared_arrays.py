"""An array that is given under several keys of one add is recorded once."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, merge_recordings
from flexrec.recorder.events import is_tensor
from flexrec.recorder.storage.format import Schema
from flexrec.recorder.writing import event_queue
from flexrec.recorder.writing.values import accelerator, encoders
from flexrec.replay import FlexLogger, define, play
from flexrec.replay.sinks.base import ListSink
from support.event_cases import same
from support.recorders import recorder

BYTES = 80 * 1000 * 4  # of an output


def output(i: int) -> np.ndarray[Any, Any]:
    """Incompressible, another one for each step."""
    return np.random.default_rng(i).normal(size=(80, 1000)).astype("f4")


def values(i: int) -> dict[str, Any]:
    """As a loop gives them that has several meters."""
    out, target, hot = output(i), np.arange(80) + i, np.full((80, 10), i, "f4")
    return {
        "loss": 0.5 + i,
        "mse": (out, hot),
        "class": [out, target],
        "matrix": (out, target),
        "target": target,
        "note": (target, "text", 2.0),
    }


def apart(given: dict[str, Any]) -> dict[str, Any]:
    """The same values, no array twice."""

    def own(part: Any) -> Any:
        return part.copy() if isinstance(part, np.ndarray) else part

    return {
        key: type(value)(map(own, value)) if isinstance(value, tuple | list) else own(value)
        for key, value in given.items()
    }


def check(path: Path, wanted: list[dict[str, Any]]) -> None:
    """What was added is there."""
    with Recording(path) as run:
        found = [event.values for event in run.events()]  # type: ignore[union-attr]
        for key in run:
            assert len(run[key].value) == sum(key in one for one in wanted)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == list(other)
        for key, value in other.items():
            given = tuple(value) if isinstance(value, list) else value
            assert same(one[key], given), key


def test_it_takes_its_bytes_once(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with recorder(path) as rec:
        for i in range(9):
            rec.add(values(i))
        rec.flush()
        blobs = h5py.File(path, "r", swmr=True, locking=False)["blobs"]
        assert 9 * BYTES < len(blobs) < 9 * (BYTES + 8000)
        check(path, [values(i) for i in range(9)])
    assert 9 * BYTES * 0.8 < path.stat().st_size < 9 * (BYTES + 8000)
    check(path, [values(i) for i in range(9)])
    with Recording(path) as run:
        sizes = {key: run.columns.stored_bytes(key) for key in run}
    assert sizes["mse"] > 9 * BYTES * 0.8
    assert 0 < sizes["class"] < 9000
    assert sizes["matrix"] == sizes["target"] == 0 < sizes["note"]
    with h5py.File(path) as file:  # which anybody may read
        assert file["series/class/value_0/data"] == file["series/mse/value_0/data"]
        assert file["series/target/value"] == file["series/matrix/value_1"]


def test_a_buffer_that_is_filled_anew_is_recorded_as_it_was(tmp_path: Path) -> None:
    given, wanted = values(0), []
    with recorder(tmp_path / "run.h5") as rec:
        for i in range(5):
            given["mse"][0].fill(i)
            rec.add(given)
            wanted.append(apart(given))
    check(tmp_path / "run.h5", wanted)


@pytest.mark.parametrize("size", [3, 3000])
def test_what_is_not_always_shared_is_shared_no_more(tmp_path: Path, size: int) -> None:
    wanted = []
    with recorder(tmp_path / "run.h5") as rec:
        for i in range(12):
            array, other = np.full(size, i), np.full(size, -i)
            given = {"a": (array, other), "b": (other, array + 1 if i % 3 else array), "c": other}
            rec.add(given)
            wanted.append(apart(given))
    check(tmp_path / "run.h5", wanted)
    with Recording(tmp_path / "run.h5") as run:
        assert len(run._store.schema.columns) == 4  # b has two forms: it shared, and shares less
        assert run.kind("b") == "(int64:1, int64:1)"


def test_shapes_may_change(tmp_path: Path) -> None:
    wanted = []
    with recorder(tmp_path / "run.h5") as rec:
        for rows in (4, 4, 2, 2, 0, 9000, 9000, 1):
            array = np.arange(rows * 3.0).reshape(rows, 3)
            wanted.append({"a": array, "b": (1.0, array), "c": array})
            rec.add(wanted[-1])
    check(tmp_path / "run.h5", wanted)


def test_other_adds_have_the_first_key_alone(tmp_path: Path) -> None:
    """Then the rows differ, and a closed file has the array under both keys."""
    wanted = []
    with recorder(tmp_path / "run.h5") as rec:
        for i in range(6):
            array = np.arange(5) + i
            wanted.append({"a": array, "b": array} if i % 2 else {"a": array})
            rec.add(wanted[-1])
        rec.flush()
        check(tmp_path / "run.h5", wanted)
    check(tmp_path / "run.h5", wanted)


@pytest.mark.parametrize("closed", [True, False])
def test_it_goes_through_resuming(tmp_path: Path, closed: bool) -> None:
    path = tmp_path / "run.h5"
    rec = recorder(path)
    for i in range(6):
        rec.add(values(i))
        rec.step()
    rec.flush()
    live = path.read_bytes()
    rec.close()
    if not closed:
        path.write_bytes(live)
    with recorder(path, mode="resume", at_step=3) as rec:
        assert path.stat().st_size < 8 * (BYTES + 8000) + (10 << 20)
        rec.add(values(9))
        rec.flush()
        assert len(rec._flusher._batches.schema.columns) == 6
    check(path, [values(i) for i in (0, 1, 2, 3, 9)])
    assert path.stat().st_size < 8 * (BYTES + 8000)


def test_it_goes_through_merging(tmp_path: Path) -> None:
    ranks = [tmp_path / f"run-{rank}.h5" for rank in range(2)]
    for rank, path in enumerate(ranks):
        with recorder(path) as rec:
            for i in range(4):
                if rank:  # whose columns have other numbers then
                    rec.add({"own": np.ones(3), "again": 1.0})
                rec.add(values(10 * rank + i))
                rec.step()
    merge_recordings(ranks, tmp_path / "all.h5")
    wanted: list[dict[str, Any]] = []
    for i in range(4):
        wanted += [values(i), {"own": np.ones(3), "again": 1.0}, values(10 + i)]
    check(tmp_path / "all.h5", wanted)
    assert (tmp_path / "all.h5").stat().st_size < 8 * (BYTES + 8000) + 20_000


def test_what_is_reduced_is_apart(tmp_path: Path) -> None:
    with recorder(tmp_path / "run.h5", reduce={"mse": "MSEMeter"}) as rec:
        for i in range(3):
            out, target = output(i), np.zeros((80, 1000), "f4")
            rec.add({"mse": (out, target), "raw": (out, target), "again": (out, target)})
    with Recording(tmp_path / "run.h5") as run:
        assert run.kind("mse").startswith("state of MSEMeter")
        assert all(same(run["again"].value[i][0], output(i)) for i in range(3))
        assert run.columns.stored_bytes("again") == 0 < run.columns.stored_bytes("raw")


def test_it_is_copied_and_weighed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    # All seem to be on an accelerator.
    monkeypatch.setattr(accelerator, "is_elsewhere", is_tensor)
    monkeypatch.setattr(encoders, "as_plain", lambda part: part)
    clones = []
    made = accelerator.OnDevice.__init__

    def cloned(self: accelerator.OnDevice, tensor: Any) -> None:
        clones.append(tensor)
        made(self, tensor)

    monkeypatch.setattr(accelerator.OnDevice, "__init__", cloned)
    wanted = []
    with recorder(tmp_path / "run.h5") as rec:
        for i in range(4):
            out, target = torch.randn(4, 3), torch.full((4,), i)
            rec.add({"mse": (out, target), "class": (out, target), "out": out})
            array, numbers = out.numpy(), target.numpy()
            wanted.append({"mse": (array, numbers), "class": (array, numbers), "out": array})
        assert len(clones) == 4 * 2
        rec.flush()
        assert rec._flusher._heavy.sizes == {"mse": 4 * (4 * 3 * 4 + 4 * 8)}
    check(tmp_path / "run.h5", wanted)


def test_a_live_logger_shares_what_it_records(tmp_path: Path) -> None:
    meters = {
        "mse": {"type": "MSEMeter", "target": "plot"},
        "best": {"key": "other", "type": "MSEMeter", "target": "plot"},
    }
    plots, sink = {"plot": {"type": "line"}}, ListSink()
    with recorder(tmp_path / "run.h5") as rec:
        logger = FlexLogger(plots, meters, sink=sink, recorder=rec)
        for i in range(4):
            pair = [np.arange(3000.0) + i, np.zeros(3000)]
            logger.add({"mse": pair, "other": pair})
            logger.log(i)
    with Recording(tmp_path / "run.h5") as run:
        assert run.columns.stored_bytes("other") == 0
        (window,), (live,) = play(run, define(plots, meters)), sink.windows.values()
    assert len(window.traces) == 2
    for trace, other in zip(window.traces, live.traces, strict=True):
        assert same(trace.y, other.y)


def test_a_value_that_is_refused_leaves_no_trace(tmp_path: Path) -> None:
    array = np.arange(3)
    with recorder(tmp_path / "run.h5") as rec:
        with pytest.raises(TypeError, match="'b'"):
            rec.add({"a": array, "b": (array, object())})
        rec.add({"a": array, "b": (array, 1.0)})
    check(tmp_path / "run.h5", [{"a": array, "b": (array, 1.0)}])


def test_a_long_way_is_gone_once_for_the_same_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    slow = event_queue.EventQueue.add_at

    def counted(*given: Any) -> Any:
        taken.append(given)
        return slow(*given)

    monkeypatch.setattr(event_queue.EventQueue, "add_at", counted)
    with recorder(tmp_path / "run.h5") as rec:
        for i in range(50):
            array = np.arange(6) + i
            rec.add({"a": (array, 1.0), "b": (array, array), "c": 0.5})
    assert len(taken) == 1


COLUMNS = [
    {"key": "a", "forms": ["int64:1", "number"], "bare": False},
    {"key": "b", "forms": ["int64:1"], "bare": True, "same": [[0, 0]]},
]


def schema(*lines: dict[str, Any]) -> bytes:
    """Lines of a schema."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_the_schema_says_whose_a_part_is() -> None:
    found = Schema.decode(schema(*COLUMNS, {"columns": [0, 1]}))
    assert found.owner(1, 0) == (0, 0)
    assert found.slots_of((0, 1)) == (3, (0,))
    assert found.places() == ([[(0, 0)], [(0, 3)]], [3])
    assert Schema.decode(found.encode()) == found


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{**COLUMNS[1], "same": [[1, 0]]}], "what is not there"),
        ([{**COLUMNS[1], "same": [[-1, 0]]}], "what is not there"),
        ([{**COLUMNS[1], "same": [[0, -1]]}], "what is not there"),
        ([{**COLUMNS[1], "same": [[0, 7]]}], "is damaged"),
        ([{**COLUMNS[1], "same": [[0, 1]]}], "of another form"),
        ([{**COLUMNS[1], "same": [[0]]}], "is damaged"),
        ([{**COLUMNS[1], "same": 3}], "is damaged"),
        ([{**COLUMNS[1], "same": [[0, 0], None]}], "is damaged"),
        ([{**COLUMNS[1], "same": []}], "is damaged"),
        ([{**COLUMNS[1], "forms": ["int64:2"]}], "of another form"),
        ([COLUMNS[1], {**COLUMNS[1], "key": "c", "same": [[1, 0]]}], "another's"),
        ([COLUMNS[1], {"columns": [1]}], "lacks a column"),
        ([COLUMNS[1], {"columns": [1, 0]}], "lacks a column"),
    ],
)
def test_a_schema_that_shares_what_cannot_be_is_refused(
    lines: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Schema.decode(schema(COLUMNS[0], *lines))


def test_keys_that_share_compressible_arrays_can_be_read_together(tmp_path: Path) -> None:
    """A closed file has them once, and 32 times smaller: so are they counted, and read, once."""
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        for i in range(80):
            hot = np.zeros((1000, 256), np.float32)
            hot[:, i] = 1
            rec.add({f"m{j}": (hot, float(j)) for j in range(6)})
    with Recording(path) as run:
        found = run.series(run.keys())
        for key in run:
            for i, (array, number) in enumerate(found[key].value):
                assert (array[0].argmax(), number) == (i, float(key[1:]))
                assert array is found["m0"].value[i][0]
        assert [part.key for part in run.columns.parts(run.keys())] == run.keys()
        assert run["m5"].value[7][0] is not found["m5"].value[7][0]
