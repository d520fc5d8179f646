"""Indexing in the background: jobs with progress, one at a time for each library.

Jobs are kept in memory, the last hundred of them. Stopping the server ends them as Ctrl-C would: what is committed
stays, and adding the same paths again goes on from there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from sightline.errors import IndexLockedError, SightlineError
from sightline.search.events import (
    Counted,
    Event,
    FileDeferred,
    FileDone,
    FileSkipped,
    FileStarted,
    FileUnchanged,
    UnitFailed,
)
from sightline.server import faults, wire
from sightline.server.faults import Fault
from sightline.server.shelf import Shelf
from sightline.server.shown import shown
from sightline.store.schema import Value
from sightline.types import AddReport

if TYPE_CHECKING:  # the services hold the jobs
    from sightline.server.services import Services

logger = logging.getLogger(__name__)

Status = Literal["waiting", "running", "done", "failed", "cancelled"]

EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["progress", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
"""One of the server-sent events, as a description says it: its fields."""
MOST_KEPT: Final = 100
"""Jobs remembered; of those that have ended, the oldest are forgotten first."""
MOST_WAITING: Final = 50
MOST_ERRORS: Final = 100
"""Failures shown with a job; the library's list has all of them."""
MOST_STREAMS: Final = 64
"""Callers that may watch jobs at once."""
LOOK_S: Final = 0.2
"""Seconds between two events of a stream: people see no more."""
NICE: Final = 10
"""How far behind queries a job and its decoders stand, as ``nice`` counts: a tenth of a core that both want."""
BREATH_S: Final = 15.0
"""Seconds after which an idle stream says that it is still there, so that nothing between cuts it."""


class JobError(BaseModel):
    """A file or part that was not indexed, or with an empty path, why the job failed."""

    path: str
    code: str
    detail: str


class JobShape(BaseModel):
    """A job as it stands.

    Attributes:
        seen: files with an outcome: indexed, unchanged, skipped or deferred.
        total: files found; 0 until they are counted.
        units: pages, pictures, moments and passages indexed.
        current: the file that is read.
        started, ended: seconds since 1970.
        errors: the first failures.
    """

    id: str
    library: str
    kind: Literal["add"] = "add"
    status: Status = "waiting"
    seen: int = 0
    total: int = 0
    indexed: int = 0
    unchanged: int = 0
    skipped: int = 0
    deferred: int = 0
    units: int = 0
    current: str = ""
    started: float | None = None
    ended: float | None = None
    errors: list[JobError] = []


class JobAnswer(BaseModel):
    """One job."""

    job: JobShape


class JobsAnswer(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobShape]


