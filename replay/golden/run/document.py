"""The text of a golden of a run: written, so that git shows which step and key changed, and read.

    {
    "golden": "run",
    "version": 1,
    "facts": {
    "python": "3.11.7"
    },
    "config": null,
    "keys": [
    "train_loss",
    "lr"
    ],
    "values": [
    [0, "train_loss", 2.302585],
    [0, "lr", 0.1],
    [1, "aK3+x0"]
    ]
    }

A line of `values` is a step, a key and its values there; or a step and the codes of the keys, in
their order, of which the values are not kept. In a learnt golden a line ends with the tolerance, as
in `[1, "train_loss", 2.3, "+-0.02"]`.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import GoldenError
from flexrec.recorder.files.atomic_write import Kind
from flexrec.replay.golden.files import read_json
from flexrec.replay.golden.run.kept import CODE, Cell, Cells, KeptRun, Plain, Rule, code_of

VERSION = 1
_LINES = 250  # of values, in a golden whose `every` is not given
_FEWEST = 5  # values of each key, however many keys there are
_NO_CODE = "-" * CODE
_WITHIN = re.compile(r"\+-(.+)")
_LONGEST = 60  # characters of a line that a message shows
_NOT_FINITE = ("nan", "inf", "-inf")
_STEPS = range(-(1 << 63), 1 << 63)
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _holds_golden(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"{"):  # the file may be large
            return False
    try:
        return _is_golden(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError):
        return False


def _is_golden(document: Any) -> bool:
    return isinstance(document, dict) and document.get("golden") == "run"


GOLDEN_RUN = Kind("a golden of a run", _holds_golden)


def thinned(run: KeptRun, every: int | None = None) -> KeptRun:
    """Keep the values of every n-th step of a key, and of the others their codes.

    Args:
        run: the run, with all values.
        every: n; by default 1, 2, 5, 10, 20, 50 … so that about 250 values are kept.
    """
    most = max(_FEWEST, _LINES // max(1, len(run.cells)))
    cells = {key: thinned_cells(of_key, every, most) for key, of_key in run.cells.items()}
    return replace(run, cells=cells, every=every)


def thinned_cells(cells: Cells, every: int | None, most: int) -> Cells:
    """Keep every n-th of a key's cells, at most so many by default, and of the others the codes."""
    n = every or spacing(len(cells), most)
    return {
        step: cell if i % n == 0 else Cell(cell.code)
        for i, (step, cell) in enumerate(cells.items())
    }


