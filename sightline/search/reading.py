"""The reading half of indexing: which files are new, and their units, decoded ahead of the model.

Runs in threads of its own and writes nothing: it tells the writing half (``ingest``) what it found through a bounded
queue. For each file: does the ledger have it as it is on disk? Else its bytes are hashed, and unless the ledger knows
that content, it is decoded unit by unit. The next file is looked at before the units of one are read, so that the
decoder, told of both, need not wait between them; what is told keeps the order in which files were found. A unit whose
row exists (from a run that was killed) or whose vector exists (the same content at another path) is told as such and
never reaches the model. A file with the content of another file of the same run is kept back until that one is in the
index.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sightline.errors import MediaError
from sightline.media.pool import UnitStream
from sightline.media.source import open_source
from sightline.media.text import late_encoding, unit_passages
from sightline.media.units import UnitError
from sightline.search.ahead import Ahead
from sightline.search.find import Found
from sightline.settings import Settings
from sightline.store.ledger import FileState, Ledger
from sightline.store.schema import ItemStore, Value, path_id, row_id
from sightline.types import Skipped, Unit

MOST_ATTEMPTS: Final = 2
"""A file that fails twice with the same content is left alone until it changes or a retry is asked for."""
LOOKUP_UNITS: Final = 8
"""Units whose vectors are looked up at once, where looking is needed."""
HASH_BYTES: Final = 2**20


Units: TypeAlias = Iterator[Unit | UnitError]


class UnitSource(Protocol):
    """Decodes files: ``sightline.media.pool.DecodePool``."""

    def units(self, path: str) -> Units:
        """The units of a file, or an error in the place of one. Raises ``MediaError`` when the file cannot go on."""
        ...

    def close(self) -> None:
        """End what is running: pending ``units`` raise."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """One file on its way into the index.

    Attributes:
        path, path_id, content_hash, size, mtime_ns: the file and the content that is read.
        columns: the user's metadata of the file.
        known: what the ledger knew of the path, or None.
        older: whether there may be rows of it in the index.
        donor: path id of another file with the same content in the index, or "".
        ids: row ids of its units so far, in order.
        status: of the file while its bytes were hashed.
        encoding: of a text; "" for others.
        waiting: units that are told but are not rows yet.
        reused: units that needed no model.
        problems: units that failed.
        ended: whether the last unit is told.
        error: why the file could not be read to its end, or None.
    """

    path: str
    path_id: str
    content_hash: str
    size: int
    mtime_ns: int
    columns: Mapping[str, Value]
    known: FileState | None
    older: bool
    status: os.stat_result
    encoding: str = ""
    donor: str = ""
    ids: dict[str, None] = field(default_factory=dict)
    waiting: int = 0
    reused: int = 0
    problems: list[Failed] = field(default_factory=list)
    ended: bool = False
    error: MediaError | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A file whose outcome needs no decoding.

    Attributes:
        outcome: ``unchanged``; ``skipped``; ``remembered`` (skipped before, and not tried again); ``deferred``.
        path, size, mtime_ns: the file.
        code, detail: why, for skipped ones.
        touched: whether size or time are news to the ledger though the content is not.
    """

    outcome: Literal["unchanged", "skipped", "remembered", "deferred"]
    path: str
    size: int = 0
    mtime_ns: int = 0
    code: str = ""
    detail: str = ""
    touched: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """A file is about to be decoded."""

    job: Job


@dataclass(frozen=True, slots=True)
class Ready:
    """A unit. With ``stored`` its row exists; with a vector it needs no model."""

    job: Job
    unit: Unit
    id: str
    stored: bool = False
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that could not be used; ``place`` names it ("page 3", "at 12 s")."""

    job: Job
    place: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last unit of a file was told; ``error`` says why there are no more, if there should be."""

    job: Job
    error: MediaError | None


Message: TypeAlias = Settled | Started | Ready | Failed | Ended


class Stopped(Exception):  # noqa: N818 -- not an error
    """The writing half wants no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run of indexing works with and how.

    Attributes:
        store, ledger: the index.
        source: decodes files.
        settings: limits and sizes.
        count_tokens: of the embedding model, to cut texts.
        fingerprint: of the embedding model, part of row ids.
        columns: the user's metadata for every file; None leaves what a file has.
        verify: hash files even when size and time are as the ledger has them.
        retry: try files again that failed twice, and those in ``partly``.
        partly: files of which some units failed.
        look_up_all: look for rows of files that the ledger does not know, because it was lost.
    """

    store: ItemStore
    ledger: Ledger
    source: UnitSource
    settings: Settings
    count_tokens: Callable[[str], int]
    fingerprint: str
    columns: Mapping[str, Value] | None = None
    verify: bool = False
    retry: bool = False
    partly: Container[str] = ()
    look_up_all: bool = False


