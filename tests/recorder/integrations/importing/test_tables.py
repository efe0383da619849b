"""CSV and JSON lines become recordings."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import ExistsError, OutputError, Recording, RecordingError
from flexrec.recorder.integrations.importing.importer import Imported, find_sources, import_runs


def imported(path: Path, out: Path, *, overwrite: bool = False) -> list[Imported]:
    return list(import_runs(path, out, overwrite=overwrite))


def values(path: Path) -> dict[str, list[tuple[int, float, Any]]]:
    """The (step, time, value) of each key."""
    with Recording(path) as run:
        return {
            key: list(zip(s.step.tolist(), s.time.tolist(), list(s.value), strict=True))
            for key, s in run.series(run).items()
        }


def test_columns_are_keys_and_empty_cells_nothing(tmp_path: Path) -> None:
    """As Lightning's CSVLogger writes."""
    (tmp_path / "version_0").mkdir()
    path = tmp_path / "version_0" / "metrics.csv"
    path.write_text("epoch,step,train_loss,val_loss\n0,9,0.5,\n0,9,,nan\n1,19,1e-3,0.25\n")
    (found,) = imported(tmp_path, tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "version_0" / "metrics.h5"
    assert (found.values, found.keys) == (7, 3)
    when = path.stat().st_mtime
    read = values(found.path)
    assert read["train_loss"] == [(9, when, 0.5), (19, when, 1e-3)]
    assert [step for step, _, _ in read["val_loss"]] == [9, 19]
    assert np.isnan(read["val_loss"][0][2])
    assert read["epoch"] == [(9, when, 0.0), (9, when, 0.0), (19, when, 1.0)]


def test_what_a_killed_import_left_goes_with_the_next(tmp_path: Path) -> None:
    path, out = tmp_path / "log.csv", tmp_path / "runs"
    path.write_text("step,loss\n1,0.5\n")
    killed = (
        "import os, signal, sys; from pathlib import Path\n"
        "from flexrec.recorder.integrations.importing.importer import import_runs\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "list(import_runs(Path(sys.argv[1]), Path(sys.argv[2])))\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, path, out], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {name.rpartition(".")[2] for name in os.listdir(out)} == {"partial", "making", "lock"}
    (found,) = imported(path, out)
    assert list(out.iterdir()) == [found.path]


def test_a_last_line_without_an_end_is_said(tmp_path: Path) -> None:
    """Half a number is a number."""
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n0,0.5\n1,2.7")
    (found,) = imported(path, tmp_path / "runs.h5")
    assert found.values == 2
    assert found.damage == [f"{path}: line 3 has no end: it may be cut off"]


@pytest.mark.parametrize(
    ("cell", "is_cut"),
    [
        ('"a\nb', True),
        ('"a\nb"', True),
        ('"a\n', True),
        ('"a""\n', True),
        ('"a\r\n', True),
        ('"a\n\n', True),
        ('"a"\r\n', False),
        ('"a\n"\n', False),
        ('"a\n""b""\n"\r\n', False),
        ('5"\n', False),
    ],
)
def test_quotes_without_an_end_are_said(tmp_path: Path, cell: str, is_cut: bool) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f'step,text\n0,"x\n"\n1,{cell}'.encode())
    (found,) = imported(path, tmp_path / "runs.h5")
    assert len(found.damage) == is_cut
    assert all(line.endswith("has no end: it may be cut off") for line in found.damage)


def test_what_keras_has_no_value_for_is_no_text(tmp_path: Path) -> None:
    """As its CSVLogger writes an epoch without a validation, with `validation_freq=2`."""
    (tmp_path / "log.csv").write_text("epoch,loss,val_loss\n0,0.5,NA\n1,0.25,0.75\n")
    (found,) = imported(tmp_path, tmp_path / "runs")
    assert found.values == 3
    assert [(step, value) for step, _, value in values(found.path)["val_loss"]] == [(1, 0.75)]


