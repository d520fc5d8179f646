"""The store on disk: one LanceDB table, ``items``, under the rules that were paid for.

The only file that knows lancedb and lance, and the only one that builds their filters: there are no filter parameters,
so every text is quoted here, by doubling ``'``.

- Every write happens under the writer lock, and is on the disk (fsync) before it is acknowledged.
- The id is declared the key: two processes that add the same new row write it once.
- Every search filters first and ranks then, and sees the newest version.
- When the newest version cannot be read, the newest one that can is opened, and the bad file is put aside.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import logging
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import lance
import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS, Bitmap, BTree, IvfRq
from lancedb.query import MatchQuery
from numpy.typing import NDArray

from sightline.errors import IndexMismatchError, StoreError
from sightline.store.durable import (
    DAMAGED_NAME,
    NewFiles,
    begin_session,
    end_session,
    has_lance_foot,
    make_folder,
    put_aside,
    was_cut_off,
)
from sightline.store.ledger import sync_folder
from sightline.store.lock import WriterLock
from sightline.store.schema import (
    ColumnType,
    Condition,
    Filter,
    Found,
    OptimizeReport,
    Problem,
    Row,
    Value,
    checked_rows,
    merged_columns,
    ranked,
    searchable,
    stored_columns,
    unit_vector,
)

TABLE: Final = "items"
STEP_NAME: Final = "stepped-back"
"""File in the index folder that says since when files are in doubt."""

SMALL_DIM: Final = 256
"""Width of ``vector_small``, the first stage of a funnel over large indexes; kept for vectors wider than this."""

VECTOR_INDEX_FROM: Final = 50_000
"""Rows from which a vector index is worth it: below, an exact scan takes under about 0.3 s on 2 cores."""

REFINE: Final = 10
"""How many times k the one-bit index hands to the exact second look (recall@10 1.000 at 30k x 1024)."""

REFINE_NARROW: Final = 20
NARROW_DIM: Final = 512
"""The same below so many dimensions, where a bit a dimension says less: of 64 random ones .995 instead of .97."""

KEEP_S: Final = 24 * 3600.0
"""How long a version outlives its successor: readers may still be at it."""

FRAGMENT_ROWS: Final = 2**18
"""Rows in a merged file: 1 GB at 2,048 dimensions."""

COMPACT_BATCH_ROWS: Final = 1024
"""Rows in memory while merging: 8 MB at 4,096 dimensions. LanceDB's own optimize took 5.1 GB on a 1.6 GB table."""

RECALL_SAMPLE: Final = 32
"""Rows used as queries to compare an approximate index with an exact scan."""

LEAST_RECALL: Final = 0.9
"""Share of the exact first ten below which ``check`` calls the vector index bad; a sound one finds nearly all."""

MOST_LOST_VERSIONS: Final = 2
"""Versions that opening may step back by itself: so many can a power cut leave half written, because each commit is
synced before the next (merging files commits twice). Beyond, acknowledged rows would go too, and a person decides."""

INDEX_BYTES: Final = 2 * 2**30
METADATA_BYTES: Final = 128 * 2**20
"""What an open store may keep of indexes and of metadata: Lance's own 6 GB and 1 GB are more than a laptop can spare.
Every version seen leaves some 0.1 MB of metadata."""

LOOK_AGAIN_S: Final = 5.0
"""How often a store that is used looks whether its indexes were replaced: Lance keeps replaced ones in its cache, with
their files open, for as long as there is room."""

IDS_PER_FILTER: Final = 500
TIES: Final = 16
MOST_TIES: Final = 4096
"""Rows fetched beyond k, so that equal scores are cut by id and not by chance."""

_KEY_METADATA: Final = {"lance-schema:unenforced-primary-key": "true"}
_USER: Final = "user_"
_ARROW: Final[dict[ColumnType, pa.DataType]] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "switch": pa.bool_(),
}
_FACTS: Final = ("id", "path_id", "path", "kind", "page", "start_s", "end_s", "title", "text", "modified_s")
_WORDS: Final = FTS(base_tokenizer="icu/split", stem=False, remove_stop_words=False, max_token_length=None)
_PIECES: Final = FTS(
    base_tokenizer="ngram",
    stem=False,
    remove_stop_words=False,
    max_token_length=None,
    ngram_min_length=2,
    ngram_max_length=3,
)
_INDEXES: Final[dict[str, Any]] = {
    "id": BTree(),
    "path_id": BTree(),
    "path": BTree(),
    "kind": Bitmap(),
    "modified_s": BTree(),
    "words": _WORDS,
    "pieces": _PIECES,
}

log = logging.getLogger(__name__)


