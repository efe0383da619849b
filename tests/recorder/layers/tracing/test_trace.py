"""The trace of a step: what is put down, in which order, and what training does not notice."""

import contextlib
import json
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexrec.recorder import DefinitionError, FlexrecError, InputError, Recorder, Recording
from flexrec.recorder.layers.tracing.format import ATTRIBUTES, ORDER, VALUES, Event
from support.planted_faults import train
from support.tooled_cases import is_observed


def model() -> nn.Sequential:
    """Three layers, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def one_step(net: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """A step of training."""
    optimizer.zero_grad()
    loss = net(torch.ones(3, 4)).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def traced(path: Path, steps: int = 3, **options: Any) -> list[tuple[int, list[Event], Any]]:
    """Train with a trace; give the step, the events and the values of what was recorded."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    with Recorder(path, facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer, **options)
        for _ in range(steps):
            one_step(net, optimizer)
            rec.step()
    return read(path)


def read(path: Path) -> list[tuple[int, list[Event], Any]]:
    """The steps of a trace."""
    with Recording(path) as run:
        order, values = run[ORDER], run[VALUES]
        found = []
        for step, value in zip(values.step.tolist(), values.value, strict=True):
            text = [t for s, t in zip(order.step.tolist(), order.value, strict=True) if s <= step]
            found.append((step, [Event(*each) for each in json.loads(text[-1])], value))
        return found


def test_events_stand_in_the_order_of_time(tmp_path: Path) -> None:
    for _, events, values in traced(tmp_path / "run.h5"):
        assert len(events) == len(values)
        kinds = [event.kind for event in events]
        order = ("random", "weights", "inputs", "outputs", "grad_out", "raw_grad", "settings")
        firsts = [kinds.index(kind) for kind in (*order, "grad", "new_weights")]
        assert firsts == sorted(firsts)
        ran = [event.layer for event in events if event.kind == "outputs"]
        assert ran == ["0", "1", "2", "Sequential"]
        back = [event.layer for event in events if event.kind == "grad_out"]
        assert [layer for layer in back if layer != "Sequential"] == ["2", "1", "0"]
        parents = {event.layer: event.parent for event in events if event.kind == "inputs"}
        assert parents == {
            "Sequential": "",
            "0": "Sequential",
            "1": "Sequential",
            "2": "Sequential",
        }


def test_a_step_with_a_closure_has_the_events_of_one_without(tmp_path: Path) -> None:
    net, path = model(), tmp_path / "closure.h5"
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)

    def compute() -> float:
        optimizer.zero_grad()
        loss = net(torch.ones(3, 4)).square().mean()
        loss.backward()
        return loss.item()

    with Recorder(path, facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer)
        for _ in range(3):
            optimizer.step(compute)
            rec.step()
    pairs = zip(read(path), traced(tmp_path / "plain.h5"), strict=True)
    for (_, events, values), (_, others, expected) in pairs:
        assert dict(zip(events, values, strict=True)) == dict(zip(others, expected, strict=True))


def test_texts_are_recorded_when_they_change(tmp_path: Path) -> None:
    traced(tmp_path / "run.h5", steps=6)
    with Recording(tmp_path / "run.h5") as run:
        assert run[ORDER].step.tolist() == [0, 1]  # there is no state before the first step
        assert run[ATTRIBUTES].step.tolist() == [0]
        attributes = json.loads(run[ATTRIBUTES].value[0])
        assert attributes["0"]["class"] == "Linear"
        assert attributes["0"]["out_features"] == "8"
        assert "threads" in attributes["environment"]


def test_training_does_not_notice(tmp_path: Path) -> None:
    results = []
    for trace in (False, True):
        net = model()
        optimizer = torch.optim.Adam(net.parameters(), 0.1)
        with Recorder(tmp_path / f"{trace}.h5", facts=False) as rec:
            rec.watch(net, trace=trace, optimizer=optimizer)
            losses = []
            for _ in range(4):
                losses.append(one_step(net, optimizer).item())
                rec.step()
        results.append((losses, torch.get_rng_state().tolist()))
    assert results[0] == results[1]


