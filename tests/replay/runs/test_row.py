"""The row of a run, whatever its file claims."""

import json
import math
import os
from pathlib import Path

import pytest

from flexrec.recorder import Recorder
from flexrec.recorder.hdf5.superblock import Superblock
from flexrec.recorder.storage.summary.head import glance, sealed
from flexrec.replay import Runs
from flexrec.replay.runs.row import as_here, row_of
from flexrec.replay.runs.tags import tag
from support.crashing import crash


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with Recorder(tmp_path / "run.h5", config={"lr": 0.1}) as rec:
        rec.add({"loss": 1.0, **{f"key{i}": 1.0 for i in range(100)}})
    return tmp_path / "run.h5"


def claim(run: Path, summary: object) -> None:
    """Give the file another summary, with a checksum that fits."""
    data = run.read_bytes()
    at, block = data.find(b'{"flexrec_summary"'), Superblock.parse(data)
    body = json.dumps(summary).encode()
    assert block is not None
    forged = sealed(body, block.end)
    run.write_bytes(data[:at] + forged + data[at + len(forged) :])


BAD: list[object] = [
    {"state": ["closed"], "keys": [1, 2]},
    {"state": "closed", "config": 5, "facts": [1], "keys": {"loss": 5}},
    {"state": "closed", "keys": {"loss": [None, {}, [], "x", True, 1e308]}, "left_out": [1]},
    {"state": "closed", "created": "x", "ended": {}, "left_out": {"keys": "x"}},
    {"state": "closed", "created": 1e300, "ended": -1e300, "events": 10**60},
    {"state": "closed", "created": 10**400, "ended": 10**400, "keys": {"loss": [-(2**1100)]}},
    {"state": "closed", "config": {"a": {"b": [10**400]}}, "facts": {"argv": 5}},
    {"state": "closed", "statistics": {"a": 1}, "keys": {"loss": [1, 2]}},
    {"state": "closed", "facts": {"state": "lie", "host": "\ud800\0"}, "keys": {"\ud800": [1]}},
    {"keys": {f"k{i}": [1] * 9 for i in range(100)}},
]


@pytest.mark.parametrize("summary", BAD, ids=range(len(BAD)))
def test_whatever_a_summary_claims(run: Path, summary: object) -> None:
    claim(run, summary)
    assert glance(run) is not None
    row = row_of(str(run))
    assert all(isinstance(value, int | float | str | None) for value in row.cells.values())
    runs = Runs(run.parent)
    assert len(runs) == 1
    str(runs.table(runs.columns))
    json.dumps(runs.records(), allow_nan=False)


def test_an_integer_that_no_float_can_hold(tmp_path: Path) -> None:
    config = {"modulus": 2**1100, "low": -(2**1100), "large": 2**70, "most": 2**1000}
    Recorder(tmp_path / "big.h5", config=config).close()
    names = ["state", *(f"config.{name}" for name in config)]
    (row,) = Runs(tmp_path).table(names).rows
    assert row == ("closed", math.inf, -math.inf, 2.0**70, 2.0**1000)


