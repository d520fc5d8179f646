"""Units that were read again lately: a second question about the same candidates decodes none of them.

Keeps pixels and frames up to a number of bytes, the longest unused go first. A file that changes is read anew: size,
time and number of the file are looked at each time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from sightline.search.rerank import UnitReader
from sightline.types import Kind, Unit

SEEN_BYTES: Final = 256 * 2**20
"""Pixels kept by one library: 120 pages, or the candidates of several searches for photographs."""


class Seen:
    """A reader of units that remembers. Any thread may call.

    Args:
        reader: reads what is not remembered.
        max_bytes: of pixels and frames; a unit over it is not kept.
    """

    def __init__(self, reader: UnitReader, max_bytes: int = SEEN_BYTES) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[Any, ...], tuple[Unit, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def unit(
        self,
        path: str,
        kind: Kind,
        *,
        page: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Unit:
        """The unit, from memory when its file is as it was. Raises ``MediaError``."""
        try:
            now = Path(path).stat()
        except OSError:
            return self._reader.unit(path, kind, page=page, start_s=start_s, end_s=end_s)
        # looked at before the file is read: what changes in between is told by the next look
        key = (path, kind, page, start_s, end_s, now.st_ino, now.st_size, now.st_mtime_ns)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        unit = self._reader.unit(path, kind, page=page, start_s=start_s, end_s=end_s)
        self._keep(key, unit)
        return unit

    def _keep(self, key: tuple[Any, ...], unit: Unit) -> None:
        size = num_bytes(unit)
        if size > self._max_bytes:
            return
        with self._lock:
            if key not in self._kept:
                self._kept[key] = unit, size
                self._num_bytes += size
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._kept.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Give the memory back."""
        with self._lock:
            self._kept.clear()
            self._num_bytes = 0


def num_bytes(unit: Unit) -> int:
    """Of its pixels and frames."""
    pixels = 0 if unit.pixels is None else unit.pixels.nbytes
    return pixels + (0 if unit.frames is None else unit.frames.frames.nbytes)
