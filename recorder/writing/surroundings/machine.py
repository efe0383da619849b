"""Read the machine: processors, memory, disk and network with psutil, GPUs with NVML.

Percentages, bytes, and rates since the last reading. What a system does not tell is left out.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from flexrec.recorder.errors import MissingDependency

_Reading = Iterator[tuple[str, float]]


class Machine:
    """Reads the machine that this process runs on.

    >>> "memory_percent" in Machine(Path("run.h5")).read()
    True

    Args:
        path: a file; the disk is the one that it is on.
        clock: tells seconds.

    Raises:
        MissingDependency: psutil is not installed.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = monotonic) -> None:
        try:
            import psutil
        except ImportError as error:
            raise MissingDependency.of("monitor=", "psutil") from error
        self._psutil, self._clock, self._folder = psutil, clock, path.absolute().parent
        self._process = psutil.Process(os.getpid())
        self._gpus = _gpus()
        self._counts = dict[str, tuple[float, float]]()
        self.read()  # percentages and rates are those since the last reading

    def read(self) -> dict[str, float]:
        """Read everything that can be read, by name."""
        found: dict[str, float] = {}
        for part in (self._processors, self._memory, self._disk, self._network, self._devices):
            with suppress(Exception):  # a part of the machine that cannot be read
                for name, value in part():
                    found[name] = float(value)
        return found

    def _processors(self) -> _Reading:
        yield "cpu_percent", self._psutil.cpu_percent()
        yield "process_cpu_percent", self._process.cpu_percent()  # of one processor

    def _memory(self) -> _Reading:
        yield "memory_percent", self._psutil.virtual_memory().percent
        yield "process_memory_bytes", self._process.memory_info().rss

    def _disk(self) -> _Reading:
        yield "disk_percent", self._psutil.disk_usage(os.fspath(self._folder)).percent
        total = self._psutil.disk_io_counters()
        if total is not None:
            yield from self._rate("disk_read_bytes_per_second", total.read_bytes)
            yield from self._rate("disk_write_bytes_per_second", total.write_bytes)

    def _network(self) -> _Reading:
        total = self._psutil.net_io_counters()
        if total is not None:
            yield from self._rate("network_sent_bytes_per_second", total.bytes_sent)
            yield from self._rate("network_received_bytes_per_second", total.bytes_recv)

    def _rate(self, name: str, count: float) -> _Reading:
        """The rate of a count since its last reading; nothing at the first, or if it fell."""
        now = self._clock()
        before, then = self._counts.get(name, (count, now))
        self._counts[name] = count, now
        if now > then and count >= before:
            yield name, (count - before) / (now - then)

    def _devices(self) -> _Reading:
        for number, (nvml, handle) in self._gpus.items():
            for name, ask in _OF_A_GPU.items():
                with suppress(Exception):  # not every GPU tells everything, and one may be lost
                    yield f"gpu{number}_{name}", float(ask(nvml, handle))


_OF_A_GPU: dict[str, Callable[[Any, Any], float]] = {
    "percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory_percent": lambda nvml, gpu: (
        100 * nvml.nvmlDeviceGetMemoryInfo(gpu).used / nvml.nvmlDeviceGetMemoryInfo(gpu).total
    ),
    "memory_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "watts": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "celsius": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
}


def _gpus() -> dict[int, tuple[Any, Any]]:
    """NVML and its handle of each GPU by its number; empty without NVML or a driver."""
    found = dict[int, tuple[Any, Any]]()
    with suppress(Exception):  # whatever a library or its driver lacks
        import pynvml

        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            with suppress(Exception):  # one that is lost, or belongs to others
                found[number] = pynvml, pynvml.nvmlDeviceGetHandleByIndex(number)
    return found
