"""A user's training data: JSONL or Parquet, one query a row, read row by row from where it lies.

=============  ======================================================================================================
query          what is searched for
positives      list, at least one: what answers it
negatives      list: what looks like an answer and is none
instruction    what counts as an answer, in English
score          number: how near query and positive are, for graded pairs
teacher        list of numbers: a reranker's log-odds of the first positive, then of each negative
key            text or whole number: rows of one key are answered by each other's positives
=============  ======================================================================================================

The query, each positive and each negative is a text, or an object with the keys of ``sightline.Item``. Paths of
images and videos are relative to the folder of the data file. Only where each row begins is kept in memory (JSONL), or
the last groups of rows (Parquet), so a file may have millions of rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from sightline.errors import InputError
from sightline.media.source import is_url
from sightline.types import Item

logger = logging.getLogger(__name__)

COLUMNS: Final = ("instruction", "query", "positives", "negatives", "score", "teacher", "key")
ITEM_KEYS: Final = tuple(field.name for field in fields(Item))
JSONL_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})
PARQUET_SUFFIXES: Final = frozenset({".parquet", ".pq"})
CHUNK_BYTES: Final = 8 * 2**20
"""Bytes read at a time while lines are counted."""
GROUP_BYTES: Final = 256 * 2**20
"""Groups of rows of a Parquet file that are kept, as Arrow tables."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Record:
    """One row.

    Attributes:
        query: what is searched for.
        positives: what answers it, at least one.
        negatives: what does not.
        instruction: what counts as an answer, or None.
        score: grade of the pair, or None.
        teacher: log-odds of the first positive and of each negative, or None.
        key: rows of one key answer each other, or None.
        where: file and line, for people.
    """

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...] = ()
    instruction: str | None = None
    score: float | None = None
    teacher: tuple[float, ...] | None = None
    key: str | None = None
    where: str = ""


def content_key(item: Item) -> bytes:
    """16 bytes, equal for items that say and show the same by the same names."""
    said = (item.texts, item.image, item.video, item.instruction, item.fps, item.max_frames)
    return hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Records(Sequence[Record]):
    """The rows of one or several files. Picklable; any thread may read.

    Indexing raises ``InputError`` for a bad row, naming file, line and field. A loop over all checks all.
    """

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        """One row; a slice reads all of its rows."""
        if isinstance(index, slice):
            return [self._row(position) for position in range(len(self))[index]]
        return self._row(range(len(self))[index])

    def _row(self, index: int) -> Record:
        raise NotImplementedError


def open_records(*paths: Path | str) -> Records:
    """The rows of files, those of the first one first.

    Raises:
        InputError: no file, one that cannot be read or has no rows, another kind of file, unknown columns.
    """
    if not paths:
        raise InputError("training data are at least one file")
    opened = [_open(Path(path)) for path in paths]
    return opened[0] if len(opened) == 1 else _Joined(opened)


def _open(path: Path) -> Records:
    suffix = path.suffix.lower()
    if suffix not in JSONL_SUFFIXES | PARQUET_SUFFIXES:
        raise InputError(f"{path}: training data are JSONL (.jsonl) or Parquet (.parquet) files")
    try:
        records = _Jsonl(path) if suffix in JSONL_SUFFIXES else _Parquet(path)
    except OSError:
        raise InputError(f"{path} cannot be read") from None
    if not len(records):
        raise InputError(f"{path} has no rows")
    return records


