"""Everything the product needs, up at once: Redis, PostgreSQL with the schema, a mail server and both workers."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedded_stack.mailbox import Mailbox
from embedded_stack.place import announced_environment, starting_alone
from embedded_stack.postgres import PostgresServer
from embedded_stack.valkey import RedisServer
from embedded_stack.worker_process import WorkerProcess
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# The runbooks' ports, taken when they are free.
REDIS_PORT, POSTGRES_PORT = 6379, 5432
WORKERS = {"events-worker": 3100, "notifications-worker": 3102}
SENDER = "IntelliFlow <noreply@intelliflow.example>"


@dataclass(frozen=True)
class Stack:
    """A running stack. `variables` are what the workers were given."""

    variables: dict[str, str]
    mailbox: Mailbox
    workers: list[WorkerProcess]

    def check(self) -> None:
        """Raise WorkerFailedError when a worker has ended."""
        for worker in self.workers:
            worker.check()


@contextmanager
def running_stack(place: Path, announce: Callable[[str], None], *, start_lock: Path) -> Iterator[Stack]:
    """Start everything in order, and stop it in the opposite one. Blocks for as long as either takes.

    Stacks with the same `start_lock` start one after another, so that no two choose the same free port.
    REDIS_URL and DATABASE_URL in the environment take the place of servers of our own.
    """
    with ExitStack() as opened:
        with starting_alone(start_lock, announce):
            stack = _started(opened, place, announce)
        yield stack
        announce("stopping")


def _started(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> Stack:
    redis_url = os.environ.get("REDIS_URL") or _own_redis(opened, place, announce)
    database_url = os.environ.get("DATABASE_URL") or _own_postgres(opened, place, announce)
    migrate(database_url, announce)
    mailbox = opened.enter_context(Mailbox(folder=place / "mails", ca_file=place / "mailbox-ca.pem"))
    announce(f"mail server (SMTP, STARTTLS): {mailbox.host}:{mailbox.port}, keeping mails in {place / 'mails'}")
    variables = _product_variables(redis_url, database_url, mailbox)
    opened.enter_context(announced_environment(place, variables))
    workers = opened.enter_context(_running_workers(place / "logs", variables, announce))
    return Stack(variables, mailbox, workers)


def _own_redis(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> str:
    server = opened.enter_context(RedisServer(place / "valkey", preferred_port=REDIS_PORT, passwordless=True))
    announce(f"Valkey: 127.0.0.1:{server.port}")
    return server.url


def _own_postgres(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> str:
    server = opened.enter_context(PostgresServer(place / "postgres", preferred_port=POSTGRES_PORT))
    announce(f"PostgreSQL: 127.0.0.1:{server.port}")
    return server.url


def _product_variables(redis_url: str, database_url: str, mailbox: Mailbox) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "SMTP_HOST": mailbox.host,
        "SMTP_PORT": str(mailbox.port),
        "SMTP_TLS": "starttls",
        "SMTP_CA_FILE": str(mailbox.ca_file),
        "EMAIL_FROM": SENDER,
        "OPS_TOKEN": secrets.token_urlsafe(24),
    }


@contextmanager
def _running_workers(
    logs: Path, variables: dict[str, str], announce: Callable[[str], None]
) -> Iterator[list[WorkerProcess]]:
    environment = {**os.environ, **variables}
    workers: list[WorkerProcess] = []
    try:
        for name, port in WORKERS.items():
            workers.append(WorkerProcess(name, environment=environment, preferred_port=port, logs=logs))
        for worker in workers:
            worker.wait_until_ready()
            announce(f"{worker.name}: {worker.url}/health/detailed and /metrics, log {worker.log}")
        yield workers
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.wait_until_stopped()
    for worker in workers:
        worker.check_drained()
