"""One stage from its file to a checkpoint that the product loads: ``sightline train embedder|reranker``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from sightline import builtin
from sightline.errors import ConfigError
from sightline.model.weights import Checkpoint, find
from sightline.prep.tokens import Tokenizer
from sightline.train import adapters, checkpoints, trainer
from sightline.train.config import Role, Stage
from sightline.train.contrast import Contrast, contrast_step
from sightline.train.export import export_checkpoint
from sightline.train.judging import Words, judging_step
from sightline.train.processes import here
from sightline.train.sampling import Sampling, of_stage

MODEL: Final = "model"
ADAPTER: Final = "adapter"
_STORED: Final = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def train(stage: Stage, role: Role, *, screen: bool = True) -> Path:
    """Runs a stage, or goes on with it, and writes the trained model.

    ``stage.out`` then holds ``model`` (a checkpoint in the published layout), ``adapter`` (after LoRA, as peft writes
    it), ``log.csv``, ``tensorboard``, ``curves.png`` and the last of ``checkpoints``.

    Returns:
        the folder of the model.

    Raises:
        SightlineError: see ``trainer.run``, ``weights.find``, ``sampling.of_stage``.
    """
    processes = here(stage.device)
    folder = builtin.path(role) if stage.start == "builtin" else find(stage.start, stage.revision or None).folder
    checkpoint = Checkpoint(folder)
    source = source_of(stage, folder)
    if processes.rank == 0 and checkpoints.latest(stage.out / trainer.CHECKPOINTS) is None:
        source.check()  # a bad row is told now, and not after hours
    torch.manual_seed(stage.seed)  # of the adapters' first values and of dropout
    small = stage.dtype == "bfloat16" and stage.lora is not None
    network = checkpoint.build(processes.device, torch.bfloat16 if small else torch.float32)
    adapters.settle(network, stage)
    if role == "embedder":
        contrast = Contrast(network.config.text.hidden_size, stage.loss).to(processes.device)
        step = partial(contrast_step, network, contrast, processes)
        extra = {"contrast": contrast}
    else:
        words = Words(network, Tokenizer(folder / "tokenizer.json"), checkpoint)
        step = partial(judging_step, network, words, stage.loss, processes)
        extra = {}
    trainer.run(network, source, stage, step=step, extra=extra, processes=processes, screen=screen)
    model = stage.out / MODEL
    if processes.rank == 0:
        if stage.lora is not None:
            adapters.save(network, stage.out / ADAPTER, stage.lora, stage.start)
        adapters.plain_layers(network)
        adapters.merge(network)
        stored = checkpoint.described(next(iter(checkpoint.files)))[1]
        export_checkpoint(network, folder, model, dtype=_STORED.get(stored, torch.bfloat16), overwrite=True)
    processes.wait()
    return model


def source_of(stage: Stage, folder: Path) -> Sampling:
    """Where the whole batches of a stage come from: its files of pairs.

    Raises:
        ConfigError: a task is drawn.
        InputError: files that cannot be read.
    """
    if any(task.drawn for task in stage.task):
        raise ConfigError("drawn tasks have steps of their own: sightline train builtin runs them")
    # shares and passes are cut by ``processes.Share``, which knows all rows
    return of_stage(replace(stage, chunk_tokens=0), folder / "tokenizer.json")
