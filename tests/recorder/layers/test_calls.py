"""Nothing is put into a module that is watched: copies, pickles and scripts are its own."""

import copy
import gc
import io
import pickle
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flexrec.recorder import TooledModel
from support.tooled_cases import ALL, Small, deep_copy, hooked, normalised, of_the_user, saved


class KeepsState(nn.Module):
    """Has state of its own in its `__dict__`, which it pickles by hand, and another forward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.notes, self.seen = nn.Linear(3, 2), {"a": [1]}, torch.zeros(1)
        self.forward = self.inner.forward

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        state.pop("notes", None)
        return state


class CopiesItself(nn.Module):
    """Is copied by what is in its `__dict__`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self).__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin


MODELS = [Small, KeepsState, CopiesItself, hooked, normalised, lambda: nn.Linear(3, 2)]


class Pickler(pickle.Pickler):
    """Storages by their number: torch pickles their addresses."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, (torch.TypedStorage, torch.UntypedStorage)):
            numbers = self.__dict__.setdefault("numbers", {})
            return numbers.setdefault(value._cdata, len(numbers))
        return None


def pickled(value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


WAYS: dict[str, Callable[[nn.Module], bytes]] = {
    "pickle": pickled,
    "protocol 2": lambda model: pickled(model, 2),
    "of a deep copy": lambda model: pickled(deep_copy(model)),
    "of a copy": lambda model: pickled(copy.copy(model)),
    "of its dict": lambda model: pickled(dict(vars(model))),
    "torch.save": saved,
}


def trained(model: nn.Module, then: Callable[[], Any], when: str) -> Any:
    """What comes of a moment of a training step, of which the rest follows."""
    torch.manual_seed(1)
    if when == "before":
        return then()
    model.zero_grad()
    output = model(torch.randn(4, 3))
    model.register_forward_hook(of_the_user)
    if when == "after the pass":
        return then()
    output.square().sum().backward()
    return then()


@pytest.mark.parametrize("when", ["before", "after the pass", "after the backward pass"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", MODELS)
def test_a_pickle_is_that_of_a_model_never_watched(
    make: Callable[[], nn.Module], way: str, when: str
) -> None:
    def bytes_of(watch: bool) -> Any:
        torch.manual_seed(0)
        RemovableHandle.next_id = 0  # the numbers of hooks are pickled
        model = make()
        tooled = TooledModel(model, ALL) if watch else None
        found = trained(model, lambda: WAYS[way](model), when)
        if tooled is not None:
            assert bool(tooled.step()) == (when != "before")
            tooled.remove()
        return found

    assert bytes_of(True) == bytes_of(False)


def test_a_pickle_amid_a_pass_is_that_of_a_model_never_watched() -> None:
    def bytes_of(watch: bool) -> Any:
        torch.manual_seed(0)
        saves = Saves()
        model = nn.Sequential(nn.Linear(3, 2), saves)
        saves.whole.append(model)
        tooled = TooledModel(model, ALL) if watch else None
        model(torch.ones(2, 3)).sum().backward()
        if tooled is not None:
            assert tooled.step()
        return Saves.found

    assert bytes_of(True) == bytes_of(False)


class Saves(nn.Module):
    """Saves the whole model while it is called."""

    found = b""

    def __init__(self) -> None:
        super().__init__()
        self.whole: list[nn.Module] = []

    def forward(self, x: Tensor) -> Tensor:
        Saves.found = saved(self.whole[0])
        return x * 2


def test_a_watched_model_loads_with_weights_only() -> None:
    model = nn.Sequential(OrderedDict(linear=nn.Linear(3, 2), relu=nn.ReLU()))
    tooled = TooledModel(model, ALL)
    model(torch.ones(2, 3)).sum().backward()
    with torch.serialization.safe_globals([nn.Sequential, nn.Linear, nn.ReLU]):
        loaded = torch.load(io.BytesIO(saved(model)), weights_only=True)
    x = torch.randn(4, 3)
    assert torch.equal(loaded(x), model.eval()(x))
    tooled.remove()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_is_not_watched(duplicate: Callable[[Any], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with TooledModel(model, ["inputs"]) as tooled:
        model(torch.ones(2, 3)).sum().backward()
        duplicate(model[0])(torch.zeros(2, 3)).sum().backward()
        assert tooled.step()["0/inputs/mean"] == 1.0


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],  # noqa: S301
)
def test_a_module_may_hold_what_watches_it(duplicate: Callable[[Any], Any]) -> None:
    model: Any = Small()
    model.tooled = TooledModel(model, ALL)
    model(torch.ones(2, 3)).sum().backward()
    twin = duplicate(model)
    assert twin.tooled.is_removed
    twin(torch.ones(2, 3)).sum().backward()
    assert (twin.tooled.step(), twin.tooled.stats()) == ({}, {})
    assert model.tooled.step()
    gone = weakref.ref(model.tooled)
    del model, twin
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("removed", [False, True])
def test_a_model_can_be_scripted(removed: bool) -> None:
    model, x = Small(), torch.randn(4, 3)
    tooled = TooledModel(model, ALL)
    model(x).sum().backward()
    if removed:
        tooled.remove()
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(x), model.eval()(x))
    tooled.remove()


def test_a_compiled_model_pickles_as_one_never_watched() -> None:
    def bytes_of(watch: bool) -> bytes:
        torch.manual_seed(0)
        model: Any = torch.compile(Small(), backend="eager")
        tooled = TooledModel(model, ALL) if watch else None
        if tooled is None:
            model._orig_mod(torch.ones(2, 3)).sum().backward()
        else:
            model(torch.ones(2, 3)).sum().backward()
        found = saved(model._orig_mod)
        if tooled is not None:
            assert tooled.step()
            tooled.remove()
        return found

    assert bytes_of(True) == bytes_of(False)
    torch._dynamo.reset()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_a_model_in_data_parallel_pickles_as_one_never_watched() -> None:
    def bytes_of(watch: bool) -> bytes:
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(Small())
        tooled = TooledModel(model, ALL) if watch else None
        model(torch.ones(2, 3)).sum().backward()
        found = saved(model.module)
        if tooled is not None:
            assert tooled.step()
            tooled.remove()
        return found

    assert bytes_of(True) == bytes_of(False)


@pytest.mark.parametrize("watch", [False, True])
def test_evaluation_amid_a_step_takes_torchs_fast_path(
    watch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is taken where no module has hooks, and rounds otherwise."""
    calls = []
    fast = torch._transformer_encoder_layer_fwd

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        return fast(*args)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    model, x = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), torch.randn(2, 3, 4)
    tooled = TooledModel(model, ALL) if watch else None
    model(x).sum().backward()
    model.eval()
    with torch.no_grad():
        model(x)
    assert calls == [1]
    if tooled is not None:
        tooled.remove()


def test_a_foreign_model_compiles_with_hooks_of_its_own_while_one_is_watched() -> None:
    with TooledModel(Small()):
        foreign = hooked()
        fast: Any = torch.compile(foreign, backend="eager", fullgraph=True)
        x = torch.randn(4, 3)
        assert torch.equal(fast(x), foreign(x))
        fast.eval()
        fast(x)
    torch._dynamo.reset()
