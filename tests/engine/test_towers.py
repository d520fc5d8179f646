"""Embedder and reranker of one size keep one vision tower when it is the same, and share what it saw."""

import gc

import numpy as np

import sightline as sl
from tests.parity.checkpoints import random_checkpoint


def picture(value):
    return sl.Item(image=np.full((64, 64, 3), value, np.uint8))


def load(folder):
    return (
        sl.Embedder.load(str(folder), device="cpu", dtype="float32"),
        sl.Reranker.load(str(folder), device="cpu", dtype="float32"),
    )


def test_equal_towers_are_one_and_features_are_shared(tmp_path):
    embedder, reranker = load(random_checkpoint(tmp_path / "same"))
    assert embedder._engine.model.visual is reranker._engine.model.visual
    fresh = reranker.score("a", [picture(40)])
    before = reranker._engine.features.hits
    embedder.embed([picture(90)])
    shared = reranker.score("a", [picture(90)])
    assert reranker._engine.features.hits == before + 1
    reranker._engine.features.clear()
    np.testing.assert_allclose(reranker.score("a", [picture(90)]), shared, atol=1e-6)
    np.testing.assert_allclose(reranker.score("a", [picture(40)]), fresh, atol=1e-6)


def test_different_towers_stay_apart(tmp_path):
    embedder, _ = load(random_checkpoint(tmp_path / "one"))
    _, reranker = load(random_checkpoint(tmp_path / "two", seed=1))
    assert embedder._engine.model.visual is not reranker._engine.model.visual
    assert embedder._engine.features is not reranker._engine.features


def test_a_tower_nobody_uses_leaves_memory(tmp_path):
    from sightline.engine.towers import _towers

    gc.collect()
    before = len(_towers)
    models = load(random_checkpoint(tmp_path / "gone", seed=7))
    assert len(_towers) == before + 1
    del models
    gc.collect()
    assert len(_towers) == before
