"""What ``doctor --repair`` does: everything that needs no model, and nothing that could lose what is in the index.

Rows that are in doubt go, and their files are down as pending, so that the next ``index`` brings them in again; a file
that has rows but no entry gets one. Files that are gone or changed are left to ``index``.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Final

import numpy as np

from sightline.search.health import check, shown
from sightline.search.prune import has_vanished
from sightline.store.lance import LanceStore
from sightline.store.ledger import Ledger
from sightline.store.schema import Filter, Problem, Value, path_id

IN_STORE: Final = frozenset({"bad_version", "damaged_index", "low_recall", "duplicate_id"})
"""Problems that ``LanceStore.repair`` deals with."""
TO_READ_AGAIN: Final = frozenset({"bad_vector", "row_count"})
"""Problems of files whose rows are brought in again by the next ``index``."""
_DONE: Final = {
    "bad_version": "past versions that cannot be read {are} put aside",
    "damaged_index": "damaged indexes {are} built anew",
    "low_recall": "the vector index {is} built anew",
    "duplicate_id": "one row of each id {is} left",
    "ledger_damaged": "the damaged ledger {is} put aside, and a new one started from what is indexed",
    "bad_vector": "{path}: rows without a proper vector {are} taken out; index again to bring them in",
    "row_count": "{path}: the file {is} down as unfinished; index again to complete it",
    "unknown_rows": "{path}: the file {is} in the ledger again; index again to compare it",
    "vanished_rows": "{path}: rows of a file that is gone, and that the ledger does not know, {are} taken out",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairReport:
    """What a repair did, or would do.

    Attributes:
        dry_run: whether it only looked.
        repaired: what was repaired, or would be, each with what is done about it.
        left: what is wrong still, each with the command that helps; after a dry run, what would be.
    """

    dry_run: bool
    repaired: tuple[Problem, ...]
    left: tuple[Problem, ...]


def repair(store: LanceStore, ledger: Ledger, *, dry_run: bool = True) -> RepairReport:
    """Repair what can be repaired without a model.

    Raises:
        IndexLockedError: another process writes to the index.
        StoreError: the index cannot be written.
    """
    with contextlib.nullcontext() if dry_run else store.writing():
        problems = check(store, ledger)
        repaired = [done for problem in problems if (done := _planned(problem, dry_run)) is not None]
        if dry_run:
            left = tuple(problem for problem in problems if _planned(problem, dry_run) is None)
            return RepairReport(dry_run=True, repaired=_once(repaired), left=left)
        _do(store, ledger, problems)
        return RepairReport(dry_run=False, repaired=_once(repaired), left=tuple(check(store, ledger)))


def _planned(problem: Problem, dry_run: bool) -> Problem | None:
    """What is done about a problem, or None where ``doctor`` can do nothing."""
    code = problem.code
    if code not in IN_STORE | TO_READ_AGAIN | {"unknown_rows"}:
        return None
    sentence = _DONE["vanished_rows" if code == "unknown_rows" and has_vanished(problem.path) else code]
    return Problem(code=code, detail=told(sentence, dry_run, problem.path), path=problem.path)


def told(sentence: str, dry_run: bool, path: str = "") -> str:
    """A sentence of ``_DONE`` for what was done, or would be."""
    words = {"is": "would be", "are": "would be"} if dry_run else {"is": "was", "are": "were"}
    return sentence.format(path=shown(path), **words)


def ledger_repair(dry_run: bool) -> Problem:
    """What is done about a ledger that cannot be read."""
    return Problem(code="ledger_damaged", detail=told(_DONE["ledger_damaged"], dry_run))


def _do(store: LanceStore, ledger: Ledger, problems: list[Problem]) -> None:
    paths = {
        code: sorted({problem.path for problem in problems if problem.code == code})
        for code in ("bad_vector", "row_count", "unknown_rows", "duplicate_id")
    }
    gone = [path for path in paths["unknown_rows"] if has_vanished(path)]
    with ledger.batch():
        for path in {one for several in paths.values() for one in several} - set(gone):
            _set_pending(store, ledger, path)
    store.delete_paths([path_id(path) for path in [*gone, *paths["bad_vector"]]])
    if any(problem.code in IN_STORE for problem in problems):
        store.repair()
    with ledger.batch():
        for path in {*paths["duplicate_id"]} - {*paths["bad_vector"], *paths["unknown_rows"]}:
            state = ledger.file(path)
            if state is not None and store.count(Filter(path_prefix=path)) == state.units:
                ledger.done(path, state.units)


def _set_pending(store: LanceStore, ledger: Ledger, path: str) -> None:
    state = ledger.file(path)
    if state is not None:
        ledger.begin(path, state.size, state.mtime_ns, state.content_hash, state.columns)
    else:
        ledger.begin(path, 0, 0, "", _columns(store, path))


def _columns(store: LanceStore, path: str) -> dict[str, Value]:
    """The user's metadata of a file, from one of its rows."""
    found = store.search_vector(np.ones(store.dim, np.float32), 1, Filter(path_prefix=os.fspath(path)))
    return dict(found[0].columns) if found else {}


def _once(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(dict.fromkeys(Problem(code=p.code, detail=p.detail, path=p.path if "{path}" in _DONE[p.code] else "")
                               for p in problems))  # fmt: skip
