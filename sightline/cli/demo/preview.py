"""Small pictures of what was found: photographs, pages and moments as JPEG; files are read in a decoder process."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from sightline.errors import MediaError
from sightline.media.pool import DecodePool
from sightline.types import Hit, Kind, Pixels, Unit

WIDTH: Final = 360
"""Most pixels of the longer side of a preview."""
FRAMES: Final = 4
"""Frames shown of a moment."""
GAP: Final = 2


class Previews:
    """Makes each preview once; what cannot be read any more has none."""

    def __init__(self, pool: DecodePool) -> None:
        self._pool = pool
        self._made: dict[tuple[str, Kind, int | None, float | None, float | None], bytes | None] = {}

    def of(self, hit: Hit) -> bytes | None:
        """JPEG of a picture, page or moment; None for text."""
        return self.at(hit.path, hit.kind, hit.page, hit.start_s, hit.end_s)

    def at(
        self,
        path: str,
        kind: Kind,
        page: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> bytes | None:
        """JPEG of one place of one file, or None."""
        if kind == "text":
            return None
        key = (path, kind, page, start_s, end_s)
        if key not in self._made:
            try:
                self._made[key] = draw(self._pool.unit(path, kind, page, start_s, end_s))
            except MediaError:
                self._made[key] = None
        return self._made[key]


def draw(unit: Unit) -> bytes | None:
    """JPEG of a unit: the picture, or four frames of a moment in two rows, in the order of reading."""
    if unit.frames is not None:
        frames = unit.frames.frames
        places = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
        return contact_sheet([frames[place] for place in places])
    return None if unit.pixels is None else jpeg(_small(unit.pixels, WIDTH))


def contact_sheet(frames: list[Pixels]) -> bytes:
    """Four frames in two rows with a line between them."""
    small = [_small(frame, WIDTH // 2) for frame in frames]
    width, height = small[0].size
    whole = Image.new("RGB", (2 * width + GAP, 2 * height + GAP), (148, 163, 184))
    for number, picture in enumerate(small):
        row, column = divmod(number, 2)
        whole.paste(picture, (column * (width + GAP), row * (height + GAP)))
    return jpeg(whole)


def _small(pixels: Pixels, side: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def jpeg(picture: Image.Image) -> bytes:
    """The picture as JPEG."""
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()
