"""The ``Range`` header: one range of bytes, or none. Lists of ranges have cost servers quadratic time
(CVE-2025-62727) and nobody plays a video with them.
"""

from __future__ import annotations

import re
from typing import Final

from sightline.server.faults import Fault

MAX_RANGE_CHARS: Final = 64
_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


def one_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes asked for, from the first to before the last.

    Args:
        header: of the request; None where there is none.
        size: bytes of the whole.

    Returns:
        (start, stop) with 0 <= start < stop <= size, or None for the whole: also where the header is malformed or
        counts something else than bytes, as RFC 9110 says.

    Raises:
        Fault: 416 for several ranges, and for one that lies behind the end.

    >>> one_range("bytes=2-5", 10), one_range("bytes=-3", 10), one_range("bytes=8-99", 10), one_range("lines=1-2", 10)
    ((2, 6), (7, 10), (8, 10), None)
    """
    if header is None:
        return None
    check_range(header)
    found = _RANGE.fullmatch(header)
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        start, stop = max(size - int(found[2]), 0), size
    else:
        start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= stop:
        raise Fault(416)
    return start, stop


def check_range(header: str) -> None:
    """Refuse several ranges at once.

    Raises:
        Fault: 416.
    """
    if len(header) > MAX_RANGE_CHARS or "," in header:
        raise Fault(416)
