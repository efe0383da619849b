"""Windows against a golden file: the one engine behind `flexrec check` and pytest's `plot_check`.

It reads and writes files; comparing is in `compare`, telling in `report`.
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
    """What a check came to.

    Attributes:
        path: the golden.
        comparison: with the golden as it was; None where there was none.
        golden, obtained: both documents; `golden` is None where there was none.
        written: whether the golden was written.
        kept: the file that holds what was obtained, where it differs.
        left_out: what could not be drawn; each is a difference, too.
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
        """Whether the golden is what all values of the source give, now that it may be written."""
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

    What was obtained is kept beside a golden that it differs from, as `NAME.obtained.json`; the
    file, whoever wrote it, goes when they are equal again. It is never written through a link.

    Args:
        windows: what would be sent to visdom.
        path: the golden.
        left_out: what could not be drawn, each a difference, whatever the golden holds.
        rtol, atol: as for `compare`.
        update: write the golden where it is missing or differs. One that is equal within the
            tolerance is left as it is, so that nothing drifts; a file that is no golden stays.
        max_points, digits: as for `snapshot`; by default what the golden states, or, for a new
            one, all points and all digits.

    Raises:
        GoldenError: there is no golden and `update` is false, or it cannot be read.
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
            f"what was obtained differs, and is not written: {beside} is a link, which may lead to "
            "the golden or another file; remove it"
        )
    write_golden(beside, obtained, overwrite=True, inputs=_present(path))
    return replace(outcome, kept=beside)


def _with(found: Comparison | None, left_out: Sequence[LeftOut]) -> Comparison | None:
    """The comparison, with a difference for each that was left out."""
    if found is None:
        return None
    more = [Difference("left out", "", None, "", str(left), ABSENT, ABSENT) for left in left_out]
    return replace(found, differences=(*found.differences, *more))


def obtained_path(path: Path) -> Path:
    """Where what was obtained is kept.

    >>> obtained_path(Path("goldens/loss.json")).as_posix()
    'goldens/loss.obtained.json'
    """
    return path.with_name(f"{path.name.removesuffix('.json')}.obtained.json")


def _golden(path: Path, update: bool) -> dict[str, Any] | None:
    if update:
        try:  # reading a pipe, say, would not end
            check_target(path, ANYTHING, overwrite=True)
        except OutputError:
            raise
        except OSError:
            pass  # reading or writing it says so
    return None if update and _is_new(path) else read_golden(path)


def _is_new(path: Path) -> bool:
    """Whether there is nothing, or an empty file, as mktemp(1) makes them."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):  # writing it says what is amiss
        return True
    except OSError:  # reading it says so
        return False
    return stat.S_ISREG(status.st_mode) and not status.st_size


def _present(path: Path) -> list[Path]:
    return [path] if path.exists() else []
