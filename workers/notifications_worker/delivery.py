"""One notification from its job to its record: `Delivery` is the order of the decisions.

schema (the consumer did) -> channel, expired, scheduled -> sent before? -> suppressed, unwanted -> composed
-> circuit -> rate limit -> claim -> send -> record (`transmission.py`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from notifications_worker.channel import NotAccepted
from notifications_worker.ledger import UNAVAILABLE, Closed, Sending
from notifications_worker.preferences import Drop, Wait
from notifications_worker.results import done, not_sent
from notifications_worker.suppression import bulk
from notifications_worker.transmission import Parcel, Transmission, in_progress
from worker_runtime.delivery_state import AlreadySent, InProgress
from worker_runtime.logs import bound
from worker_runtime.outcome import DeadLetter, Defer, Hold, PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from notifications_worker.channel import AnyChannel, AnyRoute
    from notifications_worker.ledger import Ledger
    from notifications_worker.limits import Limits
    from notifications_worker.notification import Notification
    from notifications_worker.preferences import Preferences
    from notifications_worker.suppression import Suppressions
    from worker_runtime.breaker import Breaker
    from worker_runtime.clock import Clock
    from worker_runtime.job import Job
    from worker_runtime.metrics import DeliveryMetrics
    from worker_runtime.outcome import Outcome

__all__ = ["Delivery", "Desk"]

log = structlog.get_logger()

OUTAGE_SECONDS = 1.0


@dataclass(frozen=True)
class Desk:
    """What one channel's delivery works with."""

    channel: AnyChannel
    breaker: Callable[[AnyRoute], Breaker]
    ledger: Ledger
    suppressions: Suppressions
    limits: Limits
    preferences: Preferences
    metrics: DeliveryMetrics
    clock: Clock
    random: Random


class Delivery:
    """Delivers one channel's notifications: the handler of its queue, and what its dead letters are told to."""

    def __init__(self, desk: Desk) -> None:
        self._channel = desk.channel
        self._ledger = desk.ledger
        self._suppressions = desk.suppressions
        self._preferences = desk.preferences
        self._clock = desk.clock
        self._transmit = Transmission(
            desk.channel,
            desk.breaker,
            desk.ledger,
            desk.suppressions,
            desk.limits,
            desk.metrics,
            desk.clock,
            desk.random,
        )

    async def __call__(self, job: Job[Notification]) -> Outcome:
        """Deliver one notification, or say why not now or never. Raises PermanentError for one that never can be."""
        notification = job.payload
        with bound(notificationId=notification.notification_id, correlationId=correlation(notification)):
            self._must_be_ours(notification)
            recipient = self._channel.recipient(notification)
            sending = Sending.of(job, recipient, keep_payload=self._channel.keeps_payload)
            try:
                return await self._decided(job, sending)
            except UNAVAILABLE as error:
                # Nothing was sent: once something was, its record waits for the server to come back.
                log.warning("delivery_waits_for_its_record", error=str(error))
                return Defer("STATE_UNAVAILABLE", "nobody can say whether this was sent before", OUTAGE_SECONDS)

    async def buried(self, job: str, code: str, reason: str) -> Hold | None:
        """Record a dead letter before the queue does: see `OnDead`. `job` is its queue and id."""
        try:
            await self._ledger.buried(job, code, reason)
        except UNAVAILABLE as error:
            return Hold("STATE_UNAVAILABLE", f"a dead letter waits for its record: {error}", OUTAGE_SECONDS)
        return None

    async def _decided(self, job: Job[Notification], sending: Sending) -> Outcome:
        return (
            await self._expired(job.payload, sending)
            or self._scheduled(job.payload)
            or await self._settled(job.payload, sending)
            or await self._suppressed(job.payload, sending)
            or await self._unwanted(job.payload, sending)
            or await self._sent(job, sending)
        )

    def _must_be_ours(self, notification: Notification) -> None:
        if notification.channel != self._channel.name:
            raise PermanentError("INVALID_PAYLOAD", f"channel is not {self._channel.name}, which this queue is for")

    async def _expired(self, notification: Notification, sending: Sending) -> Outcome | None:
        if notification.expires_at is None or notification.expires_at.timestamp() > self._clock.now():
            return None
        if settled := await self._settled(notification, sending):
            return settled
        log.info("notification_expired", expiresAt=notification.expires_at.isoformat())
        await self._ledger.close(sending, Closed("expired", "EXPIRED", "expiresAt had passed"))
        return not_sent(notification, self._clock, "expired")

    def _scheduled(self, notification: Notification) -> Defer | None:
        if notification.scheduled_at is None:
            return None
        seconds = notification.scheduled_at.timestamp() - self._clock.now()
        return Defer("SCHEDULED", "scheduledAt is still to come", seconds, planned=True) if seconds > 0 else None

    async def _settled(self, notification: Notification, sending: Sending) -> Outcome | None:
        """Say so if it was sent before, or somebody is at it."""
        match await self._ledger.look(sending):
            case AlreadySent(provider_message_id, sent_at):
                log.info("notification_already_sent", providerMessageId=provider_message_id)
                return done(notification, self._clock, provider_message_id, at=sent_at)
            case InProgress(seconds):
                return in_progress(seconds)
        return None

    async def _suppressed(self, notification: Notification, sending: Sending) -> DeadLetter | None:
        tenant, _, channel = sending.delivery
        why = await self._suppressions.reason(tenant, channel, sending.recipient)
        if why is None and notification.is_bulk:
            why = await self._suppressions.reason(tenant, bulk(channel), sending.recipient)
        if why is None:
            return None
        await self._ledger.close(sending, Closed("suppressed", "SUPPRESSED", why))
        return DeadLetter("SUPPRESSED", f"nothing is sent to this recipient: {why}")

    async def _unwanted(self, notification: Notification, sending: Sending) -> Outcome | None:
        match await self._preferences(notification):
            case Drop(why):
                log.info("notification_unwanted", why=why)
                await self._ledger.close(sending, Closed("dropped", "UNWANTED", why))
                return not_sent(notification, self._clock, f"unwanted: {why}")
            case Wait(until):
                seconds = until.timestamp() - self._clock.now()
                return Defer("QUIET_HOURS", "its recipient is not to be disturbed now", max(0.0, seconds), planned=True)
        return None

    async def _sent(self, job: Job[Notification], sending: Sending) -> Outcome:
        try:
            message = await self._channel.compose(job)
        except NotAccepted as refused:
            return refused.verdict.outcome
        except PermanentError as error:
            await self._ledger.close(sending, Closed("dead", error.code, error.sentence))
            raise
        return await self._transmit(Parcel(job.payload, sending, message))


def correlation(notification: Notification) -> Any:
    """Return the correlationId the producer put into `metadata`, if any."""
    return (notification.metadata or {}).get("correlationId")
