"""What layers cost: their own time and bytes, on a clock that the tests turn."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from flexrec.recorder import DefinitionError, Recorder, Recording, TooledModel
from flexrec.recorder.events import Later
from flexrec.recorder.layers import tooled_model
from flexrec.recorder.layers.measuring import costs
from flexrec.recorder.layers.measuring.costs import Clock, Moment
from flexrec.replay import play, preset


class TurnedClock(Clock):
    """A clock that goes on only in `Work`, and by another second for the processor."""

    time = 0

    def now(self) -> Moment:
        return Moment(TurnedClock.time, 2.0 * TurnedClock.time)


class LateClock(TurnedClock):
    """The same, as on an accelerator: its seconds are read later."""

    reads = 0

    def settled(self, read: Callable[[], float]) -> Later:
        def counted() -> float:
            LateClock.reads += 1
            return read()

        return Later(counted)


class Work(torch.autograd.Function):
    """Takes as many seconds as it is told, forward, and ten times as many backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: int) -> Tensor:
        TurnedClock.time += seconds
        ctx.seconds = seconds
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        TurnedClock.time += 10 * ctx.seconds
        return grads[0] * 2, None


class Slow(nn.Module):
    """A layer that takes some seconds, with parts inside."""

    def __init__(self, seconds: int, *parts: nn.Module) -> None:
        super().__init__()
        self.seconds, self.weight = seconds, nn.Parameter(torch.ones(()))
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        x = Work.apply(x * self.weight, self.seconds)
        for part in self.parts:
            x = part(x)
        return Work.apply(x, self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[TurnedClock]:
    """The clock of steps that begin in the test."""
    monkeypatch.setattr(tooled_model, "clock_for", lambda _: TurnedClock())
    TurnedClock.time = 0
    return TurnedClock


def costs_of(model: nn.Module, *inputs: Any, **options: Any) -> dict[str, Any]:
    """The costs of one step."""
    tooled = TooledModel(model, stats=("seconds", "bytes"), **options)
    model(*inputs).sum().backward()
    found = dict(tooled.step())
    tooled.remove()
    return found


def test_a_layers_time_is_its_own_without_that_of_its_parts(clock: type[TurnedClock]) -> None:
    inner = Slow(3)
    found = costs_of(Slow(1, inner, inner), torch.ones(4))
    seconds = {key: value for key, value in found.items() if "seconds" in key}
    assert seconds == {
        "Slow/forward/seconds": 2,
        "Slow/forward/cpu_seconds": 4,
        "Slow/backward/seconds": 20,
        "Slow/backward/cpu_seconds": 40,
        "parts.0/forward/seconds": 12,
        "parts.0/forward/cpu_seconds": 24,
        "parts.0/backward/seconds": 120,
        "parts.0/backward/cpu_seconds": 240,
    }
    assert found["Slow/step/share"] == 22 / 154
    assert found["parts.0/step/share"] == 132 / 154


def test_a_block_watched_from_outside_has_the_time_of_all_in_it(clock: type[TurnedClock]) -> None:
    found = costs_of(nn.Sequential(Slow(1, Slow(3)), Slow(5)), torch.ones(4), layers="0")
    assert found["0/forward/seconds"] == 8
    assert found["0/backward/seconds"] == 80
    assert found["0/step/share"] == 88 / 198


def test_what_does_not_count(clock: type[TurnedClock]) -> None:
    model = Slow(1)
    tooled = TooledModel(model, stats="seconds")
    with torch.no_grad():
        model(torch.ones(4))
    assert tooled.step() == {}
    loss = model(torch.ones(4)).sum()
    model.eval()
    with torch.no_grad():
        model(torch.ones(4))
    first = tooled.step()
    loss.backward()  # after the step's end
    assert "Slow/backward/seconds" not in first
    assert first["Slow/forward/seconds"] == 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_runs_again_within_backward(
    reentrant: bool, clock: type[TurnedClock]
) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Slow(1)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    found = costs_of(Outer(), torch.ones(4, requires_grad=True))
    assert found["inner/forward/seconds"] == 2


def test_an_exception_in_a_layer_leaves_the_others_right(clock: type[TurnedClock]) -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            TurnedClock.time += 100
            raise ValueError(x.shape)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.bad, self.weight = Slow(1), Failing(), nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            x = self.good(x)
            try:
                return self.bad(x)
            except ValueError:
                return self.good(x) * self.weight

    found = costs_of(Outer(), torch.ones(4))
    assert found["good/forward/seconds"] == 4
    assert "bad/forward/seconds" not in found
    assert found["Outer/forward/seconds"] == 100


def test_bytes_are_what_a_layer_returns_anew() -> None:
    model = nn.Sequential(
        nn.Linear(4, 8), nn.Flatten(), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(8, 2))
    )
    found = costs_of(model, torch.ones(16, 4))
    kept = {key: value for key, value in found.items() if key.endswith("bytes")}
    assert kept == {
        "0/forward/bytes": 16 * 8 * 4,
        "1/forward/bytes": 0,  # a view
        "2/forward/bytes": 0,
        "3.0/forward/bytes": 16 * 2 * 4,
    }
    outer = Slow(0, nn.Linear(4, 4))
    found = costs_of(outer, torch.ones(4))
    assert (found["Slow/forward/bytes"], found["parts.0/forward/bytes"]) == (16, 16)


