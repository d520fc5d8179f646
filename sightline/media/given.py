"""Bytes that a caller of the server gave become pixels, in the decoder's process: one picture, or the frames of a clip.

A picture is the same that ``Reader`` gives for a file, scaled down only above ``IMAGE_PIXELS``. A clip is sampled as
the official code does it; its frames keep their size as long as ``CLIP_PIXELS`` hold all of them: 64 of full HD.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sightline.errors import MediaError
from sightline.media import image
from sightline.media.reader import Reader
from sightline.media.source import open_source
from sightline.media.units import IMAGE_PIXELS
from sightline.settings import Settings
from sightline.types import Unit, VideoFrames

CLIP_PIXELS: Final = 64 * 1920 * 1088
"""Pixels of all frames of a clip."""
ANIMATION_FRAMES: Final = 4096
"""Most pictures of an animation that are counted."""


def picture(data: bytes, settings: Settings) -> Unit:
    """The picture in some bytes.

    Raises:
        MediaError: see ``image.decode``.
    """
    return Unit(kind="image", pixels=image.shrink(image.decode(data, settings), IMAGE_PIXELS))


def clip(data: bytes, fps: float, max_frames: int, settings: Settings) -> Unit:
    """The frames taken of the video or animation in some bytes.

    Raises:
        MediaError: see ``video.sample`` and ``Reader.video``.
    """
    from sightline.media import video

    each = CLIP_PIXELS // max(max_frames, 1)
    with open_source(data, settings) as opened:
        kind = opened.sniffed.kind
    if kind != "image":
        return Unit(kind="video", frames=video.sample(data, fps, max_frames, settings, max_pixels=each))
    if image.num_frames(data, settings) > ANIMATION_FRAMES:
        raise MediaError("too_large", "the animation holds too many pictures")
    found = Reader(settings).video(data, fps=fps, max_frames=max_frames)
    if not isinstance(found, VideoFrames):
        raise MediaError("no_video")
    frames = np.stack([image.shrink(frame, each) for frame in found.frames])
    return Unit(kind="video", frames=VideoFrames(frames=frames, indices=found.indices, fps=found.fps))
