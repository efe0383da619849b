"""The costs of layers in one step: their time forward and backward, and the memory they keep.

A layer's costs are its own: those of the watched layers that are called inside it are theirs.
"""

import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from flexrec.recorder.events import Later
from flexrec.recorder.layers.failures import Failures
from flexrec.recorder.layers.measuring.measures import local
from flexrec.recorder.layers.torch_private import add_node_hooks, next_sequence_number, nodes_since

Cost: TypeAlias = float | Later


class Moment(NamedTuple):
    """A moment: of the wall clock, or an event of an accelerator; and of the processor's clock."""

    wall: Any
    processor: float


Span: TypeAlias = tuple[Moment, Moment]


class Clock:
    """Tells moments, and the seconds between them, on the CPU."""

    def now(self) -> Moment:
        """The current moment."""
        return Moment(time.perf_counter(), time.process_time())

    def seconds(self, plus: Sequence[Span], minus: Sequence[Span] = ()) -> float:
        """The sum of the spans, without those in `minus`."""
        return sum(self._between(*span) for span in plus) - sum(
            self._between(*span) for span in minus
        )

    def settled(self, read: Callable[[], float]) -> Cost:
        """A result computed from seconds, now if they are known already."""
        return read()

    def memory(self) -> int | None:
        """The bytes that are allocated; None if that is not known."""
        return None

    def _between(self, start: Moment, end: Moment) -> float:
        return float(end.wall - start.wall)


class CudaClock(Clock):
    """The same on CUDA: events on the current stream, which are read when values are written."""

    def now(self) -> Moment:
        """The moment at which the device has done what is queued now."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return Moment(event, time.process_time())

    def settled(self, read: Callable[[], float]) -> Cost:
        """A number that is read later."""
        return Later(read)

    def memory(self) -> int:
        """The bytes that torch's allocator has given out."""
        return torch.cuda.memory_allocated()

    def _between(self, start: Moment, end: Moment) -> float:
        end.wall.synchronize()
        return float(start.wall.elapsed_time(end.wall)) / 1000


def clock_for(tensors: Iterable[Tensor]) -> Clock:
    """The clock for a model with these parameters."""
    return CudaClock() if any(tensor.is_cuda for tensor in tensors) else Clock()


@dataclass
class _Call:
    """A running call of a layer.

    Attributes:
        depth: the number of running calls of modules, with it.
        first: the number of the first node that it adds to the autograd graph.
        came: the storages that its arguments are in, and those that its parts returned.
        memory: the bytes that were allocated when it began.
    """

    layer: str
    depth: int
    start: Moment
    first: int
    came: set[int]
    memory: int | None


@dataclass
class _Costs:
    """The spans and bytes of a layer: `inside` are the spans of the layers called inside it."""

    forward: list[Span] = field(default_factory=list)
    inside: list[Span] = field(default_factory=list)
    backward: list[Span] = field(default_factory=list)
    kept: int = 0
    kept_inside: int = 0


