"""What one storey asks of another without knowing it.

``search`` and ``library`` see models only through ``EmbeddingModel`` and ``RerankingModel``; ``prep`` sees
decoders only through ``MediaReader``. Anything that has these methods will do: the toys in
``sightline.testing`` are thirty lines each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ItemError
from sightline.types import ImageSource, Item, ModelCard, Pixels, Precision, VideoFrames, VideoSource

ItemLike = Item | str | Mapping[str, Any]


@runtime_checkable
class EmbeddingModel(Protocol):
    """Turns items into unit vectors."""

    @property
    def card(self) -> ModelCard:
        """What decides the vectors."""
        ...

    def embed(
        self,
        items: Sequence[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
        progress: bool = False,
    ) -> NDArray[Any]:
        """(N, E) unit vectors; raises ``ItemError`` for the first bad item."""
        ...

    def stream(
        self,
        items: Iterable[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
    ) -> Iterator[NDArray[Any] | ItemError]:
        """One result per item, in order: a vector (E,), or the error of that item alone."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens a plain text takes."""
        ...


@runtime_checkable
class AdjustableModel(EmbeddingModel, Protocol):
    """An embedder that can be shown less of a picture than it could be."""

    @property
    def device(self) -> str:
        """Where the model runs, such as ``cpu`` or ``cuda:0``."""
        ...

    @property
    def is_adjustable(self) -> bool:
        """Whether its caller left open how much of a picture it is shown, so that an index may say so."""
        ...

    def at(self, quality: str) -> EmbeddingModel:
        """The same weights at a quality: a name of ``types.QUALITIES``."""
        ...


@runtime_checkable
class RerankingModel(Protocol):
    """Judges how well documents answer a query."""

    @property
    def card(self) -> ModelCard:
        """What decides the scores."""
        ...

    def score(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """(N,) probabilities in [0, 1]; raises ``ItemError`` for the first bad document."""
        ...


class MediaReader(Protocol):
    """Turns sources into pixels. Implemented by ``sightline.media.reader.Reader``."""

    def image(self, source: ImageSource) -> Pixels:
        """(Y, X, 3) uint8 RGB, turned upright, alpha on white."""
        ...

    def video(self, source: VideoSource, *, fps: float, max_frames: int) -> VideoFrames | list[Pixels]:
        """Frames sampled from a video file, or the pictures of a frame list as given (sampled to max_frames)."""
        ...

    def videos(self, source: VideoSource | Sequence[VideoSource] | None) -> tuple[VideoSource, ...]:
        """The ``video`` field of an item as single videos: tells a list of frames from a list of videos."""
        ...

    def resize(self, pixels: Pixels, height: int, width: int) -> Pixels:
        """Bicubic resize with antialiasing, as Pillow does it."""
        ...

    def resize_frame(self, pixels: Pixels, height: int, width: int) -> Pixels:
        """The same for frames of videos, rounded once at the end, as torchvision does it."""
        ...
