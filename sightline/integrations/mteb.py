"""mteb: any embedding or reranking model as an encoder or cross-encoder for ``mteb.evaluate``.

Text, images, and both fused in one vector. The instruction of a task is given as mteb's own entry for the published
models gives it: the task's prompt for queries and documents alike, else the default, with a full stop at its end.

::

    import mteb
    from sightline.integrations.mteb import CrossEncoder, Encoder

    mteb.evaluate(Encoder(embedder), tasks)
    mteb.evaluate(CrossEncoder(reranker), reranking_tasks)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sightline.errors import InputError, ItemError, MissingExtraError
from sightline.prep.prompt import EMBED_INSTRUCTION, punctuated
from sightline.protocols import EmbeddingModel, RerankingModel
from sightline.types import Item, ModelCard

try:
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ScoringFunction
except ImportError:
    raise MissingExtraError("mteb", "eval") from None

RERANK_DEFAULT: Final = "Retrieve images or text relevant to the user's query."
"""What mteb's entry for the published rerankers says for a task without a prompt."""


class Encoder(AbsEncoder):  # type: ignore[misc]
    """Any embedding model as an mteb encoder.

    Args:
        model: local or remote.
        name: as results are filed, ``organisation/name``; None makes one of the model's card.
        use_instructions: give the task's prompt; otherwise the model's default stands everywhere.
    """

    def __init__(self, model: EmbeddingModel, name: str | None = None, *, use_instructions: bool = True) -> None:
        card = model.card
        self.model = model
        self.use_instructions = use_instructions
        self.mteb_model_meta = _meta(
            card, name, embed_dim=card.dim, similarity_fn_name=ScoringFunction.COSINE, model_type=["dense"]
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Vectors of everything a data loader gives, (N, E). Batching is the model's own business.

        Raises:
            ItemError: the first item that cannot be embedded.
        """
        instruction = self.get_task_instruction(task_metadata, prompt_type) if self.use_instructions else None
        rows = []
        for row in self.model.stream(_items(inputs), instruction=instruction):
            if isinstance(row, ItemError):
                raise row
            rows.append(row)
        return np.stack(rows) if rows else np.zeros((0, self.model.card.dim), np.float32)

    def get_task_instruction(self, task_metadata: Any, prompt_type: Any) -> str:
        """The instruction of a task for queries or documents."""
        prompt = task_metadata.prompt
        if isinstance(prompt, dict) and prompt_type is not None and not prompt.get(prompt_type.value):
            return EMBED_INSTRUCTION
        return punctuated(super().get_task_instruction(task_metadata, prompt_type) or EMBED_INSTRUCTION)


class CrossEncoder:
    """Any reranking model as an mteb cross-encoder; arguments as of ``Encoder``."""

    def __init__(self, model: RerankingModel, name: str | None = None, *, use_instructions: bool = True) -> None:
        self.model = model
        self.use_instructions = use_instructions
        self.mteb_model_meta = _meta(model.card, name, model_type=["cross-encoder"])

    def predict(
        self,
        inputs1: Any,
        inputs2: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Probability that each document meets the query beside it, (N,).

        Neighbouring pairs of one query are scored together, so that the query is computed once.
        """
        instruction = self._instruction(task_metadata) if self.use_instructions else None
        scores: list[NDArray[np.float32]] = []
        pairs = zip(_items(inputs1), _items(inputs2), strict=True)
        for _, run in groupby(pairs, key=lambda pair: _key(pair[0])):
            same = list(run)
            scores.append(self.model.score(same[0][0], [document for _, document in same], instruction=instruction))
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)

    def _instruction(self, task_metadata: Any) -> str:
        prompt = task_metadata.prompt
        if isinstance(prompt, dict):
            prompt = prompt.get("query") or next(iter(prompt.values()), None)
        return punctuated(prompt or "") or RERANK_DEFAULT


def _meta(card: ModelCard, name: str | None, **known: Any) -> Any:
    plain = card.model.strip("/.").replace("/", "__") if card.model.count("/") != 1 else card.model
    values = {
        "name": name or (plain if "/" in plain else f"sightline/{plain}"),
        "revision": card.revision or card.fingerprint,
        "modalities": ["text", "image"],
        "max_tokens": card.max_length,
        "use_instructions": True,
        "framework": ["PyTorch"],
        **known,
    }
    return ModelMeta.create_empty(overwrites=values)


def _items(loader: Any) -> Iterator[Item]:
    """One item for each row that a data loader gives."""
    for batch in loader:
        if "video" in batch or "audio" in batch:
            raise InputError("videos and sound are not evaluated through mteb: text and images are")
        texts, images = batch.get("text"), batch.get("image")
        if texts is None and images is None:
            raise InputError("a batch of mteb holds neither text nor image")
        count = len(texts if texts is not None else images)
        for place in range(count):
            yield Item(
                text=(texts[place] or None) if texts is not None else None,
                image=images[place] if images is not None else None,
            )


def _key(item: Item) -> tuple[Any, ...]:
    """Equal for equal queries: pictures are compared by their bytes."""
    return (item.texts, tuple((getattr(one, "size", None), _bytes(one)) for one in item.images))


def _bytes(image: Any) -> Any:
    return image.tobytes() if hasattr(image, "tobytes") else image
