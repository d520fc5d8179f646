"""A small library around toys, for every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sightline import Library
from tests.cli.toys import Judge, Seeing


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Two texts, two pictures, a PDF of one page, a film of two seconds and one torn file."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "bicycle.txt").write_text("A red bicycle leans on the wall.\n")
    (folder / "bread.md").write_text("# Bread\n\nFlour, water, salt and time.\n")
    for name, colour in (("rot.png", (220, 10, 10)), ("blau.png", (10, 10, 220))):
        Image.fromarray(np.full((64, 64, 3), colour, np.uint8)).save(folder / name)
    Image.fromarray(np.full((120, 90, 3), (10, 160, 10), np.uint8)).save(folder / "green.pdf")
    _film(folder / "yellow.mp4", (230, 220, 20))
    (folder / "torn.png").write_bytes((folder / "rot.png").read_bytes()[:40])
    return folder


def _film(path: Path, colour: tuple[int, int, int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 10)
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24")
        for number in range(20):
            frame.pts = number
            frame.time_base = Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def library(shelf: Path, tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "index.sightline", embedder=Seeing(model="toy"), reranker=Judge()) as library:
        library.add([shelf])
        yield library
