"""Losses against values computed on paper."""

import math

import pytest
import torch

from sightline.errors import ConfigError
from sightline.train.losses import (
    centred,
    classes,
    cosent,
    distil,
    info_nce,
    listwise,
    matryoshka,
    on_prefixes,
    on_quantised,
    right_share,
    yes_no,
)

# Two queries, their documents, and a hard negative. All products, on paper:
#   s(q1, .) = .80  .00  .80      s(q2, .) = .96  .80  .00      q1 q2 = .60
#   d1 d2 = .60   d1 n = .28      d2 n = -.60
QUERIES = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
DOCUMENTS = torch.tensor([[0.8, 0.6], [0.0, 1.0], [0.8, -0.6]])


def nll(positive: float, *others: float) -> float:
    """-log softmax of the positive logit."""
    return math.log(math.exp(positive) + sum(map(math.exp, others))) - positive


def unit(generator: torch.Generator, num: int, width: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(num, width, generator=generator), dim=-1)


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


def test_beside_adds_queries_with_queries_and_documents_with_documents() -> None:
    first = nll(0.8, 0.0, 0.8, 0.6, 0.6, 0.28)  # d2, n; q2; d2 and n beside d1
    second = nll(0.8, 0.96, 0.0, 0.6, 0.6, -0.6)  # d1, n; q1; d1 and n beside d2
    loss = info_nce(QUERIES, DOCUMENTS, temperature=1.0, margin=None, symmetric=False, beside=True)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_the_margin_holds_for_every_term_of_z() -> None:
    # over .8 + .1 is s(q2, d1) = .96 alone; with a margin of -.3 so is every .6 (over .5) and both .8
    usual = info_nce(QUERIES, DOCUMENTS, temperature=1.0, symmetric=False, beside=True)
    expected = (nll(0.8, 0.0, 0.8, 0.6, 0.6, 0.28) + nll(0.8, 0.0, 0.6, 0.6, -0.6)) / 2
    assert usual.item() == pytest.approx(expected, abs=1e-6)
    strict = info_nce(QUERIES, DOCUMENTS, temperature=1.0, margin=-0.3, symmetric=False, beside=True)
    assert strict.item() == pytest.approx((nll(0.8, 0.0, 0.28) + nll(0.8, 0.0, -0.6)) / 2, abs=1e-6)


def test_what_answers_the_same_is_no_negative_in_any_term() -> None:
    # d2 also answers q1: q1 loses s(q1, d2); q1 and q2, d1 and d2 are then nothing to tell apart either
    same = torch.tensor([[False, True, False], [False, False, False]])
    loss = info_nce(QUERIES, DOCUMENTS, temperature=1.0, margin=None, symmetric=False, beside=True, same=same)
    assert loss.item() == pytest.approx((nll(0.8, 0.8, 0.28) + nll(0.8, 0.96, 0.0, -0.6)) / 2, abs=1e-6)


def test_symmetric_adds_documents_that_look_for_their_queries() -> None:
    forth = (nll(0.8, 0.0, 0.8) + nll(0.8, 0.96, 0.0)) / 2
    back = (nll(0.8, 0.96) + nll(0.8, 0.0)) / 2  # d1 among q1, q2; d2 likewise; nobody looks for n's query
    both = info_nce(QUERIES, DOCUMENTS, temperature=1.0, margin=None)
    assert both.item() == pytest.approx((forth + back) / 2, abs=1e-6)
    # each direction by the margin of its own positive: s(q2, d1) = .96 is over s(q2, d2) + .1 and s(q1, d1) + .1
    both = info_nce(QUERIES, DOCUMENTS, temperature=1.0, margin=0.1)
    forth, back = (nll(0.8, 0.0, 0.8) + nll(0.8, 0.0)) / 2, (nll(0.8) + nll(0.8, 0.0)) / 2
    assert both.item() == pytest.approx((forth + back) / 2, abs=1e-6)


def test_temperature_divides_cosines() -> None:
    loss = info_nce(QUERIES, DOCUMENTS, temperature=0.2, margin=None, symmetric=False)
    assert loss.item() == pytest.approx((nll(4.0, 0.0, 4.0) + nll(4.0, 4.8, 0.0)) / 2, abs=1e-5)


def test_the_gradient_of_info_nce_is_wrong_documents_less_the_right_one() -> None:
    # dL/dq = sum of p_j d_j - d+ with p = (e, 1) / (e + 1): p_2 (d_2 - d_1); and dL/dd_2 = p_2 q
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    info_nce(query, documents, temperature=1.0, symmetric=False).backward()
    wrong = 1 / (math.e + 1)
    assert query.grad is not None
    assert documents.grad is not None
    assert torch.allclose(query.grad, torch.tensor([[-wrong, wrong]]))
    assert torch.allclose(documents.grad, torch.tensor([[-wrong, 0.0], [wrong, 0.0]]))


