"""An application around toys for most tests; a real server with the built-in models for those that need one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing


def toy_app(**settings) -> FastAPI:
    return create_app(Services.of(Settings(**settings), Seeing(model="toy"), Judge()))


@pytest.fixture
def client(tmp_path) -> Iterator[TestClient]:
    """Calls the application with toys, without a socket."""
    with TestClient(toy_app(library=str(tmp_path / "library.sightline")), base_url="http://127.0.0.1") as client:
        yield client


@contextmanager
def serving() -> Iterator[Callable[..., str]]:
    """Starts applications on free ports of this machine; each start gives the address. All are stopped at the end."""
    running = []

    def start(app: FastAPI, **options) -> str:
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", **options))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        end = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    try:
        yield start
    finally:
        for server, thread in running:
            server.should_exit = True
            thread.join(timeout=30)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts an application on a free port of this machine; returns its address. Stopped after the test."""
    with serving() as start:
        yield start
