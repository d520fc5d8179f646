"""The real server of this project, through its real routes, with toys behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from sightline.errors import ItemError, RemoteError
from sightline.protocols import ItemLike
from sightline.remote import RemoteEmbedder, RemoteReranker
from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from sightline.types import Item, VideoFrames
from tests.cli.toys import Judge, Seeing
from tests.server.conftest import serving

KEY = "a-key-of-thirty-two-characters-or-so"
RED = np.full((40, 60, 3), (220, 10, 10), np.uint8)
CLIP = VideoFrames(frames=np.stack([RED, RED, RED // 2, RED]), indices=(0, 25, 50, 75), fps=25.0)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    library = tmp_path_factory.mktemp("library") / "index.sightline"
    settings = Settings(library=str(library), serve_keys=KEY)
    with serving() as start:
        yield start(create_app(Services.of(settings, Seeing(model="toy"), Judge())))


def test_the_card_is_that_of_the_model(url: str) -> None:
    assert RemoteEmbedder(url, key=KEY).card == Seeing(model="toy").card
    card = RemoteReranker(url, key=KEY).card
    assert replace(card, model="") == replace(Judge().card, model="")


def test_vectors_and_scores_are_those_of_local_models(url: str) -> None:
    items: list[ItemLike] = [
        "words",
        Item(image=RED),
        Item(text="both", image=RED),
        Item(video=CLIP),
        Item(text="a", instruction="b"),
    ]
    with RemoteEmbedder(url, key=KEY) as embedder, RemoteReranker(url, key=KEY) as reranker:
        assert np.allclose(embedder.embed(items), Seeing(model="toy").embed(items), atol=1e-5)
        assert np.allclose(reranker.score("words", items), Judge().score("words", items), atol=1e-5)
        texts = [f"word{n}" for n in range(100)]
        assert np.allclose(embedder.embed(texts), Seeing(model="toy").embed(texts), atol=1e-5)


def test_one_bad_item_is_its_own_error(url: str) -> None:
    results = list(RemoteEmbedder(url, key=KEY).stream(["a", "poison", "b"]))
    assert [isinstance(one, ItemError) for one in results] == [False, True, False]
    assert isinstance(results[1], ItemError) and results[1].code == "corrupt"


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_the_key_nothing_is_answered(url: str, key, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(RemoteError, match="key") as caught:
        RemoteEmbedder(url, key=key).embed(["a"])
    assert caught.value.status == 401