def test_a_false_negative_gets_no_gradient() -> None:
    documents = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    info_nce(torch.tensor([[1.0, 0.0]]), documents, symmetric=False).backward()
    assert documents.grad is not None
    assert documents.grad[1].tolist() == [0.0, 0.0]
    assert documents.grad[2].abs().sum() > 0


@pytest.mark.parametrize("seed", range(5))
def test_info_nce_sees_neither_turns_nor_the_order_of_negatives(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, documents = unit(generator, 4, 6), unit(generator, 9, 6)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    shuffled = torch.cat([documents[:4], documents[4:][torch.randperm(5, generator=generator)]])
    for beside in (False, True):
        loss = info_nce(queries, documents, beside=beside)
        assert torch.allclose(loss, info_nce(queries @ turn, documents @ turn, beside=beside), atol=1e-5)
        assert torch.allclose(loss, info_nce(queries, shuffled, beside=beside), atol=1e-6)
    all_counted = info_nce(queries, documents, margin=None, symmetric=False)
    assert info_nce(queries, documents, margin=None, symmetric=False, beside=True) > all_counted
    assert info_nce(queries, documents, margin=0.0, symmetric=False) <= all_counted
    assert (
        info_nce(queries, documents, margin=None, symmetric=False, same=torch.rand(4, 9, generator=generator) > 0.5)
        <= all_counted
    )


def test_losses_are_float32_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, documents = unit(generator, 4, 64), unit(generator, 8, 64)
    owner, teacher = torch.arange(4), torch.randn(4, 2, generator=generator)
    calls = (
        lambda q, d: info_nce(q, d, beside=True),
        lambda q, d: classes(q, d, owner),
        lambda q, d: cosent(q, d[:4], teacher[:, 0]),
        lambda q, d: distil(q, d, owner, teacher),
    )
    for call in calls:
        expected = call(queries, documents)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(call(queries, documents), expected)
        few_bits = call(queries.bfloat16(), documents.bfloat16())
        assert few_bits.dtype == torch.float32
        assert torch.equal(few_bits, call(queries.bfloat16().float(), documents.bfloat16().float()))


def test_centred_vectors_cannot_all_be_equal() -> None:
    states = torch.tensor([[3.0, 1.0], [3.0, -1.0], [3.0, 0.0]])
    assert torch.equal(centred(states), torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 0.0]]))
    apart = matryoshka(centred(states[:2]), [2])[0]
    assert (apart[0] @ apart[1]).item() == pytest.approx(-1.0)


def test_wrong_labels_of_a_query_are_nobody_elses() -> None:
    # labels of q1: s = .8 against (0, 1) and (.6, .8); of q2: .8 against (1, 0)
    labels = torch.cat([DOCUMENTS[:2], torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])])
    loss = classes(QUERIES, labels, torch.tensor([0, 1, 0]), temperature=1.0)
    assert loss.item() == pytest.approx((nll(0.8, 0.0, 0.6) + nll(0.8, 0.6)) / 2, abs=1e-6)
    assert classes(QUERIES, labels[:2], torch.tensor([], dtype=torch.long)).item() == 0.0


