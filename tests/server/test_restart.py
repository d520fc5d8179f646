"""The thread of the models fails under a running server: its callers are told, the next are served."""

import logging
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sightline.engine.queue import MOST_RESTARTS
from sightline.server import faults
from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.parity.checkpoints import random_checkpoint

PATIENCE_S = 120


class Panic(BaseException):
    """As libraries in Rust raise it: no ``Exception``."""


@pytest.fixture
def services(tmp_path):
    folder = str(random_checkpoint(tmp_path / "tiny"))
    return Services.open(Settings(model=folder, reranker="none", library=str(tmp_path / "library.sightline")))


@pytest.fixture
def address(serve, services):
    return serve(create_app(services))


@pytest.fixture
def broken(services, monkeypatch):
    """Every pass of the network panics until the context is undone."""
    engine = services.embedder._engine

    def panic(*_):
        raise Panic("no caller may read this")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", panic)
        yield patch


def embed(address: str) -> httpx.Response:
    return httpx.post(f"{address}/v1/embeddings", json={"input": "a red bicycle"}, timeout=PATIENCE_S)


def restarts(address: str) -> float:
    text = httpx.get(f"{address}/metrics").text
    found = {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples}
    return float(found["sightline_engine_restarts_total"])


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_a_failed_pass_is_503_and_the_next_request_is_served(address, broken, monkeypatch):
    monkeypatch.setattr("sightline.engine.queue.PAUSE_S", 2.0)
    assert httpx.get(f"{address}/ready").status_code == 200
    answer = embed(address)
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"]["message"] == faults.MESSAGES[503]
    ready = httpx.get(f"{address}/ready")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "models_restart")
    assert httpx.get(f"{address}/health").status_code == 200
    broken.undo()
    assert embed(address).status_code == 200  # it came while the thread was down, and waited
    until(lambda: httpx.get(f"{address}/ready").status_code == 200)
    assert restarts(address) == 1


def test_a_thread_that_fails_again_and_again_stays_red_and_is_logged(address, broken, monkeypatch, caplog):
    monkeypatch.setattr("sightline.engine.queue.PAUSE_S", 0.001)
    with caplog.at_level(logging.CRITICAL):
        assert {embed(address).status_code for _ in range(MOST_RESTARTS + 1)} == {503}
    assert "stays down" in caplog.text
    broken.undo()
    assert embed(address).status_code == 503
    for path in ("/ready", "/health"):
        answer = httpx.get(f"{address}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "models_dead")
    assert restarts(address) == MOST_RESTARTS
