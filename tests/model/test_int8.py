"""Weights of one byte: the same layer up to rounding, refused where the machine has no products for them."""

import numpy as np
import pytest
import torch

import sightline as sl
from sightline import builtin
from sightline.engine import loading
from sightline.engine.towers import share_tower
from sightline.errors import ConfigError
from sightline.model.int8 import Int8DecoderMlp, Int8Linear, Rounded, can_int8, to_int8
from sightline.model.text import DecoderMlp
from sightline.model.weights import Checkpoint
from sightline.protocols import ItemLike
from tests.parity.checkpoints import TEXTS, TINY, random_checkpoint

pytestmark = pytest.mark.skipif(not can_int8(), reason="this CPU has no int8 products")


def plain(linear: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """The same rounding in the plainest words, in float64."""
    weight = linear.weight.double()
    w_scale = weight.abs().amax(1, keepdim=True) / 127
    x_scale = x.double().abs().amax(1, keepdim=True) / 127
    whole = (x.double() / x_scale + 0.5).floor() @ (weight / w_scale).round().t()
    bias = 0.0 if linear.bias is None else linear.bias.double()
    return whole * x_scale * w_scale.t() + bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 5, 130])
@torch.no_grad()
def test_a_layer_is_what_its_rounding_says(tokens, bias):
    torch.manual_seed(tokens)
    linear = torch.nn.Linear(96, 72, bias=bias)
    x = torch.randn(tokens, 96) * torch.logspace(-3, 3, tokens)[:, None]
    found, expected = Int8Linear(linear, Rounded())(x), plain(linear, x)
    # a value that lies on the border of two steps may fall to either
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 2e-3
    whole = linear(x)
    assert torch.nn.functional.cosine_similarity(found, whole).min() > 0.9995


@torch.no_grad()
def test_a_spent_input_gives_the_same_and_is_not_remembered():
    torch.manual_seed(0)
    shared = Rounded()
    x = torch.randn(4, 64)
    rounded, scales = shared.of(x.clone())
    again, same = shared.of(x, spent=True)
    assert torch.equal(again, rounded) and torch.equal(same, scales) and again.dtype == torch.uint8
    x.copy_(torch.randn(4, 64))  # written over by now: what it was must not come back for what it is
    assert not torch.equal(shared.of(x)[0], rounded)


@torch.no_grad()
def test_the_mlp_is_what_its_products_say():
    torch.manual_seed(1)
    mlp = DecoderMlp(Checkpoint(builtin.path("embedder")).config.text)
    for parameter in mlp.parameters():
        parameter.normal_(0.0, 0.1)
    x, normed = torch.randn(9, 256), torch.randn(9, 256) * torch.logspace(-2, 2, 9)[:, None]
    whole = mlp.added(x, normed)
    shared = Rounded()
    for name in ("gate_proj", "up_proj", "down_proj"):
        setattr(mlp, name, Int8Linear(getattr(mlp, name), shared))
    plain = mlp.added(x, normed)
    joined = Int8DecoderMlp(mlp).added(x.clone(), normed)
    torch.testing.assert_close(joined, plain, atol=1e-4, rtol=1e-3)
    assert torch.nn.functional.cosine_similarity(joined - x, whole - x).min() > 0.999


@torch.no_grad()
def test_a_loud_token_does_not_silence_the_others():
    torch.manual_seed(0)
    layer = Int8Linear(torch.nn.Linear(64, 64), Rounded())
    quiet = torch.randn(3, 64)
    beside = torch.cat([quiet, 1e4 * torch.randn(1, 64), torch.zeros(1, 64)])
    assert torch.equal(layer(beside)[:3], layer(quiet))
    assert torch.equal(layer(beside)[4], layer.get_buffer("bias"))


@torch.no_grad()
def test_layers_share_the_rounding_of_one_input_and_of_no_other():
    torch.manual_seed(0)
    shared = Rounded()
    first, second = (Int8Linear(torch.nn.Linear(64, 32), shared) for _ in range(2))
    inputs = [torch.randn(4, 64) for _ in range(3)]
    together = [(first(x), second(x)) for x in inputs]
    for x, (one, other) in zip(inputs, together, strict=True):
        shared.of(torch.zeros(1, 64))
        assert torch.equal(first(x), one) and torch.equal(second(x.clone()), other)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_vectors_and_scores_stay_near(tmp_path, stored):
    folder = random_checkpoint(tmp_path / "tiny", TINY, dtype=stored)
    items: list[ItemLike] = [
        *TEXTS[:4],
        sl.Item(image=np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)),
    ]
    whole, rounded = (sl.Embedder.load(str(folder), dtype=dtype, device="cpu") for dtype in ("float32", "int8"))
    assert rounded.card.dtype == "int8" and rounded.card.fingerprint == whole.card.fingerprint
    assert (whole.embed(items) * rounded.embed(items)).sum(1).min() > 0.99


def test_equal_towers_are_still_found_equal_and_others_are_not(tmp_path):
    folder = random_checkpoint(tmp_path / "tiny", TINY)
    checkpoint = Checkpoint(folder)
    build = lambda: checkpoint.build(torch.device("cpu"), torch.float32)  # noqa: E731
    first, second, changed = to_int8(build()), to_int8(build()), build()
    changed.visual.get_submodule("blocks.0.mlp.linear_fc1").get_parameter("weight").data[0, 0] += 0.5
    to_int8(changed)
    for network in (first, second, changed):
        share_tower(network)
    assert second.visual is first.visual and changed.visual is not first.visual


def test_a_machine_without_the_products_is_told(tmp_path, monkeypatch):
    folder = random_checkpoint(tmp_path / "tiny", TINY)
    monkeypatch.setattr(loading, "can_int8", lambda: False)
    with pytest.raises(ConfigError, match="VNNI"):
        sl.Embedder.load(str(folder), dtype="int8", device="cpu")
    with pytest.raises(ConfigError, match="float32, bfloat16, float16, int8"):
        sl.Embedder.load(str(folder), dtype="int4", device="cpu")
