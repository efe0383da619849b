"""Every question in turn, ours and the peers' answers side by side: `make bench`.

    python benchmarks/suite.py [--quick] [NAME…]

The peers are installed into .venv-peers first, which takes minutes; a peer that cannot be
installed, or that fails, is named as such. docs/benchmarks.md keeps what came out.
"""

import subprocess
import sys
from pathlib import Path

from peers import missing_peers, python_of_peers

QUESTIONS = (
    "adding",
    "storing",
    "stepping",
    "pairs",
    "reading",
    "replaying",
    "metering",
    "memory",
    "starting",
    "growing",
)


def main() -> int:
    """Run the scripts; the exit status is how many of them failed."""
    words = sys.argv[1:]
    options = [word for word in words if word.startswith("--")]
    names = [word for word in words if word not in options] or list(QUESTIONS)
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        print(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
        return 2
    python = python_of_peers()
    if missing_peers():
        print(f"peers that could not be installed here: {', '.join(missing_peers())}\n")
    failed = 0
    for name in names:
        script = Path(__file__).with_name(f"{name}.py")
        command = [str(python), "-W", "ignore", str(script), *options]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
