"""What the index holds and how it is asked: rows, hits, filters, and the interface of a store.

Two stores have this interface, ``ExactStore`` (numpy, in memory, the oracle) and ``LanceStore`` (on disk); whatever
decides an answer stands here once, so that both decide alike: which rows are refused, which vectors are kept, what a
filter means, in which order hits come (best score first, equal scores by id).
"""

from __future__ import annotations

import datetime
import hashlib
import math
import operator
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, StoreError
from sightline.types import KINDS, Kind

Value: TypeAlias = str | int | float | bool
"""What a user column holds."""

ColumnType: TypeAlias = Literal["text", "integer", "number", "switch"]
"""The type of a user column; every row of an index agrees on it."""

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]
_COMPARE: Final[dict[Operator, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OPERATORS: Final[tuple[Operator, ...]] = tuple(_COMPARE)

FILTER_KEYS: Final = ("kind", "path", "after", "before")
"""The keys of a filter that are no user columns; a user column cannot take these names."""

_COLUMN_NAME: Final = re.compile(r"[^\W\d]\w{0,62}")


def check_column_name(name: str) -> str:
    """The name itself.

    Raises:
        ConfigError: it is not letters, digits and underscores (at most 63), or is a key of its own.
    """
    if not isinstance(name, str) or not _COLUMN_NAME.fullmatch(name):
        raise ConfigError(f"a column name is up to 63 letters, digits and underscores, not {name!r}")
    if name in FILTER_KEYS:
        raise ConfigError(f"a column cannot be called {name!r}: {', '.join(FILTER_KEYS)} are keys of a filter")
    return name


def column_type(value: object) -> ColumnType:
    """The type of the column that holds this value.

    Raises:
        ConfigError: for another type, a number that is not finite, or an integer over 64 bits.

    >>> column_type("a"), column_type(5), column_type(0.5), column_type(True)
    ('text', 'integer', 'number', 'switch')
    """
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ConfigError("an integer in a column has at most 64 bits")  # the number may be too long to be written
        return "integer"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError("a number in a column must be finite")
        return "number"
    raise ConfigError(f"a column holds text, numbers or true/false, not {type(value).__name__}")


# --- rows and hits ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """One searchable unit of one file, with its vector.

    Attributes:
        id: ``row_id(...)``; adding a row with an id that the index holds replaces that row.
        path_id: ``path_id(path)``; what a file is deleted by.
        path: the file, as Python names it (bytes that are not UTF-8 as lone surrogates).
        kind: what the unit is.
        page: page number from 1, or None.
        start_s, end_s: place in a video in seconds, or None.
        title: a short name for people; found by words.
        text: the words of the unit; found by words.
        vector: (E,) float32, finite and not zero. It is kept at half precision and unit length.
        modified_s: when the file was modified, in seconds since 1970.
        columns: the user's own metadata, by name.
    """

    id: str
    path_id: str
    path: str
    kind: Kind
    vector: NDArray[np.float32]
    page: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    title: str = ""
    text: str = ""
    modified_s: float = 0.0
    columns: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id or not self.path_id:
            raise StoreError("a row needs an id and a path id")
        if self.kind not in KINDS:
            raise StoreError(f"row {self.id}: kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        if not math.isfinite(self.modified_s):
            raise StoreError(f"row {self.id}: modified_s must be finite")
        for name, value in self.columns.items():
            check_column_name(name)
            column_type(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A row that a search found, without its vector, with its score (higher is better).

    Attributes:
        score: the cosine for vectors, BM25 for words.
    """

    score: float
    id: str
    path_id: str
    path: str
    kind: Kind
    page: int | None
    start_s: float | None
    end_s: float | None
    title: str
    text: str
    modified_s: float
    columns: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something wrong with the index, found by ``check``.

    Attributes:
        code: a word for programs (``duplicate_id``, ``bad_vector``, ``unreadable``, …).
        detail: a sentence for people, with what to do.
        path: the file it is about, or "".
    """

    code: str
    detail: str
    path: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizeReport:
    """What ``optimize`` did.

    Attributes:
        rows: rows in the index.
        files_before, files_after: data files of the newest version.
        vector_index: whether an approximate vector index is in use (never below 50,000 rows).
        recall: share of the exact first ten that the approximate index finds, over sampled rows; None without one.
    """

    rows: int
    files_before: int
    files_after: int
    vector_index: bool
    recall: float | None


def row_id(
    content_hash: str,
    kind: Kind,
    page: int | None,
    start_s: float | None,
    end_s: float | None,
    fingerprint: str,
    ordinal: int = 0,
    *,
    path_id: str = "",
) -> str:
    """The id of a unit: the same content, place and model give the same id for ever, 32 hex digits.

    Args:
        content_hash: hash of the file's bytes.
        kind, page, start_s, end_s: which unit of the file (seconds count to the microsecond).
        fingerprint: of the model that makes the vector.
        ordinal: number of the unit in its file, where the place does not tell (passages of a text).
        path_id: give it to keep one row per copy of a file; without it two files of equal content share their rows,
            and deleting one of them deletes both.

    >>> row_id("c", "page", 1, None, None, "f") == row_id("c", "page", 1, None, None, "f", 0)
    True
    """
    seconds = [None if s is None else round(s * 1_000_000) for s in (start_s, end_s)]
    parts = [content_hash, kind, page, *seconds, fingerprint, ordinal, path_id]
    return _digest(*("" if part is None else str(part) for part in parts))


def path_id(path: str) -> str:
    """The id of a path: its bytes hashed, 32 hex digits."""
    return _digest(path)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


KEPT: Final = 1e-3
"""How far a number of a unit vector may be from itself once it was rounded to float16, and its length with it."""


def checked_rows(rows: Iterable[Row], dim: int) -> tuple[list[Row], NDArray[np.float16]]:
    """The rows, the last of each id, and their vectors as they are kept: (N, E) float16, unit length.

    A vector that was kept before, as that of a copy of its file, stays to the bit what it was.

    Raises:
        StoreError: a vector is of another width, not finite, or zero; it names the id. Nothing is kept then.
    """
    unique = list({row.id: row for row in rows}.values())
    matrix = np.zeros((len(unique), dim), np.float16)
    for position, row in enumerate(unique):
        unit = unit_vector(row.vector, dim, f"row {row.id}")
        matrix[position] = unit
        with np.errstate(over="ignore"):
            narrow = np.asarray(row.vector).astype(np.float16)
        if np.array_equal(narrow, row.vector) and np.abs(narrow - unit).max() < KEPT:
            matrix[position] = narrow
    return unique, matrix


def found(row: Row, score: float) -> Found:
    """The row without its vector, with a score."""
    kept = {f.name: getattr(row, f.name) for f in fields(Found) if f.name != "score"}
    return Found(score=score, **kept)


def ranked(hits: Iterable[Found], k: int) -> list[Found]:
    """The k best: larger score first, equal scores by id. Every list of a store is in this order."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[: max(k, 0)]


def searchable(title: str, text: str) -> str:
    """What words are looked for in: title and text, with compatible forms made one (full width, ligatures, NFD)."""
    return unicodedata.normalize("NFKC", f"{title}\n{text}")


def unit_vector(vector: NDArray[Any], dim: int, name: str) -> NDArray[np.float32]:
    """The vector at unit length, (E,) float32.

    Raises:
        StoreError: it is of another width, not finite, or zero.
    """
    values = np.asarray(vector)
    if values.shape != (dim,) or values.dtype.kind not in "fiu":
        raise StoreError(f"{name}: a vector of this index has {dim} numbers, not {values.dtype} {values.shape}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise StoreError(f"{name}: the vector holds NaN or infinity")
    largest = float(np.abs(values).max())
    if largest == 0.0:
        raise StoreError(f"{name}: the vector is zero")
    values = values / largest
    return cast("NDArray[np.float32]", (values / np.linalg.norm(values)).astype(np.float32))


def merged_columns(known: Mapping[str, ColumnType], rows: Iterable[Row]) -> dict[str, ColumnType]:
    """The user columns of an index after these rows are added: new ones join, a number column takes integers too.

    Raises:
        StoreError: a value has another type than its column.
    """
    types = dict(known)
    for row in rows:
        for name, value in row.columns.items():
            kind = column_type(value)
            have = types.setdefault(name, kind)
            if have != kind and not (have == "number" and kind == "integer"):
                raise StoreError(f"row {row.id}: column {name!r} of this index holds {have}, not {kind}")
    return types


def stored_columns(row: Row, types: Mapping[str, ColumnType]) -> dict[str, Value]:
    """The row's user columns as they are kept: an integer in a number column is a number."""
    return {name: float(value) if types[name] == "number" else value for name, value in row.columns.items()}


# --- filters ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One comparison of a user column. A row without the column meets no condition, not even ``!=``."""

    name: str
    operator: Operator
    value: Value

    def __post_init__(self) -> None:
        check_column_name(self.name)
        if self.operator not in OPERATORS:
            raise ConfigError(f"unknown operator {self.operator!r}; known are {' '.join(OPERATORS)}")
        if column_type(self.value) == "switch" and self.operator not in ("=", "!="):
            raise ConfigError(f"{self.name}: true and false have no order; use = or !=")

    def met_by(self, columns: Mapping[str, Value]) -> bool:
        """Whether the column stands to the value as the operator says."""
        have: Any = columns.get(self.name)
        if have is None:
            return False
        want: Any = self.value
        if isinstance(have, float) or isinstance(want, float):
            have, want = float(have), float(want)
        return bool(_COMPARE[self.operator](have, want))


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which rows a search may find: all that is given must hold. An empty filter lets every row pass.

    Attributes:
        kinds: any of these; () for all.
        path_prefix: the file itself, or any file under this folder ("/a/b" is not a prefix of "/a/bc"); None for all.
        after_s: modified at this time or later, in seconds since 1970.
        before_s: modified before this time.
        columns: comparisons of user columns.
    """

    kinds: tuple[Kind, ...] = ()
    path_prefix: str | None = None
    after_s: float | None = None
    before_s: float | None = None
    columns: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
        if self.path_prefix == "":
            raise ConfigError("path must not be empty")
        for bound in (self.after_s, self.before_s):
            if bound is not None and not math.isfinite(bound):
                raise ConfigError("after and before must be finite")

    @classmethod
    def of(cls, value: Filter | Mapping[str, Any] | str | None) -> Filter:
        """The filter itself, or one made of a mapping or a text; None for no filter.

        Keys are ``kind`` (one, a list, or several with commas), ``path`` (made absolute, ``~`` is the home folder),
        ``after`` (that moment or later) and ``before`` (earlier than that): a date, a date with time (local unless it
        carries a zone) or seconds since 1970. Every other key is a user column. In a mapping an operator stands at
        the end of the key: ``{"rating>=": 4}``. In a text, conditions are parted by spaces and values with spaces
        stand in quotes, where a backslash takes the next character as it is; a quoted value is always text.

        Raises:
            ConfigError: an unknown operator, or a value that cannot be read.

        >>> Filter.of("kind=page rating>=4 author='A. B.'").columns
        (Condition(name='rating', operator='>=', value=4), Condition(name='author', operator='=', value='A. B.'))
        >>> Filter.of({"kind": "page", "rating>=": 4}) == Filter.of("kind=page rating>=4")
        True
        """
        if value is None:
            return cls()
        if isinstance(value, Filter):
            return value
        if isinstance(value, str):
            return _build(_parse_text(value))
        if isinstance(value, Mapping):
            return _build(_parse_mapping(value))
        raise ConfigError(f"a filter is a mapping or a text, not {type(value).__name__}")

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return any(getattr(self, f.name) not in ((), None) for f in fields(self))

    @property
    def folder(self) -> str | None:
        """``path_prefix`` with the slash that ends a folder: what the path of every file under it starts with."""
        return None if self.path_prefix is None else self.path_prefix.rstrip("/") + "/"

    def fitted(self, types: Mapping[str, ColumnType]) -> Filter:
        """This filter, checked against the columns of an index.

        Raises:
            ConfigError: a column that the index lacks, or a value of another type.
        """
        for condition in self.columns:
            have = types.get(condition.name)
            if have is None:
                known = ", ".join([*FILTER_KEYS, *sorted(types)])
                raise ConfigError(f"the index has no column {condition.name!r}; known are {known}")
            want = column_type(condition.value)
            if have != want and {have, want} != {"integer", "number"}:
                hint = "; put the value in quotes" if have == "text" else ""
                raise ConfigError(f"column {condition.name!r} holds {have}, not {want}{hint}")
        return self

    def passes(self, row: Row | Found) -> bool:
        """Whether the row may be found."""
        if self.kinds and row.kind not in self.kinds:
            return False
        if self.path_prefix is not None:
            folder = cast(str, self.folder)
            if row.path != folder.rstrip("/") and not row.path.startswith(folder):
                return False
        if self.after_s is not None and row.modified_s < self.after_s:
            return False
        if self.before_s is not None and row.modified_s >= self.before_s:
            return False
        return all(condition.met_by(row.columns) for condition in self.columns)


_Term: TypeAlias = tuple[str, str, Any]

_TERM: Final = re.compile(
    r"""\s* (?P<name>[^\W\d]\w*) \s* (?P<operator>[=<>!]+|[~:]) \s*
        (?: "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)' | (?P<plain>[^\s"']\S*) ) (?=\s|$)""",
    re.VERBOSE | re.DOTALL,
)
_KEY: Final = re.compile(r"\s*(?P<name>[^\W\d]\w*)\s*(?P<operator>\W*?)\s*")


_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,1000}")  # Python reads no integer of over 4,300 digits
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _parse_text(text: str) -> Iterator[_Term]:
    position, end = 0, len(text.rstrip())
    while position < end:
        term = _TERM.match(text, position)
        if term is None:
            rest = text[position:].strip()
            raise ConfigError(f"cannot read the filter at {rest[:40]!r}; write name=value, for example kind=page")
        quoted = term["double"] if term["double"] is not None else term["single"]
        if quoted is not None:
            yield term["name"], term["operator"], re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        else:
            yield term["name"], term["operator"], _Plain(term["plain"])
        position = term.end()


class _Plain(str):
    """A value that stood without quotes: a number, true or false if it looks like one."""

    __slots__ = ()


def _parse_mapping(mapping: Mapping[str, Any]) -> Iterator[_Term]:
    for key, value in mapping.items():
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None:
            raise ConfigError(f"{key!r} is no key of a filter")
        if isinstance(value, int):
            column_type(value)
        yield match["name"], match["operator"] or "=", value


def _build(terms: Iterable[_Term]) -> Filter:
    given: dict[str, Any] = {}
    conditions: list[Condition] = []
    for name, sign, value in terms:
        if sign not in OPERATORS:
            raise ConfigError(f"unknown operator {sign!r}; known are {' '.join(OPERATORS)}")
        if name not in FILTER_KEYS:
            conditions.append(Condition(name=name, operator=sign, value=_column_value(name, value)))
            continue
        if sign != "=":
            raise ConfigError(f"{name} takes only =, not {sign}")
        if name in given:
            raise ConfigError(f"{name} is given twice")
        given[name] = value
    return Filter(
        kinds=_kinds(given["kind"]) if "kind" in given else (),
        path_prefix=_absolute(given["path"]) if "path" in given else None,
        after_s=_seconds("after", given["after"]) if "after" in given else None,
        before_s=_seconds("before", given["before"]) if "before" in given else None,
        columns=tuple(conditions),
    )


def _column_value(name: str, value: Any) -> Value:
    if isinstance(value, _Plain):
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        value = int(value) if _INTEGER.fullmatch(value) else float(value) if _NUMBER.fullmatch(value) else str(value)
    if isinstance(value, np.generic):
        value = value.item()
    try:
        column_type(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    return cast(Value, value)


def _kinds(value: Any) -> tuple[Kind, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple, set, frozenset)) or not parts:
        raise ConfigError(f"kind is one of {', '.join(KINDS)}, or a list of these")
    names = {str(part).strip() for part in parts}
    unknown = sorted(names - set(KINDS))
    if unknown:
        raise ConfigError(f"kind is one of {', '.join(KINDS)}, not {unknown[0]!r}")
    return tuple(kind for kind in KINDS if kind in names)


def _absolute(value: Any) -> str:
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise ConfigError(f"path is a path, not {type(value).__name__}") from None
    if not text or "\0" in text:
        raise ConfigError("path must be a path, not empty and without NUL")
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - pathlib would not drop '..'


def _seconds(name: str, value: Any) -> float:
    wrong = ConfigError(f"{name} is a date such as 2024-01-31 or 2024-01-31T12:00, not {value!r}")
    if isinstance(value, bool):
        raise wrong
    try:
        if isinstance(value, str) and not re.fullmatch(r"\d{9,}(\.\d+)?", value.strip()):
            value = datetime.datetime.fromisoformat(value.strip())
        elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            value = datetime.datetime(value.year, value.month, value.day)  # local midnight
        seconds = value.timestamp() if isinstance(value, datetime.datetime) else float(value)
    except (ValueError, TypeError, OverflowError):
        raise wrong from None
    if not math.isfinite(seconds):
        raise wrong
    return seconds


# --- the interface ---------------------------------------------------------------------------------------------------


class ItemStore(Protocol):
    """A store of rows. Several threads may search it while one writes.

    ``where`` is a ``Filter``; a filter on a column that the index lacks, or with a value of another type, raises
    ``ConfigError``. Everything else that goes wrong raises ``StoreError``.
    """

    @property
    def dim(self) -> int:
        """Width E of the vectors."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Hold the writer lock over several writes; each write takes it alone otherwise. May be nested.

        Raises:
            IndexLockedError: another process writes.
        """
        ...

    def add(self, rows: Iterable[Row]) -> int:
        """Put rows in; a row with a known id replaces that row. On disk when it returns. Number of rows written.

        Raises:
            StoreError: a vector is of another width, not finite or zero (it names the id), or a user column has
                another type; then no row of the call is kept. Or the disk refuses.
        """
        ...

    def delete_paths(self, path_ids: Iterable[str]) -> int:
        """Take out all rows of these files; on disk when it returns. Number of rows taken out."""
        ...

    def existing(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that the index holds."""
        ...

    def ids(self) -> Iterator[str]:
        """Every id."""
        ...

    def search_vector(self, query: NDArray[Any], k: int, where: Filter | None = None) -> list[Found]:
        """The k rows with the largest cosine to the query (E,), best first, equal scores by id.

        Raises:
            StoreError: the query is of another width, not finite or zero.
        """
        ...

    def search_words(self, text: str, k: int, where: Filter | None = None) -> tuple[list[Found], list[Found]]:
        """Two ranked lists of at most k rows whose title or text holds any of the words: by words, and by pieces.

        The first splits text at words (with a dictionary for Chinese and Japanese where the store has one); the
        second compares pieces of two and three characters, which finds words inside any script. Each list is best
        first, equal scores by id. Their scores have no common scale: fuse them by rank.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids in the order asked; unknown ids are left out."""
        ...

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Vector (E,) float32 by id; unknown ids are left out."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """Number of rows that the filter lets pass."""
        ...

    def paths(self) -> dict[str, str]:
        """Path by path id, of every file that has rows."""
        ...

    def columns(self) -> dict[str, ColumnType]:
        """The user columns and their types."""
        ...

    def optimize(self) -> OptimizeReport:
        """Merge small files, bring the indexes up to date, drop versions older than a day. Searches go on meanwhile."""
        ...

    def check(self) -> list[Problem]:
        """Read everything and say what is wrong; an empty list for a sound index."""
        ...

    def close(self) -> None:
        """Let go of files and the lock. May be called twice."""
        ...
