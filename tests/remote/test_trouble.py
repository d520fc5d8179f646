"""Busy servers, broken connections, poisoned items, wrong answers, and that no key is ever in a text."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import numpy as np
import pytest

from sightline.errors import ItemError, RemoteError
from sightline.remote import RemoteEmbedder, RemoteReranker
from sightline.testing import ToyEmbedder
from tests.remote.fake import Asked, Fake

KEY = "sk-very-secret-0123456789"


def embeds(asked: Asked) -> bool:
    return asked.path == "/v1/embeddings"


def error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def poisoned(asked: Asked, status: int = 400, code: str | None = None):
    """Refuses every request that holds the word poison."""
    if embeds(asked) and any("poison" in part.get("text", []) for part in asked.body["input"]):
        return status, {}, error("poison", code)
    return None


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(fake: Fake, impatient, status) -> None:
    busy = iter([(status, {"Retry-After": "7"}, error("busy")), (status, {}, error("busy")), None])
    fake.plan = lambda asked: next(busy, None) if embeds(asked) else None
    assert RemoteEmbedder(fake.url).embed(["a"]).shape == (1, 64)
    assert impatient == [7.0, -1.0]


def test_a_server_that_stays_busy_is_an_error_after_the_last_try(fake: Fake) -> None:
    fake.plan = lambda asked: (429, {}, error("busy")) if embeds(asked) else None
    with pytest.raises(RemoteError, match="busy") as caught:
        RemoteEmbedder(fake.url, retries=2).embed(["a"])
    assert caught.value.status == 429
    assert len(fake.posts("/v1/embeddings")) == 3


def test_an_hour_is_not_waited_for(fake: Fake, impatient) -> None:
    fake.plan = lambda asked: (429, {"Retry-After": "3600"}, error("quota")) if embeds(asked) else None
    with pytest.raises(RemoteError):
        RemoteEmbedder(fake.url).embed(["a"])
    assert impatient == []


def test_a_broken_connection_is_tried_again(fake: Fake) -> None:
    breaks: Any = iter([(0, {}, None), None])
    fake.plan = lambda asked: next(breaks, None) if embeds(asked) else None
    assert RemoteEmbedder(fake.url).embed(["a"]).shape == (1, 64)


def test_nobody_there(impatient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RemoteError, match="cannot be reached"):
            _ = RemoteEmbedder(url, retries=1).card
    assert len(impatient) == 1


def test_a_silent_server_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RemoteError, match="TimeoutError"):
            _ = RemoteEmbedder(url, timeout_s=0.2, retries=0).card


def test_one_poisoned_item_costs_itself(fake: Fake) -> None:
    fake.plan = lambda asked: poisoned(asked, code="corrupt")
    texts = ["a", "poison", "b", "poison", "c"]
    results: list[Any] = list(RemoteEmbedder(fake.url).stream(texts))
    assert [isinstance(one, ItemError) for one in results] == [False, True, False, True, False]
    bad = results[1]
    assert isinstance(bad, ItemError) and bad.position == 1 and bad.code == "corrupt"
    good = ToyEmbedder().embed(["a", "b", "c"])
    assert np.allclose(np.stack([results[0], results[2], results[4]]), good, atol=1e-6)
    with pytest.raises(ItemError, match="item 1"):
        RemoteEmbedder(fake.url).embed(texts)


@pytest.mark.parametrize(("status", "code"), [(413, "too_large"), (422, "option"), (500, "crash")])
def test_the_code_of_a_refused_item_follows_the_status(fake: Fake, status, code) -> None:
    fake.plan = lambda asked: poisoned(asked, status)
    bad = list(RemoteEmbedder(fake.url).stream(["a", "poison"]))[1]
    assert isinstance(bad, ItemError) and bad.code == code


def test_a_server_that_fails_at_everything_is_not_blamed_on_the_items(fake: Fake) -> None:
    fake.plan = lambda asked: (500, {}, error("out of memory")) if embeds(asked) else None
    for texts in (["a"], ["a", "b", "c"]):
        with pytest.raises(RemoteError) as caught:
            RemoteEmbedder(fake.url).embed(texts)
        assert caught.value.status == 500


def test_an_unreadable_file_is_the_error_of_its_item_and_is_never_sent(fake: Fake, tmp_path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    results = list(RemoteEmbedder(fake.url).stream(["a", {"image": str(tmp_path / "torn.png")}, "b", {"colour": 1}]))
    codes = [one.code if isinstance(one, ItemError) else "" for one in results]
    assert codes == ["", "corrupt", "", "option"]
    (body,) = fake.posts("/v1/embeddings")
    assert [part["text"] for part in body["input"]] == [["a"], ["b"]]


def test_a_bad_document_is_named(fake: Fake) -> None:
    def plan(asked: Asked):
        if asked.path == "/v1/rerank" and any("poison" in part.get("text", []) for part in asked.body["documents"]):
            return 400, {}, error("poison", "corrupt")
        return None

    fake.plan = plan
    with pytest.raises(ItemError) as caught:
        RemoteReranker(fake.url).score("q", ["a", "b", "poison"])
    assert caught.value.position == 2 and caught.value.code == "corrupt"


@pytest.mark.parametrize(
    "value",
    [
        b"<html>",
        {},
        {"data": []},
        {"data": [{"index": 0, "embedding": "!!"}]},
        {"data": [{"index": 1, "embedding": [1.0] * 64}]},
        {"data": [{"index": 0, "embedding": [1.0] * 63}]},
        {"data": [{"index": 0, "embedding": None}]},
        {"data": [{"index": 0, "embedding": [[1.0]]}]},
    ],
)
def test_a_strange_answer_is_an_error_and_no_vector(fake: Fake, value) -> None:
    fake.plan = lambda asked: (200, {}, value) if embeds(asked) else None
    with pytest.raises(RemoteError):
        RemoteEmbedder(fake.url).embed(["a"])


@pytest.mark.parametrize("vector", [[0.0] * 64, [float("nan")] * 64, [1e300] * 64])
def test_a_vector_without_a_direction_is_refused(fake: Fake, vector) -> None:
    fake.plan = lambda asked: (200, {}, {"data": [{"index": 0, "embedding": vector}]}) if embeds(asked) else None
    (bad,) = RemoteEmbedder(fake.url).stream(["a"])
    assert isinstance(bad, ItemError) and bad.code == "nan"


def test_a_redirect_is_not_followed(fake: Fake) -> None:
    fake.plan = lambda asked: (307, {"Location": fake.url + "/elsewhere"}, {}) if embeds(asked) else None
    with pytest.raises(RemoteError, match="307"):
        RemoteEmbedder(fake.url, key=KEY).embed(["a"])
    assert not [asked for asked in fake.asked if asked.path == "/elsewhere"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 500])
def test_the_key_is_in_the_header_and_nowhere_else(fake: Fake, caplog, status) -> None:
    caplog.set_level(logging.DEBUG)
    embedder = RemoteEmbedder(fake.url, key=KEY)
    embedder.embed(["a"])
    # a rude server says back what it was sent
    fake.plan = lambda asked: (status, {}, error(f"bad key {asked.headers['Authorization']}"))
    texts = [repr(embedder)]
    try:
        list(embedder.stream(["a", "b"]))
    except RemoteError as caught:
        texts.append(f"{caught} {caught!r}")
    assert all(asked.headers["Authorization"] == f"Bearer {KEY}" for asked in fake.asked)
    assert not [asked for asked in fake.asked if KEY in asked.path or KEY in str(asked.body)]
    assert KEY not in "".join(texts) + caplog.text


def test_no_key_no_header_and_the_error_says_how_to_give_one(fake: Fake) -> None:
    fake.plan = lambda asked: (401, {}, error("a key is needed")) if embeds(asked) else None
    with pytest.raises(RemoteError, match="key="):
        RemoteEmbedder(fake.url).embed(["a"])
    assert "Authorization" not in fake.asked[-1].headers


def test_a_stream_takes_no_more_than_it_needs(fake: Fake) -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield f"word{taken}"

    stream = RemoteEmbedder(fake.url, concurrency=2).stream(endless())
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not isinstance(first, ItemError) and taken <= 32 * 4


def test_threads_share_a_model(fake: Fake) -> None:
    embedder = RemoteEmbedder(fake.url)
    wanted = ToyEmbedder()
    wrong: list[float] = []

    def work(n: int) -> None:
        for _ in range(5):
            difference = embedder.embed([f"word{n}"]) - wanted.embed([f"word{n}"])
            wrong.append(float(np.abs(difference).max()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40 and max(wrong) < 1e-6
    assert sum(asked.path == "/v1/models" for asked in fake.asked) == 1, "the card is asked once"
