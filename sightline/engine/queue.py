"""One thread runs the passes of many callers and of several engines, because there is one device.

``SharedEngine`` stands where an ``Engine`` stood and may be called from any number of threads; prompts of all callers
that go on from the same head share passes, in the order of ``engine.turns``. An answer does not depend on who shared
its pass, and neither does an error: a pass that fails is run again caller by caller, and only those fail whose own
prompts do. An error that nothing here foresaw ends the pass and its callers; the thread goes on after a pause, unless
it happens again and again.

::

    callers' threads                          the queue's thread
    prompts -> window -> Call -> Loads -->    Turns.next -> Engine.run -> states into the Calls
                 ^                                                            |
                 +------------------------- done <----------------------------+
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import torch

from sightline.engine.feed import windows
from sightline.engine.prefix import Head
from sightline.engine.runner import WINDOW_PASSES, Engine, State
from sightline.engine.turns import LANES, Lane, Load, Turn, Turns, giving_up
from sightline.errors import CapacityError, SightlineError, StoppedError
from sightline.prep.prepare import Prepared

logger = logging.getLogger(__name__)

Outcome: TypeAlias = State | CapacityError

MOST_WAITING: Final = 64 * WINDOW_PASSES
"""Passes worth of prompts that may wait in one lane; a caller with more than one pass then waits at the door."""
LOOK_S: Final = 0.25
"""Seconds between looks of a waiting caller at whether it is still wanted; the queue itself looks before each pass."""
WINDOWS_INSIDE: Final = 2
"""Windows of one caller that may wait or run: the next is prepared while the device works on this one."""
MOST_RESTARTS: Final = 5
"""Times within ``RESTARTS_S`` that the thread goes on after an error of ours; at the next it stays down."""
RESTARTS_S: Final = 60.0
PAUSE_S: Final = 0.1
"""Seconds before the thread goes on; twice as long for each restart within ``RESTARTS_S``."""


@dataclass(frozen=True, slots=True)
class LaneCounts:
    """What one lane holds now and has done.

    Attributes:
        waiting_prompts, waiting_tokens: not yet in a pass; tokens as ``Engine.cost`` counts them.
        passes, prompts, tokens: run since the start; tokens are those of the network, shared heads not counted.
        callers: sum over passes of the callers that shared them.
        cost, budget: sums over passes; an item over the budget counts as a full pass.
        busy_s: seconds of the device.
        dropped: prompts whose caller went away before they ran.
    """

    waiting_prompts: int = 0
    waiting_tokens: int = 0
    passes: int = 0
    prompts: int = 0
    tokens: int = 0
    callers: int = 0
    cost: int = 0
    budget: int = 0
    busy_s: float = 0.0
    dropped: int = 0

    @property
    def fill(self) -> float:
        """Share of the budget of its passes that was used, 0 before the first."""
        return self.cost / self.budget if self.budget else 0.0

    @property
    def callers_per_pass(self) -> float:
        """Callers that shared a pass, on average."""
        return self.callers / self.passes if self.passes else 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What the queue holds now and has done, by lane.

    Attributes:
        running: false while its thread is down, for a moment or for good.
        restarts: times the thread went on after an error of ours.
    """

    query: LaneCounts
    bulk: LaneCounts
    running: bool
    restarts: int = 0


class Call:
    """One window of one caller: prompts in, outcomes out. Changed under the lock of the queue only."""

    def __init__(self, engine: Engine, prompts: Sequence[Prepared], gone: threading.Event | None) -> None:
        self.engine = engine
        self.prompts: list[Prepared | None] = list(prompts)
        self.outcomes: list[Outcome | None] = [None] * len(prompts)
        self.gone = gone
        self.left_early = False
        self.left = len(prompts)
        self.loads: list[Load] = []
        self.error: BaseException | None = None
        self.done = threading.Event()
        if not prompts:
            self.done.set()

    def settle(self, index: int, outcome: Outcome) -> None:
        """Keep the outcome of one prompt and let go of the prompt, which may hold megabytes of pixels."""
        self.outcomes[index], self.prompts[index] = outcome, None
        self.left -= 1
        if not self.left:
            self.done.set()

    def fail(self, error: BaseException) -> None:
        """End the call with an error, unless it has ended."""
        if not self.done.is_set():
            self.error = error
            self.prompts.clear()
            self.done.set()

    @property
    def given_up(self) -> bool:
        """Whether its caller has gone."""
        return self.left_early or (self.gone is not None and self.gone.is_set())

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for the rest of it."""
        return self.done.is_set() or self.given_up


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What a load stands for: prompts of a call, by the places of the load, and their head."""

    call: Call
    indices: list[int]
    head: Head


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """One prompt in a pass."""

    call: Call
    index: int
    prompt: Prepared
    head: Head


