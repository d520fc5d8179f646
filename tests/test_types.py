"""What an item may be."""

import numpy as np
import pytest

from sightline import InputError, Item, VideoFrames


def test_plain_texts_and_dicts_are_items():
    assert Item.of("words").texts == ("words",)
    assert Item.of({"text": ["a", "b"], "fps": 2}).texts == ("a", "b")
    item = Item(image="a.png")
    assert Item.of(item) is item


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"txt": "a"}, "'txt'"),
        (7, "int"),
        ({"text": 7}, "text"),
        ({"text": ["a", 7]}, "text"),
        ({"instruction": 1}, "instruction"),
        ({"fps": 0}, "fps"),
        ({"fps": 1e9}, "fps"),
        ({"max_frames": 1}, "max_frames"),
        ({"max_frames": 2.5}, "max_frames"),
    ],
)
def test_anything_else_is_an_error_that_names_it(value, words):
    with pytest.raises(InputError, match=words):
        Item.of(value)


def test_items_are_frozen():
    with pytest.raises(AttributeError):
        Item(text="a").text = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": np.zeros((2, 4, 4), np.uint8), "indices": (0, 1), "fps": 1.0},
        {"frames": np.zeros((2, 4, 4, 3), np.float32), "indices": (0, 1), "fps": 1.0},
        {"frames": np.zeros((2, 4, 4, 3), np.uint8), "indices": (0,), "fps": 1.0},
        {"frames": np.zeros((2, 4, 4, 3), np.uint8), "indices": (0, 1), "fps": 0.0},
    ],
)
def test_frames_must_agree_with_their_description(wrong):
    with pytest.raises(InputError):
        VideoFrames(**wrong)
