"""Vectors made shorter or coarser, and how each form is compared.

========= ================================== ============================ =============================
precision stored as                          compared by                  error against float32
========= ================================== ============================ =============================
float32   (N, E) float32, length 1           dot product                  none
float16   (N, E) float16, length 1 +- 5e-4   dot product in float32       at most 2**-11 of each value
int8      (N, E) int8, round(127 x / max|x|) cosine of the integers       at most max|x| / 254 a value
binary    (N, E / 8) uint8, sign bits packed Hamming distance, then       rank only: rescore the best
                                             rescoring with float vectors with float vectors
========= ================================== ============================ =============================

The int8 scale is each vector's own largest value: cosine does not see it, so it need not be stored.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError
from sightline.types import PRECISIONS, Precision

MIN_DIM: Final = 64
"""Smallest width the models were trained to be cut to (model card)."""


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The vector (E,) at length 1; None where it has no direction: not finite, or all zero.

    >>> unit(np.array([3, 4], np.float32)), unit(np.array([np.nan, 1], np.float32)), unit(np.zeros(2, np.float32))
    (array([0.6, 0.8], dtype=float32), None, None)
    """
    if not np.isfinite(vector).all() or not vector.any():
        return None
    wide = vector.astype(np.float64)  # squares of what float32 holds can leave its range
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def shorten(vectors: NDArray[np.float32], dim: int | None) -> NDArray[np.float32]:
    """The first ``dim`` values of each vector, at length 1 again (Matryoshka).

    Args:
        vectors: (N, E) float32.
        dim: from 64 to E; None keeps E.

    Raises:
        ConfigError: dim out of range.

    >>> shorten(np.ones((1, 128), np.float32), 64).shape
    (1, 64)
    """
    full = vectors.shape[-1]
    if dim is None or dim == full:
        return vectors
    if not min(MIN_DIM, full) <= dim <= full:
        raise ConfigError(f"dim must be from {min(MIN_DIM, full)} to {full}, not {dim}")
    cut = vectors[..., :dim]
    return cut / np.linalg.norm(cut, axis=-1, keepdims=True)  # type: ignore[no-any-return]


def convert(vectors: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """Unit vectors in another precision; see the table above.

    Args:
        vectors: (N, E) float32 of length 1.
        precision: float32, float16, int8 or binary.

    Returns:
        (N, E) of that type; for binary (N, E / 8) uint8, most significant bit first, bit 1 where the value is over 0.

    Raises:
        ConfigError: unknown precision, or binary with E no multiple of 8.

    >>> convert(np.array([[0.8, -0.6]], np.float32), "int8")
    array([[127, -95]], dtype=int8)
    """
    if precision == "float32":
        return vectors.astype(np.float32, copy=False)
    if precision == "float16":
        return vectors.astype(np.float16)
    if precision == "int8":
        largest = np.abs(vectors).max(axis=-1, keepdims=True)
        integers: NDArray[np.int8] = np.rint(vectors * (127 / largest)).astype(np.int8)
        return integers
    if precision == "binary":
        if vectors.shape[-1] % 8:
            raise ConfigError(f"binary vectors need a dim that is a multiple of 8, not {vectors.shape[-1]}")
        return np.packbits(vectors > 0, axis=-1)
    raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def similarity(queries: NDArray[Any], documents: NDArray[Any], precision: Precision = "float32") -> NDArray[np.float32]:
    """How near each query is to each document, higher is nearer.

    Args:
        queries: (Q, …) vectors in ``precision``.
        documents: (N, …) vectors in the same.
        precision: of both.

    Returns:
        (Q, N): cosine; for binary 1 - 2 x Hamming distance / E, which is the cosine of the signs.
    """
    if precision == "binary":
        counts = np.unpackbits(queries, axis=-1).astype(np.float32) * 2 - 1
        others = np.unpackbits(documents, axis=-1).astype(np.float32) * 2 - 1
        return (counts @ others.T / counts.shape[-1]).astype(np.float32)  # type: ignore[no-any-return]
    wide_queries, wide_documents = queries.astype(np.float32), documents.astype(np.float32)
    dots = wide_queries @ wide_documents.T
    lengths = np.linalg.norm(wide_queries, axis=-1)[:, None] * np.linalg.norm(wide_documents, axis=-1)[None]
    return (dots / lengths).astype(np.float32)  # type: ignore[no-any-return]
