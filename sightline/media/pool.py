"""Decoding in child processes: a file that kills or hangs its decoder costs one file.

>>> import tempfile, pathlib
>>> with tempfile.TemporaryDirectory() as folder, DecodePool() as pool:
...     note = pathlib.Path(folder, "note.txt")
...     _ = note.write_text("A red bicycle.")
...     [unit.text for unit in pool.units(note)]
['A red bicycle.']
"""

from __future__ import annotations

import dataclasses
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import sightline
from sightline.errors import MediaError
from sightline.media import wire
from sightline.media.units import UnitError
from sightline.settings import Settings
from sightline.types import Kind, PathLike, Unit

FILES_PER_CHILD: Final = 500
"""Files after which a child is replaced, so that what a decoder leaks is given back."""
START_TIMEOUT_S: Final = 60.0
"""Seconds a child may take to start: it loads numpy, on a busy machine."""

_ENVIRONMENT: Final = frozenset(
    {
        "PATH",
        "PYTHONPATH",
        "PYTHONHOME",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "SYSTEMROOT",
    }
)
"""What a child sees of the environment: no keys, no tokens."""
_QUOTAS: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Threads and arenas reserve address space, which is limited."""
_START: Final = (
    "import sys; sys.path.append(sys.argv[1]); from sightline.media.child import main; main(int(sys.argv[2]))"
)


class DecodePool:
    """Runs ``units`` and ``unit`` in child processes.

    Any thread may call; each running call has a child of its own, started when none is idle, and at most ``workers``
    idle ones are kept. Children are fresh interpreters, so nothing of the caller's program runs in them.

    Args:
        settings: limits; ``decode_timeout_s`` is the time for each unit, ``decode_memory_bytes`` the address space.
        workers: idle children kept; None takes ``settings.decode_workers``.
    """

    def __init__(self, settings: Settings | None = None, workers: int | None = None) -> None:
        self.settings = settings if settings is not None else Settings()
        self._keep = workers if workers is not None else self.settings.decode_workers
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._alive: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        # the death signal of a child is tied to the thread that started it: one thread that lives as long as the pool
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="sightline-decode")
        self.held: dict[str, bool] = {}
        """Which rights the last started child has given up (see ``child``); empty before the first."""

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every child, also those at work."""
        with self._lock:
            self._closed = True
            children = list(self._alive)
            self._alive.clear()
        for child in children:
            child.kill()
        self._starter.shutdown()

    def units(self, path: PathLike) -> Iterator[Unit | UnitError]:
        """The units of one file, streamed: the child works one unit ahead and then waits.

        Raises:
            MediaError: as ``units.units``; ``timeout`` when a unit takes too long, ``crash`` when the child dies,
                ``memory`` when it ran out. Units already given stay good.
        """
        yield from self._ask({"op": "units", "path": os.fsdecode(path)})

    def unit(
        self,
        path: PathLike,
        kind: Kind,
        page: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Unit:
        """One image, page or moment read again.

        Raises:
            MediaError: as ``units``.
        """
        request = {"op": "unit", "path": os.fsdecode(path), "kind": kind}
        found = list(self._ask({**request, "page": page, "start_s": start_s, "end_s": end_s}))
        if len(found) != 1 or not isinstance(found[0], Unit):
            raise MediaError("crash")
        return found[0]

    def _ask(self, request: dict[str, Any]) -> Iterator[Unit | UnitError]:
        child = self._take()
        finished = False
        try:
            child.send(request)
            failure: MediaError | None = None
            while True:
                header, pixels = child.receive(self.settings.decode_timeout_s)
                if header.get("is") == "end":
                    finished = True
                    break
                value = child.unpack(header, pixels)
                if isinstance(value, MediaError):
                    failure = value
                elif failure is None:
                    yield value
        finally:
            self._give_back(child, finished)
        if failure is not None:
            raise failure

    def _take(self) -> _Child:
        while True:
            with self._lock:
                if self._closed:
                    raise MediaError("crash", "the decode pool is closed")
                try:
                    child = self._idle.get_nowait()
                except queue.Empty:
                    break
            if child.usable():
                return child
            self._forget(child)
        child = self._starter.submit(_Child, self.settings).result()
        try:
            self.held = child.greet(self.settings)
        except MediaError:
            child.kill()
            raise
        with self._lock:
            self._alive.add(child)
        return child

    def _give_back(self, child: _Child, finished: bool) -> None:
        child.num_files += 1
        with self._lock:
            room = not self._closed and self._idle.qsize() < self._keep
            keep = finished and room and child.num_files < FILES_PER_CHILD
            if keep:
                self._idle.put(child)
        if not keep:
            self._forget(child)

    def _forget(self, child: _Child) -> None:
        with self._lock:
            self._alive.discard(child)
        child.kill()


class _Child:
    """One decoder process and the pipes to it."""

    def __init__(self, settings: Settings) -> None:
        self.num_files = 0
        package = Path(sightline.__file__).parent.parent
        command = [sys.executable, "-P", "-B", "-c", _START, os.fspath(package), str(os.getpid())]
        environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT} | _QUOTAS
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own words
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
        )

    def greet(self, settings: Settings) -> dict[str, bool]:
        """Tell the child its limits; what it gave up."""
        self.send({"settings": dataclasses.asdict(settings)})
        header, _ = self.receive(START_TIMEOUT_S)
        held = header.get("held")
        if header.get("is") != "ready" or not isinstance(held, dict):
            raise MediaError("crash", "the decoder process did not start")
        return {str(name): bool(value) for name, value in held.items()}

    def usable(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def send(self, header: dict[str, Any]) -> None:
        """Send a request."""
        try:
            wire.send(cast(wire.Writable, self._process.stdin), header)
        except (OSError, ValueError):
            raise MediaError("crash") from None

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], Any]:
        """The next frame, within a time; the process is killed when it does not come."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, stop)
        timer.daemon = True
        timer.start()
        try:
            return wire.receive(cast(wire.Readable, self._process.stdout))
        except (wire.Broken, OSError, ValueError):
            raise MediaError("timeout" if late.is_set() else "crash") from None
        finally:
            timer.cancel()

    def unpack(self, header: dict[str, Any], pixels: Any) -> Unit | UnitError | MediaError:
        """The value of a frame; one that makes no sense is a crash."""
        try:
            return wire.unpack(header, pixels)
        except wire.Broken:
            raise MediaError("crash") from None

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
