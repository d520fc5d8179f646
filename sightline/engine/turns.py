"""Whose turn it is when many callers share one device. Integers only: costs and milliseconds in, places out.

The rule, in three sentences:

1. What somebody waits for (lane ``query``) goes before what may wait (lane ``bulk``, such as indexing); but bulk work
   that was passed over for ``SHARE_MS`` gets one pass of half the size, so that a busy server still indexes.
2. Within a lane the load with the least left to do goes first, so that a short text is not stuck behind a long video;
   but a load that has waited for ``AGE_MS`` goes before all younger ones, oldest first, so that nothing starves.
3. A pass holds one lane and one group (engine and head of the prompt): the first load, longest prompts first as in
   ``plan``, then the others of its group in the same order, as far as there is room.

Nobody waits for company: a pass is cut when the device is free, and what came while it was busy is in the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Lane: TypeAlias = Literal["query", "bulk"]
LANES: Final[tuple[Lane, ...]] = ("query", "bulk")

AGE_MS: Final = 1_000
"""Milliseconds after which a load goes before shorter ones: what a person takes for a pause."""
SHARE_MS: Final = 250
"""Milliseconds after which bulk work gets half a pass between queries: half as often a whole one, and the queries that
come during it wait twice as long."""

giving_up: ContextVar[threading.Event | None] = ContextVar("giving_up", default=None)
"""Set around the work of one caller; once the event in it is set, what waits for that caller is dropped."""


@dataclass(slots=True, eq=False)
class Load:
    """Prompts of one caller that go on from one head.

    Attributes:
        lane: see ``Lane``.
        group: loads of one group may share a pass.
        budget: cost of one pass of that group.
        arrived_ms: when it came.
        waiting: (cost, place) of what has not run, the longest last.
        cost: of all that waits.
    """

    lane: Lane
    group: Hashable
    budget: int
    arrived_ms: int
    waiting: list[tuple[int, int]]
    cost: int

    @classmethod
    def of(cls, costs: Sequence[int], *, lane: Lane, group: Hashable, budget: int, arrived_ms: int) -> Load:
        """A load of prompts with these costs; their places are 0, 1, 2, …"""
        waiting = sorted(((cost, place) for place, cost in enumerate(costs)), key=lambda one: (one[0], -one[1]))
        return cls(lane, group, budget, arrived_ms, waiting, sum(costs))

    def take(self, room: int, *, first: bool) -> tuple[list[int], int]:
        """Places that go into a pass with this much room, longest first, and their cost.

        Args:
            room: cost that is left in the pass.
            first: the pass is empty: one prompt may be over the budget.
        """
        places: list[int] = []
        taken = 0
        while self.waiting and (taken + self.waiting[-1][0] <= room or (first and not places)):
            cost, place = self.waiting.pop()
            places.append(place)
            taken += cost
        self.cost -= taken
        return places, taken


@dataclass(frozen=True, slots=True)
class Turn:
    """One pass.

    Attributes:
        lane: whose.
        parts: loads with the places taken of each.
        cost: of all of them.
        budget: what the pass had room for.
    """

    lane: Lane
    parts: tuple[tuple[Load, tuple[int, ...]], ...]
    cost: int
    budget: int


class Turns:
    """What waits, and what runs next. Not for several threads at once.

    Args:
        age_ms, share_ms: see ``AGE_MS`` and ``SHARE_MS``.
    """

    def __init__(self, age_ms: int = AGE_MS, share_ms: int = SHARE_MS) -> None:
        self._age_ms = age_ms
        self._share_ms = share_ms
        self._loads: dict[Lane, dict[Load, None]] = {lane: {} for lane in LANES}  # in the order of their coming
        self._bulk_ran = False
        self._passed_over_ms = 0
        """Since when bulk work has had no pass."""

    def add(self, load: Load) -> None:
        """Let a load wait; one without prompts is nothing."""
        if not load.waiting:
            return
        if load.lane == "bulk" and not self._loads["bulk"]:
            self._passed_over_ms = load.arrived_ms
        self._loads[load.lane][load] = None

    def drop(self, load: Load) -> int:
        """Forget what of a load has not run; how many prompts that is."""
        if load not in self._loads[load.lane]:
            return 0
        del self._loads[load.lane][load]
        dropped = len(load.waiting)
        load.waiting.clear()
        load.cost = 0
        return dropped

    def loads(self) -> list[Load]:
        """Everything that waits."""
        return [load for lane in LANES for load in self._loads[lane]]

    def next(self, now_ms: int) -> Turn | None:
        """The next pass, taken out of what waits; None when nothing does.

        Args:
            now_ms: of a clock that never goes back. Called when the pass before has ended.
        """
        if self._bulk_ran:
            self._bulk_ran, self._passed_over_ms = False, now_ms
        lane = self._lane(now_ms)
        order = sorted(self._loads[lane], key=lambda load: self._rank(load, now_ms))
        if not order:
            return None
        group, budget = order[0].group, order[0].budget
        if lane == "bulk" and self._loads["query"]:
            budget //= 2
        parts: list[tuple[Load, tuple[int, ...]]] = []
        cost = 0
        for load in order:
            if load.group != group:
                continue
            places, taken = load.take(budget - cost, first=not parts)
            cost += taken
            if places:
                parts.append((load, tuple(places)))
            if not load.waiting:
                del self._loads[lane][load]
            if cost >= budget:
                break
        self._bulk_ran = lane == "bulk"
        return Turn(lane, tuple(parts), cost, budget)

    def _lane(self, now_ms: int) -> Lane:
        if not self._loads["bulk"]:
            return "query"
        return "bulk" if not self._loads["query"] or now_ms - self._passed_over_ms >= self._share_ms else "query"

    def _rank(self, load: Load, now_ms: int) -> tuple[int, int]:
        """Small goes first; equal ranks keep the order of their coming."""
        old = now_ms - load.arrived_ms >= self._age_ms
        return (0, load.arrived_ms) if old else (1, load.cost)
