"""The ledger: which files were seen, what became of each, and what the index was built with. SQLite in WAL mode.

The originals on disk are the truth, the vectors stand in Lance, and the ledger says how far the work has come: a file
is ``pending`` from ``begin`` until ``done`` or ``skip``, so that whatever is pending after a kill is looked at again.
Every verb is one transaction that is on disk when it returns (``synchronous=FULL``); ``batch`` makes one of many.

What the index was built with is also written to ``sightline.json`` beside the ledger, so that an index whose ledger
was lost is told from a new one: the ledger is then started again from that file.
"""

# ruff: noqa: S608 - statements are put together from words of this file; every value is bound

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from sightline.errors import ConfigError, StoreError
from sightline.store.schema import Value, path_id

LEDGER_NAME: Final = "ledger.sqlite"
STAMP_NAME: Final = "sightline.json"
BUSY_S: Final = 30.0
"""How long a statement waits for another process' transaction."""

PAGE: Final = 1000
"""Files read from the table at a time."""

FileStatus: TypeAlias = Literal["pending", "done", "skipped"]
STATUSES: Final[tuple[FileStatus, ...]] = get_args(FileStatus)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """What the ledger knows of one file.

    Attributes:
        path, path_id: the file, and what its rows are deleted by.
        size, mtime_ns, content_hash: of the file as it was last begun.
        status: ``pending``, ``done`` or ``skipped``.
        code, detail: why it was skipped; of an indexed text, ``detail`` is its encoding; "" otherwise.
        attempts: how often this content was begun.
        units: rows it has in the index.
        updated_s: when the state was written, in seconds since 1970.
        columns: the user's metadata of the file.
    """

    path: str
    path_id: str
    size: int
    mtime_ns: int
    content_hash: str
    status: FileStatus
    code: str
    detail: str
    attempts: int
    units: int
    updated_s: float
    columns: Mapping[str, Value]


def _create(db: sqlite3.Connection) -> None:
    # paths are blobs: a path is bytes, and need not be UTF-8
    db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    db.execute("""
        CREATE TABLE files (
            path BLOB PRIMARY KEY,
            path_id TEXT NOT NULL,
            size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            content_hash TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('pending', 'done', 'skipped')),
            code TEXT NOT NULL DEFAULT '',
            detail TEXT NOT NULL DEFAULT '',
            attempts INTEGER NOT NULL DEFAULT 0,
            units INTEGER NOT NULL DEFAULT 0,
            updated_s REAL NOT NULL,
            columns TEXT NOT NULL DEFAULT '{}'
        ) WITHOUT ROWID""")
    db.execute("CREATE INDEX files_status ON files (status, path)")
    db.execute("CREATE INDEX files_content ON files (content_hash)")


