"""A worker as the separate process it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

from embedded_stack import process
from embedded_stack.ports import free_port, tells_of_a_taken_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DRAINED = 128 + signal.SIGTERM
START_SECONDS = 60.0
# The worker's own deadline (SHUTDOWN_TIMEOUT_MS) and what it needs to close up are shorter.
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05
LINES_SHOWN = 8


class WorkerFailedError(Exception):
    """A worker ended or did not become ready. The message holds the end of its log and where the rest is."""


class WorkerProcess:
    """`python -m <package>` with a log file of its own. It is told to stop when this process ends in whatever way.

    Its health server listens on `preferred_port`, or on another when somebody else does; `url` is final once ready.
    """

    def __init__(self, name: str, *, environment: Mapping[str, str], preferred_port: int, logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._environment = environment
        self._start_on(free_port(preferred_port))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Block until it takes work. Raises WorkerFailedError when it ends, or after a minute."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._lost_its_port():
                self._start_on(free_port())
            self.check()
            if time.monotonic() > deadline:
                raise WorkerFailedError(self._explain(f"was not ready within {START_SECONDS:.0f} s"))
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raise WorkerFailedError when it has ended."""
        if (status := self._process.poll()) is not None:
            raise WorkerFailedError(self._explain(f"ended with exit code {status}"))

    def ask_to_stop(self) -> None:
        """Send SIGTERM: it finishes what it has in hand and takes nothing new."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait_until_stopped(self) -> None:
        """Block until it has ended; after a minute it is killed."""
        # Not told again: a second signal means "at once", and it would hand back what it could have finished.
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.end(self._process, seconds_each=0)

    def check_drained(self) -> None:
        """Raise WorkerFailedError when it ended otherwise than by finishing what it had in hand."""
        if (status := self._process.poll()) != DRAINED:
            raise WorkerFailedError(self._explain(f"ended with exit code {status} instead of {DRAINED}"))

    def _start_on(self, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self._log_starts_at = self.log.stat().st_size if self.log.exists() else 0
        self._process = process.spawn(
            [sys.executable, "-m", self.name.replace("-", "_")],
            log=self.log,
            death_signal=signal.SIGTERM,
            environment={**self._environment, "HEALTH_PORT": str(port), "PYTHONUNBUFFERED": "1"},
        )

    def _lost_its_port(self) -> bool:
        return self._process.poll() is not None and tells_of_a_taken_port(self._said())

    def _is_ready(self) -> bool:
        # `/health/ready` would do, but it does not say who answers, and another run's worker may have our port.
        try:
            with urllib.request.urlopen(f"{self.url}/health/detailed", timeout=2) as answer:  # noqa: S310  (our own URL)
                health = json.load(answer)
                return bool(health["state"] == "running" and health["instance"].endswith(f":{self.pid}"))
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return False  # Not yet, not healthy, or a stranger.

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_starts_at)
            return log.read().decode(errors="replace")

    def _explain(self, what: str) -> str:
        lines = self._said().splitlines()[-LINES_SHOWN:]
        return f"{self.name} {what}; its log is {self.log}, ending with:\n  " + "\n  ".join(lines)
