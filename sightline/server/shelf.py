"""The libraries that the server offers: opened when they are asked for, kept open, each one object for all requests.

``default`` is the library of the settings (``--library``). Others are made over HTTP and belong to the server::

    <data folder>/libraries/ID/index.sightline    the index
                              /files              what was uploaded (for ``default`` too)

A library is open twice: once to search, with the model's lane for requests, and once to write, with the lane for work
that may wait. Both read the same folder; only one of them ever writes rows, so that the writer lock is never contested
inside the server.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sightline.errors import IndexMismatchError, StoreError
from sightline.library import Library, card_of, is_index
from sightline.protocols import EmbeddingModel, RerankingModel
from sightline.search import identity
from sightline.server.faults import Fault
from sightline.settings import Settings, data_folder, library_folder
from sightline.store.ledger import read_stamp

DEFAULT: Final = "default"
ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Names of libraries: no dots, slashes or capitals, so that a name is one folder on every file system."""
MOST_LIBRARIES: Final = 256
INDEX_NAME: Final = "index.sightline"
FILES_NAME: Final = "files"


@dataclass(frozen=True, slots=True)
class Models:
    """The models that every library of the server is used with: the same weights in two lanes."""

    embedder: EmbeddingModel
    bulk: EmbeddingModel
    reranker: RerankingModel | None


class Shelf:
    """All libraries of one server. Any thread may call.

    Args:
        settings: of the server.
        models: every library is searched and written with these; an index of another model cannot be used.
        data: the folder of libraries that the server makes; None takes the user's data folder.
    """

    def __init__(self, settings: Settings, models: Models, data: Path | None = None) -> None:
        self._settings = settings
        self._models = models
        self._made = (data if data is not None else data_folder()) / "libraries"
        self._default = library_folder(settings)
        self._searching: dict[str, Library] = {}
        self._writing: dict[str, Library] = {}
        self._lock = threading.RLock()
        self._closed = False

    # --- which there are ---

    def ids(self) -> list[str]:
        """Names of all libraries, ``default`` first."""
        try:
            with os.scandir(self._made) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            names = []
        made = [name for name in names if ID.fullmatch(name) and is_index(self._made / name / INDEX_NAME)]
        return [DEFAULT, *sorted(set(made) - {DEFAULT})]

    def check(self, id: str) -> str:
        """The name itself.

        Raises:
            Fault: 404, there is no such library.
        """
        known = id == DEFAULT or (ID.fullmatch(id) is not None and is_index(self.index_folder(id)))
        if not known or (self._made / id).is_symlink():
            raise Fault(404, "there is no such library", code="no_library", param="library")
        return id

    def index_folder(self, id: str) -> Path:
        """Where the index of a library is."""
        return self._default if id == DEFAULT else self._made / id / INDEX_NAME

    def files_folder(self, id: str) -> Path:
        """Where the uploads of a library are kept; there is no such folder before the first."""
        return self._made / id / FILES_NAME

    def usable(self, id: str) -> str:
        """Why a library cannot be searched, or ""."""
        folder = self.index_folder(id)
        try:
            card = card_of(folder)
            if card is not None:
                identity.check_card(card, identity.for_index(self._models.embedder, card).card, "")
        except IndexMismatchError:
            return f"it was built with another model, {card.model if card else 'unknown'}"
        except StoreError:
            return "its index cannot be read"
        return ""

    # --- opening ---

    def open(self, id: str) -> Library:
        """The library, to search and to look at.

        Raises:
            Fault: 404, there is no such library; 409, it was built with another model.
            StoreError: it cannot be opened.
        """
        models = self._models
        return self._opened(id, self._searching, models.embedder, models.reranker)

    def writer(self, id: str) -> Library:
        """The same library, to add and remove; its model's lane may wait. Raises as ``open``."""
        return self._opened(id, self._writing, self._models.bulk, None)

    def _opened(
        self, id: str, opened: dict[str, Library], embedder: EmbeddingModel, reranker: RerankingModel | None
    ) -> Library:
        found = opened.get(id)
        if found is not None:
            return found
        self.check(id)
        with self._lock:
            if self._closed:
                raise Fault(503, retry_s=5)
            if id not in opened:
                folder = self.index_folder(id)
                settings = self._settings_of(folder)
                try:
                    opened[id] = Library.open(folder, embedder=embedder, reranker=reranker, settings=settings)
                except IndexMismatchError:
                    raise Fault(409, f"the library cannot be used: {self.usable(id)}", code="other_model") from None
            return opened[id]

    def _settings_of(self, folder: Path) -> Settings:
        """The server's limits, with the sizes that the index was built with."""
        built = (read_stamp(folder) or {}).get("settings") or {}
        return self._settings.replace(**{name: built[name] for name in identity.UNIT_SETTINGS if name in built})

    # --- making and deleting ---

    def create(self, id: str) -> None:
        """Make an empty library.

        Raises:
            Fault: 400, a bad name; 409, there is one of that name, or there are too many.
        """
        if not ID.fullmatch(id):
            raise Fault(400, "an id is 1 to 63 small letters, digits and dashes", code="bad_id", param="id")
        with self._lock:
            if id in self.ids() or (self._made / id).is_symlink():
                raise Fault(409, "there is a library of that name", code="exists", param="id")
            if len(self.ids()) > MOST_LIBRARIES:
                raise Fault(409, f"the server keeps at most {MOST_LIBRARIES} libraries", code="too_many")
            try:
                self.index_folder(id).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"a library cannot be made: {error.strerror}") from error
            Library.open(
                self.index_folder(id),
                embedder=self._models.bulk,
                reranker=self._models.reranker,
                settings=self._settings,
            ).close()

    def delete(self, id: str, before: Callable[[], None] = lambda: None) -> None:
        """Delete a library that the server made, with its uploads. What was indexed by path stays where it is.

        Args:
            id: its name.
            before: called when it is certain that it may go.

        Raises:
            Fault: 404, there is no such library; 409 for ``default``, which is not the server's to delete.
        """
        self.check(id)
        if id == DEFAULT:
            raise Fault(409, "the default library is the owner's; the server does not delete it", code="default")
        before()
        with self._lock:
            for opened in (self._searching, self._writing):
                library = opened.pop(id, None)
                if library is not None:
                    library.close()
            place = self._made / id
            gone = self._made / f".deleted-{id}-{os.getpid()}-{threading.get_ident()}"
            try:
                place.rename(gone)  # at once gone for everyone, however long the rest takes
            except OSError as error:
                raise StoreError(f"the library cannot be deleted: {error.strerror}") from error
            shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Let go of every library."""
        with self._lock:
            self._closed = True
            for opened in (self._searching, self._writing):
                for library in opened.values():
                    library.close()
                opened.clear()
