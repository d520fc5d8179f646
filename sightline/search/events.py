"""What ``Library.add`` tells while it works: frozen values for whoever draws progress.

Every file brings exactly one of ``FileDone``, ``FileUnchanged``, ``FileSkipped`` and ``FileDeferred``.
Events come one at a time, never two at once; slow receivers slow the work down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """The first event: how much there is to look at."""

    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStarted:
    """A new or changed file is being decoded."""

    path: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitFailed:
    """One page or moment of a file could not be used; the others go on."""

    path: str
    place: str
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDone:
    """A file is in the index, durably. ``reused`` of its ``units`` needed no embedding."""

    path: str
    units: int
    reused: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FileUnchanged:
    """A file was in the index already."""

    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSkipped:
    """A file was not indexed, with the reason (a key of ``MEDIA_CODES``)."""

    path: str
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDeferred:
    """A file changed while it was read, or the work stopped before its turn: the next run takes it."""

    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """After each commit.

    Attributes:
        files_seen: files with an outcome so far.
        units: units committed so far.
        elapsed_s: seconds since the start.
        units_per_s: units committed per second since the start.
    """

    files_seen: int
    units: int
    elapsed_s: float
    units_per_s: float


Event: TypeAlias = Counted | FileStarted | UnitFailed | FileDone | FileUnchanged | FileSkipped | FileDeferred | Progress
