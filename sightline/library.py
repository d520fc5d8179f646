"""The index as a person holds it: open, add, search.

>>> import tempfile, pathlib
>>> from sightline.testing import ToyEmbedder
>>> with tempfile.TemporaryDirectory() as folder:
...     _ = pathlib.Path(folder, "note.txt").write_text("A red bicycle.")
...     with Library.open(f"{folder}/notes.sightline", embedder=ToyEmbedder()) as library:
...         report = library.add([folder])
...         hit = library.search("red bicycle")[0]
>>> report.indexed, hit.snippet
(1, 'A red bicycle.')

An index is a folder::

    photos.sightline/
      sightline.json     what it was built with, for people and for a lost ledger
      ledger.sqlite      which files were seen and what became of them (store/ledger.py)
      items.lance/       rows: words, places and vectors; no media (store/lance.py)
      writer.lock        held by the one process that writes
      stepped-back       that rows may be missing after damage, until the next add has looked (search/aftermath.py)
      damaged/           what was put aside after a power cut or by a repair, if ever

The originals stay where they are and are only ever read. Reads never wait for a writer; writes take the lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import sightline
from sightline.errors import ConfigError, InputError, StoreError
from sightline.media.pool import DecodePool
from sightline.protocols import EmbeddingModel, ItemLike, RerankingModel
from sightline.search import health, identity, pipeline
from sightline.search.aftermath import doubt_what_was_lost
from sightline.search.events import Counted, Event
from sightline.search.find import absolute, count, find, is_under
from sightline.search.ingest import ingest
from sightline.search.problems import Problems
from sightline.search.prune import PruneReport, drop, prune
from sightline.search.reading import Plan
from sightline.search.rebuild import (
    EMPTYING,
    empty as emptied,
    finish as finish_emptying,
    is_ledger_damaged,
    open_ledger,
    relink,
)
from sightline.search.repair import RepairReport, ledger_repair, repair as repair_rows
from sightline.search.seen import Seen
from sightline.settings import Settings
from sightline.store.backup import BackupReport, back_up
from sightline.store.durable import make_folder
from sightline.store.labels import Labels
from sightline.store.lance import LanceStore
from sightline.store.ledger import LEDGER_NAME, STAMP_NAME, FileState, FileStatus, Ledger, read_stamp
from sightline.store.lock import LOCK_NAME, WriterLock
from sightline.store.schema import Filter, Problem, Row, Value, check_column_name, column_type
from sightline.types import KINDS, AddReport, Hit, ModelCard, PathLike, Skipped, Unit

OPTIMIZE_ROWS: Final = 5_000
"""An ``add`` of so many rows ends in an ``optimize``."""
TABLE_NAME: Final = "items.lance"


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryStats:
    """How much is in an index.

    Attributes:
        path: the index folder.
        rows: searchable units.
        kinds: units of each kind that occurs.
        files, pending, skipped: files indexed; begun and not finished; not indexed, with a reason.
        model: the embedder it was built with.
        reranker: name of the reranker it is used with, or "".
        columns: the user's columns and their types.
        roots: folders that were added.
        bytes: size on disk.
    """

    path: str
    rows: int
    kinds: Mapping[str, int]
    files: int
    pending: int
    skipped: int
    model: ModelCard
    reranker: str
    columns: Mapping[str, str]
    roots: tuple[str, ...]
    bytes: int


@dataclass(slots=True, eq=False)
class Library:
    """An index and the models it is used with. Made by ``Library.open``; a context manager.

    Threads may search while one adds; other processes may read while one writes.

    Attributes:
        path: the index folder.
        embedder: the model it was built with, or None to look without searching.
        reranker: the second stage, or None for recall alone.
        settings: limits and sizes.
    """

    path: Path
    embedder: EmbeddingModel | None
    reranker: RerankingModel | None
    settings: Settings
    _store: LanceStore = field(repr=False)
    _ledger: Ledger = field(repr=False)
    _pool: DecodePool = field(repr=False)
    _seen: Seen = field(repr=False)

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        embedder: EmbeddingModel | None = None,
        reranker: RerankingModel | None = None,
        settings: Settings | None = None,
        rebuild: bool = False,
    ) -> Library:
        """Open an index, or make one where there is none.

        Args:
            path: its folder; ``~`` is the home folder.
            embedder: needed to make an index, to add and to search; must be the model it was built with. Loaded
                without a quality, it takes that of the index; a new index is ``balanced`` on a CPU, else ``full``.
            reranker: used by ``search``; None for recall alone.
            settings: None takes the default, with what the index was built with. An index that is made at ``fast``
                takes at most one frame in two seconds of a moment (``types.MOMENT_FPS``).
            rebuild: empty an index that exists and build it with this embedder. The originals are not touched, and
                labels stay: they find their rows again when the files are added.

        Raises:
            StoreError: there is no index and no embedder to make one with, the folder holds something else, or the
                index cannot be read.
            IndexMismatchError: the index was built with another model.
        """
        folder = Path(absolute(path))
        if rebuild:
            if embedder is None:
                raise ConfigError("an index is built with an embedder: Library.open(path, embedder=..., rebuild=True)")
            embedder = identity.for_new_index(embedder)
            if is_index(folder):
                emptied(folder, _about(embedder.card, reranker, settings or Settings()))
        if not is_index(folder):
            if embedder is None:
                raise StoreError(f"there is no index in {folder}; make one: sightline index --library {folder} FOLDER…")
            embedder = identity.for_new_index(embedder)
            _create(folder, embedder.card, reranker, settings or Settings())
        ledger = Ledger(folder)
        try:
            meta = ledger.read_meta()
            identity.check_format(meta, os.fspath(folder))
            if meta.get(EMPTYING):
                finish_emptying(folder, ledger)
            card = identity.card_of(meta)
            if embedder is not None:
                embedder = identity.for_index(embedder, card)
                identity.check_card(card, embedder.card, os.fspath(folder))
            settings = identity.settings_for(settings, meta, card)
            store = LanceStore(folder, dim=None if ledger.read_only else card.dim)
        except BaseException:  # whatever it was, the ledger is closed and the error goes on
            ledger.close()
            raise
        if ledger.restarted:
            ledger.write_meta({"ledger_lost": True})
        pool = DecodePool(settings)
        return cls(folder, embedder, reranker, settings, store, ledger, pool, Seen(pool))

    # --- writing ---

    def add(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        columns: Mapping[str, Value] | None = None,
        verify: bool = False,
        retry: bool = False,
        on_event: Callable[[Event], None] | None = None,
        stop: threading.Event | None = None,
    ) -> AddReport:
        """Bring files and folders into the index; what is in it unchanged costs a look at its size and time.

        Args:
            paths: files and folders; folders are walked (see ``search.find``).
            columns: your own metadata for every one of these files, to filter by; None leaves what they have.
            verify: compare the bytes of files even when size and time say they are unchanged.
            retry: try again what failed twice with the same content, and files of which pages or moments failed.
            on_event: told what happens, one event at a time (see ``search.events``).
            stop: set it from another thread to end the work as Ctrl-C does.

        Returns:
            what became of every file. Ctrl-C ends the work cleanly and sets ``interrupted``; adding again goes on.

        Raises:
            IndexLockedError: another process writes to the index.
            IndexMismatchError: the settings would cut files in another way than those in the index.
            ConfigError: the library was opened without an embedder, or a column has a name or type it cannot have.
            StoreError: the index cannot be written, for example because the disk is full.
        """
        embedder = self._need_embedder("add files to it")
        given = [absolute(one) for one in _several(paths)]
        self.check_columns(columns)
        meta = self._ledger.read_meta()
        identity.check_settings(meta, self.settings, os.fspath(self.path))
        walk: dict[str, Any] = {"follow_links": self.settings.follow_links, "leave_out": [self.path]}
        before = self._store.count()
        with self._store.writing(), DecodePool(self.settings) as source:
            doubt_what_was_lost(self._store, self._ledger)
            self._remember_roots(given)
            if on_event is not None:
                files, size = count(given, **walk)
                on_event(Counted(files=files, bytes=size))
            plan = Plan(
                store=self._store,
                ledger=self._ledger,
                source=source,
                settings=self.settings,
                count_tokens=embedder.count_tokens,
                fingerprint=embedder.card.fingerprint,
                columns=columns,
                verify=verify,
                retry=retry,
                partly=Problems(self._ledger),
                look_up_all=bool(meta.get("ledger_lost")),
            )
            report = ingest(find(given, **walk), plan, embedder, on_event=on_event, stop=stop)
            relink(self._store, self._ledger, embedder.card.fingerprint)
            if not report.interrupted and self._store.count() - before >= OPTIMIZE_ROWS:
                self._store.optimize()
        return report

    def remove(self, paths: PathLike | Iterable[PathLike]) -> int:
        """Take files, and everything under folders, out of the index. The originals stay. Number of files."""
        num = 0
        with self._store.writing():
            for path in map(absolute, _several(paths)):
                num += drop(self._store, self._ledger, [state.path for state in self._ledger.files(under=path)])
                roots = [root for root in self.roots if not is_under(root, path)]
                if roots != list(self.roots):
                    self._ledger.write_meta({"roots": roots})
        return num

    def prune(self, dry_run: bool = True, force: bool = False) -> PruneReport:
        """Drop rows of files that no longer exist; by default only says which.

        A folder that is missing or empty, or that lost more than half of its files, is refused unless ``force``: its
        drive may not be mounted.
        """
        return prune(self._store, self._ledger, self.roots, dry_run=dry_run, force=force)

    def optimize(self) -> None:
        """Merge small files and bring the indexes up to date."""
        self._store.optimize()

    def repair(self, dry_run: bool = True) -> RepairReport:
        """Repair what ``check`` finds and what needs no model; by default only says what it would do.

        Nothing that is only in the index is dropped: files whose rows are in doubt are down as unfinished afterwards,
        and ``add`` brings them in again.

        Raises:
            IndexLockedError: another process writes to the index.
            StoreError: the index cannot be written.
        """
        return repair_rows(self._store, self._ledger, dry_run=dry_run)

    def backup(self, out: PathLike) -> BackupReport:
        """Copy the index into a new folder, as it is at this moment, while anybody reads and writes it.

        ``sightline.store.backup.restore`` makes an index of the copy: the same rows, files and labels.

        Raises:
            StoreError: ``out`` holds something, the index is being rebuilt, or the disk refuses.
        """
        return back_up(self.path, Path(absolute(out)))

    def check_columns(self, columns: Mapping[str, Value] | None) -> None:
        """Nothing, if files with this metadata can be added.

        Raises:
            ConfigError: a column has a name or type it cannot have, or another type than in the index.
        """
        known = self._store.columns()
        for name, value in (columns or {}).items():
            have, given = known.get(check_column_name(name)), column_type(value)
            if have is not None and have != given and (have, given) != ("number", "integer"):
                raise ConfigError(f"column {name!r} of this index holds {have}, not {given}")

    # --- searching ---

    def search(
        self,
        query: ItemLike | Hit | Row,
        *,
        k: int = 10,
        rerank: int = 50,
        where: Filter | Mapping[str, Any] | str | None = None,
        min_score: float | None = None,
        instruction: str | None = None,
        unlike: Sequence[ItemLike | Hit | Row] = (),
    ) -> list[Hit]:
        """The k best answers, best first.

        Args:
            query: words, an image, a video, or any mix: a str, an ``Item`` or a dict with its keys. A hit (or its
                row) finds more like it, without itself.
            k: most hits, 1 to 10,000.
            rerank: candidates that the reranker sees; 0 for recall alone. Hits it judged come first, by its score.
            where: rows that may be found, for example ``"kind=page after=2024-01-01"`` (see ``Filter.of``).
            min_score: hits with a lower ``score`` are left out.
            instruction: what the search is for, in English; None takes the models' defaults.
            unlike: what is not wanted, each like a query: ``search("a circle", unlike=["blue"])``. What belongs to
                one of these rather than to the query goes down (see ``search.unlike``).

        Raises:
            ConfigError: no embedder, or an option or filter that cannot be used.
            InputError: the query is empty, a file of it cannot be read, or a hit is no longer in the index.
            StoreError: the index cannot be read.
        """
        options: dict[str, Any] = {"k": k, "rerank": rerank, "where": where, "min_score": min_score}
        return self.answer(query, instruction=instruction, unlike=unlike, **options).hits

    def answer(
        self,
        query: ItemLike | Hit | Row,
        *,
        unlike: Sequence[ItemLike | Hit | Row] = (),
        **options: Any,
    ) -> pipeline.Answer:
        """``search``, with the seconds of each stage and each hit's place after the first stage."""
        embedder = self._need_embedder("search it")
        asked = pipeline.ask(self._sought(query), unlike=[self._sought(one) for one in unlike], **options)
        return pipeline.answer(self._store, self._seen, embedder, self.reranker, asked)

    def _sought(self, given: ItemLike | Hit | Row) -> ItemLike | Row:
        """A hit as its row."""
        if not isinstance(given, Hit):
            return given
        row = self.row(given.id)
        if row is None:
            raise InputError(f"the hit {given.id!r} is not in the index any more")
        return row

    def unit(self, hit: Hit | Row) -> Unit:
        """A hit with its pixels or frames, read again from its file; ``unit(hit).as_item()`` finds more like it.

        Raises:
            MediaError: the file is gone or cannot be read any more.
        """
        if hit.kind == "text":
            row = hit if isinstance(hit, Row) else self.row(hit.id)
            return Unit(kind="text", title=hit.title, text=row.text if row else getattr(hit, "snippet", ""))
        return self._seen.unit(hit.path, hit.kind, page=hit.page, start_s=hit.start_s, end_s=hit.end_s)

    def row(self, id: str) -> Row | None:
        """The row of a hit, with its whole text and columns, or None."""
        rows = self._store.get([id])
        return rows[0] if rows else None

    # --- looking ---

    @property
    def model(self) -> ModelCard:
        """The card of the embedder that the index was built with."""
        return identity.card_of(self._ledger.read_meta())

    @property
    def reranker_name(self) -> str:
        """Name of the reranker that the index was made with, or ""."""
        return str(self._ledger.read_meta().get("reranker", ""))

    @property
    def labels(self) -> Labels:
        """What people said about hits."""
        return Labels(self._ledger)

    @property
    def roots(self) -> tuple[str, ...]:
        """Folders that were added."""
        return tuple(self._ledger.read_meta().get("roots", ()))

    def stats(self) -> LibraryStats:
        """How much is in the index."""
        counts = self._ledger.counts()
        kinds = {kind: self._store.count(Filter(kinds=(kind,))) for kind in KINDS}
        return LibraryStats(
            path=os.fspath(self.path),
            rows=sum(kinds.values()),
            kinds={kind: num for kind, num in kinds.items() if num},
            files=counts["done"],
            pending=counts["pending"],
            skipped=counts["skipped"],
            model=self.model,
            reranker=self.reranker_name,
            columns=dict(self._store.columns()),
            roots=self.roots,
            bytes=_size(self.path),
        )

    def files(self, status: FileStatus | None = None, under: PathLike | None = None) -> Iterator[FileState]:
        """What became of every file, by path: all or those of one status, everywhere or under one folder."""
        return self._ledger.files(status, None if under is None else absolute(under))

    def counts(self, under: PathLike | None = None) -> dict[FileStatus, int]:
        """Number of files in each status, everywhere or under one folder."""
        return self._ledger.counts(None if under is None else absolute(under))

    def file(self, path: str) -> FileState | None:
        """What became of one file; None for one that was never seen."""
        return self._ledger.file(path)

    def check(self) -> list[Problem]:
        """What is wrong with the index, its files that changed or are gone, and files that could not be indexed."""
        return health.check(self._store, self._ledger)

    def failures(self) -> list[Skipped]:
        """Files that could not be indexed, and pages and moments of indexed files, each with the reason."""
        files = [Skipped(path=state.path, code=state.code, detail=state.detail) for state in self._ledger.failures()]
        return sorted([*files, *Problems(self._ledger).skipped()], key=lambda one: os.fsencode(one.path))

    # --- life ---

    def close(self) -> None:
        """Let go of files and processes. May be called twice."""
        self._pool.close()
        self._seen.clear()
        self._store.close()
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside ---

    def _need_embedder(self, purpose: str) -> EmbeddingModel:
        if self.embedder is None:
            model = self.model
            raise ConfigError(
                f"to {purpose}, the index needs the model it was built with, {model.model}: "
                f'Library.open("{self.path}", embedder=Embedder.load("{model.model}")), '
                f"or --model {model.model} on the command line"
            )
        return self.embedder

    def _remember_roots(self, given: Iterable[str]) -> None:
        roots = list(self.roots)
        new = [path for path in given if path not in roots and os.path.isdir(path)]  # noqa: PTH112
        if new:
            self._ledger.write_meta({"roots": sorted({*roots, *new}, key=os.fsencode)})


