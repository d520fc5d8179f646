"""What every stage of training shares: initial weights, batches drawn ahead, the learning rate, checkpoints."""

from __future__ import annotations

import math
import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MakeBatch = Callable[[int, float], Any]
"""(step, progress from 0 to 1) to a batch."""


def initialise(model: nn.Module, seed: int) -> None:
    """Fills every tensor: matrices normal with deviation 1/sqrt(inputs) (0.02 for tables), norms one, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        with torch.no_grad():
            if name.endswith("bias"):
                tensor.zero_()
            elif tensor.ndim == 1:
                tensor.fill_(1.0)
            elif "embed_tokens" in name or "pos_embed" in name:
                tensor.normal_(0.0, 0.02, generator=generator)
            else:
                deviation = tensor[0].numel() ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.linear_fc2.weight")):
                    deviation *= 0.5
                tensor.normal_(0.0, deviation, generator=generator)


def _draw(make: Callable[[], MakeBatch], out: Any, progress: Any, first: int, every: int) -> None:
    torch.set_num_threads(1)
    make_batch = make()
    step = first
    while True:
        out.put((step, make_batch(step, progress.value)))
        step += every


class Ahead:
    """Batches drawn by another process while the model learns.

    Args:
        make: picklable; called in the process, gives the function that draws a batch.
        depth: batches kept ready.
        first: step to begin with.
    """

    def __init__(self, make: Callable[[], MakeBatch], *, depth: int = 4, first: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        self._progress = context.Value("d", 0.0)
        self._queue: Any = context.Queue(depth)
        self._process = context.Process(target=_draw, args=(make, self._queue, self._progress, first, 1), daemon=True)
        self._process.start()

    def next(self, progress: float) -> Any:
        """The next batch."""
        self._progress.value = progress
        while True:
            try:
                return self._queue.get(timeout=5)[1]
            except queue.Empty:
                if not self._process.is_alive():
                    raise RuntimeError("the process that draws batches has died") from None

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def learning_rate(progress: float, peak: float, *, warmup: float = 0.03, floor: float = 0.02) -> float:
    """Linear warm-up, then a cosine down to ``floor`` of the peak.

    >>> learning_rate(0.0, 1.0, warmup=0.5) < learning_rate(0.5, 1.0, warmup=0.5)
    True
    """
    if progress < warmup:
        return peak * (0.05 + 0.95 * progress / warmup)
    turn = (progress - warmup) / (1 - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, turn))))


def optimiser(modules: Iterator[nn.Module] | list[nn.Module], *, weight_decay: float = 0.05) -> torch.optim.AdamW:
    """AdamW; tables, norms and biases do not decay."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for module in modules:
        for name, tensor in module.named_parameters():
            (plain if tensor.ndim < 2 or "embed" in name else decayed).append(tensor)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)


def run(
    step_loss: Callable[[Any], tuple[Tensor, dict[str, float]]],
    batches: Ahead,
    modules: list[nn.Module],
    *,
    peak: float,
    seconds: float,
    log: Path,
    save: Callable[[], None],
    max_steps: int | None = None,
    save_every_s: float = 180.0,
    weight_decay: float = 0.05,
    label: str = "",
    floor: float = 0.02,
) -> int:
    """Trains for a time, writing one line a step.

    Args:
        step_loss: a batch to its loss and figures for the log.
        batches: where batches come from.
        modules: what learns.
        peak: highest learning rate.
        seconds: wall time of the stage.
        log: file that lines are appended to.
        save: called every few minutes and at the end.
        max_steps: at most so many steps.
        save_every_s: seconds between calls of ``save``.
        weight_decay: of matrices.
        label: first word of each line.
        floor: share of the peak that the learning rate ends at.

    Returns:
        steps taken.
    """
    adam = optimiser(modules, weight_decay=weight_decay)
    begin = saved = time.monotonic()
    step = 0
    parameters = [tensor for module in modules for tensor in module.parameters()]
    with log.open("a", encoding="utf-8") as lines:
        while True:
            now = time.monotonic()
            progress = (now - begin) / seconds
            if max_steps is not None:
                progress = max(progress, step / max_steps)
            if progress >= 1:
                break
            batch = batches.next(progress)
            waited = time.monotonic() - now
            for group in adam.param_groups:
                group["lr"] = learning_rate(progress, peak, floor=floor)
            with torch.autocast("cpu", torch.bfloat16):
                loss, figures = step_loss(batch)
            adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if torch.isfinite(norm):
                adam.step()
            step += 1
            figures = {**figures, "grad": float(norm), "wait_s": waited, "step_s": time.monotonic() - now}
            text = " ".join(f"{name}={value:.3f}" for name, value in figures.items())
            lines.write(f"{label} {step} {progress:.4f} loss={loss.item():.4f} {text}\n")
            lines.flush()
            if time.monotonic() - saved > save_every_s:
                save()
                saved = time.monotonic()
    save()
    return step


def keep(model: nn.Module, path: Path) -> None:
    """Saves the weights so that a kill in the middle leaves the old file."""
    partial = path.with_suffix(".partial")
    torch.save(model.state_dict(), partial)
    partial.replace(path)
