"""Windows against a golden file: the one engine behind `flexrec check` and pytest's `plot_check`.

It reads and writes files; comparing is in `comparing`, telling in `report`.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import DefinitionError, RecordingError
from flexrec.recorder.reader import Recording
from flexrec.recorder.replacing import ANYTHING, check_target, discard
from flexrec.replay.comparing import compare
from flexrec.replay.definitions import Definitions, load_toml
from flexrec.replay.differences import RTOL, Comparison
from flexrec.replay.flexlogger import FlexLogger, TooledModelLogger
from flexrec.replay.golden import read_golden, settings, snapshot, write_golden
from flexrec.replay.player import play
from flexrec.replay.presets import PHASES, preset
from flexrec.replay.sinks import ENVIRONMENT
from flexrec.replay.window import Window

__all__ = ["Outcome", "check", "definitions_from", "obtained_path", "windows_of"]


@dataclass(frozen=True)
class Outcome:
    """What a check came to.

    Attributes:
        path: the golden.
        comparison: with the golden as it was; None where there was none.
        golden, obtained: both documents; `golden` is None where there was none.
        written: whether the golden was written.
        kept: the file that holds what was obtained, where it differs.
    """

    path: Path
    comparison: Comparison | None
    golden: dict[str, Any] | None
    obtained: dict[str, Any]
    written: bool = False
    kept: Path | None = None


def check(
    windows: Iterable[Window],
    path: str | os.PathLike[str],
    *,
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
        rtol, atol: as for `compare`.
        update: write the golden where it is missing or differs. One that is equal within the
            tolerance is left as it is, so that nothing drifts; a file that is no golden stays.
        max_points, digits: as for `snapshot`; by default what the golden states, or, for a new
            one, all points and all digits.

    Raises:
        DefinitionError: there is no golden and `update` is false; a file cannot be read or
            written; a window cannot be drawn.
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
    beside = obtained_path(path)
    if found is not None and found.equal:
        discard(beside, ENVIRONMENT, inputs=_present(path))
        return Outcome(path, found, golden, obtained)
    if update:
        write_golden(path, obtained, overwrite=True)
        discard(beside, ENVIRONMENT, inputs=_present(path))
        return Outcome(path, found, golden, obtained, written=True)
    if beside.is_symlink():
        raise DefinitionError(
            f"what was obtained differs, and is not written: {beside} is a link, which may lead to "
            "the golden or another file; remove it"
        )
    write_golden(beside, obtained, overwrite=True, inputs=_present(path))
    return Outcome(path, found, golden, obtained, kept=beside)


def obtained_path(path: Path) -> Path:
    """Where what was obtained is kept.

    >>> obtained_path(Path("goldens/loss.json")).as_posix()
    'goldens/loss.obtained.json'
    """
    return path.with_name(f"{path.name.removesuffix('.json')}.obtained.json")


def definitions_from(
    *,
    preset_name: str | None = None,
    definitions: Definitions | str | os.PathLike[str] | None = None,
    phases: Sequence[str] | None = None,
) -> Definitions | None:
    """The definitions that a preset's name, a TOML file or an object stand for; None for none.

    Raises:
        DefinitionError: no such preset, or the file is wrong.
    """
    total = Definitions()
    if preset_name is not None:
        total += preset(preset_name, phases=tuple(phases or PHASES))
    if isinstance(definitions, Definitions):
        total += definitions
    elif definitions is not None:
        total += load_toml(definitions, phases=tuple(phases or ()))
    return total if total.plots else None


def windows_of(
    source: Any, definitions: Definitions | None = None, *, every: int | None = None
) -> list[Window]:
    """The windows that a source would send to visdom.

    Args:
        source: a recording or its path, several of them, a FlexLogger or TooledModelLogger that
            has logged, or a list of windows.
        definitions: what to draw of recordings. A logger draws its own: it may be left out, or
            must be the same plots and meters.
        every: as for `play`; recordings only.

    Raises:
        DefinitionError: definitions are missing or not the logger's.
        RecordingError: a recording cannot be read.
        TypeError: the source is none of these.
    """
    if isinstance(source, TooledModelLogger):
        source = source.logger
    if isinstance(source, FlexLogger):
        _check_same(source, definitions, every)
        return source.windows()
    several = list(source) if isinstance(source, list | tuple) else [source]
    if several and all(isinstance(item, Window) for item in several):
        if definitions is not None or every is not None:
            raise DefinitionError("windows are drawn already: give no preset, definitions or every")
        return several
    if not several or not all(isinstance(r, str | os.PathLike | Recording) for r in several):
        raise TypeError(
            "what is checked is a recording or its path, a list of them, a FlexLogger or a list of "
            f"windows, not {type(source).__name__}"
        )
    if definitions is None:
        raise DefinitionError(
            "nothing to plot: give a preset (flexrec presets lists them) or definitions"
        )
    with ExitStack() as stack:
        runs = [
            run if isinstance(run, Recording) else stack.enter_context(Recording(run))
            for run in several
        ]
        return play(runs, definitions, every=every)


def _golden(path: Path, update: bool) -> dict[str, Any] | None:
    if update:
        try:  # reading a pipe, say, would not end
            check_target(path, ANYTHING, overwrite=True)
        except OSError:
            pass  # reading or writing it says so
        except RecordingError as error:
            raise DefinitionError(str(error)) from None
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


def _check_same(logger: FlexLogger, definitions: Definitions | None, every: int | None) -> None:
    if every is not None:
        raise DefinitionError("a logger has logged already: `every` is for recordings")
    if definitions is None:
        return
    wanted = {
        plot: [name for name, meter in definitions.meters.items() if plot in meter.targets]
        for plot in definitions.plots
    }
    if logger.get_definitions() != wanted:
        raise DefinitionError(
            f"the logger draws {logger.get_definitions()}, not what was asked for: {wanted}"
        )