class _Joined(Records):
    def __init__(self, parts: Sequence[Records]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _row(self, index: int) -> Record:
        part = int(np.searchsorted(self._starts, index, "right")) - 1
        return self._parts[part][index - int(self._starts[part])]


def _signature(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _unchanged(path: Path, before: tuple[int, int], now: os.stat_result) -> None:
    if _signature(now) != before:
        raise InputError(f"{path} was changed after it was opened for training")


# -- JSONL -----------------------------------------------------------------------------------------------------------


class _Jsonl(Records):
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._signature = _signature(self.path.stat())
        self._starts, self._lines = _rows_of(self.path)

    def __len__(self) -> int:
        return len(self._starts)

    def _row(self, index: int) -> Record:
        with self.path.open("rb") as file:
            _unchanged(self.path, self._signature, os.fstat(file.fileno()))
            file.seek(int(self._starts[index]))
            line = file.readline()
        where = f"{self.path}, line {int(self._lines[index]) if self._lines is not None else index + 1}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            said = f": {error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise InputError(f"{where}: not a line of JSON{said}") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}: a row is a JSON object, not {type(row).__name__}")
        return _record(row, self.path.parent, where)


def _rows_of(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Where each row begins, in bytes; its line from 1, or None when no line is empty."""
    found = [np.zeros(1, np.int64)]
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + (size + 1))
            size += len(chunk)
        starts = np.concatenate(found)
        lengths = np.diff(starts, append=max(size, int(starts[-1])) + 1) - 1
        is_row = lengths > 0
        for index in np.flatnonzero(lengths == 1).tolist():
            file.seek(int(starts[index]))
            is_row[index] = not file.read(1).isspace()  # the empty line of a file with \r\n
    if is_row[: len(starts) - 1].all():
        return starts[is_row], None
    return starts[is_row], np.flatnonzero(is_row) + 1


# -- Parquet ---------------------------------------------------------------------------------------------------------


class _Parquet(Records):
    """Whole groups of rows are decoded, because Parquet cannot read one row: files for training have small groups."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._signature = _signature(self.path.stat())
        self._forget()
        with self._opened() as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            _check_columns(file.schema_arrow.names, str(self.path))
        self._starts = np.cumsum([0, *(group.num_rows for group in groups)])
        if sum(group.total_byte_size for group in groups) > GROUP_BYTES:
            logger.warning(
                "%s is decoded up to %d rows at a time, which is slow for rows in random order: "
                "write it with groups of about 1,000 rows, or as JSONL",
                self.path,
                max(group.num_rows for group in groups),
            )

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._file: Any = None
        self._groups: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in {"_lock", "_file", "_groups"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def _opened(self) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        _unchanged(self.path, self._signature, self.path.stat())
        try:
            return parquet.ParquetFile(self.path)
        except pa.ArrowInvalid:
            raise InputError(f"{self.path} is not a Parquet file") from None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _row(self, index: int) -> Record:
        group = int(np.searchsorted(self._starts, index, "right")) - 1
        with self._lock:
            if self._file is None:
                self._file = self._opened()
            if group not in self._groups:
                self._groups[group] = self._file.read_row_group(group)
            self._groups.move_to_end(group)
            while len(self._groups) > 1 and sum(table.nbytes for table in self._groups.values()) > GROUP_BYTES:
                self._groups.popitem(last=False)
            table = self._groups[group]
        row = table.slice(index - int(self._starts[group]), 1).to_pylist()[0]
        return _record(row, self.path.parent, f"{self.path}, row {index + 1}")


# -- a row -----------------------------------------------------------------------------------------------------------


def _check_columns(names: Sequence[str], where: str) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(COLUMNS)}")
    missing = [name for name in ("query", "positives") if name not in names]
    if missing:
        raise InputError(f"{where}: the field {missing[0]!r} is missing")


def _record(row: Mapping[str, Any], folder: Path, where: str) -> Record:
    given = {name: value for name, value in row.items() if value is not None}
    _check_columns(list(given), where)
    positives = _items(given["positives"], folder, where, "positives")
    negatives = _items(given.get("negatives", []), folder, where, "negatives")
    if not positives:
        raise InputError(f"{where}: positives is empty; a row has at least one")
    right = {content_key(item) for item in positives}
    for index, item in enumerate(negatives):
        if content_key(item) in right:
            raise InputError(f"{where}: negatives[{index}] is one of the positives")
    teacher = given.get("teacher")
    if teacher is not None:
        teacher = tuple(_number(value, where, "teacher") for value in _list(teacher, where, "teacher"))
        if len(teacher) != 1 + len(negatives):
            raise InputError(
                f"{where}: teacher has {len(teacher)} numbers; it needs {1 + len(negatives)}, "
                "one for the first positive and one for each negative"
            )
    instruction, key = given.get("instruction"), given.get("key")
    if not isinstance(instruction, str | None):
        raise InputError(f"{where}: instruction must be a text, not {instruction!r}")
    if not isinstance(key, str | int | None) or isinstance(key, bool):
        raise InputError(f"{where}: key must be a text or a whole number, not {key!r}")
    return Record(
        query=item_of(given["query"], folder, where, "query"),
        positives=positives,
        negatives=negatives,
        instruction=instruction,
        score=_number(given["score"], where, "score") if "score" in given else None,
        teacher=teacher,
        key=None if key is None else str(key),
        where=where,
    )


def _list(value: Any, where: str, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {field} must be a list, not {type(value).__name__}")
    return value


def _number(value: Any, where: str, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: {field} must be a number, not {value!r}")
    return float(value)


def _items(value: Any, folder: Path, where: str, field: str) -> tuple[Item, ...]:
    entries = _list(value, where, field)
    return tuple(item_of(entry, folder, where, f"{field}[{index}]") for index, entry in enumerate(entries))


def item_of(value: Any, folder: Path, where: str, field: str) -> Item:
    """An item as a row says it.

    Args:
        value: a text, or an object with the keys of ``Item``.
        folder: that relative paths start from.
        where, field: named in errors.

    Raises:
        InputError: it is neither, says nothing, or has an unknown key.
    """
    """An item as JSON has it: a text, or an object with the keys of ``Item``, paths relative to ``folder``.

    Args:
        value: what JSON holds.
        folder: of the file.
        where, field: its place, for the error.

    Raises:
        InputError: it is neither, or empty.
    """
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise InputError(
            f"{where}: {field} must be a text or an object with {', '.join(ITEM_KEYS)}, not {type(value).__name__}"
        )
    given = {key: entry for key, entry in value.items() if entry is not None}
    for key, depth in (("image", 1), ("video", 2)):
        if key in given:
            given[key] = _located(given[key], folder, f"{where}: {field}.{key}", depth)
    try:
        item = Item.of(given)
    except InputError as error:
        raise InputError(f"{where}: {field}: {error}") from None
    if not (given.get("image") or given.get("video") or any(text.strip() for text in item.texts)):
        raise InputError(f"{where}: {field} is empty")
    return item


def _located(value: Any, folder: Path, place: str, depth: int) -> Any:
    """A path as the reader finds it; addresses and bytes are left as they are, lists are gone through."""
    if isinstance(value, list) and depth:
        return [_located(entry, folder, place, depth - 1) for entry in value]
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise InputError(f"{place} must be a path or a list of paths, not {value!r:.80}")
    if is_url(value) or value[:5].lower() in {"data:", "file:"}:
        return value
    return str(folder / value)
