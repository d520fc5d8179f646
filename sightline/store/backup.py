"""A copy of an index, taken while another process writes to it, and an index made of the copy.

The rows and the ledger are two stores, and a copy must hold both as they were at one moment. So the ledger is read in
one transaction, the newest version of the rows is taken down meanwhile, and SQLite is asked whether anyone committed
between: if so, again. What the copy then holds is what a writer killed at that moment would have left, from which the
next run goes on. The files of a version never change, so they are copied at leisure.

A copy is a folder::

    photos.backup/
      backup.json        size and sha256 of each file; written last
      sightline.json, ledger.sqlite, items.lance/    as in the index
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from sightline.errors import StoreError
from sightline.store.lance import LanceStore
from sightline.store.ledger import LEDGER_NAME, STAMP_NAME, sync_folder, write_stamp
from sightline.store.lock import LOCK_NAME

LIST_NAME: Final = "backup.json"
FORMAT: Final = 1
PAIR_S: Final = 60.0
"""How long to look for a moment in which nobody commits; each try takes some milliseconds."""
COPY_BYTES: Final = 2**20
_FILES: Final = (STAMP_NAME, LEDGER_NAME)
_FOLDER: Final = "items.lance"


@dataclass(frozen=True, kw_only=True, slots=True)
class BackupReport:
    """What was copied.

    Attributes:
        path: the folder that was made.
        files, bytes: what it holds.
        rows: searchable units in it.
    """

    path: str
    files: int
    bytes: int
    rows: int


def back_up(folder: Path, out: Path) -> BackupReport:
    """Copy an index into a new folder; on disk when it returns. Nobody waits for it, readers or writer.

    Raises:
        StoreError: there is no index, ``out`` holds something, the index is being rebuilt, or the disk refuses.
    """
    if not (folder / LEDGER_NAME).is_file() or not (folder / _FOLDER).is_dir():
        raise StoreError(f"there is no index in {folder} to copy")
    making = _beside(out, "making")
    store = LanceStore(folder)
    try:
        with _said("copied", folder), _whole_or_none(making, out):
            files = _take(folder, store, making)
            listed = {os.fspath(file): _copy(folder / file, making / file) for file in files}
            for name in _FILES:
                listed[name] = _size_and_hash(making / name)
            _sync_folders(making)
            about = {"backup": FORMAT, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "files": listed}
            _write(making / LIST_NAME, json.dumps(about, indent=1))
    finally:
        store.close()
    return _report(out, listed)


def restore(out: Path, folder: Path) -> BackupReport:
    """Make an index of a copy, after every file of it was compared with what was written; on disk when it returns.

    Raises:
        StoreError: ``out`` is no copy or is damaged, then nothing is made; ``folder`` holds something.
    """
    listed = _listed(out)
    making = _beside(folder, "restoring")
    with _said("restored", folder), _whole_or_none(making, folder):
        for name, (size, digest) in listed.items():
            if _copy(out / name, making / name) != (size, digest):
                raise StoreError(f"the copy is damaged: {name} is not what was written ({out}); nothing was restored")
        _sync_folders(making)
    return _report(folder, listed)


def _take(folder: Path, store: LanceStore, making: Path) -> list[Path]:
    """The ledger and what it says, copied; files of the rows as they were at the same moment."""
    with contextlib.closing(_connect(folder)) as watch, contextlib.closing(_connect(folder)) as ledger:
        give_up = time.monotonic() + PAIR_S
        while True:
            before = watch.execute("PRAGMA data_version").fetchone()
            ledger.execute("BEGIN")
            meta = {key: json.loads(value) for key, value in ledger.execute("SELECT key, value FROM meta")}
            files = store.snapshot()
            if watch.execute("PRAGMA data_version").fetchone() == before:
                break
            ledger.execute("ROLLBACK")
            if time.monotonic() > give_up:
                raise StoreError(f"the index is written to without a pause ({folder}); try again later")
        if meta.get("emptying"):
            raise StoreError(f"the index is being rebuilt ({folder}); copy it when that is done")
        with contextlib.closing(sqlite3.connect(making / LEDGER_NAME, isolation_level=None)) as copy:
            ledger.backup(copy)  # reads on in the transaction that is open
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    write_stamp(making, meta)
    _sync(making / LEDGER_NAME)
    return files


def _connect(folder: Path) -> sqlite3.Connection:
    """The ledger, to be read. In a folder that cannot be written there is no writer either, and it is read as it is."""
    uri = (folder / LEDGER_NAME).absolute().as_uri()
    writable = os.access(folder, os.W_OK)
    return sqlite3.connect(
        uri + ("?mode=ro" if writable else "?mode=ro&immutable=1"), uri=True, isolation_level=None, timeout=30.0
    )


# --- files -----------------------------------------------------------------------------------------------------------


def _beside(target: Path, word: str) -> Path:
    """Where a folder is made before it takes its name. What an attempt that was killed left there goes.

    Raises:
        StoreError: the target holds something.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise StoreError(f"{target} is there already; name a folder that is not, or move it away")
    return target.with_name(f"{target.name}.{word}")


