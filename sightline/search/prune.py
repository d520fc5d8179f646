"""Rows of files that no longer exist: found, told, and taken out when asked. Originals are never touched.

A drive that is not mounted looks like a folder whose files were all deleted. So each folder that was once given to
``add`` is judged as a whole: when it is missing or empty, or when more than half of its files have vanished, nothing
of it is pruned unless forced.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sightline.search.find import is_under
from sightline.search.problems import Problems
from sightline.store.ledger import Ledger
from sightline.store.schema import ItemStore

MOST_VANISHED: Final = 0.5
"""Share of a root's files that may vanish without a question (safety.md 4e)."""
PRUNE_FILES: Final = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A root that is not pruned.

    Attributes:
        root: the folder.
        vanished, files: how many of its files are gone.
        reason: a sentence.
    """

    root: str
    vanished: int
    files: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneReport:
    """What pruning did, or would do.

    Attributes:
        dry_run: whether it only looked.
        vanished: files that were pruned, or would be.
        rows: rows that went with them, or would go.
        refused: roots that were left alone.
    """

    dry_run: bool
    vanished: tuple[str, ...] = ()
    rows: int = 0
    refused: tuple[Refusal, ...] = field(default=())


def prune(
    store: ItemStore, ledger: Ledger, roots: Sequence[str], *, dry_run: bool = True, force: bool = False
) -> PruneReport:
    """Take vanished files out of the index.

    Args:
        store, ledger: the index.
        roots: folders that were given to ``add``.
        dry_run: only say what would go.
        force: also prune roots that look unmounted.
    """
    with store.writing() if not dry_run else contextlib.nullcontext():
        vanished: list[str] = []
        refused: list[Refusal] = []
        num_files: dict[str, int] = {}
        gone: dict[str, list[str]] = {}
        units: dict[str, int] = {}
        for state in ledger.files():
            # a file that was given by its own name is judged by the folder it stood in
            root = root_of(state.path, roots) or os.path.dirname(state.path)  # noqa: PTH120
            num_files[root] = num_files.get(root, 0) + 1
            if has_vanished(state.path):
                gone.setdefault(root, []).append(state.path)
                units[state.path] = state.units
        for root, paths in gone.items():
            share = len(paths) / num_files[root] if root in roots else 0.0
            reason = "" if force else _doubt(root, share)
            if reason:
                refused.append(Refusal(root=root, vanished=len(paths), files=num_files[root], reason=reason))
            else:
                vanished += paths
        if not dry_run:
            drop(store, ledger, vanished)
        return PruneReport(
            dry_run=dry_run,
            vanished=tuple(vanished),
            rows=sum(units[path] for path in vanished),
            refused=tuple(refused),
        )


def drop(store: ItemStore, ledger: Ledger, paths: Iterable[str]) -> int:
    """Take files out of the index: down as pending, rows out, forgotten, so that a kill between two of these leaves
    neither rows without a file nor a file that is called done and has no rows.
    """
    num = 0
    problems = Problems(ledger)
    for group in _groups(paths, PRUNE_FILES):
        states = [state for path in group if (state := ledger.file(path)) is not None]
        with ledger.batch():
            for state in states:
                ledger.begin(state.path, state.size, state.mtime_ns, state.content_hash, state.columns)
        store.delete_paths([state.path_id for state in states])
        for state in states:
            problems.put(state.path, [])
        with ledger.batch():
            num += ledger.forget([state.path for state in states])
            problems.save()
    return num


def root_of(path: str, roots: Sequence[str]) -> str:
    """The longest root that holds the path, or "".

    >>> root_of("/a/b/c", ["/a", "/a/b"])
    '/a/b'
    """
    return max((root for root in roots if is_under(path, root)), key=len, default="")


def has_vanished(path: str) -> bool:
    """Whether there is no file any more, for certain: a path that cannot be looked at is not gone."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _doubt(root: str, share: float) -> str:
    """Why a root's files may not be gone for good, or ""."""
    if not os.path.isdir(root):  # noqa: PTH112
        return "the folder is missing; is its drive mounted?"
    if not _has_entries(root):
        return "the folder is empty; is its drive mounted?"
    if share > MOST_VANISHED:
        return f"{share:.0%} of its files have vanished"
    return ""


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _groups(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for path in paths:
        group.append(path)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
