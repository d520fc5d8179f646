"""Pictures and videos in a request become pixels.

A string is a ``data:`` URL, plain base64, or an http(s) address, and nothing else: no string of a caller is ever a
path. Everything that can be refused by looking at the strings is refused for the whole request before the first byte
is fetched or decoded; decoding happens in ``DecodePool``'s children, of which a few run at once.
"""

from __future__ import annotations

import binascii
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from sightline.errors import ItemError, MediaError
from sightline.media.pool import DecodePool
from sightline.media.source import check_url, fetch, is_url
from sightline.server.faults import Fault
from sightline.settings import Settings
from sightline.types import Item, Pixels, VideoFrames

MediaKind: TypeAlias = Literal["image", "video"]
Array: TypeAlias = NDArray[Any]

MAX_HEADER_CHARS: Final = 200
"""Characters of a ``data:`` URL before its comma."""
MAX_PIXELS: Final = 400_000_000
"""Pixels of all pictures and frames of one request, decoded: 1.2 GB."""
MAX_FPS: Final = 60.0
"""Frames per second that a caller may ask for; more is taken as this."""
_MEDIA_TYPE: Final = re.compile(
    r"(?:(?:image|video)/[a-z0-9.+_-]{1,80}|application/octet-stream)?(?:;[a-z0-9=._+\" -]{1,80})*", re.IGNORECASE
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_WHAT: Final = "give a data: URL with base64, plain base64, or an http(s) address where the server fetches those"


class MediaPart(Protocol):
    """What ``wire.Part`` has."""

    @property
    def text(self) -> list[str]:
        """Words."""
        ...

    @property
    def image(self) -> list[str]:
        """Pictures."""
        ...

    @property
    def video(self) -> list[str]:
        """Videos."""
        ...

    @property
    def instruction(self) -> str | None:
        """What the vector is for."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames per second of video."""
        ...

    @property
    def max_frames(self) -> int | None:
        """Most frames of a video."""
        ...


def payload(source: str) -> str:
    """The base64 of a ``data:`` URL, or of a string that is nothing but base64; still encoded.

    Raises:
        MediaError: ``not_media`` for anything else. The body is not looked at.

    >>> payload("data:image/png;base64,AAAA"), payload("AAAA")
    ('AAAA', 'AAAA')
    """
    if source[:5].lower() != "data:":
        if _SCHEME.match(source[:40]):
            raise MediaError("not_media", _WHAT)
        return source
    comma = source.find(",", 0, MAX_HEADER_CHARS + 1)
    header = source[5:comma] if comma >= 0 else ""
    if not header.lower().endswith(";base64") or _MEDIA_TYPE.fullmatch(header[: -len(";base64")]) is None:
        raise MediaError("not_media", "a data: URL must be of an image or video and hold base64")
    return source[comma + 1 :]


def decoded(encoded: str, max_bytes: int) -> bytes:
    """The bytes of base64: padded, of the standard alphabet; line breaks are passed over.

    Raises:
        MediaError: ``not_media``, ``empty``, or ``too_large`` before anything is decoded.
    """
    check_length(encoded, max_bytes)
    try:
        data = encoded.encode("ascii")
        found = binascii.a2b_base64(data.translate(None, b"\r\n"), strict_mode=True)
    except (binascii.Error, ValueError):
        raise MediaError("not_media", f"this is not base64; {_WHAT}") from None
    if not found:
        raise MediaError("empty")  # line breaks alone
    if len(found) > max_bytes:
        raise MediaError("too_large")
    return found


def check_length(encoded: str, max_bytes: int) -> None:
    """Refuse base64 of nothing, or of more bytes than that, by its length.

    Raises:
        MediaError: ``empty`` or ``too_large``.
    """
    if not encoded:
        raise MediaError("empty")
    num_chars = len(encoded) - encoded.count("\n") - encoded.count("\r")
    if num_chars // 4 * 3 - 2 > max_bytes:  # the last four characters may stand for one byte
        raise MediaError("too_large")


@dataclass(slots=True)
class _Budget:
    """What one request may still fetch and decode."""

    num_bytes: int
    num_pixels: int
    end: float

    def spend(self, pixels: Array) -> None:
        self.num_pixels -= pixels.size // 3
        if self.num_pixels < 0:
            raise MediaError("too_large", f"the media of one request hold more than {MAX_PIXELS:,} pixels together")


class Attachments:
    """Decodes for many requests at once.

    Args:
        settings: limits of media and of requests.
        workers: decoders that run at once; None takes as many as there are processors, eight at most.
    """

    def __init__(self, settings: Settings, workers: int | None = None) -> None:
        self.settings = settings
        number = workers or max(settings.decode_workers, min(os.cpu_count() or 1, 8))
        self._pool = DecodePool(settings, number)
        self._turns = threading.BoundedSemaphore(number)

    def close(self) -> None:
        """End the decoders."""
        self._pool.close()

    def image(self, source: str) -> Pixels:
        """(Y, X, 3) uint8 RGB of one picture, upright.

        Raises:
            MediaError: it cannot be had or decoded.
        """
        self._check(source, "image")
        return self._image(source, self._budget())

    def video(self, source: str, fps: float | None = None, max_frames: int | None = None) -> VideoFrames:
        """The frames taken of one video.

        Args:
            source: as everywhere here.
            fps: frames per second; None takes ``settings.video_fps``.
            max_frames: most frames; never more than ``settings.video_max_frames``.

        Raises:
            MediaError: it cannot be had or decoded; ``option`` for numbers that make no sense.
        """
        self._check(source, "video")
        self._sampling(fps, max_frames)
        return self._video(source, fps, max_frames, self._budget())

    def item(self, part: MediaPart | str) -> Item:
        """One part of a request as an item.

        Raises:
            ItemError: it cannot be had or decoded.
            Fault: 400 when there are too many media.
        """
        return self.items([part])[0]

    def items(self, parts: Sequence[MediaPart | str]) -> list[Item]:
        """The parts of a request as items, in order.

        Raises:
            ItemError: the first that cannot be had or decoded, with its position.
            Fault: 400 when there are too many media in all of them together.
        """
        self.check(parts)
        budget = self._budget()
        return [self._item(position, part, budget) for position, part in enumerate(parts)]

    def check(self, parts: Sequence[MediaPart | str]) -> None:
        """Everything that can be said without fetching or decoding, of all parts.

        Raises:
            ItemError: the first part that is refused.
            Fault: 400 when there are too many media.
        """
        most = self.settings.serve_max_media
        if sum(len(part.image) + len(part.video) for part in parts if not isinstance(part, str)) > most:
            raise Fault(400, f"at most {most} images and videos in one request", code="too_many_media")
        for position, part in enumerate(parts):
            if isinstance(part, str):
                continue
            with _of_item(position):
                self._sampling(part.fps, part.max_frames)
                for source in part.image:
                    self._check(source, "image")
                for source in part.video:
                    self._check(source, "video")

    # -- one of them -------------------------------------------------------------------------------------------------

    def _item(self, position: int, part: MediaPart | str, budget: _Budget) -> Item:
        if isinstance(part, str):
            return Item(text=part)
        with _of_item(position):
            images = [self._image(source, budget) for source in part.image]
            videos = [self._video(source, part.fps, part.max_frames, budget) for source in part.video]
            return Item(
                text=list(part.text) or None, image=images or None, video=videos or None, instruction=part.instruction
            )

    def _image(self, source: str, budget: _Budget) -> Pixels:
        data = self._bytes(source, "image", budget)
        with self._turn(budget):
            pixels = self._pool.picture(data).pixels
        if pixels is None:
            raise MediaError("not_media")
        budget.spend(pixels)
        return pixels

    def _video(self, source: str, fps: float | None, max_frames: int | None, budget: _Budget) -> VideoFrames:
        data = self._bytes(source, "video", budget)
        with self._turn(budget):
            frames = self._pool.clip(data, *self._sampling(fps, max_frames)).frames
        if frames is None:
            raise MediaError("no_video")
        budget.spend(frames.frames)
        return frames

    def _bytes(self, source: str, kind: MediaKind, budget: _Budget) -> bytes:
        limit = self._limit(kind)
        if not is_url(source):
            return decoded(payload(source), limit)
        left = budget.end - time.monotonic()
        if left <= 0 or budget.num_bytes <= 0:
            raise MediaError("timeout" if left <= 0 else "too_large", "the addresses of one request take too much")
        settings = self.settings
        most = min(settings.url_max_bytes, budget.num_bytes, limit)
        data = fetch(
            source, settings.replace(url_max_bytes=most, url_timeout_s=max(min(settings.url_timeout_s, left), 0.1))
        )
        budget.num_bytes -= len(data)
        return data

    def _check(self, source: str, kind: MediaKind) -> None:
        if is_url(source):
            check_url(source, self.settings)
        else:
            check_length(payload(source), self._limit(kind))

    def _limit(self, kind: MediaKind) -> int:
        most = self.settings.serve_max_bytes
        return min(self.settings.image_max_bytes, most) if kind == "image" else most

    def _sampling(self, fps: float | None, max_frames: int | None) -> tuple[float, int]:
        """Frames per second and most frames, within what the server allows."""
        settings = self.settings
        fps = settings.video_fps if fps is None else fps
        max_frames = settings.video_max_frames if max_frames is None else max_frames
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not (math.isfinite(fps) and fps > 0):
            raise MediaError("option", "fps must be a number over 0")
        if isinstance(max_frames, bool) or not isinstance(max_frames, int) or max_frames < 2:
            raise MediaError("option", "max_frames must be an integer of at least 2")
        return float(min(max(fps, 0.001), MAX_FPS)), min(max_frames, settings.video_max_frames)

    def _budget(self) -> _Budget:
        settings = self.settings
        return _Budget(settings.serve_max_bytes, MAX_PIXELS, time.monotonic() + settings.serve_timeout_s)

    @contextmanager
    def _turn(self, budget: _Budget) -> Iterator[None]:
        """Wait for a decoder, as long as the request may last."""
        if not self._turns.acquire(timeout=max(budget.end - time.monotonic(), 0.01)):
            raise MediaError("timeout", "no decoder was free in time")
        try:
            yield
        finally:
            self._turns.release()


@contextmanager
def _of_item(position: int) -> Iterator[None]:
    """Let an error say which item it is of."""
    try:
        yield
    except MediaError as error:
        raise ItemError.of(position, error) from None
