"""The health endpoints over HTTP, with a board whose loops and dependencies the test moves."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from worker_runtime.bullmq.producer import QueueCounts
from worker_runtime.health import HealthPortUnavailable, HealthServer
from worker_runtime.health_board import DependencyReport, HealthBoard, Identity, Snapshot, memory, queue_report
from worker_runtime.loops import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Iterator

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOW = "2026-11-22T00:00:00.000Z"
ENDPOINTS = ["/health", "/health/live", "/health/startup", "/health/ready", "/health/detailed", "/metrics"]


class StoppedHeart(Heartbeat):
    age_seconds = 64.0


def board() -> HealthBoard:
    made = HealthBoard(
        Identity("events-worker", "1.2.3", "abc"),
        stall_limit_ms=5_000,
        config={"pollIntervalMs": 100},
        job_metrics=lambda: {"concurrency": 10},
    )
    made.watch("intelliflow:events", Heartbeat())
    made.snapshot = snapshot()
    made.enter("running")
    return made


def snapshot(redis: str = "ok", breaker: str = "CLOSED", taken: float | None = None) -> Snapshot:
    open_breaker = {"state": breaker, "openUntil": None, "failures": 0}
    return Snapshot(
        {
            "redis": DependencyReport(redis, NOW, 1.4, required=True),  # type: ignore[arg-type]
            "smtp": DependencyReport("ok" if breaker == "CLOSED" else "degraded", NOW, breaker=open_breaker),
        },
        {"intelliflow:events": queue_report(QueueCounts(1, 2, 3, 4, 5, 6, paused=False, oldest_waiting_ms=7))},
        time.monotonic() if taken is None else taken,
    )


@contextmanager
def served(on: HealthBoard) -> Iterator[str]:
    server = HealthServer(on, lambda: b"# metrics\n", host="127.0.0.1", port=0)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


def ask(url: str, method: str = "GET", accept: str = "*/*") -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, method=method, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_endpoint_answers_get_and_head_and_is_never_stored(path: str) -> None:
    with served(board()) as url:
        for method in ("GET", "HEAD"):
            status, headers, body = ask(url + path, method)
            assert (status, headers["Cache-Control"]) == (200, "no-store")
            assert bool(body) == (method == "GET")
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            status, headers, _ = ask(url + path, method)
            assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/healthz", "/health/", "/admin/pause"])
def test_nothing_else_is_there(path: str) -> None:
    with served(board()) as url:
        status, headers, body = ask(url + path)
        assert (status, json.loads(body)) == (404, {"error": "Not Found"})
        assert headers["Content-Type"].startswith("application/json")


def test_live_names_the_loop_that_does_not_turn() -> None:
    here = board()
    status, body = here.live()
    assert status == 200
    assert set(body) == {"alive", "timestamp", "uptime"}
    assert ISO.fullmatch(body["timestamp"])
    here.watch("relay", StoppedHeart())
    status, body = here.live()
    assert (status, body["alive"], body["reason"]) == (503, False, "loop_stalled")
    assert body["loops"] == {"relay": {"lastTickAgeMs": 64_000, "limitMs": 5_000}}
    here.forget("relay")
    assert here.live()[0] == 200


def test_startup_latches() -> None:
    fresh = HealthBoard(Identity("w"), stall_limit_ms=5_000, config={})
    assert fresh.startup()[0] == 503
    fresh.enter("running")
    fresh.enter("draining")
    status, body = fresh.startup()
    assert (status, body["started"], body["phase"]) == (200, True, "draining")


def test_ready_only_while_running_with_what_is_required() -> None:
    here = board()
    status, body = here.readiness()
    assert (status, body["ready"], body["state"]) == (200, True, "running")
    assert body["checks"]["redis"]["status"] == "ok"
    assert body["checks"]["redis"]["latency"] == 1.4
    here.snapshot = snapshot(breaker="OPEN")
    assert here.readiness()[0] == 200
    here.snapshot = snapshot(redis="error")
    assert here.readiness()[0] == 503
    assert here.live()[0] == 200
    here.snapshot = snapshot(taken=time.monotonic() - 60)
    status, body = here.readiness()
    assert (status, body["checks"]["redis"]["status"]) == (503, "error")
    here.snapshot = snapshot()
    here.enter("draining")
    status, body = here.readiness()
    assert (status, body["state"]) == (503, "draining")
    assert here.live()[0] == 200


def test_the_summary_tells_healthy_degraded_and_unhealthy() -> None:
    here = board()
    assert (here.summary()[0], here.summary()[1]["status"]) == (200, "healthy")
    here.snapshot = snapshot(breaker="OPEN")
    assert (here.summary()[0], here.summary()[1]["status"]) == (200, "degraded")
    here.snapshot = snapshot(redis="error")
    assert (here.summary()[0], here.summary()[1]["status"]) == (503, "unhealthy")


def test_the_runbooks_jq_paths_answer() -> None:
    here = board()
    here.snapshot = snapshot(breaker="HALF_OPEN")
    body = here.detailed()[1]
    assert body["dependencies"]["smtp"]["circuitBreaker"]["state"] == "HALF_OPEN"
    assert body["dependencies"]["redis"]["circuitBreaker"] == {"state": "CLOSED", "openUntil": None, "failures": 0}
    assert set(body["dependencies"]["redis"]) == {"status", "latency", "lastCheck", "circuitBreaker"}
    assert body["checks"] == body["dependencies"]
    assert body["metrics"]["concurrency"] == 10
    assert body["config"]["pollIntervalMs"] == 100
    assert body["queues"]["intelliflow:events"] == {
        "waiting": 1,
        "active": 2,
        "completed": 3,
        "failed": 4,
        "delayed": 5,
        "prioritized": 6,
        "paused": False,
        "oldestWaitingAgeMs": 7,
        "error": None,
    }
    assert body["service"] == "events-worker"
    assert body["revision"] == "abc"
    assert body["state"] == "running"
    assert set(body["memory"]) == {"heapUsed", "heapTotal", "external", "rss"}


def test_memory_is_in_bytes() -> None:
    assert 10_000_000 < memory()["rss"] < 10_000_000_000


def test_a_client_may_ask_for_the_health_draft() -> None:
    with served(board()) as url:
        _, headers, raw = ask(url + "/health", accept="application/health+json")
    body: dict[str, Any] = json.loads(raw)
    assert headers["Content-Type"].startswith("application/health+json")
    assert (body["status"], body["releaseId"], body["serviceId"], body["version"]) == (
        "pass",
        "1.2.3",
        "events-worker",
        "1",
    )
    assert body["checks"]["redis:responseTime"][0]["observedValue"] == 1.4


def test_it_answers_from_a_thread_of_its_own() -> None:
    with served(board()) as url:
        assert any(thread.name == "health server" for thread in threading.enumerate())
        assert ask(url + "/health/live")[0] == 200


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with served(board()) as url:
        port = int(url.rpartition(":")[2])
        second = HealthServer(board(), bytes, host="127.0.0.1", port=port)
        with pytest.raises(HealthPortUnavailable, match=f"HEALTH_PORT={port}"):
            second.start()
