"""Numbers, not words, from the model: short form, and the cases by name."""

import logging

import numpy as np
import pytest
import torch

import sightline as sl
from sightline.engine.runner import CALM_PASSES, is_vector
from sightline.model.vl import QwenVL
from sightline.model.weights import Checkpoint
from sightline.model.wide import widened
from sightline.vectors import unit
from tests.parity.checkpoints import random_checkpoint
from tests.torture.numbers import every_pass, trials


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", dtype="bfloat16")


def test_nothing_is_lost_and_nothing_is_no_number():
    assert [tally for tally in trials(200, 1) if not tally.clean] == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_that_is_no_number_is_computed_again_in_float32_and_then_refused(folder, bad, dtype):
    embedder = sl.Embedder.load(str(folder), device="cpu", dtype=dtype)
    exact = sl.Embedder.load(str(folder), device="cpu", dtype="float32").embed(["one", "two", "three"])
    given = embedder.embed(["one", "two", "three"])

    def first_of_the_narrow(run, network, ids):
        states = run()
        if network is embedder._engine.model:
            states[0] = bad
        return states

    with every_pass(first_of_the_narrow):
        found = embedder.embed(["one", "two", "three"])
    spoilt = (
        [place for place in range(3) if not np.array_equal(found[place], given[place])] if dtype != "float32" else []
    )
    assert len(spoilt) <= 1, "the others keep the vectors of their batch"
    np.testing.assert_allclose(found[spoilt], exact[spoilt], atol=1e-5)

    def all_of_them(run, network, ids):
        return torch.full_like(run(), bad)

    with every_pass(all_of_them):
        results = list(embedder.stream(["one", "two"]))
        assert [getattr(result, "code", None) for result in results] == ["nan", "nan"]
        with pytest.raises(sl.ItemError, match="not finite"):
            embedder.hidden(["one"])
    np.testing.assert_allclose(embedder.embed(["one", "two", "three"]), given, atol=1e-5)


def test_a_reranker_gives_no_score_that_is_no_number(folder):
    reranker = sl.Reranker.load(str(folder), device="cpu", dtype="float32")
    with every_pass(lambda run, network, ids: torch.full_like(run(), torch.nan)), pytest.raises(sl.ItemError) as caught:
        reranker.score("query", ["document"])
    assert caught.value.code == "nan"


def test_a_head_that_is_no_number_is_not_remembered(folder):
    """One bad pass over the head that all prompts share must not spoil what comes later."""
    embedder = sl.Embedder.load(str(folder), device="cpu", dtype="float32")
    wanted = embedder.embed(["one"])
    embedder._engine._heads.clear()
    real = embedder._engine.model.prefix_states
    embedder._engine.model.prefix_states = lambda *args, **options: [  # type: ignore[method-assign]
        (keys * torch.nan, values) for keys, values in real(*args, **options)
    ]
    np.testing.assert_allclose(embedder.embed(["one"]), wanted, atol=1e-5)
    del embedder._engine.model.prefix_states
    np.testing.assert_allclose(embedder.embed(["one"]), wanted, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-40, 1e30])
def test_numbers_whose_squares_leave_the_range_still_make_a_unit_vector(scale):
    vector = unit(np.array([3, -4], np.float32) * np.float32(scale))
    assert vector is not None
    np.testing.assert_allclose(vector, np.array([0.6, -0.8]), atol=1e-5)


def test_a_cut_without_direction_is_refused(folder):
    """The first 32 values may be zero though the vector is not."""
    embedder = sl.Embedder.load(str(folder), device="cpu", dtype="float32")
    assert unit(np.array([0, 0, 1], np.float32)[:2]) is None
    assert embedder.embed(["one"], dim=64).shape == (1, 64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_second_opinion_is_the_float32_network_and_leaves_the_first_alone(folder, dtype):
    narrow = Checkpoint(folder).build(torch.device("cpu"), dtype)
    check_second_opinion(narrow, exact_of(narrow))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_second_opinion_of_a_loaded_model(folder, dtype):
    """Whatever order its weights lie in on this machine."""
    network = sl.Embedder.load(str(folder), device="cpu", dtype=dtype)._engine.model
    check_second_opinion(network, exact_of(Checkpoint(folder).build(torch.device("cpu"), torch.bfloat16)))


def exact_of(narrow):
    exact = QwenVL(narrow.config)
    exact.load_state_dict({name: tensor.float() for name, tensor in narrow.state_dict().items()})
    return exact.eval()


def check_second_opinion(narrow, exact):
    before = {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in narrow.named_parameters()}
    wide = widened(narrow)
    patches, grid = torch.randint(0, 256, (16, 768), dtype=torch.uint8), (1, 4, 4)
    with torch.no_grad():
        for ours, theirs in zip(
            wide.vision_features([patches], [grid]), exact.vision_features([patches], [grid]), strict=True
        ):
            torch.testing.assert_close(ours, theirs)
        ids, positions = torch.arange(10), torch.arange(10).expand(3, 10)
        torch.testing.assert_close(wide(ids, positions, [6, 4]), exact(ids, positions, [6, 4]))
    assert before == {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in narrow.named_parameters()}


def test_a_shortage_of_memory_is_remembered_for_a_while(folder, caplog):
    embedder = sl.Embedder.load(str(folder), device="cpu", dtype="float32")
    engine = embedder._engine
    embedder.embed(["start"])
    most, limit, refused, sizes = engine.max_tokens, 100, 0, []

    def scarce(run, network, ids):
        nonlocal refused
        if len(ids) > limit:
            refused += 1
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(ids))
        return run()

    words = [f"a text of some words, number {index}" for index in range(200)]
    with every_pass(scarce), caplog.at_level(logging.WARNING):
        embedder.embed(words)
        assert engine.max_tokens <= 2 * limit
        before = refused
        embedder.embed(words[:50])
    assert refused - before <= 1, "later batches are cut to what fits"
    while engine.max_tokens < most:
        quiet = engine.max_tokens
        for _ in range(CALM_PASSES):
            embedder.embed(["one"])
        assert engine.max_tokens == min(2 * quiet, most)


def test_the_engine_says_what_a_vector_is():
    assert is_vector(np.ones(2)) and not is_vector(np.zeros(2))
    assert not is_vector(np.array([1, np.inf])) and not is_vector(sl.CapacityError("too much"))
