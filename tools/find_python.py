"""Print a Python interpreter of at least the given version, from PATH or pyenv's versions."""

import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Print the first interpreter that works; return 1 where there is none."""
    wanted = tuple(map(int, sys.argv[1].split(".")))
    pyenv = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")), "versions")
    names = [f"python{wanted[0]}.{minor}" for minor in range(wanted[1], wanted[1] + 8)]
    on_path = [Path(folder, name) for name in names for folder in os.get_exec_path()]
    found = [Path(sys.executable), *on_path, *sorted(pyenv.glob("*/bin/python3"))]
    for candidate in found:
        if candidate.is_file() and _works(str(candidate), wanted):
            print(candidate)
            return 0
    return 1


def _works(python: str, wanted: tuple[int, ...]) -> bool:
    """Whether it runs, is new enough, and can make virtual environments."""
    code = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {wanted})"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, timeout=30, check=False)  # noqa: S603 - what is on PATH
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
