"""One job from claim to settled: the table of contents of the product.

`execute` reads top to bottom: observe, decode, run the handler within its time limit, see how it ended, and turn that
end into what the queue engine does with the job.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
from pydantic import BaseModel

from worker_runtime.bullmq.claimed import read_integer
from worker_runtime.bullmq.engine import Gate, QueueEngine
from worker_runtime.bullmq.notes import JobNotes
from worker_runtime.bullmq.settlement import Complete, Delay, Fail, HandBack, Settlement
from worker_runtime.job import Job
from worker_runtime.logs import JobInHand, job_in_hand, redact
from worker_runtime.outcome import (
    DeadLetter,
    Defer,
    Done,
    Hold,
    Outcome,
    PermanentError,
    Retry,
    failed_reason,
)
from worker_runtime.payload import decode
from worker_runtime.redis.connection import RedisError, RedisUnavailable
from worker_runtime.telemetry import job_span
from worker_runtime.time_limit import TimeLimit

if TYPE_CHECKING:
    from random import Random

    from worker_runtime.bullmq.claimed import ClaimedJob
    from worker_runtime.bullmq.engine_options import EngineOptions
    from worker_runtime.bullmq.leases import Lease
    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.loops import Heartbeat, StopSignal
    from worker_runtime.metrics import QueueMetrics
    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.retry import RetryPolicy

log = structlog.get_logger()

M = TypeVar("M", bound=BaseModel)
Handler = Callable[[Job[M]], Awaitable[Outcome]]
# Called with a job's id, name, `failedReason` and attempt (from 1) before it becomes a dead letter, whether or not its
# handler ever ran; answers with a Hold when that cannot be noted now. May be called twice for one job. Raises only for
# bugs.
OnDead = Callable[[str, str, str, int], Awaitable[Hold | None]]
STACK_LIMIT = 4_000
REASON_LIMIT = 1_000
# `dumps` would make an encoder for each job.
to_json = json.JSONEncoder(separators=(",", ":")).encode
SAID_STALLED = "job stalled more than allowable limit"


@dataclass(frozen=True)
class ConsumerOptions:
    """What a queue's jobs are promised. `max_payload_bytes` and `max_defer_seconds` end in the dead letters."""

    retry: RetryPolicy
    engine: EngineOptions
    time_limit_seconds: float = 60.0
    max_payload_bytes: int = 2_097_152
    max_defer_seconds: float = 86_400.0


