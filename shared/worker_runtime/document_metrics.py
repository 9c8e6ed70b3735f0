"""The ingestion-worker's metrics: its pipeline's, its processes', its embeddings'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_runtime import metric_catalogue as catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

EMBEDDING_SOURCES = ("computed", "cached")


class DocumentMetrics:
    """The pipeline's. `outcome` is a class of outcomes: `read`, `unchanged`, `superseded`, or the code of a problem."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._documents = catalogue.DOCUMENTS.register(registry)
        self._stages = catalogue.DOCUMENT_STAGE.register(registry)
        self._pages = catalogue.DOCUMENT_PAGES.register(registry)

    def announce(self, queue: str, outcomes: Iterable[str], stages: Iterable[str], origins: Iterable[str]) -> None:
        """Make the series exist."""
        for outcome in outcomes:
            self._documents.labels(queue, outcome)
        for stage in stages:
            self._stages.labels(stage)
        for origin in origins:
            self._pages.labels(origin)

    def ended(self, queue: str, outcome: str) -> None:
        """Count an attempt at a document."""
        self._documents.labels(queue, outcome).inc()

    def stage(self, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        self._stages.labels(stage).observe(seconds)

    def pages(self, origin: str, count: int) -> None:
        """Count pages that were read."""
        self._pages.labels(origin).inc(count)


class IsolationMetrics:
    """Those of the processes that read documents. `outcome` is `ok`, `cancelled` or a problem's code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.children = catalogue.ISOLATION_CHILDREN.register(registry)
        self.tasks = catalogue.ISOLATION_TASKS.register(registry)
        self.kills = catalogue.ISOLATION_KILLS.register(registry)
        self.restarts = catalogue.ISOLATION_RESTARTS.register(registry)
        self.peak_bytes = catalogue.ISOLATION_PEAK.register(registry)
        self.slot_wait = catalogue.ISOLATION_SLOT_WAIT.register(registry)

    def announce(self, tasks: Iterable[str], outcomes: Iterable[str]) -> None:
        """Make the series exist."""
        for task in tasks:
            self.peak_bytes.labels(task)
            for outcome in outcomes:
                self.tasks.labels(task, outcome)


class EmbeddingMetrics:
    """The embeddings'."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._texts = catalogue.EMBEDDED_TEXTS.register(registry)
        self._tokens = catalogue.EMBEDDED_TOKENS.register(registry)
        self._duration = catalogue.EMBEDDING_DURATION.register(registry)

    def announce(self, provider: str) -> None:
        """Make the series exist."""
        self._tokens.labels(provider)
        self._duration.labels(provider)
        for source in EMBEDDING_SOURCES:
            self._texts.labels(provider, source)

    def computed(self, provider: str, texts: int, tokens: int, seconds: float) -> None:
        """Count a batch that was computed in so long."""
        self._texts.labels(provider, "computed").inc(texts)
        self._tokens.labels(provider).inc(tokens)
        self._duration.labels(provider).observe(seconds)

    def known(self, provider: str, texts: int) -> None:
        """Count texts that had a vector already."""
        self._texts.labels(provider, "cached").inc(texts)
