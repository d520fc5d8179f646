"""The values that travel between the storeys: frozen, keyword-only, no behaviour beyond checks.

Letters used for array shapes in the whole package:
N items, T packed tokens, P patches, H heads, D head width, C width, E embedding,
F frames, Y rows of pixels, X columns of pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sightline.errors import InputError

Kind: TypeAlias = Literal["text", "image", "page", "video", "moment"]
KINDS: Final[tuple[Kind, ...]] = ("text", "image", "page", "video", "moment")

Precision: TypeAlias = Literal["float32", "float16", "int8", "binary"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "float16", "int8", "binary")

Pixels: TypeAlias = NDArray[np.uint8]
"""One picture, (Y, X, 3) uint8 RGB."""

ImageSource: TypeAlias = Any
"""A path, a URL, bytes, a PIL.Image or an array (Y, X), (Y, X, 1|3|4) uint8."""

VideoSource: TypeAlias = Any
"""A path, a URL, bytes, a list of image sources (frames), or ``VideoFrames``."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoFrames:
    """Frames already decoded from a video file, with their place in it.

    Attributes:
        frames: (F, Y, X, 3) uint8 RGB.
        indices: F frame numbers in the source, rising.
        fps: frames per second of the source, so that frame i stands at indices[i] / fps seconds.
    """

    frames: NDArray[np.uint8]
    indices: tuple[int, ...]
    fps: float

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise InputError("frames must be (F, Y, X, 3) uint8")
        if len(self.indices) != len(self.frames):
            raise InputError(f"{len(self.frames)} frames but {len(self.indices)} indices")
        if not (self.fps > 0 and np.isfinite(self.fps)):
            raise InputError("fps must be a positive number")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Item:
    """One thing to embed, to search for, or to score: text, image, video, or any mix.

    Each of text, image and video is one value or a list of values. However they are given, the model
    sees videos first, then images, then texts, as the official code arranges them.
    An item with nothing in it is embedded as the official code does it: as the word NULL.

    Attributes:
        text: str or list of str.
        image: path, URL, bytes, PIL.Image, array (Y, X, 3) uint8, or a list of these.
        video: path, URL, bytes, ``VideoFrames``, a list of frames (pictures), or a list of videos.
        instruction: what the vector is for, in English; None takes the model's default.
        fps: frames taken per second of a video file; None takes the model's setting.
        max_frames: most frames taken from one video; None takes the model's setting.

    >>> Item(text="a red bicycle").text
    'a red bicycle'
    """

    text: str | Sequence[str] | None = None
    image: ImageSource | Sequence[ImageSource] | None = None
    video: VideoSource | Sequence[VideoSource] | None = None
    instruction: str | None = None
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        if not (
            self.text is None
            or isinstance(self.text, str)
            or (isinstance(self.text, Sequence) and all(isinstance(part, str) for part in self.text))
        ):
            raise InputError("text must be a str or a list of str")
        if self.instruction is not None and not isinstance(self.instruction, str):
            raise InputError("instruction must be a str")
        if self.fps is not None and not (isinstance(self.fps, (int, float)) and 0 < self.fps <= 1000):
            raise InputError("fps must be a number over 0 and at most 1000")
        if self.max_frames is not None and not (isinstance(self.max_frames, int) and 2 <= self.max_frames <= 4096):
            raise InputError("max_frames must be an integer from 2 to 4096")

    @classmethod
    def of(cls, value: Item | str | Mapping[str, Any]) -> Item:
        """The item itself, or one made of a plain text or of a mapping with the same keys.

        Raises:
            InputError: for another type or an unknown key.

        >>> Item.of("words").text, Item.of({"image": "a.png"}).image
        ('words', 'a.png')
        """
        if isinstance(value, Item):
            return value
        if isinstance(value, str):
            return cls(text=value)
        if isinstance(value, Mapping):
            known = {f.name for f in fields(cls)}
            unknown = sorted(str(key) for key in value if key not in known)
            if unknown:
                raise InputError(f"unknown key {unknown[0]!r} of an item; known are {', '.join(sorted(known))}")
            return cls(**value)
        raise InputError(f"an item is an Item, a str or a dict, not {type(value).__name__}")

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts as a tuple."""
        if self.text is None:
            return ()
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """The images as a tuple."""
        if self.image is None:
            return ()
        return tuple(self.image) if isinstance(self.image, (list, tuple)) else (self.image,)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Unit:
    """One searchable piece of a file: a picture, a page, a moment of a video, a passage of text.

    Attributes:
        kind: what it is.
        page: page number from 1, for pages.
        start_s, end_s: place in the video in seconds, for moments and videos.
        title: a short name for people.
        text: the words found in it (text layer of a page, the passage); "" when there are none.
        pixels: the picture of an image or page.
        frames: the frames of a moment or video.
    """

    kind: Kind
    page: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    title: str = ""
    text: str = ""
    pixels: Pixels | None = None
    frames: VideoFrames | None = None

    def as_item(self) -> Item:
        """What the model is shown of this unit: pixels where there are pixels, else the text."""
        if self.frames is not None:
            return Item(video=self.frames)
        if self.pixels is not None:
            return Item(image=self.pixels)
        return Item(text=self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One answer of a search, best first.

    Attributes:
        score: what the list is sorted by: the reranker's probability where there is one (mixed with the place in
            the first stage as far as the reranker's card asks for it, see ``ModelCard.trust``), else the recall score.
        recall_score: score of the first stage (fused rank of vector and words), in [0, 1].
        rerank_score: probability of the second stage in [0, 1], or None without a reranker.
        kind, path, page, start_s, end_s, title: where it is. Pages count from 1; seconds from the start of the video.
        snippet: the words around the match, or the beginning of the text.
        id: the row in the index.
    """

    score: float
    recall_score: float
    rerank_score: float | None
    kind: Kind
    path: str
    page: int | None
    start_s: float | None
    end_s: float | None
    title: str
    snippet: str
    id: str = ""


