"""One vision tower for the models that have the same one.

The embedder and the reranker of a size very likely share their tower (the published LoRA touched decoder layers only),
but nobody says so: the tensors are compared at load. When they are equal the second model takes the first one's tower,
which saves its memory, and both share the features made with it: a picture embedded a moment ago is not seen twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import zip_longest
from weakref import WeakKeyDictionary, WeakSet

import torch

from sightline.engine.features import FeatureCache
from sightline.model.packed import PackedLinear
from sightline.model.vision import VisionTower
from sightline.model.vl import QwenVL

logger = logging.getLogger(__name__)

_towers: WeakSet[VisionTower] = WeakSet()
_caches: WeakKeyDictionary[VisionTower, FeatureCache] = WeakKeyDictionary()


def share_tower(network: QwenVL) -> None:
    """Gives the network the equal tower of a network that is in use, if there is one."""
    for tower in list(_towers):
        if tower is not network.visual and _equal(tower, network.visual):
            network.visual = tower
            logger.info("this vision tower is in use already: one copy is kept")
            return
    _towers.add(network.visual)


def cache_of(tower: VisionTower, max_bytes: int) -> FeatureCache:
    """The features made with a tower; the largest limit asked for holds."""
    cache = _caches.setdefault(tower, FeatureCache(0))
    cache.max_bytes = max(cache.max_bytes, max_bytes)
    return cache


def _equal(first: VisionTower, second: VisionTower) -> bool:
    if first.config != second.config:
        return False
    pairs = zip_longest(_tensors(first), _tensors(second), fillvalue=("", torch.empty(0)))
    return all(
        one == other and a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)
        for (one, a), (other, b) in pairs
    )


def _tensors(tower: VisionTower) -> Iterator[tuple[str, torch.Tensor]]:
    # a tower with int8 weights holds buffers in place of parameters
    yield from tower.named_parameters()
    yield from tower.named_buffers()
    for name, module in tower.named_modules():
        if isinstance(module, PackedLinear):
            yield name, module.dense()
