"""Names of files as JSON can hold them."""

from __future__ import annotations


def shown(path: str) -> str:
    r"""A path for people: bytes that are no UTF-8 become the sign for that.

    >>> shown("/a/caf\udce9.txt")
    '/a/caf�.txt'
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
