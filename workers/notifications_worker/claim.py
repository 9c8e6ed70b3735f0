"""The right to send one notification, kept in Redis where every replica sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from notifications_worker.notification import Notification
    from worker_runtime.job import Job
    from worker_runtime.state import AlreadySent, Claimed, DeliveryRecords, InProgress, Unknown

__all__ = ["TIME_LIMIT_SECONDS", "Claim"]

log = structlog.get_logger()

# Longer than a mail server may take by its own rules; a claim outlives it, so that nobody else sends meanwhile.
TIME_LIMIT_SECONDS = 600.0
CLAIM_SECONDS = TIME_LIMIT_SECONDS + 30.0
RECORD_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send one notification, against other jobs with the same notificationId.

    It belongs to the job, not to the attempt, which BullMQ's lock guards already: when a worker is killed, the next
    attempt need not wait for the dead one's claim to run out.
    """

    records: DeliveryRecords
    job: Job[Notification]

    async def take(self) -> Claimed | Unknown | InProgress | AlreadySent:
        """See `DeliveryRecords.claim`."""
        return await self.records.claim(*self._whose, CLAIM_SECONDS)

    async def sending(self) -> bool:
        """See `DeliveryRecords.sending`."""
        return await self.records.sending(*self._whose, CLAIM_SECONDS)

    async def sent(self, provider_message_id: str | None) -> None:
        """Record the acceptance. Waits for a Redis that is away: forgetting it now would send the message twice."""
        while True:
            try:
                await self.records.sent(*self._whose, provider_message_id or "")
            except (RedisUnavailable, RedisError) as error:
                log.warning("delivery_not_recorded_yet", error=str(error))
                await asyncio.sleep(RECORD_PAUSE_SECONDS)
            else:
                return

    async def release(self) -> None:
        """Give it back after a message that surely was not sent. Losing that costs nothing but a warning later."""
        try:
            await self.records.release(*self._whose)
        except (RedisUnavailable, RedisError) as error:
            log.warning("delivery_claim_not_released", error=str(error))

    @property
    def _whose(self) -> tuple[str, str, str]:
        payload = self.job.payload
        return payload.tenant_id, payload.notification_id, f"{self.job.queue}:{self.job.id}"