class Job:
    """One run of ``Library.add``. Its numbers are written by the thread that runs it and read by all."""

    def __init__(self, library: str, paths: Sequence[str], columns: Mapping[str, Value] | None) -> None:
        self.paths = tuple(paths)
        self.columns = columns
        self.stop = threading.Event()
        self.version = 0
        self._lock = threading.Lock()
        self._shape = JobShape(id=secrets.token_hex(8), library=library)

    @property
    def id(self) -> str:
        """Its name."""
        return self._shape.id

    @property
    def library(self) -> str:
        """Where it adds to."""
        return self._shape.library

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._shape.ended is not None

    def look(self) -> JobShape:
        """The job as it stands."""
        with self._lock:
            return self._shape.model_copy(update={"errors": list(self._shape.errors)})

    def begin(self) -> bool:
        """It runs now; False when it was cancelled while it waited."""
        with self._lock:
            if self._shape.ended is not None:
                return False
            self._shape.status, self._shape.started = "running", time.time()
            self.version += 1
            return True

    def end(self, status: Status, error: JobError | None = None) -> None:
        """It has ended; a second end is not heard."""
        with self._lock:
            if self._shape.ended is None:
                self._shape.status, self._shape.ended, self._shape.current = status, time.time(), ""
                if error is not None:
                    self._shape.errors.append(error)
                self.version += 1

    def end_with(self, report: AddReport) -> None:
        """It has ended with this outcome."""
        with self._lock:
            for name in ("seen", "indexed", "unchanged", "deferred", "units"):
                setattr(self._shape, name, getattr(report, name))
            self._shape.skipped = len(report.skipped)
        self.end("cancelled" if report.interrupted else "done")

    def hear(self, event: Event) -> None:
        """Count an event of indexing."""
        with self._lock:
            shape = self._shape
            match event:
                case Counted():
                    shape.total = event.files
                case FileStarted():
                    shape.current = shown(event.path)
                case FileDone():
                    shape.indexed += 1
                    shape.units += event.units
                case FileUnchanged():
                    shape.unchanged += 1
                case FileDeferred():
                    shape.deferred += 1
                case FileSkipped():
                    shape.skipped += 1
                    self._fail(event.path, event.code, event.detail)
                case UnitFailed():
                    detail = f"{event.place}: {event.detail}" if event.place else event.detail
                    self._fail(event.path, event.code, detail)
                case _:
                    return
            shape.seen = shape.indexed + shape.unchanged + shape.deferred + shape.skipped
            self.version += 1

    def _fail(self, path: str, code: str, detail: str) -> None:
        if len(self._shape.errors) < MOST_ERRORS:
            self._shape.errors.append(JobError(path=shown(path), code=code, detail=detail))


