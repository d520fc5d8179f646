"""Pictures that the model's device resizes: the same patches but for a level here and there, nearly the same vectors."""

import numpy as np
import pytest
import torch

from sightline.embed import Embedder
from sightline.engine.pixels import patches_on
from sightline.errors import ConfigError
from sightline.media.reader import Reader
from sightline.prep import prepare
from sightline.prep.prepare import Budgets, Preparer
from sightline.prep.tokens import Tokenizer
from sightline.settings import Settings
from sightline.types import Item, VideoFrames
from tests.parity.checkpoints import TINY, random_checkpoint

CPU = torch.device("cpu")


def picture(seed, height, width):
    """Soft shapes and sharp edges, as photographs and pages have them."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    pixels = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]
    pixels[height // 3 : height // 2] = 255
    return np.ascontiguousarray(pixels)


def film(seed, height=90, width=160):
    frames = np.stack([picture(seed + index, height, width) for index in range(5)])
    return VideoFrames(frames=frames, indices=tuple(range(5)), fps=1.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"), TINY)


@pytest.fixture
def both(checkpoint):
    """Prompts of an item as Pillow resizes and as the device does."""
    tokenizer, reader, budgets = Tokenizer(checkpoint / "tokenizer.json"), Reader(), Budgets(max_pixels=200_000)

    def prompts(item):
        return [Preparer(tokenizer, reader, budgets, resizes=one).embedding(item) for one in (True, False)]

    return prompts


@pytest.mark.parametrize("size", [(64, 64), (300, 451), (900, 700), (40, 60)])
def test_patches_of_a_picture(both, size):
    here, there = both(Item(image=picture(1, *size)))
    assert np.array_equal(here.ids, there.ids) and np.array_equal(here.positions, there.positions)
    assert not len(there.visuals[0].patches)
    expected = torch.from_numpy(here.visuals[0].patches)
    found = patches_on(CPU, there.visuals[0])
    assert found.dtype == torch.uint8 and found.shape == expected.shape
    apart = (found.int() - expected.int()).abs()
    assert (apart > 0).float().mean() < 0.05 and (apart > 2).float().mean() < 1e-3
    assert torch.equal(patches_on(CPU, here.visuals[0]), expected)


def test_patches_of_a_video(both):
    here, there = both(Item(video=film(1)))
    assert np.array_equal(here.ids, there.ids)
    apart = (patches_on(CPU, there.visuals[0]).int() - torch.from_numpy(here.visuals[0].patches).int()).abs()
    assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01


def test_vectors_are_nearly_the_same_and_the_index_too(checkpoint):
    items = [Item(image=picture(2, 480, 640)), Item(video=film(3)), Item(text="a line", image=picture(4, 1000, 872))]
    official = Embedder.load(str(checkpoint), device="cpu")
    quick = Embedder.load(str(checkpoint), device="cpu", settings=Settings(resize="device"))
    assert quick.card == official.card
    cosines = (official.embed(items) * quick.embed(items)).sum(1)
    assert (1 - cosines < 1e-3).all()
    assert (quick.at("fast").embed(items) * official.at("fast").embed(items)).sum(1).min() > 1 - 1e-3


def test_what_is_too_large_to_wait_is_resized_before(both, monkeypatch):
    monkeypatch.setattr(prepare, "MOST_PIXELS", 10_000)
    monkeypatch.setattr(prepare, "MOST_VIDEO_PIXELS", 10_000)
    for item in (Item(image=picture(1, 300, 451)), Item(video=film(1))):
        here, there = both(item)
        assert there.visuals[0].frames is None
        assert here.visuals[0].key == there.visuals[0].key


def test_a_way_of_resizing_that_there_is_not():
    with pytest.raises(ConfigError, match="pillow, device"):
        Settings(resize="gpu")
