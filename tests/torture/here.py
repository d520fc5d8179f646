"""Decoding in the process itself: for what is not about decoders, a hundred times over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sightline import library
from sightline.media.units import units
from sightline.settings import Settings


class Here:
    """A ``DecodePool`` without children."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def units(self, path: str) -> Iterator[Any]:
        return units(path, self._settings)


@contextlib.contextmanager
def decoding_here(wanted: bool = True) -> Iterator[None]:
    """Every library opened inside decodes in this process."""
    names: dict[str, Any] = vars(library)
    before = names["DecodePool"]
    if wanted:
        names["DecodePool"] = Here
    try:
        yield
    finally:
        names["DecodePool"] = before
