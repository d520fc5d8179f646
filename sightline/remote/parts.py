"""Items as texts and ``data:`` URLs.

Pictures are decoded here, upright and on white, and made no larger than the model would make them, with the same
arithmetic: what arrives is resized no second time. They travel as PNG, which loses nothing, or as JPEG of quality 95
without colour subsampling, which is smaller and moves the vector a little. Videos travel as the frames that the model
would take, with their times: to a Sightline server as one file that loses nothing (``films``), else frame by frame.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from PIL import Image

from sightline.errors import ConfigError
from sightline.media.reader import Reader
from sightline.media.source import is_url
from sightline.prep.resize import FILE_TOTAL_PIXELS, FRAME_MIN_PIXELS, frame_max_pixels, smart_resize
from sightline.remote.films import MOST_RATE, film
from sightline.settings import Settings
from sightline.types import Item, Pixels, VideoFrames

ImageFormat: TypeAlias = Literal["png", "jpeg"]
JPEG_QUALITY: Final = 95
FRAME_LIST_FPS: Final = 2.0
"""Frames per second that the official code ascribes to a list of frames."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A video as it is sent.

    Attributes:
        frames: ``data:`` URLs.
        indices: frame numbers in the source, rising.
        fps: frames per second of the source.
    """

    frames: tuple[str, ...]
    indices: tuple[int, ...]
    fps: float


@dataclass(frozen=True, slots=True)
class Film:
    """A video as one file that holds the frames of it that count.

    Attributes:
        url: ``data:`` URL.
        num_frames: frames in the file.
        rate: frames per second of the file.
    """

    url: str
    num_frames: int
    rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """An item as it is sent.

    Attributes:
        texts: words.
        images: ``data:`` URLs, or an address where only the server can fetch it.
        videos: frames, a file of them, or an address.
        instruction: of the item itself, or None.
    """

    texts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    videos: tuple[Clip | Film | str, ...] = ()
    instruction: str | None = None
    num_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        size = sum(len(text.encode("utf-8", "replace")) for text in self.texts) + sum(map(len, self.images))
        size += sum(sum(map(len, _urls(one))) for one in self.videos)
        object.__setattr__(self, "num_bytes", size)

    @property
    def num_media(self) -> int:
        """Pictures, and frames where each is sent by itself."""
        return len(self.images) + sum(len(_urls(one)) for one in self.videos)


def _rate(clip: Clip) -> float:
    """Frames taken per second of video."""
    span = clip.indices[-1] - clip.indices[0] if clip.indices else 0
    return (len(clip.indices) - 1) * clip.fps / span if span else FRAME_LIST_FPS


def _urls(video: Clip | Film | str) -> tuple[str, ...]:
    if isinstance(video, Clip):
        return video.frames
    return (video,) if isinstance(video, str) else (video.url,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Packer:
    """Makes parts of items.

    Attributes:
        settings: limits for media; addresses are fetched here only with ``allow_urls``.
        min_pixels, max_pixels: area of an image after the model's resizing.
        fps, max_frames: sampling of video files.
        image_format: ``png`` or ``jpeg``.
        films: send a video as one file, and not frame by frame.
        pass_urls: leave http(s) addresses of images and videos to the server.
    """

    settings: Settings
    min_pixels: int
    max_pixels: int
    fps: float
    max_frames: int
    image_format: ImageFormat = "png"
    films: bool = False
    pass_urls: bool = False

    def __post_init__(self) -> None:
        if self.image_format not in {"png", "jpeg"}:
            raise ConfigError(f"image_format is png or jpeg, not {self.image_format!r}")

    def pack(self, item: Item) -> Part:
        """An item as it is sent.

        Raises:
            MediaError: something of it cannot be read.
        """
        reader = Reader(self.settings)
        return Part(
            texts=item.texts,
            images=tuple(self._image(reader, source) for source in item.images),
            videos=tuple(self._video(reader, source, item) for source in reader.videos(item.video)),
            instruction=item.instruction,
        )

    def _image(self, reader: Reader, source: Any) -> str:
        if self.pass_urls and is_url(source):
            return str(source)
        pixels = reader.image(source)
        height, width = smart_resize(*pixels.shape[:2], min_pixels=self.min_pixels, max_pixels=self.max_pixels)
        if height * width < pixels.shape[0] * pixels.shape[1] > self.max_pixels:
            pixels = reader.resize(pixels, height, width)
        return self._url(pixels)

    def _video(self, reader: Reader, source: Any, item: Item) -> Clip | Film | str:
        if self.pass_urls and is_url(source):
            return str(source)
        video = reader.video(source, fps=item.fps or self.fps, max_frames=item.max_frames or self.max_frames)
        if isinstance(video, VideoFrames):
            frames: Sequence[Pixels] = list(video.frames)
            indices, fps = video.indices, video.fps
        else:
            frames, indices, fps = video, tuple(range(len(video))), FRAME_LIST_FPS
        most = frame_max_pixels(len(frames) + len(frames) % 2, FILE_TOTAL_PIXELS)
        shown = []
        for frame in frames:
            height, width = smart_resize(*frame.shape[:2], min_pixels=FRAME_MIN_PIXELS, max_pixels=most)
            smaller = height * width < frame.shape[0] * frame.shape[1]
            shown.append(reader.resize_frame(frame, height, width) if smaller else frame)
        clip = Clip((), tuple(int(index) for index in indices), float(fps))
        if not self.films:
            return replace(clip, frames=tuple(self._url(frame) for frame in shown))
        rate = min(_rate(clip), MOST_RATE)
        file = base64.b64encode(film(shown, rate)).decode()
        return Film(f"data:video/x-matroska;base64,{file}", len(shown) + len(shown) % 2, rate)

    def _url(self, pixels: Pixels) -> str:
        file = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if self.image_format == "jpeg":
            image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        else:
            image.save(file, "PNG", compress_level=1)
        return f"data:image/{self.image_format};base64,{base64.b64encode(file.getvalue()).decode()}"
