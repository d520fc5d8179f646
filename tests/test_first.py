"""The first test to run: a folder becomes an index, and a question finds its answer. Under two seconds."""

from pathlib import Path

import numpy as np

import sightline as sl
from sightline.testing import ToyEmbedder, ToyReranker


def test_a_folder_becomes_an_index_and_a_question_finds_its_answer(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "bike.txt").write_text("A red bicycle leans on a wall.")
    (photos / "cat.txt").write_text("A black cat sleeps on the sofa.")

    embedder = ToyEmbedder()
    vectors = embedder.embed([sl.Item(text="a red bicycle"), sl.Item(text="a black cat")])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    with sl.Library.open(tmp_path / "photos.sightline", embedder=embedder, reranker=ToyReranker()) as library:
        report = library.add([photos])
        assert (report.seen, report.indexed, report.units) == (2, 2, 2)
        best = library.search("a red bicycle", k=1)[0]
    assert Path(best.path).name == "bike.txt"
    assert best.score == best.rerank_score
    assert best.snippet == "A red bicycle leans on a wall."
