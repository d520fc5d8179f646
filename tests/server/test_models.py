"""The built-in models as the server holds them: loaded by name, in lanes, warm, closed."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

import sightline as sl
from sightline.errors import StoppedError, WeightsError
from sightline.server.app import create_app
from sightline.server.models import open_models
from sightline.server.services import Services
from sightline.settings import Settings
from tests.parity.checkpoints import random_checkpoint

CLOSE = 1e-5
WORKERS = """
import threading
import psutil
import torch
from sightline.server.models import open_models
from sightline.settings import Settings

def others():
    return psutil.Process().num_threads() - threading.active_count()

before = others()
models = open_models(Settings(reranker="builtin"))
print(others() - before, torch.get_num_threads() - 1)
models.close()
"""


@pytest.fixture(scope="module", autouse=True)
def switch_interval():
    """Opening models changes how often threads take turns, in the whole process."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


@pytest.fixture(scope="module")
def models():
    models = open_models(Settings())
    yield models
    models.close()


def test_the_models_are_those_of_the_settings_warm_and_alive(models):
    assert models.embedder.card.model == models.bulk.card.model == "builtin"
    assert models.reranker is not None and models.reranker.card.model == "builtin"
    counts = models.queue.counts()
    assert counts.running and counts.query.prompts >= 2 and counts.bulk.prompts == 0
    assert set(models.caches) <= {"embedder", "reranker"} and models.caches


def test_both_lanes_give_the_vectors_of_the_model_itself(models):
    texts = ["a red bicycle", "tax law", "two dogs on a beach"]
    wanted = sl.Embedder.load("builtin").embed(texts)
    with ThreadPoolExecutor(6) as pool:
        rows = [pool.submit(model.embed, [text]) for model in (models.embedder, models.bulk) for text in texts]
        found = np.stack([row.result(120)[0] for row in rows])
    assert np.abs(found - np.concatenate([wanted, wanted])).max() <= CLOSE
    assert models.queue.counts().bulk.prompts == 3


def test_without_a_reranker(folder):
    models = open_models(Settings(model=folder, reranker="none"))
    try:
        assert models.reranker is None
        assert models.embedder.card.model == folder and models.embedder.embed(["a"]).shape == (1, 64)
    finally:
        models.close()
    assert not models.queue.alive and not models.queue.running
    with pytest.raises(StoppedError, match="closed"):
        models.bulk.embed(["later"])


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError):
        open_models(Settings(model=str(tmp_path / "nothing"), reranker="none"))


def test_a_server_of_real_models_answers_and_closes_them(serve, folder, tmp_path):
    library = str(tmp_path / "library.sightline")
    services = Services.open(Settings(model=folder, reranker="none", library=library))
    assert services.queue is not None and services.reranker is None
    address = serve(create_app(services))
    texts = [f"text {index}" for index in range(30)]
    wanted = sl.Embedder.load(folder).embed(texts)
    with httpx.Client(base_url=address, timeout=120) as client, ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda text: client.post("/v1/embeddings", json={"input": text}), texts))
        assert [answer.status_code for answer in answers] == [200] * 30
        found = np.asarray([answer.json()["data"][0]["embedding"] for answer in answers], np.float32)
        assert np.abs(found - wanted).max() <= CLOSE
        assert client.get("/health").status_code == 200
        # the thread of the models ends: seen at once, nobody hangs
        services.queue.close()
        assert client.get("/health").status_code == 503
        answer = client.post("/v1/embeddings", json={"input": "text"})
        assert answer.status_code == 503 and answer.json()["error"]["type"] == "server_error"


def test_closing_the_services_closes_the_models(folder, tmp_path):
    services = Services.open(Settings(model=folder, reranker="none", library=str(tmp_path / "library.sightline")))
    assert services.queue is not None and services.queue.alive
    services.close()
    assert not services.queue.alive


def test_only_the_thread_of_the_models_has_workers_of_torch():
    """With those of another thread beside them they sleep between products, a quarter of the speed."""
    command = [sys.executable, "-c", WORKERS]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # numpy has workers of its own
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    new, of_one_team = map(int, done.stdout.split())
    assert new <= of_one_team


def test_garbage_is_not_looked_for_in_what_stays(models):
    """It took half a second of every thread."""
    assert gc.get_freeze_count() > len(gc.get_objects()) > 0
