"""Pictures cut into patches, in the order the vision tower wants them.

A patch is 16 x 16 pixels of 2 frames. Patches of a 2 x 2 block that will be merged into one token stand together,
so the order is frames, block rows, block columns, row in block, column in block; the features of one patch are in
the order channel, frame, row, column: exactly a row of the Conv3d weight seen as a matrix.

Values stay uint8 here, an eighth of the bytes of the official float32; the model maps them to [-1, 1].
The two frames of a still picture are equal, so a still patch holds one of them (768 values instead of 1,536).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sightline.types import Pixels

PATCH: Final = 16
MERGE: Final = 2
FRAMES: Final = 2
STILL_WIDTH: Final = 3 * PATCH * PATCH
VIDEO_WIDTH: Final = 3 * FRAMES * PATCH * PATCH

Grid = tuple[int, int, int]
"""(temporal patches, patch rows, patch columns)."""


def image_patches(pixels: Pixels) -> tuple[NDArray[np.uint8], Grid]:
    """Patches of a still picture.

    Args:
        pixels: (Y, X, 3) uint8, sides multiples of 32.

    Returns:
        (P, 768) uint8 and the grid (1, Y / 16, X / 16), P = product of the grid.
    """
    rows, columns = _grid(pixels.shape[0], pixels.shape[1])
    blocks = pixels.reshape(rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    ordered = blocks.transpose(0, 3, 1, 4, 6, 2, 5)
    return np.ascontiguousarray(ordered).reshape(rows * columns, STILL_WIDTH), (1, rows, columns)


def video_patches(frames: NDArray[np.uint8] | Sequence[Pixels]) -> tuple[NDArray[np.uint8], Grid]:
    """Patches of a video; the last frame is repeated when their number is odd.

    Args:
        frames: (F, Y, X, 3) uint8 or F pictures of equal size, sides multiples of 32.

    Returns:
        (P, 1536) uint8 and the grid (F / 2, Y / 16, X / 16).
    """
    stacked = np.asarray(frames)
    if len(stacked) % FRAMES:
        stacked = np.concatenate([stacked, stacked[-1:]])
    rows, columns = _grid(stacked.shape[1], stacked.shape[2])
    times = len(stacked) // FRAMES
    blocks = stacked.reshape(times, FRAMES, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return np.ascontiguousarray(ordered).reshape(times * rows * columns, VIDEO_WIDTH), (times, rows, columns)


def full_patches(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(P, 1536) float32 in [-1, 1] as the official processor gives them: still patches hold their frame twice."""
    if patches.shape[1] == STILL_WIDTH:
        per_channel = patches.reshape(-1, 3, 1, PATCH * PATCH)
        patches = np.repeat(per_channel, FRAMES, axis=2).reshape(-1, VIDEO_WIDTH)
    return (patches.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)


def num_tokens(grid: Grid) -> int:
    """Tokens a visual takes in the prompt: one for each 2 x 2 block of each temporal patch."""
    return grid[0] * grid[1] * grid[2] // MERGE**2


def _grid(height: int, width: int) -> tuple[int, int]:
    side = PATCH * MERGE
    assert height % side == 0 and width % side == 0, (height, width)
    return height // PATCH, width // PATCH
