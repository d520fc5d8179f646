"""One writer per index folder: a lock that the kernel lets go when its owner dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sightline.errors import IndexLockedError, StoreError

LOCK_NAME: Final = "writer.lock"
POLL_S: Final = 0.05
DYING_S: Final = 5.0
"""How long a lock is waited for whose owner was killed: a program that it was just starting has its files for some
milliseconds more."""


class WriterLock:
    """The right to write into an index folder, as a context manager.

    The lock is the kernel's (``flock``) on a file in the folder, so it ends with its owner however that ends, and the
    next writer simply takes it; pid, host and start time stand in the file only to be named in messages. The same
    object may be entered again by the thread that holds it; other threads of the process wait for it.
    The file stays: removing it would let two writers lock two files of one name.

    Args:
        folder: the index folder, which must exist.
        timeout_s: how long to wait for another process; 0 refuses at once.
    """

    def __init__(self, folder: Path, *, timeout_s: float = 0.0) -> None:
        self.path = folder / LOCK_NAME
        self.timeout_s = timeout_s
        self._threads = threading.RLock()
        self._depth = 0
        self._descriptor = -1

    @property
    def depth(self) -> int:
        """How often it was entered and not yet left."""
        return self._depth

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            IndexLockedError: another process holds it; the message names its pid.
            StoreError: the folder cannot be written.
        """
        self._threads.acquire()
        try:
            if self._depth == 0:
                self._descriptor = self._take()
            self._depth += 1
        except BaseException:  # whatever it was, the lock is given back and the error goes on
            self._threads.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go."""
        self._depth -= 1
        if self._depth == 0:
            os.close(self._descriptor)  # the kernel drops the lock with the last descriptor
            self._descriptor = -1
        self._threads.release()

    def _take(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"the index cannot be written: {error.strerror} ({self.path.parent})") from error
        try:
            give_up = time.monotonic() + self.timeout_s
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    late_s = time.monotonic() - give_up
                    if late_s >= (DYING_S if self._owner_is_dead() else 0):
                        raise IndexLockedError(self._refusal()) from None
                    time.sleep(POLL_S)
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            with contextlib.suppress(OSError):  # a full disk must not stop a delete; the file only informs
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        except BaseException:  # whatever it was, the file is closed and the error goes on
            os.close(descriptor)
            raise
        return descriptor

    def _owner_is_dead(self) -> bool:
        """Whether the last owner was killed: what it was just starting may hold its files for a moment longer."""
        owner = read_owner(self.path.parent)
        if owner is None or owner["host"] != socket.gethostname():
            return False
        try:
            os.kill(int(owner["pid"]), 0)
        except ProcessLookupError:
            return True
        except OSError:  # it lives, and is another user's
            return False
        return False

    def _refusal(self) -> str:
        owner = read_owner(self.path.parent)
        if owner is None:
            return f"another process writes to the index ({self.path.parent}); wait for it or stop it"
        who = f"pid {owner['pid']} on {owner['host']} since {owner['started']}"
        if owner["pid"] == os.getpid() and owner["host"] == socket.gethostname():
            return f"this process ({who}) already writes to the index through another handle ({self.path.parent})"
        return f"the index is locked by {who} ({self.path.parent}); wait for it or stop it"


def read_owner(folder: Path) -> dict[str, str | int] | None:
    """Pid, host and start time of the last writer of a folder, or None when it cannot be told."""
    try:
        owner = json.loads((folder / LOCK_NAME).read_text(encoding="utf-8"))
        return {"pid": int(owner["pid"]), "host": str(owner["host"]), "started": str(owner["started"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
