"""Pictures: bytes become (Y, X, 3) uint8 RGB, upright, on white.

- Formats are tried from an allow-list only, chosen by the bytes: Pillow's rarely used decoders are never reached.
- Size is checked before anything is decoded.
- A truncated picture is ``corrupt``, however much of it is there: half a photo is not what the file's owner has.
- Of an animation, a multi-page TIFF or a multi-picture JPEG, the first picture is taken.
- 16-bit and float pictures are scaled to 8 bit; transparency is composited on white, as the official code does it.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from sightline.errors import MediaError
from sightline.media.source import open_source
from sightline.settings import Settings
from sightline.types import ImageSource, Pixels

PILLOW_FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "gif": ("GIF",),
    "webp": ("WEBP",),
    "tiff": ("TIFF",),
    "bmp": ("BMP",),
    "avif": ("AVIF",),
    "ppm": ("PPM",),
    "heif": ("HEIF",),
}
"""Format found in the bytes -> decoders it may be given to."""

MAX_METADATA_BYTES: Final = 32 * 2**20
MAX_METADATA_SEGMENTS: Final = 4_096
"""What may stand before the picture of a JPEG. Pillow joins EXIF segments one by one, in a time that grows with the
square of their number: 100 MB of them take minutes. Real ones have tens of segments, and depth maps reach some MB."""

_ORIENTATION_TAG: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITES: Final = (255, 4095, 65535)
"""Values that stand for white in an integer picture: 8, 12 and 16 bit. The smallest that holds the picture is taken."""


class _Quiet:
    """Silences decoders' warnings and makes Pillow's bomb warning an error, for as long as any thread decodes.

    ``warnings.catch_warnings`` alone is not safe between threads: here the first one in saves the filters and the
    last one out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._saved is not None:
                self._saved.__exit__(None, None, None)


_quiet = _Quiet()


def decode(source: ImageSource, settings: Settings) -> Pixels:
    """(Y, X, 3) uint8 RGB of a path, an address, bytes, a ``PIL.Image`` or an array.

    Raises:
        MediaError: what ``open_source`` raises; ``not_media`` for what is no picture; ``too_large``; ``corrupt``.
    """
    if isinstance(source, np.ndarray):
        return from_array(source)
    if isinstance(source, Image.Image):
        with _quiet, _our_errors():
            _check_size(source, settings)
            return _to_pixels(source)
    if not isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise MediaError("not_media", "an image is a path, an address, bytes, a PIL.Image or an array")
    with open_source(source, settings) as opened:
        if opened.sniffed.kind != "image":
            raise MediaError("not_media")
        return decode_file(opened.file, opened.sniffed.format, settings)


def decode_file(file: BinaryIO, format: str, settings: Settings, *, writable: bool = True) -> Pixels:
    """(Y, X, 3) uint8 RGB of an open file whose format is known; read-only, it takes a copy less."""
    if format == "heif":
        _need_heif()
    if format == "jpeg":
        _check_metadata(file)
    with _quiet, _our_errors(), Image.open(file, formats=PILLOW_FORMATS[format]) as image:
        _check_size(image, settings)
        image.load()
        return _to_pixels(image, writable=writable)


def animation(source: ImageSource, settings: Settings, indices: tuple[int, ...] = ()) -> tuple[list[Pixels], int]:
    """Some frames of an animated GIF, WebP or PNG, and how long its first one is shown.

    Args:
        source: path, address or bytes.
        settings: limits.
        indices: frame numbers, rising.

    Returns:
        The pictures; milliseconds (0 when the file does not say).
    """
    with open_source(source, settings) as opened:
        if opened.sniffed.kind != "image":
            raise MediaError("not_media")
        formats = PILLOW_FORMATS[opened.sniffed.format]
        with _quiet, _our_errors(), Image.open(opened.file, formats=formats) as image:
            _check_size(image, settings)
            image.load()  # WebP tells the duration of a picture once it is decoded
            frames: list[Pixels] = []
            for index in indices:
                image.seek(index)
                frames.append(_to_pixels(image.copy()))
            return frames, int(image.info.get("duration") or 0)


def num_frames(source: ImageSource, settings: Settings) -> int:
    """How many pictures an image file holds."""
    with open_source(source, settings) as opened:
        if opened.sniffed.kind != "image":
            raise MediaError("not_media")
        formats = PILLOW_FORMATS[opened.sniffed.format]
        with _quiet, _our_errors(), Image.open(opened.file, formats=formats) as image:
            _check_size(image, settings)
            return int(getattr(image, "n_frames", 1))


