"""wandb's offline files become recordings."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from flexrec.recorder import Recording
from flexrec.recorder.integrations.importing.importer import import_runs
from flexrec.recorder.integrations.importing.source import NOT_ENDED


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run that wandb itself recorded."""
    folder = tmp_path_factory.mktemp("wandb")
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
    run = wandb.init(
        project="p", mode="offline", dir=folder, config={"lr": 0.1, "a": [1]}, settings=settings
    )
    for step in range(3):
        values = np.arange(100) + step
        run.log({"loss": 1 / (step + 1), "train": {"acc": step}, "h": wandb.Histogram(values)})
    run.config["late"] = "x"
    run.log({"table": wandb.Table(columns=["a"], data=[[1]]), "note": "hi"}, step=10)
    run.log({"list": [1, 2.5], "texts": ["a", 1], "arrays": np.ones((2, 2))}, step=11)
    run.finish()
    (path,) = folder.rglob("*.wandb")
    return path


def test_history_and_config_are_imported(offline: Path, tmp_path: Path) -> None:
    (found,) = import_runs(offline, tmp_path / "run.h5")
    assert not found.damage
    assert list(found.left_out) == ["table-file"]
    with Recording(tmp_path / "run.h5") as run:
        assert run.config == {"lr": 0.1, "a": [1], "late": "x"}
        assert run["loss"].value.tolist() == [1.0, 0.5, 1 / 3]
        assert run["loss"].step.tolist() == [0, 1, 2]
        assert run["train/acc"].value.tolist() == [0.0, 1.0, 2.0]
        assert (run["note"].step.tolist(), run["note"].value) == ([10], ["hi"])
        assert run["h"].value[0][0].sum() == 100
        assert run["list"].value[0].tolist() == [1.0, 2.5]
        assert run["arrays"].value[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]
        assert run["texts"].value == ['["a", 1]']
        assert abs(run["loss"].time[0] - offline.stat().st_mtime) < 600


def test_a_torn_last_record_is_said(offline: Path, tmp_path: Path) -> None:
    torn = tmp_path / "run-torn.wandb"
    data = offline.read_bytes()
    torn.write_bytes(data[: len(data) // 2])
    (found,) = import_runs(torn, tmp_path / "runs")
    assert "its last record is not whole" in found.damage[0]
    torn.write_bytes(b"something else")
    (found,) = import_runs(torn, tmp_path / "other")
    assert "is not a file of wandb" in found.damage[0]


def test_records_go_across_blocks(tmp_path: Path) -> None:
    (found,) = import_runs(written(tmp_path, {"text": f'"{"x" * 100_000}"'}), tmp_path / "runs")
    with Recording(found.path) as run:
        assert run["text"].value == ["x" * 100_000]
    assert found.damage == [NOT_ENDED]  # there is no record of an end


@pytest.mark.parametrize(
    "items",
    [
        {"_step": '"a"', "loss": "1"},
        {"_step": "Infinity", "loss": "1"},
        {"h": '{"_type": "histogram", "values": [1, 2], "bins": [1]}'},
        {"h": '{"_type": "histogram", "values": ["a"], "packedBins": {"min": 0, "size": 1}}'},
        {"h": '{"_type": "histogram", "values": 5, "bins": {}}'},
    ],
)
def test_history_that_makes_no_sense_is_counted(tmp_path: Path, items: dict[str, str]) -> None:
    (found,) = import_runs(written(tmp_path, items), tmp_path / "runs")
    assert (found.values, dict(found.left_out)) == (0, {"damaged history": 1})


def test_a_name_that_comes_twice_is_named(tmp_path: Path) -> None:
    (found,) = import_runs(written(tmp_path, {"a/b": "1", "a": '{"b": 2}'}), tmp_path / "runs")
    assert found.left_out == {"first of two values of 'a/b'": 1}
    with Recording(found.path) as run:
        assert run["a/b"].value.tolist() == [2.0]


def test_a_number_that_is_too_large_is_named(tmp_path: Path) -> None:
    items = {"loss": "1" * 401, "acc": "1"}
    (found,) = import_runs(written(tmp_path, items), tmp_path / "runs")
    assert [why[-19:] for why in found.left_out] == ["large for a float64"]
    with Recording(found.path) as run:
        assert run["acc"].value.tolist() == [1.0]


def written(folder: Path, items: dict[str, str]) -> Path:
    """A file of one record, in blocks as wandb's."""
    record = Record()
    for key, text in items.items():
        item = record.history.item.add()
        item.key, item.value_json = key, text
    data, out = record.SerializeToString(), bytearray(b":W&B\xe1\xbe\0")
    while data:
        room = (1 << 15) - len(out) % (1 << 15) - 7
        part, data = data[:room], data[room:]
        is_first = len(out) == 7
        kind = (2 if data else 1) if is_first else (3 if data else 4)
        check = zlib.crc32(part, zlib.crc32(bytes([kind])))
        out += struct.pack("<IHB", check, len(part), kind) + part
    path = folder / "run.wandb"
    path.write_bytes(out)
    return path
