"""Sightline finds things in text, images, screenshots, PDF pages and videos, with the Qwen3-VL embedders and rerankers.

>>> import sightline as sl
>>> sl.Item(text="a red bicycle", image="bike.jpg").text
'a red bicycle'

Importing this package loads neither torch nor lancedb: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Embedder": "sightline.embed",
    "Reranker": "sightline.rerank",
    "Library": "sightline.library",
    "Item": "sightline.types",
    "Hit": "sightline.types",
    "VideoFrames": "sightline.types",
    "ModelCard": "sightline.types",
    "AddReport": "sightline.types",
    "Skipped": "sightline.types",
    "Settings": "sightline.settings",
    "SightlineError": "sightline.errors",
    "InputError": "sightline.errors",
    "ItemError": "sightline.errors",
    "MediaError": "sightline.errors",
    "PromptError": "sightline.errors",
    "ConfigError": "sightline.errors",
    "WeightsError": "sightline.errors",
    "CapacityError": "sightline.errors",
    "StoreError": "sightline.errors",
    "IndexMismatchError": "sightline.errors",
    "IndexLockedError": "sightline.errors",
    "RemoteError": "sightline.errors",
    "MissingExtraError": "sightline.errors",
}

__all__ = [
    "__version__",
    "Embedder",
    "Reranker",
    "Library",
    "Item",
    "Hit",
    "VideoFrames",
    "ModelCard",
    "AddReport",
    "Skipped",
    "Settings",
    "SightlineError",
    "InputError",
    "ItemError",
    "MediaError",
    "PromptError",
    "ConfigError",
    "WeightsError",
    "CapacityError",
    "StoreError",
    "IndexMismatchError",
    "IndexLockedError",
    "RemoteError",
    "MissingExtraError",
]

if TYPE_CHECKING:
    from sightline.embed import Embedder as Embedder
    from sightline.errors import (
        CapacityError as CapacityError,
        ConfigError as ConfigError,
        IndexLockedError as IndexLockedError,
        IndexMismatchError as IndexMismatchError,
        InputError as InputError,
        ItemError as ItemError,
        MediaError as MediaError,
        MissingExtraError as MissingExtraError,
        PromptError as PromptError,
        RemoteError as RemoteError,
        SightlineError as SightlineError,
        StoreError as StoreError,
        WeightsError as WeightsError,
    )
    from sightline.library import Library as Library
    from sightline.rerank import Reranker as Reranker
    from sightline.settings import Settings as Settings
    from sightline.types import (
        AddReport as AddReport,
        Hit as Hit,
        Item as Item,
        ModelCard as ModelCard,
        Skipped as Skipped,
        VideoFrames as VideoFrames,
    )


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sightline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
