"""Pages and moments that failed in files that are indexed otherwise: kept in the ledger until the file is done again.

The ledger knows files, not units, so they stand in its meta table under one key: they are few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sightline.store.ledger import Ledger
from sightline.types import Skipped

KEY: Final = "problems"
MOST_KEPT: Final = 20
"""Units kept of one file; the last entry says how many more there were."""


@dataclass(frozen=True, slots=True)
class UnitProblem:
    """One unit that failed; ``place`` names it ("page 3", "at 12 s"), "" for the rest of the file."""

    place: str
    code: str
    detail: str


class Problems:
    """What is known of failed units, by path. Changes are written by ``save``, in the ledger's transaction if any."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        kept: Mapping[str, list[list[str]]] = ledger.read_meta().get(KEY) or {}
        self._kept = {path: [UnitProblem(*one) for one in problems] for path, problems in kept.items()}
        self._changed = False

    def __contains__(self, path: object) -> bool:
        return path in self._kept

    def put(self, path: str, problems: Iterable[UnitProblem]) -> None:
        """These are the problems of a file, in place of those known."""
        new = list(problems)
        if len(new) > MOST_KEPT:
            more = len(new) - MOST_KEPT + 1
            new[MOST_KEPT - 1 :] = [UnitProblem("", new[MOST_KEPT - 1].code, f"and {more} more")]
        if new != self._kept.get(path, []):
            self._changed = True
            self._kept.pop(path, None)
            if new:
                self._kept[path] = new

    def save(self) -> None:
        """Write what changed, durably."""
        if self._changed:
            kept = {path: [[p.place, p.code, p.detail] for p in problems] for path, problems in self._kept.items()}
            self._ledger.write_meta({KEY: kept})
            self._changed = False

    def skipped(self) -> list[Skipped]:
        """One entry a unit, by path."""
        return [
            Skipped(path=path, code=one.code, detail=f"{one.place}: {one.detail}" if one.place else one.detail)
            for path, problems in sorted(self._kept.items())
            for one in problems
        ]
