"""Our notifications-worker beside one as it is usually written, and through an outage.

Everything is on that production has: the record of deliveries (in Redis, or in PostgreSQL, which waits for its disk),
circuits, retries, metrics; limits are raised out of the way. docs/explanation/performance.md says what columns mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import structlog

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.smtp_sink import SmtpSink
from benchmarks.tables import table
from embedded_stack import postgres_server, redis_server
from worker_ops.migrations import migrate
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection
from worker_suite import Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

PATIENCE_SECONDS = 120.0
AT_ONCE = 50
CALLS_A_SECOND = 200
RESET_MS = 1_000
UNLIMITED = {
    "QUEUE_CONCURRENCY": str(AT_ONCE),
    "QUEUE_RATE_LIMIT_EMAIL_MAX": "0",
    "QUEUE_RATE_LIMIT_WEBHOOK_MAX": "0",
    "LOG_LEVEL": "error",
}
EMAILS, WEBHOOKS = (QueueName("intelliflow:notifications", name) for name in ("email", "webhook"))
RECORDS = {"record in Redis": False, "in PostgreSQL": True}
COLUMNS = {
    "email": {"mails/s": ("perSecond", ".0f"), "connections": ("connections", ".0f")},
    "webhook": {
        "calls/s": ("perSecond", ".0f"),
        f"at {CALLS_A_SECOND}/s: p50 ms": ("p50Ms", ".1f"),
        "p99 ms": ("p99Ms", ".1f"),
    },
    "outage": {
        "jobs": ("jobs", ".0f"),
        "out for s": ("outSeconds", ".1f"),
        "attempts burnt": ("burnt", ".0f"),
        "dead": ("dead", ".0f"),
        "probes at once": ("probes", ".0f"),
        "back: s until drained": ("drainedSeconds", ".1f"),
    },
}


def main() -> None:
    arguments = parsed()
    measure: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "email": lambda: medians(lambda: measure_email(arguments.jobs), arguments.repeats),
        "webhook": lambda: medians(lambda: measure_webhook(arguments.jobs, arguments.seconds), arguments.repeats),
        "outage": lambda: [asyncio.run(measure_outage(arguments.outage_jobs, arguments.seconds))],
    }
    measured = {part: measure[part]() for part in arguments.parts}
    if arguments.json:
        sys.stdout.write(json.dumps(measured) + "\n")
        return
    for part, rows in measured.items():
        sys.stdout.write(f"{part}\n{table(rows, COLUMNS[part])}\n")


def medians(measure: Callable[[], list[dict[str, Any]]], repeats: int) -> list[dict[str, Any]]:
    """Let the contenders take turns, and return a row for each with the medians of its figures."""
    runs = [measure() for _ in range(repeats)]
    return [
        {
            key: first if isinstance(first, str) else statistics.median(row[key] for row in rows)
            for key, first in rows[0].items()
        }
        for rows in zip(*runs, strict=True)
    ]


def measure_email(jobs: int) -> list[dict[str, Any]]:
    with SmtpSink() as sink, usual_worker(sink) as redis_url:
        rows = [mails_sent("bullmq + aiosmtplib", redis_url, sink, jobs)]
    for name, recorded in RECORDS.items():
        with SmtpSink() as sink, worker(recorded=recorded, SMTP_PORT=str(sink.port), **PLAIN) as redis_url:
            rows.append(mails_sent(name, redis_url, sink, jobs))
    return rows


def mails_sent(name: str, redis_url: str, sink: SmtpSink, jobs: int) -> dict[str, Any]:
    """Work a backlog off, and see that each of its mails was sent once."""
    seconds = asyncio.run(worked_off(redis_url, EMAILS, [mail(number) for number in range(jobs)]))
    if sink.mails != jobs:
        raise AssertionError(f"{name}: {sink.mails} mails for {jobs} jobs")
    return {"contender": name, "perSecond": jobs / seconds, "connections": sink.connections}


PLAIN = {"SMTP_HOST": "127.0.0.1", "SMTP_TLS": "off"}


@contextmanager
def usual_worker(sink: SmtpSink) -> Iterator[str]:
    """Run notifications_stock.py in the block; yield the address of its Redis."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder) / "redis", durable=False) as redis:
        environment = {"REDIS_URL": redis.url, "SMTP_PORT": str(sink.port), "AT_ONCE": str(AT_ONCE)}
        command = [sys.executable, str(Path(__file__).with_name("notifications_stock.py"))]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env={**os.environ, **environment}, **pipes) as process:
            cast("IO[str]", process.stdout).readline()
            yield redis.url
            process.kill()