@pytest.mark.parametrize(
    ("header", "step", "time"),
    [
        ("epoch,loss", 7, None),
        ("loss,Global_Step,timestamp", 7, 1e9),
        ("_step,loss,_timestamp", 7, 1e9),
        ("iter,loss,wall_time", 7, 1e9),
    ],
)
def test_the_step_and_the_time_go_by_several_names(
    tmp_path: Path, header: str, step: int, time: float | None
) -> None:
    cells = {"loss": "0.5", "timestamp": "1e9", "_timestamp": "1000000000.0", "wall_time": "1e9"}
    row = ",".join(cells.get(name, "7") for name in header.split(","))
    path = tmp_path / "log.csv"
    path.write_text(f"{header}\n{row}\n")
    (found,) = imported(path, tmp_path / "out.h5")
    when = path.stat().st_mtime if time is None else time
    assert values(found.path) == {"loss": [(step, when, 0.5)]}


def test_lines_are_objects(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "train": {"loss": 0.5, "top": [1, 2]}, "note": "hi", "ok": True, "none": None},
        {"step": 5, "train": {"loss": 2}, "time": "2026-01-02T03:04:05+00:00", "odd": [{"a": 1}]},
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (found,) = imported(path, tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "log.h5"
    read = values(found.path)
    assert [(step, value) for step, _, value in read["train/loss"]] == [(0, 0.5), (5, 2.0)]
    assert read["train/loss"][1][1] == 1767323045.0
    assert read["note"][0][2] == "hi"
    assert read["ok"][0][2] == 1.0
    assert read["odd"][0][2] == '[{"a": 1}]'
    np.testing.assert_array_equal(read["train/top"][0][2], [1.0, 2.0])
    assert "none" not in read


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "step,loss,acc\n0,0.5,1\n1,0.25", "line 3 is not whole"),
        ("a.csv", "step,loss,acc\n0,0.5,1\n1,0.25,1,9\n", "line 3 is not whole"),
        ("a.jsonl", '{"step": 0, "loss": 0.5, "acc": 1}\n{"step": 1, "lo', "line 2 is not a JSON"),
        ("a.jsonl", '{"step": 0, "loss": 0.5, "acc": 1}\n[1]\n', "line 2 is not a JSON"),
        ("a.jsonl", '{"step": 0, "loss": 0.5, "acc": 1}\n' + "[" * 100_000, "line 2 is not a JSON"),
    ],
)
def test_a_torn_line_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    (found,) = imported(tmp_path / name, tmp_path / "runs")
    assert [(key, read[0][2]) for key, read in values(found.path).items()] == [
        ("loss", 0.5),
        ("acc", 1.0),
    ]
    assert said in found.damage[0]


def test_what_cannot_be_recorded_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1, "\\ud800": 2}\n{"a": 3, "\\ud800": 4}\n')
    (found,) = imported(path, tmp_path / "runs")
    assert [value for _, _, value in values(found.path)["a"]] == [1.0, 3.0]
    assert [(why[-22:], count) for why, count in found.left_out.items()] == [
        ("not valid Unicode text", 2)
    ]


def test_other_files_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("height,weight\n1,2\n")
    (tmp_path / "notes.txt").write_text("hi")
    with pytest.raises(RecordingError, match="nothing to import; accepted are"):
        imported(tmp_path, tmp_path / "runs")
    with pytest.raises(RecordingError, match="no column is called"):
        imported(tmp_path / "data.csv", tmp_path / "runs")
    with pytest.raises(RecordingError, match=r"notes.txt cannot be imported; accepted"):
        imported(tmp_path / "notes.txt", tmp_path / "runs")
    with pytest.raises(RecordingError, match="does not exist"):
        imported(tmp_path / "none", tmp_path / "runs")


def test_files_of_one_name_are_several_recordings(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n0,1\n")
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": 2}\n')
    found = imported(tmp_path, tmp_path / "runs")
    assert [each.path.name for each in found] == ["log.h5", "log_2.h5"]


def test_a_numbered_name_is_no_other_runs(tmp_path: Path) -> None:
    for value, name in enumerate(("a.csv", "a.jsonl", "a_2.csv")):
        row = f'{{"step": 0, "loss": {value}}}' if "json" in name else f"step,loss\n0,{value}"
        (tmp_path / name).write_text(row + "\n")
    for _ in range(2):
        found = imported(tmp_path, tmp_path / "runs", overwrite=True)
        assert [each.path.name for each in found] == ["a.h5", "a_3.h5", "a_2.h5"]
        assert [values(each.path)["loss"][0][2] for each in found] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "e.tfevents.1", "x.wandb"])
