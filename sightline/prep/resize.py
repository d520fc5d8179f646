"""How large a picture is made before it is cut into patches. Sizes only; pixels are resized by ``media``.

Python's ``round`` is meant where it stands: halves go to the even neighbour, as in the official code.
Sources: qwen_vl_utils 0.0.14 ``smart_resize`` (the official scripts), transformers 4.57 ``smart_resize`` (the
processors that sentence-transformers and vLLM use); they differ for thin pictures only.
"""

from __future__ import annotations

import math
from typing import Final

from sightline.errors import MediaError

IMAGE_FACTOR: Final = 32
"""Pixels a side is a multiple of: patch of 16, merged two by two."""
FRAME_LIST_FACTOR: Final = 64
"""The same for the first of the two resizes of a frame list: the official call passes the factor as the patch size."""
FRAME_LIST_MIN_PIXELS: Final = 4 * FRAME_LIST_FACTOR**2
FRAME_LIST_MAX_PIXELS: Final = 16384 * FRAME_LIST_FACTOR**2
FRAME_MIN_PIXELS: Final = 128 * IMAGE_FACTOR**2
"""Pixels a video frame is at least scaled up to (qwen_vl_utils VIDEO_MIN_TOKEN_NUM = 128)."""
FRAME_MAX_PIXELS: Final = 768 * IMAGE_FACTOR**2
"""Pixels of a video frame at most (qwen_vl_utils VIDEO_MAX_TOKEN_NUM = 768)."""
FILE_TOTAL_PIXELS: Final = int(128_000 * IMAGE_FACTOR**2 * 0.9)
"""Budget of all frames of a video file: the official code drops the caller's total_pixels for files."""
MAX_RATIO: Final = 200
"""Longer side over shorter side that the models' processors refuse."""


def smart_resize(
    height: int, width: int, *, factor: int = IMAGE_FACTOR, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(height, width) as multiples of ``factor`` with an area in [min_pixels, max_pixels], as qwen_vl_utils has it.

    Raises:
        MediaError: ``aspect`` when one side is more than 200 times the other.

    >>> smart_resize(333, 500, min_pixels=4096, max_pixels=1843200)
    (320, 512)
    >>> smart_resize(3508, 2480, min_pixels=4096, max_pixels=1843200)
    (1600, 1120)
    """
    _check_ratio(height, width)
    rounded = max(factor, round(height / factor) * factor), max(factor, round(width / factor) * factor)
    return _into_budget((height, width), rounded, factor, min_pixels, max_pixels)


def smart_resize_processor(
    height: int, width: int, *, factor: int = IMAGE_FACTOR, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The variant of the transformers processors: no lower bound on the first rounding.

    >>> smart_resize_processor(16, 1000, min_pixels=4096, max_pixels=1843200)
    (32, 512)
    """
    _check_ratio(height, width)
    rounded = round(height / factor) * factor, round(width / factor) * factor
    return _into_budget((height, width), rounded, factor, min_pixels, max_pixels)


def frame_max_pixels(num_frames: int, total_pixels: int) -> int:
    """Most pixels of one of ``num_frames`` frames that share ``total_pixels``.

    Two frames make one temporal patch, hence the factor 2; the floor is 5 % over the minimum (qwen_vl_utils).
    """
    share = total_pixels / num_frames * 2
    return int(max(min(FRAME_MAX_PIXELS, share), int(FRAME_MIN_PIXELS * 1.05)))


def _into_budget(
    size: tuple[int, int], rounded: tuple[int, int], factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The rounded size, or the true one scaled into the budget and rounded towards its inside."""
    height, width = size
    if rounded[0] * rounded[1] > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        # qwen_vl_utils has no lower bound here, and makes a side 0 on pictures no model was ever shown
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if rounded[0] * rounded[1] < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return rounded


def _check_ratio(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise MediaError("corrupt", "a picture without pixels")
    if max(height, width) / min(height, width) > MAX_RATIO:
        raise MediaError("aspect")