class Consumer(Generic[M]):
    """The loop that works one queue: decodes payloads as `payload`, runs `handle`, and lets the engine settle."""

    def __init__(
        self,
        redis: RedisConnection,
        blocking: RedisConnection,
        queue: QueueName,
        payload: type[M],
        handle: Handler[M],
        options: ConsumerOptions,
        metrics: QueueMetrics,
        random: Random,
        *,
        token: str,
        gate: Gate | None = None,
        on_dead: OnDead | None = None,
    ) -> None:
        self.name = queue.label
        self._on_dead = on_dead
        self._blocking = blocking
        self._payload = payload
        self._handle = handle
        self._options = options
        self._time_limit = TimeLimit(options.time_limit_seconds)
        self._metrics = metrics
        self._random = random
        self._redis = redis
        self._prefix = queue.key("").encode()
        self.engine = QueueEngine(
            redis,
            blocking,
            queue,
            self.execute,
            metrics,
            options.engine,
            token=token,
            gate=gate,
            refused=self.reconsider,
        )
        metrics.in_flight.set_function(lambda: self.engine.in_flight)

    @property
    def heartbeat(self) -> Heartbeat:
        """When the fetch loop last turned."""
        return self.engine.heartbeat

    @property
    def handed_back(self) -> int:
        """Jobs returned to the queue because they outlived the drain deadline."""
        return self.engine.interrupted

    @property
    def drained(self) -> asyncio.Event:
        """Set while no job of the queue can run now."""
        return self.engine.idle

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        await self._blocking.open()
        try:
            await self.engine.run(stop)
        finally:
            await self._blocking.close()

    async def execute(self, lease: Lease) -> Settlement:
        """Run one claimed job and say what becomes of it. Raises only for a bug: a handler without an outcome."""
        claimed = lease.job
        # Set, not reset: each chain of jobs is a task with a context of its own, and the next job sets it anew.
        job = JobInHand(self.name, str(claimed), claimed.attempts_made + 1)
        job_in_hand.set(job)
        with job_span(job, claimed.name, claimed.options.get("tm")):
            started = time.perf_counter()
            outcome, stack = await self._run(lease)
            if lease.gone:
                return HandBack()
            self._record(claimed, outcome, time.perf_counter() - started)
            return await self._noted(lease, self._settlement(claimed, outcome, stack))

    async def reconsider(self, lease: Lease) -> Settlement:
        """Try a parent later whose handler is done and whose children are not, as Node does: they may be by then."""
        self._metrics.failed.inc()
        outcome = Retry("CHILDREN_UNFINISHED", "a child of this job is unfinished or has failed")
        return await self._noted(lease, self._retry(lease.job, outcome, ""))

    async def _run(self, lease: Lease) -> tuple[Outcome, str]:
        """Return the outcome and, for an unexpected error, its stack."""
        claimed = lease.job
        if doomed := deferred_failure(claimed):
            return doomed, ""
        payload = decode(self._payload, claimed.fields.get(b"data"), self._options.max_payload_bytes)
        if isinstance(payload, DeadLetter):
            return payload, ""
        return await self._within_limits(lease, self._job(claimed, payload))

    def _job(self, claimed: ClaimedJob, payload: M) -> Job[M]:
        return Job(
            str(claimed),
            claimed.name,
            self.name,
            payload,
            claimed.attempts_made + 1,
            claimed.created_at,
            JobNotes(self._redis, self._prefix, claimed),
        )

    async def _within_limits(self, lease: Lease, job: Job[M]) -> tuple[Outcome, str]:
        """Run the handler; whatever it raises, a cancellation of its own making included, is an outcome."""
        scope = self._time_limit.begin()
        try:
            async with scope:
                lease.scope = scope
                outcome = await self._handle(job)
        except PermanentError as error:
            return DeadLetter(error.code, error.sentence), ""
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return Retry("HANDLER_CANCELLED", "the handler was cancelled from within"), stack_of(error)
        except TimeoutError as error:
            if not scope.expired():
                return unexpected(error), stack_of(error)
            return Retry("TIME_LIMIT", f"the handler took longer than {self._time_limit.seconds:g} s"), ""
        except (Exception, SystemExit) as error:  # noqa: BLE001  a handler may fail in any way; the job may not vanish
            return unexpected(error), stack_of(error)
        finally:
            lease.scope = None
            self._time_limit.end(scope)
        if not isinstance(outcome, Outcome):
            raise TypeError(f"the handler of {self.name} returned {type(outcome).__name__}, which is no outcome: a bug")
        return outcome, ""

    def _record(self, claimed: ClaimedJob, outcome: Outcome, seconds: float) -> None:
        metrics = self._metrics
        if isinstance(outcome, (Defer, Hold)):
            metrics.deferred(outcome.code)
            return
        if claimed.attempts_made == 0 and claimed.created_at:
            metrics.wait.observe(max(0.0, time.time() - seconds - due_at(claimed)))
        metrics.finished(seconds)
        if not isinstance(outcome, Done):
            metrics.failed.inc()

    def _settlement(self, claimed: ClaimedJob, outcome: Outcome, stack: str) -> Settlement:
        match outcome:
            case Done(result):
                return Complete(to_json(result).encode())
            case Retry():
                return self._retry(claimed, outcome, stack)
            case Defer():
                return self._defer(claimed, outcome)
            case Hold(code, reason, seconds):
                log.info("job_held", code=code, reason=reason, seconds=round(seconds, 3))
                return HandBack(seconds)
            case DeadLetter(code, reason):
                return self._failure(claimed, code, reason, stack)

    def _retry(self, claimed: ClaimedJob, outcome: Retry, stack: str) -> Settlement:
        made = claimed.attempts_made + 1
        delay = self._options.retry.delay(claimed.options, made, self._random)
        if delay is None:
            return self._failure(claimed, outcome.code, outcome.reason, stack)
        self._metrics.retried(made + 1)
        seconds = max(delay, outcome.floor)
        log.warning("job_retries", code=outcome.code, reason=outcome.reason, seconds=round(seconds, 3))
        put_off_before = {DEFERRED_SINCE: ""} if DEFERRED_SINCE.encode() in claimed.fields else {}
        fields = {"failedReason": reason_of(outcome.code, outcome.reason)} | put_off_before
        return Delay(round(seconds * 1000), costs_attempt=True, stack=stack, fields=fields)

    def _defer(self, claimed: ClaimedJob, outcome: Defer) -> Settlement:
        since = deferred_since(claimed)
        reason = reason_of(outcome.code, outcome.reason)
        if not outcome.planned and time.time() - since > self._options.max_defer_seconds:
            return self._failure(claimed, "DEFERRED_TOO_LONG", reason, "")
        log.info("job_deferred", code=outcome.code, reason=outcome.reason, seconds=round(outcome.seconds, 3))
        fields = {DEFERRED_BECAUSE: reason} | ({} if outcome.planned else {DEFERRED_SINCE: f"{since:.3f}"})
        # 0 would mean: behind the others, at once; a deferral is never that.
        milliseconds = max(1, round(outcome.seconds * 1000))
        return Delay(milliseconds, costs_attempt=False, fields=fields)

    def _failure(self, claimed: ClaimedJob, code: str, reason: str, stack: str) -> Fail:
        return Fail(reason_of(code, reason), stack, self._options.retry.attempts(claimed.options))

    async def _noted(self, lease: Lease, settlement: Settlement) -> Settlement:
        """Let a job go to the dead letters when whoever waits for it knows."""
        if not isinstance(settlement, Fail):
            return settlement
        claimed = lease.job
        if self._on_dead and await self._is_surely_lost(claimed):
            # Whoever has it now, while we were frozen, may do better.
            return HandBack()
        if hold := await self._hold_of_whoever_waits(claimed, settlement.reason):
            log.info("job_held", code=hold.code, reason=hold.reason, seconds=round(hold.seconds, 3))
            return HandBack(hold.seconds)
        self._metrics.dead_lettered.inc()
        code, _, reason = settlement.reason.partition(": ")
        log.error("job_dead_lettered", code=code, reason=reason)
        return settlement

    async def _is_surely_lost(self, claimed: ClaimedJob) -> bool:
        try:
            return not await self.engine.scripts.still_claimed(claimed)
        except (RedisUnavailable, RedisError):
            return False

    async def _hold_of_whoever_waits(self, claimed: ClaimedJob, reason: str) -> Hold | None:
        if self._on_dead is None:
            return None
        return await self._on_dead(str(claimed), claimed.name, reason, claimed.attempts_made + 1)


