"""Parameters in shards (fully_shard): one rank that watches alone starts no collective."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, merge_recordings
from flexrec.recorder.layers.measuring.statistics import SOURCES, STATISTICS
from flexrec.recorder.layers.table import model_table
from flexrec.recorder.maintenance.shards import Rows, sharded_keys
from support import sharded_work
from support.block_cases import blocks_of

SECONDS = 120  # after which ranks that wait for each other are ended


@pytest.fixture(scope="module", params=[0, 1], ids=["rank 0", "rank 1"])
def rank(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks have written what they found."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "error::RuntimeWarning", sharded_work.__file__]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder)]) for rank in range(sharded_work.RANKS)
    ]
    try:
        assert [rank.wait(SECONDS) for rank in ranks] == [0] * len(ranks)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[list[dict[str, Any]]]:
    """What each rank found, where rank 0 watched alone, and where rank 1 did."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(sharded_work.RANKS)]


def test_a_rank_may_watch_alone_and_trains_as_without(found: Any, rank: int) -> None:
    assert found[rank][1 - rank]["values"] == {}
    assert found[rank][rank]["losses"] == found[rank][1 - rank]["losses"]


def test_every_statistic_is_of_the_ranks_own_part(found: Any, rank: int) -> None:
    mine = found[rank][rank]
    values = mine["values"]
    sources = ("weights", "grad_weights", "updates")
    for source, norm, spread in zip(sources, mine["norms"], mine["spreads"], strict=True):
        assert values[f"0/{source}/norm"] == pytest.approx(norm, rel=1e-4)
        assert values[f"0/{source}/spread"] == pytest.approx(spread, rel=1e-6)
        for name in ("var", "median", "histogram", "log_histogram", "nan_count", "abs_mean"):
            assert f"0/{source}/{name}" in values
        assert sum(values[f"0/{source}/log_histogram"]) == mine["size"]
    weights, updates = mine["norms"][0], mine["norms"][2]
    assert values["0/updates/update_ratio"] == pytest.approx(updates / weights, rel=1e-4)
    for name in ("signal", "noise", "snr"):
        assert values[f"0/grad_weights/{name}"] > 0
    assert {name for key in values for name in [key.rsplit("/", 1)[1]]} >= STATISTICS.keys()
    assert {key.split("/")[-2] for key in values} == set(SOURCES)


def test_a_part_that_is_empty_has_no_statistics(found: Any, rank: int) -> None:
    """The last layer has one row, which is on rank 0."""
    assert ("2/weights/mean" in found[rank][rank]["values"]) == (rank == 0)


# ---------------------------------------------------------------- put together by merge

COMBINED = (
    *("mean", "std", "min", "max", "norm", "rms", "abs_mean", "zero_fraction"),
    *("nan_count", "inf_count", "nonfinite"),
)


@pytest.mark.parametrize("block", [None, 3], ids=["at once", "in small blocks"])
def test_merging_gives_what_one_process_would_have_measured(
    folder: Path, tmp_path: Path, block: int | None
) -> None:
    sharded_work.recorded(tmp_path / "alone.h5", shards=False)
    with blocks_of(block or 1 << 17):
        merge_recordings([folder / f"run-{i}.h5" for i in range(2)], tmp_path / "merged.h5")
    with Recording(tmp_path / "alone.h5") as alone, Recording(tmp_path / "merged.h5") as merged:
        for layer, of_ranks in (("0", [0, 1]), ("2", [0])):
            for source in ("weights", "grad_weights", "updates"):
                for stat in COMBINED:
                    key = f"{layer}/{source}/{stat}"
                    expected = [value for value in alone[key].value for _ in of_ranks]
                    assert merged[key].value.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_the_description_says_what_a_process_holds(folder: Path) -> None:
    with Recording(folder / "run-1.h5") as run:
        (layers,) = run.models.values()
    assert layers["0"]["parameters"] == 36
    assert layers["0"]["shard"] == {"at": [1], "of": [2], "weights": 15, "trainable": True}
    assert layers["2"]["shard"]["weights"] == 0
    assert "shard" not in layers["1"]


def test_other_statistics_and_other_processes_parts_stay_as_they_are(
    folder: Path, tmp_path: Path
) -> None:
    paths = [folder / "run-0.h5", folder / "run-1.h5"]
    merge_recordings(paths, tmp_path / "both.h5")
    merge_recordings(paths[:1], tmp_path / "one.h5")
    with Recording(paths[0]) as first, Recording(paths[1]) as second:
        with Recording(tmp_path / "both.h5") as both:
            for key in ("0/weights/median", "0/updates/update_ratio", "loss"):
                expected = np.stack([first[key].value, second[key].value], axis=1).ravel()
                assert both[key].value.tolist() == expected.tolist()
        with Recording(tmp_path / "one.h5") as one:
            assert one["0/weights/norm"].value.tolist() == first["0/weights/norm"].value.tolist()


def test_a_step_that_lacks_a_part_has_no_value(folder: Path) -> None:
    with Recording(folder / "run-0.h5") as first, Recording(folder / "run-1.h5") as second:
        sharded = sharded_keys([first, second])["0/weights/norm"]
    rows = Rows(np.array([3.0, 4.0, 5.0]), np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert np.array_equal(sharded.combined(rows), [5.0, 5.0, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    "shards",
    [
        [([0], [2], 3), ([0], [2], 3)],  # one place twice
        [([7], [2], 3), ([9], [2], 3)],
        [([0], [2], 3), ([1], [3], 3)],
        [([0], [2], 10**400), ([1], [2], 3)],
        [([0, 0], [2], 3), ([1], [2], 3)],
        [(5, None, "a"), ([1], [2], 3)],
    ],
)
def test_descriptions_that_cannot_be_combine_nothing(shards: list[Any], tmp_path: Path) -> None:
    runs = []
    for number, (at, of, weights) in enumerate(shards):
        layer = {"shard": {"at": at, "of": of, "weights": weights, "trainable": True}}
        with Recorder(tmp_path / f"{number}.h5") as rec:
            rec.add({"0/weights/norm": 1.0})
            rec._queue.change("facts", json.dumps({"models": {"a": {"0": layer}}}))
        runs.append(Recording(tmp_path / f"{number}.h5"))
    assert sharded_keys(runs) == {}
    for run in runs:
        run.close()


def test_the_table_of_layers_says_what_is_held_here() -> None:
    layer = {"class": "Linear", "parameters": 30, "shard": {"at": [1], "of": [2], "weights": 15}}
    table = model_table({"M": {"0": layer, "1": {"class": "ReLU"}}}).splitlines()
    assert table[0].endswith("weights held here")
    assert table[2].split()[-1] == "15"
    assert table[3].split()[-1] == "-"
    assert "held" not in model_table({"M": {"1": {"class": "ReLU"}}})
