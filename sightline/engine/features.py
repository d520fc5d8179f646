"""Vision features as a value: remembered by the hash of the patches they were made from.

The key is made from the patches themselves (``prep``), never from what a caller says they are, and a cache belongs to
one vision tower, so content, pixel budget and weights all decide it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

Features = tuple[Tensor, ...]
"""Main features and DeepStack's, each (M, C)."""


class FeatureFolder:
    """Features that outlive the process, a file for each picture; several processes may use one folder.

    A cache and nothing more: a file that cannot be read or written is as if it were not there.

    Args:
        folder: where they lie.
        tower: what the features depend on beside the patches: weights of the tower and arithmetic.
        max_bytes: of all files; the ones longest unused go first.
    """

    def __init__(self, folder: Path, tower: str, max_bytes: int) -> None:
        self.folder = folder / tower
        self.max_bytes = max_bytes
        self._written = 0

    def get(self, key: bytes) -> Features | None:
        """What was kept under the key, by this process or another."""
        path = self._path(key)
        try:
            found = load_file(path)
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return tuple(found[str(index)] for index in range(len(found)))

    def put(self, key: bytes, features: Features) -> None:
        """Keeps features, whole or not at all."""
        path = self._path(key)
        partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({str(index): part.contiguous().cpu() for index, part in enumerate(features)}, partial)
            partial.replace(path)
        except OSError as error:
            logger.warning("vision features cannot be kept: %s (%s)", error.strerror, self.folder)
            return
        self._written += _size(features)
        if self._written > self.max_bytes // 8:
            self._written = 0
            self._trim()

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _trim(self) -> None:
        kept = sorted(((stat.st_mtime, stat.st_size, path) for path, stat in self._files()), reverse=True)
        total = 0
        for _, size, path in kept:
            total += size
            if total > self.max_bytes:
                path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.folder.glob("*/*"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process trims too
                continue
        return found


class FeatureCache:
    """The most recently used features, up to a number of bytes; may be shared by threads.

    Attributes:
        folder: where they are kept beyond that and beyond the process, or None.
    """

    folder: FeatureFolder | None = None

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
            if found is not None:
                self.hits += 1
                self._kept.move_to_end(key)
                return found
        found = self.folder.get(key) if self.folder else None
        if found is not None:
            self._remember(key, found)
        with self._lock:
            self.hits += found is not None
            self.misses += found is None
        return found

    def put(self, key: bytes, features: Features) -> None:
        """Remembers features, forgetting the oldest that no longer fit; what is over the limit alone is not kept."""
        self._remember(key, features)
        if self.folder:
            self.folder.put(key, features)

    def _remember(self, key: bytes, features: Features) -> None:
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
