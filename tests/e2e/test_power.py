"""A loss of power at any time: what was promised is there. Thousands of states: `make soak`."""

import os
from pathlib import Path
from typing import Any

import pytest

from support.power import CREATE, RENAME, SYNC, SYNC_FOLDER, WRITE, Log, Op, make_state
from support.power_work import WORKLOADS
from support.trials import trials


@pytest.fixture(scope="module")
def bad_states() -> list[dict[str, Any]]:
    """What is wrong with some states of every workload, at both sizes of sectors."""
    return trials("power_trials.py", "--states", "60", "--seed", "14")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_was_promised_survives_a_loss_of_power(
    bad_states: list[dict[str, Any]], workload: str
) -> None:
    bad = [state for state in bad_states if state["workload"] == workload]
    assert not bad, bad


# ---------------------------------------------------------------------- the rig itself

NEW, OLD = b"new" * 2000, b"old" * 2000
MADE = [
    Op(CREATE, 0, names=("run",)),
    Op(WRITE, 0, 0, OLD),
    Op(SYNC, 0),
    Op(SYNC_FOLDER),
    Op(CREATE, 4, names=(".new",)),
    Op(WRITE, 4, 0, NEW),
]
IN_PLACE = Op(RENAME, names=(".new", "run"))


def left(ops: list[Op], folder: Path) -> set[bytes]:
    """What 200 states hold at the path, of losses after the last call."""
    found = set()
    for seed in range(200):
        into = folder / str(seed)
        into.mkdir()
        point, _ = make_state(Log(ops), into, seed, 512)
        if point == len(ops):
            found.add((into / "run").read_bytes())
    assert found
    return found


def test_a_rename_of_what_was_not_synced_is_found(tmp_path: Path) -> None:
    found = left([*MADE, IN_PLACE, Op(SYNC_FOLDER)], tmp_path)
    assert b"" in found, "all of it is lost"
    assert any(data not in (b"", NEW) for data in found), "a part is lost"
    assert OLD not in found, "the folder was synced"


def test_a_rename_of_what_was_synced_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    assert left([*MADE, Op(SYNC, 4), IN_PLACE], tmp_path) == {OLD, NEW}
    again = tmp_path / "again"
    again.mkdir()
    assert left([*MADE, Op(SYNC, 4), IN_PLACE, Op(SYNC_FOLDER)], again) == {NEW}


def test_a_sector_that_is_not_written_keeps_its_bytes(tmp_path: Path) -> None:
    ops = [*MADE[:4], Op(WRITE, 0, 700, b"x" * 900)]
    for data in left(ops, tmp_path):
        assert len(data) == len(OLD)
        assert data[:700] == OLD[:700], "nor does a write reach out of its place"
        assert data[1600:] == OLD[1600:]
        for first, last in ((700, 1024), (1024, 1536), (1536, 1600)):
            assert data[first:last] in (OLD[first:last], b"x" * (last - first)), "sectors are whole"


def test_the_states_of_a_seed_are_the_same(tmp_path: Path) -> None:
    log = Log([*MADE, IN_PLACE])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for seed in range(20):
            (tmp_path / folder / str(seed)).mkdir()
            make_state(log, tmp_path / folder / str(seed), seed, 4096)
    for seed in range(20):
        a, b = (tmp_path / folder / str(seed) for folder in ("a", "b"))
        assert sorted(os.listdir(a)) == sorted(os.listdir(b))
        for name in os.listdir(a):
            assert (a / name).read_bytes() == (b / name).read_bytes()
