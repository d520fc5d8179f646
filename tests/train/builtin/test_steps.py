"""What a step of several tasks has to say beyond each of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sightline.train.builtin import steps
from sightline.train.builtin.steps import Last, between
from sightline.train.builtin.tasks import Example
from sightline.train.builtin.told import PLAIN, UNDER, plain, shown_of, told_of, words_of
from sightline.train.packing import Side

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


def teller(vectors: dict[str, tuple[float, float]]) -> Any:
    """Says these vectors of these texts."""
    return lambda texts: torch.tensor([vectors[text] for text in texts])


def as_they_are(texts: Sequence[str]) -> Any:
    return list(texts)


def page(shown: str, heading: str = "") -> Example:
    picture = np.zeros((32, 32, 3), np.uint8)
    return Example(Side("asked"), Side(image=picture), shown=shown, heading=heading)


def test_a_page_under_a_heading_is_told_both():
    says = teller({"a": (1.0, 0.0), "b": (0.0, 1.0), "over": (0.6, 0.8)})
    told: Any = shown_of([page("a"), page("b", "over")], as_they_are)
    first, second = told_of(says, told).tolist()
    wanted = UNDER[1] * 0.6, UNDER[0] + UNDER[1] * 0.8
    assert first == [1.0, 0.0]
    assert second == pytest.approx([part / math.hypot(*wanted) for part in wanted])


def test_numbers_and_capitals_count_for_half_of_what_a_text_is_told():
    says = teller({"2 BOXES of nails": (1.0, 0.0), "boxes of nails": (0.0, 1.0), "some nails": (0.6, 0.8)})
    examples = [Example(Side(text), Side("")) for text in ("2 BOXES of nails", "some nails")]
    told: Any = words_of(examples, as_they_are)
    first, second = told_of(says, told).tolist()
    assert first == pytest.approx([part / math.hypot(*PLAIN) for part in PLAIN])
    assert second == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Gate B 17", "gate b"),
        ("HARTMANN HARDWARE", "hartmann hardware"),
        ("1  claw hammer   $18.90", "claw hammer"),
        ("我有3个苹果", "我有 个苹果"),
        ("I am here.", "I am here."),
        ("24/7", "24/7"),
        ("A 4", "A 4"),
    ],
)
def test_plain_leaves_words(text: str, kept: str):
    assert plain(text) == kept
