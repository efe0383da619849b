"""What a loss of power may leave of a folder: states made from a log of tests/support/power_shim.c.

What was synced before the loss is kept. Of the writes after that, a state keeps some: see `LOSSES`.
Disks write whole sectors, so a write may be torn between two of them; a sector that is not being
written keeps its bytes, as SQLite assumes too. Names follow the order of the calls: those up to the
last sync of the folder (`strict`; or, as on ext4, of any file) are kept, and some that follow.
"""

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = [
    "CREATE",
    "LINK",
    "LOSSES",
    "MARK",
    "RENAME",
    "SYNC",
    "SYNC_FOLDER",
    "TRUNCATE",
    "UNLINK",
    "WRITE",
    "Log",
    "Op",
    "build_power_shim",
    "make_state",
    "write_whole",
]

WRITE, TRUNCATE, SYNC, SYNC_FOLDER, CREATE, RENAME, LINK, UNLINK, MARK, UNKNOWN = range(1, 11)
_HEAD = struct.Struct("<IIqq")
_NAMES = (CREATE, RENAME, LINK, UNLINK)

LOSSES = ("all", "some", "torn", "last", "sectors")
"""Of the writes that were not synced: all are lost; some are, and some are torn; those up to a
point are kept, and the next is torn; the last alone is torn; each sector holds what it held at
some time."""


@dataclass(frozen=True)
class Op:
    """A call.

    Attributes:
        file: which file it changes or syncs; files that have had one inode are told apart.
        at: where, how long the file is then, or what was promised.
        data: what is written there.
        names: of a call that changes names: one or two.
    """

    kind: int
    file: int = -1
    at: int = 0
    data: bytes = b""
    names: tuple[str, ...] = ()


@dataclass
class Log:
    """The calls of a process, in order."""

    ops: list[Op] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> "Log":
        """Read what the shim wrote."""
        data, at, ops = path.read_bytes(), 0, list[Op]()
        files: dict[int, int] = {}  # by inode, of which a file that is gone may leave its own
        while at < len(data):
            kind, size, inode, place = _HEAD.unpack_from(data, at)
            at += _HEAD.size + size
            rest = data[at - size : at]
            if kind == UNKNOWN:
                raise ValueError(f"a call that the log cannot follow: {rest.decode()}")
            if kind == CREATE:
                files[inode] = len(ops)
            op = Op(kind, files.get(inode, -1), place)
            if kind in _NAMES:
                names = tuple(n.lstrip("/") for n in rest.decode().split("\0"))
                op = replace(op, names=names)
            elif kind == WRITE:
                op = replace(op, data=rest)
            ops.append(op)
        return Log(ops)

    def promises(self, point: int) -> list[int]:
        """What was marked before a point."""
        return [op.at for op in self.ops[:point] if op.kind == MARK]


