"""Opening the files that an index lists, and no other, as they were when they were indexed.

A path in an index is a claim, not a right: the file may have been changed since, or been swapped for a link to
something that was never indexed. So a file is opened folder by folder without following links, from the folder that
was given to the index; it must be a regular file, and of the size and time that the ledger has.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from sightline.library import Library
from sightline.search.prune import root_of
from sightline.server.faults import Fault
from sightline.store.ledger import FileState

GONE: Final = "the file is not there any more, or is not the one that was indexed"
CHANGED: Final = "the file has changed since it was indexed; index it again"


@contextmanager
def open_original(library: Library, path: str) -> Iterator[tuple[IO[bytes], FileState]]:
    """An indexed file, open to be read, and what the ledger knows of it.

    Raises:
        Fault: 404, the index does not list the file as indexed, or it is gone, or it is behind a link; 409, it has
            changed. Also at the end of the block, when the path leads to another file by then.
    """
    state = library.file(path)
    if state is None or state.status != "done":
        raise Fault(404, GONE, code="gone")
    file = _open(library, path)
    with file:
        before = os.fstat(file.fileno())
        _compare(before, state)
        yield file, state
        # what was decoded by name in between must have been this file
        with _open(library, path) as again:
            after = os.fstat(again.fileno())
        if (after.st_dev, after.st_ino, after.st_ctime_ns) != (before.st_dev, before.st_ino, before.st_ctime_ns):
            raise Fault(409, CHANGED, code="changed")


def reopen(library: Library, path: str) -> IO[bytes]:
    """The same file for longer than a block: the caller closes it. Raises as ``open_original``."""
    state = library.file(path)
    if state is None or state.status != "done":
        raise Fault(404, GONE, code="gone")
    file = _open(library, path)
    try:
        _compare(os.fstat(file.fileno()), state)
    except BaseException:  # whatever it was, the file is closed and the error goes on
        file.close()
        raise
    return file


def _compare(status: os.stat_result, state: FileState) -> None:
    if (status.st_size, status.st_mtime_ns) != (state.size, state.mtime_ns):
        raise Fault(409, CHANGED, code="changed")


def _open(library: Library, path: str) -> IO[bytes]:
    """The file at a path, reached from its root by folders that are no links (unless the settings follow links)."""
    follow = 0 if library.settings.follow_links else os.O_NOFOLLOW
    # the root itself is the owner's word; a file that was given by its own name is trusted as far as its folder
    root = root_of(path, library.roots) or os.path.dirname(path)  # noqa: PTH120
    *folders, name = os.path.relpath(path, root).split("/")
    if not os.path.isabs(path) or name in {"", ".", ".."} or ".." in folders:  # noqa: PTH117
        raise Fault(404, GONE, code="gone")
    place = -1
    try:
        place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow, dir_fd=place)
            os.close(place)
            place = inner
        # O_NONBLOCK: a FIFO in the file's place does not wait
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow, dir_fd=place)
    except (OSError, ValueError):
        raise Fault(404, GONE, code="gone") from None
    finally:
        if place >= 0:
            os.close(place)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Fault(404, GONE, code="gone")
    return os.fdopen(descriptor, "rb")