# Our own fields in the job's hash, which Node ignores: since when (seconds since the epoch) and why it is put off.
DEFERRED_SINCE = "deferredSince"
DEFERRED_BECAUSE = "deferredBecause"


def reason_of(code: str, reason: str) -> str:
    """Write a `failedReason`: whatever it quotes, personal data is masked."""
    return redact(failed_reason(code, reason))


def due_at(claimed: ClaimedJob) -> float:
    """Return when the job could first have run: its producer's time plus the delay asked for."""
    return claimed.created_at + read_integer(claimed.options.get("delay", 0)) / 1000


def deferred_since(claimed: ClaimedJob) -> float:
    """Return when the job was first put off without having been tried since; now, when it was not."""
    try:
        return float(claimed.fields.get(DEFERRED_SINCE.encode(), b""))
    except ValueError:
        return time.time()


def deferred_failure(claimed: ClaimedJob) -> DeadLetter | None:
    """BullMQ marks a job that must fail at its next claim: it stalled too often, or a child of it failed."""
    mark = claimed.fields.get(b"defa")
    if mark is None:
        return None
    if text(mark) == SAID_STALLED:
        return DeadLetter("STALLED", "the worker died or froze while running it, each time it was tried")
    return DeadLetter("CHILD_FAILED", text(mark))


def unexpected(error: BaseException) -> Retry:
    """Name an error that the handler did not foresee; its text may hold anything, so it is redacted."""
    return Retry("HANDLER_FAILED", f"{type(error).__name__}: {str(error)[:REASON_LIMIT]}")


def stack_of(error: BaseException) -> str:
    """Format the stack for the job's hash: its end, redacted."""
    return redact("".join(traceback.format_exception(error))[-STACK_LIMIT:])


def text(raw: bytes) -> str:
    """Read bytes that somebody else wrote; those that are not UTF-8 are shown as escapes."""
    return raw.decode("utf-8", "backslashreplace")