@dataclass(frozen=True, slots=True)
class _Failed:
    """What the network raised instead of an outcome."""

    error: Exception


class Queue:
    """Owns the thread of the device. ``SharedEngine`` is its face; close it when the models are no longer wanted."""

    def __init__(self, turns: Turns | None = None, *, most_waiting: int = MOST_WAITING) -> None:
        self._turns = turns or Turns()
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._parts: dict[Load, _Part] = {}
        self._running: set[Call] = set()
        self._counts = dict.fromkeys(LANES, LaneCounts())
        self._closed = False
        self._failure: BaseException | None = None
        self._paused = False
        self._restarts = 0
        self._gates = {
            # preparing is Python under one lock and pixels on the cores that the model wants too: few at once
            "query": threading.BoundedSemaphore(max(2, os.cpu_count() or 1)),
            "bulk": threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2)),
        }
        self._thread = threading.Thread(target=self._serve, name="sightline-model", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a daemon thread inside torch must not meet the end of the interpreter

    @property
    def alive(self) -> bool:
        """Whether it takes work: false when it is closed or its thread is down for good."""
        return not self._closed and self._failure is None and self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether its thread runs: false also while it is about to start again, when new work waits for it."""
        return self.alive and not self._paused

    def counts(self) -> Counts:
        """A snapshot, for metrics."""
        with self._lock:
            waiting = {lane: [load for load in self._turns.loads() if load.lane == lane] for lane in LANES}
            query, bulk = (
                replace(
                    self._counts[lane],
                    waiting_prompts=sum(len(load.waiting) for load in waiting[lane]),
                    waiting_tokens=sum(load.cost for load in waiting[lane]),
                )
                for lane in LANES
            )
        return Counts(query=query, bulk=bulk, running=self.running, restarts=self._restarts)

    def preparing(self, lane: Lane) -> AbstractContextManager[object]:
        """Held while a prompt is prepared, so that many callers do not take the cores from the model."""
        return self._gates[lane]

    def enter(self, engine: Engine, prompts: Sequence[Prepared], lane: Lane, *, shared: bool) -> Call:
        """Let prompts wait for their turn.

        Raises:
            StoppedError: the queue is closed or has failed, or the caller is given up.
        """
        call = Call(engine, prompts, giving_up.get())
        now_ms = time.monotonic_ns() // 1_000_000
        parts: dict[Load, _Part] = {}
        for head, indices in engine.groups(prompts, shared=shared):
            costs = [engine.cost(prompts[index], head) for index in indices]
            group = (id(engine), head, engine.head_key(prompts[indices[0]], head))
            load = Load.of(costs, lane=lane, group=group, budget=engine.turn_tokens, arrived_ms=now_ms)
            parts[load] = _Part(call, indices, head)
        cost = sum(load.cost for load in parts)
        with self._lock:
            while self._must_wait(lane, cost, engine.turn_tokens) and not self._ended and not call.unwanted:
                self._room.wait(LOOK_S)
            if self._ended:
                raise self._refusal()
            if call.unwanted:
                raise StoppedError("the caller has gone")
            call.loads = list(parts)
            self._parts |= parts
            for load in parts:
                self._turns.add(load)
            self._work.notify()
        return call

    def wait(self, call: Call) -> list[Outcome]:
        """The outcomes of a call, once all are there.

        Raises:
            StoppedError: the queue ended before the call did, or the caller was given up.
            Exception: what the network raised for these prompts.
        """
        try:
            while not call.done.wait(LOOK_S):
                if call.given_up:
                    raise StoppedError("the caller has gone")
        finally:
            with self._lock:
                self._drop(call)
        if call.error is not None:
            raise call.error
        return [outcome for outcome in call.outcomes if outcome is not None]

    def leave(self, call: Call) -> None:
        """Drop what a call still has waiting. What runs is finished, and its outcome forgotten.

        Never waits: it is also called where a stream is collected as garbage, at any line of any thread, one that
        holds the lock included. The thread of the device drops the call before its next pass if it cannot be done here.
        """
        call.left_early = True
        if self._lock.acquire(blocking=False):
            try:
                self._drop(call)
            finally:
                self._lock.release()

    def close(self) -> None:
        """Finish the pass that runs, fail what waits, end the thread."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
            self._room.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    # --- callers' side, under the lock ---

    @property
    def _ended(self) -> bool:
        return self._closed or self._failure is not None

    def _refusal(self) -> StoppedError:
        if self._failure is not None:
            return StoppedError("the models have stopped working")
        return StoppedError("the models are closed")

    def _must_wait(self, lane: Lane, cost: int, budget: int) -> bool:
        """Whether a caller has to wait at the door: what is no more than one pass never has to."""
        if cost <= budget:
            return False
        waiting = sum(load.cost for load in self._turns.loads() if load.lane == lane)
        return waiting > 0 and waiting + cost > self._most_waiting * budget

    def _drop(self, call: Call) -> None:
        """Take a call out that has ended or is given up."""
        self._forget(call)
        call.fail(StoppedError("the caller has gone"))

    def _forget(self, call: Call) -> None:
        for load in call.loads:
            if dropped := self._turns.drop(load):
                counts = self._counts[load.lane]
                self._counts[load.lane] = replace(counts, dropped=counts.dropped + dropped)
            self._parts.pop(load, None)
        call.loads.clear()
        self._room.notify_all()

    # --- the device's side ---

    def _serve(self) -> None:
        """The thread: passes until the queue is closed. Whatever ends it, nobody is left waiting."""
        failed_s: list[float] = []
        try:
            while not self._closed:
                try:
                    while (turn := self._next()) is not None:
                        self._run(turn)
                except torch.AcceleratorError:  # the device is lost to this process: a restart would change nothing
                    raise
                except BaseException as error:  # a bug of ours, or a panic of a library: the next pass may be well
                    now_s = time.monotonic()
                    failed_s = [*(then for then in failed_s if now_s - then < RESTARTS_S), now_s]
                    if len(failed_s) > MOST_RESTARTS:
                        raise
                    logger.error("the thread of the models has failed; it starts again", exc_info=error)
                    self._start_again(PAUSE_S * 2 ** (len(failed_s) - 1))
        except BaseException as error:  # every caller has to hear of it
            logger.critical("the thread of the models has failed and stays down", exc_info=error)
            self._failure = error
        finally:
            with self._lock:
                self._end({part.call for part in self._parts.values()} | self._running, self._refusal())

    def _start_again(self, pause_s: float) -> None:
        """End the calls that the error may have come from, and wait a moment. Others wait for their turn as before."""
        with self._lock:
            # with nothing running it was the choice of the next pass that failed, for whatever waits
            calls = self._running or {part.call for part in self._parts.values()}
            self._end(calls, StoppedError("the models have failed at this and start again"))
            self._paused = True
            self._work.wait_for(lambda: self._closed, pause_s)
            self._paused = False
            self._restarts += 1

    def _end(self, calls: set[Call], error: StoppedError) -> None:
        for call in calls:
            self._forget(call)
            call.fail(error)
        self._running = set()
        self._room.notify_all()

    def _next(self) -> Turn | None:
        """The next pass; waits for one, None when the queue is closed."""
        with self._lock:
            while not self._closed:
                for call in {part.call for part in self._parts.values() if part.call.unwanted}:
                    self._drop(call)
                turn = self._turns.next(time.monotonic_ns() // 1_000_000)
                if turn is not None:
                    self._running = {self._parts[load].call for load, _ in turn.parts}
                    return turn
                self._work.wait()
            return None

    def _run(self, turn: Turn) -> None:
        members: list[_Member] = []
        with self._lock:
            for load, places in turn.parts:
                part = self._parts.get(load)  # None: the caller left since the pass was cut
                if part is None or part.call.unwanted:
                    continue
                for index in (part.indices[place] for place in places):
                    prompt = part.call.prompts[index]
                    assert prompt is not None, "a prompt runs once"
                    members.append(_Member(part.call, index, prompt, part.head))
        # neighbours of equal length are one call of attention
        members.sort(key=lambda member: -len(member.prompt))
        start = time.perf_counter()
        outcomes = self._outcomes(members)
        seconds = time.perf_counter() - start
        with self._lock:
            counts = self._counts[turn.lane]
            self._counts[turn.lane] = replace(
                counts,
                passes=counts.passes + 1,
                prompts=counts.prompts + len(members),
                tokens=counts.tokens + sum(len(member.prompt) - member.head.length for member in members),
                callers=counts.callers + len({member.call for member in members}),
                cost=counts.cost + min(turn.cost, turn.budget),
                budget=counts.budget + turn.budget,
                busy_s=counts.busy_s + seconds,
            )
            for member, outcome in zip(members, outcomes, strict=True):
                if isinstance(outcome, _Failed):
                    self._forget(member.call)
                    member.call.fail(outcome.error)
                elif not member.call.done.is_set():
                    member.call.settle(member.index, outcome)
            for load, _ in turn.parts:
                if not load.waiting:
                    self._parts.pop(load, None)
            self._running = set()
            self._room.notify_all()

    def _outcomes(self, members: Sequence[_Member]) -> list[Outcome | _Failed]:
        """One pass over prompts of one group.

        Raises:
            torch.AcceleratorError: the device is lost, and with it everything on it.
        """
        if not members:
            return []
        try:
            return [*members[0].call.engine.run([member.prompt for member in members], members[0].head)]
        except torch.AcceleratorError:
            raise
        except Exception as error:  # whatever one caller's prompts do to the network: the others shall not suffer
            calls = dict.fromkeys(member.call for member in members)
            if len(calls) == 1:
                logger.error("a pass of the models has failed", exc_info=error)
                return [_Failed(error)] * len(members)
        found: dict[tuple[Call, int], Outcome | _Failed] = {}
        for call in calls:
            own = [member for member in members if member.call is call]
            found |= {(call, m.index): outcome for m, outcome in zip(own, self._outcomes(own), strict=True)}
        return [found[member.call, member.index] for member in members]


class SharedEngine:
    """An ``Engine`` that many callers share: the same ``states`` and ``stream``, from any thread.

    Args:
        queue: runs the passes.
        engine: the network; after this nobody may run it but the queue.
        lane: whether somebody waits for the answers.
    """

    def __init__(self, queue: Queue, engine: Engine, lane: Lane) -> None:
        self.queue = queue
        self.engine = engine
        self.lane = lane

    def preparing(self) -> AbstractContextManager[object]:
        """See ``Queue.preparing``."""
        return self.queue.preparing(self.lane)

    def states(self, prompts: Sequence[Prepared], *, shared: bool = False) -> list[Outcome]:
        """As ``Engine.states``.

        Raises:
            StoppedError: the queue is closed or has failed, or the caller was given up.
        """
        return self.queue.wait(self.queue.enter(self.engine, prompts, self.lane, shared=shared))

    def stream(
        self, prompts: Iterable[Prepared | SightlineError], *, shared: bool = False
    ) -> Iterator[State | SightlineError]:
        """As ``Engine.stream``; a stream that is closed early takes what waits of it out of the queue.

        Raises:
            StoppedError: as ``states``.
        """
        inside: deque[tuple[list[SightlineError | None], Call]] = deque()
        try:
            for window in windows(prompts, WINDOW_PASSES * self.engine.max_tokens):
                ready = [entry for entry in window if isinstance(entry, Prepared)]
                errors = [None if isinstance(entry, Prepared) else entry for entry in window]
                del window[:]
                inside.append((errors, self.queue.enter(self.engine, ready, self.lane, shared=shared)))
                del ready
                if len(inside) >= WINDOWS_INSIDE:
                    yield from self._results(*inside.popleft())
            while inside:
                yield from self._results(*inside.popleft())
        finally:
            for _, call in inside:
                self.queue.leave(call)

    def _results(self, errors: Sequence[SightlineError | None], call: Call) -> Iterator[State | SightlineError]:
        states = iter(self.queue.wait(call))
        for error in errors:
            yield next(states) if error is None else error
