"""The feature cache: bytes are a limit."""

import torch

from sightline.engine.features import FeatureCache


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
