"""How many tokens of a picture are worth their time: by name, remembered by the index, another name refused."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.cli import models
from sightline.embed import Embedder
from sightline.errors import ConfigError, IndexMismatchError
from sightline.library import Library
from sightline.prep.prepare import Budgets
from sightline.search import identity
from sightline.settings import Settings
from sightline.testing import ToyEmbedder
from sightline.types import QUALITIES, Item, VideoFrames
from tests.parity.checkpoints import TINY, random_checkpoint

TESTS = Path(__file__).parent.parent


def test_a_quality_is_a_budget():
    assert Budgets().at("full") == Budgets()
    assert [Budgets().at(name).max_pixels // 1024 for name in ("fast", "balanced", "full")] == [256, 768, 1800]
    assert Budgets(max_pixels=100_000).at("balanced").max_pixels == 100_000, "a ceiling is not lifted"
    assert Budgets().at("fast").total_pixels < Budgets().at("balanced").total_pixels < Budgets().total_pixels
    with pytest.raises(ConfigError, match="fast, balanced, full"):
        Budgets().at("best")


def test_an_index_keeps_its_quality(tmp_path):
    model = str(random_checkpoint(tmp_path / "checkpoint", TINY))
    plain = Settings(library=str(tmp_path / "index"), device="cpu")
    how: dict[str, Any] = {"model": model, "reranker": "none", "revision": None, "rebuild": False}
    with models.open_to_index(plain.replace(quality="fast"), **how) as library:
        assert library.model.max_pixels == 256 * 1024
    with models.open_to_index(plain, **how) as library:
        assert library.model.max_pixels == 256 * 1024
    with models.open_to_search(plain, model=None, reranker=None, rerank=0) as library:
        assert library.search("anything") == []
    with pytest.raises(IndexMismatchError, match="max_pixels 262144, you run 1843200"):
        models.open_to_search(plain.replace(quality="full"), model=None, reranker=None, rerank=0)


@pytest.mark.parametrize("quality", ["", "fast", "balanced", "full"])
def test_an_index_of_the_built_in_model_opens_again_at_any_quality(tmp_path, quality):
    """Its pictures have the same budget at all of them, so that they do not tell which one it was."""
    plain = Settings(library=str(tmp_path / "index"), device="cpu")
    how: dict[str, Any] = {"model": None, "reranker": "none", "revision": None, "rebuild": False}
    with models.open_to_index(plain.replace(quality=quality), **how) as library:
        made = library.model
    with models.open_to_search(plain, model=None, reranker=None, rerank=0) as library:
        assert library.embedder is not None
        assert library.embedder.card == made
        assert library.search("anything") == []
    with models.open_to_index(plain, **how) as library:
        assert library.model == made


class Watched(ToyEmbedder):
    """Knows how many frames it was shown of each moment, at a quality."""

    def __init__(self, quality: str) -> None:
        super().__init__()
        self.card = dataclasses.replace(self.card, total_pixels=Budgets().at(quality).total_pixels, max_pixels=4096)
        self.shown: list[int] = []

    def stream(self, items: Any, **how: Any) -> Any:
        for item in items:
            if isinstance(item.video, VideoFrames):
                self.shown.append(len(item.video.frames))
            yield from super().stream([item], **how)


@pytest.mark.parametrize(("quality", "asked", "kept"), [("fast", 1.0, 0.5), ("fast", 0.25, 0.25), ("full", 1.0, 1.0)])
def test_a_fast_index_takes_half_of_the_frames_of_a_moment(tmp_path, quality, asked, kept):
    (tmp_path / "files").mkdir()
    runpy.run_path(str(TESTS / "search" / "corpus.py"))["video"](tmp_path / "files" / "film.mp4", [1, 2], 16)
    settings = Settings(video_fps=asked, moment_s=16.0, moment_step_s=16.0)
    with Library.open(tmp_path / "index", embedder=(embedder := Watched(quality)), settings=settings) as library:
        assert library.add(tmp_path / "files").units == 2
        assert embedder.shown == [16 * kept] * 2
    for given in (settings, None):
        with Library.open(tmp_path / "index", embedder=Watched(quality), settings=given) as library:
            assert library.settings.video_fps == kept
            assert library.add(tmp_path / "files").unchanged == 1


def test_an_index_made_before_fast_had_fewer_frames_is_added_to_as_it_was(tmp_path):
    card = Embedder.load("builtin", device="cpu", quality="fast").card
    before = {"settings": {"video_fps": 1.0}}
    assert identity.settings_for(Settings(), before, card).video_fps == 1.0
    assert identity.settings_for(None, before, card).video_fps == 1.0
    other = identity.settings_for(Settings(video_fps=2.0), before, card)
    with pytest.raises(IndexMismatchError, match=r"video_fps 1\.0, you run 2\.0"):
        identity.check_settings(before, other, "index")


def test_the_budget_of_a_quality_is_the_one_that_models_load_with():
    for name in QUALITIES:
        assert identity.quality_of(Embedder.load("builtin", device="cpu", quality=name).card) == name


def test_a_new_index_on_a_cpu_is_balanced_and_brings_its_quality_along(tmp_path):
    model = str(random_checkpoint(tmp_path / "checkpoint", TINY))
    plain = Settings(library=str(tmp_path / "index"), device="cpu")
    with models.open_to_index(plain, model=model, reranker="none", revision=None, rebuild=False) as library:
        assert library.model.max_pixels == 768 * 1024

    embedder = Embedder.load(model, device="cpu")
    assert embedder.card.max_pixels == 1_843_200, "alone it is the official one"
    with Library.open(tmp_path / "index", embedder=embedder) as library:
        assert library.embedder is not None
        assert library.embedder.card == library.model
        assert library.search("anything") == []

    for asked in ({"quality": "full"}, {"max_pixels": 500_000}):
        with pytest.raises(IndexMismatchError, match="max_pixels 786432"):
            Library.open(tmp_path / "index", embedder=Embedder.load(model, device="cpu", **asked))


def test_a_quality_shows_the_model_less(tmp_path):
    embedder = Embedder.load(str(random_checkpoint(tmp_path / "checkpoint", TINY)), device="cpu")
    picture = np.random.default_rng(0).integers(0, 255, (1200, 900, 3), np.uint8)
    fast = embedder.at("fast")
    asked = Embedder.load(str(tmp_path / "checkpoint"), device="cpu", quality="fast")
    assert fast.card == asked.card
    np.testing.assert_array_equal(fast.embed([Item(image=picture)]), asked.embed([Item(image=picture)]))
    assert (fast.embed([Item(image=picture)]) != embedder.embed([Item(image=picture)])).any()
    assert not fast.is_adjustable


def test_only_an_embedder_whose_device_is_slow_and_whose_budget_is_open_is_changed(tmp_path):
    class OnGpu(Embedder):
        device = property(lambda self: "cuda:0")

    folder = random_checkpoint(tmp_path / "checkpoint", TINY)
    for embedder in (OnGpu.load(str(folder), device="cpu"), Embedder.load("builtin", device="cpu"), ToyEmbedder()):
        assert identity.for_new_index(embedder) is embedder
