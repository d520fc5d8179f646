"""A library whose models run elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sightline import Library
from sightline.errors import IndexMismatchError, RemoteError
from sightline.remote import RemoteEmbedder, RemoteReranker
from sightline.testing import ToyEmbedder, ToyReranker
from tests.remote.fake import Fake


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "bicycle.txt").write_text("A red bicycle leans on the wall.\n")
    (folder / "bread.txt").write_text("Flour, water, salt and time.\n")
    Image.fromarray(np.full((64, 64, 3), (10, 10, 220), np.uint8)).save(folder / "blau.png")
    return folder


def test_index_and_search_through_a_server(fake: Fake, shelf, tmp_path) -> None:
    embedder, reranker = RemoteEmbedder(fake.url), RemoteReranker(fake.url)
    with Library.open(tmp_path / "index.sightline", embedder=embedder, reranker=reranker) as library:
        report = library.add([shelf])
        assert report.indexed == 3 and not report.skipped
        assert library.search("a red bicycle", k=1)[0].path.endswith("bicycle.txt")
        blue = np.full((64, 64, 3), (10, 10, 220), np.uint8)
        best = library.search({"image": blue}, k=1)[0]
        assert best.path.endswith("blau.png") and best.rerank_score is not None


def test_an_index_of_local_weights_is_searched_through_the_server_that_holds_them(fake: Fake, shelf, tmp_path) -> None:
    with Library.open(tmp_path / "index.sightline", embedder=ToyEmbedder(), reranker=ToyReranker()) as library:
        library.add([shelf])
        local = [(hit.path, hit.score) for hit in library.search("red bicycle")]
    with Library.open(
        tmp_path / "index.sightline", embedder=RemoteEmbedder(fake.url), reranker=RemoteReranker(fake.url)
    ) as library:
        remote = [(hit.path, hit.score) for hit in library.search("red bicycle")]
    assert [path for path, _ in remote] == [path for path, _ in local]
    assert np.allclose([score for _, score in remote], [score for _, score in local], atol=1e-5)


def test_another_model_on_the_server_is_refused(fake: Fake, shelf, tmp_path) -> None:
    with Library.open(tmp_path / "index.sightline", embedder=ToyEmbedder()) as library:
        library.add([shelf])
    fake.embedder = ToyEmbedder(model="another")
    with pytest.raises(IndexMismatchError, match="another"):
        Library.open(tmp_path / "index.sightline", embedder=RemoteEmbedder(fake.url))


def test_a_server_that_goes_away_stops_the_indexing_and_the_next_run_goes_on(fake: Fake, shelf, tmp_path) -> None:
    with Library.open(tmp_path / "index.sightline", embedder=RemoteEmbedder(fake.url, retries=0)) as library:
        fake.plan = lambda asked: (503, {}, {}) if asked.path == "/v1/embeddings" else None
        with pytest.raises(RemoteError):
            library.add([shelf])
        assert not library.failures(), "no file is blamed"
        fake.plan = lambda asked: None
        report = library.add([shelf])
        assert report.indexed == 3
