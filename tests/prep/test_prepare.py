"""Budgets: what is cut, what is made smaller, what is an error, and what the checkpoint may lower."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sightline.errors import ConfigError, MediaError, PromptError, WeightsError
from sightline.media.reader import Reader
from sightline.prep.prepare import Budgets, Preparer
from sightline.prep.prompt import punctuated
from sightline.prep.tokens import CONTROL_TOKENS, Tokenizer
from sightline.types import Item, VideoFrames


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Bytes as tokens: 256 ids for bytes, then the control tokens."""
    alphabet = {chr(code): index for index, code in enumerate(_byte_alphabet())}
    added = [
        {
            "id": 256 + index,
            "content": name,
            "special": True,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for index, name in enumerate(CONTROL_TOKENS)
    ]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    model = {"type": "BPE", "vocab": alphabet, "merges": []}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    path.write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": added,
                "normalizer": {"type": "NFC"},
                "pre_tokenizer": byte_level,
                "post_processor": None,
                "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True},
                "model": model,
            }
        )
    )
    return Tokenizer(path)


def _byte_alphabet():
    """The 256 printable stand-ins of byte-level BPE, in byte order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    fresh = iter(range(256, 512))
    return [byte if byte in kept else next(fresh) for byte in range(256)]


def preparer(tokenizer, **budgets):
    return Preparer(tokenizer, Reader(), Budgets(**budgets))


def picture(height=64, width=64):
    return np.full((height, width, 3), 90, np.uint8)


def clip(frames, height=128, width=128):
    return VideoFrames(frames=np.zeros((frames, height, width, 3), np.uint8), indices=tuple(range(frames)), fps=1.0)


def test_long_text_is_cut_on_the_right_and_still_ends_in_the_pooled_token(tokenizer):
    prompt = preparer(tokenizer, max_length=128).embedding(Item(text="x" * 1000))
    assert len(prompt) == 128
    assert prompt.ids[-1] == tokenizer.control("<|endoftext|>")
    assert prompt.ids[-2] == ord("x") - ord("!") + [*_byte_alphabet()].index(ord("!"))
    assert prompt.notes == ("text cut to 128 tokens",)


def test_a_video_over_the_length_is_made_smaller_and_says_so(tokenizer):
    whole = preparer(tokenizer).embedding(Item(video=clip(8)))
    small = preparer(tokenizer, max_length=300).embedding(Item(video=clip(8), text="what happens"))
    assert len(whole) > 300 >= len(small)
    assert small.visuals[0].grid[0] == whole.visuals[0].grid[0] == 4
    assert "video made smaller to fit max_length" in small.notes


def test_pictures_that_cannot_fit_are_an_error(tokenizer):
    with pytest.raises(PromptError, match="over max_length"):
        preparer(tokenizer, max_length=100).embedding(Item(image=[picture(512, 512)]))


def test_reranker_keeps_its_suffix_and_every_control_token_when_text_is_cut(tokenizer):
    ready = preparer(tokenizer, max_length=400)
    prompt = ready.pair(ready.read(Item(text="q" * 50)), ready.read(Item(text="d" * 5000, image=picture())))
    suffix = [
        tokenizer.control("<|im_end|>"),
        *tokenizer.encode("\n"),
        tokenizer.control("<|im_start|>"),
        *tokenizer.encode("assistant\n"),
    ]
    assert prompt.ids.tolist()[-len(suffix) :] == suffix
    assert len(prompt.visuals) == 1
    pads = (prompt.ids == tokenizer.control("<|image_pad|>")).sum()
    assert pads == 4


def test_frame_lists_and_files_have_their_own_budgets_and_times(tokenizer):
    ready = preparer(tokenizer)
    frames = [picture(120, 160) for _ in range(5)]
    listed = ready.embedding(Item(video=frames)).visuals[0]
    assert listed.grid == (3, 24, 24)  # 160x120 -> 128x128 -> 384x384: the official double resize
    assert listed.timestamps_s == (0.25, 1.25, 2.25)
    filed = ready.embedding(
        Item(video=VideoFrames(frames=np.stack(frames[:4]), indices=(0, 30, 60, 90), fps=30.0))
    ).visuals[0]
    assert filed.timestamps_s == (0.5, 2.5)
    assert filed.grid == (2, 20, 28)


def test_frames_of_different_sizes_are_an_error(tokenizer):
    with pytest.raises(MediaError, match="one size"):
        preparer(tokenizer).embedding(Item(video=[picture(64, 64), picture(64, 256)]))


def test_order_is_video_image_text_however_given(tokenizer):
    ids = preparer(tokenizer).embedding(Item(text="t", image=picture(), video=clip(2))).ids.tolist()
    places = [ids.index(tokenizer.control(name)) for name in ("<|video_pad|>", "<|image_pad|>")]
    text = len(ids) - 1 - ids[::-1].index(tokenizer.encode("t")[0], 12)
    assert places[0] < places[1] < text


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("Find it", "Find it."),
        ("Find it.", "Find it."),
        (" Find it? ", "Find it?"),
        ("找到它", "找到它."),
        ("找到它。", "找到它。"),
        ("", ""),
    ],
)
def test_instructions_end_in_punctuation(given_text, expected):
    assert punctuated(given_text) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_length": 8},
        {"min_pixels": 10},
        {"min_pixels": 5000, "max_pixels": 4096},
        {"fps": 0.0},
        {"max_frames": 1},
        {"total_pixels": 0},
    ],
)
def test_budgets_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Budgets(**wrong)


def test_a_checkpoint_may_lower_budgets_and_only_lower_them():
    assert Budgets().under({}) == Budgets()
    ceilings = {"max_pixels": 262_144, "frame_pixels": 65_536}
    lowered = Budgets(max_pixels=100_000).under(ceilings)
    assert (lowered.max_pixels, lowered.frame_pixels) == (100_000, 65_536)
    assert Budgets().under(ceilings).max_pixels == 262_144
    with pytest.raises(WeightsError, match="maxpixels"):
        Budgets().under({"maxpixels": 1})


@given(st.text(max_size=200))
def test_any_text_decodes_to_itself(tokenizer, text):
    import unicodedata

    clean = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    assert tokenizer.decode(tokenizer.encode(clean)) == clean


def test_control_words_in_text_stay_text(tokenizer):
    for name in CONTROL_TOKENS:
        assert all(index < 256 for index in tokenizer.encode(f"a {name} b"))
