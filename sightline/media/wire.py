"""What the decoder's process and its parent say to each other: a JSON header and raw pixel bytes.

A frame is ``<header bytes: u32> <pixel bytes: u64> header pixels``; pixels that lie in memory which both have
(``room``) are named by the header instead. The parent never unpickles what a child sends, and believes no number in
it: sizes are limited, the shape must agree with the bytes, codes must be known.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sightline.errors import MEDIA_CODES, InputError, MediaError
from sightline.media.units import UnitError
from sightline.types import KINDS, Unit, VideoFrames

_LENGTHS: Final = struct.Struct("<IQ")
MAX_HEADER_BYTES: Final = 16 * 2**20
"""Most bytes of a header: the words of a page are the longest thing in it."""
MAX_PIXEL_BYTES: Final = 2**31
"""Most bytes of one unit's pixels."""
TOGETHER_BYTES: Final = 2**16
"""Pixels up to here are written in one go with their header."""


class Readable(Protocol):
    """An unbuffered pipe."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill part of the buffer."""
        ...


class Writable(Protocol):
    """A pipe."""

    def write(self, data: Any, /) -> int | None:
        """Write part or all of the data."""
        ...


class Broken(Exception):  # noqa: N818 - not an error of a file
    """The other side is gone, or does not speak the language."""


def send(pipe: Writable, header: dict[str, Any], pixels: NDArray[np.uint8] | None = None) -> None:
    """Write one frame."""
    text = json.dumps(header, ensure_ascii=True).encode("ascii")
    body = memoryview(b"") if pixels is None else np.ascontiguousarray(pixels).data.cast("B")
    head = _LENGTHS.pack(len(text), len(body)) + text
    if len(body) <= TOGETHER_BYTES:
        _write_all(pipe, memoryview(head + body))
    else:
        _write_all(pipe, memoryview(head))
        _write_all(pipe, body)


def _write_all(pipe: Writable, data: memoryview) -> None:
    while len(data) > 0:
        data = data[pipe.write(data) or 0 :]


def receive(pipe: Readable) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Read one frame: its header and its pixel bytes, flat.

    Raises:
        Broken: the pipe ended, or the frame is malformed.
    """
    num_header, num_pixels = _LENGTHS.unpack(_read_exactly(pipe, _LENGTHS.size).data)
    if num_header > MAX_HEADER_BYTES or num_pixels > MAX_PIXEL_BYTES:
        raise Broken
    try:
        header = json.loads(bytes(_read_exactly(pipe, num_header)))
    except (ValueError, RecursionError):
        raise Broken from None
    if not isinstance(header, dict):
        raise Broken
    return header, _read_exactly(pipe, num_pixels)


def _read_exactly(pipe: Readable, size: int) -> NDArray[np.uint8]:
    data = np.empty(size, np.uint8)
    view = data.data
    while len(view) > 0:
        number = pipe.readinto(view)
        if not number:
            raise Broken
        view = view[number:]
    return data


def pack(value: Unit | UnitError | MediaError) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """A unit or an error as a header and pixels."""
    if isinstance(value, MediaError):
        return {"is": "failure", "code": value.code, "detail": value.detail}, None
    if isinstance(value, UnitError):
        return {
            "is": "error",
            "code": value.code,
            "detail": value.detail,
            "page": value.page,
            "start_s": value.start_s,
        }, None
    header: dict[str, Any] = {"is": "unit", "kind": value.kind, "title": value.title, "text": value.text}
    header |= {"page": value.page, "start_s": value.start_s, "end_s": value.end_s}
    pixels = value.pixels
    if value.frames is not None:
        pixels = value.frames.frames
        header |= {"indices": list(value.frames.indices), "fps": value.frames.fps}
    if pixels is not None:
        header["shape"] = list(pixels.shape)
    return header, pixels


def num_pixel_bytes(header: dict[str, Any]) -> int:
    """Bytes of the pixels that a header describes.

    Raises:
        Broken: it does not, or they are too many.
    """
    shape = header.get("shape")
    if not isinstance(shape, list) or len(shape) not in {3, 4}:
        raise Broken
    if any(type(side) is not int or not 0 < side <= MAX_PIXEL_BYTES for side in shape):
        raise Broken
    number = math.prod(shape)
    if number > MAX_PIXEL_BYTES:
        raise Broken
    return number


def unpack(header: dict[str, Any], pixels: NDArray[np.uint8]) -> Unit | UnitError | MediaError:
    """The unit or error of a frame.

    Raises:
        Broken: a field is missing or not what it must be.
    """
    try:
        if header["is"] in {"failure", "error"}:
            code, detail = header["code"], str(header["detail"])[:200]
            if code not in MEDIA_CODES:
                raise Broken
            if header["is"] == "failure":
                return MediaError(code, detail)
            return UnitError(code=code, detail=detail, page=_whole(header["page"]), start_s=_number(header["start_s"]))
        if header["is"] != "unit" or header["kind"] not in KINDS:
            raise Broken
        picture, frames = None, None
        if "shape" in header:
            array = pixels.reshape([int(side) for side in header["shape"]])
            if array.ndim not in {3, 4} or array.shape[-1] != 3 or 0 in array.shape:
                raise Broken
            if array.ndim == 4:
                indices = tuple(int(index) for index in header["indices"])
                frames = VideoFrames(frames=array, indices=indices, fps=float(header["fps"]))
            else:
                picture = array
        return Unit(
            kind=header["kind"],
            page=_whole(header["page"]),
            start_s=_number(header["start_s"]),
            end_s=_number(header["end_s"]),
            title=str(header["title"])[:1000],
            text=str(header["text"]),
            pixels=picture,
            frames=frames,
        )
    except (KeyError, TypeError, ValueError, OverflowError, InputError):
        raise Broken from None


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