class Reading:
    """Reads found files and tells what is in them.

    Attributes:
        ahead: what is told.
        copies: files with the content of another file of this run, kept back if ``copies_last``.
    """

    def __init__(
        self, found: Iterable[Found | Skipped], plan: Plan, stopped: Callable[[], bool], *, copies_last: bool = True
    ) -> None:
        self.ahead: Ahead[Message] = Ahead()
        self.copies: list[Found] = []
        self._copies_last = copies_last
        self._found = iter(found)
        self._plan = plan
        self._stopped = stopped
        self._taking = threading.Lock()
        self._contents: set[str] = set()
        self._num_running = 0

    def start(self, num_threads: int) -> list[threading.Thread]:
        """Begin to read, in so many threads."""
        threads = [
            threading.Thread(target=self._run, name=f"sightline-reading-{number}", daemon=True)
            for number in range(num_threads)
        ]
        self._num_running = num_threads
        for thread in threads:
            thread.start()
        return threads

    def _run(self) -> None:
        """Everything. Errors that are not of one file go to whoever takes the messages."""
        error: BaseException | None = None
        try:
            self._files()
        except Stopped:
            pass
        except BaseException as raised:  # raised again by the thread that takes the messages
            error = raised
        with self._taking:
            self._num_running -= 1
            last = self._num_running == 0
        if last or error is not None:
            self.ahead.close(error)

    def _next(self) -> Found | Skipped | None:
        with self._taking:
            return None if self._stopped() else next(self._found, None)

    def _tell(self, message: Message, num_bytes: int = 0) -> None:
        if not self.ahead.put(message, num_bytes, self._stopped):
            raise Stopped

    def _files(self) -> None:
        """File after file, each looked at before the one before it is read."""
        coming = self._look(None)
        while coming is not None:
            now, coming = coming, None
            try:
                coming = self._look(now.units if isinstance(now, Opening) else None)
                if isinstance(now, Opening):
                    self._decode(now)
                elif isinstance(now, Settled):
                    self._tell(now)
            except BaseException:  # whatever it was, no decoder is left at work and the error goes on
                for one in (now, coming):
                    _let_go(one.units if isinstance(one, Opening) else None)
                raise

    # --- one file ---

    def _look(self, before: Units | None) -> Opening | Settled | Kept | None:
        """What is to be done with the next file; None when there is none."""
        found = self._next()
        if found is None:
            return None
        if isinstance(found, Skipped):
            return Settled("skipped", found.path, code=found.code, detail=found.detail)
        return self._file(found, before)

    def _file(self, found: Found, before: Units | None) -> Opening | Settled | Kept:
        state = self._plan.ledger.file(found.path)
        same = state is not None and (state.size, state.mtime_ns) == (found.size, found.mtime_ns)
        if state is not None and same and not self._plan.verify and (settled := self._remembered(state, found)):
            return settled
        try:
            identity = identify(found.path, self._plan.settings, self._stopped)
        except MediaError as error:
            outcome: Literal["deferred", "skipped"] = "deferred" if error.code == "changed" else "skipped"
            return Settled(outcome, found.path, found.size, found.mtime_ns, error.code, error.detail)
        content_hash = identity.content_hash
        found = Found(found.path, identity.status.st_size, identity.status.st_mtime_ns)
        if state is not None and state.content_hash == content_hash and (settled := self._remembered(state, found)):
            return dataclasses.replace(settled, touched=not same)
        with self._taking:
            if content_hash in self._contents and self._copies_last:
                self.copies.append(found)
                return Kept()
            self._contents.add(content_hash)
        next_file = before.next_file if isinstance(before, UnitStream) else self._plan.source.units
        return Opening(found, identity, state, next_file(found.path))

    def _remembered(self, state: FileState, found: Found) -> Settled | None:
        """The outcome of the same content before, if it stands."""
        columns = self._plan.columns
        again = self._plan.retry and state.path in self._plan.partly
        if state.status == "done" and not again and (columns is None or dict(columns) == dict(state.columns)):
            return Settled("unchanged", found.path, found.size, found.mtime_ns)
        if state.status == "skipped" and state.attempts >= MOST_ATTEMPTS and not self._plan.retry:
            return Settled("remembered", found.path, found.size, found.mtime_ns, state.code, state.detail)
        return None

    def _decode(self, opening: Opening) -> None:
        found, identity, state = opening.found, opening.identity, opening.state
        columns = self._plan.columns if self._plan.columns is not None else (state.columns if state else {})
        older = state is not None or self._plan.look_up_all
        content_hash, status = identity.content_hash, identity.status
        place = found.path, path_id(found.path), content_hash, found.size, found.mtime_ns
        job = Job(*place, columns, state, older, status, identity.encoding)
        job.donor = next(
            (
                other.path_id
                for other in self._plan.ledger.same_content(content_hash)
                if other.status == "done" and other.path != found.path
            ),
            "",
        )
        self._tell(Started(job))
        error: MediaError | None = None
        try:
            self._units(job, opening.units)
        except MediaError as raised:
            error = raised
        if _has_changed(job.path, status):
            error = MediaError("changed")  # whatever a decoder made of a file in change
        self._tell(Ended(job, error))

    def _units(self, job: Job, units: Units) -> None:
        """Tells the units, looked up in small groups where there may be vectors of them."""
        size = LOOKUP_UNITS if job.older or job.donor else 1
        held: list[tuple[str, str, Unit]] = []
        number = itertools.count()
        try:
            for unit in units:
                if isinstance(unit, UnitError):
                    self._tell(Failed(job, _place(unit.page, unit.start_s), unit.code, unit.detail))
                    continue
                for piece in self._pieces(unit):
                    held.append(self._named(job, piece, next(number)))
                    if len(held) >= size:
                        self._tell_units(job, held)
                        held = []
        finally:
            if held and not self._stopped():
                self._tell_units(job, held)
            _let_go(units)

    def _pieces(self, unit: Unit) -> Iterator[Unit]:
        """A text as passages that fit the model; anything else as it is."""
        if unit.kind != "text":
            yield unit
            return
        for passage in unit_passages(unit, self._plan.settings.text_passage_tokens, self._plan.count_tokens):
            yield Unit(kind="text", title=passage.title or unit.title, text=passage.text)

    def _named(self, job: Job, unit: Unit, number: int) -> tuple[str, str, Unit]:
        """(own id, id at the donor's path or "", unit). Passages have a number, everything else has its place."""
        ordinal = number if unit.kind == "text" else 0
        own, other = (
            row_id(
                job.content_hash,
                unit.kind,
                unit.page,
                unit.start_s,
                unit.end_s,
                self._plan.fingerprint,
                ordinal,
                path_id=path,
            )
            for path in (job.path_id, job.donor)
        )
        return own, other if job.donor else "", unit

    def _tell_units(self, job: Job, units: list[tuple[str, str, Unit]]) -> None:
        vectors: dict[str, NDArray[np.float32]] = {}
        if job.older or job.donor:
            vectors = self._plan.store.vectors([id for own, other, _ in units for id in (own, other) if id])
        same_columns = dict(job.known.columns if job.known else {}) == dict(job.columns)
        for own, other, unit in units:
            stored = own in vectors and same_columns
            vector = vectors.get(own, vectors.get(other))
            light = unit if vector is None else dataclasses.replace(unit, pixels=None, frames=None)
            self._tell(Ready(job, light, own, stored, vector), _bytes(light))


