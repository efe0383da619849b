"""An event file for TensorBoard, out of a recording and back in."""

import json
import os
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.integrations.importing.importer import import_runs
from flexrec.replay.meters import HistogramMeter
from support.export_cases import export, recorded, same


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded(tmp_path)


def test_what_is_exported_and_imported_again_is_the_same(run: Path, tmp_path: Path) -> None:
    code, out, said = export(run, "--to", "tensorboard", "--out", tmp_path / "logs")
    assert code == 0
    assert out == f"{tmp_path}/logs: 25 rows of 5 keys\n"
    assert (
        said == "flexrec: not exported (only Python can read them): pair ((float64:1, float64:1))\n"
    )
    (found,) = import_runs(tmp_path / "logs", tmp_path / "again.h5")
    assert not found.left_out
    same(run, tmp_path / "again.h5", "train/loss", "note", "nan", "mixed")
    with Recording(found.path) as again, Recording(run) as first:
        assert again.config == {"lr": 0.1, "name": "a", "sizes": "[1, 2]"}
        for ours, theirs in zip(again["weights"].value, first["weights"].value, strict=True):
            meters = HistogramMeter(), HistogramMeter()
            for meter, state in zip(meters, (ours, theirs), strict=True):
                meter.merge(*state)
            np.testing.assert_allclose(meters[0].value()[2], meters[1].value()[2], atol=0.1)


@pytest.mark.parametrize("name", ["table.csv", "table"])
def test_a_table_that_is_imported_again_is_the_same(run: Path, tmp_path: Path, name: str) -> None:
    assert export(run, "--to", "csv", "-o", tmp_path / name)[0] == 0
    path = (tmp_path / name).rename(tmp_path / "table.csv")
    list(import_runs(path, tmp_path / "again.h5"))
    same(run, tmp_path / "again.h5", "train/loss", "note", "nan", "mixed")


def test_keys_that_end_as_torchs_tags_of_texts_do_stay_apart(tmp_path: Path) -> None:
    keys = ["note", "note/text_summary", "note/text_summary/text_summary"]
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.add({key: f"text of {key}" for key in keys})
    assert export(tmp_path / "run.h5", "--to", "tensorboard", "-o", tmp_path / "logs")[0] == 0
    list(import_runs(tmp_path / "logs", tmp_path / "again.h5"))
    same(tmp_path / "run.h5", tmp_path / "again.h5", *keys)


def test_an_integer_that_no_float_holds_is_a_text_among_the_hyperparameters(tmp_path: Path) -> None:
    config = {"huge": 10**400, "odd": 2**53 + 1, "small": 3}
    with Recorder(tmp_path / "run.h5", facts=False, config=config) as rec:
        rec.add(loss=1.0)
    assert export(tmp_path / "run.h5", "--to", "tensorboard", "-o", tmp_path / "logs")[0] == 0
    list(import_runs(tmp_path / "logs", tmp_path / "again.h5"))
    with Recording(tmp_path / "again.h5") as again:
        assert again.config == {"huge": str(10**400), "odd": str(2**53 + 1), "small": 3.0}


def test_tensorboard_reads_it(run: Path, tmp_path: Path) -> None:
    export(run, "--to", "tensorboard", "--out", tmp_path / "logs", "-k", "train/loss", "-k", "note")
    read = EventAccumulator(str(tmp_path / "logs"))
    read.Reload()
    assert {"train/loss", "note"} <= set(read.Tags()["tensors"])
    assert [each.step for each in read.Tensors("train/loss")] == [0, 1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as it is imported
def test_tensorboards_server_serves_it(run: Path, tmp_path: Path) -> None:
    from tensorboard import program
    from tensorboard.plugins.core.core_plugin import CorePluginLoader
    from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

    export(run, "--to", "tensorboard", "--out", tmp_path / "logs" / "first", "-k", "train/loss")
    board = program.TensorBoard(plugins=[CorePluginLoader(), ScalarsPlugin])
    options = {"logdir": tmp_path / "logs", "host": "127.0.0.1", "port": 0, "load_fast": "false"}
    board.configure(argv=[None, *(f"--{name}={value}" for name, value in options.items())])
    query = f"data/plugin/scalars/scalars?run=first&tag={quote('train/loss', safe='')}"
    with urllib.request.urlopen(f"{board.launch()}{query}", timeout=60) as answer:  # noqa: S310
        served = json.load(answer)
    with Recording(run) as recording:
        loss = recording["train/loss"]
        expected = zip(loss.time.tolist(), loss.step.tolist(), loss.value.tolist(), strict=True)
    assert [step for _, step, _ in served] == loss.step.tolist()
    np.testing.assert_allclose(np.array(served), np.array(list(expected)), rtol=1e-6)


def test_only_an_event_file_is_overwritten(run: Path, tmp_path: Path) -> None:
    words = (run, "--to", "tensorboard", "--out", tmp_path / "logs")
    codes = export(*words)[0], export(*words)[0], export(*words, "--force")[0]
    assert list(map(bool, codes)) == [False, True, False]
    (path,) = (tmp_path / "logs").iterdir()
    path.write_text("something else")
    assert export(*words, "--force")[0]


def test_a_format_that_is_no_text_needs_a_file(run: Path) -> None:
    for to in ("tensorboard", "parquet"):
        code, _, said = export(run, "--to", to)
        assert code == 2
        assert "needs a file to write" in said


def test_a_config_with_a_path_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    with Recorder(tmp_path / "run.h5", facts=False, config={folder: Path(folder)}) as rec:
        rec.add(loss=1.0)
    code, _, said = export(tmp_path / "run.h5", "--to", "tensorboard", "--out", tmp_path / "logs")
    assert (code, said) == (0, "")
    (found,) = import_runs(tmp_path / "logs", tmp_path / "again.h5")
    with Recording(found.path) as again:
        assert again.config == {"caf\\udce9": "caf\\udce9"}
