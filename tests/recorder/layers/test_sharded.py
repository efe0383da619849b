"""Parameters in shards (fully_shard): one rank that watches alone starts no collective."""

import json
import subprocess
import sys
from typing import Any

import pytest

from flexrec.recorder.layers.statistics import SOURCES, STATISTICS
from support import sharded_work

SECONDS = 120  # after which ranks that wait for each other are ended


@pytest.fixture(scope="module", params=[0, 1], ids=["rank 0", "rank 1"])
def rank(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What each rank found, where rank 0 watched alone, and where rank 1 did."""
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
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(len(ranks))]


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
