"""`git bisect run` with `flexrec diff` finds the commit that changed training."""

import os
import re
import subprocess
import sys
from pathlib import Path

from flexrec.recorder import Recorder

DOCS = Path(__file__).parents[2] / "docs" / "diff.md"
COMMITS, CULPRIT, BROKEN = 9, 6, 4

TRAIN = """
import argparse
from flexrec.recorder import Recorder
parser = argparse.ArgumentParser()
parser.add_argument("--out")
RATE = {rate}
{broken}
with Recorder(parser.parse_args().out, facts=False) as rec:
    weight = 1.0
    for step in range(5):
        weight -= RATE * weight
        rec.add({{"train_loss": weight * weight}})
        rec.step()
# commit {number}
"""


def git(folder: Path, *arguments: str) -> str:
    """Run git there, as nobody in particular."""
    names = ("AUTHOR_NAME", "COMMITTER_NAME", "AUTHOR_EMAIL", "COMMITTER_EMAIL")
    who = {f"GIT_{name}": "nobody" for name in names}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **who, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_planted_commit_is_found(tmp_path: Path) -> None:
    """One commit before it does not run at all, and is skipped."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*.h5\nbisect.sh\n", encoding="utf-8")
    for number in range(COMMITS):
        text = TRAIN.format(
            rate=0.1 if number < CULPRIT else 0.1000001,
            broken="raise SystemExit(1)" if number == BROKEN else "",
            number=number,
        )
        (tmp_path / "train.py").write_text(text, encoding="utf-8")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", f"commit {number}")
    with Recorder(tmp_path / "good.h5", facts=False) as rec:
        weight = 1.0
        for _ in range(5):
            weight -= 0.1 * weight
            rec.add({"train_loss": weight * weight})
            rec.step()
    script = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "bisect.sh").write_text(
        script[0].replace("/tmp/now.h5", "now.h5"),  # noqa: S108 - as the docs have it
        encoding="utf-8",
    )
    git(tmp_path, "bisect", "start", "HEAD", f"HEAD~{COMMITS - 1}")
    said = git(tmp_path, "bisect", "run", "sh", "bisect.sh")
    assert f"commit {CULPRIT}" in said.split("is the first bad commit")[1]