class LanceStore:
    """An ``ItemStore`` in a folder. Many processes may read while one writes.

    Args:
        folder: the index folder; the table is ``items.lance`` in it.
        dim: width of the vectors; may be left out for an index that exists.
        index_from: rows from which ``optimize`` builds an approximate vector index.
        lock_timeout_s: how long a write waits for another process.

    Raises:
        IndexMismatchError: the index has vectors of another width.
        StoreError: there is no index and ``dim`` is not given, or the index cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dim: int | None = None,
        index_from: int = VECTOR_INDEX_FROM,
        lock_timeout_s: float = 0.0,
    ) -> None:
        self.folder = folder
        self.lock = WriterLock(folder, timeout_s=lock_timeout_s)
        self._index_from = index_from
        self._path = folder / f"{TABLE}.lance"
        self._new_files = NewFiles(self._path)
        self._broken = False
        self._durable = 0
        self._doubtful: frozenset[str] = frozenset()
        """While opening: files that may have their size and not their contents."""
        self._handle: Any = None
        self._indexes: frozenset[str] = frozenset()
        """Those that the handle's cache may hold."""
        self._look_again_s = 0.0
        if not self._path.is_dir():
            if dim is None:
                raise StoreError(f"there is no index in {folder}")
            self._create(dim)
        self._open()
        self._dim = int(self._table.schema.field("vector").type.list_size)
        if dim is not None and dim != self._dim:
            raise IndexMismatchError(
                f"the index holds vectors of {self._dim} numbers, the model makes {dim} ({folder})"
            )

    @property
    def dim(self) -> int:
        """Width E of the vectors."""
        return self._dim

    @property
    def _table(self) -> Any:
        handle = self._handle
        if handle is None:
            raise StoreError("the index is closed")
        if time.monotonic() >= self._look_again_s:
            self._look_again_s = time.monotonic() + LOOK_AGAIN_S
            indexes = frozenset(str(index.index_uuid) for index in handle.list_indices())
            if not self._indexes <= indexes:
                handle = self._handle = self._opened()  # with a fresh cache; who reads now keeps the old one till then
            self._indexes = indexes
        return handle

    # --- opening ---

    def _create(self, dim: int) -> None:
        """Make the empty table beside its place and rename it in: it is there whole or not at all."""
        if dim < 1:
            raise StoreError(f"an index needs vectors of at least one number, not {dim}")
        with _said("made", self.folder):
            make_folder(self.folder)
            with self.lock:
                if self._path.is_dir():
                    return
                making = self.folder / "making"
                shutil.rmtree(making, ignore_errors=True)
                table = lancedb.connect(making).create_table(TABLE, schema=_schema(dim))
                for column in ("words", "pieces"):
                    table.create_index(column, config=_INDEXES[column])
                NewFiles(making / self._path.name).sync()
                (making / self._path.name).rename(self._path)
                self._new_files.sync()
                shutil.rmtree(making, ignore_errors=True)

    def _open(self) -> None:
        if was_cut_off(self.folder):
            self._doubtful = self._doubtful_files()
        damage = self._damage()
        if damage is not None:
            self._heal(damage)
        with _said("opened", self.folder):
            self._handle = self._opened()
            if self._damaged_indexes():
                self._rebuild()
        self._doubtful = frozenset()

    def _opened(self) -> Any:
        cache = lancedb.Session(index_cache_size_bytes=INDEX_BYTES, metadata_cache_size_bytes=METADATA_BYTES)
        database = lancedb.connect(self.folder, read_consistency_interval=datetime.timedelta(0), session=cache)
        return database.open_table(TABLE)

    def _damaged_indexes(self) -> list[str]:
        return [index.columns[0] for index in self._table.list_indices() if self._index_damage(index)]

    def _rebuild(self) -> None:
        """Build damaged indexes anew: every search goes through them. Without the right to write, some will fail."""
        try:
            with self._commit():
                damaged = self._damaged_indexes()
                log.warning("indexes of %s were damaged and are built again: %s", self.folder, ", ".join(damaged))
                self._index_columns()
                self._index_vectors()
        except StoreError as error:
            log.warning("indexes of %s are damaged and cannot be built again: %s", self.folder, error)

    def _damage(self, version: int | None = None) -> str | None:
        """What is wrong with a version, by default the newest: its manifest, or a file cut short. None if sound."""
        damage = "manifest"
        try:
            dataset = lance.dataset(str(self._path), version=version)
            if not {"id", "vector"} <= set(dataset.schema.names):
                return damage
            for fragment in dataset.get_fragments():
                for file in fragment.data_files():
                    path = self._path / "data" / file.path
                    if not path.is_file() or (file.file_size_bytes and path.stat().st_size != file.file_size_bytes):
                        return f"data file {file.path}"
                    if not has_lance_foot(path) or (path.name in self._doubtful and not _reads(fragment)):
                        return f"data file {file.path}"
                deletions = fragment.deletion_file()
                if deletions and _written_at(deletions) >= dataset.version - MOST_LOST_VERSIONS:
                    damage = f"deletion file {deletions}"
                    fragment.scanner(columns=["id"], limit=1).to_table()
        except PermissionError as error:
            raise StoreError(f"the index cannot be read: permission denied ({self.folder})") from error
        except Exception as error:  # lance raises OSError, ValueError or RuntimeError for a bad manifest
            log.debug("version %s of %s does not open", version, self._path, exc_info=error)
            return damage
        return None

    def _doubtful_files(self) -> frozenset[str]:
        """Names of data files and of index folders that came with the newest versions, which had perhaps not been
        brought to the disk.
        """
        for manifest in self._manifests()[MOST_LOST_VERSIONS:]:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # the next one, then
                safe = lance.dataset(str(self._path), version=_version(manifest))
                known = {Path(file.path).name for fragment in safe.get_fragments() for file in fragment.data_files()}
                known |= {str(index["uuid"]) for index in safe.list_indices()}
                places = [*(self._path / "data").iterdir(), *(self._path / "_indices").glob("*")]
                return frozenset({place.name for place in places} - known)
        return frozenset()

    def _heal(self, damage: str) -> None:
        """Step back to the newest version that reads, and put the manifests above it aside."""
        with _said("repaired", self.folder), self.lock:
            damage = self._damage() or ""  # a writer may have been at work when it was seen first
            if not damage:
                return
            bad: list[Path] = []
            for manifest in self._manifests():
                version = _version(manifest)
                if self._damage(version) is None:
                    break
                bad.append(manifest)
                if len(bad) > MOST_LOST_VERSIONS:
                    raise StoreError(
                        f"the index is damaged ({damage}) beyond what can be repaired by itself: its newest "
                        f"{MOST_LOST_VERSIONS} versions cannot be read. Restore a backup, or move {self._path} away "
                        "and index again"
                    )
            else:
                raise StoreError(
                    f"the index is damaged ({damage}) and no version of it can be read. Restore a backup, or move "
                    f"{self._path} away and index again"
                )
            self._remember_step(manifest)
            self._put_aside(bad)
            log.warning(
                "the newest version of the index in %s was damaged (%s), as after a power cut: opened the version "
                "before it and moved %d file(s) into %s. What the last write added is not there; index again to add it",
                self.folder,
                damage,
                len(bad),
                self.folder / DAMAGED_NAME,
            )

    def _remember_step(self, good: Path) -> None:
        """Before the step to this manifest: what was acknowledged since must be looked at again."""
        since_s = good.stat().st_mtime
        if self.stepped_back_s is not None:
            since_s = min(since_s, self.stepped_back_s)
        with (self.folder / STEP_NAME).open("w", encoding="ascii") as file:
            file.write(repr(since_s))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.folder)

    @property
    def stepped_back_s(self) -> float | None:
        """When the version was written that opening has stepped back to, in seconds since 1970; None if it never did.

        A disk that keeps its word loses nothing that was acknowledged. With one that does not, files that the ledger
        calls done since then may have lost their rows: see ``settle_step``.
        """
        try:
            return float((self.folder / STEP_NAME).read_text(encoding="ascii") or 0.0)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return 0.0

    def settle_step(self) -> None:
        """Whoever calls it has looked at every file in doubt."""
        (self.folder / STEP_NAME).unlink(missing_ok=True)
        sync_folder(self.folder)

    def _put_aside(self, manifests: Iterable[Path]) -> None:
        for manifest in manifests:
            put_aside(manifest, self.folder)
        # a hint of Lance's own, which it does without
        (self._path / "_versions" / "latest_version_hint.json").unlink(missing_ok=True)

    def _manifests(self) -> list[Path]:
        """The manifests of the table, newest first: their names count down from 2^64 - 1."""
        return sorted(
            (p for p in (self._path / "_versions").glob("*.manifest") if p.stem.isdigit()), key=lambda p: p.name
        )

    # --- writing ---

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer lock over several writes. May be nested."""
        with self.lock:
            if self._broken:
                raise StoreError("a write could not be brought to the disk; check the disk and open the index again")
            if self.lock.depth == 1:
                # a writer that died may have left a commit that is not on the disk yet
                with _said("written", self.folder):
                    try:
                        self._new_files.sync()
                        begin_session(self.folder)
                    except OSError:
                        self._broken = True  # as in _sync: a second try would prove nothing
                        raise
            yield
            if self.lock.depth == 1 and not self._broken:
                with _said("written", self.folder):
                    end_session(self.folder)

    @contextlib.contextmanager
    def _commit(self) -> Iterator[Any]:
        """The table, for one write, which calls ``_sync`` after each of its commits."""
        with self.writing(), _said("written", self.folder):
            self._durable = self._table.version
            yield self._table

    def _sync(self) -> None:
        """Bring a commit to the disk, or take it back."""
        try:
            self._new_files.sync()
            # Lance has been seen to commit a file of which the last write had failed, and to say nothing
            if (damage := self._damage()) is not None:
                raise OSError(errno.EIO, f"{damage} was not written to its end")
        except OSError:
            # never try a failed fsync again: nobody must believe in what it did not bring down
            self._broken = True
            for manifest in self._manifests():
                if _version(manifest) > self._durable:
                    with contextlib.suppress(OSError):  # a disk in trouble; the error that goes on is the first
                        self._put_aside([manifest])
            self._handle = self._opened()
            raise
        self._durable = self._table.version

    def add(self, rows: Iterable[Row]) -> int:
        """Put rows in; a row with a known id replaces that row. On disk when it returns. Number of rows written."""
        unique, matrix = checked_rows(rows, self._dim)
        if not unique:
            return 0
        with self._commit() as table:
            known = _columns(table.schema)
            types = merged_columns(known, unique)
            fresh = [pa.field(_USER + name, _ARROW[types[name]]) for name in types if name not in known]
            if fresh:
                table.add_columns(fresh)
                self._sync()
            batch = _batch(unique, matrix, table.schema, types)
            upsert = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(batch)
            self._sync()
        return len(unique)

    def delete_paths(self, path_ids: Iterable[str]) -> int:
        """Take out all rows of these files; on disk when it returns. Number of rows taken out."""
        num_deleted = 0
        gone = sorted(set(path_ids))
        if not gone:
            return 0
        with self._commit() as table:
            for some in _chunks(gone):
                num_deleted += int(table.delete(_is_in("path_id", some)).num_deleted_rows)
                self._sync()
        return num_deleted

    # --- reading ---

    def existing(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that the index holds."""
        found: set[str] = set()
        for some in _chunks(sorted(set(ids))):
            found.update(map(_unpack, self._rows(_is_in("id", some), ["id"], len(some))["id"].to_pylist()))
        return found

    def ids(self) -> Iterator[str]:
        """Every id."""
        with _said("read", self.folder):
            for batch in self._dataset().scanner(columns=["id"]).to_batches():
                yield from map(_unpack, batch["id"].to_pylist())

    def search_vector(self, query: NDArray[Any], k: int, where: Filter | None = None) -> list[Found]:
        """The k rows with the largest cosine to the query (E,), best first, equal scores by id."""
        unit = unit_vector(query, self._dim, "query")
        wanted = self._where(where)
        if k < 1:
            return []
        with _said("searched", self.folder):
            # few rows pass: scan them all, for an approximate index may not reach k of them
            exact = bool(wanted) and self._table.count_rows(wanted) < self._index_from
            return self._nearest(unit, k, wanted, exact=exact)

    def _nearest(self, unit: NDArray[np.float32], k: int, where: str | None, *, exact: bool) -> list[Found]:
        refine = REFINE_NARROW if self._dim < NARROW_DIM else REFINE

        def search() -> Any:
            query = self._table.search(unit, vector_column_name="vector").distance_type("cosine").refine_factor(refine)
            return query.bypass_vector_index() if exact else query

        return self._best(search, "_distance", k, where)

    def _holding(self, column: str, query: str, k: int, where: str | None) -> list[Found]:
        return self._best(lambda: self._table.search(MatchQuery(query, column), query_type="fts"), "_score", k, where)

    def search_words(self, text: str, k: int, where: Filter | None = None) -> tuple[list[Found], list[Found]]:
        """Two ranked lists of rows whose title or text holds any of the words: by words, and by pieces."""
        wanted = self._where(where)
        query = _pack(searchable("", text).strip())
        if k < 1 or not query:
            return [], []
        with _said("searched", self.folder):
            return self._holding("words", query, k, wanted), self._holding("pieces", query, k, wanted)

    def _best(self, search: Callable[[], Any], measure: str, k: int, where: str | None) -> list[Found]:
        """Run a search and cut its hits at k; fetch on while the hit at the cut equals the last one fetched."""
        columns = [*_FACTS, *(_USER + name for name in self.columns()), measure]
        limit = k + TIES
        while True:
            query = search().limit(limit).select(columns)
            if where:
                query = query.where(where, prefilter=True)
            hits = query.to_arrow()
            values = sorted(hits[measure].to_pylist(), reverse=measure == "_score")
            if len(values) < limit or values[k - 1] != values[-1] or limit > k + MOST_TIES:
                break
            limit *= 4
        scores = [value if measure == "_score" else min(1.0, 1.0 - value) for value in hits[measure].to_pylist()]
        facts = _facts(hits.drop_columns([measure]))
        return ranked((Found(score=score, **fact) for score, fact in zip(scores, facts, strict=True)), k)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids in the order asked; unknown ids are left out."""
        columns = [*_FACTS, *(_USER + name for name in self.columns()), "vector"]
        rows: dict[str, Row] = {}
        for some in _chunks(sorted(set(ids))):
            hits = self._rows(_is_in("id", some), columns, len(some))
            for fact, vector in zip(_facts(hits.drop_columns(["vector"])), _matrix(hits, self._dim), strict=True):
                rows[fact["id"]] = Row(vector=vector, **fact)
        return [rows[one] for one in ids if one in rows]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Vector (E,) float32 by id; unknown ids are left out."""
        found: dict[str, NDArray[np.float32]] = {}
        for some in _chunks(sorted(set(ids))):
            hits = self._rows(_is_in("id", some), ["id", "vector"], len(some))
            found.update(zip(map(_unpack, hits["id"].to_pylist()), _matrix(hits, self._dim), strict=True))
        return found

    def count(self, where: Filter | None = None) -> int:
        """Number of rows that the filter lets pass."""
        wanted = self._where(where)
        with _said("read", self.folder):
            return int(self._table.count_rows(wanted))

    def paths(self) -> dict[str, str]:
        """Path by path id, of every file that has rows."""
        found: dict[str, str] = {}
        with _said("read", self.folder):
            for batch in self._dataset().scanner(columns=["path_id", "path"]).to_batches():
                found.update(zip(batch["path_id"].to_pylist(), batch["path"].to_pylist(), strict=True))
        return {_unpack(key): _unpack(path) for key, path in found.items()}

    def columns(self) -> dict[str, ColumnType]:
        """The user columns and their types."""
        with _said("read", self.folder):
            return _columns(self._table.schema)

    def _rows(self, where: str, columns: list[str], most: int) -> pa.Table:
        with _said("read", self.folder):
            # twice as many as there can be: a duplicate must not push another row out
            return self._table.search().where(where).select(columns).limit(2 * most).to_arrow()

    def _where(self, where: Filter | None) -> str | None:
        if not where:
            return None
        types = self.columns()
        return _sql(where.fitted(types), types)

    def _dataset(self) -> Any:
        return self._table.to_lance()

    # --- upkeep ---

    def optimize(self) -> OptimizeReport:
        """Merge small files, bring the indexes up to date, drop old versions. Searches go on meanwhile."""
        with self._commit():
            files_before = len(self._dataset().get_fragments())
            self._dataset().optimize.compact_files(
                target_rows_per_fragment=FRAGMENT_ROWS, batch_size=COMPACT_BATCH_ROWS, num_threads=1
            )
            self._sync()
            self._index_columns()
            vector_index = self._index_vectors()
            # everything is on the disk now, so what it replaces may go
            self._drop_old_versions()
            self._sync()
        return OptimizeReport(
            rows=self.count(),
            files_before=files_before,
            files_after=len(self._dataset().get_fragments()),
            vector_index=vector_index,
            recall=self.recall() if vector_index else None,
        )

    def _index_columns(self) -> None:
        wanted = dict(_INDEXES)
        for name, kind in self.columns().items():
            wanted[_USER + name] = Bitmap() if kind == "switch" else BTree()
        have = {index.columns[0]: index for index in self._table.list_indices()}
        for column, config in wanted.items():
            if column not in have or self._index_damage(have[column]):
                self._table.create_index(column, config=config, replace=True)
                self._sync()
        names = [index.name for index in self._table.list_indices() if index.columns[0] in wanted]
        self._dataset().optimize.optimize_indices(index_names=names)
        self._sync()

    def _index_damage(self, index: Any) -> bool:
        folder = self._path / "_indices" / str(index.index_uuid)
        files = [path for path in folder.rglob("*") if path.is_file()]
        if sum(path.stat().st_size for path in files) != index.size_bytes:
            return True
        if any(path.suffix == ".lance" and not has_lance_foot(path) for path in files):
            return True
        # contents cannot be told from what they should be, and are soon made again
        return folder.name in self._doubtful

    def _index_vectors(self) -> bool:
        """Build the vector index anew when it is due: merging its segments has lost rows."""
        table = self._table
        have = next((index for index in table.list_indices() if index.columns == ["vector"]), None)
        if table.count_rows() < self._index_from or self._dim % 8:
            if have is not None:
                table.drop_index(have.name)
                self._sync()
            return False
        if have is None or have.num_unindexed_rows or self._index_damage(have):
            table.create_index("vector", config=IvfRq(distance_type="cosine", num_bits=1), replace=True)
            self._sync()
        return True

    def recall(self, k: int = 10) -> float:
        """Share of the exact first k that ``search_vector`` finds, over rows spread through the index."""
        num_rows = self._table.count_rows()
        rng = np.random.default_rng(0)
        positions = sorted(rng.choice(num_rows, size=min(RECALL_SAMPLE, num_rows), replace=False).tolist())
        with _said("searched", self.folder):
            queries = _matrix(self._dataset().take(positions, columns=["vector"]), self._dim)
            shares = []
            for query in queries:
                near, true = ({hit.id for hit in self._nearest(query, k, None, exact=exact)} for exact in (False, True))
                shares.append(len(near & true) / len(true))
        return float(np.mean(shares)) if shares else 1.0

    def _drop_old_versions(self) -> None:
        """Let go of versions that were followed by another one more than ``KEEP_S`` ago."""
        dataset = self._dataset()
        past = [v["version"] for v in dataset.versions() if v["timestamp"].timestamp() < time.time() - KEEP_S]
        # the newest of them was still current a day ago: keep it
        old = sorted(past)[:-1]
        if old:
            dataset.cleanup_old_versions(versions=old)

    def check(self) -> list[Problem]:
        """Read everything and say what is wrong; an empty list for a sound index."""
        problems: list[Problem] = []
        damage = self._damage()
        if damage is not None:
            problems.append(
                Problem(code="unreadable", detail=f"{damage} is damaged; open the index again to repair it")
            )
            return problems
        seen: set[str] = set()
        try:
            scanner = self._dataset().scanner(columns=["id", "path", "vector"], batch_size=COMPACT_BATCH_ROWS)
            for batch in scanner.to_batches():
                ids, paths = ([_unpack(one) for one in batch[name].to_pylist()] for name in ("id", "path"))
                norms = np.linalg.norm(_matrix(pa.table(batch), self._dim), axis=1)
                for one, path, norm in zip(ids, paths, norms, strict=True):
                    if one in seen:
                        detail = f"row {one} is there more than once"
                        problems.append(Problem(code="duplicate_id", detail=detail, path=path))
                    if not math.isclose(norm, 1.0, abs_tol=0.01):
                        detail = f"the vector of row {one} is not a unit vector"
                        problems.append(Problem(code="bad_vector", detail=detail, path=path))
                    seen.add(one)
            for column in self._damaged_indexes():
                detail = f"the index of {column} is damaged; opening the library to write builds it again"
                problems.append(Problem(code="damaged_index", detail=detail))
            if (share := self._vector_recall()) < LEAST_RECALL:
                detail = f"the vector index finds {share:.0%} of the true first ten; sightline doctor --repair helps"
                problems.append(Problem(code="low_recall", detail=detail))
            for version in self._bad_versions():
                detail = f"version {version}, of the past, cannot be read; sightline doctor --repair puts it aside"
                problems.append(Problem(code="bad_version", detail=detail))
        except Exception:  # whatever lance raises, the finding is that reading failed
            log.debug("reading %s failed", self._path, exc_info=True)
            problems.append(Problem(code="unreadable", detail="rows cannot be read; restore a backup or index again"))
        return problems

    def _bad_versions(self) -> list[int]:
        """Versions before the newest that cannot be read: nobody needs them, but a step back would stumble on them."""
        return [version for version in map(_version, self._manifests()[1:]) if self._damage(version) is not None]

    def _vector_recall(self) -> float:
        """``recall`` where there is a vector index; 1 where every search is exact."""
        has_index = any(index.columns == ["vector"] for index in self._table.list_indices())
        return self.recall() if has_index else 1.0

    def repair(self) -> None:
        """Put past versions that do not read aside, leave one row of each id, and build bad indexes anew.

        For a moment the rows of an id are gone: whoever calls it has their files down as pending.
        """
        with self._commit() as table:
            seen = Counter(self.ids())
            doubled = sorted(id for id, num in seen.items() if num > 1)
            for some in _chunks(doubled):
                rows = self.get(some)
                table.delete(_is_in("id", some))
                self._sync()
                self.add(rows)
            bad = set(self._bad_versions())
            self._put_aside([manifest for manifest in self._manifests() if _version(manifest) in bad])
            if self._damaged_indexes():
                self._index_columns()
            weak = [index.name for index in table.list_indices() if index.columns == ["vector"]]
            if weak and self._vector_recall() < LEAST_RECALL:
                table.drop_index(weak[0])
                self._sync()
            self._index_vectors()

    def snapshot(self) -> list[Path]:
        """The files that the newest version consists of, relative to the folder.

        They never change, and they stay for a day at least: copied at any pace, they are the index as it was.
        """
        with _said("read", self.folder):
            dataset = self._dataset()
            files = [manifest for manifest in self._manifests() if _version(manifest) == dataset.version]
            for fragment in dataset.get_fragments():
                files += [self._path / "data" / file.path for file in fragment.data_files()]
                deletions = fragment.deletion_file()
                files += [self._path / deletions] if deletions else []
            for index in dataset.list_indices():
                files += [file for file in (self._path / "_indices" / index["uuid"]).rglob("*") if file.is_file()]
            # a commit reads what was committed since the version that it began with
            files += [file for file in self._path.glob("_transactions/*.txn") if _began(file) == dataset.version - 1]
            return sorted({file.relative_to(self.folder) for file in files})

    def close(self) -> None:
        """Let go of files. May be called twice."""
        self._handle = None


