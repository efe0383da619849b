"""The tools that record scalars, one function each: give it a folder and dicts, get the seconds.

Every function records all dicts, one step each, and returns the seconds that the calling thread
spent on it; what is written afterwards (close) is not in it, and the files stay in the folder.
"""

import contextlib
import csv
import io
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from flexrec.recorder import Recorder

__all__ = ["FAST", "SLOW", "Dicts", "Tool"]


class Dicts(Protocol):
    """What is recorded: a dict a step; the first one is asked for its keys alone."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def __getitem__(self, i: int, /) -> Mapping[str, Any]: ...


def flexrec(folder: Path, dicts: Dicts) -> float:
    """Ours."""
    with Recorder(folder / "run.h5", facts=False) as rec:
        start = time.perf_counter()
        for values in dicts:
            rec.add(values)
            rec.step()
        return time.perf_counter() - start


def struct_floor(folder: Path, dicts: Dicts) -> float:
    """What no recorder is likely to beat: step and value by struct.pack into a buffer of 1 MB."""
    pack = struct.Struct("<qd").pack
    buffer = bytearray()
    with (folder / "floor").open("wb", buffering=0) as file:
        start = time.perf_counter()
        for step, values in enumerate(dicts):
            for value in values.values():
                buffer += pack(step, value)
            if len(buffer) > 1 << 20:
                file.write(buffer)
                buffer.clear()
        taken = time.perf_counter() - start
        file.write(buffer)
    return taken


class _Floor:
    """The same behind the calls that a recorder has; it knows no keys, no time, and no types."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file, self._buffer, self._step = file, bytearray(), 0
        self._pack = struct.Struct("<qd").pack

    def add(self, values: Mapping[str, Any]) -> None:
        for value in values.values():
            self._buffer += self._pack(self._step, value)
        if len(self._buffer) > 1 << 20:
            self._file.write(self._buffer)
            self._buffer.clear()

    def step(self) -> None:
        self._step += 1


class _KeyedFloor(_Floor):
    """The same, and which key a value is of: the least that can be read back."""

    def __init__(self, file: io.RawIOBase) -> None:
        super().__init__(file)
        self._pack = struct.Struct("<IId").pack
        self._keys: dict[str, int] = {}

    def add(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            number = self._keys.get(key)
            if number is None:
                number = self._keys[key] = len(self._keys)
            self._buffer += self._pack(number, self._step, value)
        if len(self._buffer) > 1 << 20:
            self._file.write(self._buffer)
            self._buffer.clear()


def struct_calls(folder: Path, dicts: Dicts) -> float:
    """The floor as training code would call it."""
    return _floor(_Floor, folder, dicts)


def struct_keyed(folder: Path, dicts: Dicts) -> float:
    """The same, keeping keys."""
    return _floor(_KeyedFloor, folder, dicts)


def _floor(kind: type[_Floor], folder: Path, dicts: Dicts) -> float:
    with (folder / "floor").open("wb", buffering=0) as file:
        floor = kind(file)
        start = time.perf_counter()
        for values in dicts:
            floor.add(values)
            floor.step()
        return time.perf_counter() - start


def csv_rows(folder: Path, dicts: Dicts) -> float:
    """A row a step."""
    with (folder / "run.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *dicts[0]])
        start = time.perf_counter()
        for step, values in enumerate(dicts):
            writer.writerow([step, *map(float, values.values())])
        return time.perf_counter() - start


def tensorboard(folder: Path, dicts: Dicts) -> float:
    """torch's SummaryWriter."""
    from torch.utils.tensorboard import SummaryWriter

    return _scalars(SummaryWriter(str(folder)), dicts)


def tensorboardx(folder: Path, dicts: Dicts) -> float:
    """tensorboardX."""
    from tensorboardX import SummaryWriter

    return _scalars(SummaryWriter(str(folder)), dicts)


def wandb_offline(folder: Path, dicts: Dicts) -> float:
    """wandb with mode="offline"."""
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=str(folder), project="bench", settings=settings)
    start = time.perf_counter()
    for step, values in enumerate(dicts):
        run.log(dict(values), step=step)
    taken = time.perf_counter() - start
    run.finish()
    return taken


def trackio_local(folder: Path, dicts: Dicts) -> float:
    """trackio, on this machine alone."""
    os.environ["TRACKIO_DIR"] = str(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        import trackio

        trackio.init(project="bench")
        start = time.perf_counter()
        for values in dicts:
            trackio.log({key: float(value) for key, value in values.items()})
        taken = time.perf_counter() - start
        trackio.finish()
    return taken


def aim_local(folder: Path, dicts: Dicts) -> float:
    """aim, into a repository of its own."""
    import aim

    run = aim.Run(repo=str(folder), system_tracking_interval=None, capture_terminal_logs=False)
    start = time.perf_counter()
    for step, values in enumerate(dicts):
        for key, value in values.items():
            run.track(float(value), name=key, step=step)
    taken = time.perf_counter() - start
    run.close()
    return taken


def _scalars(writer: Any, dicts: Dicts) -> float:
    start = time.perf_counter()
    for step, values in enumerate(dicts):
        for key, value in values.items():
            writer.add_scalar(key, value, step)
    taken = time.perf_counter() - start
    writer.close()
    return taken


Tool: TypeAlias = Callable[[Path, Dicts], float]
FAST: dict[str, Tool] = {
    "flexrec": flexrec,
    "struct floor, in the loop itself": struct_floor,
    "struct floor, as add() and step()": struct_calls,
    "struct floor, the same with keys": struct_keyed,
    "csv": csv_rows,
}
SLOW: dict[str, Tool] = {
    "TensorBoard": tensorboard,
    "tensorboardX": tensorboardx,
    "wandb offline": wandb_offline,
    "trackio": trackio_local,
    "aim": aim_local,
}
"""Given fewer dicts: they take long enough."""
