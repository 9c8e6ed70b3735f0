"""One notification from claim to record: `Delivery.__call__` and `_send_once` are the order of the decisions.

    schema (the consumer did) -> channel, expired, scheduled -> composed -> sent before? -> circuit -> send -> record

At least once, and once wherever it can be known: a worker killed between the provider's acceptance and our record of it
sends again, under the same Message-ID; one killed after the record never does.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from notifications_worker.channel import Circuit, NotAccepted
from notifications_worker.claim import Claim
from notifications_worker.notification import DeliveryResult
from worker_runtime.breaker import CircuitOpen
from worker_runtime.logs import bound
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, PermanentError, Retry
from worker_runtime.redis.connection import RedisError, RedisUnavailable
from worker_runtime.state import AlreadySent, InProgress, Unknown

if TYPE_CHECKING:
    from random import Random

    from notifications_worker.channel import AnyChannel, Verdict
    from notifications_worker.notification import Notification
    from worker_runtime.breaker import Breaker, Call
    from worker_runtime.clock import Clock
    from worker_runtime.job import Job
    from worker_runtime.metrics import DeliveryMetrics
    from worker_runtime.outcome import Outcome
    from worker_runtime.state import DeliveryRecords

__all__ = ["OUTCOMES", "Delivery"]

log = structlog.get_logger()

# The values of the delivery metric's `outcome` label: one for each end of a call to a provider.
OUTCOMES = ("accepted", "retried", "deferred", "rejected", "unknown")
STATE_PAUSE_SECONDS = 1.0
IN_PROGRESS_PAUSE_SECONDS = 5.0
# Jobs that met an outage come back one after another rather than all at once.
SPREAD_SECONDS = 2.0


class Delivery:
    """Delivers one channel's notifications: the handler of its queue."""

    def __init__(
        self,
        channel: AnyChannel,
        breaker: Breaker,
        records: DeliveryRecords,
        metrics: DeliveryMetrics,
        clock: Clock,
        random: Random,
    ) -> None:
        self._channel = channel
        self._breaker = breaker
        self._records = records
        self._metrics = metrics
        self._clock = clock
        self._random = random
        metrics.announce(channel.name, channel.provider, OUTCOMES)

    async def __call__(self, job: Job[Notification]) -> Outcome:
        """Deliver one notification, or say why not now or never. Raises PermanentError for one that never can be."""
        notification = job.payload
        with bound(notificationId=notification.notification_id, correlationId=correlation(notification)):
            self._must_be_ours(notification)
            return self._expired(notification) or self._scheduled(notification) or await self._send_once(job)

    def _must_be_ours(self, notification: Notification) -> None:
        if notification.channel is not self._channel.name:
            raise PermanentError("INVALID_PAYLOAD", f"channel is not {self._channel.name}, which this queue is for")

    def _expired(self, notification: Notification) -> Done | None:
        if notification.expires_at is None or notification.expires_at.timestamp() > self._clock.now():
            return None
        log.info("notification_expired", expiresAt=notification.expires_at.isoformat())
        return self._done(notification, success=False, error="expired")

    def _scheduled(self, notification: Notification) -> Defer | None:
        if notification.scheduled_at is None:
            return None
        seconds = notification.scheduled_at.timestamp() - self._clock.now()
        return Defer("SCHEDULED", "scheduledAt is still to come", seconds, planned=True) if seconds > 0 else None

    async def _send_once(self, job: Job[Notification]) -> Outcome:
        message = self._channel.compose(job.payload, job.created_at)
        claim = Claim(self._records, job)
        try:
            return await self._not_ours_to_send(claim) or await self._through_circuit(job.payload, message, claim)
        except (RedisUnavailable, RedisError):
            # Nothing was sent: once something was, `Claim.sent` waits for Redis to come back.
            return Defer("STATE_UNAVAILABLE", "Redis could not say whether this was sent before", STATE_PAUSE_SECONDS)

    async def _not_ours_to_send(self, claim: Claim) -> Outcome | None:
        """Take the right to send and say so, unless it was sent before or another job is sending it."""
        match await claim.take():
            case AlreadySent(provider_message_id, sent_at):
                log.info("notification_already_sent", providerMessageId=provider_message_id)
                return self._done(claim.job.payload, provider_message_id, at=sent_at)
            case InProgress(seconds):
                return in_progress(seconds)
            case Unknown():
                log.warning("notification_may_arrive_twice", reason="how sending it ended before is unknown")
        return None if await claim.sending() else in_progress(IN_PROGRESS_PAUSE_SECONDS)

    async def _through_circuit(self, notification: Notification, message: Any, claim: Claim) -> Outcome:
        try:
            async with self._breaker.guard() as call:
                outcome = await self._send(notification, message, claim, call)
        except CircuitOpen as circuit:
            await claim.release()
            return Hold("CIRCUIT_OPEN", f"the circuit of {circuit.dependency} is open", circuit.seconds)
        except NotAccepted as unknown:
            return unknown.verdict.outcome
        return await self._until_tried_again(outcome) if isinstance(outcome, Defer) else outcome

    async def _send(self, notification: Notification, message: Any, claim: Claim, call: Call) -> Outcome:
        """Raise NotAccepted only for an end that says nothing about the circuit."""
        started = self._clock.monotonic()
        try:
            accepted = await self._channel.send(message)
        except NotAccepted as refused:
            self._count(outcome_label(refused.verdict), started)
            return await self._refused(refused, claim, call)
        now = self._clock.now()
        await claim.sent(accepted.provider_message_id)
        seconds = self._count("accepted", started)
        self._log_accepted(notification, accepted.provider_message_id, seconds)
        return self._done(notification, accepted.provider_message_id, at=now, seconds=seconds)

    async def _refused(self, refused: NotAccepted, claim: Claim, call: Call) -> Outcome:
        verdict = refused.verdict
        log.warning(
            "notification_not_accepted", code=verdict.outcome.code, provider=self._channel.provider, said=refused.text
        )
        match verdict.circuit:
            case Circuit.UNTOLD:
                raise refused  # The claim stays as it is: `sending`, which the next attempt reads as unknown.
            case Circuit.FAILED:
                call.failed(verdict.outcome.reason)
            case Circuit.MISCONFIGURED:
                call.failed_for_good(verdict.outcome.reason)
            case Circuit.WORKS:
                pass
        await claim.release()
        return verdict.outcome

    async def _until_tried_again(self, deferral: Defer) -> Defer:
        """Wait for as long as the circuit stays open, should this have been the failure that opened it."""
        seconds = max(deferral.seconds, await self._breaker.open_for())
        return replace(deferral, seconds=seconds + self._random.uniform(0, SPREAD_SECONDS))

    def _count(self, outcome: str, started: float) -> float:
        seconds = self._clock.monotonic() - started
        self._metrics.tried(self._channel.name, self._channel.provider, outcome, seconds)
        return seconds

    def _log_accepted(self, notification: Notification, provider_message_id: str | None, seconds: float) -> None:
        log.info(
            "notification_accepted",
            channel=self._channel.name,
            provider=self._channel.provider,
            # Without its domain: what looks like an address is masked in logs.
            providerMessageId=(provider_message_id or "").strip("<>").partition("@")[0],
            recipient=self._channel.shown(self._channel.recipient(notification)),
            milliseconds=round(seconds * 1000),
        )

    def _done(
        self,
        notification: Notification,
        provider_message_id: str | None = None,
        *,
        success: bool = True,
        error: str | None = None,
        at: float | None = None,
        seconds: float = 0.0,
    ) -> Done:
        result = DeliveryResult(
            notification_id=notification.notification_id,
            channel=self._channel.name,
            success=success,
            provider_message_id=provider_message_id or None,
            delivered_at=datetime.fromtimestamp(self._clock.now() if at is None else at, UTC),
            delivery_time_ms=round(seconds * 1000),
            error=error,
        )
        return Done(result.as_json())


def in_progress(seconds: float) -> Defer:
    """Say that another job with the same notificationId is being sent; it is looked at again soon."""
    reason = "another job with the same notificationId is being sent"
    return Defer("DELIVERY_IN_PROGRESS", reason, min(seconds, IN_PROGRESS_PAUSE_SECONDS))


def outcome_label(verdict: Verdict) -> str:
    """Return the metric's word for a verdict."""
    if verdict.circuit is Circuit.UNTOLD:
        return "unknown"
    match verdict.outcome:
        case Retry():
            return "retried"
        case Defer():
            return "deferred"
        case DeadLetter():
            return "rejected"


def correlation(notification: Notification) -> Any:
    """Return the correlationId the producer put into `metadata`, if any."""
    return (notification.metadata or {}).get("correlationId")
