"""The embedder as a user holds it, on a tiny random checkpoint."""

import logging
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

import sightline as sl
from sightline.model.weights import Checkpoint
from tests.parity.checkpoints import random_checkpoint

FOLDER = "tiny-embedder"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint") / FOLDER)


@pytest.fixture(scope="module")
def embedder(folder):
    return sl.Embedder.load(str(folder), device="cpu", dtype="float32")


def picture(colour, size=(64, 48)):
    return Image.new("RGB", size, colour)


def mixed():
    return [
        "a red bicycle",
        sl.Item(image=picture("red")),
        {"text": "same, in green", "image": picture("green")},
        sl.Item(video=[picture("red"), picture("blue")]),
        sl.Item(text=["one", "two"], image=[picture("red"), picture("blue", (200, 40))]),
        sl.Item(),
    ]


def test_anything_becomes_a_unit_vector_in_order(embedder):
    vectors = embedder.embed(mixed())
    assert vectors.shape == (6, 64) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for position, item in enumerate(mixed()):
        np.testing.assert_allclose(embedder.embed([item])[0], vectors[position], atol=1e-5)


def test_bf16_vectors_have_length_one(folder):
    half = sl.Embedder.load(str(folder), device="cpu", dtype="bfloat16")
    assert half.card.dtype == "bfloat16"
    np.testing.assert_allclose(np.linalg.norm(half.embed(mixed()), axis=1), 1, atol=1e-6)


def test_nothing_gives_no_vectors(embedder):
    assert embedder.embed([]).shape == (0, 64)
    assert embedder.embed([], precision="binary").shape == (0, 8)


def test_a_bad_item_is_named_by_its_position_and_the_stream_goes_on(embedder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    items = ["good", sl.Item(image=str(broken)), sl.Item(image=str(tmp_path / "absent.png")), {"txt": "typo"}, "fine"]
    with pytest.raises(sl.ItemError) as caught:
        embedder.embed(items)
    assert caught.value.position == 1 and caught.value.code == "corrupt"
    results = list(embedder.stream(items))
    assert [type(result).__name__ for result in results] == [
        "ndarray",
        "ItemError",
        "ItemError",
        "ItemError",
        "ndarray",
    ]
    assert [result.code for result in results[1:4]] == ["corrupt", "unreadable", "option"]
    np.testing.assert_allclose(results[4], embedder.embed(["fine"])[0], atol=1e-5)
    assert str(tmp_path) not in str(caught.value), "an error text names no path"


def test_one_item_instead_of_a_list_is_an_error(embedder):
    for wrong in ("text", sl.Item(text="a"), {"text": "a"}):
        with pytest.raises(sl.InputError, match="list"):
            embedder.embed(wrong)


def test_wrong_options_fail_before_any_work(embedder):
    with pytest.raises(sl.ConfigError, match="dim"):
        embedder.embed(["a"], dim=65)
    with pytest.raises(sl.ConfigError, match="precision"):
        embedder.embed(["a"], precision="int4")


def test_precisions(embedder):
    items = mixed()
    exact = embedder.embed(items)
    assert embedder.embed(items, precision="float16").dtype == np.float16
    integers = embedder.embed(items, precision="int8")
    assert integers.dtype == np.int8 and np.abs(integers).max(1).tolist() == [127] * len(items)
    assert np.array_equal(np.unpackbits(embedder.embed(items, precision="binary"), axis=1), exact > 0)


def test_instructions_change_vectors_and_an_items_own_goes_first(embedder):
    plain, told = embedder.embed(["a"])[0], embedder.embed(["a"], instruction="Find the page")[0]
    assert np.abs(plain - told).max() > 1e-3
    both = embedder.embed([sl.Item(text="a", instruction="Find the page."), "a"], instruction="Something else")
    np.testing.assert_allclose(both[0], told, atol=1e-5)
    assert np.abs(both[1] - told).max() > 1e-3


def test_a_stream_is_lazy_and_bounded(embedder):
    pulled = 0

    def items():
        nonlocal pulled
        for index in range(10_000):
            pulled += 1
            yield "word " * 40 + str(index)

    stream = embedder.stream(items())
    for _ in range(3):
        next(stream)
    stream.close()
    assert pulled < 1000


def test_over_long_text_keeps_its_beginning(folder):
    short = sl.Embedder.load(str(folder), device="cpu", dtype="float32", max_length=64)
    text = "word " * 500
    whole, longer = short.embed([text, text + "other end"])
    np.testing.assert_allclose(whole, longer, atol=1e-6)


def test_card_says_what_decides_the_vectors(embedder, folder):
    card = embedder.card
    assert card.model == str(folder) and card.dim == 64 and len(card.fingerprint) == 16
    assert (card.max_length, card.max_pixels, card.max_frames) == (8192, 1_843_200, 64)


def test_progress_is_written_to_standard_error_only(embedder, capsys):
    embedder.embed(["a", "b"], progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "2/2" in err


@pytest.mark.parametrize(
    "options", [{"device": "cuda:99"}, {"device": "toaster"}, {"dtype": "int3"}, {"max_length": 1}]
)
def test_load_refuses_what_it_cannot_do(folder, options):
    with pytest.raises(sl.ConfigError):
        sl.Embedder.load(str(folder), **{"device": "cpu", **options})


def test_ctrl_c_ends_the_loading(folder, monkeypatch):
    read = []
    tensors = Checkpoint._tensors

    def slow(self, names):
        for name, tensor in tensors(self, names):
            read.append(name)
            if len(read) == 3:
                os.kill(os.getpid(), signal.SIGINT)  # the main thread takes it, as it takes Ctrl-C
            time.sleep(0.05)
            yield name, tensor

    monkeypatch.setattr(Checkpoint, "_tensors", slow)
    with pytest.raises(KeyboardInterrupt):
        sl.Embedder.load(str(folder), device="cpu", dtype="float32")
    assert 3 <= len(read) < 10 < len(Checkpoint(folder).files)


def test_loading_says_where_it_runs(folder, caplog):
    with caplog.at_level(logging.INFO, "sightline"):
        sl.Embedder.load(str(folder), device="cpu")
    assert "on cpu in float32" in caplog.text


def test_urls_are_refused_unless_switched_on(embedder):
    (result,) = embedder.stream([sl.Item(image="https://example.org/a.png")])
    assert isinstance(result, sl.ItemError) and result.code == "url_off"


def test_it_satisfies_the_protocol(embedder):
    from sightline.protocols import EmbeddingModel

    assert isinstance(embedder, EmbeddingModel)
    assert embedder.count_tokens("") == 0 and embedder.count_tokens("two words") >= 2