def is_index(folder: PathLike) -> bool:
    """Whether there is an index in a folder, sound or not. A ledger alone is the beginning of one that was killed."""
    place = Path(absolute(folder))
    return any((place / name).exists() for name in (STAMP_NAME, TABLE_NAME))


def repair_ledger(folder: PathLike, dry_run: bool = True) -> Problem | None:
    """Start a damaged ledger again from what is indexed, with the labels that can still be read; None if it is sound.

    An index does not open while its ledger is damaged, so this comes before ``Library.repair``, which enters the files.

    Raises:
        IndexLockedError: another process writes to the index.
        StoreError: the ledger cannot be opened for another reason.
    """
    place = Path(absolute(folder))
    if dry_run:
        return ledger_repair(dry_run) if is_ledger_damaged(place) else None
    with WriterLock(place):
        ledger, was_damaged = open_ledger(place)
        ledger.close()
    return ledger_repair(dry_run) if was_damaged else None


def card_of(folder: PathLike) -> ModelCard | None:
    """The card of the model that an index was built with, without opening it; None where there is no index."""
    meta = read_stamp(Path(absolute(folder)))
    return identity.card_of(meta) if meta else None


def _create(folder: Path, card: ModelCard, reranker: RerankingModel | None, settings: Settings) -> None:
    """An empty index. Complete once it says what it was built with, which is written last."""
    try:
        make_folder(folder)
        ours = (LOCK_NAME, LEDGER_NAME, STAMP_NAME, "making")
        strangers = [one.name for one in folder.iterdir() if not one.name.startswith(ours)]
    except OSError as error:
        raise StoreError(f"an index cannot be made in {folder}: {error.strerror}") from error
    if strangers:
        raise StoreError(f"{folder} holds other files and is no index; name a new folder for the index")
    with WriterLock(folder, timeout_s=10.0):
        if is_index(folder):
            return
        ledger = Ledger(folder)
        try:
            ledger.write_meta(_about(card, reranker, settings))
        finally:
            ledger.close()


def _about(card: ModelCard, reranker: RerankingModel | None, settings: Settings) -> dict[str, Any]:
    """What an index says it is built with."""
    cut = identity.settings_at(settings, card)
    return {
        "format": identity.FORMAT,
        "embedder": card.as_dict(),
        "reranker": reranker.card.model if reranker is not None else "",
        "settings": {name: getattr(cut, name) for name in identity.UNIT_SETTINGS},
        "roots": [],
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"sightline": sightline.__version__},
    }


def _several(paths: PathLike | Iterable[PathLike]) -> list[PathLike]:
    """One path or several, as a list."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        return [paths]
    return list(paths)


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total
