"""An index is emptied to be built anew, and what people said about its hits finds the new rows.

Emptying survives a kill at any moment: one transaction of the ledger forgets the files, keeps the labels, and says
that the rows are going; whoever opens the index next takes them away. A label names a row, and the id of a row changes
with the model: so after files were added, each label whose row is gone is given the row of the same place, and of a
text the passage with the same words.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sightline.errors import StoreError
from sightline.search.identity import check_format
from sightline.store.durable import DAMAGED_NAME, put_aside
from sightline.store.labels import Label, Labels
from sightline.store.lance import LanceStore
from sightline.store.ledger import LEDGER_NAME, FileState, Ledger, sync_folder
from sightline.store.lock import WriterLock
from sightline.store.schema import ItemStore, path_id, row_id

EMPTYING: Final = "emptying"
"""Key of the ledger's meta while the rows of an index are taken away."""
BEFORE: Final = "labels_before"
"""Key of what is needed to find the new rows of labels: earlier fingerprints, and texts of labelled passages by row."""
TABLE: Final = "items.lance"
MAKING: Final = "making"
MOST_PASSAGES: Final = 20_000
"""Passages of one text that are looked through for the one a label was said about."""
LEAST_ALIKE: Final = 0.5
"""Share of its words that a passage must have in common with the labelled one."""

log = logging.getLogger(__name__)


def empty(folder: Path, meta: Mapping[str, Any]) -> None:
    """Forget files and rows of an index, keep its labels, and say what it is built with from now on.

    Raises:
        IndexLockedError: another process writes to the index.
        StoreError: it is of a newer format, cannot be written, or a part of it is a link.
    """
    with WriterLock(folder):
        for name in (TABLE, MAKING, DAMAGED_NAME):
            if (folder / name).is_symlink():
                raise StoreError(f"{folder / name} is a link; nothing was removed")
        ledger, _ = open_ledger(folder)
        try:
            check_format(ledger.read_meta(), str(folder))
            before = _before(folder, ledger)
            with ledger.batch():
                ledger.write("DELETE FROM files", ())
                ledger.write("DELETE FROM meta", ())
                for key, value in {**meta, **before, EMPTYING: True}.items():
                    ledger.write("INSERT INTO meta VALUES (?, ?)", (key, json.dumps(value)))
            _take_rows_away(folder, ledger)
        finally:
            ledger.close()


def finish(folder: Path, ledger: Ledger) -> None:
    """Take away the rows that an emptying left when it was killed, unless somebody did meanwhile.

    Raises:
        IndexLockedError: the emptying goes on in another process.
    """
    with WriterLock(folder):
        if ledger.read_meta().get(EMPTYING):
            _take_rows_away(folder, ledger)


def _take_rows_away(folder: Path, ledger: Ledger) -> None:
    shutil.rmtree(folder / MAKING, ignore_errors=True)
    if (folder / TABLE).exists():
        (folder / TABLE).rename(folder / MAKING)
    sync_folder(folder)
    ledger.write("DELETE FROM meta WHERE key = ?", (EMPTYING,))
    ledger.write_meta({})  # the stamp follows
    shutil.rmtree(folder / MAKING, ignore_errors=True)


def open_ledger(folder: Path) -> tuple[Ledger, bool]:
    """The ledger, and whether it was damaged: then that is put aside, and a new one has the labels that could be read.

    Under the lock.

    Raises:
        StoreError: it cannot be opened for another reason.
    """
    if not is_ledger_damaged(folder):
        return Ledger(folder), False
    aside = [put_aside(path, folder) for path in sorted(folder.glob(f"{LEDGER_NAME}*"))]
    ledger = Ledger(folder)
    num = _salvage(aside[0], ledger)
    log.warning("the ledger of %s was damaged: it starts again, with %d labels of the old one", folder, num)
    return ledger, True


def is_ledger_damaged(folder: Path) -> bool:
    """Whether the ledger's file is no database, or pages of it do not fit together.

    Raises:
        StoreError: it cannot be opened for another reason.
    """
    try:
        ledger = Ledger(folder)
        try:
            return bool(ledger.read("PRAGMA quick_check(1)") != [("ok",)])
        finally:
            ledger.close()
    except StoreError as error:
        if type(error.__cause__) is sqlite3.DatabaseError:  # its heirs speak of locks and rights
            return True
        raise


