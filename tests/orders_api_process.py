"""The example application as the process it is: uvicorn, with the jobs-worker in it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker_suite import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = Path(__file__).parents[1] / "docs" / "how-to" / "examples"


class OrdersApi(Process):
    """Its port is the application's; the worker within has none."""

    def __init__(self, environment: dict[str, str], log: Path, options: Sequence[str] = ()) -> None:
        self._options = options
        super().__init__("uvicorn", environment, log)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "uvicorn", "orders_api.app:app", "--port", str(self.port), *self._options]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def order(self, number: str) -> int:
        body = json.dumps({"id": number, "email": "ada@example.org"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/orders", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)

    def readiness(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/health/ready")[1] or "{}")
        return found


def environment(database_url: str, jobs_url: str, redis_url: str, **more: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "JOB_QUEUE_DATABASE_URL": jobs_url,
        "REDIS_URL": redis_url,
        "PYTHONPATH": str(EXAMPLES),
        "JOB_QUEUE_PACKAGES": "orders_api.tasks",
        "JOB_QUEUE_POLL_INTERVAL_MS": "200",
        "EGRESS_ALLOWED_CIDRS": "127.0.0.1/32",
        **more,
    }