class StepCosts:
    """Collects the costs of layers in one step.

    Args:
        wanted: the statistics to take, of `COSTS`.
        failures: collects what could not be measured.
        clock: tells the time.
    """

    def __init__(self, wanted: Collection[str], failures: Failures, clock: Clock) -> None:
        self._wanted, self._failures, self._clock = wanted, failures, clock
        self._of = defaultdict[str, _Costs](_Costs)
        self._running = _Running()
        self._timed: set[int] = set()  # nodes, by their sequence numbers
        self._begin = clock.now()
        self._end: Moment | None = None
        self._itself = weakref.ref(self)

    def enter(self, layer: str, depth: int, tensors: Iterable[Tensor]) -> None:
        """Handle the start of a layer's call."""
        came = set(_storages(tensors)) if "bytes" in self._wanted else set()
        memory = self._clock.memory() if "bytes" in self._wanted else None
        first = next_sequence_number()
        call = _Call(layer, depth, self._clock.now(), first, came, memory)
        self._running.calls.append(call)

    def result(self, depth: int, tensors: Callable[[], Iterable[Tensor]]) -> None:
        """Handle the output of the call at this depth, if it is a layer's that was entered."""
        calls = self._running.calls
        if not calls or calls[-1].depth != depth:
            return
        end, call = self._clock.now(), calls[-1]
        outer = calls[-2] if len(calls) > 1 else None
        self._of[call.layer].forward.append((call.start, end))
        if outer is not None:
            self._of[outer.layer].inside.append((call.start, end))
        with self._failures.leaving_out(call.layer, "forward"):
            outputs = list(tensors())
            if "bytes" in self._wanted:
                self._keep(call, outer, outputs)
            if "seconds" in self._wanted and torch.is_grad_enabled():
                self._time_backward(call, outputs)

    def leave(self, depth: int) -> None:
        """Handle the end of calls, also by an exception; `depth` calls are still running."""
        calls = self._running.calls
        while calls and calls[-1].depth > depth:
            calls.pop()

    def close(self) -> None:
        """End the step: hooks in a graph that still exists do nothing from now on."""
        self._end = self._end or self._clock.now()

    def values(self) -> dict[str, Cost]:
        """The costs so far by key."""
        values: dict[str, Cost] = {}
        step = (self._begin, self._end or self._clock.now())
        for layer, costs in self._of.items():
            if "seconds" in self._wanted and costs.forward:
                values |= self._times(layer, costs, step)
            if "bytes" in self._wanted and costs.forward:
                values[f"{layer}/forward/bytes"] = float(costs.kept - costs.kept_inside)
        return values

    def _times(self, layer: str, costs: _Costs, step: Span) -> dict[str, Cost]:
        clock, backward = self._clock, list(costs.backward)
        forward, inside = list(costs.forward), list(costs.inside)

        def share() -> float:
            whole = clock.seconds([step])
            return clock.seconds([*forward, *backward], inside) / whole if whole else 0.0

        values: dict[str, Cost] = {
            f"{layer}/forward/seconds": clock.settled(lambda: clock.seconds(forward, inside)),
            f"{layer}/forward/cpu_seconds": _processor(forward) - _processor(inside),
        }
        if backward:
            values[f"{layer}/backward/seconds"] = clock.settled(lambda: clock.seconds(backward))
            values[f"{layer}/backward/cpu_seconds"] = _processor(backward)
        values[f"{layer}/step/share"] = clock.settled(share)
        return values

    def _keep(self, call: _Call, outer: _Call | None, outputs: Sequence[Tensor]) -> None:
        """Count the bytes that a call keeps: its outputs' storages, or what the device says."""
        costs, storages = self._of[call.layer], _storages(outputs)
        if call.memory is None:
            costs.kept += sum(n for place, n in storages.items() if place not in call.came)
        else:
            grown = (self._clock.memory() or 0) - call.memory
            costs.kept += grown
            if outer is not None:
                self._of[outer.layer].kept_inside += grown
        if outer is not None:
            outer.came.update(storages)

    def _time_backward(self, call: _Call, outputs: Sequence[Tensor]) -> None:
        """Time the nodes of the autograd graph that a call added, without those of its parts."""
        spans = self._of[call.layer].backward
        for number, node in nodes_since(outputs, call.first).items():
            if number not in self._timed:
                self._timed.add(number)
                self._time(node, spans)

    def _time(self, node: Any, spans: list[Span]) -> None:
        itself, started = self._itself, list[Moment]()

        def before(_: Any) -> None:
            costs = itself()
            if costs is not None and costs._end is None:
                started[:] = [costs._clock.now()]

        def after(_: Any, __: Any) -> None:
            costs = itself()
            if costs is not None and costs._end is None and started:
                spans.append((started.pop(), costs._clock.now()))

        add_node_hooks(node, before, after)


class _Running(threading.local):
    """The running calls of layers in each thread."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []


def _processor(spans: Iterable[Span]) -> float:
    return sum(end.processor - start.processor for start, end in spans)


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """The sizes in bytes of the storages that tensors are in, by their address."""
    storages = (local(tensor).untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
