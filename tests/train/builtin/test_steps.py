"""What a step of several tasks has to say beyond each of them."""

import math

import pytest
import torch

from sightline.train.builtin.steps import between


def test_queries_are_told_from_the_documents_of_other_tasks_only():
    queries = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    # within its task a query may be nearest to what it likes: the wrong one here is the task's own business
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    others = torch.tensor([[0.0, 4.0]], requires_grad=True)
    loss, right = between([(queries, documents), (others, others)], 0.5)
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
    loss, right = between([texts, pages], 0.05)
    assert right == 0.0 and float(loss) > 1.0
