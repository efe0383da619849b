"""What git knows of a run: the commit, and what is not committed."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import flexrec
from flexrec.recorder import Recorder, Recording
from flexrec.recorder.writing.opening import git
from flexrec.recorder.writing.opening.git import git_facts
from support.commands import flexrec as command

SECRET = "hunter2"  # noqa: S105 - no password


def run_git(*arguments: str) -> str:
    name = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
    words = ["git", *name, *arguments]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two files and a folder, which is the current one."""
    root = tmp_path / "repository"
    (root / "inner").mkdir(parents=True)
    monkeypatch.chdir(root)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    run_git("init", "-q")
    (root / "train.py").write_text("lr = 0.1\n", encoding="utf-8")
    (root / "inner" / "model.py").write_text("width = 8\nüber = 1\n", encoding="utf-8")
    (root / ".gitignore").write_text(".env\n*.h5\n", encoding="utf-8")
    run_git("add", "-A")
    run_git("commit", "-q", "-m", "first")
    return root


def recorded(path: Path, **options: Any) -> dict[str, Any]:
    with Recorder(path, **options) as rec:
        rec.add({"loss": 1.0})
    with Recording(path) as run:
        return run.facts or {}


def test_without_changes_there_is_the_commit_alone(repository: Path) -> None:
    facts = recorded(repository / "run.h5")
    assert facts["git_commit"] == run_git("rev-parse", "HEAD").strip()
    assert "git_patch" not in facts