class Jobs:
    """The jobs of one server. Any thread may call.

    Args:
        shelf: the libraries.
        stop_s: seconds that running jobs get to end when the server stops.
    """

    def __init__(self, shelf: Shelf, stop_s: float = 30.0) -> None:
        self._shelf = shelf
        self._stop_s = stop_s
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: dict[str, deque[Job]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        self.closing = False
        self.num_watched = 0

    def submit(self, library: str, paths: Sequence[str], columns: Mapping[str, Value] | None = None) -> Job:
        """Add paths to a library as soon as it is free.

        Raises:
            Fault: 429, too many jobs wait; 503, the server stops.
        """
        self.check_room()
        job = Job(library, paths, columns)
        with self._lock:
            self._jobs[job.id] = job
            for old in [one for one in self._jobs.values() if one.ended][: max(0, len(self._jobs) - MOST_KEPT)]:
                del self._jobs[old.id]
            self._waiting.setdefault(library, deque()).append(job)
            if library not in self._threads:
                thread = threading.Thread(
                    target=self._work, args=(library,), name=f"sightline-job-{library}", daemon=True
                )
                self._threads[library] = thread
                thread.start()
        return job

    def check_room(self) -> None:
        """Refuse what could not be queued, before its files are taken.

        Raises:
            Fault: as ``submit``.
        """
        if self.closing:
            raise Fault(503, retry_s=5)
        with self._lock:
            if sum(map(len, self._waiting.values())) >= MOST_WAITING:
                raise Fault(429, "too many jobs are waiting; try again when some are done", retry_s=30)

    def get(self, id: str) -> Job:
        """A job by its id.

        Raises:
            Fault: 404, there is none, or it was forgotten.
        """
        job = self._jobs.get(id)
        if job is None:
            raise Fault(404, "there is no such job", code="no_job")
        return job

    def all(self) -> list[Job]:
        """Every job that is remembered, newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def is_busy(self, library: str) -> bool:
        """Whether a job of a library waits or runs."""
        return any(job.library == library and not job.ended for job in self.all())

    def cancel(self, id: str) -> Job:
        """End a job: at once when it waits, after the files in hand when it runs."""
        job = self.get(id)
        job.stop.set()
        with self._lock:
            waits = job in self._waiting.get(job.library, ())
            if waits:
                self._waiting[job.library].remove(job)
        if waits:
            job.end("cancelled")
        return job

    def close(self) -> None:
        """Cancel everything and wait for it, up to ``stop_s``."""
        self.closing = True
        for job in self.all():
            if not job.ended:
                self.cancel(job.id)
        give_up = time.monotonic() + self._stop_s
        for thread in list(self._threads.values()):
            thread.join(max(0.0, give_up - time.monotonic()))

    def _work(self, library: str) -> None:
        """The jobs of one library, one after the other."""
        _stand_back()
        while True:
            with self._lock:
                queue = self._waiting[library]
                if not queue:
                    del self._waiting[library], self._threads[library]
                    return
                job = queue.popleft()
            self._run(job)

    def _run(self, job: Job) -> None:
        if job.stop.is_set() or not job.begin():
            job.end("cancelled")
            return
        try:
            writer = self._shelf.writer(job.library)
            report = writer.add(job.paths, columns=job.columns, on_event=job.hear, stop=job.stop)
        except IndexLockedError:
            detail = "another program writes to this library; try again when it is done"
            job.end("failed", JobError(path="", code="locked", detail=detail))
        except (SightlineError, Fault) as error:
            fault = error if isinstance(error, Fault) else faults.of_error(error)
            logger.error("a job on library %s failed", job.library, exc_info=error)
            job.end("failed", JobError(path="", code=fault.code or "failed", detail=fault.message))
        except BaseException as error:  # panics in Rust too: the thread goes on with the next job, the log has it
            logger.error("a job on library %s failed", job.library, exc_info=error)
            job.end("failed", JobError(path="", code="failed", detail=faults.MESSAGES[500]))
        else:
            job.end_with(report)


def _stand_back() -> None:
    """Let queries have the cores first: this thread, and what it starts for reading, take what they leave.

    The workers of torch spin while they wait for each other; with decoders at the same cores a query of 90 ms took
    1,500 (docs/performance.md). Linux has a priority for each thread; elsewhere it would be that of the whole server.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a system that allows no such thing
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def router(services: Services) -> APIRouter:
    """The routes."""
    jobs = services.jobs
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.get("", response_model=JobsAnswer, responses=wire.errors())
    async def all_jobs() -> JobsAnswer:
        """Jobs, newest first."""
        return JobsAnswer(jobs=[job.look() for job in jobs.all()])

    @routes.get("/{job}", response_model=JobShape, responses=wire.errors())
    async def one(job: str) -> JobShape:
        """One job."""
        return jobs.get(job).look()

    @routes.delete("/{job}", response_model=JobShape, responses=wire.errors())
    async def cancel(job: str) -> JobShape:
        """Stop a job. What it has indexed stays; adding the same again goes on from there."""
        return jobs.cancel(job).look()

    @routes.get(
        "/{job}/events",
        response_class=Response,
        responses={
            **wire.errors(),
            200: {
                "content": {"text/event-stream": {"schema": EVENT}},
                "description": "Events `progress` while the job waits and runs, and one `end`; the data is the job",
            },
        },
    )
    async def events(job: str) -> Response:
        """Follow a job, as server-sent events."""
        found = jobs.get(job)
        if jobs.num_watched >= MOST_STREAMS:
            raise Fault(429, retry_s=5)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(services, found), media_type="text/event-stream", headers=headers)

    return routes


async def _events(services: Services, job: Job) -> AsyncIterator[str]:
    jobs = services.jobs
    jobs.num_watched += 1
    try:
        told = -1
        for look in itertools.count():
            is_last = job.ended
            if is_last or job.version != told:
                told = job.version
                data = json.dumps(job.look().model_dump())
                yield f"event: {'end' if is_last else 'progress'}\ndata: {data}\n\n"
            elif look % int(BREATH_S / LOOK_S) == 0:
                yield ": still here\n\n"
            if is_last or jobs.closing or services.desk.stopping:  # a stream must not hold up the stop
                return
            await asyncio.sleep(LOOK_S)
    finally:
        jobs.num_watched -= 1
