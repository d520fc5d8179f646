"""Frames as one small video file that loses nothing: what a Sightline server takes as the video of an item."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

from sightline.errors import MediaError
from sightline.types import Pixels

MOST_RATE = 60.0
"""Frames per second; a server takes no more of a video."""


def film(frames: Sequence[Pixels], rate: float) -> bytes:
    """Matroska with FFV1 in RGB.

    Args:
        frames: at least one, (Y, X, 3) uint8 of one size. An odd number is made even by the last frame, because the
            models take frames in pairs.
        rate: frames per second of the file.

    Raises:
        MediaError: ``no_frames``, or ``corrupt`` for frames of several sizes.
    """
    if not frames:
        raise MediaError("no_frames")
    if len({frame.shape for frame in frames}) > 1:
        raise MediaError("corrupt", "the frames of a video must have one size")
    frames = [*frames, frames[-1]] if len(frames) % 2 else list(frames)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(rate).limit_denominator(10_000))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()
