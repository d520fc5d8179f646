"""Sizes as the official code computes them; the numbers were read off qwen_vl_utils and the transformers processor."""

import pytest
from hypothesis import given, strategies as st

from sightline.errors import MediaError
from sightline.prep.resize import FILE_TOTAL_PIXELS, frame_max_pixels, smart_resize, smart_resize_processor

OFFICIAL = {"min_pixels": 4096, "max_pixels": 1_843_200}
PROCESSOR = {"min_pixels": 4096, "max_pixels": 1_310_720}


@pytest.mark.parametrize(
    ("size", "official", "published"),
    [
        ((333, 500), (320, 512), None),
        ((720, 1280), (704, 1280), None),
        ((1080, 1920), (992, 1792), (832, 1504)),
        ((3508, 2480), (1600, 1120), (1344, 960)),
        ((30, 30), (64, 64), None),
        ((48, 48), (64, 64), None),
        ((80, 80), (64, 64), None),
    ],
)
def test_examples(size, official, published):
    assert smart_resize(*size, **OFFICIAL) == official
    if published:
        assert smart_resize(*size, **PROCESSOR) == published


def test_the_two_variants_differ_on_thin_pictures():
    assert smart_resize(16, 1000, **OFFICIAL) == (32, 992)
    # the processor rounds the short side to 0 and then enlarges both
    assert smart_resize_processor(16, 1000, **PROCESSOR) == (32, 512)
    assert smart_resize_processor(333, 500, **PROCESSOR) == smart_resize(333, 500, **PROCESSOR)


def test_halves_round_to_even():
    assert smart_resize(80, 112, min_pixels=1, max_pixels=10**9) == (64, 128)


@pytest.mark.parametrize("size", [(1, 201), (4021, 20), (0, 10)])
def test_impossible_shapes_are_errors(size):
    with pytest.raises(MediaError):
        smart_resize(*size, **OFFICIAL)


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_sides_are_multiples_and_the_area_is_in_the_budget(height, width):
    if max(height, width) > 200 * min(height, width):
        return
    new_height, new_width = smart_resize(height, width, **OFFICIAL)
    assert new_height % 32 == 0 and new_width % 32 == 0
    assert new_height * new_width >= 4096
    # a side cannot go under 32, so a ribbon may stay over the budget; nothing else may
    assert new_height * new_width <= 1_843_200 or min(new_height, new_width) == 32


@pytest.mark.parametrize(
    ("frames", "size", "total", "expected"),
    [
        (64, (704, 1280), 7_864_320, (352, 640)),  # a frame list of 64 frames of 720p
        (10, (240, 320), FILE_TOTAL_PIXELS, (320, 448)),  # small frames are made larger
        (64, (720, 1280), FILE_TOTAL_PIXELS, (640, 1152)),
        (64, (1080, 1920), FILE_TOTAL_PIXELS, (640, 1152)),
    ],
)
def test_video_frames(frames, size, total, expected):
    assert smart_resize(*size, min_pixels=131_072, max_pixels=frame_max_pixels(frames, total)) == expected
