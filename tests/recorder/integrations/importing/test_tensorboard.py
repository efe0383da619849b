"""TensorBoard's event files become recordings."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorboard.summary
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from flexrec.recorder import MissingDependency, Recording
from flexrec.recorder.integrations.importing.importer import Imported, import_runs
from flexrec.replay.meters import HistogramMeter


def imported(path: Path, out: Path) -> list[Imported]:
    return list(import_runs(path, out))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder of a run, in which torch's writer wrote."""
    chance = torch.Generator().manual_seed(1)
    with SummaryWriter(tmp_path / "logs" / "first") as writer:
        for step in range(3):
            writer.add_scalar("Loss/train", 1 / (step + 1), step, walltime=1e9 + step / 8)
            writer.add_scalar("exact", 1 / 3, step, new_style=True, double_precision=True)
            writer.add_scalar("new", 0.5, step, new_style=True)
            writer.add_histogram("weights", torch.randn(500, generator=chance), step)
            writer.add_image("image", np.full((3, 4, 5), 0.2 * step), step)
            writer.add_images("images", np.zeros((2, 1, 4, 5)), step)
            writer.add_text("note", f"step {step}", step)
            writer.add_tensor("tensor", torch.arange(3.0), step)
            writer.add_audio("sound", torch.zeros(1, 100), step)
    return tmp_path / "logs"