def test_hooks_are_taken_off(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer, every=2)
        for step in range(3):
            one_step(net, optimizer)
            rec.step()
            assert not any(module._forward_hooks for module in net), step
    modules = list(net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert not any(p._post_accumulate_grad_hooks for p in net.parameters())
    assert not optimizer._optimizer_step_pre_hooks


def test_every_counts_the_numbers_of_steps(tmp_path: Path) -> None:
    assert [step for step, _, _ in traced(tmp_path / "run.h5", steps=7, every=3)] == [0, 3, 6]


def test_evaluation_is_not_traced(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer)
        for _ in range(2):
            one_step(net, optimizer)
            with torch.no_grad():
                net(torch.ones(5, 4))
            rec.step()
    for _, events, _ in read(tmp_path / "run.h5"):
        assert [event.layer for event in events if event.kind == "outputs"].count("0") == 1


def test_a_step_without_training_leaves_nothing(tmp_path: Path) -> None:
    net = model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the watched model told nothing
        with Recorder(tmp_path / "run.h5", facts=False) as rec:
            rec.watch(net, trace=True)
            rec.add(x=1.0)
            rec.step()
    with Recording(tmp_path / "run.h5") as run:
        assert list(run) == ["x"]


def test_named_values_have_a_key_each(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer)
        rec.fingerprint(batch=torch.ones(3, 4))
        rec.fingerprint({"train_loss": one_step(net, optimizer), "nothing": None}, after=1.5)
        rec.step()
    ((_, events, _),) = read(tmp_path / "run.h5")
    kinds = {event.layer: event.kind for event in events}
    assert (kinds["batch"], kinds["train_loss"], kinds["after"]) == ("data", "loss", "value")
    with Recording(tmp_path / "run.h5") as run:
        assert [key for key in run if key.endswith("/fingerprint")] == [
            "batch/fingerprint",
            "train_loss/fingerprint",
            "after/fingerprint",
        ]


def test_fingerprints_without_a_trace(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for value in (1.0, 2.0, 1.0):
            rec.fingerprint(batch=torch.tensor([value]))
            rec.step()
    with Recording(tmp_path / "run.h5") as run:
        first, second, third = run["batch/fingerprint"].value
        assert first == third != second


def test_models_are_traced_together(tmp_path: Path) -> None:
    train(tmp_path / "run.h5", "gan")
    _, events, _ = read(tmp_path / "run.h5")[-1]
    ran = [event.layer for event in events if event.kind == "inputs" and not event.parent]
    assert ran == ["G", "D", "D", "G", "D"]
    with Recorder(tmp_path / "other.h5", facts=False) as rec:
        rec.watch(model(), trace=True, name="a")
        with pytest.raises(DefinitionError, match="need the same every: got every=2 after every=1"):
            rec.watch(model(), trace=True, name="b", every=2)


def test_what_cannot_be_followed_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> int:
        raise RuntimeError("no such tensor")

    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer)
        one_step(net, optimizer)
        rec.step()
        monkeypatch.setattr("flexrec.recorder.layers.tracing.trace._norm", broken)
        for _ in range(2):
            one_step(net, optimizer)
        with pytest.warns(RuntimeWarning, match="the trace is incomplete"):
            rec.step()
        one_step(net, optimizer)
        rec.step()


class Wrapper(nn.Module):
    """As DistributedDataParallel has the model inside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def assert_traced_as_it_is(net: Any, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Whether three steps of what was made of the model are traced as those of the model."""
    with Recorder(folder / "made.h5", facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer)
        for _ in range(3):
            one_step(net, optimizer)
            rec.step()
    made, plain = read(folder / "made.h5"), traced(folder / "plain.h5")
    for (_, events, values), (_, others, right) in zip(made, plain, strict=True):
        assert events == others
        assert values.tolist() == right.tolist()


def test_a_wrapper_is_seen_through(tmp_path: Path) -> None:
    net = Wrapper(model())
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    assert_traced_as_it_is(net, optimizer, tmp_path)


def test_a_compiled_model_runs_as_written_while_it_is_traced(tmp_path: Path) -> None:
    net: Any = torch.compile(model(), backend="eager")
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    assert_traced_as_it_is(net, optimizer, tmp_path)


def test_a_model_compiled_after_it_was_watched_is_traced_too(tmp_path: Path) -> None:
    net = model()
    compiled: Any = torch.compile(net, backend="eager")
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    with Recorder(tmp_path / "compiled.h5", facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer)
        for _ in range(3):
            one_step(compiled, optimizer)
            rec.step()
    later, plain = read(tmp_path / "compiled.h5"), traced(tmp_path / "plain.h5")
    for (_, events, values), (_, others, right) in zip(later, plain, strict=True):
        assert events == others
        assert values.tolist() == right.tolist()


class Meets(nn.Module):
    """Does something while it is called."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self.then = [then]

    def forward(self, x: Tensor) -> Tensor:
        for then in self.then:
            then()
        return x


def test_a_pass_that_fails_is_followed_by_others(tmp_path: Path) -> None:
    """Calls have the numbers that they have where none fails."""

    def fails() -> None:
        raise ValueError("no such layer")

    net = nn.Sequential(nn.Linear(4, 3), Meets(fails), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(net, trace=True, optimizer=optimizer)
        with pytest.raises(ValueError, match="no such layer"):
            net(torch.ones(3, 4))
        net[1].then.clear()
        one_step(net, optimizer)
        rec.step()
    ((_, events, _),) = read(tmp_path / "run.h5")
    outputs = {event.layer: event for event in events if event.kind == "outputs"}
    inputs = {event.layer: event for event in events if event.kind == "inputs"}
    assert {name: event.call for name, event in outputs.items()} == {
        "Sequential": 1,
        "0": 1,
        "1": 1,
        "2": 0,
    }
    for name, event in inputs.items():
        assert (event.call, event.parent) == (outputs[name].call, outputs[name].parent)
        assert event.parent == ("" if name == "Sequential" else "Sequential")


def test_evaluation_in_another_thread_amid_a_pass_is_not_traced(tmp_path: Path) -> None:
    def trace(path: Path, *, evaluates: bool) -> tuple[list[Event], list[int]]:
        def evaluate() -> None:
            with torch.no_grad():
                net[0](torch.ones(5, 4))

        def amid() -> None:
            thread = threading.Thread(target=evaluate)
            thread.start()
            thread.join()

        net = model()
        net[1] = Meets(amid if evaluates else lambda: None)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        with Recorder(path, facts=False) as rec:
            rec.watch(net, trace=True, optimizer=optimizer)
            one_step(net, optimizer)
            rec.step()
        ((_, events, values),) = read(path)
        return events, values.tolist()

    alone = trace(tmp_path / "alone.h5", evaluates=False)
    assert trace(tmp_path / "both.h5", evaluates=True) == alone


def test_nothing_is_followed_after_close(tmp_path: Path) -> None:
    net = model()
    rec = Recorder(tmp_path / "run.h5", facts=False)
    rec.watch(net, trace=True)
    net(torch.ones(3, 4)).sum().backward()
    rec.step()
    rec.close()
    with contextlib.suppress(FlexrecError):
        rec.fingerprint(batch=torch.ones(3, 4))
    assert not any(p._post_accumulate_grad_hooks for p in net.parameters())
    assert not is_observed()


def test_what_has_no_elements_has_no_fingerprint(tmp_path: Path) -> None:
    nothing = torch.empty(3, device="meta")
    with (
        Recorder(tmp_path / "run.h5", facts=False) as rec,
        pytest.raises(InputError, match="'batch': cannot compute a fingerprint"),
    ):
        rec.fingerprint(batch=nothing)
