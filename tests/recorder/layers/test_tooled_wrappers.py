"""TooledModel and what is made of models: copies, pickles, compiled and parallel ones."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexrec.recorder import DefinitionError, TooledModel
from support.tooled_cases import ALL, Small, is_observed, near, of, step_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ---------------------------------------------------------------- copies and pickles


@pytest.fixture
def hooked() -> Iterator[tuple[nn.Module, TooledModel, Tensor]]:
    """A model in the middle of an armed step, with a hook on a leaf tensor too."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    tooled = TooledModel(model, ALL)
    x = torch.randn(4, 3, requires_grad=True)
    model(x)
    yield model, tooled, x
    tooled.remove()


def through_pickle(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"flexrec" not in buffer.getvalue()
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_a_copy_of_a_hooked_model_records_nothing(
    hooked: tuple[nn.Module, TooledModel, Tensor], duplicate: Callable[[nn.Module], nn.Module]
) -> None:
    model, tooled, x = hooked
    twin = duplicate(model)
    before, x = tooled.stats(), x.detach()
    assert torch.equal(twin(x), model.eval()(x))
    twin(x).sum().backward()
    assert tooled.stats() == before
    assert step_of(twin, x)  # and can be tooled itself


def test_a_leaf_tensor_can_be_saved_during_the_step(
    hooked: tuple[nn.Module, TooledModel, Tensor],
) -> None:
    _, _, x = hooked
    assert x._backward_hooks
    assert torch.equal(pickle.loads(pickle.dumps(x)), x)  # noqa: S301 - our own bytes


@pytest.mark.parametrize("armed", [False, True])
def test_the_model_does_not_keep_its_tooled_model(armed: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    tooled = TooledModel(model, ALL)
    if armed:
        model(torch.randn(4, 3)).sum().backward()
    gone = weakref.ref(tooled)
    del tooled
    gc.collect()
    assert gone() is None
    assert not is_observed()
    model(torch.randn(4, 3)).sum().backward()


def test_weights_that_were_replaced_are_read_afresh() -> None:
    model = nn.Linear(3, 2)
    tooled = TooledModel(model, ["weights"])
    changes: list[Callable[[], object]] = [
        lambda: model.double(),
        lambda: setattr(model.weight, "data", torch.full((2, 3), 7.0, dtype=torch.float64)),
        lambda: model.load_state_dict(
            {name: value + 1 for name, value in model.state_dict().items()}, assign=True
        ),
    ]
    for change in changes:
        change()
        model(torch.randn(4, 3, dtype=torch.float64)).sum().backward()
        assert of(tooled.step(), "Linear/weights") == near(model.weight)


# ---------------------------------------------------------------- wrappers


@pytest.fixture
def compiled() -> Iterator[tuple[Callable[[nn.Module], Any], list[int]]]:
    """torch.compile with a backend that counts its compilations."""
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(1)
        return graph.forward

    yield lambda model: torch.compile(model, backend=backend), graphs
    torch._dynamo.reset()


@pytest.mark.parametrize("make", [Small, lambda: Small().inner], ids=["own class", "Sequential"])
@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_model_runs_as_written_on_armed_steps_alone(
    compiled: tuple[Callable[[nn.Module], Any], list[int]],
    make: Callable[[], nn.Module],
    warm: bool,
) -> None:
    compile_, graphs = compiled
    model = make()
    x = torch.randn(5, 3)
    expected = step_of(model, x)
    fast = compile_(model)
    if warm:
        fast(x)
    tooled = TooledModel(fast, ALL, every=2)
    for armed in (True, False, True, False):
        model.zero_grad()
        fast(x).square().sum().backward()
        values = tooled.step()
        if armed:
            assert values == pytest.approx(expected)
        else:
            assert values == {}
    assert len(graphs) == 1
    fast.eval()
    fast(x)
    assert len(graphs) <= 2  # evaluation is compiled as usual
    tooled.remove()


def test_two_tooled_models_on_one_compiled_model_leave_it_compiled(
    compiled: tuple[Callable[[nn.Module], Any], list[int]],
) -> None:
    compile_, graphs = compiled
    fast, x = compile_(Small()), torch.randn(5, 3)
    seldom, often = TooledModel(fast, every=2), TooledModel(fast)
    for armed in (True, False, True):
        fast(x)
        assert bool(seldom.step()) == armed
        assert often.step()
    assert not graphs
    often.remove()
    seldom.remove()
    fast(x)
    assert len(graphs) == 1


def test_blocks_that_are_compiled_keep_their_names(
    compiled: tuple[Callable[[nn.Module], Any], list[int]],
) -> None:
    compile_, graphs = compiled
    model = Small()
    x = torch.randn(5, 3)
    expected = step_of(model, x)
    model.inner = compile_(model.inner)
    model(x)
    assert graphs
    assert step_of(model, x) == pytest.approx(expected)


@pytest.mark.parametrize("make", [Small, lambda: Small().inner], ids=["own class", "Sequential"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_that_is_compiled_after_tooling_is_seen(
    compiled: tuple[Callable[[nn.Module], Any], list[int]],
    make: Callable[[], nn.Module],
    in_place: bool,
) -> None:
    compile_, graphs = compiled
    model, x = make(), torch.randn(5, 3)
    expected = step_of(model, x)
    tooled = TooledModel(model, ALL, every=2)
    if in_place:
        model.compile(backend="eager")
    fast = model if in_place else compile_(model)
    fast.eval()
    fast(x)
    fast.train()
    for armed in (True, False, True):
        model.zero_grad()
        fast(x).square().sum().backward()
        assert tooled.step() == (pytest.approx(expected) if armed else {})
    tooled.remove()
    fast(x).sum().backward()
    assert len(graphs) == (0 if in_place else 1), "compiled once, and by its own backend in place"


def test_distributed_data_parallel_has_the_models_own_names(tmp_path: Path) -> None:
    model, x = Small(), torch.randn(5, 3)
    expected = step_of(model, x)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        assert step_of(parallel, x) == pytest.approx(expected)
    finally:
        torch.distributed.destroy_process_group()


def test_data_parallel_is_refused() -> None:
    with pytest.raises(DefinitionError, match="DistributedDataParallel"):
        TooledModel(nn.Sequential(nn.DataParallel(nn.Linear(3, 2))))


def test_a_replica_of_a_tooled_model_is_refused() -> None:
    model = Small()
    tooled = TooledModel(model)
    replica = model._replicate_for_data_parallel()
    with pytest.raises(DefinitionError, match="DistributedDataParallel"):
        replica(torch.randn(5, 3))
    assert tooled.step() == {}
