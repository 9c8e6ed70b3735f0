"""Who may send a notification now, and what became of it: in PostgreSQL with all its attempts, or in Redis without.

At least once, and once wherever it can be known. What is being sent is written down before and after: a worker that is
killed in between leaves a doubt, which the next sender is told of; one that is killed after never sends again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from notifications_worker.channel import Reply
    from notifications_worker.notification import Notification
    from worker_runtime.delivery_state import DeliveryRecords, Standing
    from worker_runtime.job import Job

__all__ = ["LEASE_SECONDS", "TIME_LIMIT_SECONDS", "UNAVAILABLE", "Attempt", "Closed", "DeliveryId", "Ledger", "Sending"]

log = structlog.get_logger()

# Longer than a mail server may take by its own rules; a lease outlives it, so that nobody else sends meanwhile.
TIME_LIMIT_SECONDS = 600.0
LEASE_SECONDS = TIME_LIMIT_SECONDS + 30.0
PAUSE_SECONDS = 0.2
# What a ledger raises when it cannot be asked now.
UNAVAILABLE = (DatabaseUnavailable, RedisUnavailable, RedisError)


class DeliveryId(NamedTuple):
    """What is delivered once: a notification over a channel."""

    tenant: str
    notification: str
    channel: str


@dataclass(frozen=True, slots=True)
class Sending:
    """A job that is to deliver a notification.

    The right to send belongs to the job, not to its attempt, which BullMQ's lock guards already: when a worker is
    killed, the next attempt need not wait for the dead one's lease to run out.
    """

    delivery: DeliveryId
    job: str
    attempt: int
    recipient: str
    event_id: str | None = None
    payload: dict[str, Any] | None = None

    @classmethod
    def of(cls, job: Job[Notification], recipient: str, *, keep_payload: bool = False) -> Sending:
        """Describe a job."""
        notification = job.payload
        event_id = (notification.metadata or {}).get("eventId")
        return cls(
            DeliveryId(notification.tenant_id, notification.notification_id, notification.channel),
            f"{job.queue}:{job.id}",
            job.attempt,
            recipient,
            event_id if isinstance(event_id, str) else None,
            notification.model_dump(mode="json", by_alias=True, exclude_none=True) if keep_payload else None,
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to a provider: when it began (seconds since the epoch), how long it took, and how it ended.

    `outcome` is the metric's label. `unsent`: nobody has got the message. `code` and `reason` are those of the job's
    outcome.
    """

    provider: str
    started_at: float
    seconds: float
    outcome: str
    unsent: bool = False
    provider_message_id: str | None = None
    code: str | None = None
    reason: str | None = None
    reply: Reply | None = None

    @property
    def accepted(self) -> bool:
        """Whether the provider took it."""
        return self.outcome == "accepted"


@dataclass(frozen=True, slots=True)
class Closed:
    """A delivery that ends without a provider: its state (`suppressed`, `expired`, `dropped`, `dead`) and why."""

    state: str
    code: str
    reason: str


class Ledger(Protocol):
    """Every method raises one of `UNAVAILABLE` for what time may cure; asked again, each does no more than it did."""

    async def look(self, sending: Sending) -> Standing:
        """Return where a delivery stands."""
        ...

    async def begin(self, sending: Sending, provider: str) -> Standing:
        """Take the right to send, if it is free or doubtful, and note that the message leaves now."""
        ...

    async def ended(self, sending: Sending, attempt: Attempt) -> None:
        """Record how it ended; what was accepted stays so, whoever has the right by now."""
        ...

    async def close(self, sending: Sending, end: Closed) -> None:
        """Record that it will not be sent."""
        ...

    async def buried(self, job: str, code: str, reason: str) -> None:
        """Record that a job is a dead letter, unless what it was to send was accepted or closed."""
        ...


class RedisLedger:
    """Knows for 7 days what was sent, and has no history."""

    def __init__(self, records: DeliveryRecords) -> None:
        self._records = records

    async def look(self, sending: Sending) -> Standing:
        """See `Ledger`."""
        return await self._records.look(sending.delivery, sending.job)

    async def begin(self, sending: Sending, provider: str) -> Standing:  # noqa: ARG002  no history, no provider
        """See `Ledger`."""
        return await self._records.begin(sending.delivery, sending.job, LEASE_SECONDS)

    async def ended(self, sending: Sending, attempt: Attempt) -> None:
        """See `Ledger`."""
        if attempt.accepted:
            await self._records.sent(sending.delivery, sending.job, attempt.provider_message_id or "")
        elif attempt.unsent:
            await self._records.unsent(sending.delivery, sending.job)
        else:
            await self._records.in_doubt(sending.delivery, sending.job)

    async def close(self, sending: Sending, end: Closed) -> None:  # noqa: ARG002  no history, no end
        """See `Ledger`."""
        await self._records.unsent(sending.delivery, sending.job)

    async def buried(self, job: str, code: str, reason: str) -> None:
        """See `Ledger`."""


async def until_written(write: Callable[[], Awaitable[None]]) -> None:
    """Record an acceptance, waiting for a server that is away: to forget it now would send the message twice."""
    while True:
        try:
            await write()
        except UNAVAILABLE as error:
            log.warning("delivery_not_recorded_yet", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