QUALITIES: Final = {"fast": 256 * 1024, "balanced": 768 * 1024, "full": 1800 * 1024}
"""Pixels of a picture at most, by the name of a quality: 256, 768 and 1,800 tokens of 32 x 32 pixels."""
TOTAL_PIXELS: Final = 7_864_320
"""Pixels of all frames of a video together at most, at "full"; other qualities have their share of it."""
MOMENT_FPS: Final = {"fast": 0.5}
"""Frames taken per second of a moment at most, by the name of a quality; others take what the settings say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What decides a vector or a score: an index remembers it and refuses another.

    Attributes:
        model: name as the user gives it (``builtin``, a Hub id, ``modelscope:`` id or a folder).
        revision: commit of the Hub id, or "".
        fingerprint: sha256 over the configuration and the beginning of every tensor, 16 hex digits.
        dim: width of the full vector (0 for a reranker).
        dtype: arithmetic of the model, for information.
        instruction: the default instruction.
        template: version of the prompt template.
        min_pixels, max_pixels, total_pixels, fps, max_frames, max_length: the budgets.
        trust: of a reranker, the share of its probability in the final order: 1 for the published models, less for one
            that is too small to overrule the first stage. An embedder has no use for it.
        weights: sha256 of the weights, for information; "" where it is not known (``model.digest``).
    """

    model: str
    revision: str
    fingerprint: str
    dim: int
    dtype: str
    instruction: str
    template: str
    min_pixels: int
    max_pixels: int
    total_pixels: int
    fps: float
    max_frames: int
    max_length: int
    trust: float = 1.0
    weights: str = ""

    def as_dict(self) -> dict[str, str | int | float]:
        """Plain values, for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A file that was not indexed, with the reason.

    Attributes:
        path: the file.
        code: a key of ``MEDIA_CODES``.
        detail: a short sentence.
    """

    path: str
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AddReport:
    """What ``Library.add`` did: every file seen is in exactly one of the counts.

    ``seen == indexed + unchanged + len(skipped) + deferred``.
    """

    seen: int = 0
    indexed: int = 0
    unchanged: int = 0
    deferred: int = 0
    units: int = 0
    skipped: tuple[Skipped, ...] = field(default=())
    interrupted: bool = False


PathLike: TypeAlias = str | os.PathLike[str]
