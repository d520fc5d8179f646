"""Pictures resized and cut into patches on the model's own device, when the settings leave it to that.

A GPU does in a millisecond what takes Pillow a tenth of a second for the frames of a video. The kernel is the same
(bicubic, widened when it shrinks), the rounding is not quite: patches differ by a level here and there, vectors by less
than 1e-3 of a cosine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.prep.patches import FRAMES, MERGE, PATCH
from sightline.prep.prompt import Visual


def patches_on(device: torch.device, visual: Visual) -> Tensor:
    """(P, 768) uint8 patches of a still picture, (P, 1536) of a video, on the device."""
    if visual.frames is None:
        return torch.from_numpy(visual.patches).to(device)
    times, rows, columns = visual.grid
    pixels = torch.from_numpy(visual.frames).to(device).permute(0, 3, 1, 2).float()
    size = (rows * PATCH, columns * PATCH)
    if not visual.is_video:
        # Pillow rounds a still picture after each of its two passes, of which it takes the stronger first; a frame once
        height, width = pixels.shape[2:]
        is_flatter = size[0] * width < size[1] * height
        pixels = _resized(pixels, (size[0], width) if is_flatter else (height, size[1])).round().clamp(0, 255)
    pixels = _resized(pixels, size).round().clamp(0, 255)
    held = FRAMES if visual.is_video else 1
    blocks = pixels.to(torch.uint8).view(times, held, 3, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH)
    # the order of prep.patches: time, block, patch in the block, then channel, frame, row, column
    return blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(times * rows * columns, -1)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if pixels.shape[2:] == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