class _our_errors:  # noqa: N801 - used like a function
    """Turns whatever a decoder raises into ours: its texts have leaked addresses (CVE-2026-22778)."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, MediaError) or not isinstance(error, Exception):
            return
        if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            raise MediaError("too_large") from None
        if isinstance(error, MemoryError):
            raise MediaError("memory") from None
        # decoders raise OSError, ValueError, SyntaxError, TypeError, struct.error, EOFError, KeyError, …
        raise MediaError("corrupt") from None


def _need_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        raise MediaError("unsupported", "HEIC needs the extra heic: pip install 'sightline[heic]'") from None
    pillow_heif.register_heif_opener()


def _check_size(image: Image.Image, settings: Settings) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaError("corrupt")
    if width * height > settings.image_max_pixels or max(width, height) > settings.image_max_side:
        raise MediaError("too_large")


def _check_metadata(file: BinaryIO) -> None:
    """Refuse a JPEG with more before its picture than any camera or program writes."""
    place = 2
    for _ in range(MAX_METADATA_SEGMENTS):
        file.seek(place)
        head = file.read(4)
        # anything that is no segment with a length is for the decoder to judge; DA begins the picture
        if len(head) < 4 or head[0] != 0xFF or head[1] in {0xFF, 0xDA}:
            break
        place += 2 + int.from_bytes(head[2:], "big")
        if place > MAX_METADATA_BYTES:
            raise MediaError("too_large", "the metadata of the picture are over the limit")
    else:
        raise MediaError("too_large", "the metadata of the picture are over the limit")
    file.seek(0)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF raises almost anything, and is no reason to lose the picture
        return 1
    return value if isinstance(value, int) else 1


def _to_pixels(image: Image.Image, *, writable: bool = True) -> Pixels:
    """An opened picture as pixels: first frame, upright, RGB on white."""
    turn = _TURNS.get(_orientation(image))
    image = _to_rgb(image)
    if turn is not None:
        image = image.transpose(turn)
    return np.array(image, dtype=np.uint8) if writable else np.asarray(image, dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB; transparency on white, wide values scaled to 8 bit."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode in {"F", "I"} or mode.startswith("I;"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if mode == "LAB":
        return _lab_to_rgb(image)
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        image = image.convert("LA").convert("RGBA") if mode == "La" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise MediaError("corrupt")
    return converted


def _to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Wide numbers as 0 … 255, (Y, X).

    Integers: white is the smallest of 255, 4095 and 65535 that holds the picture. Floats: white is 1 or 255 when the
    picture lies within; everything else is stretched from its least to its greatest finite value.
    """
    if values.dtype.kind == "f":
        numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.nan, neginf=np.nan)
        finite = numbers[np.isfinite(numbers)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        numbers = np.nan_to_num(numbers, nan=high)
        whites: tuple[float, ...] = (1.0, 255.0)
    else:
        numbers = values.astype(np.float64)
        low, high = float(numbers.min()), float(numbers.max())
        whites = _WHITES
    white = next((white for white in whites if high <= white), None) if low >= 0 else None
    if white is None:
        numbers, white = numbers - low, max(high - low, 1e-30)
    return np.clip(np.rint(numbers * (255.0 / white)), 0, 255).astype(np.uint8)


def from_array(values: NDArray[Any]) -> Pixels:
    """(Y, X, 3) uint8 RGB of an array (Y, X), (Y, X, 1), (Y, X, 3) or, on white, (Y, X, 4) uint8.

    Raises:
        MediaError: ``not_media`` for another shape or type.
    """
    array = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})
    if array.dtype != np.uint8 or not shaped or 0 in array.shape:
        raise MediaError("not_media", "an image array must be (Y, X), (Y, X, 1), (Y, X, 3) or (Y, X, 4) uint8")
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    return np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(array))), dtype=np.uint8)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Bicubic resize with antialiasing, as Pillow does it: (Y, X, 3) -> (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)


def resize_frame(pixels: Pixels, height: int, width: int) -> Pixels:
    """The same for frames of videos: rounded once at the end, as torchvision does it on a uint8 tensor.

    Pillow's own resize of 8-bit pictures rounds between its two passes as well.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    channels = [Image.fromarray(pixels[:, :, index].astype(np.float32)) for index in range(3)]
    resized = [np.asarray(channel.resize((width, height), Image.Resampling.BICUBIC)) for channel in channels]
    rounded: Pixels = np.rint(np.stack(resized, -1)).clip(0, 255).astype(np.uint8)
    return rounded


def shrink(pixels: Pixels, max_pixels: int) -> Pixels:
    """The picture, made smaller if it has more than ``max_pixels`` pixels; the aspect is kept."""
    height, width = pixels.shape[:2]
    if height * width <= max_pixels:
        return pixels
    scale = (max_pixels / (height * width)) ** 0.5
    return resize(pixels, max(int(height * scale), 1), max(int(width * scale), 1))


def encode_jpeg(pixels: Pixels, longest_side: int, *, quality: int = 85) -> bytes:
    """A JPEG of the picture, at most ``longest_side`` pixels long and wide, without metadata."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = io.BytesIO()
    ImageOps.exif_transpose(image).save(file, "JPEG", quality=quality)
    return file.getvalue()