# --- rows to Arrow and back ------------------------------------------------------------------------------------------


def _schema(dim: int) -> pa.Schema:
    fields = [
        pa.field("id", pa.string(), nullable=False, metadata=_KEY_METADATA),
        pa.field("path_id", pa.string()),
        pa.field("path", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("page", pa.int64()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("modified_s", pa.float64()),
        pa.field("words", pa.string()),
        pa.field("pieces", pa.string()),
        pa.field("vector", pa.list_(pa.float16(), dim)),
    ]
    if dim > SMALL_DIM:
        fields.append(pa.field("vector_small", pa.list_(pa.float16(), SMALL_DIM)))
    fields.append(pa.field("bits", pa.list_(pa.uint8(), (dim + 7) // 8)))
    return pa.schema(fields)


def _columns(schema: pa.Schema) -> dict[str, ColumnType]:
    names = {arrow: name for name, arrow in _ARROW.items()}
    return {f.name.removeprefix(_USER): names[f.type] for f in schema if f.name.startswith(_USER)}


def _batch(
    rows: list[Row], matrix: NDArray[np.float16], schema: pa.Schema, types: Mapping[str, ColumnType]
) -> pa.Table:
    """All columns of the schema: a row that replaces another must not keep the other's metadata."""
    data: dict[str, Any] = {}
    for name in _FACTS:
        values = [getattr(row, name) for row in rows]
        data[name] = [_pack(value) if isinstance(value, str) else value for value in values]
    data["words"] = data["pieces"] = [_pack(searchable(row.title, row.text)) for row in rows]
    data["vector"] = _fixed(matrix)
    if "vector_small" in schema.names:
        small = matrix[:, :SMALL_DIM].astype(np.float32)
        small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        data["vector_small"] = _fixed(small.astype(np.float16))
    data["bits"] = _fixed(np.packbits(matrix > 0, axis=1))
    stored = [stored_columns(row, types) for row in rows]
    for name in types:
        values = [columns.get(name) for columns in stored]
        data[_USER + name] = [_pack(value) if isinstance(value, str) else value for value in values]
    return pa.table({f.name: pa.array(data[f.name], f.type) if isinstance(data[f.name], list) else data[f.name]
                     for f in schema}, schema=schema)  # fmt: skip


def _fixed(matrix: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), matrix.shape[1])


def _matrix(table: pa.Table, dim: int) -> NDArray[np.float32]:
    """(N, E) float32 of the column ``vector``."""
    parts = [np.asarray(chunk.flatten()).reshape(-1, dim) for chunk in table["vector"].chunks]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, dim), np.float32)


def _facts(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as the keyword arguments of ``Row`` and ``Found``."""
    facts = []
    for record in table.to_pylist():
        fact = {name: _unpack(record[name]) if isinstance(record[name], str) else record[name] for name in _FACTS}
        columns: dict[str, Value] = {}
        for name, value in record.items():
            if name.startswith(_USER) and value is not None:
                columns[name.removeprefix(_USER)] = _unpack(value) if isinstance(value, str) else value
        fact["columns"] = columns
        facts.append(fact)
    return facts


ESCAPE: Final = "\U0010ff00"
"""A private character. Lance keeps UTF-8, paths need not be: a lone surrogate is kept as this and four hex digits, and
this character itself doubled. Character by character, so that what starts with a folder still does."""


def _pack(text: str) -> str:
    r"""Any Python text as text that UTF-8 can hold.

    >>> _unpack(_pack("caf\udce9")) == "caf\udce9"
    True
    """
    if ESCAPE not in text:
        with contextlib.suppress(UnicodeEncodeError):
            text.encode()
            return text
    packed = (ESCAPE * 2 if c == ESCAPE else f"{ESCAPE}{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in text)
    return "".join(packed)


def _unpack(text: str) -> str:
    """The text that ``_pack`` was given."""
    if ESCAPE not in text:
        return text
    plain, position = list[str](), 0
    while position < len(text):
        c = text[position]
        if c != ESCAPE:
            plain.append(c)
            position += 1
        elif text[position + 1 : position + 2] == ESCAPE:
            plain.append(ESCAPE)
            position += 2
        else:
            plain.append(chr(int(text[position + 1 : position + 5], 16)))
            position += 5
    return "".join(plain)


# --- filters ---------------------------------------------------------------------------------------------------------


def _sql(where: Filter, types: Mapping[str, ColumnType]) -> str:
    """The filter in Lance's SQL."""
    parts: list[str] = []
    if where.kinds:
        parts.append(_is_in("kind", where.kinds))
    folder = where.folder
    if folder is not None:
        # "0" follows "/": a range is what the index of the column can use, and it has no pattern to escape
        file, end = folder[:-1], folder[:-1] + "0"
        parts.append(f"(path = {_text(file)} OR (path >= {_text(folder)} AND path < {_text(end)}))")
    if where.after_s is not None:
        parts.append(f"modified_s >= {_number(where.after_s)}")
    if where.before_s is not None:
        parts.append(f"modified_s < {_number(where.before_s)}")
    parts.extend(_condition(condition, types[condition.name]) for condition in where.columns)
    return " AND ".join(parts)


def _condition(condition: Condition, have: ColumnType) -> str:
    column = f"`{_USER}{condition.name}`"
    value = condition.value
    if isinstance(value, bool):
        literal = "true" if value else "false"
    elif isinstance(value, str):
        literal = _text(value)
    elif have == "number" or isinstance(value, float):
        literal = _number(float(value))
        column = f"CAST({column} AS DOUBLE)" if have == "integer" else column
    else:
        literal = f"CAST('{value:d}' AS BIGINT)"
    return f"{column} {condition.operator} {literal}"


def _is_in(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(_text, values))})"


def _text(value: str) -> str:
    return "'" + _pack(value).replace("'", "''") + "'"


def _number(value: float) -> str:
    return f"CAST('{value!r}' AS DOUBLE)"


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), IDS_PER_FILTER):
        yield values[start : start + IDS_PER_FILTER]


