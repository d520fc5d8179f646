"""Three-axis positions (time, row, column) of every token: the interleaved M-RoPE of Qwen3-VL.

Text advances all three axes together. A run of visual tokens that begins at position p holds time p, rows p + r and
columns p + c; the text after it goes on at p + max(rows, columns). A video is one such run for each temporal patch,
because its timestamps stand between them as text (transformers 4.57 ``get_rope_index``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def positions(
    ids: NDArray[np.int64], is_visual: NDArray[np.bool_], runs: Sequence[tuple[int, int]]
) -> NDArray[np.int64]:
    """Positions of one prompt.

    Args:
        ids: (T,) token ids.
        is_visual: (T,) true where the id is an image or video pad.
        runs: (rows, columns) in merged tokens of each run of visual tokens, in order.

    Returns:
        (3, T): time, row, column.
    """
    out = np.empty((3, len(ids)), np.int64)
    cursor, position = 0, 0
    starts = np.flatnonzero(is_visual & ~np.concatenate([[False], is_visual[:-1]]))
    assert len(starts) == len(runs), (len(starts), len(runs))
    for start, (rows, columns) in zip(starts.tolist(), runs, strict=True):
        out[:, cursor:start] = np.arange(position, position + start - cursor)
        position += start - cursor
        cells = np.arange(rows * columns)
        out[0, start : start + rows * columns] = position
        out[1, start : start + rows * columns] = position + cells // columns
        out[2, start : start + rows * columns] = position + cells % columns
        position += max(rows, columns)
        cursor = start + rows * columns
    out[:, cursor:] = np.arange(position, position + len(ids) - cursor)
    return out