def test_what_is_not_committed_can_be_applied(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_text("lr =\t0.2\n", encoding="utf-8")
    (repository / "inner" / "model.py").write_text("width = 9\nüber = 2\n", encoding="utf-8")
    (repository / "new.py").write_text("print()\n", encoding="utf-8")
    (repository / ".env").write_text(SECRET, encoding="utf-8")
    run_git("add", "train.py")
    changed = [(repository / name).read_bytes() for name in ("train.py", "inner/model.py")]
    monkeypatch.chdir(repository / "inner")
    facts = recorded(repository / "run.h5")
    patch = facts["git_patch"]
    assert (patch["cut"], patch["untracked"], patch["untracked_left_out"]) == (False, ["new.py"], 0)
    assert SECRET not in str(facts)
    monkeypatch.chdir(repository)
    run_git("reset", "-q", "--hard")
    said, _ = command("show", "run.h5", "--patch")
    (repository / "run.patch").write_text(said, encoding="utf-8")
    run_git("apply", "run.patch")
    assert [(repository / n).read_bytes() for n in ("train.py", "inner/model.py")] == changed
    assert "# not tracked: new.py" in said


def test_binary_files_are_told_of_and_the_rest_can_be_applied(repository: Path) -> None:
    (repository / "data.bin").write_bytes(bytes(range(256)))
    run_git("add", "-A")
    run_git("commit", "-q", "-m", "data")
    (repository / "data.bin").write_bytes(bytes(300))
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    recorded(repository / "run.h5")
    run_git("reset", "-q", "--hard")
    said, _ = command("show", "run.h5", "--patch")
    assert "# without 1 binary file: git apply needs --exclude=NAME for each" in said
    (repository / "run.patch").write_text(said, encoding="utf-8")
    run_git("apply", "--exclude=data.bin", "run.patch")
    assert (repository / "train.py").read_text(encoding="utf-8") == "lr = 0.2\n"


@pytest.mark.parametrize(("facts", "has_commit"), [(False, False), ("no patch", True)])
def test_it_is_left_out_where_asked(repository: Path, facts: Any, has_commit: bool) -> None:
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    found = recorded(repository / "run.h5", facts=facts)
    assert "git_patch" not in found
    assert ("git_commit" in found) == has_commit
    with pytest.raises(ValueError, match="facts must be True, False or 'no patch', got 'none'"):
        Recorder(repository / "other.h5", facts="none")  # type: ignore[arg-type]


def test_other_ranks_leave_it_to_the_first(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    monkeypatch.setenv("RANK", "1")
    assert "git_patch" not in recorded(repository / "run.h5")


def test_a_large_patch_is_cut_at_a_line_and_says_so(repository: Path) -> None:
    lines = "".join(f"line {i}\n" for i in range(20_000))
    (repository / "train.py").write_text(lines, encoding="utf-8")
    for i in range(120):
        (repository / f"new{i}").touch()
    patch = recorded(repository / "run.h5")["git_patch"]
    assert patch["cut"]
    assert 99_000 < len(patch["text"]) <= 100_000
    assert patch["text"].endswith("\n")
    assert (len(patch["untracked"]), patch["untracked_left_out"]) == (100, 20)
    said, _ = command("show", "run.h5", "--patch")
    assert "# cut here" in said
    assert "# and more that is not tracked" in said


def test_a_resume_keeps_only_a_patch_that_is_new(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    recorded(repository / "run.h5")
    recorded(repository / "run.h5", mode="resume")
    (repository / "train.py").write_text("lr = 0.3\n", encoding="utf-8")
    facts = recorded(repository / "run.h5", mode="resume")
    same, other = (each["git_patch"] for each in facts["resumed"])
    assert same["sha256"] == facts["git_patch"]["sha256"]
    assert "text" not in same
    assert "+lr = 0.3" in other["text"]
    said, _ = command("show", "run.h5", "--patch")
    assert "the same as before" in said
    assert said.count("diff --git") == 2


def telling(repository: Path) -> str:
    """A program that creates the file `ran` beside the repository."""
    tell = repository.parent / "tell.sh"
    tell.write_text(f"#!/bin/sh\ntouch '{repository.parent}/ran'\ncat\n", encoding="utf-8")
    tell.chmod(0o755)
    return str(tell)


def test_programs_that_a_repository_names_are_not_run(repository: Path) -> None:
    (repository / ".gitattributes").write_text("*.py diff=odd\n", encoding="utf-8")
    tell = telling(repository)
    for name in ("diff.external", "diff.odd.command", "diff.odd.textconv", "core.fsmonitor"):
        run_git("config", name, tell)
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    assert "+lr = 0.2" in git_facts(patch=True)["git_patch"]["text"]
    assert not (repository.parent / "ran").exists()


def test_programs_that_a_submodule_names_are_not_run(repository: Path) -> None:
    inner = repository / "sub"
    run_git("init", "-q", "sub")
    run_git("-C", "sub", "commit", "-q", "--allow-empty", "-m", "first")
    run_git("add", "sub")
    run_git("commit", "-q", "-m", "with a submodule")
    (inner / "new.py").touch()
    run_git("-C", "sub", "add", "-A")
    run_git("-C", "sub", "commit", "-q", "-m", "second")
    for name in ("diff.external", "core.fsmonitor"):
        run_git("-C", "sub", "config", name, telling(repository))
    run_git("config", "diff.submodule", "diff")
    assert "+Subproject commit" in git_facts(patch=True)["git_patch"]["text"]
    assert not (repository.parent / "ran").exists()


@pytest.mark.parametrize("key", ["clean", "process"])
@pytest.mark.parametrize("name", ["odd", "o=d.d"])
def test_filters_that_a_repository_configures_are_not_run(
    repository: Path, name: str, key: str
) -> None:
    (repository / ".gitattributes").write_text(f"train.py filter={name}\n", encoding="utf-8")
    run_git("add", "-A")
    run_git("commit", "-q", "-m", "attributes")
    run_git("config", f"filter.{name}.{key}", telling(repository))
    (repository / "inner" / "model.py").write_text("width = 9\n", encoding="utf-8")
    patch = git_facts(patch=True)["git_patch"]
    assert ("filters" in patch.get("missing", "")) == ("=" in name)  # no filtered file has changed
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    missing = git_facts(patch=True)["git_patch"]["missing"]
    assert (
        "=" in name
        or missing == f"git diff failed, without running filter.{name} of the repository"
    )
    assert not (repository.parent / "ran").exists()


def test_filters_of_the_user_are_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    run_git("config", "--global", "filter.upper.clean", "tr a-z A-Z")
    (repository / ".gitattributes").write_text("train.py filter=upper\n", encoding="utf-8")
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    assert "+LR = 0.2" in git_facts(patch=True)["git_patch"]["text"]


def test_the_index_is_not_written(repository: Path) -> None:
    for name in ("train.py", "inner/model.py"):
        os.utime(repository / name, (1, 1))  # as if it had changed
    hook = repository / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_bytes(Path(telling(repository)).read_bytes())
    hook.chmod(0o755)
    before = (repository / ".git" / "index").read_bytes()
    assert "git_patch" not in git_facts(patch=True)
    assert (repository / ".git" / "index").read_bytes() == before
    assert not (repository.parent / "ran").exists()


def test_a_patch_is_of_the_whole_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_git("config", "diff.relative", "true")
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    monkeypatch.chdir(repository / "inner")
    assert "+lr = 0.2" in git_facts(patch=True)["git_patch"]["text"]


def test_the_repository_is_not_locked(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 0.2\n", encoding="utf-8")
    (repository / ".git" / "index.lock").touch()
    assert "+lr = 0.2" in git_facts(patch=True)["git_patch"]["text"]


def test_a_git_that_hangs_is_not_waited_for(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.run(
        ["which", "git"], check=True, capture_output=True, text=True
    ).stdout.strip()
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    script = f'#!/bin/sh\ncase "$*" in *diff*) exec sleep 60;; esac\nexec {real} "$@"\n'
    slow.write_text(script, encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "_SECONDS", 0.5)
    begun = time.monotonic()
    found = git_facts(patch=True)
    assert time.monotonic() - begun < 30
    assert found["git_patch"] == {"missing": "git diff did not answer within 0.5 s"}
    (repository / "run.h5").unlink(missing_ok=True)
    recorded(repository / "run.h5")
    assert "did not answer" in command("show", "run.h5", "--patch")[0]


def test_without_git_or_a_repository_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_facts(patch=True) == {"git_commit": None}
    monkeypatch.setenv("PATH", "")
    assert git_facts(patch=True) == {"git_commit": None}


def test_a_comparison_names_the_files_that_differ(repository: Path) -> None:
    train, model = repository / "train.py", repository / "inner" / "model.py"
    train.write_text("lr = 0.2\n", encoding="utf-8")
    recorded(repository / "a.h5")
    train.write_text("lr = 0.3\n", encoding="utf-8")
    model.write_text("width = 8\n", encoding="utf-8")
    (repository / 'a "b" ü.py').write_text("x = 1\n", encoding="utf-8")
    run_git("add", "-A")
    recorded(repository / "b.h5")
    found = flexrec.diff("a.h5", "b.h5")
    assert found.equal  # facts explain a difference, and are none
    assert [(each.name, each.a, each.b) for each in found.facts] == [
        ("git_patch.train.py", "+1 -1", "+1 -1, other lines"),
        ('git_patch.a \\"b\\" ü.py', None, "+1 -0"),
        ("git_patch.inner/model.py", None, "+0 -1"),
    ]
