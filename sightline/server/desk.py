"""Work that blocks (decoding, models, an index) in threads beside the event loop: bounded, cancellable, stoppable.

A request that finds the desk full is refused at once (429) instead of waiting without end. One whose caller has gone,
or that takes too long, is told so through ``giving_up``: what it still had waiting at the models is dropped before it
runs. Its place is free only when its thread has really ended, so that callers who come and go cannot pile up work.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from sightline.engine.turns import giving_up
from sightline.server.faults import Fault

Result = TypeVar("Result")

THREADS: Final = 64
"""Requests worked on at once; the others wait at the desk. Models run in one thread of their own."""
LOOK_S: Final = 0.25
"""Seconds between looks at whether the caller is still there."""
RETRY_MOST_S: Final = 30
"""Most seconds that a refused caller is told to wait."""
NEW_S: Final = 0.1
"""Seconds of a request, before any was seen."""


@dataclass(frozen=True, slots=True)
class DeskCounts:
    """What the desk holds now and has done.

    Attributes:
        taken: requests waiting or running.
        running: of them, those that have a thread.
        answered: requests whose work ended while somebody waited, well or with an error.
        refused: 429 and 503.
        late: 504.
        gone: callers that went away.
    """

    taken: int = 0
    running: int = 0
    answered: int = 0
    refused: int = 0
    late: int = 0
    gone: int = 0


class Caller(Protocol):
    """A request, as far as the desk has to know it (``fastapi.Request``)."""

    async def is_disconnected(self) -> bool:
        """Whether nobody is there any more."""
        ...


class Desk:
    """Takes the blocking work of requests.

    Args:
        most: requests waiting or running.
        timeout_s: for one piece of work.
        stop_s: what running requests get when the server is stopped.
    """

    def __init__(self, most: int, timeout_s: float, stop_s: float = 30.0) -> None:
        self.most = most
        self.timeout_s = timeout_s
        self.stop_s = stop_s
        self.stopping = False
        # garbage is collected at any line: a request that ends so may find the lock held by its own thread
        self._lock = threading.RLock()
        self._taken = self._running = self._answered = self._refused = self._late = self._away = 0
        self._mean_s = NEW_S
        self._gone: set[threading.Event] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sightline-request")

    @property
    def num_taken(self) -> int:
        """Requests waiting or running."""
        return self._taken

    def counts(self) -> DeskCounts:
        """A snapshot, for metrics."""
        with self._lock:
            return DeskCounts(
                taken=self._taken,
                running=self._running,
                answered=self._answered,
                refused=self._refused,
                late=self._late,
                gone=self._away,
            )

    async def run(self, request: Caller, work: Callable[[], Result]) -> Result:
        """What ``work`` returns, worked out in a thread.

        In that thread ``giving_up`` holds an event that is set when nobody waits for the answer any more.

        Raises:
            Fault: 429 when too much is waiting, 503 when the server stops, 504 when it takes too long, 499 (never
                seen by anyone) when the caller has gone.
        """
        gone = threading.Event()
        future = self._take(work, gone)
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(_seen)
        end = time.monotonic() + self.timeout_s
        answered = late = False
        try:
            while True:
                left = end - time.monotonic()
                done, _ = await asyncio.wait({answer}, timeout=max(0.0, min(LOOK_S, left)))
                if done:
                    answered = True
                    return answer.result()
                if left <= 0:
                    late = True
                    raise Fault(504)
                if await request.is_disconnected():
                    raise Fault(499, "the caller has gone")
        except asyncio.CancelledError:
            if future.cancelled() and self.stopping:  # it was still waiting for a thread when the desk closed
                raise Fault(503, retry_s=5) from None
            raise
        finally:
            gone.set()
            future.cancel()
            with self._lock:
                self._answered += answered
                self._late += late
                self._away += not (answered or late)  # also when the task of the request was cancelled

    def refuse(self) -> None:
        """Take nothing more; what was taken goes on."""
        self.stopping = True

    async def stop(self) -> None:
        """Take nothing more, and give what was taken ``stop_s`` to end; what is left then is given up."""
        self.refuse()
        end = time.monotonic() + self.stop_s
        while self.num_taken and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Take nothing more and give up what was taken."""
        self.refuse()
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for gone in self._gone:
                gone.set()

    def _take(self, work: Callable[[], Result], gone: threading.Event) -> Future[Result]:
        context = contextvars.copy_context()
        context.run(giving_up.set, gone)

        def run() -> Result:
            with self._lock:
                self._running += 1
            start = time.monotonic()
            try:
                return context.run(work)
            except Exception:  # an error of the work itself: the handlers above know what to say of it
                raise
            except BaseException as error:  # a panic of a library in Rust; a SystemExit, which would end the loop
                raise RuntimeError("the work of a request has ended as no work should") from error
            finally:
                with self._lock:
                    self._running -= 1
                    self._mean_s += 0.05 * (time.monotonic() - start - self._mean_s)

        with self._lock:
            if self.stopping or self._taken >= self.most:
                self._refused += 1
                raise Fault(503, retry_s=5) if self.stopping else Fault(429, retry_s=self._retry_s())
            self._taken += 1
            self._gone.add(gone)
            try:
                future = self._threads.submit(run)
            except RuntimeError:  # closed in between
                self._leave(gone)
                raise Fault(503, retry_s=5) from None
        future.add_done_callback(lambda _: self._leave(gone))
        return future

    def _leave(self, gone: threading.Event) -> None:
        with self._lock:
            self._gone.discard(gone)
            self._taken -= 1

    def _retry_s(self) -> int:
        """When there will be room, as the last requests went."""
        return max(1, min(RETRY_MOST_S, round(self._taken * self._mean_s / THREADS)))


def _seen(answer: asyncio.Future[Result]) -> None:
    """Look at the error of work that nobody waits for, or asyncio complains of it."""
    if not answer.cancelled():
        answer.exception()
