"""The workflow-worker's metrics, beside those of its queue."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from worker_runtime import metric_catalogue as catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

STATUSES = ("completed", "failed")
SWEEPS = ("resent", "stray", "unknown", "woken")
RUNS = ("succeeded", "failed", "refused")


class WorkflowMetrics:
    """The engine's. `kind` is a kind of step; steps of workflows in Python are of the kind `step`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._steps = catalogue.WORKFLOW_STEPS.register(registry)
        self._duration = catalogue.WORKFLOW_STEP_DURATION.register(registry)
        # Looking a series up takes longer than counting.
        self._counter = functools.cache(self._steps.labels)
        self._timer = functools.cache(self._duration.labels)
        self._swept = catalogue.WORKFLOW_SWEPT.register(registry)
        self.purged = catalogue.WORKFLOW_PURGED.register(registry)
        for what in SWEEPS:
            self._swept.labels(what)
        self._cron_runs = catalogue.CRON_RUNS.register(registry)
        self.cron_leads = catalogue.CRON_LEADS.register(registry)
        for outcome in RUNS:
            self._cron_runs.labels(outcome)

    def announce(self, kinds: Iterable[str]) -> None:
        """Make the series exist."""
        for kind in kinds:
            self._duration.labels(kind)
            for status in STATUSES:
                self._steps.labels(kind, status)

    def step(self, kind: str, status: str, seconds: float) -> None:
        """Count a try of a step."""
        self._counter(kind, status).inc()
        self._timer(kind).observe(seconds)

    def swept(self, resent: int, strays: int, unknown: int, woken: int) -> None:
        """Count messages that were missing, those that were nobody's, and executions that were left waiting."""
        for what, count in zip(SWEEPS, (resent, strays, unknown, woken), strict=True):
            self._swept.labels(what).inc(count)

    def cron_ran(self, outcome: str) -> None:
        """Count a run of a scheduled job."""
        self._cron_runs.labels(outcome).inc()
