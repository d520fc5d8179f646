"""Films for the test of moments: shots fill the minute, and the product cuts the file as the test does."""

import random
from pathlib import Path

import numpy as np
import pytest

from sightline.media.video import moments
from sightline.settings import Settings
from sightline.train.builtin.films import FILM_S, draw_film, film_windows, shared, write_film


@pytest.mark.parametrize("num_shots", [7, 8])
def test_shots_follow_each_other_and_fill_the_film(num_shots: int) -> None:
    film = draw_film(random.Random(num_shots), num_shots, side=64)
    assert film.frames.shape == (FILM_S, 64, 64, 3)
    assert film.shots[0].start_s == 0 and film.shots[-1].end_s == FILM_S
    assert all(one.end_s == two.start_s for one, two in zip(film.shots, film.shots[1:], strict=False))
    assert len({shot.words for shot in film.shots}) == num_shots
    assert {shot.end_s - shot.start_s for shot in film.shots} <= {7, 8, 9}


def test_every_shot_has_a_window_that_finds_it() -> None:
    for seed in range(20):
        film = draw_film(random.Random(seed), 7 + seed % 2, side=32)
        found = [(start, end) for start, end, _ in film_windows(film)]
        for shot in film.shots:
            assert max(shared(window, (shot.start_s, shot.end_s)) for window in found) >= 0.5


def test_the_product_sees_the_same_moments_in_the_file(tmp_path: Path) -> None:
    film = draw_film(random.Random(3), 8)
    write_film(film, tmp_path / "film.mp4")
    read = list(moments(tmp_path / "film.mp4", Settings()))
    kept = film_windows(film)
    assert [(start, end) for start, end, _ in read] == [(start, end) for start, end, _ in kept]
    for (_, _, one), (_, _, two) in zip(read, kept, strict=True):
        assert one.indices == two.indices and one.fps == two.fps  # type: ignore[union-attr]
        difference = np.abs(one.frames.astype(float) - two.frames)  # type: ignore[union-attr]
        assert difference.mean() < 6  # what the codec loses


def test_a_film_is_the_same_every_time() -> None:
    one, two = (draw_film(random.Random(5), 7, side=32) for _ in range(2))
    assert one.shots == two.shots and np.array_equal(one.frames, two.frames)


def test_shared_time() -> None:
    assert shared((0, 8), (0, 8)) == 1
    assert shared((0, 8), (8, 16)) == 0
    assert shared((2, 10), (4, 12)) == pytest.approx(6 / 10)
