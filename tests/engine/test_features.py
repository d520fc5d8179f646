"""The feature cache: bytes are a limit."""

import numpy as np
import torch

from sightline.embed import Embedder
from sightline.engine.features import FeatureCache, FeatureFolder
from sightline.settings import Settings
from sightline.types import Item
from tests.parity.checkpoints import TINY, random_checkpoint


def features(value, rows=4):
    return (torch.full((rows, 8), float(value)), torch.full((rows, 8), float(value)))


def test_remembers_and_forgets_the_least_recently_used():
    cache = FeatureCache(2 * 2 * 4 * 8 * 4)
    cache.put(b"a", features(1))
    cache.put(b"b", features(2))
    kept = cache.get(b"a")
    assert kept is not None and kept[0][0, 0] == 1
    cache.put(b"c", features(3))
    assert b"b" not in cache and b"a" in cache and b"c" in cache
    assert cache.num_bytes <= cache.max_bytes
    assert cache.get(b"b") is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_what_is_over_the_limit_alone_is_not_kept():
    cache = FeatureCache(10)
    cache.put(b"a", features(1))
    assert b"a" not in cache and cache.num_bytes == 0


def test_a_folder_outlives_the_cache_and_is_no_more_than_a_cache(tmp_path):
    first, second = FeatureCache(0), FeatureCache(10_000)
    first.folder = FeatureFolder(tmp_path, "tower-float32", 10**6)
    second.folder = FeatureFolder(tmp_path, "tower-float32", 10**6)
    first.put(b"a", features(1))
    found = second.get(b"a")
    assert found is not None and torch.equal(found[1], features(1)[1]) and b"a" in second
    other = FeatureFolder(tmp_path, "other-float32", 10**6)
    assert other.get(b"a") is None, "features of other weights"
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    assert first.get(b"a") is None, "a file that was cut short"
    first.put(b"a", features(2))
    again = first.get(b"a")
    assert again is not None and again[0][0, 0] == 2


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    folder = FeatureFolder(tmp_path / "file", "tower", 10**6)
    folder.put(b"a", features(1))
    assert folder.get(b"a") is None and "cannot be kept" in caplog.text


def test_a_folder_lets_go_of_what_was_longest_unused(tmp_path):
    folder = FeatureFolder(tmp_path, "tower", 20_000)
    for index in range(200):
        folder.put(bytes([index]), features(index))
        folder.get(b"\x00")
    files = list(tmp_path.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 20_000 * 9 / 8 + 1000
    assert folder.get(b"\x00") is not None and folder.get(bytes([199])) is not None and folder.get(b"\x01") is None


def test_a_second_run_sees_no_picture_again(tmp_path, monkeypatch):
    model = str(random_checkpoint(tmp_path / "checkpoint", TINY))
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    settings = Settings(feature_cache=str(tmp_path / "features"))
    plain = Embedder.load(model, device="cpu").embed([Item(image=picture)])
    Embedder.load(model, device="cpu", settings=settings).embed([Item(image=picture)])
    again = Embedder.load(model, device="cpu", settings=settings)
    again._engine.features.clear()
    monkeypatch.setattr(again._engine.model, "vision_features", None)
    assert np.allclose(again.embed([Item(image=picture)]), plain, atol=1e-6)
