"""Which rows a step takes: integers, no data."""

import numpy as np
import pytest

from sightline.train.walk import BLOCK, Turns, Walk


@pytest.mark.parametrize(("num_rows", "batch"), [(10, 5), (10, 4), (7, 5), (5, 5), (9, 8), (1, 1), (100, 7), (12, 1)])
def test_every_row_once_an_epoch_and_no_batch_with_a_row_twice(num_rows, batch):
    walk = Walk(num_rows, batch, "a", 0)
    epochs = 6
    rows = [walk.rows(turn) for turn in range(-(-epochs * num_rows // batch))]
    assert all(len(set(part.tolist())) == batch for part in rows)
    line = np.concatenate(rows)[: epochs * num_rows].reshape(epochs, num_rows)
    assert (np.sort(line, 1) == np.arange(num_rows)).all()
    if num_rows > 6:
        assert len({tuple(epoch) for epoch in line.tolist()}) == epochs


@pytest.mark.parametrize(("num_rows", "batch"), [(50, 8), (11, 8)])
def test_any_batch_without_those_before_it(num_rows, batch):
    in_order = Walk(num_rows, batch, "a", 3)
    rows = [in_order.rows(turn).tolist() for turn in range(60)]
    for turn in (59, 7, 33, 0):
        assert Walk(num_rows, batch, "a", 3).rows(turn).tolist() == rows[turn]
    assert Walk(num_rows, batch, "a", 4).rows(0).tolist() != rows[0]
    assert Walk(num_rows, batch, "b", 3).rows(0).tolist() != rows[0]


@pytest.mark.parametrize(("num_rows", "batch"), [(50, 8), (11, 8), (8, 8)])
def test_spare_rows_are_of_one_place_alone_and_not_in_the_batch(num_rows, batch):
    walk = Walk(num_rows, batch, "a", 0)
    for turn in range(5):
        spares = [row for slot in range(batch) for row in walk.spares(turn, slot)]
        assert sorted(spares) == sorted(set(range(num_rows)) - set(walk.rows(turn).tolist()))
        assert list(walk.spares(turn, 3)) == list(Walk(num_rows, batch, "a", 0).spares(turn, 3))


def test_turns_follow_the_weights():
    turns = Turns([5, 3, 0, 2], seed=1)
    num = 4000
    drawn = np.array([turns.at(step)[0] for step in range(num)])
    shares = np.bincount(drawn, minlength=4) / num
    # five standard deviations of a share of half are 0.04
    assert shares == pytest.approx([0.5, 0.3, 0.0, 0.2], abs=0.04)
    assert shares[2] == 0
    # no pattern: a task follows itself as often as it is drawn
    assert (drawn[1:] == drawn[:-1]).mean() == pytest.approx(0.38, abs=0.04)


def test_turns_count_the_steps_before_across_blocks():
    turns = Turns([1, 2], seed=1)
    seen = [0, 0]
    for step in range(2 * BLOCK + 10):
        task, before = turns.at(step)
        assert before == seen[task]
        seen[task] += 1
    task, before = Turns([1, 2], seed=1).at(2 * BLOCK + 9)
    assert (task, before) == (task, seen[task] - 1)
