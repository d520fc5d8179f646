"""Hard negatives and doubtful positives, found by an embedder in its own index (technical report, section 3.3).

All documents that the rows name, and those of a corpus beside them, are embedded and indexed; then for each query:

- *positives* that do not score over ``min_positive`` (the report's t+) are dropped, and the row with the last of them;
- *negatives* are the best-ranked documents that are no positive and score under the mean of the positives plus
  ``margin`` (the report's delta-): what scores higher is more likely an answer that nobody has clicked.

The report does not say its two thresholds. Ours are those of ``Rules``; look at the counts, and at some rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, InputError, ItemError
from sightline.media.source import is_url
from sightline.protocols import EmbeddingModel, ItemLike
from sightline.store.exact import ExactStore
from sightline.store.schema import Found, ItemStore, Row
from sightline.train.records import Record, Records, item_of
from sightline.types import Item

IN_MEMORY: Final = 1000
"""Documents up to which the index is the one in memory; beyond, it is the one on disk, scanned exactly."""
AT_ONCE: Final = 512
"""Documents that go into the index together, and rows whose documents are fetched from it together."""


class Judge(Protocol):
    """A reranker as far as it is needed here."""

    def log_odds(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Logit of "yes" minus logit of "no", (N,)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is kept.

    Attributes:
        negatives: of each query, those that its row has already included.
        min_positive: t+, the cosine that a positive must be over. 0.3 is under what related pairs score with the
            published models and over most unrelated ones; -1 keeps all.
        margin: delta-, added to the mean cosine of the positives; a negative scores under the sum.
        skip: ranks left out at the top, positives not counted.
        min_negatives: a row with fewer is dropped. Distillation, for one, wants equally many of each row.
        instruction: of queries without one of their own; None is the model's.
    """

    negatives: int = 7
    min_positive: float = 0.3
    margin: float = 0.0
    skip: int = 0
    min_negatives: int = 0
    instruction: str | None = None

    def __post_init__(self) -> None:
        for name in ("negatives", "skip", "min_negatives"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not -1 <= self.min_positive < 1:
            raise ConfigError(f"min_positive is a cosine from -1 to 1, not {self.min_positive}")
        if not -2 <= self.margin <= 2:
            raise ConfigError(f"margin is a difference of cosines from -2 to 2, not {self.margin}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mined:
    """What was kept, and what was dropped and why.

    ``rows == kept + dropped_query + dropped_unreadable + dropped_weak + dropped_few``.

    Attributes:
        rows: rows read.
        kept: rows written.
        dropped_query: rows whose query cannot be read.
        dropped_unreadable: rows none of whose positives can be read.
        dropped_weak: rows none of whose positives scores over ``min_positive``.
        dropped_few: rows with fewer than ``min_negatives`` negatives.
        positives: written.
        positives_weak: dropped because they score too low; those of dropped rows included.
        positives_unreadable: dropped because they cannot be read; likewise.
        positives_repeated: dropped because the row has one of equal content.
        negatives: written.
        negatives_wrong: of the rows' own, dropped because they are a positive of the same query or cannot be read.
        near: candidates passed over because they score too high.
        short: rows written with fewer negatives than were asked for.
        documents: in the index, each content once.
        documents_unreadable: that could not be embedded.
    """

    rows: int
    kept: int
    dropped_query: int
    dropped_unreadable: int
    dropped_weak: int
    dropped_few: int
    positives: int
    positives_weak: int
    positives_unreadable: int
    positives_repeated: int
    negatives: int
    negatives_wrong: int
    near: int
    short: int
    documents: int
    documents_unreadable: int


def mine(
    records: Records,
    out: Path,
    embedder: EmbeddingModel,
    rules: Rules | None = None,
    *,
    corpus: Iterable[Item] = (),
    judge: Judge | None = None,
) -> Mined:
    """Writes rows like those read, with refined positives and hard negatives, in their order.

    The same data, model and rules give the same file.

    Args:
        records: the rows.
        out: JSONL file, written under another name until it is whole. Paths in it are relative to its folder.
        embedder: scores.
        rules: thresholds and numbers; None takes the defaults.
        corpus: further documents that negatives may come from.
        judge: a reranker whose log-odds of the first positive and the negatives become ``teacher``.

    Raises:
        ConfigError: ``out`` is no .jsonl file or has no folder.
        InputError: a bad row.
    """
    rules = rules or Rules()
    if out.suffix != ".jsonl":
        raise ConfigError(f"rows are written as JSONL: --out needs a name that ends in .jsonl, not {out.name!r}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent} to write into")
    names = Contents()
    documents: dict[str, Item] = {}
    answers: dict[str, set[str]] = {}
    for record in records:
        right = [names.of(item) for item in record.positives]
        documents.update(zip([names.of(item) for item in record.negatives], record.negatives, strict=True))
        documents.update(zip(right, record.positives, strict=True))
        for group in _groups(record, names):
            answers.setdefault(group, set()).update(right)
    for item in corpus:
        documents.setdefault(names.of(item), item)

    partial = out.with_name(f".{out.name}.partial")
    tally: Counter[str] = Counter(rows=len(records))
    with _index(embedder.card.dim, len(documents)) as store:
        for row in (rows := _rows(embedder, documents)):
            store.add([row, *islice(rows, AT_ONCE - 1)])
        tally["documents"] = store.count()
        tally["documents_unreadable"] = len(documents) - tally["documents"]
        miner = _Miner(rules, store, documents, names, answers, tally)
        try:
            with partial.open("w", encoding="utf-8") as file:
                questions = (_question(record, rules) for record in records)
                for first in (pairs := zip(records, embedder.stream(questions), strict=True)):
                    for kept in miner.window([first, *islice(pairs, AT_ONCE - 1)]):
                        file.write(_line(kept, judge, rules, out.absolute().parent) + "\n")
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    return Mined(**{name: tally[name] for name in Mined.__slots__})


class _Miner:
    """One row after the other, with what all of them share."""

    def __init__(
        self,
        rules: Rules,
        store: ItemStore,
        documents: dict[str, Item],
        names: Contents,
        answers: dict[str, set[str]],
        tally: Counter[str],
    ) -> None:
        self.rules, self.store, self.documents = rules, store, documents
        self.names, self.answers, self.tally = names, answers, tally

    def window(self, pairs: Sequence[tuple[Record, NDArray[Any] | ItemError]]) -> Iterator[Record]:
        """The rows that are kept, as they are kept."""
        named = {self.names.of(item) for record, _ in pairs for item in (*record.positives, *record.negatives)}
        vectors = self.store.vectors(sorted(named))
        for record, vector in pairs:
            if isinstance(vector, ItemError):
                self.tally["dropped_query"] += 1
                continue
            kept = self._row(record, vector / np.linalg.norm(vector), vectors)
            if kept is not None:
                yield kept

    def _row(self, record: Record, unit: NDArray[Any], vectors: dict[str, NDArray[np.float32]]) -> Record | None:
        right = self._unique(record.positives)
        self.tally["positives_repeated"] += len(record.positives) - len(right)
        cosines = {
            name: float(vectors[name] @ unit / np.linalg.norm(vectors[name])) for name in right if name in vectors
        }
        self.tally["positives_unreadable"] += len(right) - len(cosines)
        good = {name: score for name, score in cosines.items() if score > self.rules.min_positive}
        self.tally["positives_weak"] += len(cosines) - len(good)
        if not good:
            self.tally["dropped_weak" if cosines else "dropped_unreadable"] += 1
            return None
        barred = {self.names.of(record.query)}.union(*(self.answers[group] for group in _groups(record, self.names)))
        own = [name for name in self._unique(record.negatives) if name not in barred and name in vectors]
        self.tally["negatives_wrong"] += len(record.negatives) - len(own)
        ceiling = sum(good.values()) / len(good) + self.rules.margin
        found = self._negatives(unit, barred | set(own), ceiling, self.rules.negatives - len(own))
        wrong = [*own, *found]
        if len(wrong) < self.rules.min_negatives:
            self.tally["dropped_few"] += 1
            return None
        self.tally["kept"] += 1
        self.tally["positives"] += len(good)
        self.tally["negatives"] += len(wrong)
        self.tally["short"] += len(wrong) < self.rules.negatives
        return replace(
            record,
            positives=tuple(right[name] for name in good),
            negatives=tuple(self.documents[name] for name in wrong),
            teacher=None,
        )

    def _unique(self, items: Sequence[Item]) -> dict[str, Item]:
        """Items by content, each content once, in order."""
        unique: dict[str, Item] = {}
        for item in items:
            unique.setdefault(self.names.of(item), item)
        return unique

    def _negatives(self, unit: NDArray[Any], barred: set[str], ceiling: float, wanted: int) -> list[str]:
        """The best documents that are not barred and score under the ceiling."""
        if wanted <= 0:
            return []
        total = self.store.count()
        depth = wanted + self.rules.skip + len(barred) + 16
        while True:
            others = [hit for hit in self.store.search_vector(unit, depth) if hit.id not in barred]
            below = [hit for hit in others[self.rules.skip :] if hit.score < ceiling]
            if len(below) >= wanted or depth >= total:
                self.tally["near"] += _above(others[self.rules.skip :], ceiling)
                return [hit.id for hit in below[:wanted]]
            depth *= 4


def _above(hits: Sequence[Found], ceiling: float) -> int:
    return sum(hit.score >= ceiling for hit in hits)


def _question(record: Record, rules: Rules) -> Item:
    """The query with the instruction that it is embedded by."""
    told = record.query.instruction or record.instruction or rules.instruction
    return replace(record.query, instruction=told)


def _groups(record: Record, names: Contents) -> list[str]:
    """What rows have in common whose answers answer each other: an equal query under one instruction, or a key."""
    told = record.query.instruction or record.instruction or ""
    groups = [f"query {names.of(record.query)} {told}"]
    return groups if record.key is None else [*groups, f"key {record.key}"]


def _rows(embedder: EmbeddingModel, documents: dict[str, Item]) -> Iterator[Row]:
    """Documents with their vectors; those that cannot be read are left out."""
    for name, vector in zip(documents, embedder.stream(documents.values()), strict=True):
        if not isinstance(vector, ItemError):
            yield Row(id=name, path_id=name, path=name, kind="text", vector=vector)


@contextmanager
def _index(dim: int, count: int) -> Iterator[ItemStore]:
    """An empty index for so many documents, gone afterwards."""
    if count <= IN_MEMORY:
        yield ExactStore(dim)
        return
    from sightline.store.lance import LanceStore

    with tempfile.TemporaryDirectory(prefix="sightline-mine-") as folder:
        store = LanceStore(Path(folder), dim=dim)
        try:
            yield store
        finally:
            store.close()


# --- what an item says and shows -------------------------------------------------------------------------------------


class Contents:
    """Names of items by their content: equal words, equal bytes of pictures and videos, whatever their paths."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    def of(self, item: Item) -> str:
        """32 hex digits. Case, spacing and compatible forms of words make no difference.

        >>> names = Contents()
        >>> names.of(Item(text="A  red Bicycle ")) == names.of(Item(text="a red bicycle"))
        True
        """
        said = [" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in item.texts]
        shown = [self._seen(part) for part in (item.image, item.video)]
        return hashlib.blake2b(repr((said, shown)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _seen(self, source: Any) -> Any:
        if isinstance(source, (list, tuple)):
            return [self._seen(part) for part in source]
        if isinstance(source, str) and not is_url(source):
            if source not in self._files:
                self._files[source] = _digest(Path(source))
            return self._files[source]
        return hashlib.blake2b(source, digest_size=16).hexdigest() if isinstance(source, bytes) else source


def _digest(path: Path) -> str:
    """Hash of a file's bytes; of its name where it cannot be read, which embedding it will report."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return f"unread {path}"


# --- files -----------------------------------------------------------------------------------------------------------


def read_corpus(path: Path) -> Iterator[Item]:
    """Documents of a JSONL file: on each line a text, or an object with the keys of an item; paths as in rows.

    Raises:
        InputError: it cannot be read, or a line is neither.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    try:
                        value = json.loads(line)
                    except ValueError:
                        raise InputError(f"{where}: not a line of JSON") from None
                    yield item_of(value, path.absolute().parent, where, "document")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read") from None


def _line(record: Record, judge: Judge | None, rules: Rules, folder: Path) -> str:
    """A row as it is written."""
    row: dict[str, Any] = {
        "instruction": record.instruction,
        "query": _plain(record.query, folder),
        "positives": [_plain(item, folder) for item in record.positives],
        "negatives": [_plain(item, folder) for item in record.negatives],
        "score": record.score,
        "key": record.key,
    }
    if judge is not None:
        documents = [record.positives[0], *record.negatives]
        told = record.query.instruction or record.instruction or rules.instruction
        odds = judge.log_odds(record.query, documents, instruction=told)
        row["teacher"] = [round(float(value), 4) for value in odds]
    return json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)


def _plain(item: Item, folder: Path) -> Any:
    """An item as JSON: a text alone as a string, paths relative to the folder."""
    kept = {
        "text": item.text if item.text is None or isinstance(item.text, str) else list(item.text),
        "image": _relative(item.image, folder),
        "video": _relative(item.video, folder),
        "instruction": item.instruction,
        "fps": item.fps,
        "max_frames": item.max_frames,
    }
    said = {key: value for key, value in kept.items() if value is not None}
    return said["text"] if list(said) == ["text"] and isinstance(said["text"], str) else said


def _relative(source: Any, folder: Path) -> Any:
    if isinstance(source, (list, tuple)):
        return [_relative(part, folder) for part in source]
    if isinstance(source, str) and not is_url(source) and source[:5].lower() not in {"data:", "file:"}:
        try:
            return os.path.relpath(source, folder)
        except ValueError:  # another drive
            return source
    if isinstance(source, bytes):
        raise InputError("pictures that lie in the rows themselves cannot be written as JSONL; give paths")
    return source
