"""Puts deliveries back on their queues.

The record goes first: a job that came before it would be told that its notification was sent. A command that dies in
between leaves a delivery that waits for a job there is not; replaying that one again is harmless.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from notifications_worker.notification import Notification, Priority
from worker_ops.deliveries.store import key_of
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_ops.deliveries.store import DeliveriesStore, Key
    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.settings import WorkerSettings

REPLAYED = "replayed"
AT_WORK = "its job waits or is at work"
NOTHING_LEFT = "nothing is left to send it from: its record keeps no payload, and its job is gone"
UNREADABLE = "its job's data is no notification of that id"
EXPIRED = "its expiresAt has passed"
CHANGED = "somebody is at it, or it has changed since"
LOW_PRIORITY = 100
JOB_NAME = "replay"


class Replaying:
    """Every method may raise `DatabaseUnavailable`, `RedisUnavailable` and `RedisError`."""

    def __init__(
        self, store: DeliveriesStore, redis: RedisConnection, settings: WorkerSettings, by: str, reason: str
    ) -> None:
        self._store = store
        self._redis = redis
        self._settings = settings
        self._by = by
        self._reason = reason

    async def replay(self, rows: Sequence[Any]) -> dict[Key, str]:
        """Send deliveries again, at most 1,000; return what became of each: `replayed`, or why not."""
        found = await asyncio.gather(*(self._job_for(row) for row in rows))
        jobs = {key_of(row): job for row, job in zip(rows, found, strict=True) if isinstance(job, NewJob)}
        outcomes = {key_of(row): job for row, job in zip(rows, found, strict=True) if isinstance(job, str)}
        named = [(row, self._name_of(row, jobs[key_of(row)])) for row in rows if key_of(row) in jobs]
        marked = await self._store.again(named, self._by, self._reason) if named else set()
        await self._add({key: job for key, job in jobs.items() if key in marked})
        return outcomes | {key: REPLAYED if key in marked else CHANGED for key in jobs}

    async def _add(self, jobs: dict[Key, NewJob]) -> None:
        by_channel: dict[str, list[NewJob]] = defaultdict(list)
        for (_, _, channel), job in jobs.items():
            by_channel[channel].append(job)
        try:
            for channel, some in by_channel.items():
                await self._queue(channel).add_bulk(some)
        except (RedisUnavailable, RedisError) as error:
            names = " ".join(notification for _, notification, _ in jobs)
            raise CommandFailed(
                ExitCode.PARTIAL, f"these wait now, perhaps without a job: replay them again: {names}", str(error)
            ) from error

    async def _job_for(self, row: Any) -> NewJob | str:
        """Return the job that sends it again, or say why there is none."""
        queue = self._queue(row["channel"])
        old_job = row["job"].removeprefix(f"{queue.name.label}:")
        if await queue.unfinished([old_job]):
            return AT_WORK
        data = row["payload"] or await self._redis.call("HGET", queue.name.key(old_job), "data")
        if data is None:
            return NOTHING_LEFT
        return new_job(data if isinstance(data, bytes) else data.encode(), row["tenant_id"], row["notification_id"])

    def _queue(self, channel: str) -> JobQueue:
        return JobQueue(self._redis, self._settings.queue_name(channel))

    def _name_of(self, row: Any, job: NewJob) -> str:
        return f"{self._settings.queue_name(row['channel']).label}:{job.job_id}"


def new_job(data: bytes, tenant: str, notification_id: str) -> NewJob | str:
    """Return the job for that data, or say why it would send nothing."""
    try:
        notification = Notification.model_validate(json.loads(data))
    except (ValidationError, ValueError, RecursionError):
        return UNREADABLE
    if (notification.tenant_id, notification.notification_id) != (tenant, notification_id):
        return UNREADABLE
    if notification.expires_at is not None and notification.expires_at <= datetime.now(UTC):
        return EXPIRED
    low = notification.priority is Priority.LOW
    return NewJob(JOB_NAME, data, f"replay-{uuid.uuid4()}", priority=LOW_PRIORITY if low else 0)
