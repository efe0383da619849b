"""Run mypy over every Python file of the project, and prove that it saw them all.

The folders are subpackages of `flexrec` only once installed, so a folder of links stands in for
the namespace package; mypy's count of files is held against git's.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("recorder", "replay", "cli")
SCRIPTS = ("benchmarks", "examples", "tests", "tools")


def main() -> int:
    """Return mypy's exit code, or 1 where it saw fewer files than there are."""
    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder) / "flexrec"
        links.mkdir()
        for package in PACKAGES:
            (links / package).symlink_to(ROOT / package)
        packages = [part for package in PACKAGES for part in ("-p", f"flexrec.{package}")]
        status = _mypy(folder, packages, PACKAGES)
        scripts = [str(path) for path in _files(SCRIPTS)]
        return status or _mypy(folder, scripts, SCRIPTS)


def _mypy(folder: str, targets: list[str], folders: tuple[str, ...]) -> int:
    done = subprocess.run(  # noqa: S603 - our own arguments
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *targets],
        cwd=ROOT,
        env={"MYPYPATH": f"{folder}:{ROOT / 'tests'}:{ROOT / 'benchmarks'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr, sep="", end="")
    if done.returncode:
        return done.returncode
    seen = re.search(r"in (\d+) source file", done.stdout)
    expected = len(_files(folders))
    if seen is None or int(seen[1]) != expected:
        print(f"mypy saw {seen and seen[1]} files of {expected} in {', '.join(folders)}")
        return 1
    return 0


def _files(folders: tuple[str, ...]) -> list[Path]:
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


if __name__ == "__main__":
    sys.exit(main())
