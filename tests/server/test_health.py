"""Health, readiness and numbers."""

import threading
from dataclasses import dataclass, field

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from sightline.engine.queue import Counts, LaneCounts
from sightline.library import Library
from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing


@dataclass
class FakeQueue:
    alive: bool = True
    running: bool = True
    restarts: int = 0
    query: LaneCounts = field(default_factory=LaneCounts)

    def counts(self) -> Counts:
        return Counts(query=self.query, bulk=LaneCounts(), running=self.running, restarts=self.restarts)


@pytest.fixture
def services(tmp_path) -> Services:
    return Services.of(Settings(library=str(tmp_path / "library.sightline")), Seeing(), Judge())


def calling(services: Services) -> TestClient:
    return TestClient(create_app(services), base_url="http://127.0.0.1")


def numbers(client) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_health_turns_red_when_the_models_thread_is_dead(services):
    queue = FakeQueue()
    services.metrics.watch_engine(queue)
    with calling(services) as client:
        assert (client.get("/health").status_code, client.get("/health").json()) == (200, {"status": "ok"})
        queue.alive = queue.running = False
        for path in ("/health", "/ready"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "models_dead"
        assert numbers(client)[("sightline_engine_alive",)] == 0


def test_not_ready_while_the_models_start_again_but_alive(services):
    queue = FakeQueue(running=False, restarts=3)
    services.metrics.watch_engine(queue)
    with calling(services) as client:
        assert client.get("/health").status_code == 200
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "models_restart")
        assert int(answer.headers["Retry-After"]) >= 1
        found = numbers(client)
        assert found[("sightline_engine_alive",)] == 0 and found[("sightline_engine_restarts_total",)] == 3
        queue.running = True
        assert client.get("/ready").status_code == 200


def test_ready_names_the_models_and_makes_no_library(services, tmp_path):
    with calling(services) as client:
        assert client.get("/ready").json() == {"status": "ready", "embedder": "toy", "reranker": "toy-reranker"}
    assert list(tmp_path.iterdir()) == []


def test_not_ready_with_a_default_library_of_another_model(services, tmp_path):
    Library.open(tmp_path / "library.sightline", embedder=Seeing(model="another")).close()
    with calling(services) as client:
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "another" in answer.json()["error"]["message"]
        assert client.get("/health").status_code == 200


def test_not_ready_with_a_default_library_that_is_damaged(services, tmp_path):
    folder = tmp_path / "library.sightline"
    Library.open(folder, embedder=Seeing()).close()
    for file in folder.glob("ledger.sqlite*"):
        file.write_bytes(b"not a database at all" * 100)
    (folder / "sightline.json").unlink()
    with calling(services) as client:
        answer = client.get("/ready")
        assert answer.status_code == 503, answer.text
        assert str(tmp_path) not in answer.text


def test_requests_errors_and_stages_are_counted_by_fixed_labels(services):
    with calling(services) as client:
        client.post("/v1/embeddings", json={"input": ["a", "b"]})
        client.post("/v1/embeddings", json={"input": ["a", "poison"]})
        client.post("/v1/rerank", json={"query": "a", "documents": ["a", "b", "c"]})
        client.get("/v1/models/secret-name")
        client.get("/no/such/path")
        client.request("BREW", "/v1/models")
        found = numbers(client)
        text = client.get("/metrics").text
    requests = "sightline_requests_total"
    assert found[(requests, "method=POST", "route=/v1/embeddings", "status=200")] == 1
    assert found[(requests, "method=POST", "route=/v1/embeddings", "status=400")] == 1
    assert found[(requests, "method=GET", "route=/v1/models/{model}", "status=404")] == 1
    assert found[("sightline_errors_total", "code=corrupt")] == 1
    assert found[("sightline_errors_total", "code=model_not_found")] == 1
    assert found[("sightline_items_total", "task=embed")] == 2
    assert found[("sightline_items_total", "task=rerank")] == 3
    assert found[("sightline_stage_seconds_count", "stage=embed")] == 1
    assert found[("sightline_stage_seconds_count", "stage=rerank")] == 1
    assert found[("sightline_request_seconds_count", "method=POST", "route=/v1/rerank")] == 1
    for invented in ("secret-name", "/no/such/path", "BREW"):
        assert invented not in text


def test_open_requests_are_shown_while_they_run(tmp_path):
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Seeing):
        def stream(self, items, **options):
            inside.set()
            assert go_on.wait(60)
            return super().stream(items, **options)

    services = Services.of(Settings(library=str(tmp_path / "library")), Slow(), Judge())
    with calling(services) as client:
        thread = threading.Thread(target=client.post, args=("/v1/embeddings",), kwargs={"json": {"input": "a"}})
        thread.start()
        assert inside.wait(60)
        assert numbers(client)[("sightline_requests_open",)] == 1
        go_on.set()
        thread.join(60)


def test_the_models_queue_is_read_when_it_is_asked_for(services):
    queue = FakeQueue()
    services.metrics.watch_engine(queue)
    with calling(services) as client:
        assert numbers(client)[("sightline_engine_tokens_total", "lane=query")] == 0
        queue.query = LaneCounts(waiting_prompts=7, tokens=123, cost=50, budget=200, passes=3)
        found = numbers(client)
    assert found[("sightline_engine_waiting_prompts", "lane=query")] == 7
    assert found[("sightline_engine_tokens_total", "lane=query")] == 123
    assert (
        found[("sightline_engine_cost_total", "lane=query")] / found[("sightline_engine_budget_total", "lane=query")]
        == 0.25
    )
    assert found[("sightline_engine_passes_total", "lane=bulk")] == 0
