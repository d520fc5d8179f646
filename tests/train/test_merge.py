"""Merging by values computed on paper, what is refused, and how much is in memory."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from sightline.cli.app import app
from sightline.embed import Embedder
from sightline.errors import ConfigError, WeightsError
from sightline.model.weights import Checkpoint
from sightline.rerank import Reranker
from sightline.train.merge import How, Merged, merge, slerp
from sightline.types import Item
from tests.parity.checkpoints import TINY, random_checkpoint
from tests.parity.conftest import picture

NORM = "model.language_model.norm.weight"
TABLE = "model.language_model.embed_tokens.weight"


def constant(folder: Path, value: float, dtype: str = "float32", seed: int = 1) -> Path:
    """A checkpoint whose last norm is one value, so that paper can follow."""
    random_checkpoint(folder, seed=seed, dtype=dtype)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + size])[NORM]["data_offsets"]
    raw = torch.full((64,), value, dtype=getattr(torch, dtype)).view(torch.uint8).numpy().tobytes()
    assert len(raw) == end - begin
    data[8 + size + begin : 8 + size + end] = raw
    path.write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("how", "weights", "base", "wanted"),
    [
        ("average", None, False, 2.5),  # (1 + 4) / 2
        ("average", (2.0, 1.0), False, 2.0),  # (2 * 1 + 4) / 3
        ("task", (0.5, 0.75), True, 3.0),  # 2 + .5 * (1 - 2) + .75 * (4 - 2)
        ("slerp", (1.0, 3.0), False, 3.25),  # constant vectors are parallel: the line, 1 + .75 * 3
    ],
)
def test_values(tmp_path: Path, how: How, weights: tuple[float, ...] | None, base: bool, wanted: float) -> None:
    first, second = constant(tmp_path / "a", 1.0), constant(tmp_path / "b", 4.0)
    start = constant(tmp_path / "base", 2.0) if base else None
    merge([first, second], tmp_path / "out", how=how, weights=weights, base=start)
    found = Checkpoint(tmp_path / "out").tensor(NORM)
    assert torch.allclose(found, torch.full((64,), wanted), atol=1e-6)


def test_slerp_on_paper() -> None:
    # a quarter circle: at a third of it stands 30 degrees
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    point, straight = slerp(one, two, 1 / 3)
    assert not straight
    assert point.tolist() == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)], abs=1e-6)
    # other lengths: sin(45)/sin(90) of each
    point, _ = slerp(one * 2, two * 4, 0.5)
    assert point.tolist() == pytest.approx([2 * math.sqrt(0.5), 4 * math.sqrt(0.5)], abs=1e-6)
    # ends are the tensors themselves
    assert torch.allclose(slerp(one, two, 0.0)[0], one) and torch.allclose(slerp(one, two, 1.0)[0], two, atol=1e-6)


@pytest.mark.parametrize(
    ("one", "two", "half"),
    [
        ([1.0, 1.0], [1.0, 1.0 + 1e-6], [1.0, 1.0]),
        ([0.0, 0.0], [2.0, 0.0], [1.0, 0.0]),
        ([1.0, 2.0], [-1.0, -2.0], [0, 0]),
    ],
)
def test_slerp_takes_the_line_where_there_is_no_arc(one: list[float], two: list[float], half: list[float]) -> None:
    point, straight = slerp(torch.tensor(one), torch.tensor(two), 0.5)
    assert straight and torch.isfinite(point).all()
    assert point.tolist() == pytest.approx(half, abs=1e-5)


def test_a_merged_checkpoint_loads_and_keeps_what_goes_with_the_first(tmp_path: Path) -> None:
    first = random_checkpoint(tmp_path / "a", seed=1, dtype="bfloat16")
    second = random_checkpoint(tmp_path / "b", seed=2, dtype="float32", num_shards=3)
    (first / "sightline.json").write_text('{"max_pixels": 123456}')
    (first / "chat_template.jinja").write_text("one")
    (second / "chat_template.jinja").write_text("two")
    done = merge([first, second], tmp_path / "out", how="average", weights=[1, 1], shard_bytes=300_000)
    checkpoint = Checkpoint(tmp_path / "out")
    assert done == Merged("average", (0.5, 0.5), len(checkpoint.files))
    assert len(set(checkpoint.files.values())) > 1, "in several files"
    for name in (NORM, TABLE, "model.visual.patch_embed.proj.weight"):
        mean = (Checkpoint(first).tensor(name).float() + Checkpoint(second).tensor(name).float()) / 2
        assert checkpoint.described(name)[1] == "BF16"
        assert torch.equal(checkpoint.tensor(name), mean.bfloat16()), "summed in float32, rounded once"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "one"
    assert json.loads((tmp_path / "out" / "sightline.json").read_text()) == {"max_pixels": 123456}

    items = [Item(text="a red bicycle"), Item(image=picture(64, 96, 2))]
    vectors = [Embedder.load(str(folder), dtype="float32").embed(items) for folder in (first, second, tmp_path / "out")]
    assert np.isfinite(vectors[2]).all()
    assert min(np.abs(vectors[2] - vectors[0]).max(), np.abs(vectors[2] - vectors[1]).max()) > 1e-3
    with safe_open(next(iter(checkpoint.files.values())), framework="pt") as handle:
        assert json.loads(handle.metadata()["merged"]) == {
            "how": "average",
            "weights": [0.5, 0.5],
            "sources": ["a", "b"],
        }


@pytest.mark.parametrize("how", ["average", "slerp"])
def test_a_model_merged_with_itself_is_itself(tmp_path: Path, how: How) -> None:
    first = random_checkpoint(tmp_path / "a", seed=1, dtype="bfloat16")
    done = merge([first, first], tmp_path / "out", how=how)
    assert done.lines == (done.tensors if how == "slerp" else 0)
    ours, theirs = Checkpoint(tmp_path / "out"), Checkpoint(first)
    assert all(torch.equal(ours.tensor(name), theirs.tensor(name)) for name in theirs.files)


def test_a_reranker_keeps_its_head(tmp_path: Path) -> None:
    shape = replace(TINY, tied=False, lm_head=True)
    first = random_checkpoint(tmp_path / "a", shape, seed=1, template=False)
    second = random_checkpoint(tmp_path / "b", shape, seed=2, template=False)
    merge([first, second], tmp_path / "out", how="slerp")
    assert Checkpoint(tmp_path / "out").tensor("lm_head.weight").shape == (926, 64)
    scores = Reranker.load(str(tmp_path / "out")).score("a dog", ["a cat", "a dog"])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("number", "how", "weights", "base", "message"),
    [
        (1, "average", None, False, "two or more"),
        (3, "slerp", None, False, "takes two checkpoints, not 3"),
        (2, "average", None, True, "the others take none"),
        (2, "task", (1.0, 1.0), False, "needs --base"),
        (2, "task", None, True, "needs --weights"),
        (2, "average", (1.0,), False, "need 2 weights, not 1"),
        (2, "average", (1.0, -1.0), False, "none under 0"),
        (2, "average", (math.nan, 1.0), False, "finite"),
        (2, "ties", None, False, "average, task, slerp"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, number: int, how: How, weights: tuple[float, ...] | None, base: bool, message: str
) -> None:
    folders = [tmp_path / str(index) for index in range(number)]
    with pytest.raises(ConfigError, match=message):
        merge(folders, tmp_path / "out", how=how, weights=weights, base=tmp_path if base else None)
    assert not (tmp_path / "out").exists()


def test_checkpoints_that_do_not_match(tmp_path: Path) -> None:
    first = random_checkpoint(tmp_path / "a", seed=1)
    wider = random_checkpoint(tmp_path / "wider", replace(TINY, mlp=128), seed=1)
    headed = random_checkpoint(tmp_path / "headed", replace(TINY, tied=False, lm_head=True), seed=1)
    headless = random_checkpoint(tmp_path / "headless", replace(TINY, tied=False), seed=1)
    reworded = random_checkpoint(tmp_path / "reworded", seed=1)
    said = json.loads((reworded / "tokenizer.json").read_text())
    said["model"]["merges"] = said["model"]["merges"][:-1]
    (reworded / "tokenizer.json").write_text(json.dumps(said))
    bent = random_checkpoint(tmp_path / "bent", seed=1)
    raw = (bent / "model.safetensors").read_bytes()
    (bent / "model.safetensors").write_bytes(raw.replace(b'"shape":[96,64]', b'"shape":[64,96]', 1))
    for second, message in {
        wider: "intermediate_size is 96 and 128",
        headed: "tie_word_embeddings is True and False",
        reworded: "other tokens",
        bent: r"gate_proj\.weight is \(96, 64\) in .* and \(64, 96\) in",
    }.items():
        with pytest.raises(WeightsError, match=message):
            merge([first, second], tmp_path / "out")
    with pytest.raises(WeightsError, match=r"has the tensor lm_head\.weight"):
        merge([headed, headless], tmp_path / "out")
    with pytest.raises(WeightsError, match="intermediate_size"):
        merge([first, first], tmp_path / "out", how="task", weights=[1, 1], base=wider)
    assert not (tmp_path / "out").exists()


def test_what_is_too_large_for_the_dtype_is_no_checkpoint(tmp_path: Path) -> None:
    folders = [constant(tmp_path / name, 60_000.0, "float16") for name in ("a", "b", "base")]
    constant(folders[2], 1.0, "float16")
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        merge(folders[:2], tmp_path / "out", how="task", weights=[1.0, 1.0], base=folders[2])
    assert not (tmp_path / "out").exists()


MEASURE = """
import resource, sys
from pathlib import Path
from sightline.train.merge import merge
merge([Path(sys.argv[1])] * 2, Path(sys.argv[3]) / "warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
merge([Path(sys.argv[2])] * 2, Path(sys.argv[3]) / "big", how="slerp", shard_bytes=50_000_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in the unit of Linux")
def test_memory_is_that_of_a_tensor_not_of_a_checkpoint(tmp_path: Path) -> None:
    small = random_checkpoint(tmp_path / "small", seed=1)
    large = random_checkpoint(tmp_path / "large", replace(TINY, hidden=256, layers=24, mlp=1024), num_shards=2)
    size = sum(file.stat().st_size for file in large.glob("*.safetensors"))
    assert size > 110e6
    command = [sys.executable, "-c", MEASURE, str(small), str(large), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert int(done.stdout) < 0.35 * size, f"{int(done.stdout) / 1e6:.0f} MB for {size / 1e6:.0f} MB of weights"
    assert len(list((tmp_path / "big").glob("*.safetensors"))) > 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["builtin", "x"], "builtin is an embedder and a reranker"),
        (["x", "y", "--how", "task", "--base", "builtin"], "builtin is an embedder and a reranker"),
        (["x", "y", "--weights", "much"], "--weights are numbers"),
        (["x", "y", "--how", "sum"], "--how is one of"),
    ],
)
def test_the_command_refuses(tmp_path: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["train", "merge", *words, "--out", str(tmp_path / "made")])
    assert done.exit_code == 2 and said in done.output
    assert not (tmp_path / "made").exists()
