"""The commit that is checked out in the current directory, and what is not committed.

Git gets a second in all. It is asked not to lock the repository, to fetch nothing, and to run none
of the programs that a repository or its submodules may configure: hooks, monitors, and those that
show, convert or filter files.
"""

import hashlib
import os
import re
import subprocess
import threading
import time
from typing import Any

_SECONDS = 1.0
_PATCH = 100_000  # bytes
_UNTRACKED = 100  # names
_NAMES = 20_000  # bytes
_SETTINGS = ("-c", "core.fsmonitor=false", "-c", "core.quotepath=false")
_COMMIT = ("rev-parse", "HEAD")
_DIFF = (
    # Otherwise git diff locks and writes the index, and calls a hook.
    *("-c", "diff.autoRefreshIndex=false", "-c", "diff.relative=false"),
    *("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
    *("--ignore-submodules=dirty", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/"),
)
_FILTER = re.compile(r"(filter\..*)\.(?:clean|process)", re.DOTALL)
_THEIRS = ("local", "worktree")
_FILTERS = ("config", "--show-scope", "--name-only", "-z", "--get-regexp", r"^filter\.")
_OTHERS = ("ls-files", "--others", "--exclude-standard", "--directory", "--full-name", "-z", ":/")
_LOCK = re.compile(r"(^|/)\.[^/]+\.lock$")  # such as the lock beside every recording


def git_facts(*, patch: bool) -> dict[str, Any]:
    """The commit as `git_commit`, and what is not committed as `git_patch`, if it is wanted.

    `git_patch` has the `text` of `git diff HEAD` up to 100 kB, its `sha256`, whether it was `cut`,
    and the names of `untracked` files, at most 100. Without changes it is absent. If git took too
    long, or needs a filter that the repository configures, it has `missing`, the reason.
    """
    until = time.monotonic() + _SECONDS
    commit = _Answer(_COMMIT, _NAMES)
    filters, others = (
        (_Answer(_FILTERS, _PATCH), _Answer(_OTHERS, _NAMES)) if patch else (None, None)
    )
    found: dict[str, Any] = {"git_commit": None}
    if commit.wait(until):
        found["git_commit"] = commit.text.strip()
    if filters is not None and others is not None and found["git_commit"]:
        uncommitted = _uncommitted(filters, others, until)
        if uncommitted:
            found["git_patch"] = uncommitted
    return found


def _uncommitted(filters: "_Answer", others: "_Answer", until: float) -> dict[str, Any]:
    if not filters.wait(until) and filters.code != 1:  # 1: there are none
        return {"missing": f"git config {filters.failure}"}
    own = _own_filters(filters.text)
    if filters.is_cut or any("=" in name for name in own):
        return {"missing": "the repository configures filters that git cannot be kept from running"}
    without = (f"{name}.{key}" for name in own for key in ("clean=", "process=", "required=true"))
    diff = _Answer((*(word for each in without for word in ("-c", each)), *_DIFF), _PATCH)
    if not diff.wait(until):
        unused = f", without running {', '.join(own)} of the repository" if own else ""
        return {"missing": f"git diff {diff.failure}{unused}"}
    names = others.text.split("\0")[:-1] if others.wait(until) else []
    names = [name for name in names if not _LOCK.search(name)]
    if not (diff.text or names):
        return {}
    return {
        "sha256": hashlib.sha256(diff.text.encode()).hexdigest(),
        "cut": diff.is_cut,
        "untracked": names[:_UNTRACKED],
        "untracked_left_out": max(0, len(names) - _UNTRACKED) if not others.is_cut else None,
        "text": diff.text,
    }


def _own_filters(text: str) -> list[str]:
    """The names of the filters that a repository configures, not its user, such as `filter.x`."""
    words = text.split("\0")
    names = [name for scope, name in zip(words[::2], words[1::2], strict=False) if scope in _THEIRS]
    return list(dict.fromkeys(match[1] for name in names if (match := _FILTER.fullmatch(name))))


class _Answer:
    """The first bytes that git writes; a thread waits for them.

    Attributes:
        text: the answer; if it was cut, up to the last whole line or name.
        is_cut: whether git had more to say.
        code: the exit code; None until it has ended.
    """

    def __init__(self, arguments: tuple[str, ...], most: int) -> None:
        self.text, self.is_cut = "", False
        self.code: int | None = None
        self._arguments, self._most = arguments, most
        self._process: subprocess.Popen[bytes] | None = None
        self._is_whole = False
        self._thread = threading.Thread(target=self._read, name="flexrec git", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """What went wrong, if `wait` said that something did."""
        is_late = self._thread.is_alive() or self.code is None
        return f"did not answer within {_SECONDS:g} s" if is_late else "failed"

    def wait(self, until: float) -> bool:
        """Wait until a time of the monotonic clock; returns whether git answered."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            if self._process is not None:
                self._process.kill()
            return False
        return self._is_whole

    def _read(self) -> None:
        quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
        quiet["GIT_ALLOW_PROTOCOL"] = "none"  # git before 2.45 knows no GIT_NO_LAZY_FETCH
        try:
            with subprocess.Popen(  # noqa: S603 - the arguments are above
                ["git", *_SETTINGS, *self._arguments],  # noqa: S607 - the user's own
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **quiet},
            ) as process:
                self._process = process
                answer = process.stdout.read(self._most + 1) if process.stdout else b""
                self.is_cut = len(answer) > self._most
                if self.is_cut:
                    process.kill()
                    answer = answer[: max(answer.rfind(end, 0, self._most) for end in b"\n\0") + 1]
                self.text = answer.decode("utf-8", "replace")
            self.code = process.returncode
            self._is_whole = self.is_cut or self.code == 0
        except (OSError, ValueError, RuntimeError):  # there is no git
            self._is_whole = False
