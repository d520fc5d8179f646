"""Trains the built-in models from the shared data, stage by stage: ``sightline train builtin --data DIR --out DIR``.

===========  =====================================================================================================
words        the table of tokens, as bags of words (``words.py``) and as they are spelled (``spelling.py``)
looking      the vision tower, cell by cell, in the rows of that table (``looking.py``)
imitation    the decoder, told the bags' vectors of texts and of what stands on pages (``imitation.py``)
s0           contrastive pre-training of the decoder on all tasks
s1           contrastive training with hard negatives, on prefixes and on coarse vectors
reranker     yes or no, from the weights of s1
s2           distillation: s1 follows the reranker
s3           s1 and s2 merged
===========  =====================================================================================================

The files of the stages stand in ``stage_files``. A stage that is done is not done again; one that was interrupted goes
on. The first three stages take the place of a pre-trained model, which the report begins with.

Two stages more go on from the weights that the package carries, when they are asked for: ``more``, s1 with the texts
held to what the package's embedder says of them, and ``more_reranker``.
"""

from __future__ import annotations

import dataclasses
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sightline import builtin
from sightline.errors import ConfigError
from sightline.model.vl import QwenVL
from sightline.model.weights import Checkpoint
from sightline.prep.tokens import Tokenizer
from sightline.train import adapters, trainer
from sightline.train.builtin import geometry, layout
from sightline.train.builtin.corpus import Corpus
from sightline.train.builtin.imitation import Imitating, imitation_step, settle
from sightline.train.builtin.looking import Heads, Look, Looking, looking_loss
from sightline.train.builtin.spelling import rarity, spelled
from sightline.train.builtin.stages import CELLS, Drawn
from sightline.train.builtin.steps import Last, distilling_step, embedding_step, judging_steps
from sightline.train.builtin.tasks import Maker
from sightline.train.builtin.tokenizer import learn, write
from sightline.train.builtin.told import Frozen, Teller
from sightline.train.builtin.words import Bagging, Bags, words_step
from sightline.train.config import Role, Stage, stage_of
from sightline.train.contrast import Contrast
from sightline.train.export import export_checkpoint
from sightline.train.judging import Words
from sightline.train.merge import merge
from sightline.train.processes import Processes, here

STAGES: Final = ("words", "looking", "imitation", "s0", "s1", "binding", "reranker", "s2", "s3")
MORE: Final = ("more", "more_reranker")
"""Stages that begin with the package's weights."""
RERANKERS: Final = ("binding", "reranker", "more_reranker")
"""Stages of the reranker."""
START: Final = "start"
SHIPPED: Final = "shipped"
"""Folders of the models before all stages, and of copies of the package's."""
FILES: Final = Path(__file__).with_name("stage_files")
MERGE: Final = (0.5, 0.5)
"""Shares of s1 and s2 in s3."""
TRUST: Final = 0.5
"""The built-in reranker's share in the final order (``sightline.ModelCard``): the most that cost the demo no answer; .6
cost three and won one, two of the three to queries that are pictures, which training does not ask."""


Cells: TypeAlias = tuple[Callable[[Look], Any] | None, dict[str, nn.Module]]
"""The loss of what lies in cells, and the heads that learn beside it, or None and none."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much of the recipe is done: 1 is the CPU's.

    Attributes:
        steps, batch: factors of every stage's steps and batches.
        rate: factor of the learning rates.
    """

    steps: float = 1.0
    batch: float = 1.0
    rate: float = 1.0


def stage_file(name: str, out: Path, scale: Scale = Scale(), *, workers: int = 1, device: str = "") -> Stage:
    """A stage of the recipe with its folders under ``out``."""
    role: Role = "reranker" if name in RERANKERS else "embedder"
    raw = tomllib.loads((FILES / f"{name}.toml").read_text(encoding="utf-8"))
    stage = stage_of({**raw, "out": name}, role, out)
    tasks = tuple(dataclasses.replace(task, batch=max(4, round(task.batch * scale.batch))) for task in stage.task)
    return dataclasses.replace(
        stage,
        steps=max(2, round(stage.steps * scale.steps)),
        task=tasks,
        optimiser=dataclasses.replace(stage.optimiser, rate=stage.optimiser.rate * scale.rate),
        workers=workers,
        device=device,
    )


