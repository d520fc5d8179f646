"""Reciprocal rank fusion and the merging of moments."""

import itertools

import pytest
from hypothesis import given, strategies as st

from sightline.search.fuse import RRF_K, fuse
from sightline.search.moments import merge_moments, overlap

LISTS = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 1.0), max_size=8), min_size=1, max_size=4)


def even(*lists: str) -> list[dict[str, float]]:
    """Lists of ids of one letter, every place with weight 1."""
    return [dict.fromkeys(ids, 1.0) for ids in lists]


@given(LISTS)
def test_scores_are_in_range_sorted_and_complete(lists: list[dict[str, float]]) -> None:
    fused = fuse(lists)
    assert {one.id for one in fused} == set(itertools.chain(*lists))
    assert all(0 < one.score <= 1 for one in fused)
    assert [one.score for one in fused] == sorted((one.score for one in fused), reverse=True)


def test_first_in_every_list_is_one_and_the_formula_is_as_written() -> None:
    fused = {one.id: one.score for one in fuse(even("ab", "a", ""))}
    assert fused["a"] == 1.0
    assert fused["b"] == pytest.approx((1 / (RRF_K + 2)) / (2 / (RRF_K + 1)))


def test_ties_do_not_depend_on_the_order_of_lists() -> None:
    one, other = fuse(even("b", "a")), fuse(even("a", "b"))
    assert one == other
    assert [x.id for x in one] == ["a", "b"]


def test_weights() -> None:
    assert [one.id for one in fuse([{"a": 1.0}, {"b": 2.0}])] == ["b", "a"]


def test_a_first_place_of_little_weight_does_not_outvote_a_better_rank_elsewhere() -> None:
    near, said = {"star": 1.0, "chart": 1.0}, {"chart": 0.01}
    assert [one.id for one in fuse([near, said])] == ["star", "chart"]
    assert [one.id for one in fuse([near, {"chart": 0.5}])] == ["chart", "star"]


def test_places_of_no_weight_bring_nothing_and_stay() -> None:
    assert [(one.id, one.score) for one in fuse([{"a": 1.0}, {"b": 0.0}])] == [("a", 1.0), ("b", 0.0)]
    assert [one.score for one in fuse([{"a": 0.0}])] == [0.0]


def test_nothing_in_nothing_out() -> None:
    assert fuse([]) == []
    assert fuse(even("", "")) == []


Moment = tuple[str, float, float]


def moments(*hits: Moment) -> list[Moment]:
    return merge_moments(list(hits), lambda hit: hit)


def test_neighbours_of_the_best_moment_are_dropped() -> None:
    assert moments(("v", 8, 16), ("v", 4, 12), ("v", 12, 20), ("v", 0, 8)) == [("v", 8, 16), ("v", 0, 8)]


def test_a_dropped_moment_covers_nothing() -> None:
    # 4-12 is dropped for 0-8; 8-16 shares half of 4-12, and nothing of what stands
    assert moments(("v", 0, 8), ("v", 4, 12), ("v", 8, 16)) == [("v", 0, 8), ("v", 8, 16)]


def test_less_than_half_stays() -> None:
    assert len(moments(("v", 0, 8), ("v", 5, 13))) == 2


def test_moments_of_other_videos_and_other_kinds_stay() -> None:
    assert len(moments(("v", 0, 8), ("w", 0, 8))) == 2
    assert merge_moments([1, 2, 3], lambda _: None) == [1, 2, 3]


def test_overlap_of_the_shorter_and_of_moments_without_length() -> None:
    assert overlap((0, 100), (10, 12)) == 1.0
    assert overlap((0, 8), (8, 16)) == 0.0
    assert overlap((0, 8), (4, 4)) == 1.0
    assert overlap((0, 8), (9, 9)) == 0.0
