"""Names that dashboards rely on, series that exist before anything happens, and what Prometheus thinks of them."""

from __future__ import annotations

import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from worker_runtime.loops import Heartbeat
from worker_runtime.metric_catalogue import CATALOGUE, HistogramMetric
from worker_runtime.metrics import Metrics

NAMED_BY_THE_RUNBOOK = {
    "intelliflow_worker_jobs_processed_total": {"worker", "queue"},
    "intelliflow_worker_jobs_failed_total": {"worker", "queue"},
    "intelliflow_worker_job_duration_seconds": {"worker", "queue"},
    "intelliflow_worker_retries_total": {"worker", "queue", "attempt"},
    "intelliflow_queue_depth": {"queue"},
    "intelliflow_queue_active": {"queue"},
    "intelliflow_queue_delayed": {"queue"},
    "intelliflow_queue_dlq_depth": {"queue"},
    "intelliflow_circuit_breaker_state": {"worker", "dependency"},
    "intelliflow_outbox_batch_size": set(),
    "intelliflow_outbox_events_published_total": set(),
    "intelliflow_outbox_events_failed_total": set(),
}


def everything() -> Metrics:
    metrics = Metrics("events-worker", "1.0", "abc")
    metrics.for_queue("intelliflow:events", concurrency=10)
    metrics.watch_loop("relay", Heartbeat())
    metrics.dependencies.announce_ping("redis")
    metrics.delivery.announce("EMAIL", "smtp", ("sent", "refused"))
    metrics.documents.announce("text-extraction", ("read",), ("fetch",), ("text",))
    metrics.isolation.announce(("read",), ("ok", "CRASH"))
    metrics.embedding.announce("local")
    metrics.workflows.announce(("http",))
    assert metrics.outbox
    assert metrics.workflow_starts
    return metrics


def test_the_runbooks_names_and_labels() -> None:
    declared = {metric.name: set(metric.labels) for metric in CATALOGUE}
    assert {name: declared.get(name) for name in NAMED_BY_THE_RUNBOOK} == NAMED_BY_THE_RUNBOOK


def test_the_edges_the_alerts_need() -> None:
    duration = next(metric for metric in CATALOGUE if metric.name == "intelliflow_worker_job_duration_seconds")
    assert isinstance(duration, HistogramMetric)
    assert {10, 30, 60} <= set(duration.edges)


def test_every_declared_metric_has_a_series_from_the_first_scrape() -> None:
    families = list(text_string_to_metric_families(everything().scrape().decode()))
    exported = {sample.name.removesuffix("_bucket") for family in families for sample in family.samples}
    assert {metric.name for metric in CATALOGUE} <= exported
    assert not [name for name in exported if name.endswith("_created")]


def test_no_label_can_hold_an_id_or_a_person() -> None:
    labels = {label for metric in CATALOGUE for label in metric.labels}
    assert labels <= {
        "worker", "queue", "attempt", "reason", "dependency", "state", "loop", "channel", "provider", "outcome",
        "service", "version", "revision", "source", "task", "stage", "origin", "what", "kind", "status",
    }  # fmt: skip


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_scrape() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=everything().scrape(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_a_queue_is_counted_once_however_often_it_is_asked_for() -> None:
    metrics = Metrics("w")
    first = metrics.for_queue("intelliflow:events", concurrency=10, attempts=3)
    assert metrics.for_queue("intelliflow:events") is first
    first.finished(0.2)
    first.finished(0.4)
    first.failed.inc()
    first.retried(2)
    totals = metrics.job_totals()
    assert totals == {"processed": 2, "failed": 1, "retried": 1, "p50Ms": 200, "p95Ms": 400, "p99Ms": 400}


def test_reasons_and_attempts_cannot_grow_without_bound() -> None:
    metrics = Metrics("w")
    queue = metrics.for_queue("q")
    for number in range(200):
        queue.deferred(f"CODE_{number}")
        queue.retried(number)
    for name in ("intelliflow_worker_deferrals_total", "intelliflow_worker_retries_total"):
        assert metrics.scrape().decode().count(f"{name}{{") <= 30
