"""Say in one line what `make test` could not test on this machine; in CI that is a failure."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import chromium_path  # noqa: E402
from support.frameworks import FRAMEWORKS  # noqa: E402
from support.full_disk import can_mount  # noqa: E402


def main() -> int:
    """Return 1 where something was left out and CI is set, else 0."""
    missing = []
    find = [sys.executable, str(ROOT / "tools" / "find_python.py"), "3.12"]
    if subprocess.run(find, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603 - ours
        missing.append("visdom 0.3 (no Python 3.12 or newer found)")
    if importlib.util.find_spec("playwright") is None:
        missing.append("the pages in a browser (no playwright: pip install playwright)")
    elif chromium_path() is None:
        missing.append("the pages in a browser (no Chromium: make browser installs it)")
    if importlib.util.find_spec("pandas") is None:
        missing.append("to_pandas (no pandas: pip install pandas)")
    if (
        importlib.util.find_spec("ipykernel") is None
        or importlib.util.find_spec("nbclient") is None
    ):
        missing.append("notebooks (no kernel: pip install ipykernel nbclient)")
    lacking = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
    if lacking:
        missing.append(
            f"frameworks and other tools (no {', '.join(lacking)}: pip install '.[frameworks]')"
        )
    if not can_mount():  # no failure: a shim makes every write of the same workloads fail
        print("full disks were tested by a shim alone: only root may mount a tmpfs")
    if shutil.which("octave-cli") is None:  # no failure: one example of the docs
        print("the example for Octave in docs/other_readers.md was not run: there is no Octave")
    if not missing:
        print("nothing was left out")
        return 0
    print(f"NOT TESTED: {'; '.join(missing)}")
    return 1 if os.environ.get("CI", "").lower() not in ("", "0", "false") else 0


if __name__ == "__main__":
    sys.exit(main())
