"""What an index was built with, kept in its ledger, and what happens when it meets something else.

Vectors of two models, or of one model with two budgets, cannot be compared; units cut in two ways cannot be told
apart. So an index remembers the model's card and the settings that shape units, and refuses another.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from sightline.errors import IndexMismatchError, StoreError
from sightline.settings import Settings, env_name
from sightline.types import ModelCard

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
"""Fields of a card that decide a vector. The name does not: one model may be loaded from a folder or the Hub."""

UNIT_SETTINGS: Final = (
    "text_passage_tokens",
    "pdf_page_pixels",
    "moment_s",
    "moment_step_s",
    "video_fps",
    "video_max_frames",
)
"""Settings that decide what the units of a file are."""


def card_of(meta: Mapping[str, Any]) -> ModelCard:
    """The card of the model that the index was built with.

    Raises:
        StoreError: the index does not say it in a way this version understands.
    """
    known = {f.name for f in fields(ModelCard)}
    card = meta.get("embedder")
    if not isinstance(card, dict) or set(card) != known:
        raise StoreError("the index does not say which model it was built with; build it anew with --rebuild")
    return ModelCard(**card)


def check_card(built: ModelCard, running: ModelCard, folder: str) -> None:
    """Nothing, if vectors of the two can stand in one index.

    Raises:
        IndexMismatchError: they cannot; says what differs and which command helps.
    """
    differing = [name for name in DECISIVE if getattr(built, name) != getattr(running, name)]
    if not differing:
        return
    place = shlex.quote(folder)
    rebuild = f"sightline index --rebuild --library {place} --model {shlex.quote(running.model)} FOLDER…"
    if "fingerprint" in differing or "dim" in differing:
        what = f"index built with {_named(built)}, you run {_named(running)}"
        keep = f"use --model {shlex.quote(built.model)}"
    else:
        what = ", ".join(
            f"index built with {name} {getattr(built, name)!r}, you run {getattr(running, name)!r}"
            for name in differing
        )
        keep = f"load the model with {', '.join(f'{name}={getattr(built, name)!r}' for name in differing)}"
    raise IndexMismatchError(f"{what} ({folder}); {keep}, or build it anew: {rebuild}")


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


def _named(card: ModelCard) -> str:
    revision = f"@{card.revision[:12]}" if card.revision else ""
    return f"{card.model}{revision} (fingerprint {card.fingerprint}, {card.dim} numbers)"
