"""One server: how it is talked to, what it says of its models, and what is assumed where it says nothing."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Final

from sightline.errors import ConfigError, RemoteError
from sightline.prep.prompt import RERANK_INSTRUCTION
from sightline.remote.calls import Caller
from sightline.remote.dialects import Kind, dialect
from sightline.remote.parts import ImageFormat, Packer
from sightline.settings import Settings
from sightline.types import ModelCard

VLLM_MAX_PIXELS: Final = 1_310_720
"""What the processor in vLLM makes of a larger picture; sending it at that size spares a second resize."""


class Server:
    """What both models know of their server."""

    def __init__(
        self,
        url: str,
        model: str | None,
        key: str | None,
        kind: Kind,
        image_format: ImageFormat,
        timeout_s: float,
        retries: int,
        min_pixels: int | None,
        max_pixels: int | None,
        fps: float | None,
        max_frames: int | None,
        settings: Settings | None,
    ) -> None:
        self.dialect = dialect(kind)
        if model is None and kind != "sightline":
            raise ConfigError(f"a server of kind {kind} is asked for a model by name: model=…")
        self.kind = kind
        self.caller = Caller(url, key, timeout_s, retries)
        self._model = model
        self._format: ImageFormat = image_format
        self._settings = settings or Settings()
        self._given = {"min_pixels": min_pixels, "max_pixels": max_pixels, "fps": fps, "max_frames": max_frames}
        # a wrong format fails here, not at the first picture
        Packer(settings=self._settings, min_pixels=1, max_pixels=1, fps=1, max_frames=2, image_format=self._format)

    @property
    def name(self) -> str:
        """Name of the model on the server; for a Sightline server known once its card is."""
        return self._model or ""

    def told_card(self, *, embedder: bool) -> ModelCard:
        """The card that a Sightline server gives of its model.

        Raises:
            RemoteError: the server holds no such model, or is no Sightline.
        """
        answer = self.caller.get("/v1/models")
        entries = answer.get("data") if isinstance(answer, dict) else None
        known = {f.name for f in fields(ModelCard)}
        cards: dict[str, ModelCard] = {}
        for entry in entries if isinstance(entries, list) else []:
            card = entry.get("sightline") if isinstance(entry, dict) else None
            if not isinstance(card, dict) or not known <= set(card):
                continue
            found = ModelCard(**{name: card[name] for name in known})
            if (found.dim > 0) == embedder:
                cards[str(entry.get("id"))] = found
        what = "embedder" if embedder else "reranker"
        if not cards:
            raise RemoteError(
                f"{self.caller.url} lists no model that is {what}; for other servers than Sightline say kind="
            )
        if self._model is None:
            self._model = next(iter(cards))
        if self._model not in cards:
            raise RemoteError(f"{self.caller.url} has no {what} {self._model}; it has {', '.join(cards)}")
        return cards[self._model]

    def guessed_card(self, instruction: str, dim: int) -> ModelCard:
        """A card for a server that gives none: the published budgets, and the name in the place of the weights."""
        fingerprint = hashlib.sha256(f"{self.kind}\n{self.name}".encode()).hexdigest()[:16]
        given = {name: value for name, value in self._given.items() if value is not None}
        budgets = {
            "min_pixels": 4096,
            "max_pixels": VLLM_MAX_PIXELS if self.kind == "vllm" else 1_843_200,
            "fps": 1.0,
            "max_frames": 64,
            **given,
        }
        return ModelCard(
            model=self.name,
            revision="",
            fingerprint=fingerprint,
            dim=dim,
            dtype="",
            instruction=instruction,
            template=f"{self.kind}-1",
            min_pixels=int(budgets["min_pixels"]),
            max_pixels=int(budgets["max_pixels"]),
            total_pixels=7_864_320,
            fps=float(budgets["fps"]),
            max_frames=int(budgets["max_frames"]),
            max_length=10_240 if instruction == RERANK_INSTRUCTION else 8192,
        )

    def packer(self, card: ModelCard) -> Packer:
        """Makes parts under the budgets of the model."""
        given = self._given
        return Packer(
            settings=self._settings,
            min_pixels=int(given["min_pixels"] or card.min_pixels),
            max_pixels=int(given["max_pixels"] or card.max_pixels),
            fps=given["fps"] or card.fps,
            max_frames=int(given["max_frames"] or card.max_frames),
            image_format=self._format,
            films=self.kind == "sightline",
            pass_urls=self.kind == "dashscope",
        )
