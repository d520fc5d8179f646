"""The reranker as a user holds it, on a tiny random checkpoint."""

import numpy as np
import pytest
from PIL import Image

import sightline as sl
from tests.parity.checkpoints import random_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", template=False)


@pytest.fixture(scope="module")
def reranker(folder):
    return sl.Reranker.load(str(folder), device="cpu", dtype="float32")


DOCUMENTS = [
    "a red bicycle",
    sl.Item(image=Image.new("RGB", (64, 48), "red")),
    {"text": "a blue car", "image": Image.new("RGB", (64, 48), "blue")},
    sl.Item(),
]


@pytest.mark.parametrize("query", ["a bicycle", sl.Item(image=Image.new("RGB", (80, 80), "red"), text="but in green")])
def test_scores_do_not_depend_on_company(reranker, query):
    scores = reranker.score(query, DOCUMENTS)
    assert scores.shape == (4,) and scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    alone = [reranker.score(query, [document])[0] for document in DOCUMENTS]
    np.testing.assert_allclose(scores, alone, atol=1e-5)


def test_probability_is_the_sigmoid_of_the_log_odds(reranker):
    odds = reranker.log_odds("a", DOCUMENTS)
    np.testing.assert_allclose(reranker.score("a", DOCUMENTS), 1 / (1 + np.exp(-odds)), atol=1e-6)


def test_rank_is_sorted_and_keeps_ties_in_order(reranker):
    ranked = reranker.rank("a", [*DOCUMENTS, DOCUMENTS[0]])
    assert sorted(position for position, _ in ranked) == [0, 1, 2, 3, 4]
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True)
    assert [position for position, _ in ranked if position in (0, 4)] == [0, 4]
    assert reranker.rank("a", DOCUMENTS, top_k=2) == reranker.rank("a", DOCUMENTS)[:2]
    with pytest.raises(sl.InputError, match="top_k"):
        reranker.rank("a", DOCUMENTS, top_k=0)


def test_no_documents(reranker):
    assert reranker.score("a", []).shape == (0,)
    assert reranker.rank("a", []) == []


def test_a_bad_document_is_named_and_a_bad_query_is_an_error(reranker):
    bad = sl.Item(image=b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(sl.ItemError) as caught:
        reranker.score("a", ["fine", bad])
    assert caught.value.position == 1
    with pytest.raises(sl.MediaError):
        reranker.score(bad, ["fine"])
    with pytest.raises(sl.InputError, match="list"):
        reranker.score("a", "one text")


def test_instructions_change_scores(reranker):
    assert abs(reranker.log_odds("a", ["b"])[0] - reranker.log_odds("a", ["b"], instruction="Same colour")[0]) > 1e-4


def test_an_embedder_without_head_is_refused(tmp_path):
    from dataclasses import replace

    from tests.parity.checkpoints import TINY

    folder = random_checkpoint(tmp_path / "untied", replace(TINY, tied=False))
    with pytest.raises(sl.WeightsError, match="not a reranker"):
        sl.Reranker.load(str(folder), device="cpu")


def test_it_satisfies_the_protocol(reranker):
    from sightline.protocols import RerankingModel

    assert isinstance(reranker, RerankingModel)
