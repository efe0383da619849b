"""The command line, run as a user runs it."""

import subprocess
import sys
from pathlib import Path

FLEXREC = Path(sys.executable).with_name("flexrec")


def flexrec(*arguments: object, code: int = 0, cwd: Path | None = None) -> tuple[str, str]:
    """Run the command; return what it printed, and what it complained of."""
    done = subprocess.run(
        [FLEXREC, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def fails(*arguments: object) -> str:
    """Run the command, which must fail with exit code 2; return its one line."""
    out, error = flexrec(*arguments, code=2)
    assert out == ""
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("flexrec: ")
    return lines[0].removeprefix("flexrec: ")
