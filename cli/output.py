"""Print safely: a recording's text cannot control the terminal; hints of errors name options."""

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from flexrec.recorder.errors import FlexrecError, printable

# The command-line option for each Python argument that a hint names.
_OPTIONS = {
    "bundle=": "--assets ",
    "keys=": "-k",
    "overwrite=True": "--force",
    "update=True": "--update",
}


def error_text(error: FlexrecError) -> str:
    """The message of an error, with its hint written in command-line options."""
    hint = error.hint
    for argument, option in _OPTIONS.items():
        hint = hint.replace(argument, option)
    return f"{error.message}; {hint}" if hint else error.message


def escape_the_unknown() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, as in \\u2588."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def replace_the_closed() -> None:
    """Replace standard streams that the caller of the command has closed.

    Otherwise Python has None for them, and the next file that is opened takes their place. To
    write to stdout fails, as it should; what is said on stderr is lost.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - open until the process ends
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


def drop_output() -> None:
    """Discard the output that stdout still buffers: it could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, with its control characters escaped."""
    echo_as_is(printable(text), err=err)


def echo_as_is(text: str, *, err: bool = False) -> None:
    """Print a text whose control characters are intended."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def echo_json(value: object) -> None:
    """Print JSON, as `json_text`."""
    print(json_text(value), flush=True)


def json_text(value: object) -> str:
    """JSON in ASCII; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
