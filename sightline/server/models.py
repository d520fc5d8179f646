"""The models of a server: loaded once, run by one queue, held by lane.

``query`` is what somebody waits for, ``bulk`` is indexing; both are the same weights.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sightline.settings import Settings

if TYPE_CHECKING:  # torch is loaded by those who load models
    from sightline.embed import Embedder
    from sightline.engine.features import FeatureCache
    from sightline.engine.queue import Queue
    from sightline.rerank import Reranker

logger = logging.getLogger(__name__)

NO_RERANKER: Final = "none"
SWITCH_S: Final = 0.0005
"""Seconds a thread may keep Python to itself while others want it (5 ms unless told). The thread of the models needs
Python for some microseconds between two operations of the network, and would wait so long for each behind a request
that is being read."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedModels:
    """What ``open_models`` gives.

    Attributes:
        embedder: for requests.
        bulk: the same model for indexing.
        reranker: for requests; None where the settings say ``none``.
        queue: runs them all.
    """

    embedder: Embedder
    bulk: Embedder
    reranker: Reranker | None
    queue: Queue

    @property
    def caches(self) -> dict[str, FeatureCache]:
        """Vision features that are remembered, by model; models that share a vision tower share them."""
        found = {"embedder": self.embedder.cache}
        if self.reranker is not None and self.reranker.cache is not self.embedder.cache:
            found["reranker"] = self.reranker.cache
        return found

    def close(self) -> None:
        """Finish the pass that runs and take no more."""
        self.queue.close()


def open_models(settings: Settings, *, revision: str | None = None) -> ServedModels:
    """The models that the settings name, on the device they name, ready to answer.

    Args:
        settings: ``model``, ``reranker``, ``device``, ``dtype`` and the limits of media.
        revision: commit of the embedder's Hub repository; None takes the one this version was tested with.

    Raises:
        WeightsError: no such checkpoint.
        ConfigError: no such device or dtype.
    """
    from sightline.embed import Embedder
    from sightline.engine.queue import Queue
    from sightline.rerank import Reranker

    device, dtype = settings.device or None, settings.dtype or None
    how: dict[str, Any] = {"device": device, "dtype": dtype, "quality": settings.quality or None, "settings": settings}
    embedder = Embedder.load(settings.model, revision=revision, **how)
    reranker = None
    if settings.reranker != NO_RERANKER:
        reranker = Reranker.load(settings.reranker, **how)
    sys.setswitchinterval(SWITCH_S)
    queue = Queue()
    models = ServedModels(
        embedder=embedder.shared(queue, "query"),
        bulk=embedder.shared(queue, "bulk"),
        reranker=None if reranker is None else reranker.shared(queue, "query"),
        queue=queue,
    )
    try:
        warm_up(models)
    except BaseException:  # whatever it was, the queue's thread is ended and the error goes on
        models.close()
        raise
    # what is there now stays: looking through all of it for garbage stops every thread for half a second
    gc.collect()
    gc.freeze()
    return models


def warm_up(models: ServedModels) -> None:
    """Answer something small, so that the first caller does not wait for buffers, kernels and the head."""
    start = time.perf_counter()
    models.embedder.embed(["warm"])
    if models.reranker is not None:
        models.reranker.score("warm", ["up"])
    logger.info("the models are warm after %.1f s", time.perf_counter() - start)
