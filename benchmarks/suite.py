"""Every question in turn, ours and the peers' answers side by side: `make bench`.

    python benchmarks/suite.py [--quick] [--into docs/benchmarks.md] [NAME…]

The peers are installed into .venv-peers first, which takes minutes; a peer that cannot be
installed, or that fails, is named as such. --into puts what comes out into a page, each between
its marks: <!-- NAME --> and <!-- /NAME -->.
"""

import argparse
import re
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
    "tooled_model",
)


def main() -> int:
    """Run the scripts; the exit status is how many of them failed."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"out of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--into", type=Path, help="the page that takes what comes out")
    options = parser.parse_args()
    unknown = set(options.names) - set(QUESTIONS)
    if unknown:
        parser.error(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    python = python_of_peers()
    if missing_peers():
        print(f"peers that could not be installed here: {', '.join(missing_peers())}\n")
    failed = 0
    for name in options.names or QUESTIONS:
        script = Path(__file__).with_name(f"{name}.py")
        command = [str(python), "-W", "ignore", str(script), *["--quick"] * options.quick]
        status, said = run(command)
        failed += status != 0
        if options.into and not status:
            put_into(options.into, name, said)
    return failed


def run(command: list[str]) -> tuple[int, str]:
    """The exit status, and what was printed, which is shown meanwhile."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
    return process.returncode, "".join(lines)


def put_into(page: Path, name: str, said: str) -> None:
    """Replace what stands between the page's marks of this name; the headline is the page's."""
    text = page.read_text(encoding="utf-8")
    tables = re.sub(r" {2,}\|", " |", re.sub(r"^#.*\n", "", said).strip())
    tables = re.sub(r"-{4,}", "---", tables)
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{page} has no {begin} … {end}")
    before, after = text.partition(begin)[0], text.partition(end)[2]
    page.write_text(f"{before}{begin}\n{tables}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
