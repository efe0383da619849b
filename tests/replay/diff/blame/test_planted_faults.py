"""Faults planted in training are named by step, stage and layer: by the trace of two runs."""

from pathlib import Path

import pytest
import torch

import flexrec
from support.planted_faults import FAULTS, Fault, train

BY_NAME = {fault.name: fault for fault in FAULTS}
MODELS = ("mlp", "cnn", "gpt", "lstm", "gan", "ranks", "attention")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each model without a fault."""
    folder = tmp_path_factory.mktemp("whole")
    return {model: train(folder / f"{model}.h5", model) for model in MODELS}


def test_there_are_enough() -> None:
    assert len(BY_NAME) == len(FAULTS) >= 63


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named(fault: Fault, whole: dict[str, Path], tmp_path: Path) -> None:
    bent = train(tmp_path / "bent.h5", fault.model, fault)
    for a, b in ((whole[fault.model], bent), (bent, whole[fault.model])):
        first = flexrec.diff(a, b).first
        assert first is not None
        assert (first.step, first.stage) == (fault.at, fault.stage), first.cause
        assert first.layer in fault.layers, first


@pytest.mark.parametrize("model", MODELS)
def test_equal_runs_do_not_differ(model: str, whole: dict[str, Path], tmp_path: Path) -> None:
    """benchmarks/false_alarms.py has the long form: 50 pairs."""
    found = flexrec.diff(whole[model], train(tmp_path / "again.h5", model))
    assert found.equal, found
    assert not flexrec.diff(whole[model], train(tmp_path / "other.h5", model, seed=1)).equal


@pytest.mark.parametrize(
    "name",
    ["bn_eps", "dropout_p", "edited", "grad_scale", "lr", "momentum_lost", "functional", "clip"],
)
def test_of_steps_that_were_not_traced_no_layer_is_blamed(name: str, tmp_path: Path) -> None:
    """Attributes and settings that are still other ones are named; else it says between."""
    fault = BY_NAME[name]
    whole = train(tmp_path / "a.h5", fault.model, every=2)
    found = flexrec.diff(whole, train(tmp_path / "b.h5", fault.model, fault, every=2))
    first = found.first
    assert first is not None
    assert first.layer in (*fault.layers, None) or first.one_of, first
    if first.step == 4 and first.stage != "metric":
        assert first.previous_step == 2
        assert "between step 2 (equal) and 4" in str(found)


def test_what_it_prints(whole: dict[str, Path], tmp_path: Path) -> None:
    found = flexrec.diff(whole["gpt"], train(tmp_path / "b.h5", "gpt", BY_NAME["ln_eps"]))
    lines = str(found).splitlines()
    assert lines[0] == "gpt.h5 and b.h5 differ"
    assert lines[3:4] == ["first     step 3, forward, blocks.1.n2 (LayerNorm): eps 1e-05 -> 2e-05"]


def test_state_that_only_one_run_has_is_told(whole: dict[str, Path], tmp_path: Path) -> None:
    lost = train(tmp_path / "b.h5", "attention", BY_NAME["state_lost"])
    for a, b, which in ((whole["attention"], lost, "second"), (lost, whole["attention"], "first")):
        first = flexrec.diff(a, b).first
        assert first is not None
        assert f"state is not there in the {which} run" in first.cause


def test_a_random_state_that_differed_before_does_not_accuse(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    other = train(tmp_path / "b.h5", "lstm", BY_NAME["drawn_long_before"])
    first = flexrec.diff(whole["lstm"], other).first
    assert first is not None
    assert first.one_of == ("emb", "the random state")
    assert "since step 0" in first.cause


def test_a_named_model_is_told(whole: dict[str, Path], tmp_path: Path) -> None:
    first = flexrec.diff(whole["gan"], train(tmp_path / "b.h5", "gan", BY_NAME["no_detach"])).first
    assert first is not None
    assert first.model == "G"


def test_the_environment_does_not_accuse(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    found = flexrec.diff(whole["mlp"], train(tmp_path / "b.h5", "mlp"))
    assert found.equal


def test_layers_that_were_renamed(whole: dict[str, Path], tmp_path: Path) -> None:
    found = flexrec.diff(whole["gan"], whole["gan"], rename={"D*": "critic*"})
    assert not found.equal
    assert "critic.0/weights/mean" in found.keys.only_a


def test_tolerances_leave_the_trace_out(whole: dict[str, Path], tmp_path: Path) -> None:
    bent = train(tmp_path / "b.h5", "mlp", BY_NAME["functional"])
    assert not flexrec.diff(whole["mlp"], bent).equal
    assert flexrec.diff(whole["mlp"], bent, rtol=0.1, atol=0.1).equal
