"""Fixtures for every test, and which tests this machine cannot run."""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support.frameworks import FRAMEWORKS
from support.visdom_server import visdom_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["visdom_server"]

# The tests run side by side: one thread each, and in what they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run gives what the last one gave; `make search` looks for new examples, at more moments.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile("same")

TESTS = Path(__file__).parent
VIEWING = ("cli", "replay")  # folders of the viewing side
_TORCH = re.compile(
    r"^(import|from) torch\b|^from flexrec\b.*\bTooledModel\b|^from support import sharded_work$",
    re.MULTILINE,
)
_HAS_TORCH = importlib.util.find_spec("torch") is not None
_LACKING = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
_FRAMEWORK = re.compile(rf"^(?:import|from) ({'|'.join(_LACKING)})\b", re.MULTILINE)

_left_out: list[str] = []


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """One headless Chromium for all tests of a file."""
    from support.browser import chromium, chromium_path

    path = chromium_path()
    assert path is not None
    with chromium(path) as started:
        yield started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a recording may be made."""
    return tmp_path / "run.h5"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the files that import torch or a framework where there is none."""
    if collection_path.suffix != ".py" or not collection_path.is_file():
        return None
    text = collection_path.read_text("utf-8")
    if not _HAS_TORCH and _TORCH.search(text):
        return True
    lacking = _FRAMEWORK.search(text) if _LACKING else None
    if lacking is None:
        return None
    _left_out.append(f"{collection_path.name} was left out: there is no {lacking[1]}")
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the viewing side; leave out what needs a CUDA device or browser where there is none."""
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).parts[0] in VIEWING:
            item.add_marker("viewing")
    for marker, lacking in (("gpu", _no_cuda), ("browser", _no_browser)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        why = lacking() if marked else ""
        if why:
            items[:] = [item for item in items if item not in marked]
            config.hook.pytest_deselected(items=marked)
            _left_out.append(f"{len(marked)} {marker} tests were left out: {why}")


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Say what was left out, and why."""
    for line in _left_out:
        terminalreporter.write_line(line)


def _no_cuda() -> str:
    if not _HAS_TORCH:
        return "there is no torch"
    import torch

    return "" if torch.cuda.is_available() else "there is no CUDA device"


def _no_browser() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "there is no playwright: pip install playwright"
    from flexrec.recorder.errors import ServerError
    from flexrec.replay.server.assets import provide
    from support.browser import chromium_path

    if chromium_path() is None:
        return "there is no Chromium (make browser-test installs it)"
    try:
        provide()
    except ServerError as error:
        return str(error)
    return ""