def run(
    data: Path,
    out: Path,
    *,
    scale: Scale = Scale(),
    stages: Sequence[str] = STAGES,
    seed: int = 0,
    workers: int = 1,
    device: str = "",
    screen: bool = True,
    done: Callable[[str, Path], None] = lambda _name, _folder: None,
) -> None:
    """Runs stages in their order; each leaves ``out/STAGE/model``.

    Args:
        data: folder with ``pairs.parquet`` and ``images.parquet``.
        out: folder of all that is made.
        scale: of steps and batches.
        stages: some of ``STAGES`` and ``MORE``.
        seed: of everything.
        workers: processes that draw.
        device: torch device; "" takes the best there is.
        screen: show progress.
        done: told the name and the model's folder of every stage that is there.

    Raises:
        ConfigError: an unknown stage, or one whose predecessor is missing.
        SightlineError: as ``trainer.run``.
    """
    unknown = [name for name in stages if name not in (*STAGES, *MORE)]
    if unknown:
        raise ConfigError(f"unknown stage {unknown[0]!r}; they are {', '.join((*STAGES, *MORE))}")
    if not (data / "pairs.parquet").is_file():
        raise ConfigError(f"{data} holds no pairs.parquet")
    if not {*stages} <= {*MORE}:
        start(data, out, seed)
    if not {*stages} <= {*STAGES}:
        begin_shipped(out)
    for name in (*STAGES, *MORE):
        if name not in stages:
            continue
        model = out / name / "model"
        if not (model / "config.json").is_file() and not (out / name / "bags.safetensors").is_file():
            if name == "s3":
                merge([out / "s1" / "model", out / "s2" / "model"], model, how="average", weights=MERGE)
            else:
                stage = stage_file(name, out, scale, workers=workers, device=device)
                stage = dataclasses.replace(stage, seed=stage.seed + seed)
                Run(data, out, stage, screen, begin=out / (SHIPPED if name in MORE else START)).do(name)
        done(name, model)


def start(data: Path, out: Path, seed: int) -> None:
    """Tokenizers and first weights of both models: ``out/start/embedder`` and ``out/start/reranker``."""
    folders = {role: out / START / role for role in builtin.MODELS}
    if all((folder / "config.json").is_file() for folder in folders.values()):
        return
    tokenizer = learn(Corpus(data).texts(), geometry.VOCAB_SIZE)
    for role, folder in folders.items():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(tokenizer, folder, append_end=role == "embedder")
        layout.write_start(folder, seed, trust=TRUST if role == "reranker" else None)


def begin_shipped(out: Path) -> None:
    """Copies of the package's models: ``out/shipped/embedder`` and ``out/shipped/reranker``."""
    for role in builtin.MODELS:
        folder = out / SHIPPED / role
        if not (folder / "config.json").is_file():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(builtin.path(role), partial)
            partial.rename(folder)


