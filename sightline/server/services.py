"""What the routes work with: models, libraries, jobs, the desk. Made once a process; tests make it with toys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sightline.protocols import EmbeddingModel, RerankingModel
from sightline.server.attachments import Attachments
from sightline.server.desk import Desk
from sightline.server.jobs import Jobs
from sightline.server.metrics import Metrics
from sightline.server.models import open_models
from sightline.server.shelf import Models, Shelf
from sightline.settings import Settings

if TYPE_CHECKING:  # torch is loaded by those who load models
    from sightline.engine.queue import Queue


@dataclass(slots=True, eq=False)
class Services:
    """Made by ``Services.open``, or ``Services.of`` around models that are there; closed with the application.

    Attributes:
        settings: of the server (``serve_*``) and of media.
        embedder: for requests.
        bulk: the same model for work that may wait, such as indexing.
        reranker: for requests; None where there is none.
        desk: runs what blocks.
        metrics: what is counted.
        libraries: those that are searched and written.
        jobs: what is indexed in the background.
        attachments: decodes the pictures and videos of requests.
        queue: runs the models; None where they run elsewhere or are toys.
    """

    settings: Settings
    embedder: EmbeddingModel
    bulk: EmbeddingModel
    reranker: RerankingModel | None
    desk: Desk
    libraries: Shelf
    jobs: Jobs
    attachments: Attachments
    metrics: Metrics = field(default_factory=Metrics)
    queue: Queue | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        embedder: EmbeddingModel,
        reranker: RerankingModel | None = None,
        *,
        bulk: EmbeddingModel | None = None,
    ) -> Services:
        """Services around models that are loaded."""
        desk = Desk(settings.serve_queue, settings.serve_timeout_s, settings.serve_stop_s)
        shelf = Shelf(settings, Models(embedder, bulk or embedder, reranker))
        jobs = Jobs(shelf, settings.serve_stop_s)
        services = cls(settings, embedder, bulk or embedder, reranker, desk, shelf, jobs, Attachments(settings))
        services.metrics.watch_requests(lambda: desk.num_taken)
        return services

    @classmethod
    def open(cls, settings: Settings, *, revision: str | None = None) -> Services:
        """Services around the models that the settings name, loaded and warm; ``revision`` is the embedder's.

        Raises:
            WeightsError: no such checkpoint.
            ConfigError: no such device or dtype.
        """
        models = open_models(settings, revision=revision)
        services = cls.of(settings, models.embedder, models.reranker, bulk=models.bulk)
        services.queue = models.queue
        services.metrics.watch_engine(models.queue, models.caches)
        return services

    def close(self) -> None:
        """Stop the work and let go of files and processes."""
        self.desk.close()
        self.attachments.close()
        self.jobs.close()
        self.libraries.close()
        if self.queue is not None:
            self.queue.close()
