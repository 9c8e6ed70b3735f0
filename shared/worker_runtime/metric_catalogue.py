"""Every metric there is, declared once: name, labels, meaning. Dashboards, alerts and docs are tested against it.

Names are the operator's contract. Labels never hold an id, a tenant, an address or a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

WAIT_EDGES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800)
BLOCK_EDGES = (0.5, 1, 2.5, 5, 10, 30, 60)
RUN_EDGES = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

MEMORY_EDGES = tuple(float(mebibytes << 20) for mebibytes in (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 1536))


@dataclass(frozen=True)
class Metric:
    """A declaration; `register` makes it real in a registry, where it may be registered once."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


class CounterMetric(Metric):
    """Only ever grows."""

    kind: ClassVar[str] = "counter"

    def register(self, registry: CollectorRegistry) -> Counter:
        """Create it in `registry`."""
        return Counter(self.name, self.help, self.labels, registry=registry)


class GaugeMetric(Metric):
    """A value of now."""

    kind: ClassVar[str] = "gauge"

    def register(self, registry: CollectorRegistry) -> Gauge:
        """Create it in `registry`."""
        return Gauge(self.name, self.help, self.labels, registry=registry)


@dataclass(frozen=True)
class HistogramMetric(Metric):
    """A distribution over `edges`, which are upper bounds in the metric's unit."""

    kind: ClassVar[str] = "histogram"
    edges: tuple[float, ...] = RUN_EDGES

    def register(self, registry: CollectorRegistry) -> Histogram:
        """Create it in `registry`."""
        return Histogram(self.name, self.help, self.labels, registry=registry, buckets=self.edges)


BUILD_INFO = GaugeMetric("intelliflow_build_info", "Always 1; what runs here", ("service", "version", "revision"))

_JOB = ("worker", "queue")
JOBS_PROCESSED = CounterMetric("intelliflow_worker_jobs_processed_total", "Finished attempts, good and bad", _JOB)
JOBS_FAILED = CounterMetric("intelliflow_worker_jobs_failed_total", "Failed attempts, dead letters included", _JOB)
JOB_DURATION = HistogramMetric("intelliflow_worker_job_duration_seconds", "Time in the handler, per attempt", _JOB)
JOB_WAIT = HistogramMetric(
    "intelliflow_job_wait_seconds", "From due to the start of the first attempt that ended", _JOB, WAIT_EDGES
)
RETRIES = CounterMetric(
    "intelliflow_worker_retries_total", "Retries scheduled, by the number of the attempt to come", (*_JOB, "attempt")
)
DEFERRALS = CounterMetric(
    "intelliflow_worker_deferrals_total", "Jobs put off without costing an attempt, by code", (*_JOB, "reason")
)
# Their series exist before the first deferral; other codes appear with it.
DEFERRAL_CODES = (
    "CIRCUIT_OPEN",
    "DELIVERY_IN_PROGRESS",
    "DELIVERY_UNKNOWN",
    "EARLIER_DELIVERY_UNFINISHED",
    "JOBS_DATABASE_UNAVAILABLE",
    "PROVIDER_MISCONFIGURED",
    "PROVIDER_UNAVAILABLE",
    "QUIET_HOURS",
    "RATE_LIMITED",
    "REDIS_UNAVAILABLE",
    "SCANNER_UNAVAILABLE",
    "SCHEDULED",
    "STATE_UNAVAILABLE",
    "STORAGE_UNAVAILABLE",
)
DEAD_LETTERS = CounterMetric("intelliflow_worker_dead_letters_total", "Jobs that failed for good", _JOB)
IN_FLIGHT = GaugeMetric("intelliflow_jobs_in_progress", "Jobs running now", _JOB)
CONCURRENCY = GaugeMetric("intelliflow_worker_concurrency", "Jobs that may run at once", _JOB)
HAND_BACKS = CounterMetric("intelliflow_shutdown_abandoned_jobs_total", "Jobs returned to the queue by a stop", _JOB)
RECOVERIES = CounterMetric("intelliflow_worker_jobs_recovered_total", "Jobs taken over from a dead worker", _JOB)
LOST_LEASES = CounterMetric("intelliflow_worker_leases_lost_total", "Jobs whose lock was lost while they ran", _JOB)

