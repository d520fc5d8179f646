"""A trained network comes back from its folder as it was, in Sightline and in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLModel

from sightline.embed import Embedder
from sightline.errors import ConfigError, WeightsError
from sightline.media.reader import Reader
from sightline.model.vl import QwenVL
from sightline.model.weights import Checkpoint
from sightline.prep.patches import full_patches
from sightline.prep.prepare import Budgets, Prepared, Preparer
from sightline.prep.tokens import Tokenizer
from sightline.rerank import Reranker
from sightline.train.export import export_checkpoint
from sightline.types import Item
from tests.parity.checkpoints import TINY, random_checkpoint
from tests.parity.conftest import picture

UNTIED = TINY.__class__(64, 4, 4, 2, 96, 48, 4, 4, 80, (0, 1, 2), tied=False, lm_head=True)
"""As the 8B reranker is: a head of its own."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(base: Path) -> QwenVL:
    """The network of a checkpoint, moved a little, as training would."""
    model = Checkpoint(base).build(torch.device("cpu"), torch.float32)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return model


def theirs(network: torch.nn.Module, prompt: Prepared, config: object) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(prompt.ids)[None]
    types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()  # type: ignore[attr-defined]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}
    if prompt.visuals:
        given["pixel_values"] = torch.from_numpy(np.concatenate([full_patches(v.patches) for v in prompt.visuals]))
        given["image_grid_thw"] = torch.tensor([visual.grid for visual in prompt.visuals])
    with torch.no_grad():
        return dict(network(**given, use_cache=False))


@pytest.mark.parametrize("shard_bytes", [10**9, 200_000])
def test_an_embedder_is_the_same_for_sightline_and_transformers(tmp_path: Path, shard_bytes: int) -> None:
    base = random_checkpoint(tmp_path / "base", seed=1)
    (base / "chat_template.jinja").write_text("a template")
    (base / "sightline.json").write_text('{"max_pixels": 200000}')
    (base / "README.md").write_text("of another model")
    out = tmp_path / "out"
    export_checkpoint(trained(base), base, out, dtype=torch.float32, shard_bytes=shard_bytes)

    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "sightline.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes(), name
    assert not (out / "README.md").exists(), "the card of the base model says nothing of this one"
    assert (len(list(out.glob("*.safetensors"))) > 1) == (out / "model.safetensors.index.json").is_file()
    assert (out / "model.safetensors.index.json").is_file() == (shard_bytes == 200_000)
    assert all(file.stat().st_size < shard_bytes + 700_000 for file in out.glob("*.safetensors"))

    items = [
        Item(text="a red bicycle"),
        Item(image=picture(97, 64, 3)),
        Item(text="in green", image=picture(64, 64, 1)),
    ]
    ours = Embedder.load(str(out), dtype="float32").embed(items)
    before = Embedder.load(str(base), dtype="float32").embed(items)
    assert np.abs(ours - before).max() > 1e-3, "what was trained is what was written"
    network = Qwen3VLModel.from_pretrained(out, dtype=torch.float32).eval()
    preparer = Preparer(Tokenizer(out / "tokenizer.json"), Reader(), Budgets(max_pixels=200_000))
    for item, vector in zip(items, ours, strict=True):
        state = theirs(network, preparer.embedding(item), network.config)["last_hidden_state"][0, -1]
        assert np.abs(torch.nn.functional.normalize(state, dim=0).numpy() - vector).max() <= 1e-5


@pytest.mark.parametrize("new_head", [False, True])
def test_a_reranker_with_a_head_of_its_own(tmp_path: Path, new_head: bool) -> None:
    base = random_checkpoint(tmp_path / "base", UNTIED, seed=2, template=False)
    stored = Checkpoint(base).tensor("lm_head.weight")
    head = stored + 0.1 * torch.randn(stored.shape, generator=torch.Generator().manual_seed(3)) if new_head else None
    out = tmp_path / "out"
    export_checkpoint(trained(base), base, out, dtype=torch.float32, head=head)

    reranker = Reranker.load(str(out), dtype="float32")
    documents = [Item(text="A dog."), Item(image=picture(64, 96, 5))]
    odds = reranker.log_odds("a woman with her dog", documents)
    network = Qwen3VLForConditionalGeneration.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = Tokenizer(out / "tokenizer.json")
    preparer = Preparer(tokenizer, Reader(), Budgets())
    yes, no = tokenizer.word_id("yes"), tokenizer.word_id("no")
    for document, ours in zip(documents, odds, strict=True):
        question, answer = preparer.read(Item(text="a woman with her dog")), preparer.read(document)
        prompt = preparer.pair(question, answer, instruction=reranker.card.instruction)
        logits = theirs(network, prompt, network.config)["logits"][0, -1]
        assert abs(float(logits[yes] - logits[no]) - ours) <= 1e-4 * max(1.0, abs(ours))
    written = Checkpoint(out).tensor("lm_head.weight")
    assert torch.equal(written, stored if head is None else head)


def test_the_configuration_names_the_dtype_of_the_weights(tmp_path: Path) -> None:
    base = random_checkpoint(tmp_path / "base", seed=1)
    model = trained(base)
    export_checkpoint(model, base, tmp_path / "half")
    checkpoint = Checkpoint(tmp_path / "half")
    assert {checkpoint.described(name)[1] for name in checkpoint.files} == {"BF16"}
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["dtype"] == config["text_config"]["dtype"] == "bfloat16"
    assert "dtype" not in config["vision_config"]
    name, tensor = next(iter(model.named_parameters()))
    assert torch.equal(checkpoint.tensor(f"model.{name}"), tensor.detach().bfloat16())


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    base = random_checkpoint(tmp_path / "base", seed=1)
    model = trained(base)
    out = tmp_path / "deep" / "out"
    with torch.no_grad():
        good = model.visual.merger.linear_fc1.weight[0, 0].clone()
        model.visual.merger.linear_fc1.weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"linear_fc1\.weight holds NaN"):
        export_checkpoint(model, base, out)
    assert list(out.parent.iterdir()) == []

    with torch.no_grad():
        model.visual.merger.linear_fc1.weight[0, 0] = good
    export_checkpoint(model, base, out)
    first = (out / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        export_checkpoint(model, base, out)

    # over itself: what it was trained from makes room for what it became
    export_checkpoint(trained(base), out, out, overwrite=True, dtype=torch.float32)
    assert len((out / "model.safetensors").read_bytes()) > 1.9 * len(first)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert Embedder.load(str(out)).embed(["x"]).shape == (1, 64)

    with torch.no_grad():
        model.visual.merger.linear_fc1.weight[0, 0] = float("inf")
    with pytest.raises(WeightsError):
        export_checkpoint(model, out, out, overwrite=True)
    assert Embedder.load(str(out)).embed(["x"]).shape == (1, 64), "the old one stays when the new one fails"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    base = random_checkpoint(tmp_path / "base", seed=1)
    other = random_checkpoint(tmp_path / "other", UNTIED, seed=1)
    model = trained(base)
    with pytest.raises(WeightsError, match="geometry"):
        export_checkpoint(model, other, tmp_path / "out")
    with pytest.raises(ConfigError, match="float32, bfloat16 or float16"):
        export_checkpoint(model, base, tmp_path / "out", dtype=torch.float64)
    with pytest.raises(ConfigError, match="no head of its own"):
        export_checkpoint(model, base, tmp_path / "out", head=torch.zeros(926, 64))
    model.language_model.add_module("adapter", torch.nn.Linear(2, 2))
    with pytest.raises(WeightsError, match="merge its adapters first"):
        export_checkpoint(model, base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
