"""The loop that every stage goes through: batch, loss, step; a log, checkpoints, and going on after a kill.

    run(network, source, stage, step=lambda batch: contrast_step(network, contrast, processes, batch), extra={...})

Everything follows from the step: which batch, which learning rate. So a run that was killed goes on from its last
checkpoint as if nothing had been, when the same call is made again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from sightline.errors import ConfigError, MissingExtraError, SightlineError
from sightline.model.vl import QwenVL
from sightline.train import checkpoints, log
from sightline.train.ahead import Ahead
from sightline.train.batch import BatchSource
from sightline.train.config import Optimiser, Stage
from sightline.train.muon import Muon
from sightline.train.packing import num_tokens
from sightline.train.processes import Processes, Share, here

BETAS: Final = (0.9, 0.98)
"""Of AdamW: a shorter memory of squared gradients than usual, because tasks take turns."""
MOST_LOST: Final = 20
"""Steps in a row whose gradients may be infinite or not a number; each is left out."""
CHECKPOINTS: Final = "checkpoints"
DESCRIPTION: Final = "stage.txt"
"""What the run was started with; a run that goes on must be started with the same."""
MAY_DIFFER: Final = ("steps", "save_every", "log_every", "workers", "device", "chunk_tokens", "gradient_checkpointing")
"""Keys that leave the course of a run as it is, or that make it longer."""


class Step(Protocol):
    """A batch to its loss and to figures for the log; see ``contrast.contrast_step``, ``judging.judging_step``."""

    def __call__(self, batch: Any, /) -> tuple[Tensor, dict[str, float]]:
        """Called under autocast in the arithmetic of the stage."""
        ...


def run(
    network: QwenVL,
    source: BatchSource,
    stage: Stage,
    *,
    step: Step,
    extra: Mapping[str, nn.Module] | None = None,
    processes: Processes | None = None,
    on_save: Callable[[int], None] | None = None,
    screen: bool = True,
) -> None:
    """Trains to the last step of the stage, from the checkpoint that an interrupted run left in ``stage.out``.

    Args:
        network: on its device; what learns asks for gradients (``adapters.settle``).
        source: of whole batches; called in processes of its own, which take the share of this one. Values that are no
            ``Batch`` come to ``step`` as they are.
        stage: steps, learning rates, folder.
        step: a batch to its loss.
        extra: what learns beside the network, by name: heads, steps of quantisation.
        processes: see ``processes.here``, which gives them where they are left out.
        on_save: called with the steps done after each checkpoint, in the first process.
        screen: show progress on standard error.

    Raises:
        ConfigError: ``stage.out`` holds a run with other settings; nothing learns; the loss is no number for long.
        SightlineError: what the source raised.
    """
    processes = processes or here(stage.device)
    modules = {"network": network, **(extra or {})}
    learning = dict(checkpoints.learned(modules))
    if not learning:
        raise ConfigError("nothing learns: no weight of the network or beside it asks for a gradient")
    adam = optimiser_of(learning, stage.optimiser)
    folder, is_first = stage.out / CHECKPOINTS, processes.rank == 0
    done = checkpoints.latest(folder) or 0
    _same_run(stage, goes_on=done > 0, write=is_first)
    if done:
        checkpoints.load(folder, done, modules, adam)
    processes.wait()
    if done < stage.steps:
        pads = (network.config.image_token_id, network.config.video_token_id)
        share = Share(source, processes.rank, processes.world, stage.chunk_tokens, pads)
        with Ahead(share, first=done, workers=stage.workers) as batches:
            lines = log.Log(stage.out, done=done, steps=stage.steps, screen=screen) if is_first else None
            try:
                loop = _Loop(stage, step, list(learning.values()), adam, processes, lines)
                for index in range(done, stage.steps):
                    loop.once(index, batches.next())
                    if (index + 1) % stage.save_every == 0 or index + 1 == stage.steps:
                        if is_first:
                            checkpoints.save(folder, index + 1, modules, adam)
                            if on_save is not None:
                                on_save(index + 1)
                        processes.wait()
            finally:
                if lines is not None:
                    lines.close()
    if is_first:
        draw(stage.out)


class _Loop:
    """What one step needs beside its batch."""

    def __init__(
        self,
        stage: Stage,
        step: Step,
        learning: Sequence[nn.Parameter],
        adam: torch.optim.Optimizer,
        processes: Processes,
        lines: log.Log | None,
    ) -> None:
        self._stage, self._step, self._learning, self._adam = stage, step, learning, adam
        self._processes, self._log = processes, lines
        self._begin = time.monotonic() - (lines.seconds_before if lines is not None else 0.0)
        self._lost = 0

    def once(self, index: int, batch: Any) -> None:
        """One batch; the weights move."""
        stage, begin = self._stage, time.monotonic()
        rate = learning_rate(index, stage.steps, stage.optimiser)
        for group in self._adam.param_groups:
            group["lr"] = rate
        # no cache of weights cast to bf16: filled by a pass without gradients, it would hide the weights from the next
        device = self._processes.device.type
        with torch.autocast(device, torch.bfloat16, enabled=stage.dtype == "bfloat16", cache_enabled=False):
            loss, figures = self._step(batch)
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._processes.add_up(self._learning)
        norm = float(nn.utils.clip_grad_norm_(self._learning, stage.optimiser.clip))
        self._lost = 0 if math.isfinite(norm) else self._lost + 1
        if not self._lost:
            self._adam.step()
        elif self._lost >= MOST_LOST:
            raise ConfigError(f"the gradients of {MOST_LOST} steps in a row are not finite; try a lower optimiser.rate")
        if self._log is not None and ((index + 1) % stage.log_every == 0 or index + 1 == stage.steps):
            now = time.monotonic()
            tokens = num_tokens((*getattr(batch, "queries", ()), *getattr(batch, "documents", ())))
            self._log.write(
                log.Line(
                    step=index + 1,
                    task=str(getattr(batch, "task", "-")),
                    loss=loss.item(),
                    accuracy=figures.pop("accuracy", math.nan),
                    rate=rate,
                    grad_norm=norm,
                    tokens_s=tokens * self._processes.world / max(1e-9, now - begin),
                    seconds=now - self._begin,
                    more=figures,
                )
            )


def learning_rate(step: int, steps: int, optimiser: Optimiser) -> float:
    """The rate of a step, from 0: a line up to the highest, then a cosine down to the floor.

    >>> [learning_rate(s, 5, Optimiser(rate=1.0, warmup=0.4, floor=0.0)) for s in (0, 1, 2, 3)]
    [0.5, 1.0, 1.0, 0.75]
    """
    warm = optimiser.warmup * steps
    if step + 1 <= warm:
        return optimiser.rate * (step + 1) / warm
    turn = (step - warm) / max(1.0, steps - warm)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, turn))))
    return optimiser.rate * (optimiser.floor + (1 - optimiser.floor) * fall)


def optimiser_of(learning: Mapping[str, nn.Parameter], optimiser: Optimiser) -> torch.optim.Optimizer:
    """What moves named weights; tables, norms and biases do not decay, and are no matrices to Muon, nor are heads."""
    if optimiser.kind == "muon":
        inner = {n for n, p in learning.items() if n.startswith("network.") and p.ndim == 2 and "embed" not in n}
        matrices = [p for name, p in learning.items() if name in inner]
        others = [p for name, p in learning.items() if name not in inner]
        return Muon(matrices, others, rate=optimiser.rate, betas=BETAS, weight_decay=optimiser.weight_decay)
    plain = [p for name, p in learning.items() if p.ndim < 2 or "embed" in name]
    decayed = [p for name, p in learning.items() if not (p.ndim < 2 or "embed" in name)]
    groups = [
        {"params": decayed, "weight_decay": optimiser.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=optimiser.rate, betas=BETAS, fused=True)


def _same_run(stage: Stage, *, goes_on: bool, write: bool) -> None:
    """Writes down what the run is, or holds it to what was written."""
    path = stage.out / DESCRIPTION
    said = {field.name: repr(getattr(stage, field.name)) for field in fields(stage) if field.name != "out"}
    if goes_on and path.is_file():
        before = dict(line.split(" = ", 1) for line in path.read_text(encoding="utf-8").splitlines() if " = " in line)
        differs = [name for name in said if name not in MAY_DIFFER and before.get(name, said[name]) != said[name]]
        if differs:
            raise ConfigError(
                f"{stage.out} holds a run that was started with another {differs[0]}: {before[differs[0]]}; "
                "choose another out, or delete it to begin again"
            )
    if write:
        stage.out.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text("".join(f"{name} = {value}\n" for name, value in said.items()), encoding="utf-8")
        partial.replace(path)


def draw(out: Path) -> None:
    """Writes ``curves.png`` beside the log; without matplotlib it says how to get it."""
    try:
        log.draw_curves(log.read(out / "log.csv"), out / "curves.png", title=out.name)
    except MissingExtraError as error:
        log.say(str(error))
    except OSError as error:
        raise SightlineError(f"{out / 'curves.png'} cannot be written: {error.strerror}") from None
