"""One file through the real path (``Library.add``, the decoder's process, an embedder, store and ledger), and what came
of it: its code, what it took, and that everything seen is accounted for.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from sightline.errors import MEDIA_CODES
from sightline.library import Library
from sightline.media.pool import DecodePool
from sightline.protocols import EmbeddingModel
from sightline.settings import Settings
from sightline.store.schema import Row
from sightline.types import AddReport

MAX_S = 30.0
"""Processor seconds that any one file may take, the parent's and the decoder's together."""
MAX_WALL_S = 300.0
"""Seconds of the clock: ten times as many, for a machine that is busy with other things."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one path.

    Attributes:
        report: of the run.
        code: why a file was skipped, ``indexed``, ``unchanged`` or ``deferred``; of several files, "".
        detail: the sentence with the code; of an indexed file, what the ledger says besides.
        rows: the rows that came in.
        cpu_s: processor seconds of this process and the decoder's.
        parent_bytes: by how much this process grew at its highest.
        child_bytes: most memory that a decoder's process held; 0 where the system does not tell.
    """

    report: AddReport
    code: str
    detail: str
    rows: list[Row]
    cpu_s: float
    parent_bytes: int
    child_bytes: int


class _Kept(DecodePool):
    """A pool that outlives a run: a decoder starts once for all files of a module."""

    def __exit__(self, *_: object) -> None:
        return None


class Desk:
    """A library that takes one path at a time."""

    def __init__(self, folder: Path, embedder: EmbeddingModel, settings: Settings | None = None) -> None:
        self.folder = folder
        self.pool = _Kept(settings)
        self.num_decoded = 0
        self._patch = mock.patch("sightline.library.DecodePool", lambda _: self.pool)
        self._patch.start()
        self.library = Library.open(folder / "index", embedder=embedder, settings=settings)

    def close(self) -> None:
        self.library.close()
        self.pool.close()
        self._patch.stop()

    def write(self, name: str, data: bytes) -> Path:
        """A file in a folder of its own: several cases may want one name."""
        place = self.folder / f"{len(list(self.folder.iterdir())):03}"
        place.mkdir()
        path = place / name
        path.write_bytes(data)
        return path

    def take(self, name: str, data: bytes, **options: Any) -> Outcome:
        """Write a file and index it."""
        return self.index(self.write(name, data), **options)

    def index(self, path: Path, *, max_s: float = MAX_S, **options: Any) -> Outcome:
        """Index a path. Whatever it is, the run ends, within limits, with every file accounted for."""
        before = set(self.library._store.ids())
        start_s, start_cpu_s = time.monotonic(), _cpu_s()
        with watched() as peaks:
            report = self.library.add([path], **options)
        cpu_s, wall_s = _cpu_s() - start_cpu_s, time.monotonic() - start_s
        assert report.seen == report.indexed + report.unchanged + len(report.skipped) + report.deferred
        assert cpu_s <= max_s * max(report.seen, 1)
        assert wall_s <= MAX_WALL_S
        assert peaks["parent"] < 1.5 * 2**30
        assert all(one.code in MEDIA_CODES and one.detail and "0x" not in one.detail for one in report.skipped)
        rows = self.library._store.get(sorted(set(self.library._store.ids()) - before))
        code, detail = _told(report, self.library, path)
        return Outcome(report, code, detail, rows, cpu_s, peaks["parent"], peaks["child"])


def _told(report: AddReport, library: Library, path: Path) -> tuple[str, str]:
    if report.seen != 1:
        return "", ""
    if report.skipped:
        return report.skipped[0].code, report.skipped[0].detail
    state = library.file(str(path))
    code = "indexed" if report.indexed else "unchanged" if report.unchanged else "deferred"
    return code, state.detail if state else ""


def _cpu_s() -> float:
    total = time.process_time()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it may just have ended
            times = child.cpu_times()
            total += times.user + times.system
    return total


@contextlib.contextmanager
def watched() -> Iterator[dict[str, int]]:
    """How far this process grows in the block, and the most that a child holds; looked at a hundred times a second."""
    me = psutil.Process()
    children = [Path(f"/proc/{child.pid}") for child in me.children()]
    for child in children:
        with contextlib.suppress(OSError):  # not Linux, or the child has ended
            (child / "clear_refs").write_text("5")  # its highest mark starts again
    idle = me.memory_info().rss
    peaks = {"parent": 0, "child": 0, "grown": 0}
    held = max((_peak(child.pid) for child in me.children()), default=0)
    ended = threading.Event()

    def look() -> None:
        last, looks = False, 0
        while not last:
            last = ended.wait(0.01)
            peaks["parent"] = max(peaks["parent"], me.memory_info().rss - idle)
            if last or looks % 20 == 0:  # finding children takes long where there are many processes
                for child in me.children():
                    peaks["child"] = max(peaks["child"], _peak(child.pid))
                peaks["grown"] = max(peaks["child"] - held, 0)
            looks += 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


def _peak(pid: int) -> int:
    """The most memory that a process has held, in bytes."""
    with contextlib.suppress(OSError):  # as above
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