@dataclass(frozen=True, slots=True)
class Opening:
    """A file to be decoded.

    Attributes:
        found, identity, state: the file, its content, and what the ledger had of it.
        units: what is in it; its decoder may be at work.
    """

    found: Found
    identity: Identity
    state: FileState | None
    units: Units


@dataclass(frozen=True, slots=True)
class Kept:
    """A copy, kept back."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file is, before it is decoded.

    Attributes:
        content_hash: sha256 of its bytes in hex.
        status: of the file while they were read.
        encoding: of a text; "" for others.
    """

    content_hash: str
    status: os.stat_result
    encoding: str


def identify(path: str, settings: Settings, stopped: Callable[[], bool] = lambda: False) -> Identity:
    """The content of a file, and its status while it was read.

    The kind is told from the first bytes before the rest is read: no use in hashing what cannot be indexed.

    Raises:
        MediaError: as ``media.source.open_source``; ``changed`` when it changed meanwhile.
        Stopped: ``stopped`` came true.
    """
    try:
        before = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        raise MediaError("unreadable") from None
    digest = hashlib.sha256()
    with open_source(path, settings) as opened:
        encoding = opened.sniffed.encoding
        ascii_so_far = encoding == "utf-8"
        while chunk := opened.file.read(HASH_BYTES):
            if ascii_so_far and not chunk.isascii():
                ascii_so_far = False
                chunk, encoding = late_encoding(chunk, opened.file)
            digest.update(chunk)
            if stopped():
                raise Stopped
    try:
        after = os.stat(path)  # noqa: PTH116
    except OSError:
        raise MediaError("changed") from None
    if _signature(before) != _signature(after):
        raise MediaError("changed")
    return Identity(digest.hexdigest(), after, encoding)


def _let_go(units: Units | None) -> None:
    """End a decoder at work."""
    if units is not None and hasattr(units, "close"):
        units.close()


def _has_changed(path: str, status: os.stat_result) -> bool:
    try:
        return _signature(os.stat(path)) != _signature(status)  # noqa: PTH116
    except OSError:
        return True


def _signature(status: os.stat_result) -> tuple[int, ...]:
    """What differs when it is another file or has other bytes: its time of change cannot be set back, unlike mtime."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _place(page: int | None, start_s: float | None) -> str:
    if page is not None:
        return f"page {page}"
    return f"at {start_s:g} s" if start_s is not None else ""


def _bytes(unit: Unit) -> int:
    pixels = 0 if unit.pixels is None else unit.pixels.nbytes
    frames = 0 if unit.frames is None else unit.frames.frames.nbytes
    return pixels + frames + 4 * len(unit.text) + 1_000
