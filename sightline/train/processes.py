"""Several processes, each with its own GPU, that train one network as one would.

Each takes its share of a batch: rows rank, rank + world, … of every side. Vectors are gathered, so that every query
sees the documents of all, and the loss is the same everywhere; each process then has the gradients of its own rows,
and what is added up is the gradient of the whole batch.

The network is not wrapped in DistributedDataParallel: it wants every weight used in each pass and one pass a step, but
a batch of text uses no vision tower, one share may have pictures and another none, and cached gradients go through the
network many times.
"""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sightline.engine.loading import pick_device
from sightline.errors import MissingExtraError
from sightline.train.batch import Batch, BatchSource, MakeBatch
from sightline.train.packing import Pack, chunks, cut


class Processes:
    """This process alone.

    Attributes:
        rank: number of this process, from 0.
        world: how many there are.
        device: where this one computes.
    """

    rank = 0
    world = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def gather(self, own: Tensor) -> Tensor:
        """Rows (N, C) of all processes in the batch's order, from this one's share; gradients reach its own."""
        return own

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients of this process's share become those of the whole batch."""

    def wait(self) -> None:
        """Until all processes are here."""


class Accelerated(Processes):
    """One of several processes that ``accelerate launch`` started."""

    def __init__(self, device: str = "") -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise MissingExtraError("accelerate", "train") from None
        # Optimisers and backward passes import this by themselves. Imported while a process group is there, it keeps
        # references to the group for ever, and letting go of the group below would not end its threads.
        importlib.import_module("torch._dynamo")
        self._accelerator: Any = Accelerator(cpu=device == "cpu")
        super().__init__(self._accelerator.device)
        self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes
        # threads of the process group that are alive while the interpreter ends can abort it
        atexit.register(self._accelerator.end_training)

    def gather(self, own: Tensor) -> Tensor:
        """See ``Processes.gather``."""
        return _Gathered.apply(own, self)  # type: ignore[no-untyped-call, no-any-return]

    def all_rows(self, own: Tensor) -> Tensor:
        """Rows of all shares in the batch's order, without gradients."""
        counts = self._accelerator.gather(torch.tensor([len(own)], device=self.device)).tolist()
        padded = torch.zeros(max(counts), *own.shape[1:], dtype=own.dtype, device=own.device)
        padded[: len(own)] = own
        shares = self._accelerator.gather(padded).view(self.world, max(counts), *own.shape[1:])
        rows = torch.empty(sum(counts), *own.shape[1:], dtype=own.dtype, device=own.device)
        for rank, count in enumerate(counts):
            rows[rank :: self.world] = shares[rank, :count]
        return rows

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """See ``Processes.add_up``. A weight that no share used keeps no gradient."""
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float, device=self.device)
        used = self._accelerator.reduce(used, "sum")
        for parameter, times in zip(parameters, used.tolist(), strict=True):
            if times:
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._accelerator.reduce(grad, "mean")

    def wait(self) -> None:
        """See ``Processes.wait``."""
        self._accelerator.wait_for_everyone()


class _Gathered(torch.autograd.Function):
    """Rows of all; back come the gradients of the own ones, times the number of processes.

    (``add_up`` takes a mean, which is right for weights of the loss itself: every process has their whole gradient.)
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, processes: Accelerated) -> Tensor:
        """(n, C) -> (N, C)."""
        ctx.rank, ctx.world = processes.rank, processes.world
        return processes.all_rows(own)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """(N, C) -> (n, C)."""
        return grad[ctx.rank :: ctx.world] * ctx.world, None


def here(device: str = "") -> Processes:
    """The processes that this one was started with.

    Args:
        device: torch device of a process alone; "" takes the best there is. Of several only cpu counts.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return Accelerated(device)
    return Processes(pick_device(device))


@dataclass(frozen=True, slots=True)
class Share:
    """A source's batches as one process takes them: its rows, in passes of so many tokens.

    Attributes:
        source: of whole batches.
        rank, world: of the process.
        max_tokens: of a pass; 0 is no limit.
        pads: ids of the tokens that stand for pictures and videos.
    """

    source: BatchSource
    rank: int
    world: int
    max_tokens: int
    pads: tuple[int, int]

    def __call__(self) -> MakeBatch:
        """Loads the source; called in the process that makes batches."""
        make = self.source()
        return lambda step: self.of(make(step))

    def of(self, batch: Batch) -> Batch:
        """The share of a batch. What is known about its rows stays that of the whole; another value stays as it is."""
        if not isinstance(batch, Batch):
            return batch
        return replace(batch, queries=self._side(batch.queries), documents=self._side(batch.documents))

    def _side(self, packs: tuple[Pack, ...]) -> tuple[Pack, ...]:
        out: list[Pack] = []
        before = 0
        for pack in packs:
            own = [row for row in range(len(pack.lengths)) if (before + row) % self.world == self.rank]
            before += len(pack.lengths)
            if own:
                mine = pack if len(own) == len(pack.lengths) else cut(pack, own, self.pads)
                out += chunks(mine, self.max_tokens, self.pads) if self.max_tokens else (mine,)
        return tuple(out)
