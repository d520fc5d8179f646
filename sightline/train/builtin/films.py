"""Rendered videos for the test of moments: a minute of shots, each with the words that find it.

A film is held as one picture a second, which is what the product looks at by default; ``write_film`` makes the file
that the product would be given.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sightline.media.video import windows
from sightline.settings import Settings
from sightline.train.builtin import drawing
from sightline.types import VideoFrames

FILM_S: Final = 60
"""Seconds of a film."""
SHOT_S: Final = (7, 8, 9)
"""Seconds a shot may last: about one moment of the product (8 s)."""
FILM_SIDE: Final = 128
"""Pixels: the frames the built-in models take (``frame_pixels`` of their sightline.json)."""
STILLS: Final = 0.3
"""Share of shots in which nothing moves."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A stretch of a film and its description."""

    start_s: int
    end_s: int
    words: str


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """Pictures (FILM_S, side, side, 3), one a second, and the shots that follow each other in them."""

    frames: NDArray[np.uint8]
    shots: tuple[Shot, ...]


def shot_lengths(rng: random.Random, num_shots: int) -> list[int]:
    """Seconds of each shot, ``FILM_S`` together.

    >>> sum(shot_lengths(random.Random(0), 7)), sum(shot_lengths(random.Random(0), 8))
    (60, 60)
    """
    if not min(SHOT_S) * num_shots <= FILM_S <= max(SHOT_S) * num_shots:
        raise ValueError(f"{num_shots} shots of {SHOT_S} seconds do not fill {FILM_S}")
    lengths = [min(SHOT_S)] * num_shots
    while sum(lengths) < FILM_S:
        index = rng.randrange(num_shots)
        lengths[index] = min(lengths[index] + 1, max(SHOT_S))
    return lengths


def draw_film(rng: random.Random, num_shots: int, side: int = FILM_SIDE) -> Film:
    """A film of shapes in motion and still scenes; no two shots have one description."""
    frames: list[NDArray[np.uint8]] = []
    shots: list[Shot] = []
    for seconds in shot_lengths(rng, num_shots):
        start = shots[-1].end_s if shots else 0
        words, pictures = _draw_shot(rng, seconds, side)
        while words in {shot.words for shot in shots}:
            words, pictures = _draw_shot(rng, seconds, side)
        shots.append(Shot(start, start + seconds, words))
        frames.append(pictures)
    return Film(np.concatenate(frames), tuple(shots))


def _draw_shot(rng: random.Random, seconds: int, side: int) -> tuple[str, NDArray[np.uint8]]:
    if rng.random() < STILLS:
        scene = drawing.random_scene(rng)
        picture = drawing.draw_scene(rng, scene, side, side)
        return scene.caption(), np.repeat(picture[None], seconds, 0)
    shape, color = rng.choice(drawing.SHAPES), rng.choice(list(drawing.COLORS))
    motion = rng.choice(list(drawing.MOTIONS))
    return f"a {color} {shape} {motion}", drawing.draw_clip(rng, shape, color, motion, side, seconds)


def film_windows(film: Film, settings: Settings | None = None) -> list[tuple[float, float, VideoFrames]]:
    """(start, end, frames) of the moments that the product cuts a file of this film into."""
    settings = settings or Settings()
    found = []
    for start, end in windows(float(len(film.frames)), settings.moment_s, settings.moment_step_s):
        frames = film.frames[round(start) : round(end)]
        # as in a file, frames are numbered from the start of their moment
        found.append((start, end, VideoFrames(frames=frames, indices=tuple(range(len(frames))), fps=1.0)))
    return found


def shared(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two stretches of time.

    >>> shared((0, 8), (4, 12))
    0.3333333333333333
    """
    both = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return both / (one[1] - one[0] + other[1] - other[0] - both)


def write_film(film: Film, path: str | os.PathLike[str], fps: int = 1) -> None:
    """Writes the film as MP4: H.264 where FFmpeg has an encoder for it, else MPEG-4.

    Args:
        film: what to write.
        path: of the file.
        fps: frames per second of the file; each picture is repeated so often.
    """
    import av

    h264 = "libx264" in av.codecs_available
    side = film.frames.shape[1]
    with av.open(os.fspath(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264" if h264 else "mpeg4", rate=fps, options={"crf": "18"} if h264 else {})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        if not h264:
            stream.bit_rate = 800_000
        for picture in np.repeat(film.frames, fps, 0):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
