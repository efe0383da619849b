"""Many recordings against one: which are equal, and where the others begin to differ."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from flexrec.recorder.errors import QueryError, RecordingError, counted
from flexrec.recorder.recording import Recording
from flexrec.replay.diff.compare import diff
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.runs.scan import scan
from flexrec.replay.runs.workers.spread import Workers, spread


@dataclass(frozen=True)
class DiffOfMany:
    """The differences of many recordings from one. Printing it gives a line for each.

    Attributes:
        one: the path of the one.
        found: for each path the differences, or why it cannot be compared, in the order of the
            paths.
    """

    one: str
    found: Mapping[str, RunDiff | str]

    @property
    def equal(self) -> bool:
        """Whether all are equal to the one."""
        return all(isinstance(each, RunDiff) and each.equal for each in self.found.values())

    @property
    def failed(self) -> int:
        """How many cannot be compared."""
        return sum(isinstance(each, str) for each in self.found.values())

    def __str__(self) -> str:
        width = max(map(len, self.found))
        lines = [f"{path:<{width}}  {_headline(each)}" for path, each in self.found.items()]
        equal = sum(isinstance(each, RunDiff) and each.equal for each in self.found.values())
        differ = len(self.found) - equal - self.failed
        said = [f"{equal:,} equal to {self.one}", f"{differ:,} different"]
        said += [f"{self.failed:,} not comparable"] if self.failed else []
        return "\n".join([*lines, f"{counted(len(self.found), 'run')}: {', '.join(said)}"])

    def table(self) -> dict[str, Any]:
        """Convert to plain JSON values; numbers that are not finite become texts."""
        runs = [
            {"path": path, "error": None, **each.table()}
            if isinstance(each, RunDiff)
            else {"path": path, "error": each}
            for path, each in self.found.items()
        ]
        return {"a": self.one, "equal": self.equal, "runs": runs}


def _headline(found: RunDiff | str) -> str:
    return f"not comparable: {found}" if isinstance(found, str) else found.headline


def diff_many(
    one: str | os.PathLike[str],
    places: Sequence[str | os.PathLike[str]],
    *,
    keys: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    rtol: float = 0.0,
    atol: float = 0.0,
    workers: Workers | None = None,
    tell: Callable[[int, int], None] = lambda _, __: None,
) -> DiffOfMany:
    """Compare recordings with one.

    Args:
        one: the recording that the others are compared with.
        places: the others: files; folders, which are searched, and patterns, without the one.
        keys, rename, rtol, atol: as in `flexrec.diff`.
        workers: who compares; None: this process does.
        tell: called with the number of recordings compared so far, and of all.

    Raises:
        DefinitionError: a tolerance is negative, or `rename` gives one name to two keys.
        QueryError: there is no recording to compare.
        RecordingError: the one cannot be read, or no recording has a key that `keys` names.
        WorkerError: the workers cannot be reached, do not fit, or died.
    """
    Recording(one).close()  # if it cannot be read, nothing can be compared
    files = [os.fspath(place) for place in places if not os.path.isdir(place)]
    real = os.path.realpath(one)
    others = [
        each for each in scan(places) if each.path in files or os.path.realpath(each.path) != real
    ]
    if not others:
        raise QueryError("there is no recording to compare in these places")
    compare = partial(
        _compared,
        one=os.path.abspath(one),
        keys=tuple(keys),
        rename=dict(rename or {}),
        rtol=rtol,
        atol=atol,
    )
    found: dict[str, RunDiff | str] = {}
    with closing(spread(compare, [each.real for each in others], workers, reads=str)) as compared:
        for other, result in zip(others, compared, strict=True):
            found[other.path] = (
                result
                if isinstance(result, RunDiff)
                else str(result).replace(other.real, other.path)
            )
            tell(len(found), len(others))
    return DiffOfMany(os.fspath(one), found)


def _compared(
    other: str, one: str, keys: Sequence[str], rename: Mapping[str, str], rtol: float, atol: float
) -> RunDiff | RecordingError:
    """Compare two recordings, or return why they cannot be; also a worker calls this."""
    try:
        return diff(one, other, keys=keys, rename=rename, rtol=rtol, atol=atol)
    except RecordingError as error:
        return error
