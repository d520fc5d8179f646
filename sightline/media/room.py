"""Memory that a decoder's process fills with pixels and its parent reads: one copy on each side, and no pipe between.

The parent makes it (Linux's ``memfd``), of a fixed size that nobody can change afterwards, and hands it over once. It
never maps it but reads it as a file, so nothing that the child does to it can make the parent fault, and what was read
stays as it was read. Memory is taken as it is written to; what a great picture took is given back when it is read.
There are two places: the child fills one while the parent has still to read the other.

>>> room = Room.make(2 * 4096)
>>> if room is not None:  # only where the system has such memory
...     mapped = Filled(room.fileno(), 4096)
...     print(mapped.put(np.arange(5, dtype=np.uint8)), room.read(0, 5))
...     room.close()
0 [0 1 2 3 4]
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PLACES: Final = 2
"""Units that lie ready at once."""
MAX_PLACE_BYTES: Final = 64 * 2**20
"""Bytes of a place: a picture as ``units`` gives it takes 50 MB at most. What is greater goes through the pipe."""
SHARE: Final = 32
"""A place is at most this part of the address space that a decoder may have: the places count towards it."""
KEPT_BYTES: Final = 16 * 2**20
"""Memory of each place that is kept from unit to unit."""
PAGE: Final = mmap.PAGESIZE

_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2
"""linux/falloc.h."""


def place_bytes(memory_bytes: int) -> int:
    """Bytes of a place for a decoder with so much address space: whole pages.

    >>> place_bytes(2 * 2**30) // 2**20, place_bytes(256 * 2**20) // 2**20
    (64, 8)
    """
    return min(MAX_PLACE_BYTES, memory_bytes // SHARE) // PAGE * PAGE


class Room:
    """The parent's side. Made by ``make``."""

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        self._descriptor = descriptor
        self._open = threading.Lock()
        self._closed = False
        self._place_bytes = num_bytes // PLACES
        self.num_read = 0
        """Units read so far: their places are free."""

    @classmethod
    def make(cls, num_bytes: int) -> Room | None:
        """So much memory for all places together; None where the system has nothing of the kind."""
        try:
            import fcntl

            descriptor = os.memfd_create("sightline-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except (ImportError, AttributeError, OSError):  # another system, or one that refuses
            return None
        try:
            os.truncate(descriptor, num_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except (AttributeError, OSError):
            os.close(descriptor)
            return None
        return cls(descriptor, num_bytes)

    def fileno(self) -> int:
        """What is handed over."""
        return self._descriptor

    def read(self, place: Any, num_bytes: int) -> NDArray[np.uint8]:
        """A copy of what lies at a place, flat.

        Raises:
            ValueError: there is no such place, or it is not so large: both numbers come from the child.
        """
        if type(place) is not int or not 0 <= place < PLACES or not 0 <= num_bytes <= self._place_bytes:
            raise ValueError("no such place")
        data = np.empty(num_bytes, np.uint8)
        with self._open:  # a pool may be closed by another thread, and the number be another file's by now
            if self._closed:
                raise ValueError("closed")
            done = 0
            while done < num_bytes:
                number = os.preadv(self._descriptor, [data.data[done:]], place * self._place_bytes + done)
                if number == 0:
                    raise ValueError("the memory is not as large as it was made")
                done += number
            self._give_back(place, num_bytes)
        self.num_read += 1
        return data

    def _give_back(self, place: int, num_bytes: int) -> None:
        """Return what a great picture took, before the child hears that its place is free: it may be at work."""
        if num_bytes <= KEPT_BYTES:
            return
        import ctypes

        offsets = ctypes.c_int64(place * self._place_bytes + KEPT_BYTES), ctypes.c_int64(num_bytes - KEPT_BYTES)
        with suppress(AttributeError):  # a C library without it: the memory is kept
            ctypes.CDLL(None).fallocate(self._descriptor, _KEEP_SIZE | _PUNCH_HOLE, *offsets)

    def close(self) -> None:
        """The memory goes when the child is gone too."""
        with self._open:
            if not self._closed:
                os.close(self._descriptor)
            self._closed = True


class Filled:
    """The child's side: the same memory, mapped.

    Args:
        descriptor: of the memory; it may be closed afterwards.
        num_bytes: of one place.
    """

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        self._bytes = np.frombuffer(mmap.mmap(descriptor, PLACES * num_bytes), np.uint8)
        self._place_bytes = num_bytes
        self.num_put = 0
        """Units put in so far."""

    def fits(self, num_bytes: int) -> bool:
        """Whether so many bytes have room in a place."""
        return num_bytes <= self._place_bytes

    def next_place(self, num_bytes: int) -> NDArray[np.uint8]:
        """The next place, which must be free, flat: what is made there ``put`` need not copy."""
        start = self.num_put % PLACES * self._place_bytes
        return self._bytes[start : start + num_bytes]

    def put(self, pixels: NDArray[np.uint8]) -> int:
        """Put pixels at the next place, which must be free; which one it is."""
        target = self.next_place(pixels.nbytes).reshape(pixels.shape)
        if pixels.ctypes.data != target.ctypes.data or pixels.strides != target.strides:
            np.copyto(target, pixels)
        self.num_put += 1
        return (self.num_put - 1) % PLACES
