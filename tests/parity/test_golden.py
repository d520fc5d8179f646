"""The numbers of the official code (Qwen3-VL-Embedding at 8ce3aab, transformers 4.57.3, Pillow 12.0, fp32, CPU)."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray

from sightline.embed import Embedder
from sightline.engine.runner import Engine
from sightline.media.reader import Reader
from sightline.model.weights import Checkpoint
from sightline.prep.patches import FRAMES, STILL_WIDTH, full_patches
from sightline.prep.prepare import Budgets, Prepared, Preparer
from sightline.prep.prompt import Visual
from sightline.prep.tokens import Tokenizer
from sightline.qwen import Qwen3VLEmbedder, Qwen3VLReranker
from sightline.rerank import Reranker
from sightline.types import Item
from tests.parity.conftest import picture, shared

BEACH = "A woman playing with her dog on a beach at sunset."
RETRIEVE = "Retrieve images or text relevant to the user's query."


def frames(count: int) -> list[NDArray[np.uint8]]:
    return [picture(160, 120, seed) for seed in range(count)]


INPUTS: dict[str, dict[str, Any]] = {
    "text": {"text": BEACH},
    "text_instr": {"text": "Paris", "instruction": RETRIEVE},
    "empty": {},
    "image": {"image": picture(500, 333, 0)},
    "image_text": {"text": "hello", "image": picture(97, 41, 0)},
    "multi_image": {"text": ["a", "b"], "image": [picture(64, 64, 1), picture(200, 120, 2)]},
    "frames5": {"video": frames(5)},
    "mixed": {"text": "mixed", "image": picture(70, 100, 9), "video": frames(4)},
}
"""What the cases were made from; sizes and seeds found by equality with the stored patches."""
CASES = sorted(INPUTS)
WITH_VIDEO = {"frames5", "mixed"}


def stored(name: str) -> dict[str, NDArray[Any]]:
    with np.load(shared(f"parity/inputs_{name}.npz")) as file:
        return dict(file)


def stored_vector(name: str) -> NDArray[np.float32]:
    return np.asarray(np.load(shared(f"parity/emb_{name}.npy"))).reshape(-1)


def to_uint8(patches: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Patches of the official processor as the bytes they were: (P, 1536)."""
    values = patches.astype(np.float64) * 127.5 + 127.5
    assert np.abs(values - np.rint(values)).max() < 1e-3
    return np.rint(values).astype(np.uint8)


def with_stored_patches(prompt: Prepared, inputs: dict[str, NDArray[Any]]) -> Prepared:
    """The prompt with the pixels of the official code instead of ours."""
    visuals, start = [], {"pixel_values": 0, "pixel_values_videos": 0}
    for visual in prompt.visuals:
        name = "pixel_values_videos" if visual.is_video else "pixel_values"
        count = len(visual.patches)
        patches = to_uint8(inputs[name][start[name] : start[name] + count])
        start[name] += count
        if not visual.is_video:
            patches = patches.reshape(count, 3, FRAMES, -1)[:, :, 0].reshape(count, STILL_WIDTH)
        visuals.append(Visual(np.ascontiguousarray(patches), visual.grid, visual.timestamps_s, repr(start).encode()))
    return Prepared(prompt.ids, prompt.positions, tuple(visuals), prompt.head, prompt.notes)


@pytest.fixture(scope="module")
def preparer() -> Preparer:
    return Preparer(Tokenizer(shared("model/tokenizer.json")), Reader(), Budgets())


@pytest.fixture(scope="module")
def embedder(golden_checkpoint: Path) -> Embedder:
    return Embedder.load(str(golden_checkpoint), dtype="float32")


@pytest.fixture(scope="module")
def reranker(golden_checkpoint: Path) -> Reranker:
    return Reranker.load(str(golden_checkpoint), dtype="float32")


def test_every_stored_case_is_here(golden: dict[str, Any]) -> None:
    assert {name for name in golden if not name.startswith("_")} == set(INPUTS)


@pytest.mark.parametrize("name", CASES)
def test_ids_and_positions(name: str, preparer: Preparer, golden: dict[str, Any]) -> None:
    prompt = preparer.embedding(Item(**INPUTS[name]))
    assert prompt.ids.tolist() == golden[name]["input_ids"]
    assert np.array_equal(prompt.ids, stored(name)["input_ids"][0])
    assert np.array_equal(prompt.positions, np.load(shared(f"parity/pos_{name}.npy")).reshape(3, -1))
    grids = [list(visual.grid) for visual in prompt.visuals]
    assert grids == golden[name].get("video_grid_thw", []) + golden[name].get("image_grid_thw", [])


