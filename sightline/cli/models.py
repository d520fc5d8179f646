"""The one place where commands get models and libraries. Tests put toys here; nothing else in the CLI loads a model.

Which embedder and reranker an index works with is decided by the command that makes it (``--model`` and
``--reranker``, else the settings, else the built-in ones) and remembered by it; later commands take what it remembers.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sightline.cli.machine import REAL_EMBEDDER, look
from sightline.cli.show import note
from sightline.errors import IndexMismatchError, StoreError
from sightline.settings import Settings, data_folder, env_name, library_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sightline.library import Library
    from sightline.protocols import EmbeddingModel, ItemLike, RerankingModel
    from sightline.types import ModelCard

BUILTIN: Final = "builtin"
NO_RERANKER: Final = "none"


def load_embedder(name: str, settings: Settings, *, revision: str | None = None) -> EmbeddingModel:
    """An embedder by name, on the device of the settings."""
    from sightline.embed import Embedder

    return Embedder.load(name, revision=revision, **_how(settings))


def load_reranker(name: str, settings: Settings, *, revision: str | None = None) -> RerankingModel:
    """A reranker by name, on the device of the settings."""
    from sightline.rerank import Reranker

    return Reranker.load(name, revision=revision, **_how(settings))


def _how(settings: Settings) -> dict[str, Any]:
    """Arguments of both ``load`` methods."""
    given = {name: getattr(settings, name) or None for name in ("device", "dtype", "quality")}
    return {**given, "settings": settings}


class NamedReranker:
    """A reranker that is loaded when it is first used: ``index`` remembers its name and needs no more."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._loaded: RerankingModel | None = None

    @property
    def card(self) -> ModelCard:
        """Of the loaded model; before that, one that holds only the name."""
        from sightline.types import ModelCard

        if self._loaded is not None:
            return self._loaded.card
        return ModelCard(
            model=self._name,
            revision="",
            fingerprint="",
            dim=0,
            dtype="",
            instruction="",
            template="",
            min_pixels=0,
            max_pixels=0,
            total_pixels=0,
            fps=0.0,
            max_frames=0,
            max_length=0,
        )

    def score(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """As the model scores."""
        if self._loaded is None:
            self._loaded = load_reranker(self._name, self._settings)
        return self._loaded.score(query, documents, instruction=instruction)


# --- libraries -------------------------------------------------------------------------------------------------------


def settings_of(**options: Any) -> Settings:
    """Settings from the environment with the options of a command on top; None is no choice."""
    return Settings.from_env(**options)


@dataclass(frozen=True, slots=True)
class Kept:
    """What an index that exists remembers."""

    card: ModelCard
    reranker: str
    settings: Settings


def kept_by(folder: Path) -> Kept | None:
    """What the index in a folder remembers, or None where there is none.

    Raises:
        StoreError: it cannot be read.
    """
    from sightline.library import Library, is_index

    if not is_index(folder):
        return None
    with Library.open(folder) as library:
        return Kept(library.model, library.reranker_name or NO_RERANKER, library.settings)


def open_to_look(settings: Settings) -> Library:
    """The index without any model, to count, remove and check.

    Raises:
        StoreError: there is none.
    """
    from sightline.library import Library

    return Library.open(_existing(settings), settings=None)


def open_to_search(settings: Settings, *, model: str | None, reranker: str | None, rerank: int) -> Library:
    """The index with its own models; ``model`` may only repeat what it was built with.

    Args:
        settings: of the command.
        model: an embedder asked for by name.
        reranker: another reranker for this search, or "none".
        rerank: candidates it will see; 0 loads none.
    """
    from sightline.library import Library

    folder = _existing(settings)
    kept = kept_by(folder)
    if kept is None:  # pragma: no cover - gone since it was looked at
        raise StoreError(f"there is no index in {folder}")
    refuse_another(kept.card, model, folder)
    settings = joined(settings, kept)
    embedder = load_embedder(model or kept.card.model, settings, revision=kept.card.revision or None)
    second = reranker or kept.reranker
    judge = load_reranker(second, settings) if rerank and second != NO_RERANKER else None
    return Library.open(folder, embedder=embedder, reranker=judge, settings=settings)


def open_to_index(
    settings: Settings, *, model: str | None, reranker: str | None, revision: str | None, rebuild: bool
) -> Library:
    """The index to add to, made where there is none.

    A new index takes ``model`` and ``reranker``, else those of the settings; an index that exists keeps its own.
    """
    from sightline.library import Library

    folder = library_folder(settings)
    kept = None if rebuild else kept_by(folder)
    if kept is None:
        name = model or settings.model
        second = reranker or settings.reranker
        if name == BUILTIN:
            note(builtin_note())
        embedder = load_embedder(name, settings, revision=revision)
        judge = None if second == NO_RERANKER else NamedReranker(second, settings)
        # a library of the same model keeps its place: --rebuild empties it, and makes it anew with these settings
        return Library.open(folder, embedder=embedder, reranker=judge, settings=settings, rebuild=rebuild)
    refuse_another(kept.card, model, folder)
    if reranker and reranker != kept.reranker:
        note(f"the index keeps its reranker, {kept.reranker}; for one search take: search --reranker {reranker}")
    settings = joined(settings, kept)
    embedder = load_embedder(model or kept.card.model, settings, revision=revision or kept.card.revision or None)
    return Library.open(folder, embedder=embedder, settings=settings)


def refuse_another(card: ModelCard, model: str | None, folder: Path) -> None:
    """Nothing, unless another model is asked for by a name that settles it: then before gigabytes are fetched.

    Two other names may stand for the same weights (a Hub id, a folder); those are loaded and compared.

    Raises:
        IndexMismatchError: the index or the command wants ``builtin`` and the other does not.
    """
    if model is None or model == card.model or BUILTIN not in (model, card.model):
        return
    place = shlex.quote(os.fspath(folder))
    raise IndexMismatchError(
        f"index built with {card.model}, you run {model} ({folder}); leave --model out, or build it anew: "
        f"sightline index --rebuild --library {place} --model {shlex.quote(model)} FOLDER…"
    )


def joined(settings: Settings, kept: Kept) -> Settings:
    """The settings, with what the index was built with wherever the environment does not say otherwise."""
    from sightline.search.identity import UNIT_SETTINGS, quality_of

    names = [name for name in UNIT_SETTINGS if env_name(name) not in os.environ]
    quality = settings.quality or quality_of(kept.card)
    return settings.replace(quality=quality, **{name: getattr(kept.settings, name) for name in names})


def _existing(settings: Settings) -> Path:
    from sightline.library import is_index

    folder = library_folder(settings)
    if not is_index(folder):
        place = f" --library {shlex.quote(os.fspath(folder))}" if settings.library else ""
        raise StoreError(f"there is no index in {folder}; make one: sightline index{place} FOLDER…")
    return folder


def builtin_note() -> str:
    """What the built-in model is good for, which word gives the real one, and whether this machine can carry that."""
    verdict = look().verdict(REAL_EMBEDDER.size_gb)
    return (
        "using the small built-in model, good for trying out, documents and simple pictures; for the real one add "
        f"--model {REAL_EMBEDDER.name} ({REAL_EMBEDDER.size_gb} GB; can this machine carry it? {verdict})"
    )


def note_builtin_once() -> None:
    """Say ``builtin_note`` to a user whose commands without an index have not said it yet."""
    mark = data_folder() / "builtin-noted"
    if mark.exists():
        return
    note(builtin_note())
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return  # said again next time; no reason to fail
