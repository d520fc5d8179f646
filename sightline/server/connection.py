"""One connection of the web server, with the clocks that uvicorn lacks: for a head that drips in, for a body that never
ends, for a caller who does not read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sightline.server import faults
from sightline.settings import Settings

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 48 * 1024
"""Bytes of a request line and its headers that are kept while more of them are to come; the guard is stricter."""
KEEP_ALIVE_S: Final = 5
"""Seconds an idle connection is kept for a next request."""
GRACE_S: Final = 5.0
"""Seconds after the guard has refused a slow body in which it may still end: a caller who is cut off while it sends
would not see the answer."""
MIN_RATE: Final = 1024
"""Bytes per second a caller must at least take of an answer that waits for it."""
SPARE_FILES: Final = 256
"""Open files left to the rest of the process: indexes, decoders, models."""
ARRIVED: Final = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)


def options(settings: Settings) -> dict[str, Any]:
    """What ``uvicorn.Config`` is given."""
    limits = {"read_s": settings.serve_read_s, "most": most_connections(settings.serve_queue)}
    return {
        "http": type("LimitedConnection", (Connection,), limits),
        "ws": "none",
        "lifespan": "on",
        # a proxy in front must not decide who the caller is; nothing here asks anyway
        "proxy_headers": False,
        "forwarded_allow_ips": "",
        "root_path": "",
        "server_header": False,
        # its lines hold the query, where some put a key
        "access_log": False,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": math.ceil(settings.serve_stop_s),
        # the desk answers 429 and connections are bounded below; uvicorn's own bound would answer 503
        "limit_concurrency": None,
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
    }


def most_connections(queue: int) -> int:
    """Connections held at once: twice the requests that may wait, as far as files may be opened.

    The limit of open files is raised for them where the system lets us.
    """
    wanted = max(2 * queue, 256)
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(OSError, ValueError):  # some systems have a lower bound of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    found = max(min(wanted, soft - SPARE_FILES), 16)
    if found < wanted:
        logger.warning(
            "%d files may be open (ulimit -n): %d connections are held at once, not %d; %d files would do",
            *(soft, found, wanted, needed),
        )
    return found


class Connection(H11Protocol):
    """A caller's connection.

    Attributes:
        read_s: seconds within which a request must arrive whole, and in which a waiting answer must move.
        most: connections of the server.
    """

    read_s: float = 20.0
    most: int = 1024

    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    _unsent: int = 0
    _since: float = 0.0
    """When the first byte of the request was waited for, of the loop's clock."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nothing was sent yet: the clock runs."""
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._make_room():
            self._refuse(503)
            return
        self._start_reading(self.read_s)

    def _make_room(self) -> bool:
        """Cut off who has been sending one request, or nothing, for the longest: slow callers in any number keep nobody
        out. False when every other caller waits for an answer.
        """
        others = (one for one in self.connections if one is not self and isinstance(one, Connection))
        slow = [one for one in others if one._reading is not None and not one.transport.is_closing()]
        if not slow:
            return False
        min(slow, key=lambda one: one._since).transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._stop_reading()
        self._stop_writing()
        super().connection_lost(exc)

    # -- requests that come in ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        if self._reading is None:
            self._start_reading(self.read_s)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """An answer was handed over: a next request may be in the buffer already, and the answer may still wait."""
        super().on_response_complete()
        self._look()
        self._watch_writing()

    def _look(self) -> None:
        state = self.conn.their_state
        if state in ARRIVED or (state is h11.IDLE and not self.conn.trailing_data[0]):
            self._stop_reading()

    def _start_reading(self, seconds: float) -> None:
        if self._reading is None:
            self._since = self.loop.time()
        self._stop_reading()
        self._reading = self.loop.call_later(seconds, self._late, self.conn.their_state)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _late(self, before: Any) -> None:
        self._reading = None
        if self.transport.is_closing():
            self.transport.abort()
        elif self.conn.their_state is h11.IDLE:
            self._refuse(408)
        elif before is h11.SEND_BODY:
            self.transport.abort()
        else:
            self._start_reading(GRACE_S)

    # -- answers that go out -----------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The caller does not read as fast as we write."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_writing()

    def _watch_writing(self) -> None:
        self._stop_writing()
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent > 0:
            self._writing = self.loop.call_later(self.read_s, self._stuck)

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _stuck(self) -> None:
        wanted = max(self._unsent - int(MIN_RATE * self.read_s), 0)
        if self.transport.get_write_buffer_size() <= wanted:
            self._watch_writing()
            return
        wire = self.transport.get_extra_info("socket")
        if wire is not None:  # what the system holds for this caller is dropped too, some megabytes
            with suppress(OSError):
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # -- answers without an application ------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """What came in is not HTTP."""
        self._refuse(400)

    def _refuse(self, status: int) -> None:
        """Answer and close; in the middle of another answer, just close."""
        from sightline.server.guard import SECURITY_HEADERS

        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        fault = faults.Fault(status)
        content = json.dumps(faults.body(status, fault.message)).encode()
        headers = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
        headers += [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(content)).encode())]
        headers += [(b"Cache-Control", b"no-store"), (b"Connection", b"close")]
        if status == 503:
            headers.append((b"Retry-After", b"1"))
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
