"""What the server counts, for Prometheus: ``/metrics`` (health.py) prints it, ``Counting`` and the routes feed it.

Labels are of small fixed sets (templates of paths, codes, stages), never what a caller wrote.

The models' queue is looked at when the numbers are asked for, through ``Watched``; where there is none
(toys, models elsewhere) those numbers are absent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sightline.server.faults import CODE_KEY

if TYPE_CHECKING:  # both load torch, which a server around models elsewhere does without
    from sightline.engine.features import FeatureCache
    from sightline.engine.queue import Counts

Stage: TypeAlias = Literal["decode", "embed", "recall", "rerank"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Upper bounds of the latency histograms, to the default of ``serve_timeout_s``."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are counted as one: a caller may invent methods."""


class Watched(Protocol):
    """The models' queue (``engine.queue.Queue``), as far as it can be looked at."""

    @property
    def alive(self) -> bool:
        """Whether it takes work."""
        ...

    @property
    def running(self) -> bool:
        """Whether it works now: false also while its thread is about to start again."""
        ...

    def counts(self) -> Counts:
        """A snapshot; ``LaneCounts`` says what each number means."""
        ...


WAITING: Final = (
    ("waiting_prompts", "Prompts that have not run."),
    ("waiting_tokens", "Tokens that have not run."),
)
DONE: Final = (
    ("passes", "Batches run."),
    ("prompts", "Prompts run."),
    ("tokens", "Tokens run; the rate of it is tokens a second."),
    ("callers", "Sum over batches of the callers that shared them."),
    ("cost", "Sum over batches of the tokens that they held, as they are budgeted."),
    ("budget", "Sum over batches of the tokens that they could have held; cost over this is how full they were."),
    ("busy_s", "Seconds in which the device worked."),
    ("dropped", "Prompts whose caller went away before they ran."),
)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._engine: Watched | None = None
        self._requests = Counter(
            "sightline_requests_total", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._latency = Histogram(
            "sightline_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["method", "route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "sightline_stage_seconds",
            "Seconds in one stage of a request: decode, embed, recall, rerank.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._errors = Counter("sightline_errors_total", "Errors answered, by code.", ["code"], registry=self.registry)
        self._items = Counter(
            "sightline_items_total", "Items embedded or scored for requests.", ["task"], registry=self.registry
        )

    def watch_requests(self, number: Callable[[], int]) -> None:
        """Show how many requests wait or run."""
        Gauge("sightline_requests_open", "Requests that wait or run.", registry=self.registry).set_function(number)

    def watch_engine(self, queue: Watched, caches: Mapping[str, FeatureCache] | None = None) -> None:
        """Show what the models' queue holds and has done, and the caches by the name of their model."""
        self._engine = queue
        self.registry.register(_Engine(queue, dict(caches or {})))

    @property
    def engine_alive(self) -> bool:
        """Whether the models' queue takes work; true where none is watched."""
        return self._engine is None or self._engine.alive

    @property
    def engine_running(self) -> bool:
        """Whether the models' thread runs, and is not about to start again; true where none is watched."""
        return self._engine is None or self._engine.running

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request answered; ``route`` is the template of its path."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(method, route).observe(seconds)

    def count_error(self, code: str) -> None:
        """One error answered."""
        self._errors.labels(code).inc()

    def count_items(self, task: Literal["embed", "rerank"], number: int) -> None:
        """Items given to a model for a request."""
        self._items.labels(task).inc(number)

    def observe(self, stage: Stage, seconds: float) -> None:
        """One stage of one request took so long."""
        self._stages.labels(stage).observe(seconds)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Times a block that ends well."""
        start = time.perf_counter()
        yield
        self.observe(stage, time.perf_counter() - start)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        found: bytes = generate_latest(self.registry)
        return found


class _Engine:
    """Looks at the queue when the numbers are asked for."""

    def __init__(self, queue: Watched, caches: dict[str, FeatureCache]) -> None:
        self._queue = queue
        self._caches = caches

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are not looked for when it is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The numbers of this moment."""
        state = self._queue.counts()
        lanes = (("query", state.query), ("bulk", state.bulk))
        yield GaugeMetricFamily(
            "sightline_engine_alive", "1 while the thread of the models runs.", value=float(state.running)
        )
        yield CounterMetricFamily(
            "sightline_engine_restarts",
            "Times the thread of the models failed and started again.",
            value=float(state.restarts),
        )
        for key, about in WAITING:
            gauge = GaugeMetricFamily(f"sightline_engine_{key}", about, labels=["lane"])
            for lane, counts in lanes:
                gauge.add_metric([lane], float(getattr(counts, key)))
            yield gauge
        for key, about in DONE:
            counter = CounterMetricFamily(f"sightline_engine_{key}", about, labels=["lane"])
            for lane, counts in lanes:
                counter.add_metric([lane], float(getattr(counts, key)))
            yield counter
        for key, about in (("hits", "Pictures seen before."), ("misses", "Pictures seen for the first time.")):
            counter = CounterMetricFamily(f"sightline_cache_{key}", about, labels=["model"])
            for model, cache in self._caches.items():
                counter.add_metric([model], float(getattr(cache, key)))
            yield counter


class Counting:
    """ASGI: counts every request of the application inside, those that the guard refuses included."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            self.metrics.count_request(scope["method"], template(scope), status, time.perf_counter() - start)
            if status >= 400:
                self.metrics.count_error(scope.get(CODE_KEY) or str(status))


def template(scope: Scope) -> str:
    """The path of a request as its route declares it, ``none`` where no route took it."""
    route = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", None) or "none")
