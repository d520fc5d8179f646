"""What an index was built with, kept in its ledger, and what happens when it meets something else.

Vectors of two models, or of one model with two budgets, cannot be compared; units cut in two ways cannot be told
apart. So an index remembers the model's card and the settings that shape units, and refuses another.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from sightline.errors import IndexMismatchError, StoreError
from sightline.protocols import AdjustableModel, EmbeddingModel
from sightline.settings import Settings, env_name
from sightline.types import MOMENT_FPS, QUALITIES, TOTAL_PIXELS, ModelCard

FORMAT: Final = 1
"""Of the index as a whole; the ledger counts its own tables (``store.ledger.MIGRATIONS``)."""

DECISIVE: Final = (
    "fingerprint",
    "dim",
    "instruction",
    "template",
    "min_pixels",
    "max_pixels",
    "total_pixels",
    "fps",
    "max_frames",
    "max_length",
)
"""Fields of a card that decide a vector. Name and revision do not: one model may be loaded from a folder or the Hub,
and a commit may change nothing but a page about it. The fingerprint says whether the weights are the same, and their
sha256 where both sides know it."""

ON_CPU: Final = "balanced"
"""Quality of a new index on a CPU, unless another is asked for."""

UNIT_SETTINGS: Final = (
    "text_passage_tokens",
    "pdf_page_pixels",
    "moment_s",
    "moment_step_s",
    "video_fps",
    "video_max_frames",
)
"""Settings that decide what the units of a file are."""


def check_format(meta: Mapping[str, Any], folder: str) -> None:
    """Nothing, if this version can read the index.

    Raises:
        StoreError: a newer Sightline made it.
    """
    have = meta.get("format", FORMAT)
    if not isinstance(have, int) or have > FORMAT:
        raise StoreError(
            f"the index is of format {have}, this Sightline reads formats up to {FORMAT}: "
            f"upgrade it with pip install -U sightline ({folder})"
        )


def card_of(meta: Mapping[str, Any]) -> ModelCard:
    """The card of the model that the index was built with. What a card did not yet say then has its default.

    Raises:
        StoreError: the index does not say it in a way this version understands.
    """
    known = {f.name for f in fields(ModelCard)}
    needed = {f.name for f in fields(ModelCard) if f.default is MISSING and f.default_factory is MISSING}
    card = meta.get("embedder")
    if not isinstance(card, dict) or not needed <= set(card):
        raise StoreError("the index does not say which model it was built with; build it anew with --rebuild")
    if not set(card) <= known:
        raise StoreError(
            "the index says more of its model than this Sightline knows: upgrade it with pip install -U sightline"
        )
    return ModelCard(**card)


def check_card(built: ModelCard, running: ModelCard, folder: str) -> None:
    """Nothing, if vectors of the two can stand in one index.

    Raises:
        IndexMismatchError: they cannot; says what differs and which command helps.
    """
    differing = _differing(built, running)
    if not differing:
        return
    rebuild = f"sightline index --rebuild --library {shlex.quote(folder)} {_options(running)} FOLDER…"
    if {"fingerprint", "dim", "weights"} & {*differing}:
        what = f"index built with {_named(built)}, you run {_named(running)}"
        keep = f"use {_options(built)}"
    else:
        what = ", ".join(
            f"index built with {name} {getattr(built, name)!r}, you run {getattr(running, name)!r}"
            for name in differing
        )
        keep = f"load the model with {', '.join(f'{name}={getattr(built, name)!r}' for name in differing)}"
    raise IndexMismatchError(f"{what} ({folder}); {keep}, or build it anew: {rebuild}")


def _differing(built: ModelCard, running: ModelCard) -> list[str]:
    """Fields of the cards that decide a vector and are not the same."""
    differing = [name for name in DECISIVE if getattr(built, name) != getattr(running, name)]
    if built.weights and running.weights and built.weights != running.weights:
        differing.append("weights")
    return differing


def for_new_index(embedder: EmbeddingModel) -> EmbeddingModel:
    """The embedder at the quality that its device carries, where none was asked for.

    A page of 1,800 tokens takes the published 2B most of a minute on a CPU, and less than half of it at 768.
    """
    if not isinstance(embedder, AdjustableModel) or not embedder.is_adjustable:
        return embedder
    is_slow = embedder.device.startswith("cpu") and embedder.card.max_pixels > QUALITIES[ON_CPU]
    return embedder.at(ON_CPU) if is_slow else embedder


def for_index(embedder: EmbeddingModel, built: ModelCard) -> EmbeddingModel:
    """The embedder at the quality of an index, where none was asked for and that is all they differ in."""
    quality = quality_of(built)
    if quality and isinstance(embedder, AdjustableModel) and embedder.is_adjustable:
        adjusted = embedder.at(quality)
        if _differing(built, embedder.card) and not _differing(built, adjusted.card):
            return adjusted
    return embedder


def quality_of(card: ModelCard) -> str:
    """The name of the quality that has the card's budgets; "" where none has.

    The budget of a video tells: a quality scales it for every model, while pictures are never lifted over what a model
    takes at most, and the built-in one takes no more at "full" than others at "fast".
    """
    return next(
        (
            name
            for name, pixels in QUALITIES.items()
            if card.total_pixels == TOTAL_PIXELS * pixels // QUALITIES["full"] and card.max_pixels <= pixels
        ),
        "",
    )


def settings_at(settings: Settings, card: ModelCard) -> Settings:
    """The settings at the quality of a model: ``fast`` takes fewer frames of a moment."""
    most = MOMENT_FPS.get(quality_of(card), settings.video_fps)
    return settings.replace(video_fps=min(settings.video_fps, most))


def settings_for(settings: Settings | None, meta: Mapping[str, Any], card: ModelCard) -> Settings:
    """The settings to open an index with: those given, or None for the default with those of the index.

    An index whose moments have the frames of its quality is opened with them; ``check_settings`` compares the rest.
    """
    remembered = remembered_settings(meta)
    if settings is None:
        return remembered
    adjusted = settings_at(settings, card)
    return adjusted if adjusted.video_fps == remembered.video_fps else settings


def check_settings(meta: Mapping[str, Any], settings: Settings, folder: str) -> None:
    """Nothing, if new files would be cut into units as those in the index were.

    Raises:
        IndexMismatchError: they would not.
    """
    built = meta.get("settings") or {}
    for name in UNIT_SETTINGS:
        if name in built and built[name] != getattr(settings, name):
            raise IndexMismatchError(
                f"index built with {name} {built[name]}, you run {getattr(settings, name)} ({folder}); "
                f"set {env_name(name)}={built[name]}, or build it anew: "
                f"sightline index --rebuild --library {shlex.quote(folder)} FOLDER…"
            )


def remembered_settings(meta: Mapping[str, Any]) -> Settings:
    """The default settings with those of the index."""
    built = meta.get("settings") or {}
    return Settings(**{name: built[name] for name in UNIT_SETTINGS if name in built})


def _options(card: ModelCard) -> str:
    """The options of a command that load this model."""
    revision = f" --revision {shlex.quote(card.revision)}" if card.revision else ""
    return f"--model {shlex.quote(card.model)}{revision}"


def _named(card: ModelCard) -> str:
    revision = f"@{card.revision[:12]}" if card.revision else ""
    weights = f", weights {card.weights[:12]}" if card.weights else ""
    return f"{card.model}{revision} (fingerprint {card.fingerprint}{weights}, {card.dim} numbers)"
