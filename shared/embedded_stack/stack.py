"""Everything the product needs, up at once: Redis, PostgreSQL with the schema, the workers and those they talk to."""

from __future__ import annotations

import base64
import os
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedded_stack.mailbox import Mailbox
from embedded_stack.place import announced_environment, starting_alone
from embedded_stack.postgres import PostgresServer
from embedded_stack.sms_server import SmsServer
from embedded_stack.valkey import RedisServer
from embedded_stack.webhook_receiver import WebhookReceiver
from embedded_stack.worker_process import WorkerProcess
from worker_ops.jobs.schema import migrate_jobs
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# The runbooks' ports, taken when they are free.
REDIS_PORT, POSTGRES_PORT, JOBS_PORT = 6379, 5432, 5433
WORKERS = {
    "events-worker": 3100,
    "ingestion-worker": 3101,
    "notifications-worker": 3102,
    "workflow-worker": 3103,
    "jobs-worker": 3104,
}
JOBS_DATABASE = "jobs"
SECRET_BYTES = 32
SENDER = "IntelliFlow <noreply@intelliflow.example>"


@dataclass(frozen=True)
class Neighbours:
    """Whom the notifications-worker sends to: a mail server, a company that sends SMS, somebody's webhook receiver."""

    mailbox: Mailbox
    company: SmsServer
    receiver: WebhookReceiver
    signing_secret: str


@dataclass(frozen=True)
class Stack:
    """A running stack. `variables` are what the workers were given."""

    variables: dict[str, str]
    neighbours: Neighbours
    objects: Path
    workers: list[WorkerProcess]

    @property
    def mailbox(self) -> Mailbox:
        """The mail server."""
        return self.neighbours.mailbox

    def check(self) -> None:
        """Raise WorkerFailedError when a worker has ended."""
        for worker in self.workers:
            worker.check()


@contextmanager
def running_stack(place: Path, announce: Callable[[str], None], *, start_lock: Path) -> Iterator[Stack]:
    """Start everything in order, and stop it in the opposite one. Blocks for as long as either takes.

    Stacks with the same `start_lock` start one after another, so that no two choose the same free port.
    REDIS_URL, DATABASE_URL and JOB_QUEUE_DATABASE_URL in the environment take the place of servers of our own.
    """
    with ExitStack() as opened:
        with starting_alone(start_lock, announce):
            stack = _started(opened, place, announce)
        yield stack
        announce("stopping")


def _started(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> Stack:
    redis_url = os.environ.get("REDIS_URL") or _own_redis(opened, place, announce)
    database_url = os.environ.get("DATABASE_URL") or _own_postgres(opened, place, announce)
    jobs_url = os.environ.get("JOB_QUEUE_DATABASE_URL") or _own_jobs_postgres(opened, place, announce)
    migrate(database_url, announce)
    migrate_jobs(jobs_url, announce)
    neighbours = _neighbours(opened, place, announce)
    variables = _product_variables((redis_url, database_url, jobs_url), neighbours, place)
    opened.enter_context(announced_environment(place, variables))
    workers = opened.enter_context(_running_workers(place / "logs", variables, announce))
    return Stack(variables, neighbours, place / "objects", workers)


def _neighbours(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> Neighbours:
    mailbox = opened.enter_context(Mailbox(folder=place / "mails", ca_file=place / "mailbox-ca.pem"))
    announce(f"mail server (SMTP, STARTTLS): {mailbox.host}:{mailbox.port}, keeping mails in {place / 'mails'}")
    company = opened.enter_context(SmsServer())
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    receiver = opened.enter_context(WebhookReceiver(secret))
    announce(f"a company that sends SMS (Twilio's API): {company.url}, and a webhook receiver: {receiver.url}")
    return Neighbours(mailbox, company, receiver, secret)


def _own_redis(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> str:
    server = opened.enter_context(RedisServer(place / "valkey", preferred_port=REDIS_PORT, passwordless=True))
    announce(f"Valkey: 127.0.0.1:{server.port}")
    return server.url


def _own_postgres(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> str:
    server = opened.enter_context(PostgresServer(place / "postgres", preferred_port=POSTGRES_PORT))
    announce(f"PostgreSQL: 127.0.0.1:{server.port}")
    return server.url


def _own_jobs_postgres(opened: ExitStack, place: Path, announce: Callable[[str], None]) -> str:
    # A server of its own: every deferred job notifies, for which all commits of a server queue.
    server = opened.enter_context(PostgresServer(place / "postgres-jobs", preferred_port=JOBS_PORT))
    announce(f"PostgreSQL of the side effects: 127.0.0.1:{server.port}")
    return server.database(JOBS_DATABASE)


def _product_variables(urls: tuple[str, str, str], neighbours: Neighbours, place: Path) -> dict[str, str]:
    mailbox, company = neighbours.mailbox, neighbours.company
    redis_url, database_url, jobs_url = urls
    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "JOB_QUEUE_DATABASE_URL": jobs_url,
        "SMTP_HOST": mailbox.host,
        "SMTP_PORT": str(mailbox.port),
        "SMTP_TLS": "starttls",
        "SMTP_CA_FILE": str(mailbox.ca_file),
        "EMAIL_FROM": SENDER,
        "ENABLE_SMS": "true",
        "SMS_PROVIDER": "twilio",
        "SMS_FROM": "+15005550006",
        "TWILIO_ACCOUNT_SID": company.account_sid,
        "TWILIO_AUTH_TOKEN": company.auth_token,
        "TWILIO_API_BASE_URL": company.url,
        "ENABLE_WEBHOOK": "true",
        "WEBHOOK_SIGNING_SECRET": neighbours.signing_secret,
        "EGRESS_ALLOWED_CIDRS": "127.0.0.0/8",
        "ENABLE_OCR": "true",
        "ENABLE_EMBEDDINGS": "true",
        "STORAGE_URL": str(place / "objects"),
        "DOCUMENT_WORK_DIR": str(folder_for_work(place)),
        "OPS_TOKEN": secrets.token_urlsafe(24),
    }


def folder_for_work(place: Path) -> Path:
    """Return where documents are worked on: what a killed run leaves there, the next one's worker removes."""
    folder = place / "work"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


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