def test_pipes_are_not_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert find_sources(tmp_path) == []
    with pytest.raises(RecordingError, match="is not a regular file; accepted"):
        find_sources(tmp_path / name)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path, out = tmp_path / "log.csv", tmp_path / "runs"
    path.write_text("step,loss\n0,1\n")
    imported(path, out)
    with pytest.raises(ExistsError, match="exists already"):
        imported(path, out)
    path.write_text("step,loss\n0,2\n")
    (found,) = imported(path, out, overwrite=True)
    assert values(found.path)["loss"][0][2] == 2.0
    (out / "log.h5").write_text("something else")
    with pytest.raises(OutputError, match="is not"):
        imported(path, out, overwrite=True)
    assert [each.name for each in out.iterdir()] == ["log.h5"]


def read(tmp_path: Path, name: str, text: str) -> tuple[dict[str, list[Any]], Imported]:
    """The values of each key of a file."""
    (tmp_path / name).write_text(text)
    (found,) = imported(tmp_path / name, tmp_path / "out.h5", overwrite=True)
    return {key: [value for _, _, value in read] for key, read in values(found.path).items()}, found


def test_columns_without_a_name_are_left_out_and_equal_names_numbered(tmp_path: Path) -> None:
    found, told = read(tmp_path, "a.csv", ",step,loss,loss,loss_2\n0,5,1,2,3\n")
    assert found == {"loss": [1.0], "loss_3": [2.0], "loss_2": [3.0]}
    assert [line.rsplit(": ")[-1] for line in told.damage] == [
        "several columns are called loss; one is now loss_3"
    ]


@pytest.mark.parametrize(
    ("step", "at", "said"),
    [
        ("", 0, "step that is no number; the row's number is taken"),
        ("nan", 0, "step that is no number; the row's number is taken"),
        ("1e400", 0, "step that is no number; the row's number is taken"),
        ("1_0", 0, "step that is no number; the row's number is taken"),
        ("1.7", 1, "fraction of a step, which is rounded down"),
        ("2.0", 2, None),
        ("9007199254740993", 9007199254740993, None),
    ],
)
def test_a_step_that_is_not_whole_is_named(
    tmp_path: Path, step: str, at: int, said: str | None
) -> None:
    (tmp_path / "a.csv").write_text(f"step,loss\n{step},1\n")
    (found,) = imported(tmp_path / "a.csv", tmp_path / "out.h5")
    assert [each for each, _, _ in values(found.path)["loss"]] == [at]
    assert found.left_out == ({said: 1} if said else {})


def test_a_row_without_the_step_that_others_have_is_named(tmp_path: Path) -> None:
    _, told = read(tmp_path, "a.jsonl", '{"step": 5, "loss": 1}\n{"loss": 2}\n{"loss": 3}\n')
    assert told.left_out == {"step that is no number; the row's number is taken": 2}


def test_a_column_may_have_a_long_name(tmp_path: Path) -> None:
    csv.field_size_limit(131_072)  # Python's default
    found, _ = read(tmp_path, "a.csv", f"step,{'x' * 200_000},loss\n0,1,2\n")
    assert found["loss"] == [2.0]


def test_texts_stay_texts(tmp_path: Path) -> None:
    texts = ["1_000", "\u0661\u0662", "1234e567", "0x10", "1,5"]
    rows = "".join(f'{step},"{text}"\n' for step, text in enumerate(texts))
    assert read(tmp_path, "a.csv", f"step,a\n{rows}")[0] == {"a": texts}
    numbers = "".join(f"0,{text}\n" for text in ("-1.5e3", ".5", "5.", "-inf", "+Infinity", " 1 "))
    assert read(tmp_path, "a.csv", f"step,a\n{numbers}")[0] == {
        "a": [-1500.0, 0.5, 5.0, -np.inf, np.inf, 1.0]
    }
    row = json.dumps({"step": 0, "a": "1.5", "b": "nan", "c": ["1", "2"], "d": [1, "2"]})
    assert read(tmp_path, "a.jsonl", row)[0] == {
        "a": ["1.5"],
        "b": ["nan"],
        "c": ['["1", "2"]'],
        "d": ['[1, "2"]'],
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a/b": 1, "a": {"b": 2}}', {"a/b": [2.0]}),
        ('{"a": {"b": {"c": 1}, "b/c": 2}}', {"a/b/c": [2.0]}),
        ('{"loss": 1, "loss": 2}', {"loss": [2.0]}),
    ],
)
def test_a_name_that_comes_twice_is_named(
    tmp_path: Path, line: str, expected: dict[str, list[float]]
) -> None:
    found, told = read(tmp_path, "a.jsonl", line)
    assert found == expected
    assert "line 1 has " in told.damage[0]
    assert told.damage[0].endswith("more than once; the last is imported")


