"""Weights and tokenizer of the built-in models, as package data."""

from pathlib import Path

MODELS = ("embedder", "reranker")


def path(name: str) -> Path:
    """Folder of the built-in ``embedder`` or ``reranker``, in the published layout."""
    if name not in MODELS:
        raise ValueError(f"the built-in models are {' and '.join(MODELS)}, not {name!r}")
    return Path(__file__).parent / name
