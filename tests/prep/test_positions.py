"""Three-axis positions, on a prompt small enough to write down."""

import numpy as np

from sightline.prep.positions import positions


def test_text_advances_all_axes_together():
    ids = np.arange(4)
    assert positions(ids, np.zeros(4, bool), []).tolist() == [[0, 1, 2, 3]] * 3


def test_a_picture_spreads_over_rows_and_columns_and_text_goes_on_after_its_longer_side():
    visual = np.array([0, 1, 1, 1, 1, 1, 1, 0, 0], bool)
    assert positions(np.arange(9), visual, [(2, 3)]).tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5],
        [0, 1, 1, 1, 2, 2, 2, 4, 5],
        [0, 1, 2, 3, 1, 2, 3, 4, 5],
    ]


def test_every_temporal_patch_is_a_run_of_its_own():
    visual = np.array([1, 1, 0, 1, 1], bool)
    assert positions(np.arange(5), visual, [(1, 2), (1, 2)])[0].tolist() == [0, 0, 2, 3, 3]
