"""An item becomes what the engine takes: ids, positions and patches. Knows budgets, not models.

Where the official code crashes (a video over ``max_length``) the video is made smaller until it fits, and the prepared
item says so in ``notes``; ``docs/differences.md`` lists every such place.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, MediaError, PromptError, WeightsError
from sightline.prep import patches as patching
from sightline.prep.positions import positions
from sightline.prep.prompt import (
    EMBED_INSTRUCTION,
    RERANK_INSTRUCTION,
    VideoLayout,
    Visual,
    content,
    embedding_prompt,
    head_parts,
    punctuated,
    reranking_prompt,
    runs,
    tail_parts,
    to_ids,
)
from sightline.prep.resize import (
    FILE_TOTAL_PIXELS,
    FRAME_LIST_FACTOR,
    FRAME_LIST_MAX_PIXELS,
    FRAME_LIST_MIN_PIXELS,
    FRAME_MIN_PIXELS,
    IMAGE_FACTOR,
    frame_max_pixels,
    smart_resize,
)
from sightline.prep.tokens import Tokenizer
from sightline.protocols import MediaReader
from sightline.types import QUALITIES, TOTAL_PIXELS, Item, Pixels, VideoFrames

logger = logging.getLogger(__name__)

FRAME_LIST_FPS: Final = 2.0
"""Frames per second that qwen_vl_utils ascribes to a list of frames, for the timestamps."""
MOST_PIXELS: Final = 4_000_000
"""Of a picture that is left to the device to resize: larger ones would fill the memory while they wait."""
MOST_VIDEO_PIXELS: Final = 40_000_000
"""The same for all frames of a video."""
_NO_PATCHES: Final = np.zeros((0, patching.STILL_WIDTH), np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budgets:
    """How much of an item the model is shown; the defaults are those of the official scripts.

    Attributes:
        max_length: tokens of a prompt.
        min_pixels, max_pixels: area of an image after resizing.
        total_pixels: area of all frames of a frame list together.
        frame_pixels: most pixels of one video frame; None follows the official code (128 to 768 tokens a pair).
        fps: frames per second taken from a video file.
        max_frames: most frames of one video.
    """

    max_length: int = 8192
    min_pixels: int = 4096
    max_pixels: int = 1_843_200
    total_pixels: int = TOTAL_PIXELS
    frame_pixels: int | None = None
    fps: float = 1.0
    max_frames: int = 64

    def at(self, quality: str) -> Budgets:
        """The same with no more tokens for a picture, and as much less for a video.

        Args:
            quality: a name of ``QUALITIES``.

        Raises:
            ConfigError: another name.
        """
        if quality not in QUALITIES:
            raise ConfigError(f"quality must be one of {', '.join(QUALITIES)}, not {quality!r}")
        most = QUALITIES[quality]
        return replace(
            self,
            max_pixels=min(self.max_pixels, most),
            total_pixels=self.total_pixels * most // QUALITIES["full"],
        )

    def __post_init__(self) -> None:
        if self.max_length < 64:
            raise ConfigError(f"max_length must be at least 64, not {self.max_length}")
        if not IMAGE_FACTOR**2 <= self.min_pixels <= self.max_pixels:
            raise ConfigError(
                f"{IMAGE_FACTOR**2} <= min_pixels <= max_pixels must hold, not {self.min_pixels}, {self.max_pixels}"
            )
        if self.total_pixels < IMAGE_FACTOR**2:
            raise ConfigError(f"total_pixels must be at least {IMAGE_FACTOR**2}, not {self.total_pixels}")
        if not 0 < self.fps <= 1000:
            raise ConfigError(f"fps must be over 0 and at most 1000, not {self.fps}")
        if not 2 <= self.max_frames <= 4096:
            raise ConfigError(f"max_frames must be from 2 to 4096, not {self.max_frames}")

    def under(self, ceilings: Mapping[str, Any]) -> Budgets:
        """These budgets, lowered to what a checkpoint says it was trained for.

        Raises:
            WeightsError: a ceiling for something that is no budget.
        """
        known = {f.name for f in fields(self)}
        unknown = sorted(set(ceilings) - known)
        if unknown:
            raise WeightsError(
                f"sightline.json has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        values = {}
        for name in known:
            own, ceiling = getattr(self, name), ceilings.get(name)
            values[name] = own if ceiling is None else ceiling if own is None else min(own, ceiling)
        return Budgets(**values)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One prompt, ready for the engine.

    Attributes:
        ids: (T,) int64 token ids.
        positions: (3, T) int64.
        visuals: pictures and videos in the order of their tokens.
        head: ids before the content; prompts of one instruction share them.
        notes: what was changed to make it fit, for people.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    visuals: tuple[Visual, ...]
    head: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """A decoded video before it is resized for the model."""

    frames: Sequence[Pixels]
    timestamps_s: tuple[float, ...]
    max_pixels: int


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """The decoded media of an item: still pictures as they will be shown, videos that can still be made smaller."""

    clips: tuple[_Clip, ...]
    images: tuple[Visual, ...]
    texts: tuple[str, ...]


class Preparer:
    """Turns items into prompts under one set of budgets."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        reader: MediaReader,
        budgets: Budgets,
        *,
        layout: VideoLayout = "4.57",
        resizes: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.reader = reader
        self.budgets = budgets
        self.layout = layout
        self.resizes = resizes
        """Whether pictures are resized here, as the official code does it; else the engine does it on its device."""
        self._tail = len(to_ids(tail_parts(), tokenizer))
        self._pads = (tokenizer.control("<|image_pad|>"), tokenizer.control("<|video_pad|>"))

    def at(self, quality: str) -> Preparer:
        """The same with the budgets of a quality; see ``Budgets.at``."""
        budgets = self.budgets.at(quality)
        return Preparer(self.tokenizer, self.reader, budgets, layout=self.layout, resizes=self.resizes)

    def read(self, item: Item) -> Media:
        """Decodes and resizes the media of an item.

        Raises:
            MediaError: something of it cannot be read.
        """
        clips = tuple(self._clip(video, item) for video in self.reader.videos(item.video))
        images = tuple(self._image(self.reader.image(source)) for source in item.images)
        return Media(clips=clips, images=images, texts=item.texts)

    def embedding(self, item: Item, *, instruction: str | None = None) -> Prepared:
        """The embedder's prompt; over-long text is cut on the right, as in the official code.

        Args:
            item: what to embed. Its own instruction goes before ``instruction``.
            instruction: for items without one; None takes the default.

        Raises:
            MediaError: unreadable media.
            PromptError: pictures that do not fit into max_length.
        """
        system = punctuated(item.instruction or instruction or "") or EMBED_INSTRUCTION
        media = self.read(item)

        def build(visuals: Sequence[Visual]) -> list[int]:
            return to_ids(embedding_prompt(system, content(visuals, media.texts)), self.tokenizer, self.layout)

        limit = self.budgets.max_length
        visuals, ids, notes = self._fit([media], build, lambda ids: self._last_pad(ids) + 2 - limit)
        if len(ids) > limit:
            # the tokenizer cuts to max_length - 1 and then appends <|endoftext|> again
            ids = [*ids[: limit - 1], ids[-1]]
            notes = (*notes, f"text cut to {limit} tokens")
        head = len(to_ids(head_parts(system), self.tokenizer))
        return self._prepared(ids, visuals, min(head, len(ids) - 1), notes)

    def pair(self, query: Media, document: Media, *, instruction: str | None = None) -> Prepared:
        """The reranker's prompt of one query and one document; over-long text is cut as in the official code.

        Raises:
            PromptError: pictures that do not fit into max_length.
        """

        def build(visuals: Sequence[Visual]) -> list[int]:
            split = len(query.clips) + len(query.images)
            parts = reranking_prompt(
                instruction or RERANK_INSTRUCTION,
                content(visuals[:split], query.texts),
                content(visuals[split:], document.texts),
            )
            return to_ids(parts, self.tokenizer, self.layout)

        limit = self.budgets.max_length
        special = self.tokenizer.special_ids
        visuals, ids, notes = self._fit(
            [query, document], build, lambda ids: sum(token in special for token in ids[: -self._tail]) - limit
        )
        body, suffix = ids[: -self._tail], ids[-self._tail :]
        if len(body) > limit:
            keep = limit - sum(token in special for token in body)
            kept: list[int] = []
            for token in body:
                if token in special:
                    kept.append(token)
                elif keep > 0:
                    kept.append(token)
                    keep -= 1
            ids = kept + suffix
            notes = (*notes, f"text cut to {limit} tokens")
        return self._prepared(ids, visuals, 0, notes)

    def _last_pad(self, ids: list[int]) -> int:
        """Index of the last visual token, -1 without one: what the cut of the embedder must not reach."""
        return next((index for index in range(len(ids) - 1, -1, -1) if ids[index] in self._pads), -1)

    def _prepared(self, ids: list[int], visuals: Sequence[Visual], head: int, notes: tuple[str, ...]) -> Prepared:
        array = np.asarray(ids, np.int64)
        is_visual = np.isin(array, self._pads)
        return Prepared(array, positions(array, is_visual, runs(visuals)), tuple(visuals), head, notes)

    def _fit(
        self,
        sides: Sequence[Media],
        build: Callable[[Sequence[Visual]], list[int]],
        excess: Callable[[list[int]], int],
    ) -> tuple[list[Visual], list[int], tuple[str, ...]]:
        """Visuals of all sides in prompt order, and the ids; videos are made smaller while ``excess`` is over 0."""
        shrink = 1.0
        while True:
            visuals: list[Visual] = []
            for side in sides:
                visuals += [*(self._video(clip, shrink) for clip in side.clips), *side.images]
            ids = build(visuals)
            over = excess(ids)
            if over <= 0:
                return visuals, ids, ("video made smaller to fit max_length",) if shrink < 1 else ()
            video = sum(patching.num_tokens(visual.grid) for visual in visuals if visual.is_video)
            if over >= video or shrink < 1e-3:
                raise PromptError(f"the pictures alone are {over} tokens over max_length {self.budgets.max_length}")
            shrink *= min(0.95, (video - over) / video)
            logger.warning("a video of %d tokens is made smaller to fit max_length", video)

    def _image(self, pixels: Pixels) -> Visual:
        height, width = smart_resize(
            pixels.shape[0], pixels.shape[1], min_pixels=self.budgets.min_pixels, max_pixels=self.budgets.max_pixels
        )
        if not self.resizes and pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS:
            return _unresized(pixels[None], (1, height // patching.PATCH, width // patching.PATCH), ())
        return visual(*patching.image_patches(self.reader.resize(pixels, height, width)), ())

    def _clip(self, source: object, item: Item) -> _Clip:
        video = self.reader.video(
            source, fps=item.fps or self.budgets.fps, max_frames=item.max_frames or self.budgets.max_frames
        )
        if isinstance(video, VideoFrames):
            frames: list[Pixels] = list(video.frames)
            seconds = [index / video.fps for index in video.indices]
            total = FILE_TOTAL_PIXELS
        else:
            frames = self._frame_list(video)
            seconds = [index / FRAME_LIST_FPS for index in range(len(frames))]
            total = self.budgets.total_pixels
        if len(frames) % patching.FRAMES:
            frames.append(frames[-1])
            seconds.append(seconds[-1] + (0 if isinstance(video, VideoFrames) else 1 / FRAME_LIST_FPS))
        pairs = zip(seconds[::2], seconds[1::2], strict=True)
        most = frame_max_pixels(len(frames), total)
        if self.budgets.frame_pixels is not None:
            most = min(most, self.budgets.frame_pixels)
        return _Clip(frames, tuple((first + second) / 2 for first, second in pairs), most)

    def _frame_list(self, pictures: Sequence[Pixels]) -> list[Pixels]:
        """The first of the two resizes of a frame list: sides to multiples of 64."""
        if not pictures:
            raise MediaError("no_frames")
        resized = []
        for picture in pictures:
            size = smart_resize(
                picture.shape[0],
                picture.shape[1],
                factor=FRAME_LIST_FACTOR,
                min_pixels=FRAME_LIST_MIN_PIXELS,
                max_pixels=FRAME_LIST_MAX_PIXELS,
            )
            resized.append(self.reader.resize(picture, *size))
        if len({picture.shape for picture in resized}) > 1:
            raise MediaError("corrupt", "the frames of a video must have one size")
        return resized

    def _video(self, clip: _Clip, shrink: float) -> Visual:
        most = max(int(clip.max_pixels * shrink), IMAGE_FACTOR**2)
        height, width = smart_resize(
            clip.frames[0].shape[0],
            clip.frames[0].shape[1],
            min_pixels=min(FRAME_MIN_PIXELS, most),
            max_pixels=most,
        )
        if not self.resizes and sum(frame.shape[0] * frame.shape[1] for frame in clip.frames) <= MOST_VIDEO_PIXELS:
            grid = (len(clip.frames) // patching.FRAMES, height // patching.PATCH, width // patching.PATCH)
            return _unresized(np.stack(list(clip.frames)), grid, clip.timestamps_s)
        resized = np.stack([self.reader.resize_frame(frame, height, width) for frame in clip.frames])
        return visual(*patching.video_patches(resized), clip.timestamps_s)


def _unresized(frames: NDArray[np.uint8], grid: patching.Grid, timestamps_s: tuple[float, ...]) -> Visual:
    frames = np.ascontiguousarray(frames)
    digest = hashlib.blake2b(frames.data, digest_size=16)
    digest.update(repr((grid, frames.shape, "unresized")).encode())
    return Visual(_NO_PATCHES, grid, timestamps_s, digest.digest(), frames)


def visual(patches: NDArray[np.uint8], grid: patching.Grid, timestamps_s: tuple[float, ...] = ()) -> Visual:
    """Patches as a part of a prompt, with the hash by which equal ones are known."""
    digest = hashlib.blake2b(patches.data, digest_size=16)
    digest.update(repr((grid, patches.shape[1])).encode())
    return Visual(patches, grid, timestamps_s, digest.digest())
