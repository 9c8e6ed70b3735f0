"""Both workers as the processes they are, with real servers that a test may break."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import psycopg
import redis

from embedded_stack.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from embedded_stack import Mailbox

# What the default limit of ten mails a second would only make slower.
UNLIMITED = {"QUEUE_RATE_LIMIT_EMAIL_MAX": "100000"}


def wait_for(condition: Callable[[], object], within: float = 20.0, what: str = "it", every: float = 0.02) -> None:
    """Look again and again, until it is so; the processes under test cannot tell us."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {within:g} s")
        time.sleep(every)


class Process:
    """One worker process: `python -m <package>`."""

    def __init__(self, package: str, environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.log = log
        self._package = package
        self._environment = {**os.environ, "HEALTH_PORT": str(self.port), **environment}
        self.popen = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self._package], env=self._environment, stdout=log, stderr=log
            )

    def restart(self) -> None:
        self.popen = self._spawn()

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 40) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(within)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.kill()

    def get(self, path: str) -> tuple[int, str]:
        """Ask the health server; status 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=3) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (urllib.error.URLError, OSError):
            return 0, ""

    def status(self, path: str) -> int:
        return self.get(path)[0]

    def detailed(self) -> Any:
        return json.loads(self.get("/health/detailed")[1])

    def metric(self, name: str) -> float:
        """Sum a metric's series."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def ready(self, within: float = 20) -> Self:
        def is_ready() -> bool:
            assert self.popen.poll() is None, self.log.read_text()
            return self.status("/health/ready") == 200

        wait_for(is_ready, within, f"{self._package} being ready")
        return self

    def logged(self, word: str) -> bool:
        return word in self.log.read_text()


@dataclass
class Suite:
    """Addresses, and the workers started on them."""

    redis_url: str
    database_url: str
    mailbox: Mailbox
    folder: Path
    processes: list[Process] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.database_url,
            "SMTP_HOST": self.mailbox.host,
            "SMTP_PORT": str(self.mailbox.port),
            "SMTP_TLS": "starttls",
            "SMTP_CA_FILE": str(self.mailbox.ca_file),
            "EMAIL_FROM": "noreply@intelliflow.example",
            **UNLIMITED,
        }

    def start(self, package: str, **environment: str) -> Process:
        log = self.folder / f"{package}-{len(self.processes)}.log"
        process = Process(package, {**self.environment, **environment}, log)
        self.processes.append(process)
        return process

    def events_worker(self, **environment: str) -> Process:
        return self.start("events_worker", **environment)

    def notifications_worker(self, **environment: str) -> Process:
        return self.start("notifications_worker", **environment)

    def end(self) -> None:
        for process in self.processes:
            process.end()

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    def commit_leads(self, number: int) -> list[str]:
        """Commit so many lead.created events in one transaction and return their ids."""
        rows = [(str(uuid4()), f"lead-{n}") for n in range(number)]
        with psycopg.connect(self.database_url) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO domain_event_outbox"
                " (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)"
                " VALUES (%s, 'lead.created', 'Lead', %s, 't1', %s, '{}')",
                [(event, lead, json.dumps(lead_payload(lead))) for event, lead in rows],
            )
        return [event for event, _ in rows]

    def notification_ids(self) -> list[str]:
        """The ids of what the mail server accepted, in order of arrival, repeats included."""
        return [notification_id(mail.raw) for mail in self.mailbox.messages]

    def wait_for_mails(self, number: int, within: float) -> None:
        """Wait until so many different notifications have arrived."""
        # Not Mailbox.wait_until: to look at thousands of mails at each arrival would starve the server, our thread.
        wait_for(lambda: len(set(self.notification_ids())) >= number, within, f"{number} notifications", every=0.2)


def notification_id(raw: bytes) -> str:
    found = re.search(rb"(?mi)^X-IntelliFlow-Notification-Id: (\S+)", raw)
    assert found
    return found[1].decode()


def lead_payload(lead: str) -> dict[str, str]:
    return {"leadId": lead, "tenantId": "t1", "email": f"{lead}@example.org", "firstName": "Ann", "source": "test"}


@contextmanager
def running_suite(redis_url: str, database_url: str, mailbox: Mailbox, folder: Path) -> Iterator[Suite]:
    suite = Suite(redis_url, database_url, mailbox, folder)
    try:
        yield suite
    finally:
        suite.end()
