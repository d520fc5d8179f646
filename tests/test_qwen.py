"""The official classes' face: same arguments in, same kind of value out."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sightline as sl
from sightline.qwen import Qwen3VLEmbedder, Qwen3VLReranker
from tests.parity.checkpoints import random_checkpoint

OFFICIAL = [
    "model_name_or_path",
    "max_length",
    "min_pixels",
    "max_pixels",
    "total_pixels",
    "fps",
    "max_frames",
    "default_instruction",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


@pytest.mark.parametrize(("face", "max_length"), [(Qwen3VLEmbedder, 8192), (Qwen3VLReranker, 10240)])
def test_constructor_arguments_and_defaults(face, max_length):
    parameters = inspect.signature(face).parameters
    assert list(parameters)[:8] == OFFICIAL
    defaults = [parameters[name].default for name in OFFICIAL[1:7]]
    assert defaults == [max_length, 4096, 1800 * 1024, 7680 * 1024, 1, 64]


def test_process_gives_a_tensor(folder, tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (70, 50), "red").save(path)
    embedder = Qwen3VLEmbedder(folder, torch_dtype=torch.float32, attn_implementation="sdpa")
    inputs: list[dict[str, Any]] = [
        {"text": "a dog", "instruction": "Retrieve images or text relevant to the user's query."},
        {"image": str(path)},
        {"text": "a dog", "image": [str(path), Image.open(path)], "video": None},
        {"video": [str(path)] * 3, "fps": 1.0, "max_frames": 64},
    ]
    vectors = embedder.process(inputs)
    assert isinstance(vectors, torch.Tensor) and vectors.shape == (4, 64)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    raw = embedder.process(inputs, normalize=False)
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=-1), vectors)
    direct = sl.Embedder.load(folder, device="cpu", dtype="float32").embed(inputs)
    np.testing.assert_allclose(vectors.numpy(), direct, atol=1e-6)


def test_default_instruction_is_used(folder):
    told = Qwen3VLEmbedder(folder, default_instruction="Find it.").process([{"text": "a"}])
    explicit = Qwen3VLEmbedder(folder).process([{"text": "a", "instruction": "Find it"}])
    torch.testing.assert_close(told, explicit)


def test_reranker_process_gives_floats(folder):
    reranker = Qwen3VLReranker(folder)
    inputs = {
        "instruction": "Same thing?",
        "query": {"text": "a dog"},
        "documents": [{"text": "a cat"}, {}, {"text": "a dog"}],
        "fps": 1.0,
        "max_frames": 64,
    }
    scores = reranker.process(inputs)
    assert [type(score) for score in scores] == [float] * 3 and all(0 <= score <= 1 for score in scores)
    tupled = {**inputs, "instruction": "ignored", "query": {"text": ("Same thing?", "a dog")}}
    assert reranker.process(tupled) == pytest.approx(scores)
    assert reranker.process({"query": {}, "documents": [{"text": "a"}]}) == []
    assert reranker.process({"query": {"text": "a"}, "documents": []}) == []


def test_unknown_options_are_errors_and_bad_media_too(folder):
    with pytest.raises(sl.ConfigError, match="load_in_4bit"):
        Qwen3VLEmbedder(folder, load_in_4bit=True)
    embedder = Qwen3VLEmbedder(folder)
    with pytest.raises(sl.ItemError):
        embedder.process([{"text": "fine"}, {"image": "/nowhere/at/all.png"}])
    with pytest.raises(sl.ItemError):
        embedder.process([{"texts": "typo"}])
