"""Muon: steps of matrices whose directions all count alike; AdamW for whatever is no matrix.

The average gradient of a matrix is a few strong directions and many weak ones. Muon takes the matrix with the same
directions and equal strengths instead, so that the weak ones learn too (Jordan et al. 2024). Scaled to the size of
AdamW's steps, it takes AdamW's learning rates (Liu et al. 2025, arXiv:2502.16982).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

ROUNDS: Final = 5
"""Of the iteration; then the strengths lie between about .7 and 1.2."""
QUINTIC: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5, which take any strength in (0, 1] near 1 in few rounds."""
ADAMW_SIZE: Final = 0.2
"""Root mean square of AdamW's steps at a rate of 1."""
EPS: Final = 1e-8


class Muon(torch.optim.Optimizer):
    """One optimiser for both kinds of weights.

    Args:
        matrices: weights (O, I) that a product takes; they decay.
        others: all other weights, by AdamW without decay.
        rate: learning rate of both.
        betas: averages of the gradient and, for AdamW, of its square; the first is Muon's momentum too.
        weight_decay: of the matrices.

    Raises:
        ValueError: one of ``matrices`` has not two dimensions.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        *,
        rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        if any(weight.ndim != 2 for weight in matrices):
            raise ValueError("a matrix has two dimensions")
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "weight_decay": weight_decay, "matrices": True},
            {"params": list(others), "weight_decay": 0.0, "matrices": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": rate, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # the gradients are computed before
        """One step of every weight that has a gradient."""
        for group in self.param_groups:
            take = _orthogonal_step if group["matrices"] else _adam_step
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    take(weight, weight.grad, self.state[weight], group["lr"], group["betas"])


def _orthogonal_step(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float, betas: tuple[float, float]
) -> None:
    if not state:
        state["mean"] = torch.zeros_like(weight)
    mean = state["mean"].lerp_(gradient, 1 - betas[0])
    step = orthogonal(gradient.lerp(mean, betas[0]))
    weight.add_(step.to(weight.dtype), alpha=-rate * ADAMW_SIZE * max(weight.shape) ** 0.5)


def _adam_step(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float, betas: tuple[float, float]
) -> None:
    if not state:
        state |= {"mean": torch.zeros_like(weight), "square": torch.zeros_like(weight), "steps": torch.zeros(())}
    state["steps"] += 1
    mean = state["mean"].lerp_(gradient, 1 - betas[0])
    square = state["square"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    done = float(state["steps"])
    scale = (square / (1 - betas[1] ** done)).sqrt_().add_(EPS)
    weight.addcdiv_(mean, scale, value=-rate / (1 - betas[0] ** done))


def orthogonal(matrix: Tensor) -> Tensor:
    """(O, I) in bf16 with the singular vectors of a matrix and singular values near 1 (Newton-Schulz, quintic).

    Args:
        matrix: (O, I); zeros stay zeros.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = (matrix.T if is_tall else matrix).to(torch.bfloat16)
    x: Tensor = wide / (wide.norm() + EPS)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = x * a + (gram * b + gram @ gram * c) @ x
    return x.mT if is_tall else x
