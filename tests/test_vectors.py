"""Shorter and coarser vectors, and that each keeps the order it promises."""

import numpy as np
import pytest

from sightline.errors import ConfigError
from sightline.vectors import convert, shorten, similarity


@pytest.fixture
def vectors():
    drawn = np.random.default_rng(0).standard_normal((200, 256)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_shortened_vectors_have_length_one_and_keep_their_direction(vectors):
    short = shorten(vectors, 64)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(short / vectors[:, :64], (short / vectors[:, :64])[:, :1].repeat(64, 1), rtol=1e-4)
    assert shorten(vectors, None) is vectors


@pytest.mark.parametrize("dim", [0, 63, 257, -1])
def test_dims_out_of_range_are_refused(vectors, dim):
    with pytest.raises(ConfigError, match="64 to 256"):
        shorten(vectors, dim)


def test_int8_error_is_what_the_table_says(vectors):
    integers = convert(vectors, "int8")
    scale = np.abs(vectors).max(1, keepdims=True) / 127
    assert np.abs(integers * scale - vectors).max() <= (np.abs(vectors).max(1) / 254).max() + 1e-7
    exact, coarse = similarity(vectors, vectors), similarity(integers, integers, "int8")
    assert np.abs(exact - coarse).max() < 5e-3


def test_binary_packs_signs_and_compares_by_hamming(vectors):
    bits = convert(vectors, "binary")
    assert bits.shape == (200, 32) and bits.dtype == np.uint8
    assert np.array_equal(np.unpackbits(bits[0]), vectors[0] > 0)
    hamming = (np.unpackbits(bits[:1], axis=1) != np.unpackbits(bits, axis=1)).sum(1)
    np.testing.assert_allclose(similarity(bits[:1], bits, "binary")[0], 1 - 2 * hamming / 256, atol=1e-6)


def test_unknown_precision_and_odd_binary_are_refused(vectors):
    with pytest.raises(ConfigError, match="float32, float16, int8, binary"):
        convert(vectors, "int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple of 8"):
        convert(vectors[:, :65], "binary")