def _salvage(old: Path, ledger: Ledger) -> int:
    """Labels of a damaged ledger that can still be read, put into the new one. Their number."""
    num = 0
    for table in ("label_queries", "labels"):
        try:
            db = sqlite3.connect(f"{old.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            try:
                for row in db.execute(f"SELECT * FROM {table}"):  # noqa: S608 - one of two words
                    marks = ", ".join("?" * len(row))
                    ledger.write(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608
                    num += table == "labels"
            finally:
                db.close()
        except (sqlite3.Error, StoreError):  # what cannot be read is lost with the page it stood on
            continue
    return num


# --- labels ----------------------------------------------------------------------------------------------------------


def _before(folder: Path, ledger: Ledger) -> dict[str, Any]:
    """What will be needed to find the rows of labels again; nothing where there are none."""
    labels = list(Labels(ledger))
    if not labels:
        return {}
    meta = ledger.read_meta()
    known = meta.get(BEFORE) or {"fingerprints": [], "texts": {}}
    built = (meta.get("embedder") or {}).get("fingerprint")
    fingerprints = [one for one in known["fingerprints"] if one != built] + ([built] if built else [])
    texts = {**known["texts"], **_texts(folder, [label.item for label in labels if label.kind == "text"])}
    return {BEFORE: {"fingerprints": fingerprints, "texts": texts}}


def _texts(folder: Path, items: Sequence[str]) -> dict[str, str]:
    """Texts of rows by id, as far as the index can be read: it may be rebuilt because it cannot."""
    if not items or not (folder / TABLE).is_dir():
        return {}
    try:
        store = LanceStore(folder)
    except StoreError:
        return {}
    try:
        return {row.id: row.text for row in store.get(sorted(set(items)))}
    except StoreError:
        return {}
    finally:
        store.close()


def relink(store: ItemStore, ledger: Ledger, fingerprint: str) -> int:
    """Give labels whose rows went with a rebuild the rows that stand in their place now. Number of rows found."""
    before = ledger.read_meta().get(BEFORE)
    if not before:
        return 0
    labels = {label.item: label for label in Labels(ledger)}
    known = store.existing(labels)
    moved = {
        item: new
        for item, label in labels.items()
        if item not in known
        and (state := ledger.file(label.path)) is not None
        and (new := _row_now(store, label, state, before, fingerprint))
    }
    with ledger.batch():
        for item, new in moved.items():
            ledger.write("UPDATE OR REPLACE labels SET item = ? WHERE item = ?", (new, item))
    return len(moved)


def _row_now(store: ItemStore, label: Label, state: FileState, before: Mapping[str, Any], fingerprint: str) -> str:
    """The id of the row that stands where the labelled one stood, or "": the file changed, or is cut in another way."""

    def id_of(model: str, ordinal: int = 0) -> str:
        place = (label.kind, label.page, label.start_s, label.end_s)
        return row_id(state.content_hash, *place, model, ordinal, path_id=path_id(label.path))

    if label.kind == "text" and label.item in before["texts"]:
        rows = store.get([id_of(fingerprint, ordinal) for ordinal in range(min(state.units, MOST_PASSAGES))])
        return _most_alike(before["texts"][label.item], ((row.id, row.text) for row in rows))
    if label.item not in {id_of(model) for model in before["fingerprints"]}:
        return ""
    new = id_of(fingerprint)
    return new if store.existing([new]) else ""


def _most_alike(text: str, passages: Iterable[tuple[str, str]]) -> str:
    """The id of the passage that shares most words with the text, or "" where none shares half of them.

    >>> _most_alike("red bicycle", [("a", "a blue car"), ("b", "the red bicycle")])
    'b'
    """
    wanted = Counter(re.findall(r"\w+", text.lower()))
    num = max(sum(wanted.values()), 1)
    shares = [
        (sum((wanted & Counter(re.findall(r"\w+", passage.lower()))).values()) / num, id) for id, passage in passages
    ]
    share, id = max(shares, default=(0.0, ""), key=lambda one: one[0])
    return id if share >= LEAST_ALIKE else ""
