"""Check windows against a golden file, for `flexrec check` and pytest's `plot_check`.

This module reads and writes the files; compare.py compares, report.py describes the differences.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import OutputError
from flexrec.recorder.files.atomic_write import ANYTHING, check_target, discard
from flexrec.replay.engine.left_out import LeftOut
from flexrec.replay.golden.compare import compare
from flexrec.replay.golden.model import ABSENT, RTOL, Comparison, Difference
from flexrec.replay.golden.snapshot import read_golden, settings, snapshot, write_golden
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.env_file import ENVIRONMENT


@dataclass(frozen=True)
class Outcome:
    """The result of a check.

    Attributes:
        path: the golden file.
        comparison: the comparison with the golden file before the check; None if there was none.
        golden, obtained: both documents; `golden` is None if there was none.
        written: whether the golden file was written.
        kept: the file with the obtained document, if it differs.
        left_out: the values that could not be drawn; each is a difference, too.
    """

    path: Path
    comparison: Comparison | None
    golden: dict[str, Any] | None
    obtained: dict[str, Any]
    written: bool = False
    kept: Path | None = None
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
        OutputError: a file cannot be written.
        DefinitionError: a window cannot be drawn.
    """
    path = Path(path)
    golden = _golden(path, update)
    stated = settings(golden) if golden is not None else (0, None)
    obtained = snapshot(
        windows,
        max_points=stated[0] if max_points is None else max_points,
        digits=stated[1] if digits is None else digits,
    )
    found = None if golden is None else compare(golden, obtained, rtol=rtol, atol=atol)
    outcome = Outcome(path, _with(found, left_out), golden, obtained, left_out=tuple(left_out))
    beside = obtained_path(path)
    if found is not None and found.equal:
        discard(beside, ENVIRONMENT, inputs=_present(path))
        return outcome
    if update:
        write_golden(path, obtained, overwrite=True)
        discard(beside, ENVIRONMENT, inputs=_present(path))
        return replace(outcome, written=True)
    if beside.is_symlink():
        raise OutputError(
            f"the obtained plots differ, and were not kept: {beside} is a link, which may lead to "
            "the golden or another file; remove it"
        )
    write_golden(beside, obtained, overwrite=True, inputs=_present(path))
    return replace(outcome, kept=beside)


def _with(found: Comparison | None, left_out: Sequence[LeftOut]) -> Comparison | None:
    """The comparison, with a difference added for each value that was left out."""
    if found is None:
        return None
    more = [Difference("left out", "", None, "", str(left), ABSENT, ABSENT) for left in left_out]
    return replace(found, differences=(*found.differences, *more))


def obtained_path(path: Path) -> Path:
    """The path of the file with the obtained document.

    >>> obtained_path(Path("goldens/loss.json")).as_posix()
    'goldens/loss.obtained.json'
    """
    return path.with_name(f"{path.name.removesuffix('.json')}.obtained.json")


def _golden(path: Path, update: bool) -> dict[str, Any] | None:
    if update:
        try:  # reading from a pipe, for example, would not end
            check_target(path, ANYTHING, overwrite=True)
        except OutputError:
            raise
        except OSError:
            pass  # reading or writing it raises the error
    return None if update and _is_new(path) else read_golden(path)


def _is_new(path: Path) -> bool:
    """Whether there is no file, or an empty one, as mktemp(1) makes."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):  # writing it raises the error
        return True
    except OSError:  # reading it raises the error
        return False
    return stat.S_ISREG(status.st_mode) and not status.st_size


def _present(path: Path) -> list[Path]:
    return [path] if path.exists() else []
