"""What has been written is brought to the disk, and what a power cut damaged is put aside.

LanceDB never calls fsync on a local disk (measured with strace: none in a create and an add), so a commit is safe
from a kill but not from a power cut. ``NewFiles.sync`` after each commit makes it safe.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sightline.store.ledger import sync_folder

DAMAGED_NAME: Final = "damaged"
SESSION_NAME: Final = "writing"
"""File in an index folder while somebody writes: which start of the machine that was in."""
LANCE_FOOT: Final = b"LANC"
"""Last bytes of every file that Lance has written to its end."""


class NewFiles:
    """The files below a folder that are not yet known to be on the disk.

    Files are never changed after they are committed, so a file is synced once. A new object knows none: its first
    ``sync`` also brings down what a writer that died had left behind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: set[str] = set()

    def sync(self) -> int:
        """Sync new files, then the folders they stand in. Number of files synced.

        Raises:
            OSError: the disk reports an error. Nothing must be called written then, and trying again proves nothing:
                the kernel may have dropped the pages and forgotten the error.
        """
        present: set[str] = set()
        changed: set[str] = set()
        num_synced = 0
        for path in _files(self.folder):
            present.add(path)
            if path in self._known:
                continue
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # a temporary file of a commit under way elsewhere
                continue
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            num_synced += 1
            head = os.path.dirname(path)  # noqa: PTH120 - thousands of names, kept as strings
            while head not in changed and len(head) >= len(str(self.folder)):
                changed.add(head)
                head = os.path.dirname(head)  # noqa: PTH120
        for folder in sorted(changed, key=len, reverse=True):
            sync_folder(Path(folder))
        if changed:
            sync_folder(self.folder.parent)
        self._known = present
        return num_synced


def _files(folder: Path | str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.path


def make_folder(folder: Path) -> None:
    """Make a folder and those it stands in, each of them on the disk when it returns: a file is no safer than they."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_folder(one.parent)


def boot_id() -> str:
    """What tells one start of the machine from the next, or "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def begin_session(folder: Path) -> None:
    """Say on the disk that somebody writes; the next start of the machine will know that it ended in the midst."""
    with (folder / SESSION_NAME).open("w", encoding="ascii") as file:
        file.write(boot_id() or "unknown")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def end_session(folder: Path) -> None:
    """Everything is on the disk. When this is not, someone will look twice, that is all."""
    (folder / SESSION_NAME).unlink(missing_ok=True)


def was_cut_off(folder: Path) -> bool:
    """Whether the machine went down while somebody wrote: files may have their size and not their contents.

    A process that was killed leaves everything to the system, which still has it: nothing is amiss then.
    """
    try:
        return (folder / SESSION_NAME).read_text(encoding="ascii", errors="replace") != boot_id()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def has_lance_foot(path: Path) -> bool:
    """Whether a file of Lance's ends as one that was written to its end."""
    with path.open("rb") as file:
        file.seek(-min(len(LANCE_FOOT), path.stat().st_size), os.SEEK_END)
        return file.read() == LANCE_FOOT


def put_aside(file: Path, folder: Path) -> Path:
    """Move a damaged file into the folder ``damaged`` of an index, under a name of its own. The new place."""
    aside = folder / DAMAGED_NAME
    aside.mkdir(exist_ok=True)  # its name is synced last: the move must not wait for a disk that reports errors
    target = aside / f"{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9:09d}-{file.name}"
    file.rename(target)
    sync_folder(aside)
    sync_folder(file.parent)
    sync_folder(folder)
    return target