def build_power_shim(folder: Path) -> Path:
    """Compile the shim with the system's C compiler."""
    library, source = folder / "power_shim.so", Path(__file__).with_name("power_shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def write_whole(log: Log, folder: Path) -> None:
    """Make what the folder holds where no power was lost."""
    for file, names in _by_file(_names(log.ops)):
        image = _Image(folder / names[0], 512)
        for op in log.ops:
            if op.file == file:
                image.keep(op)
        image.finish()
        _link(folder, names)


def make_state(log: Log, folder: Path, seed: int, sector: int) -> tuple[int, str]:
    """Make what a loss of power at a random point leaves of the folder.

    Returns:
        The point, and in a few words, what was lost.
    """
    chance = random.Random(f"{seed} {sector}")  # noqa: S311 - no secret
    point = chance.randint(0, len(log.ops))
    loss, strict = chance.choice(LOSSES), chance.random() < 0.5
    ops = log.ops[:point]
    junk = chance.random() < 0.25  # lost places that were never written hold random bytes
    grown = chance.random() < 0.5  # files are as long as they were, whatever of them is lost
    files = list(_by_file(_names_left(ops, chance, strict=strict)))
    left = _left(ops, {file for file, _ in files}, loss, chance)
    for file, names in files:
        image = _Image(folder / names[0], sector)
        for i, op in enumerate(ops):
            if op.file == file and op.kind in (WRITE, TRUNCATE):
                image.put(op, left.get(i, "kept"), chance)
        image.finish(chance if junk else None, grown=grown)
        _link(folder, names)
    how = [loss, "strict" if strict else "ext4", *["junk"] * junk, *["grown"] * grown]
    return point, f"call {point} of {len(log.ops)}, {' '.join(how)}"


# ---------------------------------------------------------------------- names


def _names(ops: list[Op]) -> dict[str, int]:
    """Which file each name is of, after some calls."""
    names: dict[str, int] = {}
    for op in ops:
        if op.kind == CREATE:
            names[op.names[0]] = op.file
        elif op.kind == RENAME:
            names[op.names[1]] = names.pop(op.names[0])
        elif op.kind == LINK:
            names[op.names[1]] = names[op.names[0]]
        elif op.kind == UNLINK:
            names.pop(op.names[0])
    return names


def _names_left(ops: list[Op], chance: random.Random, *, strict: bool) -> dict[str, int]:
    syncs = (SYNC_FOLDER,) if strict else (SYNC_FOLDER, SYNC)
    synced = max((i for i, op in enumerate(ops) if op.kind in syncs), default=-1)
    later = [i for i in range(synced + 1, len(ops)) if ops[i].kind in _NAMES]
    return _names(ops[: chance.choice([*later, len(ops)])])


def _by_file(names: dict[str, int]) -> Iterator[tuple[int, list[str]]]:
    for file in dict.fromkeys(names.values()):
        yield file, [name for name, its in names.items() if its == file]


def _link(folder: Path, names: list[str]) -> None:
    for name in names[1:]:
        os.link(folder / names[0], folder / name)


# ---------------------------------------------------------------------- data


def _left(ops: list[Op], files: set[int], loss: str, chance: random.Random) -> dict[int, str]:
    """What becomes of each call that a file's last sync does not cover."""
    later: dict[int, list[int]] = {file: [] for file in files}
    for i, op in enumerate(ops):
        if op.file in files and op.kind == SYNC:
            later[op.file].clear()
        elif op.file in files and op.kind in (WRITE, TRUNCATE):
            later[op.file].append(i)
    calls = sorted(i for its in later.values() for i in its)
    if loss in ("all", "sectors"):
        return dict.fromkeys(calls, "lost" if loss == "all" else "sectors")
    if loss == "some":
        share = chance.choice((0.1, 0.5, 0.9))
        return {
            i: chance.choice(("lost", "lost", "torn")) if chance.random() < share else "kept"
            for i in calls
        }
    end = len(calls) - 1 if loss == "last" else chance.randint(0, len(calls))
    return {i: ("kept", "torn", "lost")[(n >= end) + (n > end)] for n, i in enumerate(calls)}


class _Image:
    """A file that is put together out of writes, or of sectors of them."""

    def __init__(self, path: Path, sector: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._sector = sector
        self._end = self._longest = 0
        self._there = set[int]()  # sectors that were written, and those that were to be
        self._lost = set[int]()
        self._frozen: dict[int, bool] = {}  # of sectors: whether they take no more

    def keep(self, op: Op) -> None:
        """Do what was done."""
        if op.kind == WRITE:
            os.pwrite(self._descriptor, op.data, op.at)
            self._there.update(range(op.at // self._sector, self._after(op)))
            self._end = max(self._end, op.at + len(op.data))
        elif op.kind == TRUNCATE:
            os.ftruncate(self._descriptor, op.at)
            self._end = self._longest = op.at
        self._longest = max(self._longest, self._end)

    def put(self, op: Op, fate: str, chance: random.Random) -> None:
        """Do a call, or a part of it, or nothing."""
        if op.kind == TRUNCATE and fate in ("torn", "sectors"):
            fate = chance.choice(("kept", "lost"))
        if fate == "kept":
            self.keep(op)
            return
        if op.kind == TRUNCATE:
            self._longest = max(self._longest, op.at)
            return
        self._longest = max(self._longest, op.at + len(op.data))
        first, last = op.at // self._sector, self._after(op)
        if fate == "lost":
            self._lost.update(range(first, last))
            return
        share = chance.choice((0.1, 0.5, 0.9))  # of the sectors that are kept
        cut = chance.randint(first, last) if chance.random() < 0.5 else None
        for number in range(first, last):
            if fate == "sectors":
                # Once a sector is at what it held at some time, nothing later reaches it.
                frozen = self._frozen.get(number, False) or chance.random() < 0.3
                self._frozen[number] = frozen
                is_kept = not frozen
            else:
                is_kept = number < cut if cut is not None else chance.random() < share
            if not is_kept:
                self._lost.add(number)
                continue
            begin = max(number * self._sector - op.at, 0)
            piece = op.data[begin : (number + 1) * self._sector - op.at]
            self.keep(Op(WRITE, op.file, op.at + begin, piece))

    def finish(self, junk: random.Random | None = None, *, grown: bool = False) -> None:
        """Close it; where it is told so, it is long already, or lost sectors hold random bytes."""
        if grown and self._longest > self._end:
            os.ftruncate(self._descriptor, self._longest)
            self._end = self._longest
        for number in sorted(self._lost - self._there) if junk else ():
            room = min(self._end - number * self._sector, self._sector)
            if junk and room > 0:
                os.pwrite(self._descriptor, junk.randbytes(room), number * self._sector)
        os.close(self._descriptor)

    def _after(self, op: Op) -> int:
        """The sector behind those of a write."""
        return -(-(op.at + len(op.data)) // self._sector)