def _label(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE label_queries (key TEXT PRIMARY KEY, query TEXT NOT NULL) WITHOUT ROWID")
    db.execute("""
        CREATE TABLE labels (
            query_key TEXT NOT NULL,
            item TEXT NOT NULL,
            path BLOB NOT NULL,
            kind TEXT NOT NULL,
            page INTEGER,
            start_s REAL,
            end_s REAL,
            value INTEGER NOT NULL CHECK (value IN (-1, 1)),
            time_s REAL NOT NULL,
            PRIMARY KEY (query_key, item)
        ) WITHOUT ROWID""")


MIGRATIONS: Final[list[Callable[[sqlite3.Connection], None]]] = [_create, _label]
"""Each brings the tables from the version of its position to the next. Append only."""

_FIELDS: Final = (
    "path, path_id, size, mtime_ns, content_hash, status, code, detail, attempts, units, updated_s, columns"
)


class Ledger:
    """The ledger of one index folder. Threads may share it; between processes one writes and others read.

    Attributes:
        path: the SQLite file.
        restarted: whether the ledger had been lost and was started again from ``sightline.json``.
        read_only: whether the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        """Open the ledger of a folder, or start it.

        Raises:
            StoreError: the file is no ledger, is of a newer format, or cannot be opened.
        """
        self.path = folder / LEDGER_NAME
        self.restarted = False
        self.read_only = False
        self._lock = threading.RLock()
        self._depth = 0
        with self._said("opened"):
            self._db = self._connect()
            try:
                self._migrate()
                self._restart()
            except BaseException:  # whatever it was, the database is closed and the error goes on
                self._db.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        uri = self.path.absolute().as_uri()
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        except sqlite3.OperationalError:
            db.close()
            if not self.path.exists() or os.access(self.path.parent, os.W_OK):
                raise
            # a folder that cannot be written holds no shared memory file, which WAL needs: read the file as it stands
            self.read_only = True
            db = sqlite3.connect(uri + "?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA schema_version")
        except BaseException:  # as above
            db.close()
            raise
        return db

    def _migrate(self) -> None:
        have = self._version()
        if have > len(MIGRATIONS):
            raise StoreError(
                f"the index is of format {have}, this Sightline reads formats up to {len(MIGRATIONS)}: "
                "upgrade it with pip install -U sightline"
            )
        while not self.read_only and self._version() < len(MIGRATIONS):
            with self._transaction() as db:
                number = self._version()  # another process may have been faster
                if number >= len(MIGRATIONS):
                    return
                db.execute(
                    "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, applied_s REAL NOT NULL)"
                )
                MIGRATIONS[number](db)
                db.execute("INSERT INTO migrations VALUES (?, ?)", (number + 1, time.time()))
                db.execute(f"PRAGMA user_version = {number + 1}")
        if have == 0 and not self.read_only:
            sync_folder(self.path.parent)

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _restart(self) -> None:
        """Take over what ``sightline.json`` knows when the ledger knows nothing."""
        if self.read_only or self.read_meta():
            return
        stamp = read_stamp(self.path.parent)
        if stamp:
            self.restarted = True
            log.warning("the ledger of %s was lost; it starts again, and files already indexed are found by content",
                        self.path.parent)  # fmt: skip
            self.write_meta(stamp)

    # --- what the index was built with ---

    def read_meta(self) -> dict[str, Any]:
        """Everything that ``write_meta`` wrote."""
        return {key: json.loads(value) for key, value in self._all("SELECT key, value FROM meta ORDER BY key")}

    def write_meta(self, values: Mapping[str, Any]) -> None:
        """Set these keys to JSON values, here and in ``sightline.json``; other keys stay."""
        with self._said("written"), self._transaction() as db:
            rows = [(key, json.dumps(value, ensure_ascii=True)) for key, value in values.items()]
            db.executemany(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", rows
            )
        write_stamp(self.path.parent, self.read_meta())

    # --- files ---

    def file(self, path: str) -> FileState | None:
        """What is known of a file, or None."""
        rows = self._all(f"SELECT {_FIELDS} FROM files WHERE path = ?", (os.fsencode(path),))
        return _state(rows[0]) if rows else None

    def begin(
        self, path: str, size: int, mtime_ns: int, content_hash: str, columns: Mapping[str, Value] | None = None
    ) -> FileState:
        """A file is about to be indexed: it is pending from now on. Counts attempts as long as the content is the same.

        The number of rows stays what ``done`` last said, for those rows are still in the index.
        """
        key = os.fsencode(path)
        text = json.dumps(dict(columns or {}))
        with self._said("written"), self._transaction() as db:
            db.execute(
                """INSERT INTO files (path, path_id, size, mtime_ns, content_hash, status, attempts, updated_s, columns)
                VALUES (?, ?, ?, ?, ?, 'pending', 1, ?, ?)
                ON CONFLICT (path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, status = 'pending',
                    attempts = CASE WHEN content_hash = excluded.content_hash THEN attempts + 1 ELSE 1 END,
                    content_hash = excluded.content_hash, code = '', detail = '', updated_s = excluded.updated_s,
                    columns = excluded.columns""",
                (key, path_id(path), size, mtime_ns, content_hash, time.time(), text),
            )
            row = db.execute(f"SELECT {_FIELDS} FROM files WHERE path = ?", (key,)).fetchone()
        return _state(row)

    def done(self, path: str, units: int, detail: str = "") -> None:
        """A file that was begun is indexed, with so many rows; ``detail`` is worth knowing and no failure."""
        self._update(path, "status = 'done', code = '', detail = ?, units = ?", detail, units)

    def skip(self, path: str, code: str, detail: str = "") -> None:
        """A file that was begun cannot be indexed, for this reason; it has no rows."""
        self._update(path, "status = 'skipped', code = ?, detail = ?, units = 0", code, detail)

    def touch(self, path: str, size: int, mtime_ns: int) -> None:
        """The content is what it was, though the file looks new; the state stays."""
        self._update(path, "size = ?, mtime_ns = ?", size, mtime_ns)

    def _update(self, path: str, change: str, *values: object) -> None:
        with self._said("written"), self._transaction() as db:
            done = db.execute(
                f"UPDATE files SET {change}, updated_s = ? WHERE path = ?", (*values, time.time(), os.fsencode(path))
            )
            if done.rowcount != 1:
                raise StoreError(f"the ledger does not know {path!r}; begin it first")

    def forget(self, paths: Iterable[str]) -> int:
        """Drop files from the ledger. Number of files that were known."""
        with self._said("written"), self._transaction() as db:
            before = db.total_changes
            db.executemany("DELETE FROM files WHERE path = ?", [(os.fsencode(path),) for path in paths])
            return db.total_changes - before

    def files(self, status: FileStatus | None = None, under: str | None = None) -> Iterator[FileState]:
        """Files by path, all or those of one status, everywhere or one file or folder; read in pages."""
        if status is not None and status not in STATUSES:
            raise ConfigError(f"a status is one of {', '.join(STATUSES)}, not {status!r}")
        condition, values = _among(status, under)
        after: bytes | None = None
        while True:
            more = "" if after is None else "AND path > ?"
            rows = self._all(
                f"SELECT {_FIELDS} FROM files WHERE {condition} {more} ORDER BY path LIMIT {PAGE}",
                (*values, *(() if after is None else (after,))),
            )
            yield from map(_state, rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def failures(self) -> list[FileState]:
        """Every file that was skipped, with its reason."""
        return list(self.files(status="skipped"))

    def counts(self, under: str | None = None) -> dict[FileStatus, int]:
        """Number of files in each status."""
        condition, values = _among(None, under)
        rows = self._all(f"SELECT status, COUNT(*) FROM files WHERE {condition} GROUP BY status", values)
        return {**dict.fromkeys(STATUSES, 0), **dict(rows)}

    def same_content(self, content_hash: str) -> list[FileState]:
        """Files of this content, by path: copies of a file, or its old name."""
        rows = self._all(f"SELECT {_FIELDS} FROM files WHERE content_hash = ? ORDER BY path", (content_hash,))
        return [_state(row) for row in rows]

    # --- other tables ---

    def read(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        """All rows of a query on a table of a neighbour (``labels``)."""
        return self._all(statement, values)

    def write(self, statement: str, values: tuple[object, ...]) -> None:
        """A change of a table of a neighbour; one transaction, or part of ``batch``."""
        with self._said("written"), self._transaction() as db:
            db.execute(statement, values)

    # --- transactions ---

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction for all verbs inside; nothing of it is kept when it raises."""
        with self._said("written"), self._transaction():
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self.read_only:
                raise StoreError(f"the index cannot be written: the folder is read-only ({self.path.parent})")
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._db
            except BaseException:  # whatever it was, nothing of it is written and the error goes on
                self._depth -= 1
                if self._depth == 0 and self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._db.execute("COMMIT")

    def _all(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._said("read"), self._lock:
            return self._db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _said(self, done: str) -> Iterator[None]:
        """Errors of SQLite as errors of ours."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            reason = next(
                (text for start, text in _REASONS.items() if name.startswith(start)), "SQLite reports an error"
            )
            raise StoreError(f"the ledger cannot be {done}: {reason} ({self.path})") from error
        except OSError as error:  # from the sync of its folder
            raise StoreError(f"the ledger cannot be {done}: {error.strerror} ({self.path})") from error

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        with self._lock:
            self._db.close()


_REASONS: Final = {
    "SQLITE_NOTADB": "the file is damaged; move it away, and the next run starts it again from what is indexed",
    "SQLITE_CORRUPT": "the file is damaged; move it away, and the next run starts it again from what is indexed",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk reports an error",
    "SQLITE_READONLY": "the folder or file is read-only",
    "SQLITE_CANTOPEN": "the folder does not exist or cannot be written",
    "SQLITE_BUSY": "another process has been writing for too long",
}


def _among(status: FileStatus | None, under: str | None) -> tuple[str, tuple[object, ...]]:
    conditions, values = ["TRUE"], list[object]()
    if status is not None:
        conditions.append("status = ?")
        values.append(status)
    if under is not None:
        folder = os.fsencode(under).rstrip(b"/") + b"/"
        # "0" is the byte after "/": every path that starts with the folder, and no pattern to escape
        conditions.append("(path = ? OR (path >= ? AND path < ?))")
        values += [folder[:-1], folder, folder[:-1] + b"0"]
    return " AND ".join(conditions), tuple(values)


def _state(row: tuple[Any, ...]) -> FileState:
    path, key, size, mtime_ns, content_hash, status, code, detail, attempts, units, updated_s, columns = row
    return FileState(
        path=os.fsdecode(path),
        path_id=key,
        size=size,
        mtime_ns=mtime_ns,
        content_hash=content_hash,
        status=status,
        code=code,
        detail=detail,
        attempts=attempts,
        units=units,
        updated_s=updated_s,
        columns=json.loads(columns),
    )


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """What ``sightline.json`` of an index folder says, or None when there is none that can be read."""
    try:
        stamp = json.loads((folder / STAMP_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def write_stamp(folder: Path, values: Mapping[str, Any]) -> None:
    """Write ``sightline.json`` whole or not at all: a new file, synced, renamed over the old one.

    Raises:
        StoreError: the folder cannot be written.
    """
    new = folder / f"{STAMP_NAME}.new"
    try:
        with new.open("w", encoding="utf-8") as file:
            json.dump(dict(values), file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / STAMP_NAME)
        sync_folder(folder)
    except OSError as error:
        raise StoreError(f"the index cannot be written: {error.strerror} ({folder})") from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
