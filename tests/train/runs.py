"""What tests of the trainer start as processes of their own: ``python -m tests.train.runs killed|pair …``."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch

from sightline.train import adapters, trainer
from sightline.train.contrast import Contrast, contrast_step
from sightline.train.processes import here
from tests.train.tiny import Drawn, batch_of, network_of, share_of, stage_for


def killed(folder: Path, out: Path, at: int) -> None:
    """A run that is killed while it takes step ``at``; 0 is never."""
    torch.set_num_threads(1)
    lora = {"rank": 4, "dropout": 0.2}
    optimiser = {"kind": os.environ.get("OPTIMISER", "adamw")}
    stage = stage_for(out, folder, lora=lora, save_every=2, loss={"dims": [16]}, optimiser=optimiser)
    torch.manual_seed(0)
    network = network_of(folder)
    adapters.settle(network, stage)
    contrast = Contrast(32, stage.loss)
    processes = here("cpu")
    taken = 0

    def step(batch):
        nonlocal taken
        taken += 1
        if taken == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return contrast_step(network, contrast, processes, batch)

    trainer.run(network, Drawn(folder), stage, step=step, extra={"contrast": contrast}, processes=processes)


def fail_beside_threads() -> None:
    """Exit status 3 when threads of a process group are left: the end of the interpreter could abort among them."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in names):
        os._exit(3)


def pair(folder: Path, out: Path, kind: str) -> None:
    """One of several processes: gradients of a batch of which it has a share, written by the first."""
    torch.set_num_threads(1)
    atexit.register(fail_beside_threads)  # runs after what `here` registers
    processes = here("cpu")
    network = network_of(folder).requires_grad_(True)
    contrast = Contrast(32, stage_for(out, folder).loss)
    # 5 queries: the shares are not equal; pictures stand in some rows only
    whole = batch_of(folder, kind, num=5)  # type: ignore[arg-type]
    batch = share_of(network, whole, rank=processes.rank, world=processes.world, max_tokens=40)
    step = partial(contrast_step, network, contrast, processes)
    loss, figures = step(batch)
    loss.backward()
    named = {**dict(network.named_parameters()), **dict(contrast.named_parameters())}
    processes.add_up(list(named.values()))
    if processes.rank == 0:
        grads = {name: p.grad for name, p in named.items() if p.grad is not None}
        torch.save({"loss": loss.item(), "accuracy": figures["accuracy"], "grads": grads}, out)
    processes.wait()


if __name__ == "__main__":
    what, folder, out, last = sys.argv[1:]
    if what == "killed":
        killed(Path(folder), Path(out), int(last))
    else:
        pair(Path(folder), Path(out), last)
