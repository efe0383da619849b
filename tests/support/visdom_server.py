"""A real visdom server for the tests: import `visdom_server` into conftest."""

from collections.abc import Iterator

import pytest

from flexrec.replay.server.server import Server, start_server

__all__ = ["visdom_server"]


@pytest.fixture(scope="session")
def visdom_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the session, on 127.0.0.1; tests take an environment each."""
    with start_server(env_path=tmp_path_factory.mktemp("envs")) as server:
        yield server
