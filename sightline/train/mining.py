"""Hard negatives: what the embedder takes for an answer and is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sightline.model.config import ModelConfig
from sightline.model.vl import QwenVL
from sightline.prep.tokens import Tokenizer
from sightline.train import geometry
from sightline.train.packing import embedding_pack, forward
from sightline.train.tasks import Example


class Miner:
    """A frozen embedder that scores examples against each other."""

    def __init__(self, weights: Path, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.model = QwenVL(ModelConfig.from_dict(geometry.config_json(tokenizer.added_tokens)))
        self.model.load_state_dict(torch.load(weights, weights_only=True))

    @torch.no_grad()
    def scores(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """(N, N) cosines of queries and documents."""
        with torch.autocast("cpu", torch.bfloat16):
            queries = forward(self.model, embedding_pack([e.query for e in examples], self.tokenizer))
            documents = forward(self.model, embedding_pack([e.document for e in examples], self.tokenizer))
        scores = F.normalize(queries.float(), dim=-1) @ F.normalize(documents.float(), dim=-1).T
        return scores.numpy()
