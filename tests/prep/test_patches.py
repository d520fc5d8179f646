"""The order of patches, against the reshapes written out in plain loops."""

import numpy as np

from sightline.prep.patches import full_patches, image_patches, num_tokens, video_patches


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def patch(frame, row, column):
    return frame[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].transpose(2, 0, 1)


def by_hand(frames):
    """(P, 1536): frames in pairs, 2 x 2 blocks, features channel - frame - row - column."""
    rows, columns = frames.shape[1] // 16, frames.shape[2] // 16
    out = []
    for time in range(len(frames) // 2):
        for block_row in range(0, rows, 2):
            for block_column in range(0, columns, 2):
                for row in (block_row, block_row + 1):
                    for column in (block_column, block_column + 1):
                        pair = [patch(frames[2 * time + k], row, column) for k in (0, 1)]
                        out.append(np.stack(pair, 1).reshape(-1))
    return np.stack(out)


def test_video_patches_are_in_block_order():
    frames = noise(4, 64, 96, 3)
    patches, grid = video_patches(frames)
    assert grid == (2, 4, 6)
    assert np.array_equal(patches, by_hand(frames))
    assert num_tokens(grid) == 12


def test_an_odd_last_frame_is_repeated():
    frames = noise(3, 32, 32, 3)
    patches, grid = video_patches(frames)
    assert grid == (2, 2, 2)
    assert np.array_equal(patches, by_hand(np.concatenate([frames, frames[-1:]])))


def test_a_still_picture_is_a_video_of_two_equal_frames():
    picture = noise(64, 32, 3)
    patches, grid = image_patches(picture)
    assert grid == (1, 4, 2) and patches.shape == (8, 768)
    doubled = by_hand(np.stack([picture, picture]))
    assert np.array_equal(full_patches(patches), (doubled.astype(np.float32) - 127.5) / 127.5)
