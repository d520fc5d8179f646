"""What the parity tests share: the stored goldens of the official code, and a random checkpoint of our own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.parity.checkpoints import random_checkpoint

SHARED = Path(__file__).parents[3] / "shared"


def shared(path: str) -> Path:
    """A file beside the repository; the test is skipped where it is not given."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"{found} is not on this machine")
    return found


def picture(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """The test pictures of the goldens (``_image_generator`` in golden.json)."""
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = x * 7 + y * 3 + seed * 11, x * x // 5 + y * 2 + seed * 17, (x + y) * 5 + seed * 23
    return (np.stack([red, green, blue], -1) % 256).astype(np.uint8)


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Inputs and outputs of the official code on the stored checkpoint."""
    found: dict[str, Any] = json.loads(shared("parity/golden.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored checkpoint in the published layout."""
    folder = tmp_path_factory.mktemp("golden")
    for source, name in {
        "parity/config.json": "config.json",
        "parity/model.safetensors": "model.safetensors",
        "model/tokenizer.json": "tokenizer.json",
    }.items():
        (folder / name).symlink_to(shared(source))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint with a tokenizer of our own: nothing outside the repository."""
    return random_checkpoint(tmp_path_factory.mktemp("tiny"), seed=1)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks run faster on one thread, and much faster on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
