"""Vision features as a value: remembered by the hash of the patches they were made from.

The key is made from the patches themselves (``prep``), never from what a caller says they are, and a cache belongs to
one vision tower, so content, pixel budget and weights all decide it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from torch import Tensor

Features = tuple[Tensor, ...]
"""Main features and DeepStack's, each (M, C)."""


class FeatureCache:
    """The most recently used features, up to a number of bytes; may be shared by threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Features] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def get(self, key: bytes) -> Features | None:
        """What is remembered under the key."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found

    def put(self, key: bytes, features: Features) -> None:
        """Remembers features, forgetting the oldest that no longer fit; what is over the limit alone is not kept."""
        size = _size(features)
        if size > self.max_bytes:
            return
        copies = tuple(part.clone() for part in features)  # a view would keep the whole batch alive
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = copies
            self.num_bytes += size
            while self.num_bytes > self.max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.num_bytes -= _size(oldest)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()
            self.num_bytes = 0


def _size(features: Features) -> int:
    return sum(part.numel() * part.element_size() for part in features)
