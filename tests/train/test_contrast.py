"""A step's loss and gradients: the same in one pass and in many, for every kind of task."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sightline.model.weights import Checkpoint
from sightline.prep.tokens import Tokenizer
from sightline.train.config import Loss
from sightline.train.contrast import Contrast, contrast_step
from sightline.train.judging import Words, judged, judging_step
from sightline.train.losses import info_nce
from sightline.train.packing import chunks, cut, forward
from sightline.train.processes import Processes
from tests.train.tiny import Held, batch_of, folder_of, network_of, share_of

ALONE = Processes(torch.device("cpu"))
LOSS = Loss(dims=(16,), temperature=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("tiny") / "checkpoint")


def gradients(network, step, extra=()):
    network.zero_grad()
    loss, figures = step()
    loss.backward()
    named = dict(network.named_parameters())
    grads = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    return loss.item(), figures, grads


@pytest.mark.parametrize("kind", ["contrast", "classes", "graded", "distil", "yes_no"])
def test_many_passes_give_the_gradients_of_one(folder, kind):
    network = network_of(folder).requires_grad_(True)
    contrast = Contrast(network.config.text.hidden_size, LOSS)
    words = Words(network, Tokenizer(folder / "tokenizer.json"), Checkpoint(folder))
    whole = batch_of(folder, kind)
    small = share_of(network, whole, max_tokens=30)
    assert len(small.queries) > 1 and (kind == "yes_no" or len(small.documents) > 2)

    def step(batch):
        if kind == "yes_no":
            return judging_step(network, words, Loss(listwise=0.5), ALONE, batch)
        return contrast_step(network, contrast, ALONE, batch)

    once, figures, expected = gradients(network, lambda: step(whole))
    again, figures_again, found = gradients(network, lambda: step(small))
    assert again == pytest.approx(once, rel=1e-6, abs=1e-6) and figures_again == pytest.approx(figures, abs=1e-6)
    assert set(found) == set(expected) and len(found) > 40
    assert any(grad.abs().max() > 1e-3 for name, grad in found.items() if name.startswith("visual"))
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, atol=1e-5, rtol=1e-4, msg=name)


def test_a_large_batch_keeps_only_its_vectors(folder):
    """What autograd holds between the passes does not grow with the tokens."""
    network = network_of(folder).requires_grad_(True)
    contrast = Contrast(network.config.text.hidden_size, LOSS)

    def held(batch):
        counted = Held()
        with counted:
            contrast_step(network, contrast, ALONE, batch)
        return counted.values

    whole = batch_of(folder, "contrast", num=12)
    assert held(share_of(network, whole, max_tokens=60)) < held(whole) / 20


def test_the_loss_is_that_of_every_width_and_precision(folder):
    network = network_of(folder)
    batch = batch_of(folder, "contrast")
    queries, documents = forward(network, batch.queries[0]), forward(network, batch.documents[0])
    same = torch.from_numpy(batch.same)

    def at(width, coarse=lambda x: x):
        q, d = (F.normalize(coarse(F.normalize(side[:, :width], dim=-1)), dim=-1) for side in (queries, documents))
        return info_nce(q, d, same=same, temperature=0.1, margin=0.1, symmetric=False, beside=True)

    loss = Loss(dims=(16, 32, 512), temperature=0.1, quantised=(), beside=True)
    found, _ = contrast_step(network, Contrast(32, loss), ALONE, batch)
    assert found.item() == pytest.approx((at(16) + at(32)).item() / 2, rel=1e-5)
    both = Loss(dims=(), temperature=0.1, quantised=("binary",), beside=True)
    found, _ = contrast_step(network, Contrast(32, both), ALONE, batch)
    sign = at(32, lambda x: torch.where(x > 0, 1.0, -1.0))
    assert found.item() == pytest.approx((at(32) + sign).item() / 2, rel=1e-5)


def test_rows_cut_from_a_pack_keep_their_vectors(folder):
    network = network_of(folder)
    pack = batch_of(folder, "contrast").documents[0]
    pads = (network.config.image_token_id, network.config.video_token_id)
    whole = forward(network, pack)
    rows = [7, 2, 11, 0]
    torch.testing.assert_close(forward(network, cut(pack, rows, pads)), whole[rows], atol=1e-5, rtol=1e-5)
    parts = chunks(pack, 25, pads)
    assert len(parts) > 2 and all(sum(part.lengths) <= 25 or len(part.lengths) == 1 for part in parts)
    torch.testing.assert_close(torch.cat([forward(network, part) for part in parts]), whole, atol=1e-5, rtol=1e-5)


def test_the_loss_of_words_by_hand():
    odds = torch.tensor([2.0, -1.0, 0.0, 1.0])
    loss, figures = judged(odds, (2, 2), Loss(listwise=1.0))
    bce = np.log1p(np.exp(-2)) + np.log1p(np.exp(-1)) + np.log(2) + np.log1p(np.exp(1))
    ranking = np.log1p(np.exp(-3)) + np.log1p(np.exp(1))
    assert loss.item() == pytest.approx(bce / 4 + ranking / 2, rel=1e-5)
    assert figures["accuracy"] == 0.5
    balanced, _ = judged(torch.tensor([2.0, -1.0, 0.0]), (3,), Loss(balanced=True))
    expected = (np.log1p(np.exp(-2)) + (np.log1p(np.exp(-1)) + np.log(2)) / 2) / 2
    assert balanced.item() == pytest.approx(expected, rel=1e-5)
