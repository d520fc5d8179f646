"""A checkpoint is data: whatever lies in its folder, nothing of it is run, and nothing is fetched for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sightline as sl
from sightline import qwen
from tests.parity.checkpoints import random_checkpoint

PAYLOAD = "open({mark!r}, 'w').write('owned')\nraise SystemExit('owned')\n"
AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
    "AutoProcessor": "evil.Processor",
    "AutoImageProcessor": "evil.ImageProcessor",
}
WHERE = ["config.json", "tokenizer_config.json", "preprocessor_config.json"]


def command(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "sightline", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        assert done.returncode == sl.WeightsError.exit_code and "Traceback" not in done.stderr, done.stderr
        raise sl.WeightsError(done.stderr)


ENTRANCES = {
    "Embedder.load": lambda folder: sl.Embedder.load(folder, device="cpu").embed(["a"]),
    "Reranker.load": lambda folder: sl.Reranker.load(folder, device="cpu").score("a", ["b"]),
    "Qwen3VLEmbedder": lambda folder: qwen.Qwen3VLEmbedder(folder, trust_remote_code=True).process([{"text": "a"}]),
    "Qwen3VLReranker": lambda folder: qwen.Qwen3VLReranker(folder, trust_remote_code=True).process(
        {"query": {"text": "a"}, "documents": [{"text": "b"}]}
    ),
    "sightline embed": lambda folder: command("embed", "a", "--model", folder),
    "sightline rerank": lambda folder: command("rerank", "a", "b", "--reranker", folder),
}
"""Every way from a name of a checkpoint to a model."""


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Path]:
    """A whole checkpoint with code beside it, and the file that the code would write."""
    folder, mark = random_checkpoint(tmp_path / "model"), tmp_path / "owned"
    names = ("evil", "modeling_qwen3_vl", "configuration_qwen3_vl", "tokenization", "processing", "__init__", "setup")
    for name in (*names, "sitecustomize", "conftest"):
        (folder / f"{name}.py").write_text(PAYLOAD.format(mark=str(mark)))
    (folder / "evil.pth").write_text(f"import os; open({str(mark)!r}, 'w')")
    return folder, mark


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_code_beside_the_weights_is_never_run(hostile, entrance):
    """Also not where the configuration turns remote code on by itself."""
    folder, mark = hostile
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"trust_remote_code": True, "architectures": ["evil.Model"]})
    )
    ENTRANCES[entrance](str(folder))
    assert not mark.exists()
    assert not [name for name in sys.modules if name.startswith(("transformers_modules", "evil"))]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_checkpoint_that_brings_code_is_refused(hostile, entrance):
    folder, mark = hostile
    for name in WHERE:
        path = folder / name
        before = path.read_text() if path.exists() else None
        path.write_text(json.dumps(json.loads(before or "{}") | {"auto_map": AUTO_MAP, "trust_remote_code": True}))
        with pytest.raises(sl.WeightsError, match="auto_map"):
            ENTRANCES[entrance](str(folder))
        path.write_text(before or "{}")
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".ckpt"])
def test_a_checkpoint_of_pickles_is_refused_by_every_loader(hostile, suffix):
    folder, mark = hostile
    (folder / "model.safetensors").unlink()
    (folder / "evil.pth").unlink()
    (folder / f"pytorch_model{suffix}").write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    for load in (sl.Embedder.load, sl.Reranker.load):
        with pytest.raises(sl.WeightsError, match="only safetensors"):
            load(str(folder), device="cpu")
    assert not mark.exists()


def test_the_sha256_of_the_weights_is_on_the_card(tmp_path):
    import hashlib

    folder = random_checkpoint(tmp_path / "model")
    wanted = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert sl.Embedder.load(str(folder), device="cpu").card.weights == wanted
    # a download of the Hub lies under its sha256, which is believed: nothing is read for it
    blob = tmp_path / ("a" * 64)
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert sl.Embedder.load(str(folder), device="cpu").card.weights == "a" * 64


def test_the_sha256_of_shards_is_over_all_of_them(tmp_path, monkeypatch):
    from sightline.model import digest
    from sightline.model.weights import Checkpoint

    shards = Checkpoint(random_checkpoint(tmp_path / "sharded", num_shards=3))
    first = digest.sha256_of(shards)
    assert len(first) == 64
    last = sorted(set(shards.files.values()))[-1]
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(bytes(data))
    assert digest.sha256_of(shards) not in (first, "")
    monkeypatch.setattr(digest, "MOST_HASHED", 10)
    assert digest.sha256_of(shards) == "", "not known, rather than seconds at every start"
