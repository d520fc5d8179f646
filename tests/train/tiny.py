"""A tiny network and batches for it, made in a moment; sources that other processes can unpickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sightline.model.vl import QwenVL
from sightline.model.weights import Checkpoint
from sightline.prep.tokens import Tokenizer
from sightline.train.batch import Batch, Kind, MakeBatch
from sightline.train.config import Stage, stage_of
from sightline.train.packing import Side, embedding_pack, reranking_pack
from sightline.train.processes import Share
from tests.parity.checkpoints import Shape, random_checkpoint

SMALL = Shape(32, 2, 2, 1, 48, 24, 2, 2, 32, (0, 1), head_dim=16, mrope_section=(4, 2, 2), position_embeddings=16)
WORDS = ("red", "bicycle", "dog", "beach", "Straße", "train", "wall", "犬", "perro", "night", "menu", "spring")


def folder_of(path: Path) -> Path:
    """A checkpoint of 60,000 parameters."""
    return random_checkpoint(path, SMALL)


def network_of(folder: Path) -> QwenVL:
    return Checkpoint(folder).build(torch.device("cpu"), torch.float32)


def stage_for(out: Path, start: Path, **more: object) -> Stage:
    raw = {"start": str(start), "out": str(out), "steps": 6, "dtype": "float32", "device": "cpu"}
    raw["task"] = [{"name": "drawn", "drawn": "builtin"}]
    raw["loss"] = {"dims": [16], "temperature": 0.1}
    return stage_of({**raw, **more}, "embedder")


def _side(rng: np.random.Generator, pictures: bool) -> Side:
    text = " ".join(rng.choice(WORDS, int(rng.integers(1, 7))))
    if not pictures or rng.random() < 0.4:
        return Side(text)
    shape = (32 * int(rng.integers(1, 3)), 64, 3)
    return Side(text if rng.random() < 0.5 else "", rng.integers(0, 255, shape, np.uint8))


def batch_of(folder: Path, kind: Kind, *, num: int = 6, each: int = 2, seed: int = 0, pictures: bool = True) -> Batch:
    """Random words, and pictures among the documents; ``each`` negatives of every query."""
    rng, tokenizer = np.random.default_rng(seed), Tokenizer(folder / "tokenizer.json")
    each = 0 if kind == "graded" else each
    queries = [_side(rng, False) for _ in range(num)]
    documents = [_side(rng, pictures) for _ in range(num * (1 + each))]
    if kind == "yes_no":
        pairs = [(queries[row], documents[row * (1 + each) + place]) for row in range(num) for place in range(1 + each)]
        return Batch("judged", kind, (reranking_pack(pairs, tokenizer),), groups=(1 + each,) * num)
    same = np.zeros((num, len(documents)), np.bool_)
    same[0, 1] = True
    return Batch(
        "paired",
        kind,
        (embedding_pack(queries, tokenizer, "Find"),),
        (embedding_pack(documents, tokenizer),),
        owner=np.repeat(np.arange(num, dtype=np.int64), each),
        same=same,
        scores=rng.normal(size=num).astype(np.float32) if kind == "graded" else None,
        teacher=rng.normal(size=(num, 1 + each)).astype(np.float32) * 3 if kind == "distil" else None,
    )


def share_of(network: QwenVL, batch: Batch, *, rank: int = 0, world: int = 1, max_tokens: int = 0) -> Batch:
    pads = (network.config.image_token_id, network.config.video_token_id)
    return Share(None, rank, world, max_tokens, pads).of(batch)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Drawn:
    """A source: the batch of a step is drawn from the step alone. Its tasks take turns."""

    folder: Path
    kinds: tuple[Kind, ...] = ("contrast", "classes")

    def __call__(self) -> MakeBatch:
        return lambda step: batch_of(self.folder, self.kinds[step % len(self.kinds)], seed=step)


class Held(torch.autograd.graph.saved_tensors_hooks):
    """Counts the values that autograd keeps for the way back."""

    def __init__(self) -> None:
        self.values = 0
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        self.values += tensor.numel()
        return tensor
