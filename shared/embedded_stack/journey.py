"""What became of the committed events: read from the queues and the mailbox, shown as a table."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from worker_runtime.bullmq.names import QueueName
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedded_stack.mailbox import ReceivedMail
    from embedded_stack.sample_events import SampleEvent

NOTIFICATION_HEADER = "X-IntelliFlow-Notification-Id"
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class QueuedJob:
    """A job as its queue records it; times in seconds since the epoch, `finished_at` is None while it is not done."""

    attempts: int
    queued_at: float
    finished_at: float | None
    failed_reason: str | None


@dataclass(frozen=True)
class Journey:
    """One event's way; None is what has not happened (or, for an event without a rule, never will)."""

    event: SampleEvent
    handled: QueuedJob | None
    notified: QueuedJob | None
    mail: ReceivedMail | None

    @property
    def is_complete(self) -> bool:
        """Whether everything that was to happen has."""
        handled = self.handled is not None and self.handled.finished_at is not None
        notified = self.notified is not None and self.notified.finished_at is not None and self.mail is not None
        return handled and (notified or not self.event.rule)

    @property
    def stopped_at(self) -> str:
        """Where an incomplete journey stands, in a sentence."""
        events, emails = queue_names()
        if self.handled is None:
            return "it was not published from the outbox"
        for queue, job in ((events, self.handled), (emails, self.notified)):
            if job is None:
                return f"nothing was queued on {queue.label}"
            if job.finished_at is None or job.failed_reason:
                return f"the job on {queue.label} {job.failed_reason or 'is not done'} (attempts: {job.attempts})"
        return "the mail server has not received the mail"


def queue_names() -> tuple[QueueName, QueueName]:
    """Return the queues an event passes: events, then e-mail."""
    prefix = os.environ.get("QUEUE_PREFIX") or "intelliflow"
    return QueueName(prefix, "events"), QueueName(f"{prefix}:notifications", "email")


def settled_journeys(
    redis_url: str, events: Sequence[SampleEvent], mails: Sequence[ReceivedMail], *, seconds: float
) -> list[Journey]:
    """Read the journeys, waiting up to `seconds` for them to be complete: a mail comes before its job is done."""
    return asyncio.run(_settled_journeys(redis_url, events, mails, time.monotonic() + seconds))


async def _settled_journeys(
    redis_url: str, events: Sequence[SampleEvent], mails: Sequence[ReceivedMail], deadline: float
) -> list[Journey]:
    redis = RedisConnection(redis_url, client_name="first-run")
    await redis.open()
    try:
        while True:
            journeys = [await _journey(redis, event, mails) for event in events]
            if all(journey.is_complete for journey in journeys) or time.monotonic() > deadline:
                return journeys
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await redis.close()


async def _journey(redis: RedisConnection, event: SampleEvent, mails: Sequence[ReceivedMail]) -> Journey:
    events, emails = queue_names()
    notification = event.notification_id
    return Journey(
        event,
        handled=await _job(redis, events.key(str(event.id))),
        notified=await _job(redis, emails.key(notification)) if notification else None,
        mail=next((mail for mail in mails if mail.header(NOTIFICATION_HEADER) == notification), None),
    )


async def _job(redis: RedisConnection, key: str) -> QueuedJob | None:
    queued, finished, attempts, reason = await redis.call(
        "HMGET", key, "timestamp", "finishedOn", "atm", "failedReason"
    )
    if queued is None:
        return None
    return QueuedJob(
        attempts=int(attempts or 0),
        queued_at=int(queued) / 1000,
        finished_at=int(finished) / 1000 if finished else None,
        failed_reason=reason.decode(errors="replace") if reason else None,
    )


def table(journeys: Sequence[Journey]) -> str:
    """One line an event; times are milliseconds since its commit."""
    events, emails = queue_names()
    layout = "{:<15} {:<12}  {:>6} {:>6} {:>8}  {:>6} {:>6} {:>8}  {:>8}  {}".format
    queues = f"{'':<28}  {events.label:<22}  {emails.label:<32}"
    columns = layout(
        "EVENT", "COMMITTED", "QUEUED", "DONE", "ATTEMPTS", "QUEUED", "DONE", "ATTEMPTS", "ACCEPTED", "MAIL TO"
    )
    return "\n".join([queues.rstrip(), columns, *(layout(*_cells(journey)).rstrip() for journey in journeys)])


def _cells(journey: Journey) -> Iterator[str]:
    since = journey.event.committed_at
    yield journey.event.event_type
    yield datetime.fromtimestamp(since, UTC).strftime("%H:%M:%S.%f")[:-3]
    for job in (journey.handled, journey.notified):
        yield _milliseconds(since, job.queued_at if job else None)
        yield _milliseconds(since, job.finished_at if job else None)
        yield str(job.attempts) if job else "-"
    yield _milliseconds(since, journey.mail.received_at.timestamp() if journey.mail else None)
    yield ", ".join(journey.mail.recipients) if journey.mail else ""


def _milliseconds(since: float, moment: float | None) -> str:
    # BullMQ's clock ticks in whole milliseconds, so something quick may seem to precede its cause.
    return "-" if moment is None else f"+{max(0, round((moment - since) * 1000))}"
