"""Training goes on as it would without TooledModel, whatever a model does."""

import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils import checkpoint

from flexrec.recorder import DefinitionError, Recorder, TooledModel
from flexrec.recorder.layers.activations import activations
from flexrec.recorder.layers.calls import EagerWhileObserved
from flexrec.recorder.layers.measuring.statistics import SOURCES, STATISTICS

EVERYTHING: dict[str, Any] = {"sources": SOURCES, "stats": list(STATISTICS)}


class Calls(nn.Module):
    """A model that does with its parts what a function says."""

    def __init__(self, function: Any, *parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.function = nn.ModuleList(parts), function

    def forward(self, *args: Any) -> Any:
        return self.function(self.parts, *args)


def trained(model: nn.Module, *inputs: Any) -> dict[str, Any]:
    """What a step with everything measured gives."""
    with TooledModel(model, **EVERYTHING) as tooled:
        model(*inputs).square().mean().backward()
        return tooled.step()


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- what models do


@dataclass
class Node:
    """A dataclass that refers to itself, and has a field that is not set."""

    x: Tensor
    parent: Any = None
    later: Any = field(init=False)


class Looped(nn.Module):
    """Gives a cycle."""

    def forward(self, x: Tensor) -> Node:
        node = Node(x * 2)
        node.parent = [node]
        return node


class Opened(nn.Module):
    """Takes it."""

    def forward(self, node: Node) -> Tensor:
        return node.x.relu()


def test_values_that_hold_themselves_are_seen_once() -> None:
    values = trained(nn.Sequential(nn.Linear(4, 4), Looped(), Opened()), X)
    assert values["1/outputs/std"] == values["2/inputs/std"] > 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, of jvp
@pytest.mark.parametrize("how", ["vmap", "jacrev", "grad", "jvp"])
def test_a_layer_inside_a_transform_is_left_out(how: str) -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def function(parts: Any, x: Tensor) -> Any:
        inner = parts[0]
        if how == "vmap":
            return torch.vmap(inner)(x)
        if how == "jacrev":
            return torch.func.jacrev(inner)(x[0])
        if how == "grad":
            return torch.func.grad(lambda y: inner(y).sum())(x)
        return torch.func.jvp(inner, (x,), (torch.ones_like(x),))[1]

    values = trained(Calls(function, layer), X)
    assert "parts.0.0/weights/mean" in values
    assert "parts.0.0/inputs/mean" not in values


def test_gradients_in_batches_do_not_stop_training() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    tooled = TooledModel(model, **EVERYTHING)
    y = model(X.clone().requires_grad_())
    weights = list(model.parameters())
    torch.autograd.grad(y, weights, torch.ones(5, 8, 3), is_grads_batched=True, retain_graph=True)
    y.sum().backward()
    with contextlib.suppress(RuntimeWarning):
        tooled.step()


class Fragile(list[Tensor]):
    """A list that cannot be gone through."""

    def __iter__(self) -> Iterator[Tensor]:
        raise RuntimeError("not this one")


class Broken(nn.Module):
    """Gives one."""

    kept: Any = None

    def forward(self, x: Tensor) -> Any:
        self.kept = x * 1
        return Fragile([self.kept])


def test_what_cannot_be_measured_is_left_out_and_spoken_of_once() -> None:
    broken = Broken()
    model = nn.Sequential(nn.Linear(4, 4), broken)
    tooled = TooledModel(model, **EVERYTHING)
    for step in range(3):
        model(X)
        broken.kept.sum().backward()
        if not step:
            with pytest.raises(
                RuntimeWarning, match=r"leaves out 1/outputs \(RuntimeError: not this"
            ):
                tooled.step()
        else:
            values = tooled.step()
            assert "0/inputs/mean" in values
            assert "1/outputs/mean" not in values


def test_a_statistic_of_the_callers_that_fails_is_raised_by_name() -> None:
    def spread(tensor: Tensor) -> Tensor:
        raise ValueError("no such thing")

    model = nn.Linear(4, 4)
    with (
        TooledModel(model, stats=(spread,)),
        pytest.raises(DefinitionError, match="'spread' failed: no such thing"),
    ):
        model(X)


def test_a_pass_is_over_where_a_statistic_failed() -> None:
    def spread(tensor: Tensor) -> float:
        raise ValueError("no such thing")

    model = nn.Sequential(nn.Linear(4, 4))
    with TooledModel(model, ("inputs",), ("max", spread)) as tooled:
        with pytest.raises(DefinitionError, match="'spread' failed"):
            model(X)
        model.eval()
        model(X + 10)  # is of no training pass
        assert tooled.step().get("0/inputs/max") in (None, X.max().item())


@pytest.mark.parametrize("late", [ValueError("no such thing"), [1.0, 2.0]], ids=["fails", "list"])
def test_a_statistic_of_the_callers_that_fails_later_is_left_out(late: Any) -> None:
    results = iter([1.0, late, 3.0])

    def spread(tensor: Tensor) -> Any:
        found = next(results)
        if isinstance(found, Exception):
            raise found
        return found

    model, found = nn.Sequential(nn.Linear(4, 4)), []
    with TooledModel(model, ("inputs",), ("max", spread)) as tooled:
        for number in range(3):
            model(X)
            if number == 1:
                with pytest.warns(RuntimeWarning, match=r"leaves out 0/inputs \(Runt"):
                    found.append(tooled.step())
            else:
                found.append(tooled.step())
    assert [values.get("0/inputs/spread") for values in found] == [1.0, None, 3.0]
    assert all(values["0/inputs/max"] == X.max().item() for values in found)


def test_masks_are_not_measured() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(8)
    model = Calls(lambda parts, x: parts[0](x[None], src_mask=mask, is_causal=True), layer)
    values = trained(model, X)
    assert values["parts.0.self_attn/inputs/inf_count"] == 0
    assert values["parts.0.self_attn/inputs/mean"] == pytest.approx(X.mean().item())


def test_weights_that_are_swapped_for_a_call_are_not_updates() -> None:
    model = nn.Linear(4, 4)
    tooled = TooledModel(model, ("updates",), ("mean",))
    swapped = {name: torch.full_like(p, 100.0) for name, p in model.named_parameters()}
    torch.func.functional_call(model, swapped, (X,))
    assert not tooled.step()


def test_a_parametrization_that_comes_later_takes_its_ratios_away() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    tooled = TooledModel(model, **EVERYTHING)
    model(X).sum().backward()
    assert "0/grad_weights/signal" in tooled.step()
    parametrizations.weight_norm(model[0])
    model(X).sum().backward()
    values = tooled.step()
    assert "0/grad_weights/signal" not in values
    assert "1/grad_weights/signal" in values


def test_embeddings_may_grow() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    tooled = TooledModel(model, **EVERYTHING)
    for rows in (5, 7):
        model[0].weight = nn.Parameter(torch.randn(rows, 4))
        model(torch.arange(rows)).sum().backward()
        assert tooled.step()["0/grad_weights/signal"] > 0


def test_float8_weights_have_updates() -> None:
    model = nn.Linear(4, 4)
    frozen = nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn), requires_grad=False)
    model.register_parameter("scale", frozen)
    assert trained(model, X)["Linear/updates/mean"] == 0.0