def spacing(count: int, most: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 … that leaves at most so many.

    >>> spacing(100, 100), spacing(100, 12)
    (1, 10)
    """
    n = 1
    while math.ceil(count / n) > most:
        n = n * 5 // 2 if str(n)[0] == "2" else n * 2
    return n


# ---------------------------------------------------------------- written


def dump(run: KeptRun) -> str:
    """The text of a golden; the same run gives the same text."""
    head: dict[str, Any] = {"golden": "run", "version": VERSION}
    head |= {"every": run.every} if run.every else {}
    if run.learnt and run.rule:
        head |= {"learnt from": run.learnt, "differs": asdict(run.rule)}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    for name, value in (("facts", run.facts), ("config", run.config)):
        lines.append(f'"{name}": {_by_line(value)}')
    lines.append(f'"keys": [\n{_joined(map(json.dumps, run.cells))}\n]')
    lines.append(f'"values": [\n{_joined(_lines(run))}\n]')
    return f"{{\n{_joined(lines)}\n}}\n"


def _joined(lines: Any) -> str:
    return ",\n".join(lines)


def _by_line(value: Any) -> str:
    """A JSON object with a line for each of its members."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    members = (f"{json.dumps(name)}: {json.dumps(each)}" for name, each in value.items())
    return f"{{\n{_joined(members)}\n}}"


def _lines(run: KeptRun) -> Iterator[str]:
    for step in sorted({step for cells in run.cells.values() for step in cells}):
        codes = ""
        for key, cells in run.cells.items():
            cell = cells.get(step)
            codes += _NO_CODE if cell is None or cell.values else cell.code
            if cell is not None and cell.values:
                tolerance = [] if cell.within is None else [f"+-{_number(cell.within)}"]
                yield json.dumps([step, key, *map(_member, cell.values), *tolerance])
        if codes.strip("-"):
            yield json.dumps([step, codes])


def _member(value: Plain) -> Any:
    if not isinstance(value, dict):
        return _number(value)
    if "parts" in value:
        return {"parts": [_member(part) for part in value["parts"]]}
    return {**value, "rms": _number(value["rms"])} if "rms" in value else value


def _number(value: float) -> float | int | str:
    if not math.isfinite(value):
        return str(value)
    is_whole = (
        value.is_integer() and abs(value) < 1 << 53 and (value or math.copysign(1, value) > 0)
    )
    return int(value) if is_whole else value


# ---------------------------------------------------------------- read


def read(path: Path) -> KeptRun:
    """Read a golden of a run.

    Raises:
        GoldenError: there is none, or it is not one, or a newer flexrec wrote it.
    """
    document = read_json(path, "a golden of a run")
    if not _is_golden(document):
        raise GoldenError(f"{path} is no golden of a run: name another, or remove it")
    if document.get("version") != VERSION:
        raise GoldenError(
            f"{path} is of version {document.get('version')!r}, this flexrec reads {VERSION}: "
            "install a newer flexrec, or remove the golden to have it written again"
        )
    try:
        return _run(document, path.name)
    except _DAMAGE as error:
        raise GoldenError(f"{path} is damaged: {error}; get it from git again") from None


def _run(document: dict[str, Any], name: str) -> KeptRun:
    keys = document["keys"]
    if not isinstance(keys, list) or len({str(key) for key in keys}) < len(keys):
        raise ValueError("a key is there twice")
    cells: dict[str, Cells] = {str(key): {} for key in keys}
    for line in document["values"]:
        step = line[0]
        if type(step) is not int or step not in _STEPS:
            raise ValueError(f"{_short(line)} does not begin with a step")
        if len(line) == 2:
            _take_codes(cells, step, line[1])
        else:
            _take(cells[line[1]], step, _cell(line[2:]))
    every, learnt, rule = _counts(document)
    kept = {key: dict(sorted(of_key.items())) for key, of_key in cells.items()}
    _check_tolerances(kept, learnt)
    return KeptRun(name, kept, document.get("config"), document.get("facts"), every, learnt, rule)


def _counts(document: dict[str, Any]) -> tuple[int | None, int, Rule | None]:
    """Its `every`, the number of runs it was learnt from, and its rule."""
    every = document.get("every")
    if every is not None:
        _count(every)
    if "learnt from" not in document and "differs" not in document:
        return every, 0, None
    rule = Rule(**{name: _count(value) for name, value in document["differs"].items()})
    return every, _count(document["learnt from"]), rule


def _count(value: Any) -> int:
    if type(value) is not int or value not in range(1, 1 << 31):
        raise ValueError(f"{_short(value)} is no number of 1 or more")
    return value


def _check_tolerances(kept: dict[str, Cells], learnt: int) -> None:
    """Check that a learnt golden is one of numbers, with a tolerance at all steps of a key."""
    if learnt and not any(kept.values()):
        raise ValueError("it was learnt, and has no values")
    for key, of_key in kept.items():
        found = {cell.within is None for cell in of_key.values()}
        if found - {True} and (len(found) > 1 or not learnt):
            raise ValueError(f"some values of {key} have a tolerance, and others have none")


def _take(cells: Cells, step: int, cell: Cell) -> None:
    if step in cells:
        raise ValueError(f"two lines of step {step} have the same key")
    cells[step] = cell


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _take_codes(cells: dict[str, Cells], step: int, codes: str) -> None:
    if not isinstance(codes, str) or len(codes) != CODE * len(cells):
        raise ValueError(f"step {step} has no {CODE * len(cells)} characters of codes")
    for i, of_key in enumerate(cells.values()):
        code = codes[CODE * i : CODE * (i + 1)]
        if code != _NO_CODE:
            _take(of_key, step, Cell(code))


def _cell(members: list[Any]) -> Cell:
    within = _WITHIN.fullmatch(members[-1]) if isinstance(members[-1], str) else None
    values = tuple(_value(each) for each in members[: -1 if within else None])
    if not values:
        raise ValueError(f"{_short(members)} has no value")
    if within is None:
        return Cell(code_of(values), values)
    cell = Cell("", values, float(within[1]))
    is_number = cell.number is not None and math.isfinite(cell.number)
    if not is_number or not 0 <= float(within[1]) < math.inf:
        raise ValueError(f"{_short(members)} is no number with a tolerance")
    return cell


def _value(member: Any) -> Plain:
    """A value, as `_member` writes it."""
    if not isinstance(member, dict):
        return _float(member)
    if member.keys() == {"text"} and isinstance(member["text"], str):
        return member
    if member.keys() == {"parts"} and isinstance(member["parts"], list):
        return {"parts": [_value(part) for part in member["parts"]]}
    dtype, shape = next(iter(member.items()), ("", None))
    is_shape = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not is_shape or not member.keys() - {"rms", "accelerator"} == {dtype, "bits"}:
        raise ValueError(f"{_short(member)} is no value")
    return {**member, "rms": _float(member["rms"])} if "rms" in member else member


def _float(member: Any) -> float:
    if type(member) not in (int, float) and member not in _NOT_FINITE:
        raise ValueError(f"{_short(member)} is no number")
    return float(member)
