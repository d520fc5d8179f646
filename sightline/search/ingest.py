"""The writing half of indexing: paths -> ledger -> media -> embed -> store.add -> (fsync) -> ledger says done.

``reading`` decodes in threads ahead of the model; this half feeds the model with units across files, collects rows,
and commits them. A commit is, in this order and each step on disk before the next: files are begun in the ledger,
rows are added, older rows of changed files go, the ledger says done. Killed between any two of these, the next run
finds the file pending, looks up which rows exist, and ends with the same rows as a run that was never killed.

What is skipped is written to the ledger with its reason. A file that changed while it was read is deferred: nothing of
that reading stays, and the next run sees it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Final

import numpy as np

from sightline.errors import ItemError, MediaError
from sightline.protocols import EmbeddingModel
from sightline.search.events import (
    Event,
    FileDeferred,
    FileDone,
    FileSkipped,
    FileStarted,
    FileUnchanged,
    Progress,
    UnitFailed,
)
from sightline.search.find import Found
from sightline.search.problems import Problems, UnitProblem
from sightline.search.reading import Ended, Failed, Job, Message, Plan, Reading, Ready, Settled, Started
from sightline.store.schema import Filter, Row
from sightline.types import AddReport, Item, Skipped

COMMIT_ROWS: Final = 1_000
COMMIT_S: Final = 5.0
"""A commit after so many rows or seconds (store-rules 15: at least 1,000 rows or 5 to 30 s)."""
STOP_S: Final = 2.0
"""How long a stopped run waits for a decoder before it ends it."""
KEEP_CODES: Final = frozenset({"unreadable", "not_file", "changed"})
"""Reasons that say nothing about the content: rows of an earlier reading stay."""


def ingest(
    found: Iterable[Found | Skipped],
    plan: Plan,
    embedder: EmbeddingModel,
    *,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
) -> AddReport:
    """Bring files into the index. Every file is in exactly one of the report's counts.

    Ctrl-C ends the work after the commit in hand: the report says ``interrupted``, and files in work are deferred.
    A second Ctrl-C ends it at once; nothing committed is lost then either. ``stop``, set by another thread, is the same
    as the first Ctrl-C.

    Raises:
        IndexLockedError: another process writes to the index.
        StoreError: the index cannot be written.
    """
    with plan.store.writing():
        return _Ingest(plan, embedder, on_event or (lambda _: None), stop or threading.Event()).run(found)


class _Ingest:
    """One run."""

    def __init__(
        self, plan: Plan, embedder: EmbeddingModel, on_event: Callable[[Event], None], asked_to_stop: threading.Event
    ) -> None:
        self._plan = plan
        self._embedder = embedder
        self._on_event = on_event
        self._asked_to_stop = asked_to_stop
        self._stop = threading.Event()
        """Set by Ctrl-C, and while a pass that failed lets its threads end."""
        # messages may be taken by a thread of the embedder, results come to ours: one at a time
        self._lock = threading.RLock()
        self._owner = threading.get_ident()
        self._inside: deque[Ready] = deque()
        """Units that the model has and has not given back, in order."""
        self._rows: list[Row] = []
        self._open: dict[str, Job] = {}
        """Jobs by path that have no outcome yet."""
        self._begun: set[str] = set()
        """Those of them that the ledger has as pending."""
        self._problems = Problems(plan.ledger)
        self._complete: list[Job] = []
        self._skips: list[Settled] = []
        self._seen = self._indexed = self._unchanged = self._deferred = self._units = 0
        self._skipped: list[Skipped] = []
        self._start_s = self._committed_s = time.monotonic()

    def run(self, found: Iterable[Found | Skipped]) -> AddReport:
        interrupted = False
        with _gentle_interrupts(self._stop):
            try:
                copies = self._pass(found, copies_last=True)
                if copies and not self._stopped():
                    self._pass(copies, copies_last=False)
                else:
                    self._seen += len(copies)
                    self._deferred += len(copies)
            except KeyboardInterrupt:
                self._stop.set()
                self._commit()
            interrupted = self._stopped()
        for job in list(self._open.values()):
            self._defer(job)
        return AddReport(
            seen=self._seen,
            indexed=self._indexed,
            unchanged=self._unchanged,
            deferred=self._deferred,
            units=self._units,
            skipped=tuple(self._skipped),
            interrupted=interrupted,
        )

    def _stopped(self) -> bool:
        return self._stop.is_set() or self._asked_to_stop.is_set()

    def _pass(self, found: Iterable[Found | Skipped], *, copies_last: bool) -> list[Found]:
        """Everything that is found; gives back the copies of files of this pass, to be taken when those are in."""
        reading = Reading(found, self._plan, self._stopped, copies_last=copies_last)
        threads = reading.start(self._plan.settings.decode_workers)
        results = self._embedder.stream(self._items(reading))
        ended = False
        try:
            for result in results:
                with self._lock:
                    self._result(self._inside.popleft(), result)
                    self._commit_if_due()
            with self._lock:
                self._commit()
            ended = True
        finally:
            if not ended or self._stopped():
                self._halt(threads)
            if isinstance(results, Generator):
                results.close()
        return reading.copies

    def _halt(self, threads: list[threading.Thread]) -> None:
        """Let no thread read on: they use the store and the ledger, which may be closed next."""
        stopped_by_hand = self._stopped()
        self._stop.set()
        deadline = time.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            self._plan.source.close()
            for thread in threads:
                thread.join()
        if not stopped_by_hand:
            self._stop.clear()

    # --- messages in, items out ---

    def _items(self, reading: Reading) -> Iterator[Item]:
        """What the model gets; everything else that is told is dealt with on the way."""
        while (message := reading.ahead.get(self._stopped)) is not None:
            with self._lock:
                unit = self._take(message)
                if threading.get_ident() == self._owner:
                    self._commit_if_due()
            if unit is not None:
                yield unit

    def _take(self, message: Message) -> Item | None:
        match message:
            case Settled():
                self._settle(message)
            case Started(job):
                self._seen += 1
                self._open[job.path] = job
                self._on_event(FileStarted(path=job.path, bytes=job.size))
            case Failed(job):
                self._fail(message)
            case Ready(job):
                return self._unit(message)
            case Ended(job, error):
                job.ended, job.error = True, error
                self._close_if_complete(job)
        return None

    def _unit(self, ready: Ready) -> Item | None:
        job = ready.job
        job.ids[ready.id] = None
        if ready.stored or ready.vector is not None:
            job.reused += 1
            if ready.vector is not None and not ready.stored:
                self._rows.append(_row(ready, ready.vector))
            return None
        job.waiting += 1
        self._inside.append(ready)
        return ready.unit.as_item()

    def _result(self, ready: Ready, result: Any) -> None:
        job = ready.job
        job.waiting -= 1
        if isinstance(result, ItemError):
            self._drop(ready, result.code, result.detail)
        else:
            vector = np.asarray(result, dtype=np.float32)
            if np.isfinite(vector).all() and vector.any():
                self._rows.append(_row(ready, vector))
            else:
                self._drop(ready, "nan", MediaError("nan").detail)
        self._close_if_complete(job)

    def _drop(self, ready: Ready, code: str, detail: str) -> None:
        """A unit that the model cannot take."""
        del ready.job.ids[ready.id]
        unit = ready.unit
        place = f"page {unit.page}" if unit.page is not None else f"at {unit.start_s:g} s" if unit.start_s else ""
        self._fail(Failed(ready.job, place, code, detail))

    def _fail(self, failed: Failed) -> None:
        failed.job.problems.append(failed)
        self._on_event(UnitFailed(path=failed.job.path, place=failed.place, code=failed.code, detail=failed.detail))

    # --- outcomes ---

    def _settle(self, settled: Settled) -> None:
        self._seen += 1
        if settled.touched:
            self._plan.ledger.touch(settled.path, settled.size, settled.mtime_ns)
        if settled.outcome == "unchanged":
            self._unchanged += 1
            self._on_event(FileUnchanged(path=settled.path))
        elif settled.outcome == "deferred":
            self._deferred += 1
            self._on_event(FileDeferred(path=settled.path))
        else:
            if settled.outcome == "skipped":
                self._skips.append(settled)
            self._skip(settled.path, settled.code, settled.detail)

    def _skip(self, path: str, code: str, detail: str) -> None:
        self._skipped.append(Skipped(path=path, code=code, detail=detail))
        self._on_event(FileSkipped(path=path, code=code, detail=detail))

    def _close_if_complete(self, job: Job) -> None:
        if job.ended and not job.waiting:
            if job.error is not None and job.error.code == "changed":
                self._undo(job)
                self._defer(job)
                return
            if job.error is not None and job.error.code in KEEP_CODES:
                self._undo(job)
                self._open.pop(job.path)
                settled = Settled("skipped", job.path, job.size, job.mtime_ns, job.error.code, job.error.detail)
                self._skips.append(settled)
                self._skip(settled.path, settled.code, settled.detail)
                return
            if job.ids and job.error is not None:
                detail = f"the rest after {len(job.ids)} units: {job.error.detail}"
                self._fail(Failed(job, "", job.error.code, detail))
            self._complete.append(job)

    def _undo(self, job: Job) -> None:
        """Forget the rows of a reading that does not count.

        What a commit has taken already stays pending in the ledger: the next run reads the file, and only the rows
        of that reading stay.
        """
        self._rows = [row for row in self._rows if row.path_id != job.path_id]

    def _defer(self, job: Job) -> None:
        self._open.pop(job.path)
        self._deferred += 1
        self._on_event(FileDeferred(path=job.path))

    # --- commits ---

    def _commit_if_due(self) -> None:
        if len(self._rows) >= COMMIT_ROWS or time.monotonic() - self._committed_s >= COMMIT_S:
            self._commit()

    def _commit(self) -> None:
        """Rows and outcomes so far, durably, in the order that survives a kill anywhere."""
        ledger, store = self._plan.ledger, self._plan.store
        rows, complete, skips = self._rows, self._complete, self._skips
        if not (rows or complete or skips):
            self._committed_s = time.monotonic()
            return
        new = {row.path for row in rows} | {job.path for job in complete}
        with ledger.batch():
            for path in sorted(new - self._begun):
                job = self._open[path]
                ledger.begin(path, job.size, job.mtime_ns, job.content_hash, job.columns)
        self._begun |= new
        if rows:
            store.add(rows)
            self._rows = []
        for job in complete:
            if job.older:
                self._remove_older(job)
        with ledger.batch():
            for job in complete:
                self._write_outcome(job)
            for settled in skips:
                self._write_skip(settled)
            self._problems.save()
        self._complete, self._skips = [], []
        for job in complete:
            self._tell_outcome(job)
        self._committed_s = time.monotonic()
        elapsed_s = self._committed_s - self._start_s
        self._on_event(
            Progress(
                files_seen=self._indexed + self._unchanged + len(self._skipped) + self._deferred,
                units=self._units,
                elapsed_s=elapsed_s,
                units_per_s=self._units / max(elapsed_s, 1e-9),
            )
        )

    def _remove_older(self, job: Job) -> None:
        """Rows of older readings go, now that the new ones are in."""
        store = self._plan.store
        if store.count(Filter(path_prefix=job.path)) > len(job.ids):
            rows = store.get(list(job.ids))
            store.delete_paths([job.path_id])
            if rows:
                store.add(rows)

    def _write_outcome(self, job: Job) -> None:
        problems = [UnitProblem(one.place, one.code, one.detail) for one in job.problems] if job.ids else []
        self._problems.put(job.path, problems)
        if job.ids:
            self._plan.ledger.done(job.path, len(job.ids), f"encoding {job.encoding}" if job.encoding else "")
        else:
            self._plan.ledger.skip(job.path, *_reason(job))

    def _tell_outcome(self, job: Job) -> None:
        del self._open[job.path]
        self._begun.discard(job.path)
        if job.ids:
            self._indexed += 1
            self._units += len(job.ids)
            self._on_event(FileDone(path=job.path, units=len(job.ids), reused=job.reused))
        else:
            self._skip(job.path, *_reason(job))

    def _write_skip(self, settled: Settled) -> None:
        """A file that could not even be begun. Missing files and folders are only reported."""
        ledger = self._plan.ledger
        state = ledger.file(settled.path)
        if os.path.isdir(settled.path) or not os.path.lexists(settled.path):  # noqa: PTH112
            return
        if state is not None and state.status != "skipped":
            if settled.code in KEEP_CODES:
                return
            self._plan.store.delete_paths([state.path_id])
        self._problems.put(settled.path, [])
        columns = state.columns if state is not None else self._plan.columns
        ledger.begin(settled.path, settled.size, settled.mtime_ns, "", columns)
        ledger.skip(settled.path, settled.code, settled.detail)


def _reason(job: Job) -> tuple[str, str]:
    """Why nothing of a file could be indexed."""
    if job.error is not None:
        return job.error.code, job.error.detail
    if job.problems:
        return job.problems[0].code, job.problems[0].detail
    return "empty", "nothing in the file can be indexed"


def _row(ready: Ready, vector: Any) -> Row:
    job, unit = ready.job, ready.unit
    return Row(
        id=ready.id,
        path_id=job.path_id,
        path=job.path,
        kind=unit.kind,
        vector=vector,
        page=unit.page,
        start_s=unit.start_s,
        end_s=unit.end_s,
        title=unit.title,
        text=unit.text,
        modified_s=job.mtime_ns / 1e9,
        columns=job.columns,
    )


@contextlib.contextmanager
def _gentle_interrupts(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets ``stop``, the second raises. In the main thread, and only in place of Python's handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return

    def gently(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, gently)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