QUEUE_DEPTH = GaugeMetric("intelliflow_queue_depth", "Jobs that could run: wait and prioritized", ("queue",))
QUEUE_ACTIVE = GaugeMetric("intelliflow_queue_active", "Jobs running on any worker", ("queue",))
QUEUE_DELAYED = GaugeMetric("intelliflow_queue_delayed", "Jobs waiting for their time", ("queue",))
QUEUE_DLQ_DEPTH = GaugeMetric("intelliflow_queue_dlq_depth", "Dead letters", ("queue",))
QUEUE_PAUSED = GaugeMetric("intelliflow_queue_paused", "1 while the queue is paused", ("queue",))
QUEUE_OLDEST_AGE = GaugeMetric(
    "intelliflow_queue_oldest_claimable_age_seconds", "Age of the job next in line; 0 when none waits", ("queue",)
)

BREAKER_STATE = GaugeMetric(
    "intelliflow_circuit_breaker_state",
    "0 closed, 1 half-open, 2 open; of many endpoints the worst",
    ("worker", "dependency"),
)
BREAKERS_OPEN = GaugeMetric("intelliflow_circuit_breakers_open", "Circuits not closed", ("worker", "dependency"))
BREAKER_TRANSITIONS = CounterMetric(
    "intelliflow_circuit_breaker_transitions_total", "Changes of state seen here", ("worker", "dependency", "state")
)
DEPENDENCY_UP = GaugeMetric("intelliflow_dependency_up", "1 when the last ping was answered", ("worker", "dependency"))
DEPENDENCY_LATENCY = GaugeMetric(
    "intelliflow_dependency_ping_seconds", "How long the last answered ping took", ("worker", "dependency")
)
DEPENDENCY_ERRORS = CounterMetric("intelliflow_dependency_errors_total", "Failed pings", ("worker", "dependency"))
REDIS_ERRORS = CounterMetric("intelliflow_redis_errors_total", "Commands that Redis did not answer", ("worker",))

DRAINING = GaugeMetric("intelliflow_draining", "1 while the process stops", ("worker",))
EVENT_LOOP_LAG = GaugeMetric("intelliflow_event_loop_lag_seconds", "How late the event loop ran its beat", ("worker",))
EVENT_LOOP_BLOCKED = HistogramMetric(
    "intelliflow_event_loop_blocked_seconds",
    "Blocks of the event loop over 0.5 s, by the queue whose handler caused them; `_none`: no handler did",
    _JOB,
    BLOCK_EDGES,
)
LOOP_TICK_AGE = GaugeMetric("intelliflow_loop_tick_age_seconds", "Since a loop last turned", ("worker", "loop"))

OUTBOX_BATCH_SIZE = GaugeMetric("intelliflow_outbox_batch_size", "Events in the last batch")
OUTBOX_PUBLISHED = CounterMetric("intelliflow_outbox_events_published_total", "Events put on the queue")
OUTBOX_FAILED = CounterMetric("intelliflow_outbox_events_failed_total", "Events that could not be published")
OUTBOX_PENDING = GaugeMetric("intelliflow_outbox_pending_events", "Events not yet published")
OUTBOX_OLDEST_AGE = GaugeMetric(
    "intelliflow_outbox_oldest_pending_age_seconds", "Age of the oldest event not yet published"
)
OUTBOX_UNDER_WAY = GaugeMetric("intelliflow_outbox_under_way_events", "Events published and not yet handled")
OUTBOX_BLOCKED = GaugeMetric(
    "intelliflow_outbox_blocked_aggregates", "Aggregates whose events wait for a person to retry or discard a dead one"
)
OUTBOX_DEAD = GaugeMetric(
    "intelliflow_outbox_dead_letters", "Dead events that nobody has retried or discarded, published ones or not"
)
OUTBOX_HELD_BACK = GaugeMetric(
    "intelliflow_outbox_held_back", "1 while the relay claims nothing because enough events wait for the handlers"
)
OUTBOX_ARCHIVED = CounterMetric("intelliflow_outbox_events_archived_total", "Events moved to the archive")
OUTBOX_PURGED = CounterMetric("intelliflow_outbox_events_purged_total", "Events deleted from the archive for good")
OUTBOX_RECONCILED = CounterMetric(
    "intelliflow_outbox_events_reconciled_total", "Events published again because the queue had lost them"
)
OUTBOX_PARTITIONS = GaugeMetric("intelliflow_outbox_partitions_owned", "Partitions of the outbox relayed here")
OUTBOX_TAKEOVERS = CounterMetric("intelliflow_outbox_partitions_taken_total", "Partitions this process became owner of")
OUTBOX_RELAY_ERRORS = CounterMetric(
    "intelliflow_outbox_relay_errors_total", "Batches put off because a server was out", ("dependency",)
)