def _reads(fragment: Any) -> bool:
    """Whether every value of a fragment is one that could have been written."""
    try:
        for batch in fragment.scanner(batch_size=COMPACT_BATCH_ROWS).to_batches():
            batch.validate(full=True)
            vectors = np.asarray(batch["vector"].flatten(), np.float32).reshape(batch.num_rows, -1)
            if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=0.01) or "" in batch["id"].to_pylist():
                return False
    except (OSError, ValueError, RuntimeError, pa.ArrowException):
        return False
    return True


def _written_at(deletions: str) -> int:
    """The version that a deletion file was written over: ``_deletions/<fragment>-<version>-<number>.<kind>``."""
    return int(Path(deletions).name.split("-")[1])


def _version(manifest: Path) -> int:
    return 2**64 - 1 - int(manifest.stem)


def _began(transaction: Path) -> int:
    """The version that a transaction began with: ``_transactions/<version>-<uuid>.txn``."""
    head = transaction.name.partition("-")[0]
    return int(head) if head.isdigit() else -1


# --- errors ----------------------------------------------------------------------------------------------------------

_REASONS: Final = {
    "No space left": "the disk is full",
    "os error 28": "the disk is full",
    "Disk quota": "the disk quota is used up",
    "Read-only file system": "the folder is read-only",
    "os error 30": "the folder is read-only",
    "Permission denied": "permission denied",
    "os error 13": "permission denied",
    "Too many open files": "too many open files",
    "conflict": "another process wrote at the same time",
}


@contextlib.contextmanager
def _said(done: str, folder: Path) -> Iterator[None]:
    """Errors of lance and of the disk as errors of ours."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        text = str(error)
        reason = next((ours for theirs, ours in _REASONS.items() if theirs.lower() in text.lower()), None)
        raise StoreError(f"the index cannot be {done}: {reason or 'run sightline doctor'} ({folder})") from error
