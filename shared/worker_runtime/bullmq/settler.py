"""Settling a job for certain: until Redis has answered, or the job has become somebody else's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog

from worker_runtime.bullmq.claimed import NOTHING_ASKED, Answer, read_integer
from worker_runtime.bullmq.scripts import CHILDREN_FAILED, CHILDREN_PENDING, MISSING_JOB, MISSING_LOCK
from worker_runtime.bullmq.settlement import Complete, Delay, Fail, HandBack, Settlement
from worker_runtime.redis.connection import PAUSE_AFTER_ERROR_SECONDS, RedisError, RedisUnavailable
from worker_runtime.retry import sane_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_runtime.bullmq.claimed import ClaimedJob
    from worker_runtime.bullmq.leases import Lease, Leases
    from worker_runtime.bullmq.scripts import QueueScripts

log = structlog.get_logger()

Refused = Callable[["Lease"], Awaitable[Settlement]]
KEPT_STACKS = 10


class Settler:
    """Carries out settlements on one queue. What a job's own options say about retention wins over `keep_*`."""

    def __init__(
        self,
        scripts: QueueScripts,
        leases: Leases,
        keep_completed: Mapping[str, int],
        keep_failed: Mapping[str, int],
        refused: Refused,
    ) -> None:
        self._scripts = scripts
        self._leases = leases
        self._keep_completed = keep_completed
        self._keep_failed = keep_failed
        self._refused = refused

    async def settle(self, lease: Lease, settlement: Settlement, *, fetch: Callable[[], bool]) -> Answer:
        """Settle, and take the next job in the same call if `fetch` says so. A lease that is gone settles nothing."""
        doubtful, lease.ending = False, True
        while not lease.gone:
            try:
                if doubtful and not await self._scripts.still_claimed(lease.job):
                    log.info("settled_before", jobId=str(lease.job), because="the answer to an earlier call was lost")
                    break
                answer = await self._send(lease.job, settlement, fetch=fetch())
                if answer.code == MISSING_LOCK and await self._leases.retake(lease):
                    answer = await self._send(lease.job, settlement, fetch=fetch())
            except RedisUnavailable:
                doubtful = True
                self._leases.look_for_orphans()
                await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
                continue
            except RedisError as error:
                # Its key is not a job's any more, say. Left to the stalled pass, which gives up on it in the end.
                log.error("settling_refused", jobId=str(lease.job), error=str(error))  # noqa: TRY400  the text says all
                break
            if answer.code in (CHILDREN_PENDING, CHILDREN_FAILED):
                settlement = await self._refused(lease)
                continue
            explain(lease.job, answer.code)
            return answer
        return NOTHING_ASKED

    async def _send(self, job: ClaimedJob, settlement: Settlement, *, fetch: bool) -> Answer:
        scripts = self._scripts
        match settlement:
            case Complete(result):
                kept = retention(job.options.get("removeOnComplete"), self._keep_completed)
                return await scripts.complete(job, result, kept, fetch=fetch)
            case Fail(reason, stack, attempts):
                kept = retention(job.options.get("removeOnFail"), self._keep_failed)
                allowed = read_integer(job.options.get("attempts")) if attempts is None else attempts
                return await scripts.fail(job, printable(reason), stacks(job, stack), kept, allowed, fetch=fetch)
            case Delay(delay_ms=0, costs_attempt=True):
                return await scripts.retry_now(job, failure_fields(job, settlement))
            case Delay(delay_ms, costs_attempt):
                fields = failure_fields(job, settlement)
                return await scripts.delay(job, delay_ms, costs_attempt=costs_attempt, fields=fields, fetch=fetch)
            case HandBack():
                return Answer(code=min(0, await scripts.hand_back(job.id)), asked=False)


async def give_up(_: Lease) -> Settlement:
    """Bury a job that may not be completed because of its children."""
    return Fail("CHILDREN_UNFINISHED: a child of this job is unfinished or has failed")


def explain(job: ClaimedJob, code: int) -> None:
    """Say in the log why a settlement was refused; nothing else can be done about it."""
    if code == MISSING_JOB:
        log.info("job_removed_while_active", jobId=str(job))
    elif code < 0:
        # Taken by somebody else.
        log.warning("settled_elsewhere", jobId=str(job), code=code)


def retention(asked: Any, default: Mapping[str, int]) -> Mapping[str, int]:
    """Translate `removeOnComplete` or `removeOnFail` as Node does: true, false, a count, or `{age, count, limit}`."""
    if isinstance(asked, bool):
        return {"count": 0 if asked else -1}
    if isinstance(asked, dict):
        limits = {key: _limit(asked.get(key)) for key in ("age", "count", "limit")}
        return {key: limit for key, limit in limits.items() if limit is not None} or default
    count = _limit(asked)
    return default if count is None else {"count": count}


def _limit(asked: Any) -> int | None:
    """Read one of a producer's numbers; below zero means no limit."""
    number = sane_number(asked)
    return None if number is None else -1 if asked < 0 else int(number)


def stacks(job: ClaimedJob, stack: str) -> list[str]:
    """Append to the attempts' stack traces that the job already has, keeping the last few.

    A job's own `stackTraceLimit` may ask for fewer, down to none.
    """
    try:
        earlier = json.loads(job.fields.get(b"stacktrace", b"[]"))
    except (ValueError, RecursionError):
        earlier = []
    every = [*(earlier if isinstance(earlier, list) else []), *([stack] if stack else [])]
    asked = job.options.get("stackTraceLimit")
    kept = min(asked, KEPT_STACKS) if isinstance(asked, int) and asked >= 0 else KEPT_STACKS
    return every[max(0, len(every) - kept) :]


def failure_fields(job: ClaimedJob, delay: Delay) -> list[str]:
    """List the hash fields, name after name and value, that tell why a job waits."""
    fields = {name: printable(value) for name, value in delay.fields.items()}
    if delay.stack:
        fields["stacktrace"] = json.dumps(stacks(job, delay.stack))
    return [text for pair in fields.items() for text in pair]


def printable(text: str) -> str:
    """Replace what UTF-8 cannot carry: a reason may quote what a producer sent."""
    return text.encode("utf-8", "backslashreplace").decode()