@pytest.mark.parametrize("name", sorted(set(CASES) - {"text", "text_instr", "empty", "frames5"}))
def test_patches_of_pictures(name: str, preparer: Preparer) -> None:
    """Equal with Pillow 12 and 13, also where one side grows and the other shrinks (500 x 333 becomes 512 x 320)."""
    prompt = preparer.embedding(Item(**INPUTS[name]))
    ours = np.concatenate([full_patches(visual.patches) for visual in prompt.visuals if not visual.is_video])
    assert np.array_equal(ours, stored(name)["pixel_values"]), PIL.__version__


@pytest.mark.parametrize("name", ["frames5", "mixed"])
def test_patches_of_frame_lists(name: str, preparer: Preparer) -> None:
    """The official code resizes frames twice: with Pillow, then with torchvision in float32, rounded once at the end.

    Ours are equal but for ties of the rounding.
    """
    ours = preparer.embedding(Item(**INPUTS[name])).visuals[0].patches
    difference = np.abs(full_patches(ours) - stored(name)["pixel_values_videos"]) * 127.5
    assert difference.max() < 1.01
    assert (difference > 0.5).mean() < 1e-4, PIL.__version__


@pytest.mark.parametrize("reuse_heads", [True, False])
def test_model_on_stored_patches(golden_checkpoint: Path, preparer: Preparer, reuse_heads: bool) -> None:
    """Network and engine alone: the official ids and pixels in, the official vectors out."""
    import torch

    network = Checkpoint(golden_checkpoint).build(torch.device("cpu"), torch.float32)
    prompts = [with_stored_patches(preparer.embedding(Item(**INPUTS[name])), stored(name)) for name in CASES]
    states = Engine(network, reuse_heads=reuse_heads).states(prompts)
    for name, state in zip(CASES, states, strict=True):
        assert isinstance(state, np.ndarray)
        assert np.abs(state / np.linalg.norm(state) - stored_vector(name)).max() <= 1e-5, name


@pytest.mark.parametrize("name", CASES)
def test_embedder(name: str, embedder: Embedder) -> None:
    """From the caller's item to the vector."""
    vector = embedder.embed([Item(**INPUTS[name])])[0]
    assert np.abs(vector - stored_vector(name)).max() <= 1e-5


def test_embedder_batch_is_single(embedder: Embedder) -> None:
    together = embedder.embed([Item(**INPUTS[name]) for name in CASES])
    alone = np.concatenate([embedder.embed([Item(**INPUTS[name])]) for name in CASES])
    assert np.abs(together - alone).max() <= 1e-6


def test_official_face_of_the_embedder(golden_checkpoint: Path) -> None:
    vectors = Qwen3VLEmbedder(str(golden_checkpoint)).process([INPUTS[name] for name in CASES])
    assert tuple(vectors.shape) == (len(CASES), 64)
    for name, vector in zip(CASES, vectors.numpy(), strict=True):
        assert np.abs(vector - stored_vector(name)).max() <= 1e-5, name


DOCUMENTS: list[dict[str, Any]] = [
    {"text": "A dog."},
    {"image": picture(97, 41, 0)},
    {"text": "hello", "image": picture(97, 41, 0)},
    {"video": frames(4)},
]


def test_reranker_ids(preparer: Preparer, golden: dict[str, Any]) -> None:
    query, document = preparer.read(Item(text=BEACH)), preparer.read(Item(**DOCUMENTS[2]))
    assert preparer.pair(query, document, instruction=RETRIEVE).ids.tolist() == golden["_reranker"]["doc3_ids"]


def test_reranker(reranker: Reranker, golden: dict[str, Any]) -> None:
    documents = [Item(**document) for document in DOCUMENTS]
    wanted = golden["_reranker"]
    odds = reranker.log_odds(BEACH, documents, instruction=RETRIEVE)
    assert np.abs(odds - wanted["raw_logit_yes_minus_no"]).max() <= 1e-4
    scores = reranker.score(BEACH, documents, instruction=RETRIEVE)
    assert np.abs(scores - wanted["scores"]).max() <= 1e-4
    alone = np.concatenate([reranker.log_odds(BEACH, [document], instruction=RETRIEVE) for document in documents])
    assert np.abs(odds - alone).max() <= 1e-4


def test_official_face_of_the_reranker(golden_checkpoint: Path, golden: dict[str, Any]) -> None:
    request = {"instruction": RETRIEVE, "query": {"text": BEACH}, "documents": DOCUMENTS}
    scores = Qwen3VLReranker(str(golden_checkpoint)).process(request)
    assert isinstance(scores, list)
    assert np.abs(np.array(scores) - golden["_reranker"]["scores"]).max() <= 1e-4