def test_cosent_counts_pairs_in_the_wrong_order() -> None:
    # cosines .6, .8, 0 of pairs graded 3, 1, 1: (.8 - .6) / .2 = 1 and (0 - .6) / .2 = -3; the equal ones do not meet
    queries = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    documents = torch.tensor([[0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    loss = cosent(queries, documents, torch.tensor([3.0, 1.0, 1.0]), temperature=0.2)
    assert loss.item() == pytest.approx(math.log(1 + math.e + math.exp(-3)), abs=1e-6)
    ten_times = cosent(queries, documents, torch.tensor([30.0, 1.0, 1.0]), temperature=0.2)
    assert ten_times.item() == loss.item()
    assert cosent(queries, documents, torch.ones(3)).item() == 0.0


def test_distillation_is_cross_entropy_with_the_teacher() -> None:
    # the teacher's log-odds log 3 and 0 say (3/4, 1/4); cosines .6 and .8 at .2 are logits 3 and 4
    query, documents = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    expected = 0.75 * nll(3.0, 4.0) + 0.25 * nll(4.0, 3.0)
    teacher = torch.tensor([[math.log(3), 0.0]])
    loss = distil(query, documents, torch.tensor([0]), teacher, temperature=0.2)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    doubled = distil(query, documents, torch.tensor([0]), 2 * teacher, temperature=0.2, teacher_temperature=2.0)
    assert doubled.item() == pytest.approx(expected, abs=1e-6)


def test_distillation_is_least_where_pupil_and_teacher_agree() -> None:
    # cosines .6 and .8 differ by .2; at tau = .2 / log 3 the pupil says (1/4, 3/4)
    query, documents = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    teacher = torch.tensor([[5.0, 5.0 + math.log(3)]])
    loss = distil(query, documents, torch.tensor([0]), teacher, temperature=0.2 / math.log(3))
    assert loss.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75), abs=1e-6)
    loss.backward()
    assert query.grad is not None
    assert query.grad.abs().max() < 1e-5


def test_distillation_gives_each_query_its_own_negatives_in_order() -> None:
    documents = torch.cat([DOCUMENTS[:2], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])])
    owner = torch.tensor([1, 0, 1, 0])  # q1: 0, .8; q2: .6, 1
    sure = [[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]]
    first = 0.5 * nll(0.8, 0.0, 0.8) + 0.3 * nll(0.0, 0.8, 0.8) + 0.2 * nll(0.8, 0.8, 0.0)
    second = 0.1 * nll(0.8, 0.6, 1.0) + 0.7 * nll(0.6, 0.8, 1.0) + 0.2 * nll(1.0, 0.8, 0.6)
    loss = distil(QUERIES, documents, owner, torch.tensor(sure).log(), temperature=1.0)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    with pytest.raises(ConfigError, match="2 negatives for each of 2 queries"):
        distil(QUERIES, documents, torch.tensor([1, 1, 1, 0]), torch.tensor(sure))
    with pytest.raises(ConfigError, match="1 negatives"):
        distil(QUERIES, documents, owner, torch.tensor(sure)[:, :2])


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


def mean_cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """What ``on_prefixes`` is given in place of a loss: it is easy to follow."""
    return (one * other).sum(-1).mean()


def test_a_loss_on_prefixes_is_the_mean_over_widths() -> None:
    # (3, 4) and (4, 3): 1 at width 1, 24 / 25 at width 2
    states = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert on_prefixes(mean_cosine, *states, dims=(1, 2)).item() == pytest.approx((1 + 0.96) / 2)
    for dims in ((), (1, 3), (0,)):
        with pytest.raises(ConfigError, match="from 1 to 2"):
            on_prefixes(mean_cosine, *states, dims=dims)


def test_a_loss_on_quantised_vectors_is_the_mean_over_widths_and_precisions() -> None:
    # signs of (3, 4) and (-1, 2): -1 at width 1; (1, 1) and (-1, 1) are at right angles at width 2.
    # as they are: -1 at width 1 and (-3 + 8) / (5 sqrt 5) = 1 / sqrt 5 at width 2
    states = torch.tensor([[3.0, 4.0]]), torch.tensor([[-1.0, 2.0]])
    signs = on_quantised(mean_cosine, *states, quantisers=(torch.sign,), dims=(1, 2))
    assert signs.item() == pytest.approx(-0.5)
    both = on_quantised(mean_cosine, *states, quantisers=(torch.sign, torch.clone), dims=(1, 2))
    assert both.item() == pytest.approx((-1 + 0 - 1 + 1 / math.sqrt(5)) / 4)


def test_prefixes_teach_the_first_values_more() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(6, 8, generator=generator).requires_grad_()
    documents = torch.randn(6, 8, generator=generator)
    on_prefixes(info_nce, queries, documents, dims=(2,)).backward()
    assert queries.grad is not None
    assert queries.grad[:, :2].abs().min() > 0
    assert queries.grad[:, 2:].abs().max() == 0


def test_right_share_counts_queries_whose_document_is_first() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.2, 0.1], [0.1, 0.0, 0.2]])
    assert right_share(scores).item() == pytest.approx(2 / 3)
    same = torch.tensor([[False] * 3, [True, False, False], [False] * 3])
    assert right_share(scores, same).item() == 1.0
    assert right_share(torch.ones(3, 5)).item() == 0.0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_losses_are_the_same_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, documents = unit(generator, 4, 64), unit(generator, 8, 64)
    owner, teacher, same = torch.arange(4), torch.randn(4, 2, generator=generator), torch.zeros(4, 8, dtype=torch.bool)
    calls = (
        lambda q, d: info_nce(q, d, beside=True, same=same),
        lambda q, d: classes(q, d, owner),
        lambda q, d: cosent(q, d[:4], teacher[:, 0]),
        lambda q, d: distil(q, d, owner, teacher),
        lambda q, d: right_share(q @ d.T, same),
    )
    for call in calls:
        assert call(queries.cuda(), documents.cuda()).item() == pytest.approx(call(queries, documents).item(), abs=1e-4)
