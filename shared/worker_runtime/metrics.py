"""The metrics of one process: what the catalogue declares, bound to this worker's labels so that counting is cheap."""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest

from worker_runtime import metric_catalogue as catalogue
from worker_runtime.document_metrics import DocumentMetrics, EmbeddingMetrics, IsolationMetrics
from worker_runtime.workflow_metrics import WorkflowMetrics

if TYPE_CHECKING:
    from worker_runtime.bullmq.producer import QueueCounts
    from worker_runtime.loops import Heartbeat

RECENT_DURATIONS = 1024
MOST_REASONS = 30
MOST_ATTEMPTS = 20
OTHER = "_other"
NONE = "_none"
BREAKER_STATES = ("closed", "half_open", "open")

disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` series double the scrape and say nothing here


class Metrics:
    """All metrics of this process. Safe to read from the health server's thread."""

    def __init__(self, worker: str, version: str = "unknown", revision: str = "unknown") -> None:
        self.worker = worker
        self.registry = CollectorRegistry()
        register = self.registry
        self.jobs_processed = catalogue.JOBS_PROCESSED.register(register)
        self.jobs_failed = catalogue.JOBS_FAILED.register(register)
        self.job_duration = catalogue.JOB_DURATION.register(register)
        self.job_wait = catalogue.JOB_WAIT.register(register)
        self.retries = catalogue.RETRIES.register(register)
        self.deferrals = catalogue.DEFERRALS.register(register)
        self.dead_letters = catalogue.DEAD_LETTERS.register(register)
        self.in_flight = catalogue.IN_FLIGHT.register(register)
        self.concurrency = catalogue.CONCURRENCY.register(register)
        self.hand_backs = catalogue.HAND_BACKS.register(register)
        self.recoveries = catalogue.RECOVERIES.register(register)
        self.lost_leases = catalogue.LOST_LEASES.register(register)
        self.redis_errors = catalogue.REDIS_ERRORS.register(register).labels(worker)
        self.draining = catalogue.DRAINING.register(register).labels(worker)
        self.event_loop_lag = catalogue.EVENT_LOOP_LAG.register(register).labels(worker)
        self._loop_blocked = catalogue.EVENT_LOOP_BLOCKED.register(register)
        self._loop_blocked.labels(worker, NONE)
        self._loop_tick_age = catalogue.LOOP_TICK_AGE.register(register)
        self.dependencies = DependencyMetrics(worker, register)
        self._depths = QueueDepths(register)
        self.queues: dict[str, QueueMetrics] = {}
        catalogue.BUILD_INFO.register(register).labels(worker, version, revision).set(1)

    def for_queue(self, label: str, *, concurrency: int = 0, attempts: int = 3) -> QueueMetrics:
        """Return the bound metrics of a queue, the same each time; `attempts` of them get their series at once."""
        if label not in self.queues:
            self.queues[label] = QueueMetrics(self, label, concurrency, attempts)
            self._depths.announce(label)
            self._loop_blocked.labels(self.worker, label)
        return self.queues[label]

    def queue_counted(self, label: str, counts: QueueCounts) -> None:
        """Show what Redis said about a queue."""
        self._depths.set(label, counts)

    def event_loop_blocked(self, queue: str | None, seconds: float) -> None:
        """Count a block of the event loop by a handler of `queue`; `None` when no handler was at work."""
        self._loop_blocked.labels(self.worker, queue or NONE).observe(seconds)

    def watch_loop(self, name: str, heartbeat: Heartbeat) -> None:
        """Show the age of a loop's last turn, read at the scrape."""
        self._loop_tick_age.labels(self.worker, name).set_function(lambda: heartbeat.age_seconds)

    def forget_loop(self, name: str) -> None:
        """Stop showing a loop that has ended."""
        self._loop_tick_age.remove(self.worker, name)

    @cached_property
    def outbox(self) -> OutboxMetrics:
        """The relay's metrics; a process that never asks does not export them."""
        return OutboxMetrics(self.registry)

    @cached_property
    def workflow_starts(self) -> WorkflowStartMetrics:
        """Those of workflows started by events; a process that never asks does not export them."""
        return WorkflowStartMetrics(self.registry)

    @cached_property
    def delivery(self) -> DeliveryMetrics:
        """The channels' metrics; a process that never asks does not export them."""
        return DeliveryMetrics(self.registry)

    @cached_property
    def documents(self) -> DocumentMetrics:
        """The pipeline's metrics; a process that never asks does not export them."""
        return DocumentMetrics(self.registry)

    @cached_property
    def isolation(self) -> IsolationMetrics:
        """Those of the processes that read documents; a process that never asks does not export them."""
        return IsolationMetrics(self.registry)

    @cached_property
    def embedding(self) -> EmbeddingMetrics:
        """The embeddings' metrics; a process that never asks does not export them."""
        return EmbeddingMetrics(self.registry)

    @cached_property
    def workflows(self) -> WorkflowMetrics:
        """The workflow engine's metrics; a process that never asks does not export them."""
        return WorkflowMetrics(self.registry)

    def job_totals(self) -> dict[str, float]:
        """Return what `/health/detailed` shows of all queues together; durations are of the latest 1,024 a queue."""
        recent = sorted(seconds for queue in list(self.queues.values()) for seconds in queue.recent_seconds.copy())
        return {
            "processed": _total(self.jobs_processed),
            "failed": _total(self.jobs_failed),
            "retried": _total(self.retries),
            **{f"p{percent}Ms": round(_percentile(recent, percent) * 1000, 2) for percent in (50, 95, 99)},
        }

    def scrape(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class QueueMetrics:
    """One queue's metrics with the labels bound; what the consumer and the engine count with."""

    def __init__(self, metrics: Metrics, label: str, concurrency: int, attempts: int) -> None:
        self._metrics, self._label = metrics, label
        labels = (metrics.worker, label)
        self.processed = metrics.jobs_processed.labels(*labels)
        self.failed = metrics.jobs_failed.labels(*labels)
        self.duration = metrics.job_duration.labels(*labels)
        self.wait = metrics.job_wait.labels(*labels)
        self.dead_lettered = metrics.dead_letters.labels(*labels)
        self.in_flight = metrics.in_flight.labels(*labels)
        self._hand_backs = metrics.hand_backs.labels(*labels)
        self._recoveries = metrics.recoveries.labels(*labels)
        self._lost_leases = metrics.lost_leases.labels(*labels)
        self._retries = {n: metrics.retries.labels(*labels, n) for n in range(2, attempts + 1)}
        self._deferrals = {code: metrics.deferrals.labels(*labels, code) for code in (OTHER, *catalogue.DEFERRAL_CODES)}
        self.recent_seconds: deque[float] = deque(maxlen=RECENT_DURATIONS)
        self.concurrency = concurrency
        metrics.concurrency.labels(*labels).set(concurrency)

    def finished(self, seconds: float) -> None:
        """Count an attempt that ended, however it did, after `seconds` in the handler."""
        self.processed.inc()
        self.duration.observe(seconds)
        self.recent_seconds.append(seconds)

    def retried(self, attempt: int) -> None:
        """Count a retry; `attempt` is the number of the attempt to come."""
        capped = min(attempt, MOST_ATTEMPTS)
        if capped not in self._retries:
            self._retries[capped] = self._metrics.retries.labels(self._metrics.worker, self._label, capped)
        self._retries[capped].inc()

    def deferred(self, reason: str) -> None:
        """Count a deferral by its code."""
        known = self._deferrals
        if reason not in known:
            label = reason if len(known) < MOST_REASONS else OTHER
            known[reason] = self._metrics.deferrals.labels(self._metrics.worker, self._label, label)
        known[reason].inc()

    def handed_back(self, jobs: int) -> None:
        """Count jobs that a stop returned to the queue."""
        self._hand_backs.inc(jobs)

    def recovered(self, jobs: int) -> None:
        """Count jobs taken over from a dead worker."""
        self._recoveries.inc(jobs)

    def lease_lost(self) -> None:
        """Count a job whose lock went to somebody else while it ran here."""
        self._lost_leases.inc()


class QueueDepths:
    """How full the queues are, for all workers together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._depth = catalogue.QUEUE_DEPTH.register(registry)
        self._active = catalogue.QUEUE_ACTIVE.register(registry)
        self._delayed = catalogue.QUEUE_DELAYED.register(registry)
        self._failed = catalogue.QUEUE_DLQ_DEPTH.register(registry)
        self._paused = catalogue.QUEUE_PAUSED.register(registry)
        self._oldest = catalogue.QUEUE_OLDEST_AGE.register(registry)

    def announce(self, label: str) -> None:
        """Make the series exist."""
        for gauge in (self._depth, self._active, self._delayed, self._failed, self._paused, self._oldest):
            gauge.labels(label)

    def set(self, label: str, counts: QueueCounts) -> None:
        """Show these counts."""
        self._depth.labels(label).set(counts.depth)
        self._active.labels(label).set(counts.active)
        self._delayed.labels(label).set(counts.delayed)
        self._failed.labels(label).set(counts.failed)
        self._paused.labels(label).set(counts.paused)
        self._oldest.labels(label).set(counts.oldest_waiting_ms / 1000)


class DependencyMetrics:
    """What this process knows about what it calls."""

    def __init__(self, worker: str, registry: CollectorRegistry) -> None:
        self._worker = worker
        self._state = catalogue.BREAKER_STATE.register(registry)
        self._open = catalogue.BREAKERS_OPEN.register(registry)
        self._transitions = catalogue.BREAKER_TRANSITIONS.register(registry)
        self._up = catalogue.DEPENDENCY_UP.register(registry)
        self._latency = catalogue.DEPENDENCY_LATENCY.register(registry)
        self._errors = catalogue.DEPENDENCY_ERRORS.register(registry)

    def announce(self, dependency: str) -> None:
        """Make the breaker's series exist: closed."""
        self.breakers(dependency, [])
        for state in BREAKER_STATES:
            self._transitions.labels(self._worker, dependency, state)

    def announce_ping(self, dependency: str) -> None:
        """Make the ping's series exist: not up yet."""
        self.announce(dependency)
        self._up.labels(self._worker, dependency)
        self._latency.labels(self._worker, dependency)
        self._errors.labels(self._worker, dependency)

    def answered(self, dependency: str, seconds: float) -> None:
        """Note a ping that went well."""
        self._up.labels(self._worker, dependency).set(1)
        self._latency.labels(self._worker, dependency).set(seconds)

    def failed(self, dependency: str) -> None:
        """Note a ping that did not."""
        self._up.labels(self._worker, dependency).set(0)
        self._errors.labels(self._worker, dependency).inc()

    def breakers(self, dependency: str, states: list[int]) -> None:
        """Show the worst state (0 closed, 1 half-open, 2 open) of a dependency's breakers."""
        self._state.labels(self._worker, dependency).set(max(states, default=0))
        self._open.labels(self._worker, dependency).set(sum(state > 0 for state in states))

    def moved(self, dependency: str, state: str) -> None:
        """Count a breaker's change to `state`."""
        self._transitions.labels(self._worker, dependency, state).inc()


class OutboxMetrics:
    """The relay's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batch_size = catalogue.OUTBOX_BATCH_SIZE.register(registry)
        self.published = catalogue.OUTBOX_PUBLISHED.register(registry)
        self.failed = catalogue.OUTBOX_FAILED.register(registry)
        self.pending = catalogue.OUTBOX_PENDING.register(registry)
        self.oldest_age = catalogue.OUTBOX_OLDEST_AGE.register(registry)
        self.under_way = catalogue.OUTBOX_UNDER_WAY.register(registry)
        self.blocked = catalogue.OUTBOX_BLOCKED.register(registry)
        self.dead = catalogue.OUTBOX_DEAD.register(registry)
        self.held_back = catalogue.OUTBOX_HELD_BACK.register(registry)
        self.archived = catalogue.OUTBOX_ARCHIVED.register(registry)
        self.purged = catalogue.OUTBOX_PURGED.register(registry)
        self.reconciled = catalogue.OUTBOX_RECONCILED.register(registry)
        self.partitions = catalogue.OUTBOX_PARTITIONS.register(registry)
        self.takeovers = catalogue.OUTBOX_TAKEOVERS.register(registry)
        errors = catalogue.OUTBOX_RELAY_ERRORS.register(registry)
        self.relay_errors = {dependency: errors.labels(dependency) for dependency in ("postgres", "redis")}


class WorkflowStartMetrics:
    """Those of workflows that events start and signal."""

    def __init__(self, registry: CollectorRegistry) -> None:
        starts = catalogue.WORKFLOW_EVENT_STARTS.register(registry)
        self._counters = {outcome: starts.labels(outcome) for outcome in ("started", "repeated", "refused")}
        self._counters["signalled"] = catalogue.WORKFLOW_EVENT_SIGNALS.register(registry)

    def counted(self, outcome: str, count: int) -> None:
        """Count starts that were `started`, `repeated` or `refused`, or events that were `signalled`."""
        self._counters[outcome].inc(count)


class DeliveryMetrics:
    """The channels'. `outcome` is a class of outcomes, never a message."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._deliveries = catalogue.DELIVERIES.register(registry)
        self._duration = catalogue.DELIVERY_DURATION.register(registry)

    def announce(self, channel: str, provider: str, outcomes: tuple[str, ...]) -> None:
        """Make the series exist."""
        self._duration.labels(channel, provider)
        for outcome in outcomes:
            self._deliveries.labels(channel, provider, outcome)

    def tried(self, channel: str, provider: str, outcome: str, seconds: float) -> None:
        """Count a delivery and the time it took."""
        self._deliveries.labels(channel, provider, outcome).inc()
        self._duration.labels(channel, provider).observe(seconds)


def _total(counter: Counter) -> int:
    samples = (sample for family in counter.collect() for sample in family.samples)
    return round(sum(sample.value for sample in samples if sample.name.endswith("_total")))


def _percentile(ordered: list[float], percent: int) -> float:
    """Return the nearest-rank percentile of an ascending list; 0 of none."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0.0
