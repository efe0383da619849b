"""Read and write golden files; what was obtained and differs is kept beside the golden."""

import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from flexrec.recorder.errors import GoldenError, OutputError
from flexrec.recorder.files.atomic_write import (
    ANYTHING,
    Kind,
    check_target,
    discard,
    replacing,
    writing,
)
from flexrec.recorder.files.atomic_write import what as named
from flexrec.recorder.storage.open_store import RECORDING


class Settled(NamedTuple):
    """What was written: the golden, or what was obtained, beside it.

    Attributes:
        written: whether the golden was written.
        kept: the file with what was obtained, if it differs and could be written.
        unkept: why it could not be written; else empty.
    """

    written: bool = False
    kept: Path | None = None
    unkept: str = ""


def read_json(path: Path, what: str) -> Any:
    """Read a golden file.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        GoldenError: there is no such file, or it is not JSON; the message says what to do.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading it might not end
            raise GoldenError(f"{path} is {named(mode)}, and no golden, {what}: name another")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise GoldenError(f"there is no golden {path}", hint="update=True writes it") from error
    except OSError as error:
        raise GoldenError(f"cannot read the golden {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        kind = RECORDING.name if RECORDING.holds(path) else "no text"
        raise GoldenError(f"{path} is {kind}, and no golden, {what}: name another") from None
    if not text:
        raise GoldenError(f"the golden {path} is empty", hint="update=True writes it")
    try:
        # visdom 0.2.4 writes Infinity and NaN, which JSON does not allow.
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise GoldenError(
            f"{path} is no golden, or a damaged one, as it is not JSON ({error}): "
            "name another, or get it from git again"
        ) from error


def write_text(
    path: Path, text: str, kind: Kind, *, overwrite: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Write a golden file, completely or not at all; missing folders are created.

    Raises:
        OutputError: the file cannot be written, or a file exists that may not be overwritten.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, kind, overwrite=overwrite, inputs=inputs) as partial:
            partial.write_text(text, encoding="ascii", newline="\n")


def is_to_be_made(path: Path) -> bool:
    """Whether a golden may be written there anew: there is no file, or an empty one.

    Raises:
        OutputError: the path may not be written, such as a pipe, reading which would not end.
    """
    try:
        check_target(path, ANYTHING, overwrite=True)
    except OutputError:
        raise
    except OSError:
        pass  # reading or writing it raises the error
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):  # writing it raises the error
        return True
    except OSError:  # reading it raises the error
        return False
    return stat.S_ISREG(status.st_mode) and not status.st_size


def settle(
    path: Path, obtained: Callable[[], str], kind: Kind, *, is_equal: bool, update: bool
) -> Settled:
    """Write the golden if it differs and `update`; else keep what was obtained beside it.

    What was obtained before is removed if it is not so any more.

    Args:
        path: the golden file.
        obtained: makes the text that was obtained.
        kind: the kind of file.
        is_equal: whether the golden is there, and equal.
        update: whether to write it otherwise.

    Raises:
        OutputError: the golden cannot be written.
    """
    beside = obtained_path(path)
    if is_equal or update:
        if not is_equal:
            write_text(path, obtained(), kind, overwrite=True)
        discard(beside, kind, inputs=_present(path))
        return Settled(written=not is_equal)
    if beside.is_symlink():
        return Settled(
            unkept=f"{beside} is a link, which may lead to the golden or another file; remove it"
        )
    try:
        write_text(beside, obtained(), kind, overwrite=True, inputs=_present(path))
    except OutputError as error:  # the difference is still to be told
        return Settled(unkept=str(error))
    return Settled(kept=beside)


def obtained_path(path: str | os.PathLike[str]) -> Path:
    """The path of the file with what was obtained.

    >>> obtained_path("goldens/loss.json").as_posix()
    'goldens/loss.obtained.json'
    """
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.json')}.obtained.json")


def _present(path: Path) -> list[Path]:
    return [path] if path.exists() else []
