"""Learned steps against values and gradients computed on paper, and against what the store keeps."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sightline import vectors as store
from sightline.errors import ConfigError
from sightline.train.losses import cosent, info_nce, on_prefixes, on_quantised
from sightline.train.quantise import Coarse, Lsq, lsq


def unit(num: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(num, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_int8_rounds_to_the_nearest_step_and_clips_at_127() -> None:
    values = torch.tensor([[0.14, -0.26, 1.5]])
    # a step of 2^-7, so that a half is a half: x = 1.25, -2.5, 3.5, 192; halves go to the even level
    exact = torch.tensor([[1.25, -2.5, 3.5, 192.0]]) / 128
    assert (lsq(exact, torch.tensor(1 / 128), "int8") * 128).tolist() == [[1.0, -2.0, 4.0, 127.0]]
    found = lsq(values, torch.tensor(0.01), "int8")
    assert found[0].tolist() == pytest.approx([0.14, -0.26, 1.27])


def test_binary_is_the_sign_times_the_step_and_zero_is_below() -> None:
    values = torch.tensor([[0.3, -0.1, 0.0, -2.0]])
    assert lsq(values, torch.tensor(0.5), "binary").tolist() == [[0.5, -0.5, -0.5, -0.5]]


def test_the_gradients_of_int8_are_those_of_the_paper() -> None:
    # step .5, E = 4, Q = 127: x = .6, -1.4, 200, -130 -> levels 1, -1, 127, -127
    # by the step: 1 - .6 = .4;  -1 + 1.4 = .4;  127;  -127; each times what comes after, 2, 3, .5, .25:
    # .8 + 1.2 + 63.5 - 31.75 = 33.75, over sqrt(4 * 127)
    values = torch.tensor([[0.3, -0.7, 100.0, -65.0]], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    after = torch.tensor([[2.0, 3.0, 0.5, 0.25]])
    (lsq(values, step, "int8") * after).sum().backward()
    assert values.grad is not None
    assert step.grad is not None
    assert values.grad.tolist() == [[2.0, 3.0, 0.0, 0.0]]
    assert step.grad.item() == pytest.approx(33.75 / math.sqrt(4 * 127), rel=1e-4)


def test_the_gradients_of_binary_are_clipped_at_the_step() -> None:
    # step .5, E = 4, Q = 1: x = .6, -.2, 3, -2 -> signs 1, -1, 1, -1
    # by the step: 1 - .6 = .4;  -1 + .2 = -.8;  1;  -1; times 2, 3, 5, 7: .8 - 2.4 + 5 - 7 = -3.6, over sqrt(4 * 1)
    values = torch.tensor([[0.3, -0.1, 1.5, -1.0]], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    (lsq(values, step, "binary") * torch.tensor([[2.0, 3.0, 5.0, 7.0]])).sum().backward()
    assert values.grad is not None
    assert step.grad is not None
    assert values.grad.tolist() == [[2.0, 3.0, 0.0, 0.0]]
    assert step.grad.item() == pytest.approx(-3.6 / 2, rel=1e-5)


def test_the_step_is_scaled_by_width_not_by_batch() -> None:
    def gradient(num: int) -> float:
        step = torch.tensor(0.01, requires_grad=True)
        lsq(unit(1, 8).expand(num, 8), step, "int8").sum(-1).mean().backward()
        assert step.grad is not None
        return step.grad.item()

    assert gradient(64) == pytest.approx(gradient(1), rel=1e-4)


def test_a_module_starts_at_the_numbers_of_the_store() -> None:
    # (.8, -.6): the largest is .8, -.6 / .8 = -.75, -.75 * 127 = -95.25, so levels 127 and -95 of .8 / 127
    found = Lsq("int8", (2,))(torch.tensor([[0.8, -0.6]]))
    assert found.tolist() == [[pytest.approx(0.8), pytest.approx(-95 * 0.8 / 127)]]
    # the mean magnitude is .7, the step twice that
    assert Lsq("binary", (2,))(torch.tensor([[0.8, -0.6]])).tolist() == [[pytest.approx(1.4), pytest.approx(-1.4)]]


@pytest.mark.parametrize("precision", ["int8", "binary"])
@pytest.mark.parametrize("width", [64, 256])
def test_scores_in_training_are_those_of_the_store(precision: Coarse, width: int) -> None:
    queries, documents = unit(20, width, 1), unit(50, width, 2)
    quantise = Lsq(precision, (width,))
    in_training = F.normalize(quantise(queries), dim=-1) @ F.normalize(quantise(documents), dim=-1).T
    kept = store.convert(queries.numpy(), precision), store.convert(documents.numpy(), precision)
    assert np.allclose(in_training.detach().numpy(), store.similarity(*kept, precision), atol=1e-5)


def test_int8_passes_every_gradient_before_anything_is_learned() -> None:
    values = unit(5, 64).requires_grad_()
    after = unit(5, 64, 1)
    (Lsq("int8", (64,))(values) * after).sum().backward()
    assert values.grad is not None
    assert torch.allclose(values.grad, after)


def test_each_width_learns_its_own_step() -> None:
    quantise = Lsq("int8", (4, 8))
    quantise(unit(3, 4)).pow(2).sum().backward()
    assert quantise.shift.grad is not None
    assert quantise.shift.grad[0] != 0
    assert quantise.shift.grad[1] == 0
    with pytest.raises(ConfigError, match="4, 8, not 6"):
        quantise(unit(3, 6))
    with pytest.raises(ConfigError, match="needs the widths"):
        Lsq("int8", ())
    with pytest.raises(ConfigError, match="int8 or binary"):
        Lsq("int4", (8,))  # type: ignore[arg-type]


def test_a_learned_step_stays_over_zero_and_is_restored() -> None:
    quantise = Lsq("binary", (8,))
    with torch.no_grad():
        quantise.shift.sub_(20)
    assert 0 < quantise.step(8).item() < 1e-6
    again = Lsq("binary", (8,))
    again.load_state_dict(quantise.state_dict())
    assert again.step(8).item() == quantise.step(8).item()


def test_the_step_goes_where_the_error_is_less() -> None:
    """One value of each vector far over the others: int8 does better by clipping it, so the step falls."""
    values = unit(64, 64)
    values[:, 0] = 3000
    quantise = Lsq("int8", (64,))
    others = F.normalize(values[:, 1:], dim=-1)
    optimiser = torch.optim.Adam(quantise.parameters(), lr=0.2)

    def error() -> torch.Tensor:
        return 1 - (F.normalize(quantise(values)[:, 1:], dim=-1) * others).sum(-1).mean()

    before = error().item()
    for _ in range(100):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    assert quantise.step(64).item() < 1 / 127 / 100
    assert error().item() < before / 10


def test_info_nce_on_quantised_vectors_reaches_states_and_steps() -> None:
    states = [unit(6, 16, seed).requires_grad_() for seed in (1, 2)]
    quantisers = [Lsq("int8", (8, 16)), Lsq("binary", (8, 16))]
    on_quantised(info_nce, *states, quantisers=quantisers, dims=(8, 16)).backward()
    for value in (*states, *(quantise.shift for quantise in quantisers)):
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()
        assert value.grad.abs().sum() > 0


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks of values (N,), equal ones sharing theirs."""
    return (values[:, None] > values).float().sum(1) + (values[:, None] == values).float().sum(1) / 2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_through_the_quantiser_makes_binary_vectors_rank_better(seed: int) -> None:
    """Points on a sphere in four dimensions, spread over 32 values: 32 planes should cut the sphere evenly."""

    def agreement(through: bool) -> float:
        generator = torch.Generator().manual_seed(seed)

        def points(num: int) -> torch.Tensor:
            return F.normalize(torch.randn(num, 4, generator=generator), dim=-1)

        table = (torch.randn(4, 32, generator=generator) / 4).requires_grad_()
        quantise = Lsq("binary", (32,))
        optimiser = torch.optim.Adam([table, *quantise.parameters()], lr=1e-2)
        for _ in range(100):
            one, other = points(64), points(64)
            graded = partial(cosent, grades=(one * other).sum(-1))
            loss = on_prefixes(graded, one @ table, other @ table, dims=(32,))
            if through:
                loss = loss + on_quantised(graded, one @ table, other @ table, quantisers=(quantise,), dims=(32,))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        one, other = points(400), points(400)

        def kept(side: torch.Tensor) -> NDArray[np.uint8]:
            return store.convert(F.normalize(side @ table.detach(), dim=-1).numpy(), "binary")

        near = torch.from_numpy(store.similarity(kept(one), kept(other), "binary").diagonal().copy())
        return torch.corrcoef(torch.stack([ranks(near), ranks((one * other).sum(-1))]))[0, 1].item()

    assert agreement(True) > agreement(False) + 0.01