# ---------------------------------------------------------------- which calls count


def test_a_model_that_calls_itself_is_measured_to_its_end() -> None:
    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaf, self.top = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, depth: int) -> Any:
            if not depth:
                return self.leaf(x)
            with torch.no_grad():
                self(x * 100, 0)  # which does not count
            return self.top(self(x, depth - 1))

    model = Tree()
    with TooledModel(model, ("inputs",), ("mean", "nan_count")) as tooled:
        model(X, 2).sum().backward()
        values = tooled.step()
    assert values["leaf/inputs/mean"] == pytest.approx(X.mean().item())
    assert "top/inputs/mean" in values


def test_an_interrupt_ends_a_pass() -> None:
    def function(parts: Any, x: Tensor) -> Any:
        out = parts[0](x)
        if x.sum() > 1e6:
            raise KeyboardInterrupt
        return out

    model = Calls(function, nn.Linear(4, 4))
    tooled = TooledModel(model, ("inputs",), ("mean",))
    with pytest.raises(KeyboardInterrupt):
        model(X + 1e6)
    model.eval()
    model(X * 0 + 99.0)  # is not of the training pass
    model.train()
    assert tooled.step()["parts.0/inputs/mean"] == pytest.approx(1e6, rel=1e-3)
    tooled.remove()
    assert not EagerWhileObserved.holders


