"""The Nth thing that a process does to the files of an index kills it, or fails: ``faults.c``, loaded before libc."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal

SOURCE: Final = Path(__file__).with_name("faults.c")
Deed = Literal["count", "kill before", "kill after", "fail"]
DEEDS: Final[tuple[Deed, ...]] = ("count", "kill before", "kill after", "fail")


@functools.cache
def library() -> Path | None:
    """The compiled file, or None where it cannot be made: not Linux, or no C compiler."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"sightline-torture-{os.getuid()}" / f"faults-{digest}.so"
    if not made.exists():
        made.parent.mkdir(mode=0o700, exist_ok=True)
        half = made.with_suffix(f".{os.getpid()}")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(half), str(SOURCE), "-ldl", "-lpthread"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        half.replace(made)
    return made


def arm(
    folder: Path, deed: Deed, nth: int, *, letters: str = "", part: str = "", error: int = 0, lib: str | None = None
) -> None:
    """In a process that has it loaded: the Nth matching thing done below the folder from now on has this effect.

    Args:
        folder: what happens elsewhere does not count.
        deed: ``count`` for no effect.
        nth: from 1.
        letters: see faults.c; "" for every one.
        part: what the path must hold.
        error: the errno of ``fail``.
        lib: for tests: the library itself.
    """
    loaded = ctypes.CDLL(lib)
    values = (os.fsencode(folder), letters.encode(), part.encode(), ctypes.c_long(nth), DEEDS.index(deed), error)
    loaded.torture_arm(*values)


def disarm() -> None:
    """Nothing more will happen; what is done is still counted and written down."""
    ctypes.CDLL(None).torture_disarm()


def keep_journal(file: Path, graves: Path) -> None:
    """Write down everything that is done, into a file; what is unlinked is kept in a folder of the same disk."""
    graves.mkdir(parents=True, exist_ok=True)
    ctypes.CDLL(None).torture_journal(os.fsencode(file), os.fsencode(graves))


def limit_bytes(num_bytes: int) -> None:
    """Writes beyond so many bytes find the disk full."""
    ctypes.CDLL(None).torture_budget(ctypes.c_int64(num_bytes))


def seen() -> int:
    """How many matching things were done."""
    return int(ctypes.CDLL(None).torture_seen())


def fired() -> bool:
    """Whether the Nth was reached."""
    return bool(ctypes.CDLL(None).torture_fired())