class Run:
    """One stage: its network, batches and step.

    Args:
        data, out: folders as in ``run``.
        stage: what is done.
        screen: show progress.
        begin: folder of both models before all stages, with the tokenizers.
    """

    def __init__(self, data: Path, out: Path, stage: Stage, screen: bool, begin: Path) -> None:
        self.data, self.out, self.stage, self.screen = data, out, stage, screen
        self.processes: Processes = here(stage.device)
        if self.processes.world > 1:
            raise ConfigError("the built-in models are trained by one process; several are for data of your own")
        self.begin = begin
        self.tokenizer = begin / "embedder" / "tokenizer.json"

    def do(self, name: str) -> None:
        """Trains and writes the model."""
        torch.manual_seed(self.stage.seed)
        {
            "words": self.words,
            "looking": self.looking,
            "imitation": self.imitation,
            "s0": self.contrast,
            "s1": self.contrast,
            "binding": self.reranker,
            "reranker": self.reranker,
            "s2": self.distil,
            "more": self.more,
            "more_reranker": self.reranker,
        }[name]()

    def words(self) -> None:
        """Leaves ``bags.safetensors``."""
        network = self._network(self.begin / "embedder").requires_grad_(False)
        text = network.config.text
        rare = rarity(Corpus(self.data).sentences)
        told = spelled(Tokenizer(self.tokenizer), text.vocab_size, text.hidden_size, rare)
        bags = Bags(text.vocab_size, text.hidden_size, self.stage.seed, told).to(self.processes.device)
        source = Bagging(self.data, self.tokenizer, self.stage.seed, self.stage.task[0].batch)
        self._train(network, source, partial(words_step, bags), {"bags": bags})
        partial_path = self.stage.out / "bags.partial"
        save_file(bags.state_dict(), partial_path)
        partial_path.replace(self.stage.out / "bags.safetensors")

    def looking(self) -> None:
        """The vision tower alone learns."""
        network = self._network(self.begin / "embedder")
        adapters.settle(network, self.stage)
        bags = self._bags(network)
        step, heads = self._looking(network, bags)
        source = Looking(self.data, self.tokenizer, self.stage.seed, self.stage.steps, self.stage.task[0].batch)
        self._train(network, source, step, heads)
        settle(network, bags)
        self._export(network, self.begin / "embedder")

    def imitation(self) -> None:
        """The decoder alone learns."""
        network = self._network()
        adapters.settle(network, self.stage)
        bags = self._bags(network)
        source = Imitating(self.data, self.tokenizer, self.stage.seed, self.stage.task[0].batch)
        self._train(network, source, partial(imitation_step, network, bags), {})
        self._export(network, Path(self.stage.start))

    def contrast(self) -> None:
        """Stages s0 and s1."""
        network = self._network()
        adapters.settle(network, self.stage)
        bags = self._bags(network)
        has_cells = any(task.name == CELLS for task in self.stage.task)
        self._contrast(network, bags, self._looking(network, bags) if has_cells else (None, {}), prompts=False)

    def more(self) -> None:
        """s1 from the package's weights: the decoder's layers alone learn, and no bags are needed."""
        network = self._network()
        adapters.settle(network, self.stage)
        network.language_model.embed_tokens.requires_grad_(False)
        self._contrast(network, Frozen(self._network()), (None, {}), prompts=True)

    def _contrast(self, network: QwenVL, teller: Teller, cells: Cells, *, prompts: bool) -> None:
        width = network.config.text.hidden_size
        contrast = Contrast(width, self.stage.loss).to(self.processes.device)
        last = Last(width).to(self.processes.device)
        looking, heads = cells
        source = Drawn(self.data, self.tokenizer, self.stage.task, "embedder", self.stage.seed, prompts=prompts)
        step = partial(embedding_step, network, contrast, teller, last, self.processes, looking)
        self._train(network, source, step, {"contrast": contrast, "last": last, **heads})
        self._export(network, Path(self.stage.start))

    def reranker(self) -> None:
        """From the weights of s1, of the stage before or of the package, with the reranker's tokenizer."""
        base = self.begin / "reranker"
        network = self._network()
        adapters.settle(network, self.stage)
        tokenizer = base / "tokenizer.json"
        words = Words(network, Tokenizer(tokenizer), Checkpoint(base))
        source = Drawn(self.data, tokenizer, self.stage.task, "reranker", self.stage.seed)
        step = partial(judging_steps, network, words, self.stage.loss, self.processes)
        self._train(network, source, step, {})
        self._export(network, base)

    def distil(self) -> None:
        """The embedder follows the reranker, which stays as it is."""
        network = self._network()
        adapters.settle(network, self.stage)
        folder = self.out / "reranker" / "model"
        judge = self._network(folder).requires_grad_(False)
        words = Words(judge, Tokenizer(folder / "tokenizer.json"), Checkpoint(folder))
        contrast = Contrast(network.config.text.hidden_size, self.stage.loss).to(self.processes.device)
        source = Drawn(
            self.data,
            self.tokenizer,
            self.stage.task,
            "embedder",
            self.stage.seed,
            distilled=folder / "tokenizer.json",
        )
        step = partial(distilling_step, network, contrast, self.processes, judge, words)
        self._train(network, source, step, {"contrast": contrast})
        self._export(network, Path(self.stage.start))

    def _network(self, folder: Path | None = None) -> QwenVL:
        folder = folder or Path(self.stage.start)
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder} is not there: run the stage before first")
        return Checkpoint(folder).build(self.processes.device, torch.float32)

    def _bags(self, network: QwenVL) -> Bags:
        path = self.out / "words" / "bags.safetensors"
        if not path.is_file():
            raise ConfigError(f"{path} is not there: run the stage words first")
        text = network.config.text
        bags = Bags(text.vocab_size, text.hidden_size, 0)
        bags.load_state_dict(load_file(path))
        return bags.requires_grad_(False).to(self.processes.device)

    def _looking(self, network: QwenVL, bags: Bags) -> Cells:
        """The loss of cells and pictures, and the heads that learn beside the tower."""
        maker, tokenizer = Maker(Corpus(self.data)), Tokenizer(self.tokenizer)
        called = [maker.emoji_names.get(thing, thing) for thing in maker.things]
        things = bags([np.asarray(tokenizer.encode(names), np.int64) for names in called])
        heads = Heads(network.config.vision.hidden_size, bags, things).to(self.processes.device)
        return partial(looking_loss, network, heads), {"heads": heads}

    def _train(self, network: QwenVL, source: Any, step: Any, extra: Mapping[str, nn.Module]) -> None:
        trainer.run(network, source, self.stage, step=step, extra=extra, processes=self.processes, screen=self.screen)

    def _export(self, network: QwenVL, base: Path) -> None:
        export_checkpoint(network, base, self.stage.out / "model", dtype=torch.float32, overwrite=True)


def results(out: Path, stages: Sequence[str]) -> dict[Role, Path]:
    """The embedder and the reranker that stages led to: of those in ``MORE``, a model that was not asked for is as it
    came with the package.
    """
    if {*stages}.isdisjoint(MORE):
        return {"embedder": out / "s3" / "model", "reranker": out / "reranker" / "model"}
    pairs: tuple[tuple[Role, str], ...] = (("embedder", "more"), ("reranker", "more_reranker"))
    return {role: out / name / "model" if name in stages else out / SHIPPED / role for role, name in pairs}


def ship(trained: Mapping[Role, Path], folder: Path) -> None:
    """Writes both models in bf16 as the package carries them: ``folder/embedder`` and ``folder/reranker``."""
    for role, model in trained.items():
        network = Checkpoint(model).build(torch.device("cpu"), torch.float32)
        export_checkpoint(network, model, folder / role, dtype=torch.bfloat16, overwrite=True)