def test_an_error_that_nobody_foresaw_is_of_one_row(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def glance(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("flexrec.replay.runs.row.glance", glance)
    assert row_of(str(run)).cells["state"] == "damaged"


@pytest.mark.parametrize("what", ["its start", "its end"])
def test_a_damaged_file_of_a_killed_run_keeps_its_config(tmp_path: Path, what: str) -> None:
    path = tmp_path / "run.h5"
    rec = Recorder(path, config={"lr": 0.1})
    rec.add(loss=1.0)
    rec.flush()
    crash(rec)
    cells = row_of(str(path)).cells
    whole = {"state": "killed", "config.lr": 0.1, "loss.last": 1.0}
    assert {name: cells[name] for name in whole} == whole
    data = path.read_bytes()
    begin, end = data.find(b'{"flexrec_summary"'), data.find(b'{"lr": 0.1}')  # of the summary
    path.write_bytes(bytes(begin) + data[begin:] if what == "its start" else data[:end])
    row = row_of(str(path))
    assert (row.cells["state"], row.cells["config.lr"]) == ("damaged", 0.1)
    assert row.cells["error"]
    assert row.cells["host"] == cells["host"]
    assert row.cells["started"] == cells["started"]


def test_a_file_fills_no_column_of_the_user_or_of_its_reader(run: Path) -> None:
    facts: dict[str, object] = {"error": "none", "tags": "good", "note": "as it was", "host": "h"}
    facts |= {"tag": {"good": "b"}, "tag.bad": "b", "name": "n", "path": "p"}
    facts |= {"seconds": 5, "config": {"x": 1}}
    claim(run, {"state": "closed", "facts": {**facts, "": {"error": "none"}}})
    names = {"error", "tags", "note", "name", "path", "seconds", "config.x"}
    cells = row_of(str(run)).cells
    assert cells["host"] == "h"
    assert not [name for name in cells if name in names or name.startswith("tag.")]
    claim(run, {"state": "closed", "facts": facts, "left_out": {"config": 1}})
    run.write_bytes(run.read_bytes()[:48] + bytes(48) + run.read_bytes()[96:])
    assert row_of(str(run)).cells["error"] != "none"


@pytest.mark.parametrize("more", [{}, {"large": "x" * 30_000}], ids=["small", "large"])
def test_a_config_has_the_same_cells_before_and_after_the_run_ends(
    tmp_path: Path, more: dict[str, str]
) -> None:
    path, config = tmp_path / "run.h5", {"most": math.inf, "least": -math.inf, "none": math.nan}
    with Recorder(path, config={**config, "list": [math.nan, 1], **more}, facts=False) as rec:
        rec.add(loss=1.0)
        rec.flush()
        before = row_of(str(path))
    after = row_of(str(path))
    assert before.cells["config.most"] == "inf"
    assert before.config == after.config
    names = [name for name in before.cells if name.startswith("config.")]
    assert {name: before.cells[name] for name in names} == {n: after.cells[n] for n in names}


def test_a_run_that_is_closed_while_it_is_looked_at_was_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = Recorder(tmp_path / "run.h5")
    rec.add(loss=1.0)
    rec.flush()

    def seems_held(_: object) -> bool:
        rec.add(loss=2.0)
        rec.close()
        return False

    monkeypatch.setattr("flexrec.replay.runs.row.seems_held", seems_held)
    cells = row_of(str(tmp_path / "run.h5")).cells
    assert (cells["state"], cells["loss.last"]) == ("closed", 2.0)


def test_a_run_that_is_closed_after_another_process_looked_was_not_killed(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add(loss=1.0)
        rec.flush()
        row = row_of(str(tmp_path / "run.h5"))
        assert row.cells["state"] == "recording"
        rec.add(loss=2.0)
    cells = as_here(row, str(tmp_path / "run.h5")).cells
    assert (cells["state"], cells["loss.last"]) == ("closed", 2.0)


def test_a_large_config_leaves_room_for_all_else(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, config={f"layer{i}": i for i in range(16_000)}, facts=False) as rec:
        rec.add(loss=1.0)
    tag(path, "good", "best")
    cells = row_of(str(path)).cells
    assert (cells["loss.last"], cells["tags"], cells["tag.good"]) == (1.0, "good", "best")
    assert cells["config.layer4999"] == 4999


def test_a_summary_of_another_order_and_with_other_statistics(run: Path) -> None:
    claim(run, {"state": "closed", "statistics": ["median", "last"], "keys": {"loss": [1.0, 2.0]}})
    row = row_of(str(run))
    assert row.cells["loss.last"] == 2.0
    assert "loss.median" not in row.cells


def test_a_row_has_a_bound(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexrec.replay.runs.row._CELLS", 50)
    assert len(row_of(str(run)).cells) == 50
    monkeypatch.setattr("flexrec.replay.runs.row._KEYS", 10)
    data = bytearray(run.read_bytes())
    data[data.find(b'{"flexrec_summary"')] ^= 1
    run.write_bytes(data)
    row = row_of(str(run))
    assert row.left_out == 91
    assert row.cells["loss.last"] == 1.0


def test_what_is_not_a_file_to_read(run: Path, tmp_path: Path) -> None:
    assert row_of(str(tmp_path / "none.h5")).cells["state"] == "unreadable"
    os.mkfifo(tmp_path / "pipe.h5")
    assert row_of(str(tmp_path / "pipe.h5")).cells["state"] == "unreadable"  # without waiting
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "gone.h5").symlink_to("nowhere.h5")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "run.h5").write_bytes(run.read_bytes())
    os.symlink(run, tmp_path / "again.h5")
    assert [path.name for path in Runs(tmp_path)] == ["again.h5", "run.h5"]
