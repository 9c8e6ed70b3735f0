"""What the main loop writes down about itself, and what each health endpoint makes of it.

The main loop replaces whole immutable snapshots; the health server's thread only reads, so that a blocked main loop
cannot keep it from answering, and an old snapshot is itself the bad news.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worker_runtime.loops import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_runtime.bullmq.producer import QueueCounts

Phase = Literal["starting", "running", "draining", "stopped"]
STALE_AFTER_SECONDS = 4.0
CLOSED = {"state": "CLOSED", "openUntil": None, "failures": 0}
MEMORY_FIELDS = {
    "heapUsed": ("RssAnon",),
    "heapTotal": ("VmData",),
    "external": ("RssFile", "RssShmem"),
    "rss": ("VmRSS",),
}


@dataclass(frozen=True)
class DependencyReport:
    """One dependency as last seen. `latency` in ms; only a `required` one that errs makes the worker unready."""

    status: Literal["ok", "degraded", "error"]
    last_check: str
    latency: float | None = None
    required: bool = False
    breaker: Mapping[str, Any] = field(default_factory=lambda: CLOSED)

    def as_json(self) -> dict[str, Any]:
        """Write it as `/health/detailed` shows it."""
        return {
            "status": self.status,
            "latency": self.latency,
            "lastCheck": self.last_check,
            "circuitBreaker": dict(self.breaker),
        }


@dataclass(frozen=True)
class Snapshot:
    """Everything that had to be asked for, at one moment."""

    dependencies: Mapping[str, DependencyReport] = field(default_factory=dict)
    queues: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    taken: float = field(default_factory=time.monotonic)

    @property
    def stale(self) -> bool:
        """Whether the loop that should have replaced it did not."""
        return time.monotonic() - self.taken > STALE_AFTER_SECONDS


@dataclass(frozen=True)
class Identity:
    """Who answers."""

    service: str
    version: str = "unknown"
    revision: str = "unknown"
    instance: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")


class HealthBoard:
    """Written by the main loop, read by the health server's thread. Every attribute is replaced, never changed."""

    def __init__(
        self,
        identity: Identity,
        *,
        stall_limit_ms: int,
        config: Mapping[str, Any],
        job_metrics: Callable[[], Mapping[str, Any]] = dict,
        jobs_in_flight: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self.identity = identity
        self.phase: Phase = "starting"
        self.started = False
        self.loops: Mapping[str, Heartbeat] = {}
        self.snapshot = Snapshot()
        self.event_loop = Heartbeat()
        self._stall_limit_ms = stall_limit_ms
        self._config = config
        self._job_metrics = job_metrics
        self._jobs_in_flight = jobs_in_flight
        self._sections: Mapping[str, Callable[[], Mapping[str, Any]]] = {}
        self._born = time.monotonic()

    def enter(self, phase: Phase) -> None:
        """Move on; `started` latches once running."""
        self.phase = phase
        self.started = self.started or phase == "running"

    def watch(self, name: str, heartbeat: Heartbeat) -> None:
        """Expect a loop to turn."""
        self.loops = {**self.loops, name: heartbeat}

    def forget(self, name: str) -> None:
        """Expect nothing any more of a loop that has ended."""
        self.loops = {known: heartbeat for known, heartbeat in self.loops.items() if known != name}

    def show(self, name: str, section: Callable[[], Mapping[str, Any]]) -> None:
        """Add what only this worker has to `/health/detailed`; `section` is called from the server's thread."""
        self._sections = {**self._sections, name: section}

    @property
    def ready(self) -> bool:
        """Whether the worker does its work: running, and everything required answered lately."""
        return self.phase == "running" and not self.snapshot.stale and not self._failing(required_only=True)

    def live(self) -> tuple[int, dict[str, Any]]:
        """Answer `/health/live`: do the event loop and every worker loop turn? Asks nobody."""
        stalled = self._stalled()
        body: dict[str, Any] = {"alive": not stalled, **self._now()}
        if stalled:
            body |= {"reason": self._stall_reason(stalled), "loops": stalled}
        return (503 if stalled else 200), body

    def startup(self) -> tuple[int, dict[str, Any]]:
        """Answer `/health/startup`: was the worker ever running? Latches."""
        body = {"started": self.started, "timestamp": timestamp(), "phase": self.phase}
        return (200 if self.started else 503), body

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Answer `/health/ready`."""
        ready = self.ready
        body = {"ready": ready, "state": self.phase, "timestamp": timestamp(), "checks": self._checks()}
        return (200 if ready else 503), body

    def summary(self) -> tuple[int, dict[str, Any]]:
        """Answer `/health`."""
        status = self.status
        body = {"status": status, "version": self.identity.version, **self._now(), "checks": self._checks()}
        return (503 if status == "unhealthy" else 200), body

    def detailed(self) -> tuple[int, dict[str, Any]]:
        """Answer `/health/detailed`: the summary and all that an operator looks for next."""
        code, body = self.summary()
        identity, checks = self.identity, body["checks"]
        body |= {
            "service": identity.service,
            "instance": identity.instance,
            "revision": identity.revision,
            "state": self.phase,
            "dependencies": checks,
            "breakers": {name: {"state": check["circuitBreaker"]["state"].lower()} for name, check in checks.items()},
            "queues": dict(self.snapshot.queues),
            "metrics": dict(self._job_metrics()),
            "inFlight": self._jobs_in_flight(),
            "memory": memory(),
            "config": dict(self._config),
            **{name: dict(section()) for name, section in self._sections.items()},
        }
        return code, body

    @property
    def status(self) -> Literal["healthy", "degraded", "unhealthy"]:
        """Unhealthy: stuck or without something required. Degraded: not running, or something optional is missing."""
        if self._stalled() or self.snapshot.stale or self._failing(required_only=True):
            return "unhealthy"
        if self.phase != "running" or self._failing(required_only=False):
            return "degraded"
        return "healthy"

    def _stalled(self) -> dict[str, dict[str, int]]:
        beats = {"event-loop": self.event_loop, **self.loops}
        ages = {name: round(heartbeat.age_seconds * 1000) for name, heartbeat in beats.items()}
        limit = self._stall_limit_ms
        return {name: {"lastTickAgeMs": age, "limitMs": limit} for name, age in ages.items() if age > limit}

    def _stall_reason(self, stalled: Mapping[str, Any]) -> str:
        return "event_loop_stalled" if "event-loop" in stalled else "loop_stalled"

    def _failing(self, *, required_only: bool) -> bool:
        reports = self.snapshot.dependencies.values()
        if required_only:
            return any(report.required and report.status == "error" for report in reports)
        return any(report.status != "ok" for report in reports)

    def _checks(self) -> dict[str, Any]:
        snapshot = self.snapshot
        checks = {name: report.as_json() for name, report in snapshot.dependencies.items()}
        if snapshot.stale:
            for check in checks.values():
                check["status"] = "error"
        return checks

    def _now(self) -> dict[str, Any]:
        return {"timestamp": timestamp(), "uptime": round((time.monotonic() - self._born) * 1000)}


def timestamp(seconds: float | None = None) -> str:
    """Write a moment (seconds since the epoch; now without one) as ISO-8601 UTC with milliseconds."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def queue_report(counts: QueueCounts) -> dict[str, Any]:
    """Write a queue's counts as `/health/detailed` shows them."""
    return {
        "waiting": counts.waiting,
        "active": counts.active,
        "completed": counts.completed,
        "failed": counts.failed,
        "delayed": counts.delayed,
        "prioritized": counts.prioritized,
        "paused": counts.paused,
        "oldestWaitingAgeMs": counts.oldest_waiting_ms,
        "error": None,
    }


def memory() -> dict[str, int]:
    """Return the process's memory in bytes under the names Node gives it; zeros where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return dict.fromkeys(MEMORY_FIELDS, 0)
    kilobytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in status.splitlines())
        if "kB" in value
    }
    return {name: sum(kilobytes.get(part, 0) for part in parts) * 1024 for name, parts in MEMORY_FIELDS.items()}
