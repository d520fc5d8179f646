"""Reading what a caller hands in: paths, addresses, bytes, pictures, arrays, frame lists, in this process.

Files found in a folder go through ``DecodePool`` instead.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

import numpy as np
from PIL import Image

from sightline.errors import MediaError
from sightline.media import image
from sightline.media.sniff import HEAD_BYTES, sniff
from sightline.media.source import is_url, local_path, open_regular, open_source, read
from sightline.settings import Settings
from sightline.types import ImageSource, Pixels, VideoFrames, VideoSource

PICTURE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tiff", ".svg"})
"""A list of names that end so is one video made of frames (the official scripts, is_image_path)."""


class Reader:
    """Implements ``sightline.protocols.MediaReader``.

    >>> import numpy as np
    >>> frame = np.zeros((2, 2, 3), np.uint8)
    >>> reader = Reader()
    >>> len(reader.videos([frame, frame])), len(reader.videos([[frame], [frame]])), reader.videos("a.mp4")
    (1, 2, ('a.mp4',))
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings if settings is not None else Settings()

    def image(self, source: ImageSource) -> Pixels:
        """(Y, X, 3) uint8 RGB, turned upright, alpha on white.

        Raises:
            MediaError: see ``image.decode``.
        """
        return image.decode(source, self.settings)

    def video(self, source: VideoSource, *, fps: float, max_frames: int) -> VideoFrames | list[Pixels]:
        """The frames the official code would take.

        Args:
            source: ``VideoFrames`` are given back as they are. Of a list of pictures longer than ``max_frames`` that
                many are taken, evenly. A file is sampled at ``fps``; an animated GIF or WebP counts as one.
            fps: frames per second taken of a file.
            max_frames: most frames.

        Raises:
            MediaError: see ``video.sample`` and ``image.decode``; ``no_frames`` for an empty list.
        """
        if isinstance(source, VideoFrames):
            return source
        if isinstance(source, (list, tuple)):
            return self._frame_list(source, max_frames)
        if not isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike)):
            raise MediaError("not_media", "a video is a path, an address, bytes, a list of frames or VideoFrames")
        if is_url(source) or (isinstance(source, str) and source[:5].lower() == "data:"):
            source = read(source, self.settings)
        with open_source(source, self.settings) as opened:
            kind = opened.sniffed.kind
        if kind == "image":
            return self._animation(source, fps, max_frames)
        from sightline.media import video

        return video.sample(source, fps, max_frames, self.settings)

    def _frame_list(self, frames: Sequence[ImageSource], max_frames: int) -> list[Pixels]:
        if not frames:
            raise MediaError("no_frames")
        if len(frames) > max_frames:
            # cut off, not rounded: as the official code does it
            frames = [frames[index] for index in np.linspace(0, len(frames) - 1, max_frames, dtype=int)]
        return [self.image(frame) for frame in frames]

    def _animation(self, source: Any, fps: float, max_frames: int) -> VideoFrames:
        from sightline.media import video

        total = image.num_frames(source, self.settings)
        if total < 2:
            raise MediaError("no_video", "a still picture is not a video")
        _, duration_ms = image.animation(source, self.settings)
        source_fps = 1000.0 / duration_ms if duration_ms > 0 else 10.0
        indices = video.sample_indices(total, source_fps, fps, max_frames)
        frames, _ = image.animation(source, self.settings, indices)
        return VideoFrames(frames=np.stack(frames), indices=indices, fps=source_fps)

    def videos(self, source: VideoSource | Sequence[VideoSource] | None) -> tuple[VideoSource, ...]:
        """The ``video`` field of an item as single videos.

        A list is one video when its entries are pictures: ``PIL.Image``, arrays, names with the suffix of a picture,
        bytes of a picture. It is several videos when they are not. An array (F, Y, X, 3) is one list of frames.

        Raises:
            MediaError: ``not_media`` for a list of pictures and videos mixed, or for a single picture.
        """
        if source is None:
            return ()
        if isinstance(source, np.ndarray) and source.ndim == 4:
            return (list(source),)
        if not isinstance(source, (list, tuple)):
            if isinstance(source, (np.ndarray, Image.Image)):
                raise MediaError("not_media", "a video is a list of pictures, not one")
            return (source,)
        if not source:
            return ()
        pictures = [_is_picture(entry) for entry in source]
        if all(pictures):
            return (list(source),)
        if any(pictures):
            raise MediaError("not_media", "a list of videos must not mix pictures and videos")
        return tuple(one for entry in source for one in self.videos(entry))

    def resize(self, pixels: Pixels, height: int, width: int) -> Pixels:
        """Bicubic resize with antialiasing, as Pillow does it."""
        return image.resize(pixels, height, width)

    def resize_frame(self, pixels: Pixels, height: int, width: int) -> Pixels:
        """The same for frames of videos, rounded once at the end, as torchvision does it."""
        return image.resize_frame(pixels, height, width)


def _is_picture(entry: Any) -> bool:  # noqa: PLR0911
    """Whether an entry of a list is a frame, and not a video."""
    if isinstance(entry, Image.Image):
        return True
    if isinstance(entry, np.ndarray):
        return entry.ndim in {2, 3}
    if isinstance(entry, (bytes, bytearray, memoryview)):
        return _sniffs_as_picture(bytes(entry[:HEAD_BYTES]))
    if not isinstance(entry, (str, os.PathLike)):
        return False
    name = os.fsdecode(entry)
    if name[:5].lower() == "data:":
        return name[5:11].lower() == "image/"
    if is_url(name):
        name = urllib.parse.urlsplit(name).path
    if PurePath(name).suffix.lower() in PICTURE_SUFFIXES:
        return True
    try:
        with open_regular(local_path(entry)) as (file, _):
            return _sniffs_as_picture(file.read(HEAD_BYTES))
    except MediaError:
        return False


def _sniffs_as_picture(head: bytes) -> bool:
    try:
        return sniff(head).kind == "image"
    except MediaError:
        return False
