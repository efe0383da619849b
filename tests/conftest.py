"""Fixtures for every test, and which tests this machine cannot run."""

import importlib.util
import os

import pytest
from visdom_server import visdom_server

__all__ = ["visdom_server"]

# The tests run side by side: one thread each, and in what they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_left_out: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a CUDA device or a browser where there is none."""
    for marker, lacking in (("gpu", _no_cuda), ("browser", _no_browser)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        why = lacking() if marked else ""
        if why:
            items[:] = [item for item in items if item not in marked]
            config.hook.pytest_deselected(items=marked)
            _left_out.append(f"{len(marked)} {marker} tests were left out: {why}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and why."""
    for line in _left_out:
        terminalreporter.write_line(line)


def _no_cuda() -> str:
    if importlib.util.find_spec("torch") is None:
        return "there is no torch"
    import torch

    return "" if torch.cuda.is_available() else "there is no CUDA device"


def _no_browser() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "there is no playwright: pip install 'flexrec[browser]'"
    from browser import chromium_path

    from flexrec.recorder.errors import ServerError
    from flexrec.replay.assets import provide

    if chromium_path() is None:
        return "there is no Chromium (make browser-test installs it)"
    try:
        provide()
    except ServerError as error:
        return str(error)
    return ""
