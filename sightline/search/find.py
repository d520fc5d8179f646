"""Files under the paths a person gives, in a fixed order, each once.

- Only regular files are offered; FIFOs, sockets and devices are never opened (``not_file``).
- Symbolic links met in a folder are left out unless ``follow_links``; a path that is named itself is followed.
  With ``follow_links`` each real folder is visited once, so that loops end.
- Hidden files and folders (a leading dot) are left out, unless they are named themselves.
- Folders in ``leave_out`` are left out, and so is every folder that holds ``INDEX_MARK``: an index is not indexed.
- Hard links are two paths, and two files to us.
- Memory: the names of the folders between the root and the place, no more.

Paths are absolute and not resolved; bytes that are no UTF-8 are kept as Python keeps them (surrogate escapes).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sightline.errors import MEDIA_CODES
from sightline.store.ledger import STAMP_NAME
from sightline.types import PathLike, Skipped

INDEX_MARK: Final = STAMP_NAME
"""A folder with this file in it is an index."""


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file, as it was when it was found.

    Attributes:
        path: absolute.
        size: bytes.
        mtime_ns: time of the last change.
    """

    path: str
    size: int
    mtime_ns: int


def absolute(path: PathLike) -> str:
    """The path with ``~`` expanded, absolute, without ``..`` and links left as they are.

    >>> absolute("/a/b/../c")
    '/a/c'
    """
    return os.path.abspath(os.path.expanduser(os.fsdecode(path)))  # noqa: PTH100, PTH111 -- pathlib drops odd bytes less plainly


def find(
    paths: Iterable[PathLike], *, follow_links: bool = False, leave_out: Iterable[PathLike] = ()
) -> Iterator[Found | Skipped]:
    """The files at and under ``paths``, sorted by name within each folder.

    What cannot be used at all (no such path, folder without permission, FIFO) comes as ``Skipped`` in its place.
    """
    walk = _Walk(follow_links, leave_out)
    given = sorted({absolute(path) for path in paths}, key=os.fsencode)
    done: list[str] = []
    for path in given:
        if any(walk.offers(root, path) for root in done):
            continue
        if Path(path).is_dir():
            done.append(path)
        yield from walk.named(path)


def count(
    paths: Iterable[PathLike], *, follow_links: bool = False, leave_out: Iterable[PathLike] = ()
) -> tuple[int, int]:
    """(number, bytes) of what ``find`` will give; what it will skip counts as a file of no bytes."""
    number = size = 0
    for found in find(paths, follow_links=follow_links, leave_out=leave_out):
        number += 1
        size += found.size if isinstance(found, Found) else 0
    return number, size


def is_under(path: str, folder: str) -> bool:
    """Whether the path is the folder or lies in it, by name.

    >>> is_under("/a/b", "/a"), is_under("/ab", "/a"), is_under("/a", "/a")
    (True, False, True)
    """
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class _Walk:
    """One walk: what it has seen, and what it leaves out."""

    def __init__(self, follow_links: bool, leave_out: Iterable[PathLike]) -> None:
        self.follow_links = follow_links
        self.leave_out = {os.path.realpath(absolute(path)) for path in leave_out}
        self.folders: set[tuple[int, int]] = set()

    def offers(self, root: str, path: str) -> bool:
        """Whether the walk of a root comes by this path: not if it is hidden there, or behind a link."""
        if not is_under(path, root):
            return False
        here = Path(root)
        for part in Path(path).relative_to(root).parts:
            here = here / part
            if part.startswith(".") or here.is_symlink():
                return False
        return True

    def named(self, path: str) -> Iterator[Found | Skipped]:
        """A path that the person named: links are followed."""
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            yield _unreadable(path, error)
            return
        yield from self._one(path, status)

    def _one(self, path: str, status: os.stat_result) -> Iterator[Found | Skipped]:
        if stat.S_ISREG(status.st_mode):
            yield Found(path, status.st_size, status.st_mtime_ns)
        elif stat.S_ISDIR(status.st_mode):
            yield from self._folder(path, status)
        else:
            yield Skipped(path=path, code="not_file", detail=MEDIA_CODES["not_file"])

    def _folder(self, top: str, status: os.stat_result) -> Iterator[Found | Skipped]:
        """A folder and all below it. A stack, not recursion: depth is the visitor's choice, not ours."""
        stack: list[Iterator[Found | Skipped | tuple[str, os.stat_result]]] = [self._entries(top, status)]
        while stack:
            try:
                entry = next(stack[-1])
            except StopIteration:
                stack.pop()
                continue
            if isinstance(entry, tuple):
                stack.append(self._entries(*entry))
            else:
                yield entry

    def _entries(self, folder: str, status: os.stat_result) -> Iterator[Found | Skipped | tuple[str, os.stat_result]]:
        key = (status.st_dev, status.st_ino)
        if key in self.folders or os.path.realpath(folder) in self.leave_out:
            return
        if self.follow_links:
            self.folders.add(key)
        try:
            with os.scandir(folder) as scan:
                names = [entry.name for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            yield _unreadable(folder, error, "the folder cannot be opened")
            return
        if INDEX_MARK in names:
            return
        names.sort(key=os.fsencode)
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            try:
                found = os.lstat(path)
                if stat.S_ISLNK(found.st_mode):
                    if not self.follow_links:
                        continue
                    found = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:
                continue  # gone since the folder was listed, or a link to nothing
            except OSError as error:
                yield _unreadable(path, error)
                continue
            if stat.S_ISDIR(found.st_mode):
                yield path, found
            else:
                yield from self._one(path, found)


def _unreadable(path: str, error: OSError, detail: str = "") -> Skipped:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        detail = "no such file or folder"
    elif isinstance(error, PermissionError):
        detail = (detail or MEDIA_CODES["unreadable"]) + ": permission denied"
    return Skipped(path=path, code="unreadable", detail=detail or MEDIA_CODES["unreadable"])