def step_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The weights after two training steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return [weight.detach().clone() for weight in model.parameters()]


def test_training_is_the_same_to_the_bit_and_so_are_pickles() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    plain, watched = pickle.dumps(model), pickle.loads(pickle.dumps(model))  # noqa: S301
    x = torch.randn(5, 1, 8, 8)
    handles = RemovableHandle.next_id
    with TooledModel(watched, stats=("seconds", "bytes", "std")):
        found = step_of(watched, x)
        assert RemovableHandle.next_id == handles
    assert len(pickle.dumps(watched)) == len(plain)
    for one, other in zip(step_of(model, x), found, strict=True):
        assert torch.equal(one, other)


def test_seconds_of_an_accelerator_are_read_when_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tooled_model, "clock_for", lambda _: LateClock())
    model, LateClock.reads = Slow(1), 0
    with Recorder(tmp_path / "run.h5", flush_seconds=60) as rec:
        tooled = rec.watch(model, stats=("seconds", "std"), sources="weights")
        for _ in range(3):
            model(torch.ones(4)).sum().backward()
            rec.step()
        assert not LateClock.reads
        assert tooled.stats()["Slow"]["backward"]["seconds"] == 20
    with Recording(tmp_path / "run.h5") as run:
        assert run["Slow/forward/seconds"].value.tolist() == [2.0] * 3
        assert run["Slow/step/share"].value.tolist() == [1.0] * 3
        assert len(run["Slow/weights/std"]) == 3


def test_a_number_that_an_accelerator_cannot_give_is_nan(tmp_path: Path) -> None:
    def fail() -> float:
        raise RuntimeError("CUDA error")

    with Recorder(tmp_path / "run.h5") as rec:
        rec.add({"a": Later(fail), "b": Later(lambda: 2.0), "c": 1.0})
    with Recording(tmp_path / "run.h5") as run:
        assert np.isnan(run["a"].value).all()
        assert (run["b"].value[0], run["c"].value[0]) == (2.0, 1.0)


def test_events_of_cuda_give_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        """As torch.cuda.Event, recorded on the turned clock."""

        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            self.is_done = False

        def record(self) -> None:
            self.time = TurnedClock.time

        def synchronize(self) -> None:
            self.is_done = True

        def elapsed_time(self, end: "Event") -> float:
            assert end.is_done
            return 1000.0 * (end.time - self.time)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 64 * TurnedClock.time)
    monkeypatch.setattr(tooled_model, "clock_for", lambda _: costs.CudaClock())
    found = costs_of(Slow(1, Slow(3)), torch.ones(4))
    seconds = {k: float(v) for k, v in found.items() if k.endswith("/seconds")}
    assert seconds["Slow/forward/seconds"] == 2
    assert seconds["parts.0/backward/seconds"] == 60
    assert found["Slow/forward/bytes"] == 2 * 64
    assert found["parts.0/forward/bytes"] == 6 * 64


def test_costs_go_with_other_statistics_or_alone() -> None:
    model = nn.Linear(2, 2)
    both = costs_of(model, torch.ones(3, 2))
    assert {key.split("/")[1] for key in both} == {"forward", "backward", "step"}
    with pytest.raises(DefinitionError, match="no statistic 'second'; did you mean 'seconds'"):
        TooledModel(model, stats="second")
    with pytest.raises(DefinitionError, match="nothing to take"):
        TooledModel(model, stats=())


def test_several_that_watch_a_model_see_all_of_it() -> None:
    """Nodes of the graph keep the hooks of each, though the number of handles is put back."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    every = [TooledModel(model, stats=("seconds",)) for _ in range(3)]
    model(torch.randn(3, 4)).mean().backward()
    for tooled in every:
        timed = {key for key in tooled.step() if key.endswith("backward/seconds")}
        assert timed == {f"{layer}/backward/seconds" for layer in range(3)}


def test_the_preset_profile_and_auto_draw_them(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with Recorder(tmp_path / "run.h5") as rec:
        rec.watch(model, stats=("seconds", "bytes"))
        for _ in range(2):
            model(torch.ones(3, 2)).sum().backward()
            rec.step()
        rec.log()
    with Recording(tmp_path / "run.h5") as run:
        windows = play(run, preset("profile"))
        drawn = [window.win for window in play(run)]
    assert [window.win for window in windows] == [
        *("step/share", "forward/seconds", "backward/seconds", "forward/bytes")
    ]
    assert [trace.name for trace in windows[0].traces] == ["0 Linear", "1 Linear"]
    assert drawn == [window.win for window in windows]
