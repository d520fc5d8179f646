"""The numpy store: everything in memory, every search exact. The oracle that ``LanceStore`` must agree with."""

from __future__ import annotations

import dataclasses
import math
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sightline.errors import StoreError
from sightline.store.schema import (
    ColumnType,
    Filter,
    Found,
    OptimizeReport,
    Problem,
    Row,
    checked_rows,
    found,
    merged_columns,
    ranked,
    searchable,
    stored_columns,
    unit_vector,
)

BM25_K1: Final = 1.2
BM25_B: Final = 0.75
"""The usual constants of BM25 (Robertson and Zaragoza, 2009), those of Lance too."""


class ExactStore:
    """An ``ItemStore`` in memory. It forgets everything when closed.

    >>> import numpy as np
    >>> store = ExactStore(dim=2)
    >>> row = Row(id="1", path_id="p", path="/a", kind="text", text="a red bicycle", vector=np.array([3.0, 4.0]))
    >>> store.add([row])
    1
    >>> [round(hit.score, 3) for hit in store.search_vector(np.array([1.0, 0.0]), 5)]
    [0.6]
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise StoreError(f"an index needs vectors of at least one number, not {dim}")
        self._dim = dim
        self._rows: dict[str, Row] = {}
        self._columns: dict[str, ColumnType] = {}
        self._lock = threading.RLock()

    @property
    def dim(self) -> int:
        """Width E of the vectors."""
        return self._dim

    def writing(self) -> AbstractContextManager[None]:
        """Nothing to hold: no other process sees this store."""
        return nullcontext()

    def add(self, rows: Iterable[Row]) -> int:
        """Put rows in; a row with a known id replaces that row. Number of rows written."""
        unique, matrix = checked_rows(rows, self._dim)
        with self._lock:
            self._columns = merged_columns(self._columns, unique)
            for row, vector in zip(unique, matrix, strict=True):
                columns = stored_columns(row, self._columns)
                self._rows[row.id] = dataclasses.replace(row, vector=vector.astype(np.float32), columns=columns)
        return len(unique)

    def delete_paths(self, path_ids: Iterable[str]) -> int:
        """Take out all rows of these files. Number of rows taken out."""
        gone = set(path_ids)
        with self._lock:
            before = len(self._rows)
            self._rows = {row.id: row for row in self._rows.values() if row.path_id not in gone}
            return before - len(self._rows)

    def existing(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that the index holds."""
        return set(ids) & self._rows.keys()

    def ids(self) -> Iterator[str]:
        """Every id."""
        return iter(sorted(self._rows))

    def search_vector(self, query: NDArray[Any], k: int, where: Filter | None = None) -> list[Found]:
        """The k rows with the largest cosine to the query (E,), best first, equal scores by id."""
        unit = unit_vector(query, self._dim, "query")
        rows = self._passing(where)
        if not rows:
            return []
        matrix = np.stack([row.vector for row in rows])
        scores = matrix @ unit / np.linalg.norm(matrix, axis=1)
        return ranked((found(row, float(score)) for row, score in zip(rows, scores, strict=True)), k)

    def search_words(self, text: str, k: int, where: Filter | None = None) -> tuple[list[Found], list[Found]]:
        """Two ranked lists of rows whose title or text holds any of the words: by words, and by pieces."""
        passing = {row.id for row in self._passing(where)}
        query = unicodedata.normalize("NFKC", text)
        return self._ranked_by(_words, query, k, passing), self._ranked_by(_pieces, query, k, passing)

    def _ranked_by(self, split: Any, query: str, k: int, passing: set[str]) -> list[Found]:
        with self._lock:
            rows = list(self._rows.values())
        bags = [Counter(split(searchable(row.title, row.text))) for row in rows]
        mean = sum(bag.total() for bag in bags) / max(len(bags), 1)
        scores = np.zeros(len(rows))
        for term in set(split(query)):
            num_holding = sum(term in bag for bag in bags)
            rarity = math.log(1 + (len(bags) - num_holding + 0.5) / (num_holding + 0.5))
            for position, bag in enumerate(bags):
                times = bag[term]
                if times:
                    length = 1 - BM25_B + BM25_B * bag.total() / mean
                    scores[position] += rarity * times * (BM25_K1 + 1) / (times + BM25_K1 * length)
        pairs = zip(rows, scores, strict=True)
        return ranked((found(row, float(score)) for row, score in pairs if score > 0 and row.id in passing), k)

    def _passing(self, where: Filter | None) -> list[Row]:
        with self._lock:
            wanted = (where or Filter()).fitted(self._columns)
            return [row for row in self._rows.values() if wanted.passes(row)]

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids in the order asked; unknown ids are left out."""
        return [self._rows[one] for one in ids if one in self._rows]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Vector (E,) float32 by id; unknown ids are left out."""
        return {row.id: row.vector for row in self.get(ids)}

    def count(self, where: Filter | None = None) -> int:
        """Number of rows that the filter lets pass."""
        return len(self._passing(where))

    def paths(self) -> dict[str, str]:
        """Path by path id, of every file that has rows."""
        with self._lock:
            return {row.path_id: row.path for row in self._rows.values()}

    def columns(self) -> dict[str, ColumnType]:
        """The user columns and their types."""
        return dict(self._columns)

    def optimize(self) -> OptimizeReport:
        """Nothing to do in memory."""
        return OptimizeReport(rows=len(self._rows), files_before=0, files_after=0, vector_index=False, recall=None)

    def check(self) -> list[Problem]:
        """Memory holds no damaged rows."""
        return []

    def close(self) -> None:
        """Nothing to let go of."""


def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.lower())
    return unicodedata.normalize("NFC", "".join(c for c in plain if not unicodedata.combining(c)))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", _fold(text))


def _pieces(text: str) -> list[str]:
    folded = _fold(text)
    return [folded[start : start + size] for size in (2, 3) for start in range(len(folded) - size + 1)]
