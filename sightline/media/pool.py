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
import io
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, cast

import numpy as np

import sightline
from sightline.errors import MediaError
from sightline.media import wire
from sightline.media.child import BUFFER_BYTES, HANDS_OVER
from sightline.media.room import PLACES, Room, place_bytes
from sightline.media.source import local_path, open_regular
from sightline.media.units import UnitError
from sightline.settings import Settings
from sightline.types import Kind, PathLike, Unit

FILES_PER_CHILD: Final = 500
"""Files after which a child is replaced, so that what a decoder leaks is given back."""
START_TIMEOUT_S: Final = 60.0
"""Seconds a child may take to start: it loads numpy, on a busy machine."""

PIPE_BYTES: Final = 2**20
"""The most that Linux lets an ordinary user have (/proc/sys/fs/pipe-max-size)."""
DEATHS: Final = 3
"""Children that one document may cost: after a page that ends its child the next page is tried, up to here."""
PAGE_SHARE: Final = (0.5, 0.25, 0.25)
"""Share of ``decode_timeout_s`` that a page may take, by the children it has cost so far: together one such time, so
that a document of which every page hangs costs no more of it than any other file."""
ENDINGS: Final = frozenset({"crash", "timeout", "memory"})
"""What a child ends with."""

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
_QUOTAS: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}
"""Threads and arenas reserve address space, which is limited. Memory of one picture is kept for the next one: to get
it from the system anew, page by page, takes longer than to decode a picture of two megapixels (glibc's malloc)."""
OUR_CODE: Final = (
    "import sys; "
    "at = next((n for n, path in enumerate(sys.path) if path.endswith('-packages')), len(sys.path)); "
    "sys.path.insert(at, sys.argv[1]); "
)
"""The child runs the code of its parent, and not that of another Sightline that is installed; Python's own comes
before either."""
_START: Final = OUR_CODE + "from sightline.media.child import main; main(int(sys.argv[2]))"


