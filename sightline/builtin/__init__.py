"""Weights and tokenizer of the built-in models, as package data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def path(task: Literal["embedder", "reranker"]) -> Path:
    """The folder of a built-in checkpoint, in the published layout."""
    return Path(__file__).parent / task