def measure_webhook(jobs: int, seconds: float) -> list[dict[str, Any]]:
    rows = []
    for name, recorded in RECORDS.items():
        allowed = {"ENABLE_WEBHOOK": "true", "ENABLE_EMAIL": "false", "EGRESS_ALLOWED_CIDRS": "127.0.0.0/8"}
        secret = {"WEBHOOK_SIGNING_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
        with receiver() as (port, arrived), worker(recorded=recorded, **allowed, **secret) as redis_url:
            taken = asyncio.run(worked_off(redis_url, WEBHOOKS, [call(number, port) for number in range(jobs)]))
            arrived()
            asyncio.run(steadily(redis_url, port, round(seconds * CALLS_A_SECOND), jobs))
            delays = statistics.quantiles(arrived(), n=100)
            rows.append(
                {"contender": name, "perSecond": jobs / taken, "p50Ms": delays[49], "p99Ms": delays[98]},
            )
    return rows


@contextmanager
def receiver() -> Iterator[tuple[int, Callable[[], list[float]]]]:
    """Run the webhook sink; yield its port and what asks for the milliseconds its calls took."""
    command = [sys.executable, str(Path(__file__).with_name("webhook_sink.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        told, ask = process.stdout, process.stdin

        def arrived() -> list[float]:
            ask.write("\n")
            ask.flush()
            return [float(one) for one in json.loads(told.readline())]

        yield int(told.readline()), arrived
        ask.close()


async def measure_outage(jobs: int, seconds: float) -> dict[str, Any]:
    """Queue jobs while the mail server is out, and see what that costs when it is back."""
    limits = {"CIRCUIT_BREAKER_RESET_TIMEOUT_MS": str(RESET_MS)}
    with SmtpSink() as sink, worker(recorded=True, SMTP_PORT=str(sink.port), **PLAIN, **limits) as redis_url:
        sink.out = True
        async with opened_redis(redis_url) as redis:
            queue = JobQueue(redis, EMAILS)
            await queue.add_bulk([mail(number) for number in range(jobs)])
            # The failures that open the circuit come at once; what comes after them are probes.
            await until(lambda: opened(sink))
            sink.most_while_out = 0
            await asyncio.sleep(seconds)
            sink.out = False
            await until(lambda: has_mail(sink))
            back = time.monotonic()
            await until(lambda: is_drained(queue))
            drained = time.monotonic() - back
            counts = await queue.counts()
            attempts = [await attempts_of(redis, f"n-{number}") for number in range(jobs)]
    return {
        "contender": "ours",
        "jobs": jobs,
        "outSeconds": seconds,
        "burnt": sum(attempts) - jobs,
        "dead": counts.failed,
        "probes": sink.most_while_out,
        "drainedSeconds": drained,
    }


async def opened(sink: SmtpSink) -> bool:
    return sink.connections >= 5 and not sink.open_while_out


async def has_mail(sink: SmtpSink) -> bool:
    return sink.mails > 0


async def is_drained(queue: JobQueue) -> bool:
    counts = await queue.counts()
    return counts.depth + counts.active + counts.delayed == 0


async def attempts_of(redis: RedisConnection, job_id: str) -> int:
    return int(await redis.call("HGET", EMAILS.key(job_id), "atm") or 0)


async def worked_off(redis_url: str, name: QueueName, jobs: list[NewJob]) -> float:
    """Add a backlog to a paused queue, and return the seconds from its opening until the last job is done."""
    async with opened_redis(redis_url) as redis:
        queue = JobQueue(redis, name)
        await queue.pause()
        await queue.add_bulk(jobs)
        started = time.monotonic()
        await queue.resume()
        await until(lambda: is_drained(queue))
        return time.monotonic() - started


async def steadily(redis_url: str, port: int, calls: int, first: int) -> None:
    """Add a job every few milliseconds, and wait for the last to be done."""
    async with opened_redis(redis_url) as redis:
        queue, started = JobQueue(redis, WEBHOOKS), time.monotonic()
        for number in range(calls):
            await asyncio.sleep(max(0.0, started + number / CALLS_A_SECOND - time.monotonic()))
            await queue.add(call(first + number, port))
        await until(lambda: is_drained(queue))


def mail(number: int) -> NewJob:
    content = {"subject": "Hello", "body": "Hello Ada, here is what you asked for.\n" * 5}
    return job(number, "EMAIL", {"email": f"b-{number}@example.com"}, content)


def call(number: int, port: int) -> NewJob:
    body = json.dumps({"at": time.monotonic(), "more": "x" * 400})
    return job(number, "WEBHOOK", {"webhookUrl": f"http://127.0.0.1:{port}/"}, {"body": body})


def job(number: int, channel: str, recipient: dict[str, str], content: dict[str, str]) -> NewJob:
    payload = {
        "notificationId": f"n-{number}",
        "tenantId": "t-1",
        "channel": channel,
        "recipient": recipient,
        "content": content,
    }
    return NewJob("send", payload, job_id=f"n-{number}")


@contextmanager
def worker(*, recorded: bool, **variables: str) -> Iterator[str]:
    """Run servers and a notifications-worker in the block; yield the address of its Redis."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        redis_url = opened.enter_context(redis_server(folder / "redis", durable=False)).url
        environment = {"REDIS_URL": redis_url, **UNLIMITED, **variables}
        if recorded:
            environment["DATABASE_URL"] = opened.enter_context(postgres_server(folder / "postgres")).url
            migrate(environment["DATABASE_URL"], lambda _: None)
        process = Process("notifications_worker", environment, folder / "log")
        opened.callback(process.end)
        process.ready()
        yield redis_url


@asynccontextmanager
async def opened_redis(redis_url: str) -> AsyncIterator[RedisConnection]:
    """Lend a connection."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    redis = RedisConnection(redis_url, client_name="bench")
    await redis.open()
    try:
        yield redis
    finally:
        await redis.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        await asyncio.sleep(0.02)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=COLUMNS, default=tuple(COLUMNS), help="what to measure (default: everything)")
    add("--jobs", type=int, default=5_000, help="backlog (default 5000)")
    add("--repeats", type=int, default=3, help="turns of each contender (default 3)")
    add("--outage-jobs", type=int, default=1_000, help="jobs that wait for the mail server (default 1000)")
    add("--seconds", type=float, default=10, help="length of the outage and of steady traffic (default 10)")
    add("--json", action="store_true", help="one machine-readable line instead of the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
