"""Check windows against a golden file, for `flexrec check` and pytest's `plot_check`.

files.py reads and writes the files; compare.py compares, report.py describes the differences.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flexrec.replay.engine.left_out import LeftOut
from flexrec.replay.golden.compare import compare
from flexrec.replay.golden.files import is_to_be_made, settle
from flexrec.replay.golden.model import ABSENT, RTOL, Comparison, Difference
from flexrec.replay.golden.snapshot import read_golden, settings, snapshot
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.env_file import ENVIRONMENT, dump


@dataclass(frozen=True)
class Outcome:
    """The result of a check.

    Attributes:
        path: the golden file.
        comparison: the comparison with the golden file before the check; None if there was none.
        golden, obtained: both documents; `golden` is None if there was none.
        written: whether the golden file was written.
        kept: the file with the obtained document, if it differs and could be written.
        unkept: why that file could not be written; else empty.
        left_out: the values that could not be drawn; each is a difference, too.
    """

    path: Path
    comparison: Comparison | None
    golden: dict[str, Any] | None
    obtained: dict[str, Any]
    written: bool = False
    kept: Path | None = None
    unkept: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no value is left out, and the golden file matches or was just written."""
        return (self.written or bool(self.comparison)) and not self.left_out


def check(
    windows: Iterable[Window],
    path: str | os.PathLike[str],
    *,
    left_out: Sequence[LeftOut] = (),
    rtol: float = RTOL,
    atol: float = 0.0,
    update: bool = False,
    max_points: int | None = None,
    digits: int | None = None,
) -> Outcome:
    """Compare windows with a golden file, or write it.

        outcome = check(play(run, preset("loss")), "loss.json")

    If they differ, the obtained document is written beside the golden file, as
    `NAME.obtained.json`; that file is removed when they are equal again, whoever wrote it. It is
    never written through a link.

    Args:
        windows: the windows to check.
        path: the golden file.
        left_out: values that could not be drawn; each is a difference, whatever the golden holds.
        rtol, atol: as in `compare`.
        update: write the golden file if it is missing or differs. If it is equal within the
            tolerance it is not written, so that values do not drift; a file of another kind is
            never overwritten.
        max_points, digits: as in `snapshot`; by default those of the golden file, or, for a new
            one, all points and all digits.

    Raises:
        GoldenError: there is no golden file and `update` is false, or it cannot be read.
        OutputError: the golden file cannot be written.
        DefinitionError: a window cannot be drawn.
    """
    path = Path(path)
    golden = None if update and is_to_be_made(path) else read_golden(path)
    stated = settings(golden) if golden is not None else (0, None)
    obtained = snapshot(
        windows,
        max_points=stated[0] if max_points is None else max_points,
        digits=stated[1] if digits is None else digits,
    )
    found = None if golden is None else compare(golden, obtained, rtol=rtol, atol=atol)
    outcome = Outcome(path, _with(found, left_out), golden, obtained, left_out=tuple(left_out))
    settled = settle(
        path,
        lambda: dump(obtained),
        ENVIRONMENT,
        is_equal=found is not None and found.equal,
        update=update,
    )
    return replace(outcome, written=settled.written, kept=settled.kept, unkept=settled.unkept)


def _with(found: Comparison | None, left_out: Sequence[LeftOut]) -> Comparison | None:
    """The comparison, with a difference added for each value that was left out."""
    if found is None:
        return None
    more = [Difference("left out", "", None, "", str(left), ABSENT, ABSENT) for left in left_out]
    return replace(found, differences=(*found.differences, *more))
