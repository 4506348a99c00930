from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from ssh_support import Server, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that polls ten times a second."""
    monkeypatch.setattr("dskd_export.fleet.run._POLL_EVERY_S", 0.1)


@pytest.fixture
def ssh_server(server: Server) -> Iterator[Server]:
    """The server, running and with nothing on its disk."""
    if server.process.poll() is not None:
        server.start()
    shutil.rmtree(server.cache, ignore_errors=True)
    yield server
    if server.process.poll() is not None:
        server.start()
