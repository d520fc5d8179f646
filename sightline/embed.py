"""Items to unit vectors.

>>> import sightline as sl
>>> embedder = sl.Embedder.load("builtin")
>>> vectors = embedder.embed(["a red circle", sl.Item(text="two blue squares")])
>>> vectors.shape == (2, embedder.card.dim)
True
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sightline import builtin
from sightline.engine.feed import ahead, shown
from sightline.engine.loading import Loaded, card, load
from sightline.engine.runner import Engine, State
from sightline.errors import InputError, ItemError, SightlineError
from sightline.media.reader import Reader
from sightline.model.weights import Source, find
from sightline.prep.prepare import Budgets, Preparer
from sightline.prep.prompt import EMBED_INSTRUCTION
from sightline.protocols import ItemLike
from sightline.settings import Settings
from sightline.types import Item, ModelCard, Precision
from sightline.vectors import convert, shorten

if TYPE_CHECKING:
    import torch


class Embedder:
    """An embedding model. Made by ``Embedder.load``."""

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        self._preparer = Preparer(loaded.tokenizer, Reader(settings), loaded.budgets)
        # an embedder seldom sees a picture twice: it keeps features only for a reranker that shares its vision tower
        self._engine = Engine(loaded.network, cache_bytes=0)
        self._card = card(loaded, dim=loaded.network.config.text.hidden_size, instruction=EMBED_INSTRUCTION)

    @classmethod
    def load(
        cls,
        model: str = "builtin",
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        max_length: int = 8192,
        min_pixels: int = 4096,
        max_pixels: int = 1_843_200,
        total_pixels: int = 7_864_320,
        fps: float = 1.0,
        max_frames: int = 64,
        settings: Settings | None = None,
    ) -> Embedder:
        """Reads a checkpoint in the published layout.

        Args:
            model: ``builtin``, a folder, a Hub id such as ``Qwen/Qwen3-VL-Embedding-2B``, or ``modelscope:ID``.
            device: torch device; None takes a GPU when there is one.
            dtype: float32, bfloat16 or float16; None takes the best for device and size.
            revision: commit of a Hub repository; None takes the one this version was tested with.
            max_length: tokens of a prompt; over-long text is cut on the right.
            min_pixels, max_pixels: area of an image after resizing.
            total_pixels: area of all frames of a list of frames together.
            fps: frames per second taken from a video file.
            max_frames: most frames of one video.
            settings: limits for media; None takes the defaults.

        Raises:
            WeightsError: no such checkpoint, or one that is incomplete, unsafe or of another model.
            ConfigError: an option out of range.
        """
        budgets = Budgets(
            max_length=max_length,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            total_pixels=total_pixels,
            fps=fps,
            max_frames=max_frames,
        )
        source = Source("builtin", "", builtin.path("embedder")) if model == "builtin" else find(model, revision)
        return cls(load(source, budgets, device=device, dtype=dtype), settings or Settings())

    @property
    def card(self) -> ModelCard:
        """What decides the vectors."""
        return self._card

    @property
    def device(self) -> str:
        """Where the model runs, such as ``cpu`` or ``cuda:0``."""
        return str(self._engine.device)

    def count_tokens(self, text: str) -> int:
        """How many tokens a plain text takes, without the prompt around it."""
        return len(self._preparer.tokenizer.encode(text))

    def embed(
        self,
        items: Sequence[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
        progress: bool = False,
    ) -> NDArray[Any]:
        """Unit vectors of items, in order.

        Args:
            items: ``Item``, str, or dict with the keys of ``Item``; N of them.
            instruction: for items without one of their own, in English; None takes the model's default.
            dim: width, from 64 to E; shorter vectors are cut and set to length 1 again.
            precision: float32, float16, int8 or binary; ``sightline.vectors`` defines each.
            progress: show a bar.

        Returns:
            (N, E) of the precision's type, (N, E / 8) for binary.

        Raises:
            ItemError: the first item that cannot be embedded, with its position.
            InputError: ``items`` is one item instead of a list.
        """
        if isinstance(items, (str, Item, dict)):
            raise InputError("embed takes a list of items; put the one item into a list")
        rows = []
        results = self.stream(items, instruction=instruction, dim=dim, precision=precision)
        for row in shown(results, len(items), "embedding") if progress else results:
            if isinstance(row, ItemError):
                raise row
            rows.append(row)
        if rows:
            return np.stack(rows)
        return convert(np.zeros((0, dim or self.card.dim), np.float32), precision)

    def stream(
        self,
        items: Iterable[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
    ) -> Iterator[NDArray[Any] | ItemError]:
        """One result per item, in order, in bounded memory; arguments as in ``embed``.

        Media are decoded in a thread while the model works.

        Yields:
            a vector (E,), or the error of that item alone.
        """
        convert(
            shorten(np.ones((1, self.card.dim), np.float32), dim), precision
        )  # a wrong option fails before the work
        for position, state in enumerate(self._states(items, instruction)):
            if isinstance(state, SightlineError):
                yield ItemError.of(position, state)
            elif not np.isfinite(state).all() or not state.any():
                yield ItemError(position, "nan")
            else:
                yield convert(shorten(state / np.linalg.norm(state), dim), precision)

    def hidden(self, items: Sequence[ItemLike], *, instruction: str | None = None) -> NDArray[np.float32]:
        """Final hidden states of the pooled tokens before they are set to length 1.

        Returns:
            (N, E) float32.

        Raises:
            ItemError: the first item that cannot be embedded.
        """
        rows = []
        for position, state in enumerate(self._states(items, instruction)):
            if isinstance(state, SightlineError):
                raise ItemError.of(position, state)
            rows.append(state)
        return np.stack(rows) if rows else np.zeros((0, self.card.dim), np.float32)

    def _states(self, items: Iterable[ItemLike], instruction: str | None) -> Iterator[State | SightlineError]:
        prompts = ahead(lambda value: self._preparer.embedding(Item.of(value), instruction=instruction), items)
        return self._engine.stream(prompts)
