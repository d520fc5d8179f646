"""Weights in oneDNN's order: the same network, found equal to itself, and left out where the machine has no use for it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sightline as sl
from sightline.engine import loading
from sightline.engine.towers import share_tower
from sightline.model.packed import PackedLinear, can_pack, joined
from sightline.model.text import MULTIPLE
from sightline.model.weights import Checkpoint
from sightline.protocols import ItemLike
from tests.parity.checkpoints import TEXTS, TINY, random_checkpoint

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="this torch is built without oneDNN")

ROOT = Path(__file__).parents[2]
ITEMS: list[ItemLike] = [
    *TEXTS[:4],
    sl.Item(text="with words", image=np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", TINY)


def packed_of(folder):
    return joined(Checkpoint(folder).build(torch.device("cpu"), torch.float32, PackedLinear))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 7, 130])
@torch.no_grad()
def test_a_layer_and_what_is_done_inside_it(tokens, bias):
    torch.manual_seed(tokens)
    linear = torch.nn.Linear(96, 72, bias=bias)
    x, other = torch.randn(tokens, 96), torch.randn(tokens, 72)
    plain, layer = linear(x), PackedLinear(linear)
    for made, expected in (
        (layer(x), plain),
        (layer(x, "swish"), torch.nn.functional.silu(plain)),
        (layer(x, "gelu", "tanh"), torch.nn.functional.gelu(plain, approximate="tanh")),
        (layer.times(x, other), plain * other),
        (layer.plus(x, other), plain + other),
    ):
        torch.testing.assert_close(made, expected, atol=2e-6, rtol=1e-5)
    assert torch.equal(layer.dense(), linear.weight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vectors_are_those_of_plain_layers(folder, dtype, monkeypatch):
    packed = sl.Embedder.load(str(folder), dtype=dtype, device="cpu")
    assert any(isinstance(module, PackedLinear) for module in packed._engine.model.modules())
    monkeypatch.setattr(loading, "can_pack", lambda dtype: False)
    plain = sl.Embedder.load(str(folder), dtype=dtype, device="cpu")
    assert not any(isinstance(module, PackedLinear) for module in plain._engine.model.modules())
    worst = 1 - (plain.embed(ITEMS) * packed.embed(ITEMS)).sum(1).min()
    assert worst < (1e-6 if dtype == "float32" else 2e-3)


def test_queries_of_many_lengths_need_few_products(folder, monkeypatch):
    """oneDNN makes a program for each number of rows, which takes a third of a query's time."""
    embedder = sl.Embedder.load(str(folder), device="cpu")
    queries = ["x" * count for count in range(1, 25)]
    rows: set[int] = set()
    plus = PackedLinear.plus

    def counted(layer: PackedLinear, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        rows.add(len(x))
        return plus(layer, x, other)

    monkeypatch.setattr(PackedLinear, "plus", counted)
    embedder.embed([queries[0]])  # and the head that all of them share
    rows.clear()
    vectors = np.concatenate([embedder.embed([query]) for query in queries])
    rows.discard(1)  # of the last layer
    assert len(rows) > 2 and not {count % MULTIPLE for count in rows} - {0}
    monkeypatch.setattr(loading, "can_pack", lambda dtype: False)
    plain = sl.Embedder.load(str(folder), device="cpu")
    assert (plain.embed(queries) * vectors).sum(1).min() > 1 - 1e-6


def test_equal_towers_are_found_equal_and_others_are_not(folder):
    first, second, third = (packed_of(folder) for _ in range(3))
    share_tower(first)
    share_tower(second)
    assert second.visual is first.visual
    weights = third.visual.get_submodule("blocks.0.attn.qkv")
    assert isinstance(weights, PackedLinear)
    other = torch.nn.Linear(weights.dense().shape[1], weights.dense().shape[0])
    other.weight.data = weights.dense() + 1e-3
    other.bias.data = weights.get_buffer("bias")
    third.visual.get_submodule("blocks.0.attn").qkv = PackedLinear(other)
    share_tower(third)
    assert third.visual is not first.visual


GROWTH = """
import torch
from sightline.model.packed import PackedLinear
from bench.watch import status
torch.set_grad_enabled(False)
layers = [PackedLinear(torch.nn.Linear(256, 256 + 64 * index)) for index in range(4)]
for layer in layers:
    layer(torch.zeros(90, 256))
before = status("VmRSS")
for rows in range(100, 400):
    for layer in layers:
        layer(torch.zeros(rows, 256))
print(status("VmRSS") - before)
"""


def test_every_number_of_rows_costs_no_memory_of_its_own():
    """1,200 shapes took 677 MB that were never given back."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) < 300
