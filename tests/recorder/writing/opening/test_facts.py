"""The facts of a run: which rank this process has."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.writing.opening import facts
from flexrec.recorder.writing.opening.facts import rank

LAUNCHERS = [
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "FLUX_TASK_RANK",
    "SLURM_PROCID",
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_each_launcher_tells_the_rank(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank() is None
    monkeypatch.setenv(name, "5")
    assert rank() == 5


def test_a_launcher_inside_a_job_counts_for_more_than_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "6")
    assert rank() == 6


@pytest.mark.parametrize(("begun", "expected"), [(True, 2), (False, 4)])
def test_torch_distributed_is_asked_where_it_is_initialised(
    begun: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "4")
    there = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: begun, get_rank=lambda: 2
    )
    monkeypatch.setitem(sys.modules, "torch.distributed", there)
    assert rank() == expected


def test_the_process_group_of_a_spawned_process_tells_the_rank(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    distributed = torch.distributed
    store = distributed.HashStore()
    importlib.import_module("torch.testing._internal.distributed.fake_pg")
    distributed.init_process_group("fake", store=store, rank=1, world_size=2)
    try:
        with Recorder(tmp_path / "run-{rank}.h5", facts=False) as rec:
            assert rec.path.name == "run-1.h5"
    finally:
        distributed.destroy_process_group()


def test_torch_is_not_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    facts.rank()
    assert "torch.distributed" not in sys.modules


@pytest.mark.parametrize("facts", [True, False])
def test_what_numbers_depend_on_is_recorded_with_a_watched_model(
    facts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.setenv("A_TOKEN", "secret")
    with Recorder(tmp_path / "run.h5", facts=facts) as rec:
        model = torch.nn.Linear(2, 1)
        rec.watch(model)
        model(torch.ones(3, 2)).sum().backward()
        rec.step()
    with Recording(tmp_path / "run.h5") as run:
        assert run.facts is not None
        numerics = run.facts.get("numerics", {})
        assert ("host" in run.facts) == ("script" in run.facts) == facts
        assert (numerics.get("torch") == torch.__version__) == facts
        assert (numerics.get("MKL_NUM_THREADS") == "3") == facts
        assert "secret" not in str(run.facts)