def test_a_step_may_end_amid_a_pass() -> None:
    """As in another thread: hooks go that torch was about to call."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    tooled = TooledModel(model)
    ends = False

    def end(*_: Any) -> None:
        if ends:
            tooled.step()

    model[1].register_forward_pre_hook(end)
    kept = model(X)
    ends = True
    model(X)
    kept.sum().backward()


# ---------------------------------------------------------------- what is kept


def test_a_graph_that_is_kept_keeps_nothing_else() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    tooled, total, steps = TooledModel(model, **EVERYTHING), torch.zeros(()), []
    for _ in range(4):
        loss = model(X).square().mean()
        loss.backward(retain_graph=True)
        steps.append(weakref.ref(tooled._armed))
        tooled.step()
        total = total + loss
    gc.collect()
    assert [step() for step in steps] == [None] * 4
    total.backward()


# ---------------------------------------------------------------- checkpointing


def test_selective_checkpointing_does_not_see_what_hooks_do() -> None:
    def context() -> Any:
        saved = [torch.ops.aten.sum.default, torch.ops.aten.mm.default]
        return checkpoint.create_selective_checkpoint_contexts(saved)

    def function(parts: Any, x: Tensor) -> Any:
        def inner(y: Tensor) -> Tensor:
            hidden = parts[0](y).tanh()
            out: Tensor = parts[1](hidden * hidden.sum()).tanh() @ torch.ones(4, 4)
            return out

        return checkpoint.checkpoint(inner, x, use_reentrant=False, context_fn=context)

    torch.manual_seed(1)
    model = Calls(function, nn.Linear(4, 4), nn.Linear(4, 4))
    x = X.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(x).sum(), x)
    with TooledModel(model, **EVERYTHING) as tooled:
        model(x).sum().backward()
        assert "parts.0/outputs/mean" in tooled.step()
    assert x.grad is not None
    assert torch.equal(x.grad, wanted)


@pytest.mark.parametrize("reentrant", [True, False])
def test_compiled_code_runs_as_written_through_the_backward_pass(reentrant: bool) -> None:
    """Else what is checkpointed would run in one way forward, and in another backward."""
    seen = []

    class Part(nn.Module):
        def forward(self, x: Tensor) -> Any:
            seen.append(EagerWhileObserved.holders)
            return x.tanh()

    def function(parts: Any, x: Tensor) -> Any:
        return parts[1](checkpoint.checkpoint(parts[0], x, use_reentrant=reentrant))

    model = Calls(function, Part(), nn.Linear(4, 4))
    tooled = TooledModel(model)
    model(X.clone().requires_grad_()).sum().backward()
    tooled.step()
    assert seen == [1, 1]
    assert not EagerWhileObserved.holders


# ---------------------------------------------------------------- a GradScaler


class Scaler:
    """As torch.amp.GradScaler, on the CPU; only what is asked of it."""

    def __init__(self) -> None:
        self._scale = torch.tensor(1024.0)
        self._per_optimizer_states: dict[int, Any] = {}

    def is_enabled(self) -> bool:
        return True

    def scale(self, outputs: Tensor) -> Tensor:
        return outputs * self._scale


def test_a_scale_that_changes_before_the_backward_pass_is_taken_again() -> None:
    """As of a generator, whose discriminator steps between its two passes."""
    model, scaler = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), Scaler()
    with TooledModel(model, ("grad_out",), ("mean",), scaler=scaler) as tooled:
        out = model(X)
        scaler._scale.mul_(2)  # what update() does
        scaler.scale(out.sum()).backward()
        assert tooled.step()["1/grad_out/mean"] == pytest.approx(1.0)


# ---------------------------------------------------------------- a probe batch


class Merging(nn.Linear):
    """Folds something into its weights for evaluation, as adapters do."""

    merged = False

    def train(self, mode: bool = True) -> Any:
        self.merged = not mode
        return super().train(mode)


def test_a_probe_batch_leaves_modes_and_random_numbers_as_they_were() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    model = nn.Sequential(Merging(4, 4), Noisy(), nn.Dropout())
    model[2].eval()
    state = torch.get_rng_state()
    activations(model, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.training, model[0].training, model[2].training) == (True, True, False)
    assert not model[0].merged


def test_what_a_layer_gave_is_not_what_the_next_one_made_of_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    found = activations(model, X)
    assert torch.equal(found["0"].rows, model[0](X))
    assert torch.equal(found["1"].rows, model(X))


# ---------------------------------------------------------------- a recorder speaks


@pytest.mark.parametrize(
    ("how", "why"),
    [("in evaluation mode", "in training mode"), ("zeroed before", "before they are set to zero")],
)
def test_a_recorder_says_why_a_model_told_little(tmp_path: Path, how: str, why: str) -> None:
    model = nn.Linear(4, 4)
    rec = Recorder(tmp_path / "run.h5", facts=False)
    rec.watch(model, stats=("mean", "snr"))
    if "evaluation" in how:
        model.eval()
    for _ in range(2):
        model(X).sum().backward()
        model.zero_grad()
        rec.step()
    with pytest.warns(RuntimeWarning, match=f"statistics of a watched model are missing: .*{why}"):
        rec.close()


class Gate(nn.Module):
    """Does once, when it is called, what it is told to do."""

    def __init__(self) -> None:
        super().__init__()
        self.once: Any = None

    def forward(self, x: Tensor) -> Tensor:
        once, self.once = self.once, None
        if once is not None:
            once()
        return x


def _trained_twice(evaluates: bool) -> dict[str, Any]:
    """A step of two passes; amid the second one another thread evaluates the model."""
    first, second = Gate(), Gate()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), first, nn.Linear(4, 2), second)
    at_first, to_second, at_second, to_end = (threading.Event() for _ in range(4))

    def meet(here: threading.Event, there: threading.Event) -> None:
        here.set()
        assert there.wait(60)

    def evaluate() -> None:
        first.once = lambda: meet(at_first, to_second)
        second.once = lambda: meet(at_second, to_end)
        with torch.no_grad():
            model(torch.full((2, 3), 1e6))

    other = threading.Thread(target=evaluate)
    with TooledModel(model) as tooled:
        model(torch.ones(2, 3)).sum().backward()
        if evaluates:
            other.start()
            assert at_first.wait(60)
            first.once = lambda: meet(to_second, at_second)
        model(torch.full((2, 3), 2.0)).sum().backward()
        if evaluates:
            to_end.set()
            other.join()
        return tooled.step()


def test_another_thread_may_evaluate_the_model_amid_a_training_pass() -> None:
    told = _trained_twice(evaluates=True)
    assert told == _trained_twice(evaluates=False)
    assert told["0/inputs/mean"] == 1.5
