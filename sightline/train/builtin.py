"""Trains the built-in models from the shared data: ``python -m sightline.train.builtin --data DIR --out DIR``.

Stages, each with its share of the time:
1. reading: the vision tower and the table of tokens, on pages it draws (``reading.py``);
2. embedder: everything, contrastively, on all tasks, vectors less the mean of their side (``losses.centred``);
3. joined: the same on vectors as they will be compared, which takes the means out of the weights;
4. reranker: from the embedder's weights, yes or no on pairs whose negatives the embedder finds hard.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import torch
from torch import nn

from sightline.model.config import ModelConfig
from sightline.model.vl import QwenVL
from sightline.prep.tokens import Tokenizer
from sightline.train import geometry, loop
from sightline.train.data import Corpus
from sightline.train.export import export
from sightline.train.reading import LetterHead, Readable, Speller, reading_loss
from sightline.train.stages import Embedding, Reading, Reranking
from sightline.train.steps import embedding_step, reranking_step
from sightline.train.tokenizer import learn, write

SHARES: Final = {"reading": 0.25, "embedder": 0.4, "joined": 0.15, "reranker": 0.2}
"""Of the wall time."""
TRUST: Final = 0.25
"""The reranker's share in the final order, chosen on the demo's questions: as many are right as by recall alone."""


def new_model(tokenizer: Tokenizer, seed: int) -> QwenVL:
    """A built-in model before training."""
    model = QwenVL(ModelConfig.from_dict(geometry.config_json(tokenizer.added_tokens)))
    loop.initialise(model, seed)
    return model


def train_tokenizer(data: Path, out: Path) -> None:
    """``tokenizer.json`` of both models, in ``out/embedder`` and ``out/reranker``; the same words."""
    tokenizer = learn(Corpus(data).texts(), geometry.VOCAB_SIZE)
    for name, append_end in (("embedder", True), ("reranker", False)):
        (out / name).mkdir(parents=True, exist_ok=True)
        write(tokenizer, out / name, append_end=append_end)


def readable(data: Path, tokenizer: Path, model: QwenVL) -> Readable:
    """The tokens of the training sentences."""
    return Readable(Speller(Tokenizer(tokenizer)), Corpus(data).sentences, model.config.text.vocab_size)


def train_reading(
    data: Path,
    out: Path,
    *,
    seconds: float,
    seed: int,
    scale: float = 0.25,
    max_steps: int | None = None,
    resume: bool = False,
) -> None:
    """The first stage; ``out/reading.pt`` holds model and letter head."""
    tokenizer_path = out / "embedder" / "tokenizer.json"
    model = new_model(Tokenizer(tokenizer_path), seed)
    head = LetterHead(model.config.vision.hidden_size)
    both = nn.ModuleDict({"model": model, "head": head})
    classes = readable(data, tokenizer_path, model)
    if resume and (out / "reading.pt").is_file():
        both.load_state_dict(torch.load(out / "reading.pt", weights_only=True))
    with loop.Ahead(Reading(data, tokenizer_path, seed, scale)) as batches:
        loop.run(
            lambda batch: reading_loss(model, head, batch, classes),
            batches,
            [model.visual, model.language_model.embed_tokens, head],
            peak=1e-3,
            seconds=seconds,
            log=out / "train.log",
            save=lambda: loop.keep(both, out / "reading.pt"),
            label="reading",
            floor=0.5,
            max_steps=max_steps,
        )


def train_embedder(
    data: Path,
    out: Path,
    *,
    seconds: float,
    seed: int,
    scale: float = 0.5,
    reading_share: float = 0.05,
    centre: bool = True,
    max_steps: int | None = None,
    resume: bool = False,
) -> None:
    """The second stage, from ``out/reading.pt``; ``out/embedder.pt`` and the folder ``out/embedder``."""
    folder = out / "embedder"
    model = new_model(Tokenizer(folder / "tokenizer.json"), seed)
    head = LetterHead(model.config.vision.hidden_size)
    both = nn.ModuleDict({"model": model, "head": head})
    before = out / "embedder-both.pt"
    before = before if resume and before.is_file() else out / "reading.pt"
    both.load_state_dict(torch.load(before, weights_only=True))
    classes = readable(data, folder / "tokenizer.json", model)
    if before.name == "reading.pt":
        classes.settle(model, seed)

    def save() -> None:
        loop.keep(model, out / "embedder.pt")
        loop.keep(both, out / "embedder-both.pt")
        export(model, folder, folder)

    with loop.Ahead(Embedding(data, folder / "tokenizer.json", seed, scale, reading_share)) as batches:
        loop.run(
            lambda batch: embedding_step(model, head, batch, classes, centre=centre),
            batches,
            [model, head],
            peak=6e-4 if centre else 3e-4,
            seconds=seconds,
            log=out / "train.log",
            save=save,
            label="embedder",
            max_steps=max_steps,
        )


def train_joined(
    data: Path, out: Path, *, seconds: float, seed: int, max_steps: int | None = None, resume: bool = False
) -> None:
    """The third stage: the embedder goes on, on vectors that are not centred."""
    train_embedder(data, out, seconds=seconds, seed=seed + 1, centre=False, max_steps=max_steps, resume=True)


def train_reranker(
    data: Path, out: Path, *, seconds: float, seed: int, max_steps: int | None = None, resume: bool = False
) -> None:
    """The last stage, from ``out/embedder.pt``; the folder ``out/reranker``."""
    folder = out / "reranker"
    tokenizer = Tokenizer(folder / "tokenizer.json")
    model = new_model(tokenizer, seed)
    before = out / "reranker.pt"
    before = before if resume and before.is_file() else out / "embedder.pt"
    model.load_state_dict(torch.load(before, weights_only=True))
    yes, no = tokenizer.word_id("yes"), tokenizer.word_id("no")

    def save() -> None:
        loop.keep(model, out / "reranker.pt")
        export(model, folder, folder, trust=TRUST)

    source = Reranking(data, folder / "tokenizer.json", seed, out / "embedder.pt")
    with loop.Ahead(source) as batches:
        loop.run(
            lambda batch: reranking_step(model, batch, yes, no),
            batches,
            [model],
            peak=5e-4,
            seconds=seconds,
            log=out / "train.log",
            save=save,
            label="reranker",
            max_steps=max_steps,
        )


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m sightline.train.builtin", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs.parquet and images.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, checkpoints and the two models")
    parser.add_argument("--minutes", type=float, default=75.0, help="wall time in all")
    parser.add_argument("--threads", type=int, default=2, help="threads of the arithmetic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=("tokenizer", *SHARES), default=["tokenizer", *SHARES])
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    if "tokenizer" in options.stages:
        train_tokenizer(options.data, options.out)
    chosen = [stage for stage in SHARES if stage in options.stages]
    total = sum(SHARES[stage] for stage in chosen)
    train = {
        "reading": train_reading,
        "embedder": train_embedder,
        "joined": train_joined,
        "reranker": train_reranker,
    }
    for stage in chosen:
        seconds = 60 * options.minutes * SHARES[stage] / total
        train[stage](options.data, options.out, seconds=seconds, seed=options.seed, resume=options.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main())
