"""Muon against its definition and against torch's AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sightline.train.config import Optimiser
from sightline.train.muon import Muon, orthogonal
from sightline.train.trainer import optimiser_of


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)])
def test_all_directions_of_a_step_have_about_the_same_strength(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    strengths = torch.logspace(0, -2, min(shape))
    step = orthogonal(u @ torch.diag(strengths) @ vh).float()
    inner = u.T @ step @ vh.T
    assert inner.diagonal().min() > 0.5 and inner.diagonal().max() < 1.3, "from a hundredth to one, all come near one"
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 0.05, "no direction is another than before"
    assert orthogonal(torch.zeros(shape)).abs().max() == 0


def test_a_step_is_as_long_as_the_rate_says_whatever_the_gradient() -> None:
    """Decay first, then .2 of the rate for each weight of a matrix with equal strengths, as AdamW's steps are."""
    steps = []
    for size in (7.0, 0.007):
        weight = nn.Parameter(torch.full((4, 4), 2.0))
        weight.grad = size * torch.eye(4)
        Muon([weight], [], rate=0.1, betas=(0.9, 0.98), weight_decay=0.5).step()
        steps.append(2.0 * (1 - 0.1 * 0.5) - weight.data)
        one = 0.1 * 0.2 * 4**0.5
        assert (0.65 * one < steps[-1].diagonal()).all() and (steps[-1].diagonal() < 1.25 * one).all()
        torch.testing.assert_close(steps[-1] - torch.diag(steps[-1].diagonal()), torch.zeros(4, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(steps[0], steps[1], atol=1e-6, rtol=0)


def test_what_is_no_matrix_moves_as_with_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    muon = Muon([], [ours], rate=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(7):
        ours.grad = torch.randn(5)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_tables_norms_and_heads_are_no_matrices_to_it() -> None:
    names = {
        "network.visual.blocks.0.mlp.weight": (4, 3),
        "network.language_model.embed_tokens.weight": (4, 3),
        "network.norm.weight": (4,),
        "heads.letters.weight": (4, 3),
    }
    weights = {name: nn.Parameter(torch.zeros(shape)) for name, shape in names.items()}
    groups = optimiser_of(weights, Optimiser(kind="muon")).param_groups
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert groups[0]["params"][0] is weights["network.visual.blocks.0.mlp.weight"]
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([nn.Parameter(torch.zeros(3))], [], rate=1.0, betas=(0.9, 0.9), weight_decay=0.0)