class DecodePool:
    """Runs ``units``, ``unit`` and what ``given`` holds in child processes.

    Any thread may call; each running call has a child of its own, started when none is idle, and at most ``workers``
    idle ones are kept. Children are fresh interpreters, so nothing of the caller's program runs in them.

    Args:
        settings: limits; ``decode_timeout_s`` is the time for each unit (half of it for a page of a PDF),
            ``decode_memory_bytes`` the address space.
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
        """Which rights the last started child has given up (see ``sandbox``); empty before the first."""

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

    def units(self, path: PathLike) -> UnitStream:
        """The units of one file, streamed: the child works two or three units ahead and then waits.

        A page of a PDF that ends its child is a ``UnitError`` of that page, and another child goes on behind it. Who
        reads file after file asks the stream of one for the ``next_file``, so that the child need not wait between two.

        Raises:
            MediaError: as ``units.units``; ``timeout`` when a unit takes too long, ``crash`` when the child dies,
                ``memory`` when it ran out. Units already given stay good.
        """
        return UnitStream(self, _Asked({"op": "units"}, path=path))

    def _units(self, asked: _Asked) -> Generator[Unit | UnitError]:
        with asked.opened:
            asked.open()
            while not asked.over:
                try:
                    yield from self._ask(asked)
                    asked.over = True
                except MediaError as error:
                    asked.deaths += 1
                    asked.over = not asked.in_pages or error.code not in ENDINGS or asked.deaths >= DEATHS
                    if asked.over or self._closed:
                        raise
                    asked.page += 1
                    yield UnitError(code=error.code, detail=error.detail, page=asked.page - 1)

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
        request = {"op": "unit", "kind": kind, "page": page, "start_s": start_s, "end_s": end_s}
        asked = _Asked(request, path=path)
        with asked.opened:
            asked.open()
            return self._one(asked)

    def picture(self, data: bytes) -> Unit:
        """The picture in some bytes, as ``given.picture``; they go through the pipe, not through a file.

        Raises:
            MediaError: as ``units``.
        """
        return self._one(_Asked({"op": "picture"}, data))

    def clip(self, data: bytes, fps: float, max_frames: int) -> Unit:
        """The frames taken of the video in some bytes, as ``given.clip``.

        Raises:
            MediaError: as ``units``.
        """
        return self._one(_Asked({"op": "clip", "fps": fps, "max_frames": max_frames}, data))

    def _one(self, asked: _Asked) -> Unit:
        found = list(self._ask(asked))
        if len(found) != 1 or not isinstance(found[0], Unit):
            raise MediaError("crash")
        return found[0]

    def _ask(self, asked: _Asked) -> Iterator[Unit | UnitError]:
        child = self._begin(asked)
        finished = False
        try:
            failure: MediaError | None = None
            while True:
                header, pixels = child.receive(asked.timeout_s(self.settings))
                if header.get("is") == "end":
                    finished = True
                    break
                if header.get("is") == "pages":
                    asked.in_pages = True
                    continue
                value = child.unpack(header, pixels)
                finished = header.get("end") is True  # behind the look at it: a child that lies is not kept
                if isinstance(value, MediaError):
                    failure = value
                elif failure is None:
                    if value.page is not None:
                        asked.page = value.page + 1
                    yield value
                if finished:
                    break
        finally:
            self._give_back(child, finished)
        if failure is not None:
            raise failure

    def _begin(self, asked: _Asked) -> _Child:
        """The child that was told what is asked: now, or when it still worked on the file before."""
        if asked.child is None:
            self._tell(asked, self._take())
        return cast(_Child, asked.child)

    def _tell(self, asked: _Asked, child: _Child) -> None:
        child.line.append(asked)
        asked.child = child
        try:
            child.send(asked.request | {"first_page": asked.page}, asked.data, asked.file)
        except MediaError:
            if child.line[0] is asked:
                self._give_back(child, finished=False)
            else:  # half of it may have been sent: the child ends with the file in front
                asked.child = None
            raise

    def _stand_behind(self, first: _Asked, asked: _Asked) -> None:
        """Tell the child of one file of the next, if it will be there for it. What fails here fails in its turn."""
        with suppress(MediaError):
            first.open()
            child = self._begin(first)
            if len(child.line) == 1 and child.num_files + 1 < FILES_PER_CHILD:
                asked.open()
                self._tell(asked, child)

    def _withdraw(self, asked: _Asked) -> None:
        """What was told and is not wanted any more: nobody else may get its answers."""
        child, asked.child = asked.child, None
        if child is not None and child.line[0] is asked:
            self._give_back(child, finished=False)

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
        """A file has had its turn: the child goes on with the next in line, rests, or is ended."""
        child.num_files += 1
        child.line.popleft().child = None
        if child.line:
            if finished and child.line[0].child is child:
                return
            finished = False
            child.line.popleft().child = None  # it is asked again of another child
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


class UnitStream(Iterator[Unit | UnitError]):
    """The units of one file in order, from ``DecodePool.units``."""

    def __init__(self, pool: DecodePool, asked: _Asked) -> None:
        self._pool = pool
        self._asked = asked
        self._units = pool._units(asked)

    def __next__(self) -> Unit | UnitError:
        return next(self._units)

    def next_file(self, path: PathLike) -> UnitStream:
        """The units of the file that the same thread reads next, asked of the one that it reads now.

        The child is told of it at once, so that it begins with it while this file's last units are read. Its turn comes
        when this one is read to its end, or closed, and its time counts from then. If the child did not live to see
        that turn, another is asked: the file bears no blame for the one in front. Only one stands behind another;
        further ones are told of in their turn. A stream from here is closed if it is not read.
        """
        stream = self._pool.units(path)
        if HANDS_OVER and not self._asked.over:
            self._pool._stand_behind(self._asked, stream._asked)
        return stream

    def close(self) -> None:
        """Let the child go."""
        self._units.close()
        self._asked.over = True
        self._pool._withdraw(self._asked)
        with suppress(MediaError):  # nobody reads it: whether it changed meanwhile is all the same
            self._asked.opened.close()


@dataclass(slots=True, eq=False)
class _Asked:
    """What a child is asked, and how far it came.

    Attributes:
        request: the header.
        data: bytes it is about.
        path: the file it is about, or None.
        file: that file, open, for a child that may open none.
        opened: ends when its units are read: until then it is watched for changes.
        child: who was told of it.
        over: whether all is said of it.
        in_pages: whether the file is a PDF that opened.
        page: the page to come, from 1.
        deaths: children it has cost.
    """

    request: dict[str, Any]
    data: bytes = b""
    path: PathLike | None = None
    file: BinaryIO | None = None
    opened: ExitStack = field(default_factory=ExitStack)
    child: _Child | None = None
    over: bool = False
    in_pages: bool = False
    page: int = 1
    deaths: int = 0

    def open(self) -> None:
        """Open the file, unless it is."""
        if self.path is None or "path" in self.request:
            return
        name = local_path(self.path)
        if HANDS_OVER:
            self.file, _ = self.opened.enter_context(open_regular(name))
        self.request["path"] = Path(name).name if HANDS_OVER else name  # no more than the child needs

    def timeout_s(self, settings: Settings) -> float:
        """Seconds for what comes next."""
        return settings.decode_timeout_s * (PAGE_SHARE[self.deaths] if self.in_pages else 1.0)


class _Child:
    """One decoder process, the pipes to it, and the memory where it puts pixels.

    Attributes:
        num_files: how many it has had.
        line: what it was told: what it answers now, and what comes next.
    """

    def __init__(self, settings: Settings) -> None:
        self.num_files = 0
        self.line: deque[_Asked] = deque()
        package = Path(sightline.__file__).parent.parent
        theirs: Any = subprocess.PIPE
        self._requests: Any = None
        self._place_bytes = place_bytes(settings.decode_memory_bytes)
        self._room = Room.make(PLACES * self._place_bytes) if HANDS_OVER else None
        if HANDS_OVER:
            self._requests, theirs = socket.socketpair()
            self._requests.settimeout(START_TIMEOUT_S)
        command = [sys.executable, "-P", "-B", "-c", _START, os.fspath(package), str(os.getpid())]
        environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT} | _QUOTAS
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own words
            command,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
        )
        if HANDS_OVER:
            theirs.close()
            _widen(self._process.stdout)
            self._answers = _Timed(cast(io.FileIO, self._process.stdout))
        else:
            self._requests = self._process.stdin

    def greet(self, settings: Settings) -> dict[str, bool]:
        """Tell the child its limits; what it gave up."""
        words = {"settings": dataclasses.asdict(settings), "place_bytes": self._place_bytes}
        self.send(words, file=self._room)
        header, _ = self.receive(START_TIMEOUT_S)
        held = header.get("held")
        if header.get("is") != "ready" or not isinstance(held, dict):
            raise MediaError("crash", "the decoder process did not start")
        return {str(name): bool(value) for name, value in held.items()}

    def usable(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def send(self, header: dict[str, Any], data: bytes = b"", file: BinaryIO | Room | None = None) -> None:
        """Send a request, and the bytes or the open file it is about."""
        array = np.frombuffer(data, np.uint8) if data else None
        header = header | {"file": file is not None, "num_read": self._room.num_read if self._room is not None else 0}
        try:
            if HANDS_OVER:
                wire.send(_Socket(self._requests, file), header, array)
            else:
                with self._killed_after(START_TIMEOUT_S):
                    wire.send(self._requests, header, array)
        except (OSError, ValueError):
            raise MediaError("crash") from None

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], Any]:
        """The next frame, within a time; the process is killed when it does not come."""
        try:
            if HANDS_OVER:
                self._answers.until_s = time.monotonic() + timeout_s
                header, pixels = wire.receive(self._answers)
                return header, self._read(header) if "place" in header else pixels
            with self._killed_after(timeout_s) as late:
                try:
                    return wire.receive(cast(io.FileIO, self._process.stdout))
                except wire.Broken:
                    raise TimeoutError if late.is_set() else wire.Broken from None
        except TimeoutError:
            self._process.kill()
            raise MediaError("timeout") from None
        except (wire.Broken, OSError, ValueError):
            raise MediaError("crash") from None

    def _read(self, header: dict[str, Any]) -> Any:
        """The pixels out of the common memory; the child is told, which may be waiting for the place."""
        if self._room is None:
            raise wire.Broken
        pixels = self._room.read(header["place"], wire.num_pixel_bytes(header))
        if header.get("end") is not True:  # else the next request says it
            with suppress(OSError):  # a child that has died: what it gave before is good
                wire.send(_Socket(self._requests, None), {"num_read": self._room.num_read})
        return pixels

    @contextmanager
    def _killed_after(self, timeout_s: float) -> Iterator[threading.Event]:
        """Kill the process if the block takes too long, where a pipe cannot be waited for with a limit (Windows)."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, stop)
        timer.daemon = True
        timer.start()
        try:
            yield late
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
        for pipe in (self._requests, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._room is not None:
            self._room.close()


def _widen(pipe: Any) -> None:
    """Let a pipe hold more than 64 KiB, so that pixels cross with fewer changes of process."""
    with suppress(OSError, ImportError, AttributeError):  # not Linux, or a system of less
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class _Timed:
    """A pipe to read from until a time; a thread that watches the clock would cost more than a small picture.

    Attributes:
        until_s: the time, by the monotonic clock.
    """

    def __init__(self, inner: io.FileIO) -> None:
        self.until_s = 0.0
        self._inner = inner
        self._poll = select.poll()
        self._poll.register(inner, select.POLLIN)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._ready = self._buffer[:0]

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill part of the buffer."""
        if not len(self._ready):
            if not self._poll.poll(max(0.0, self.until_s - time.monotonic()) * 1000):
                raise TimeoutError
            if len(buffer) >= BUFFER_BYTES:
                return self._inner.readinto(buffer)
            self._ready = self._buffer[: self._inner.readinto(self._buffer) or 0]
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)


class _Socket:
    """A socket to write to as to a pipe; an open file goes with the first bytes."""

    def __init__(self, inner: socket.socket, file: BinaryIO | Room | None) -> None:
        self._inner = inner
        self._file = file

    def write(self, data: Any, /) -> int:
        if self._file is None:
            return self._inner.send(data)
        number = socket.send_fds(self._inner, [data], [self._file.fileno()])
        self._file = None
        return number