def test_the_step_is_that_in_small_letters(tmp_path: Path) -> None:
    for row in ({"step": 1, "Step": 2, "STEP": 3}, {"STEP": 3, "Step": 2, "step": 1}):
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        (found,) = imported(tmp_path / "a.jsonl", tmp_path / "out.h5", overwrite=True)
        assert {key: each[0][::2] for key, each in values(found.path).items()} == {
            "Step": (1, 2.0),
            "STEP": (1, 3.0),
        }


@pytest.mark.parametrize("digits", [401, 5000])
@pytest.mark.parametrize(
    "line",
    [
        '{"step": 0, "loss": %s, "acc": 1}',
        '{"step": 0, "time": %s, "acc": 1}',
        '{"step": %s, "acc": 1}',
        '{"step": 0, "loss": [1, %s], "acc": 1}',
        '{"key": ["x"], "step": 0, "time": 0, "value": 1}',
        '{"key": "x", "step": 0, "time": 0, "value": %s}',
        '{"step": {"a": 1}, "time": [1], "loss": null}',
    ],
)
def test_a_line_that_makes_no_sense_is_passed(tmp_path: Path, line: str, digits: int) -> None:
    line = line.replace("%s", "9" * digits)
    found, told = read(tmp_path, "a.jsonl", f'{line}\n{{"step": 7, "acc": 2}}\n')
    assert found["acc"][-1] == 2.0
    assert told.damage or told.left_out


@pytest.mark.parametrize("number", ["1e999", "-1e999", "[0.5, 1e999]"])
def test_a_float_that_is_too_large_is_not_infinity(tmp_path: Path, number: str) -> None:
    lines = f'{{"step": 1, "loss": {number}, "acc": 1}}\n{{"step": 2, "loss": Infinity}}\n'
    found, told = read(tmp_path, "a.jsonl", lines)
    assert found == {"acc": [1.0], "loss": [float("inf")]}
    assert told.damage == [f"{tmp_path}/a.jsonl: line 1: too large a number, and left out: 'loss'"]


def test_an_empty_text_of_a_row_that_is_one_value_is_a_value(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for text, expected in (
        ("key,step,time,value,text\na,1,5,,\na,2,6,0.5,\n", [(1, 5.0, ""), (2, 6.0, 0.5)]),
        ("key,step,time,value\na,1,5,\na,2,6,0.5\n", [(2, 6.0, 0.5)]),
    ):
        path.write_text(text)
        (found,) = imported(path, tmp_path / "run.h5", overwrite=True)
        assert values(found.path)["a"] == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("log.csv", b"step,note\n1,caf\xe9\n2,caf\xc3\xa9\n"),
        ("log.jsonl", b'{"step": 1, "note": "caf\xe9"}\n{"step": 2, "note": "caf\xc3\xa9"}\n'),
    ],
)
def test_what_is_not_utf8_is_replaced_and_said(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    (found,) = imported(tmp_path / name, tmp_path / "out")
    assert [value for _, _, value in values(found.path)["note"]] == ["caf\ufffd", "café"]
    ((said, count),) = found.left_out.items()
    assert "not UTF-8" in said
    assert count == 1


def test_the_lines_that_a_quote_without_an_end_takes_are_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('step,note,loss\n1,a,2\n2,"b,3\n3,c,4\n')
    (found,) = imported(tmp_path / "log.csv", tmp_path / "out")
    assert found.damage == [f"{tmp_path}/log.csv: lines 3 to 4 are not whole, and left out"]
