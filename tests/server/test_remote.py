"""A server whose models run on another one, which fails."""

import pytest

import sightline
from sightline.remote import RemoteEmbedder, RemoteReranker
from sightline.remote.calls import Caller
from sightline.server import faults
from sightline.server.services import Services
from sightline.settings import Settings
from tests.remote.fake import Fake, start
from tests.server.test_health import calling


@pytest.fixture
def fake(monkeypatch):
    """The other server; nobody waits between tries."""
    monkeypatch.setattr(Caller, "_wait", lambda *_: None)
    fake = Fake()
    server = start(fake)
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(fake, tmp_path):
    embedder, reranker = RemoteEmbedder(fake.url, retries=0), RemoteReranker(fake.url, retries=0)
    kept = Settings(library=str(tmp_path / "library.sightline"))
    with calling(Services.of(kept, embedder, reranker)) as client:
        yield client


ASKED = [
    ("/v1/embeddings", {"input": ["a"]}),
    ("/v2/embed", {"texts": ["a"], "embedding_types": ["float"]}),
    ("/v1/rerank", {"query": "a", "documents": ["b", "c"]}),
    ("/v1/score", {"text_1": "a", "text_2": ["b"]}),
    ("/v1/search", {"text": "a"}),
]
SECRET = "words of the other server"


@pytest.mark.parametrize(("path", "body"), ASKED, ids=[path for path, _ in ASKED])
@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_another_server_that_fails_is_502_in_the_one_shape(client, fake, path, body, status):
    client.post("/v1/libraries/default/items", json={"paths": []})
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    fake.plan = lambda _: (status, {}, {"error": {"message": SECRET, "code": None}})
    answer = client.post(path, json=body)
    assert answer.status_code == 502, answer.text
    error = answer.json()["error"]
    assert error == {"message": faults.MESSAGES[502], "type": "server_error", "param": None, "code": "remote"}
    assert SECRET not in answer.text and fake.url not in answer.text
    fake.plan = lambda _: None
    assert client.post(path, json=body).status_code == 200


def test_the_error_is_one_of_the_public_ones():
    assert issubclass(sightline.RemoteError, sightline.SightlineError)
