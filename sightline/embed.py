"""Items to unit vectors.

>>> import sightline as sl
>>> embedder = sl.Embedder.load("builtin")
>>> vectors = embedder.embed(["a red circle", sl.Item(text="two blue squares")])
>>> vectors.shape == (2, embedder.card.dim)
True
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sightline import builtin
from sightline.engine.features import FeatureCache
from sightline.engine.feed import ahead, shown
from sightline.engine.loading import Loaded, card, keep_features, load
from sightline.engine.queue import Queue, SharedEngine
from sightline.engine.runner import Engine, State, is_vector
from sightline.engine.turns import Lane
from sightline.errors import InputError, ItemError, SightlineError
from sightline.media.reader import Reader
from sightline.model.weights import Source, find
from sightline.prep.prepare import Budgets, Prepared, Preparer
from sightline.prep.prompt import EMBED_INSTRUCTION
from sightline.protocols import ItemLike
from sightline.settings import ON_DEVICE, Settings
from sightline.types import Item, ModelCard, Precision
from sightline.vectors import convert, shorten, unit

if TYPE_CHECKING:
    import torch


class Embedder:
    """An embedding model. Made by ``Embedder.load``."""

    def __init__(self, loaded: Loaded, settings: Settings, *, is_adjustable: bool = False) -> None:
        keep_features(loaded, settings)
        self._is_adjustable = is_adjustable
        self._preparer = Preparer(
            loaded.tokenizer, Reader(settings), loaded.budgets, resizes=settings.resize != ON_DEVICE
        )
        # an embedder seldom sees a picture twice: it keeps features only for a reranker that shares its vision tower
        self._engine = Engine(loaded.network, cache_bytes=0)
        self._through: Engine | SharedEngine = self._engine
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
        quality: str | None = None,
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
            quality: ``fast``, ``balanced`` or ``full``: 256, 768 or 1,800 tokens for a picture at most, and as much
                less for a video; None leaves the budgets above as they are. An index of ``Library`` brings its own
                quality where neither this nor a budget is given.
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
        is_adjustable = not quality and budgets == Budgets(max_length=max_length)
        if quality:
            budgets = budgets.at(quality)
        source = Source("builtin", "", builtin.path("embedder")) if model == "builtin" else find(model, revision)
        loaded = load(source, budgets, device=device, dtype=dtype)
        return cls(loaded, settings or Settings(), is_adjustable=is_adjustable)

    def shared(self, queue: Queue, lane: Lane = "query") -> Embedder:
        """The same model, run by a queue that takes its turns among many callers; any thread may call it.

        Args:
            queue: runs the model. What is not shared through it may then no longer be called.
            lane: ``query`` when somebody waits for the vectors, ``bulk`` when they may come later.
        """
        view = copy(self)
        view._through = SharedEngine(queue, self._engine, lane)
        return view

    def at(self, quality: str) -> Embedder:
        """The same weights at a quality, as ``load`` takes it.

        Raises:
            ConfigError: no such quality.
        """
        view = copy(self)
        view._is_adjustable = False
        view._preparer = self._preparer.at(quality)
        budgets = view._preparer.budgets
        view._card = replace(self._card, max_pixels=budgets.max_pixels, total_pixels=budgets.total_pixels)
        return view

    @property
    def is_adjustable(self) -> bool:
        """Whether neither a quality nor a budget was asked for, so that an index may bring its own."""
        return self._is_adjustable

    @property
    def card(self) -> ModelCard:
        """What decides the vectors."""
        return self._card

    @property
    def cache(self) -> FeatureCache:
        """The vision features it remembers, shared with models of the same vision tower."""
        return self._engine.features

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
            a vector (E,), or the error of that item alone: ``nan`` where the model gives no direction even in float32.
        """
        convert(
            shorten(np.ones((1, self.card.dim), np.float32), dim), precision
        )  # a wrong option fails before the work
        for position, state in enumerate(self._states(items, instruction)):
            if isinstance(state, SightlineError):
                yield ItemError.of(position, state)
                continue
            whole = unit(state)
            cut = whole if whole is None or dim in (None, len(whole)) else unit(whole[:dim])
            yield ItemError(position, "nan") if cut is None else convert(cut, precision)

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
            if not is_vector(state):
                raise ItemError(position, "nan")
            rows.append(state)
        return np.stack(rows) if rows else np.zeros((0, self.card.dim), np.float32)

    def _states(self, items: Iterable[ItemLike], instruction: str | None) -> Iterator[State | SightlineError]:
        def prepare(value: ItemLike) -> Prepared:
            with self._through.preparing():
                return self._preparer.embedding(Item.of(value), instruction=instruction)

        return self._through.stream(ahead(prepare, items))
