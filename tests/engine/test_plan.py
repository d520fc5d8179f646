"""Packing: integers in, integers out."""

from hypothesis import given, strategies as st

from sightline.engine.plan import halves, plan


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 100))
def test_every_item_once_and_no_batch_over_the_budget(costs, budget):
    batches = plan(costs, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(costs)))
    for batch in batches:
        assert batch
        assert sum(costs[index] for index in batch) <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_lengths_fall_so_that_equal_ones_stand_together(costs):
    order = [costs[index] for batch in plan(costs, 100) for index in batch]
    assert order == sorted(order, reverse=True)


@given(st.lists(st.integers(0, 99), min_size=2, max_size=20))
def test_halves_lose_nothing(batch):
    first, second = halves(batch)
    assert first + second == batch and first and second
