"""`flexrec show --console`: what the process printed, with times."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any

from flexrec.cli.output import echo, echo_as_is, echo_json
from flexrec.cli.replaying import tell_state
from flexrec.recorder.errors import one_line
from flexrec.recorder.files.names import CONSOLE
from flexrec.recorder.recording import Recording

_AT_ONCE = 1000  # lines that are printed at once


def show_console(path: Path, *, as_json: bool) -> None:
    """Print the recorded lines in order; on a terminal as in a pipe, those of stderr are marked.

    Raises:
        RecordingError: the recording cannot be read.
    """
    with Recording(path) as run:
        if as_json:
            echo_json({"path": str(path), "lines": list(_lines(run))})
            return
        tell_state(run)
        lines, has_lines = _lines(run), False
        while some := list(islice(lines, _AT_ONCE)):
            echo_as_is("\n".join(map(_shown, some)))
            has_lines = True
        if not has_lines:
            echo(
                f"flexrec: {path} has no lines: record them with Recorder(…, console=True)",
                err=True,
            )


def _shown(line: dict[str, Any]) -> str:
    mark = "!" if line["stream"] == "stderr" else " "
    return f"{_date(int(line['time']))} {line['step']:>8} {mark} {one_line(line['text'])}"


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}"


def _lines(run: Recording) -> Iterator[dict[str, Any]]:
    """The lines as plain data, those before a resume too; docs/json.md describes it."""

    def of(view: Recording, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for row in view.rows(key):
            text, stream = str(row.value), key.removeprefix(CONSOLE)
            yield (
                row.position,
                {"time": row.time, "step": row.step, "stream": stream, "text": text},
            )

    views = [run, *([run.taken_back()] if run.superseded else [])]
    lines = [of(view, key) for view in views for key in view if key.startswith(CONSOLE)]
    return (line for _, line in merge(*lines, key=lambda each: each[0]))
