"""Whether an index is sound: the ledger against the rows, and both against the files on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sightline.search.problems import Problems
from sightline.search.prune import has_vanished
from sightline.store.ledger import FileState, Ledger
from sightline.store.schema import Filter, ItemStore, Problem


def check(store: ItemStore, ledger: Ledger) -> list[Problem]:
    """What is wrong, and what could not be indexed. An empty list for a sound index of unchanged files.

    Codes beside those of ``store.check``: ``row_count`` and ``unknown_rows`` (ledger and rows disagree),
    ``unfinished``, ``missing_file``, ``changed_file``, ``skipped``, ``partly_skipped`` (a page or moment).
    """
    partly = [
        Problem(code="partly_skipped", detail=f"{shown(one.path)}: {one.detail} [{one.code}]", path=one.path)
        for one in Problems(ledger).skipped()
    ]
    return [*store.check(), *_disagreements(store, ledger), *_files(ledger), *partly]


def _disagreements(store: ItemStore, ledger: Ledger) -> Iterator[Problem]:
    paths = store.paths()
    num_told = 0
    counts_differ = False
    for state in ledger.files():
        known = paths.pop(state.path_id, None)
        num_told += state.units if state.status == "done" else 0
        counts_differ |= (known is not None) != (state.status == "done") and state.status != "pending"
    for path in paths.values():
        detail = f"{shown(path)}: has rows but is not in the ledger; sightline doctor --repair enters it"
        yield Problem(code="unknown_rows", detail=detail, path=path)
    if counts_differ or paths or num_told != store.count():
        for state in ledger.files():
            have = store.count(Filter(path_prefix=state.path)) if state.status != "pending" else state.units
            if have != state.units:
                yield Problem(
                    code="row_count",
                    detail=f"{shown(state.path)}: {have} rows, but {state.units} were written; "
                    "sightline doctor --repair, then index again",
                    path=state.path,
                )


def _files(ledger: Ledger) -> Iterator[Problem]:
    for state in ledger.files():
        path = shown(state.path)
        if state.status == "pending":
            yield _of(state, "unfinished", f"{path}: indexing was interrupted; index again to finish it")
        elif state.status == "skipped":
            yield _of(state, "skipped", f"{path}: {state.detail} [{state.code}]")
        if has_vanished(state.path):
            yield _of(state, "missing_file", f"{path}: the file is gone; index with --prune to drop its rows")
        elif state.status == "done" and _has_changed(state):
            yield _of(state, "changed_file", f"{path}: the file has changed; index again")


def _of(state: FileState, code: str, detail: str) -> Problem:
    return Problem(code=code, detail=detail, path=state.path)


def _has_changed(state: FileState) -> bool:
    try:
        status = os.stat(state.path)  # noqa: PTH116
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) != (state.size, state.mtime_ns)


def shown(path: str) -> str:
    r"""A path fit to be shown in a sentence: itself, or quoted with escapes when it has odd characters.

    >>> shown("/a/b c"), shown("/a/b\nc")
    ('/a/b c', "'/a/b\\nc'")
    """
    return path if path.isprintable() else ascii(path)
