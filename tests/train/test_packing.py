"""Prompts as the model takes them in training."""

import numpy as np
import torch

from sightline.prep.tokens import Tokenizer
from sightline.train.packing import Side, forward, reranking_pack
from tests.train.tiny import folder_of, network_of


def test_a_picture_in_many_prompts_goes_through_the_tower_once(tmp_path, monkeypatch):
    """States and gradients are those of the tower seeing it in every prompt anew."""
    folder = folder_of(tmp_path / "checkpoint")
    network, tokenizer = network_of(folder).requires_grad_(True), Tokenizer(folder / "tokenizer.json")
    rng = np.random.default_rng(0)
    tall, wide = (Side(image=rng.integers(0, 255, shape, np.uint8)) for shape in ((64, 32, 3), (32, 96, 3)))
    film = Side(frames=rng.integers(0, 255, (4, 32, 64, 3), np.uint8))
    pairs = [(Side(text), side) for text in ("dog", "red train", "犬") for side in (tall, wide, film, Side("beach"))]
    seen = []
    tower = network.vision_features

    def counted(patches, grids):
        seen.extend(grids)
        return tower(patches, grids)

    monkeypatch.setattr(network, "vision_features", counted)

    def gradients():
        return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    states = forward(network, reranking_pack(pairs, tokenizer))
    states.square().sum().backward()
    together = gradients()
    assert sorted(seen) == sorted([(1, 4, 2), (1, 2, 6), (2, 2, 4)])
    network.zero_grad()
    alone = torch.cat([forward(network, reranking_pack([pair], tokenizer)) for pair in pairs])
    alone.square().sum().backward()
    torch.testing.assert_close(states, alone, atol=1e-5, rtol=1e-4)
    for name, grad in gradients().items():
        torch.testing.assert_close(together[name], grad, atol=1e-4, rtol=1e-3, msg=name)
    assert any(grad.abs().max() > 1e-3 for name, grad in together.items() if name.startswith("visual"))