def test_every_kind_is_imported(logs: Path, tmp_path: Path) -> None:
    (found,) = imported(logs, tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "first.h5"
    assert found.left_out == {"audio": 3}
    assert not found.damage
    with Recording(found.path) as run:
        assert run.complete
        loss = run["Loss/train"]
        assert loss.step.tolist() == [0, 1, 2]
        assert loss.time.tolist() == [1e9, 1e9 + 0.125, 1e9 + 0.25]
        assert run.created == 1e9, "the run began with its first values, not now"
        assert loss.value.tolist() == [float(np.float32(1 / (i + 1))) for i in range(3)]
        assert run["exact"].value.tolist() == [1 / 3] * 3
        assert run["new"].value.tolist() == [0.5] * 3
        assert run["note"].value == ["step 0", "step 1", "step 2"]
        assert run["image"].value[1].shape == (3, 4, 5)
        assert (run["image"].value[1] == 51).all()
        np.testing.assert_array_equal(run["tensor"].value[0], [0.0, 1.0, 2.0])


def test_histograms_are_near_those_of_the_values(logs: Path, tmp_path: Path) -> None:
    (found,) = imported(logs, tmp_path / "runs")
    meter, expected = HistogramMeter(), HistogramMeter()
    expected.add(torch.randn(500, generator=torch.Generator().manual_seed(1)).numpy())
    with Recording(found.path) as run:
        meter.merge(*run["weights"].value[0])
    counts, _, bounds = meter.value()
    assert counts.sum() == 500
    np.testing.assert_allclose(bounds[1:-1], expected.value()[2][1:-1], atol=0.3)


def test_newer_summaries_are_imported(tmp_path: Path) -> None:
    writer = tensorboard.summary.Writer(str(tmp_path / "logs"))
    writer.add_scalar("loss", 0.5, 3, wall_time=1e9)
    writer.close()
    (found,) = imported(tmp_path / "logs", tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "logs.h5"
    with Recording(found.path) as run:
        assert (run["loss"].step[0], run["loss"].time[0], run["loss"].value[0]) == (3, 1e9, 0.5)


def test_hyperparameters_are_the_config(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "logs") as writer:
        writer.add_hparams({"lr": 0.1, "name": "a", "bias": True}, {"best": 0.5}, run_name=".")
    (found,) = imported(tmp_path / "logs", tmp_path / "runs")
    with Recording(found.path) as run:
        assert run.config == {"lr": 0.1, "name": "a", "bias": True}
        assert run["best"].value.tolist() == [0.5]


def test_a_folder_is_a_run_with_all_its_files(tmp_path: Path) -> None:
    for folder, part in (("a", 0), ("a", 1), ("a/eval", 0)):
        suffix = f".{part}"
        with SummaryWriter(tmp_path / "logs" / folder, filename_suffix=suffix) as writer:
            writer.add_scalar("loss", part, part)
    found = {each.path.relative_to(tmp_path): each for each in imported(tmp_path, tmp_path / "r")}
    assert sorted(map(str, found)) == ["r/logs/a.h5", "r/logs/a/eval.h5"]
    with Recording(tmp_path / "r" / "logs" / "a.h5") as run:
        assert sorted(run["loss"].value.tolist()) == [0.0, 1.0]


@pytest.mark.parametrize("cut", [1, 5, 13, 20])
def test_a_torn_last_record_is_said(tmp_path: Path, cut: int) -> None:
    with SummaryWriter(tmp_path / "logs") as writer:
        for step in range(5):
            writer.add_scalar("loss", step, step)
    (path,) = (tmp_path / "logs").iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    (found,) = imported(path, tmp_path / "runs")
    assert [line.rsplit(": ")[-1] for line in found.damage] == [
        "its last record is not whole, and left out"
    ]
    with Recording(found.path) as run:
        assert run["loss"].value.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_what_is_no_event_file_ends_with_a_word(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(b"\x05" + bytes(11) + b"\xff" * 5 + bytes(4))
    (found,) = imported(path, tmp_path / "runs")
    assert "damaged at byte" in found.damage[0]


def test_a_record_that_was_changed_is_left_out(tmp_path: Path) -> None:
    values = [Summary.Value(tag="loss", simple_value=step) for step in range(3)]
    path = written(tmp_path, *(Event(step=3, summary=Summary(value=[each])) for each in values))
    data = path.read_bytes()
    size = len(data) // 3
    for place, kept, said in (
        (size - 6, [1.0, 2.0], "damaged at byte 0; this record is left out"),
        (size - 1, [1.0, 2.0], "damaged at byte 0; this record is left out"),
        (size, [0.0], f"damaged at byte {size}; the rest is left out"),
        (size + 9, [0.0], f"damaged at byte {size}; the rest is left out"),
    ):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        (found,) = import_runs(path, tmp_path / "run.h5", overwrite=True)
        assert found.damage == [f"{path}: {said}"]
        with Recording(found.path) as run:
            assert run["loss"].value.tolist() == kept


def test_whatever_a_file_holds_is_imported_or_named(logs: Path, tmp_path: Path) -> None:
    """Bytes are changed, and the checksums made anew."""
    (path,) = (logs / "first").iterdir()
    chance, records, rest = np.random.default_rng(1), list[bytes](), path.read_bytes()
    while rest:
        end = 12 + int.from_bytes(rest[:8], "little")
        records.append(rest[12:end])
        rest = rest[end + 4 :]
    for _ in range(20):
        changed = [bytearray(each) for each in records]
        for index in chance.integers(1, len(changed), 3).tolist():
            changed[index][chance.integers(len(changed[index]))] = int(chance.integers(256))
        with path.open("wb") as file:
            for each in changed:
                RecordWriter(file).write(bytes(each))
        (found,) = import_runs(path, tmp_path / "run.h5", overwrite=True)
        assert found.values


@pytest.mark.parametrize("dtype", [20, 21])
def test_a_tensor_of_a_type_without_arrays_is_named(tmp_path: Path, dtype: int) -> None:
    tensor = Summary.Value(tag="a", tensor=TensorProto(dtype=dtype))
    loss = Summary.Value(tag="loss", simple_value=0.5)
    (found,) = imported(
        written(tmp_path, Event(summary=Summary(value=[tensor, loss]))), tmp_path / "runs"
    )
    assert found.values == 1
    assert found.left_out == {f"tensor of type {dtype}": 1}


def test_a_few_bytes_do_not_become_a_large_tensor(tmp_path: Path) -> None:
    value = Summary.Value(tag="a", tensor=TensorProto(dtype=1, float_val=[1.0]))
    value.tensor.tensor_shape.dim.add().size = 1 << 40
    path = written(tmp_path, Event(summary=Summary(value=[value])))
    (found,) = imported(path, tmp_path / "runs")
    assert found.left_out == {"damaged": 1}


def test_tensorboard_is_needed(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "flexrec.recorder.integrations.importing.tensorboard"
    blocked: dict[str, Any] = {"tensorboard.compat.proto.event_pb2": None}
    monkeypatch.delitem(sys.modules, name, raising=False)
    for module, value in blocked.items():
        monkeypatch.setitem(sys.modules, module, value)
    with pytest.raises(MissingDependency, match="pip install 'tensorboard"):
        imported(logs, tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def written(folder: Path, *events: Any) -> Path:
    """A file of events."""
    path = folder / "events.out.tfevents.1"
    with path.open("wb") as file:
        for event in events:
            RecordWriter(file).write(event.SerializeToString())
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of tracing
def test_a_graph_is_named(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "logs") as writer:
        writer.add_graph(torch.nn.Linear(2, 2), torch.zeros(1, 2))
        writer.add_scalar("loss", 0.5, 1)
    (found,) = imported(tmp_path / "logs", tmp_path / "runs")
    assert (found.values, found.left_out["graph_def"]) == (1, 1)
