"""Losses against values computed on paper."""

import math

import pytest
import torch

from sightline.train.losses import centred, info_nce, listwise, matryoshka, own_negatives, yes_no


def test_info_nce_of_orthogonal_pairs() -> None:
    # scores are the identity: each row is -log(e / (e + 2)) at temperature 1
    vectors = torch.eye(3)
    expected = math.log((math.e + 2) / math.e)
    assert info_nce(vectors, vectors, temperature=1.0).item() == pytest.approx(expected, abs=1e-6)
    assert info_nce(vectors, vectors, temperature=1.0, symmetric=False).item() == pytest.approx(expected, abs=1e-6)


def test_info_nce_with_a_hard_negative() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    one = math.log(math.e + 1 + math.exp(0.6)) - 1
    two = math.log(math.e + 1 + math.exp(0.8)) - 1
    loss = info_nce(queries, documents, temperature=1.0, symmetric=False)
    assert loss.item() == pytest.approx((one + two) / 2, abs=1e-6)


def test_a_pair_that_says_the_same_is_no_negative() -> None:
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    same = torch.ones(2, 2, dtype=torch.bool)
    assert info_nce(queries, queries, temperature=1.0, same=same).item() == pytest.approx(0.0, abs=1e-6)
    assert info_nce(queries, queries, temperature=1.0).item() == pytest.approx(math.log(2), abs=1e-6)


def test_a_negative_far_above_the_positive_is_taken_for_a_false_one() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    documents = torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])
    # the third document scores 1.0 on the first query, over 0.6 + 0.1, and is left out; so is nothing else
    first = math.log(math.exp(0.6) + math.exp(0.0)) - 0.6
    second = math.log(math.exp(1.0) + math.exp(0.8) + math.exp(0.0)) - 1.0
    loss = info_nce(queries, documents, temperature=1.0, symmetric=False)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_centred_vectors_cannot_all_be_equal() -> None:
    states = torch.tensor([[3.0, 1.0], [3.0, -1.0], [3.0, 0.0]])
    assert torch.equal(centred(states), torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 0.0]]))
    apart = matryoshka(centred(states[:2]), [2])[0]
    assert (apart[0] @ apart[1]).item() == pytest.approx(-1.0)


def test_own_negatives_are_nobody_elses() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    negatives = torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    loss = own_negatives(queries, queries, negatives, [2, 1], temperature=1.0)
    first = math.log(math.e + 1 + math.exp(0.6)) - 1
    second = math.log(math.e + 1) - 1
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_yes_no_is_the_cross_entropy_of_the_word() -> None:
    odds = torch.tensor([0.0, math.log(3), -math.log(3)])
    is_match = torch.tensor([True, True, True])
    expected = (math.log(2) + math.log(4 / 3) + math.log(4)) / 3
    assert yes_no(odds, is_match).item() == pytest.approx(expected, abs=1e-6)


def test_listwise_looks_at_each_group_alone() -> None:
    odds = torch.tensor([1.0, 1.0, 0.0, math.log(2), 0.0])
    expected = (math.log(2) + (math.log(1 + 2 + 1) - 0.0)) / 2
    assert listwise(odds, [2, 3]).item() == pytest.approx(expected, abs=1e-6)


def test_prefixes_have_length_one() -> None:
    short, full = matryoshka(torch.tensor([[3.0, 4.0, 12.0]]), (2, 3))
    assert short.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert full.norm().item() == pytest.approx(1.0)