@contextlib.contextmanager
def _whole_or_none(making: Path, target: Path) -> Iterator[None]:
    """A new folder that takes its name when everything in it is written, or is taken away."""
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield
        sync_folder(making)
        making.replace(target)
        sync_folder(target.parent)
    except BaseException:  # whatever it was, no half of a copy is left and the error goes on
        shutil.rmtree(making, ignore_errors=True)
        raise


def _copy(source: Path, target: Path) -> tuple[int, str]:
    """Size and sha256 of what was copied and brought to the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as written:
        while chunk := read.read(COPY_BYTES):
            digest.update(chunk)
            size += len(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    return size, digest.hexdigest()


def _size_and_hash(path: Path) -> tuple[int, str]:
    data = path.read_bytes()
    return len(data), hashlib.sha256(data).hexdigest()


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(folder: Path) -> None:
    """Bring the names in a folder and in all below it to the disk."""
    for place, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(place))


def _listed(out: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of each file of a copy. What it lists is not trusted: nothing outside the copy is named.

    Raises:
        StoreError: it is no copy, or a newer Sightline made it.
    """
    try:
        about = json.loads((out / LIST_NAME).read_text(encoding="utf-8"))
        made_by, entries = int(about["backup"]), dict(about["files"])
        listed = {str(name): (int(size), str(digest)) for name, (size, digest) in entries.items()}
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(
            f"{out} is no copy of an index that is whole: it has no {LIST_NAME} that can be read"
        ) from None
    if made_by > FORMAT:
        raise StoreError(
            f"the copy is of format {made_by}, this Sightline reads formats up to {FORMAT}: "
            "upgrade it with pip install -U sightline"
        )
    for name in listed:
        parts = PurePosixPath(name).parts
        inside = name in _FILES or (len(parts) > 1 and parts[0] == _FOLDER)
        if not inside or ".." in parts or "\0" in name or (out / name).is_symlink():
            raise StoreError(f"the copy names a file that no index has: {name!r} ({out})")
    if not {*_FILES} <= set(listed):
        raise StoreError(f"the copy is not whole: it lacks {LEDGER_NAME} or {STAMP_NAME} ({out})")
    return listed


def _report(path: Path, listed: Mapping[str, tuple[int, str]]) -> BackupReport:
    store = LanceStore(path)
    try:
        rows = store.count()
    finally:
        store.close()
        (path / LOCK_NAME).unlink(missing_ok=True)
    return BackupReport(
        path=os.fspath(path), files=len(listed), bytes=sum(size for size, _ in listed.values()), rows=rows
    )


@contextlib.contextmanager
def _said(done: str, folder: Path) -> Iterator[None]:
    """Errors of the disk and of SQLite as errors of ours."""
    try:
        yield
    except FileNotFoundError as error:
        lost = Path(error.filename or "").name
        raise StoreError(f"the index cannot be {done}: a file of it is gone, {lost} ({folder})") from error
    except OSError as error:
        raise StoreError(f"the index cannot be {done}: {error.strerror} ({folder})") from error
    except (sqlite3.Error, ValueError, AttributeError) as error:
        raise StoreError(
            f"the index cannot be {done}: its ledger is damaged; run sightline doctor ({folder})"
        ) from error
