"""What a step of several tasks has to say beyond each of them."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from sightline.train.builtin import steps
from sightline.train.builtin.steps import Last, between
from sightline.train.builtin.told import UNDER, Shown, told_of

NO_PAGES = (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))


def keys(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_queries_are_told_from_the_documents_of_other_tasks_only():
    queries = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    # within its task a query may be nearest to what it likes: the wrong one here is the task's own business
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    others = torch.tensor([[0.0, 4.0]], requires_grad=True)
    loss, right = between([(queries, documents), (others, others)], [keys(1, 2), keys(3)], NO_PAGES, 0.5)
    # cosines 1 with the own documents; with the other's 0 and 1; the other's with ours 0, 1 and 1 / sqrt 2
    first = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    second = math.log(2 + math.exp(-2) + math.exp((0.5**0.5 - 1) / 0.5))
    assert float(loss.detach()) == pytest.approx((first + second) / 2, rel=1e-6)
    assert right == 1.0  # of equals the own one counts
    loss.backward()
    assert others.grad is not None and float(others.grad.abs().sum()) > 0


def test_a_page_nearer_than_the_answer_is_wrong():
    texts = torch.tensor([[1.0, 0.2]]), torch.tensor([[1.0, 0.5]])
    pages = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.2]])
    loss, right = between([texts, pages], [keys(1), keys(2)], NO_PAGES, 0.05)
    assert right == 0.0 and float(loss) > 1.0


def test_a_page_of_an_earlier_step_is_wrong_unless_it_answers():
    query = torch.tensor([[1.0, 0.0]])
    sides = [(query, torch.tensor([[1.0, 1.0]]))]
    pages = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss, right = between(sides, [keys(7)], (pages, keys(8, 9)), 0.5)
    own = 0.5**0.5 / 0.5
    assert float(loss) == pytest.approx(math.log(1 + math.exp(2 - own) + math.exp(-own)), rel=1e-6)
    assert right == 0.0
    loss, right = between(sides, [keys(7)], (pages, keys(7, 9)), 0.5)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-own)), rel=1e-6)
    assert right == 1.0


def test_the_last_pages_are_the_newest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(steps, "LAST", 3)
    last = Last(2)
    assert [len(part) for part in last()] == [0, 0]
    last.add(torch.tensor([[2.0, 0.0], [0.0, 5.0]], requires_grad=True), keys(1, 2))
    units, held = last()
    assert units.tolist() == [[1.0, 0.0], [0.0, 1.0]] and held.tolist() == [1, 2] and not units.requires_grad
    last.add(torch.tensor([[3.0, 4.0], [-1.0, 0.0]]), keys(3, 4))
    units, held = last()
    assert held.tolist() == [2, 3, 4] and units[1].tolist() == pytest.approx([0.6, 0.8])


def test_a_page_under_a_heading_is_told_both():
    vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "over": (0.6, 0.8)}

    def teller(texts: Any) -> torch.Tensor:
        return torch.tensor([vectors[text] for text in texts])

    texts: Any = ["a", "b"]
    headings: Any = ["over"]
    shown = Shown(texts, headings, np.asarray([1]))
    first, second = told_of(teller, shown).tolist()
    wanted = UNDER[1] * 0.6, UNDER[0] + UNDER[1] * 0.8
    assert first == [1.0, 0.0]
    assert second == pytest.approx([part / math.hypot(*wanted) for part in wanted])
    assert told_of(teller, dataclasses.replace(shown, headings=None, under=np.zeros(0, np.int64))).tolist() == [
        [1.0, 0.0],
        [0.0, 1.0],
    ]