WORKFLOW_EVENT_STARTS = CounterMetric(
    "intelliflow_workflow_event_starts_total",
    "Workflows started by events: started, repeated (were before), refused (no such workflow, or its `when` failed)",
    ("outcome",),
)
WORKFLOW_EVENT_SIGNALS = CounterMetric("intelliflow_workflow_event_signals_total", "Events passed on to workflows")

_DELIVERY = ("channel", "provider", "outcome")
DELIVERIES = CounterMetric("intelliflow_delivery_total", "Deliveries tried, by how they ended", _DELIVERY)
DELIVERY_DURATION = HistogramMetric(
    "intelliflow_delivery_duration_seconds", "Time at the provider, per delivery", ("channel", "provider")
)

WORKFLOW_STEPS = CounterMetric(
    "intelliflow_workflow_steps_total", "Tries of steps with an effect, by kind and how they ended", ("kind", "status")
)
WORKFLOW_STEP_DURATION = HistogramMetric("intelliflow_workflow_step_seconds", "Time in a try of a step", ("kind",))
WORKFLOW_SWEPT = CounterMetric(
    "intelliflow_workflow_swept_total",
    "Messages that were missing, messages that were nobody's, and executions that waited for what had come",
    ("what",),
)
WORKFLOW_PURGED = CounterMetric(
    "intelliflow_workflow_purged_total", "Executions, signals and archived messages deleted for their age"
)
CRON_RUNS = CounterMetric("intelliflow_cron_runs_total", "Runs of scheduled jobs, by how they ended", ("outcome",))
CRON_LEADS = GaugeMetric("intelliflow_cron_leads", "1: it is this process that runs the scheduled jobs")

DOCUMENTS = CounterMetric(
    "intelliflow_documents_total", "Attempts at documents, by queue and what became of them", ("queue", "outcome")
)
DOCUMENT_STAGE = HistogramMetric("intelliflow_document_stage_seconds", "Time in a stage of the pipeline", ("stage",))
DOCUMENT_PAGES = CounterMetric("intelliflow_document_pages_total", "Pages read, by who read them", ("origin",))
ISOLATION_CHILDREN = GaugeMetric("intelliflow_isolation_children", "Processes reading a document now")
ISOLATION_TASKS = CounterMetric(
    "intelliflow_isolation_tasks_total", "Tasks done in a process of their own, by how they ended", ("task", "outcome")
)
ISOLATION_KILLS = CounterMetric(
    "intelliflow_isolation_kills_total", "Such processes killed by the worker: too slow, no longer wanted, or garbling"
)
ISOLATION_RESTARTS = CounterMetric(
    "intelliflow_isolation_server_restarts_total", "Times that the server forking them died and was started again"
)
ISOLATION_PEAK = HistogramMetric(
    "intelliflow_isolation_peak_bytes", "Most memory that such a process had of its own", ("task",), MEMORY_EDGES
)
ISOLATION_SLOT_WAIT = HistogramMetric(
    "intelliflow_isolation_slot_wait_seconds", "Time a task waited for a free slot", (), WAIT_EDGES
)
EMBEDDED_TEXTS = CounterMetric(
    "intelliflow_embedding_texts_total",
    "Pieces of text given a vector: computed, or known from before",
    ("provider", "source"),
)
EMBEDDED_TOKENS = CounterMetric("intelliflow_embedding_tokens_total", "Tokens of texts computed", ("provider",))
EMBEDDING_DURATION = HistogramMetric(
    "intelliflow_embedding_batch_seconds", "Time a batch of texts took to compute", ("provider",)
)

CATALOGUE: tuple[CounterMetric | GaugeMetric | HistogramMetric, ...] = tuple(
    value for value in globals().values() if isinstance(value, (CounterMetric, GaugeMetric, HistogramMetric))
)


def reference() -> str:
    """Return the page docs/reference/metrics.md."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels) or '-'} | {metric.help} |"
        for metric in CATALOGUE
    ]
    return "\n".join([REFERENCE_HEAD, *rows, ""])


REFERENCE_HEAD = """# Metrics

Generated from the catalogue in `worker_runtime/metric_catalogue.py` by `docs/reference/generate.py`; do not edit.

Every process answers `GET /metrics` on `HEALTH_PORT`. Series exist from the first scrape. Queue gauges are exported by
every replica that works the queue: aggregate them with `max by (queue)`.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |"""
