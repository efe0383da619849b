"""Fixtures for every test."""

import importlib.util

import pytest
from visdom_server import visdom_server

__all__ = ["visdom_server"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the GPU tests out where there is no CUDA device, and say how many."""
    if _has_cuda():
        return
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    items[:] = [item for item in items if not item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=on_gpu)


def _has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
