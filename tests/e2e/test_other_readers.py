"""A closed recording is read without flexrec, and without the HDF5 library."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pyfive import Group

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.storage.closing import output
from support.plain_hdf5 import opened

ROOT = Path(__file__).resolve().parents[2]
STEPS = 2_100
NOTES = ["größe", "", "a\0b"]
KEYS = [f"net.{number}/weights/mean" for number in range(70)]


def record(path: Path) -> None:
    """Numbers, texts, arrays, tuples, a state, marks, and a table of many keys."""
    with Recorder(
        path, facts=False, config={"lr": 0.1}, reduce={"weights": "HistogramMeter"}
    ) as rec:
        for i in range(STEPS):
            rec.add({"train/loss": 1 / (i + 1), "acc": i % 7})
            if i % 10 == 0:
                rec.add({key: number + 1 / (i + 3) for number, key in enumerate(KEYS)})
            if i % 100 == 0:
                image = np.arange(6.0).reshape(2, 3) + i
                rec.add(
                    {
                        "image": image,
                        "pair": (np.full(1, i, np.float32), "x" * (i % 3)),
                        "weights": image,
                    }
                )
                rec.add(note=NOTES[i // 100 % 3])
                rec.log(epoch=i // 100)
            rec.step()
        rec.reset("acc")


@pytest.fixture(scope="module", params=["few", "many"])
def closed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A closed recording, with few chunks, or with so many that their index has pages."""
    path = tmp_path_factory.mktemp("closed") / "run.h5"
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "many":
            patch.setattr(output, "ROWS", 2)
        record(path)
    return path


def datasets(group: Group) -> Iterator[str]:
    """The paths of a file's datasets."""
    for name in group:
        if hasattr(group[name], "keys"):
            yield from (f"{name}/{inner}" for inner in datasets(group[name]))
        else:
            yield name


def test_a_reader_without_hdf5_reads_every_byte(closed: Path) -> None:
    with opened(closed) as plain, h5py.File(closed) as known:
        names = list(datasets(known))
        assert sorted(datasets(plain)) == sorted(names)
        assert len(names) > 20
        for name in names:
            ours, theirs = known[name][()], np.asarray(plain[name][()])
            assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape), name
            assert theirs.tobytes() == ours.tobytes(), name
        assert {name: plain.attrs[name] for name in plain.attrs} == dict(known.attrs)


def test_its_numbers_texts_arrays_and_marks_are_those_that_were_recorded(closed: Path) -> None:
    with opened(closed) as file:
        assert file.attrs["state"] == b"closed"
        loss = file["series/train/loss"]
        assert loss["value"][:].tolist() == [1 / (i + 1) for i in range(STEPS)]
        assert loss["step"][:].tolist() == list(range(STEPS))
        assert (np.diff(loss["time"][:]) >= 0).all()
        note = file["series/note/value"]
        parts = np.split(note["data"][:], np.cumsum(note["shape"][:, 0])[:-1])
        assert [bytes(part).decode() for part in parts] == NOTES * 7
        image = file["series/image/value"]
        assert image["shape"][:].tolist() == [[2, 3]] * 21
        assert image["data"][:].tolist() == [i + j for i in range(0, STEPS, 100) for j in range(6)]
        marks = file["marks"][:]
        assert marks["x"][marks["code"] == -1].tolist() == list(range(21))
        assert marks["code"][-1] == -2
        assert json.loads(file["config"][:].tobytes()) == {"lr": 0.1}


def test_a_table_of_many_keys_is_read(closed: Path) -> None:
    with opened(closed) as file:
        assert (file.attrs["version"], file.attrs["tables"]) == (2, 1)
        table = file["tables/0"]
        keys = json.loads(table["keys"][:].tobytes())
        assert sorted(keys) == sorted(KEYS)
        assert "net.0" not in file["series"]
        value, steps = table["value"][:], list(range(0, STEPS, 10))
        assert value.shape == (len(KEYS), len(steps))
        for key, row in zip(keys, value, strict=True):
            assert row.tolist() == [KEYS.index(key) + 1 / (i + 3) for i in steps], key
        assert table["step"][:].tolist() == steps
        assert (np.diff(table["time"][:]) >= 0).all()


def test_the_documents_python_runs(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(closed.parent)
    text = (ROOT / "docs" / "other_readers.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own document
    assert names["texts"] == NOTES * 7
    with Recording(closed) as run:
        assert all(map(np.array_equal, names["images"], run["image"].value))
        assert names["logs"].tolist() == run.marks.x[run.marks.is_log].tolist()
        assert names["config"] == run.config
        for key in KEYS:
            value, step = names["found"][key]
            assert (value == run[key].value).all()
            assert (step == run[key].step).all()


@pytest.mark.skipif(shutil.which("octave-cli") is None, reason="needs Octave")
def test_the_documents_octave_runs(closed: Path) -> None:
    text = (ROOT / "docs" / "other_readers.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```octave\n(.*?)```", text, re.DOTALL)
    code += "bytes = cellfun(@double, texts, 'UniformOutput', false);\n"
    code += "disp(jsonencode(struct('loss', loss.value, 'step', loss.step, 'config', config, ...\n"
    code += "    'first', first(:, 2), 'keys', {keys}, 'value', value(:, 3), 'texts', {bytes})))\n"
    done = subprocess.run(
        ["octave-cli", "--norc", "--eval", code],
        cwd=closed.parent,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    found = json.loads(done.stdout)
    assert [bytes(text).decode() for text in found["texts"]] == NOTES * 7
    assert found["config"] == {"lr": 0.1}
    with Recording(closed) as run:
        assert found["loss"] == pytest.approx(run["train/loss"].value.tolist(), rel=1e-14)
        assert found["step"] == run["train/loss"].step.tolist()
        assert found["first"] == run["image"].value[0][1].tolist()
        assert found["value"] == pytest.approx(run[found["keys"][2]].value.tolist(), rel=1e-14)
