"""What people said about hits: good or bad for a query. Kept in the ledger, for a later evaluation of the search.

A query is kept once, whatever was said about its hits, since it may hold a picture. A label names the row that was
judged and also its place in the file, so that it outlives an index that is built anew with another model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sightline.errors import ConfigError
from sightline.store.ledger import Ledger
from sightline.types import Kind

VALUES: Final = (1, 0, -1)
"""Good, nothing (takes a label back), bad."""
PAGE: Final = 500
"""Labels read at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What was said about one row for one query.

    Attributes:
        query: the query as JSON.
        item: the row's id.
        path, kind, page, start_s, end_s: where the row stands.
        value: 1 or -1.
        time_s: when it was said, in seconds since 1970.
    """

    query: str
    item: str
    path: str
    kind: Kind
    page: int | None
    start_s: float | None
    end_s: float | None
    value: int
    time_s: float


class Labels:
    """The labels in a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def put(
        self,
        key: str,
        query: str,
        item: str,
        value: int,
        *,
        path: str,
        kind: Kind,
        page: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> None:
        """Say something about a row for a query, in place of what was said before; 0 takes it back.

        Args:
            key: the same for equal queries.
            query: JSON.
            item: id of the row.
            value: 1, 0 or -1.
            path, kind, page, start_s, end_s: where the row stands.
        """
        if value not in VALUES or isinstance(value, bool):
            raise ConfigError(f"a label is 1, 0 or -1, not {value!r}")
        with self._ledger.batch():
            if value == 0:
                self._ledger.write("DELETE FROM labels WHERE query_key = ? AND item = ?", (key, item))
            else:
                self._ledger.write("INSERT OR IGNORE INTO label_queries VALUES (?, ?)", (key, query))
                place = (key, item, os.fsencode(path), kind, page, start_s, end_s, value, time.time())
                self._ledger.write("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", place)
            self._ledger.write(
                "DELETE FROM label_queries WHERE key = ? AND NOT EXISTS (SELECT 1 FROM labels WHERE query_key = key)",
                (key,),
            )

    def of_query(self, key: str) -> dict[str, int]:
        """What was said for a query, by row id."""
        if not self._there():
            return {}
        return dict(self._ledger.read("SELECT item, value FROM labels WHERE query_key = ?", (key,)))

    def __iter__(self) -> Iterator[Label]:
        """All labels, query by query."""
        after = ("", "")
        while self._there():
            rows = self._ledger.read(
                "SELECT query_key, query, item, path, kind, page, start_s, end_s, value, time_s FROM labels"
                " JOIN label_queries ON key = query_key WHERE (query_key, item) > (?, ?)"
                " ORDER BY query_key, item LIMIT ?",
                (*after, PAGE),
            )
            for _, query, item, path, kind, page, start_s, end_s, value, time_s in rows:
                yield Label(
                    query=query,
                    item=item,
                    path=os.fsdecode(path),
                    kind=kind,
                    page=page,
                    start_s=start_s,
                    end_s=end_s,
                    value=value,
                    time_s=time_s,
                )
            if len(rows) < PAGE:
                return
            after = (rows[-1][0], rows[-1][2])

    def _there(self) -> bool:
        """Whether the ledger has the tables: one of an older format in a folder that cannot be written has not."""
        return bool(self._ledger.read("SELECT 1 FROM sqlite_master WHERE name = 'labels'"))
