"""Checkpoints: every tensor accounted for, nothing unsafe opened, and loading that costs the weights and little more."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline.errors import MissingExtraError, WeightsError
from sightline.model.weights import PINNED, Checkpoint, find
from tests.parity.checkpoints import EMBEDDING_2B, EMBEDDING_8B, RERANKER_8B, TINY, num_parameters, random_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return random_checkpoint(tmp_path / "model")


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def build(folder, dtype=torch.float32):
    return Checkpoint(folder).build(CPU, dtype)


def test_every_tensor_reaches_its_place(folder):
    stored = load_file(folder / "model.safetensors")
    loaded = {f"model.{name}": parameter for name, parameter in build(folder).named_parameters()}
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    assert not any(parameter.requires_grad for parameter in loaded.values())


def test_shards_give_the_same_network(folder, tmp_path):
    sharded = random_checkpoint(tmp_path / "sharded", num_shards=3)
    for ours, theirs in zip(build(folder).parameters(), build(sharded).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_missing_tensor_is_named(folder):
    rewrite(folder, lambda tensors: tensors.pop("model.visual.merger.norm.bias"))
    with pytest.raises(WeightsError, match=r"model\.visual\.merger\.norm\.bias"):
        build(folder)


def test_an_unused_tensor_is_named(folder):
    rewrite(folder, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2)}))
    with pytest.raises(WeightsError, match=r"no place, the first is model\.extra\.weight"):
        build(folder)


def test_a_tensor_of_another_shape_is_named(folder):
    rewrite(folder, lambda tensors: tensors.update({"model.language_model.norm.weight": torch.zeros(3)}))
    with pytest.raises(WeightsError, match=r"language_model\.norm\.weight is \(3,\)"):
        build(folder)


def test_a_redundant_head_of_a_tied_model_is_left_alone(folder):
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(1226, 64)}))
    table = build(folder).language_model.embed_tokens.weight
    assert torch.equal(Checkpoint(folder).head_rows((3, 5)), table[[3, 5]])


def test_an_untied_embedder_without_head_loads_but_cannot_rerank(tmp_path):
    from dataclasses import replace

    embedder = random_checkpoint(tmp_path / "e", replace(TINY, tied=False))
    build(embedder)
    with pytest.raises(WeightsError, match="embedder, not a reranker"):
        Checkpoint(embedder).head_rows((3, 5))
    reranker = random_checkpoint(tmp_path / "r", replace(TINY, tied=False, lm_head=True))
    head = load_file(reranker / "model.safetensors")["lm_head.weight"]
    assert torch.equal(Checkpoint(reranker).head_rows((3, 5)), head[[3, 5]])


@pytest.mark.parametrize("shape", [EMBEDDING_2B, EMBEDDING_8B, RERANKER_8B])
def test_true_shapes_have_the_published_number_of_parameters(shape):
    assert num_parameters(shape) in {2_127_532_032, 8_144_793_840, 8_767_123_696}


def test_pickles_are_refused_unopened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(WeightsError, match="pickle"):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_auto_map_is_refused(folder, name):
    path = folder / name
    raw = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**raw, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(WeightsError, match="auto_map"):
        Checkpoint(folder)


def test_an_index_may_not_point_outside(tmp_path):
    folder = random_checkpoint(tmp_path / "sharded", num_shards=2)
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["model.language_model.norm.weight"] = "../other/model.safetensors"
    index.write_text(json.dumps(raw))
    with pytest.raises(WeightsError, match="outside"):
        Checkpoint(folder)


@pytest.mark.parametrize("damage", [lambda data: data[:1000], lambda data: b"", lambda data: b"\xff" * 100])
def test_a_damaged_file_is_one_sentence(folder, damage):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        Checkpoint(folder)


def test_the_fingerprint_knows_weights_and_configuration(folder, tmp_path):
    before = Checkpoint(folder).fingerprint()
    assert before == Checkpoint(random_checkpoint(tmp_path / "same")).fingerprint()
    assert before != Checkpoint(random_checkpoint(tmp_path / "other", seed=1)).fingerprint()
    rewrite(folder, lambda tensors: tensors["model.visual.merger.norm.bias"].add_(1e-3))
    assert Checkpoint(folder).fingerprint() != before


def test_names_that_are_nothing_are_one_sentence(tmp_path):
    with pytest.raises(WeightsError, match="neither a folder"):
        find(str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"no config\.json"):
        Checkpoint(find(str(tmp_path)).folder)


def test_hub_ids_are_fetched_at_a_pinned_commit_and_without_code(folder, monkeypatch):
    import huggingface_hub

    asked: dict[str, Any] = {}

    def download(name, **options):
        asked.update(name=name, **options)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = find("Qwen/Qwen3-VL-Embedding-2B")
    assert source.folder == folder
    assert asked["revision"] == source.revision == PINNED["Qwen/Qwen3-VL-Embedding-2B"]
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked["allow_patterns"])
    find("Qwen/Qwen3-VL-Embedding-2B", "main")
    assert asked["revision"] == "main"


def test_a_machine_without_network_says_so():
    with pytest.raises(WeightsError, match="could not be downloaded"):
        find("Qwen/Qwen3-VL-Embedding-2B")


def test_modelscope_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingExtraError, match=r"sightline\[modelscope\]"):
        find("modelscope:Qwen/Qwen3-VL-Embedding-2B")


LOAD_2B = """
import resource, sys
import numpy as np
import sightline as sl
import torch
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
base = peak()
embedder = sl.Embedder.load(sys.argv[1], dtype="bfloat16", device="cpu")
loaded = peak()
vector = embedder.embed(["a red bicycle"])[0]
print(base, loaded, peak(), vector.shape[0], float(np.linalg.norm(vector)))
"""


@pytest.mark.slow
def test_the_true_2b_loads_in_little_more_than_its_weights(tmp_path):
    """2,127,532,032 parameters in bf16: loaded from one file, one text embedded."""
    free = os.statvfs(tmp_path)
    if free.f_bavail * free.f_frsize < 6e9:
        pytest.skip("needs 6 GB of disk for a checkpoint of the true size")
    folder = random_checkpoint(tmp_path / "2b", EMBEDDING_2B, dtype="bfloat16")
    size = (folder / "model.safetensors").stat().st_size
    assert size > 2 * 2_127_532_032
    done = subprocess.run([sys.executable, "-c", LOAD_2B, str(folder)], capture_output=True, text=True, check=False)
    (folder / "model.safetensors").unlink()
    assert done.returncode == 0, done.stderr
    base, loaded, peak, dim, norm = (float(word) for word in done.stdout.split())
    assert dim == 2048
    assert abs(norm - 1) < 1e-5
    assert loaded <= 1.15 * size, f"loading took {loaded / size:.2f} x the weights"
    assert peak <= 1.15 * size + base, f"embedding one text took {peak / size:.2f} x the weights"
