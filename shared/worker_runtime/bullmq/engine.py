"""A BullMQ worker: fetch, run, settle, fetch the next with the same call, and stop without losing or doubling a job.

One coroutine fetches while there are free slots; each job it claims starts a chain that runs job after job, for
settling one answers with the next. What running means, and what its outcome is, `consumer.py` knows.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from worker_runtime.bullmq.connection import RedisError, RedisUnavailable
from worker_runtime.bullmq.leases import Lease, LeaseCounters, Leases
from worker_runtime.bullmq.scripts import (
    CHILDREN_FAILED,
    CHILDREN_PENDING,
    MISSING_JOB,
    MISSING_LOCK,
    NOTHING,
    Answer,
    ClaimedJob,
    Limit,
    QueueScripts,
)
from worker_runtime.bullmq.settlement import Complete, Delay, Fail, HandBack, Settlement
from worker_runtime.bullmq.waiter import MarkerWaiter
from worker_runtime.loops import Heartbeat, StopSignal, wait_at_most

if TYPE_CHECKING:
    from worker_runtime.bullmq.connection import RedisConnection
    from worker_runtime.bullmq.names import QueueName

log = structlog.get_logger()

Execute = Callable[[Lease], Awaitable[Settlement]]
Gate = Callable[[], Awaitable[float]]
DAY_SECONDS = 86_400
TICK_SECONDS = 1.0
UNWIND_SECONDS = 0.2
KEPT_STACKS = 10
PAUSE_AFTER_ERROR_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How one queue is worked. Retention applies where a job's own options say nothing."""

    concurrency: int = 10
    lock_ms: int = 10_000
    renew_seconds: float = 2.0
    stalled_interval_ms: int = 2_500
    max_stalls: int = 2
    limit: Limit | None = None
    worker: str = "worker"
    keep_completed: Mapping[str, int] = field(default_factory=lambda: {"age": DAY_SECONDS, "count": 100_000})
    keep_failed: Mapping[str, int] = field(default_factory=lambda: {"age": 30 * DAY_SECONDS})


class EngineCounters(LeaseCounters, Protocol):
    """The metrics an engine moves."""

    def handed_back(self, jobs: int) -> None:
        """Count jobs returned to `wait` because this process stops."""
        ...


class QueueEngine:
    """Works one queue until it is told to stop.

    `execute` runs a leased job and must return its settlement whatever happens; an exception from it is a bug and ends
    `run`. `gate` says for how many seconds nothing should be fetched (0: go).
    """

    def __init__(
        self,
        redis: RedisConnection,
        blocking: RedisConnection,
        queue: QueueName,
        execute: Execute,
        counters: EngineCounters,
        options: EngineOptions,
        *,
        token: str,
        gate: Gate | None = None,
    ) -> None:
        self._queue = queue
        self._execute = execute
        self._counters = counters
        self._options = options
        self._gate = gate
        self.scripts = QueueScripts(
            redis, queue, token=token, worker=options.worker, lock_ms=options.lock_ms, limit=options.limit
        )
        self._waiter = MarkerWaiter(blocking, redis, queue)
        self._leases = Leases(
            self.scripts,
            counters,
            label=queue.label,
            renew_seconds=options.renew_seconds,
            stalled_interval_ms=options.stalled_interval_ms,
            max_stalls=options.max_stalls,
        )
        self._chains: set[asyncio.Task[None]] = set()
        self._slot_freed = asyncio.Event()
        self._stop = StopSignal()
        self._look = True
        self._held_until = 0.0
        self._bug: BaseException | None = None
        self.heartbeat = Heartbeat()
        self.idle = asyncio.Event()
        # Jobs that had begun and outlived the drain deadline.
        self.interrupted = 0

    @property
    def in_flight(self) -> int:
        """Jobs running here now."""
        return len(self._leases)

    async def run(self, stop: StopSignal) -> None:
        """Work until `stop`, drain, hand back what outlives its deadline. Raises only what `execute` raised: a bug."""
        self._stop = stop
        closed = asyncio.Event()
        keeper = asyncio.create_task(self._leases.keep(closed), name=f"leases {self._queue.label}")
        keeper.add_done_callback(self._note_bug)
        try:
            await self._fetch_until_stopped()
            await self._waiter.release()
            await self._drain()
        finally:
            closed.set()
            await asyncio.wait({keeper}, timeout=TICK_SECONDS)
            keeper.cancel()
        if self._bug is not None:
            raise self._bug

    def _note_bug(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._bug = self._bug or bug
            self._slot_freed.set()

    # Fetching

    async def _fetch_until_stopped(self) -> None:
        while not self._stopping:
            self.heartbeat.beat()
            if not (await self._free_to_fetch() and await self._worth_a_look()):
                self._note_idleness()
                continue
            answer = await self._claim()
            self._take_note(answer)
            self._look = answer.job is not None or answer.limited_ms > 0
            if answer.job is not None:
                await self._start(answer.job)

    @property
    def _stopping(self) -> bool:
        return self._stop.requested.is_set() or self._bug is not None

    async def _free_to_fetch(self) -> bool:
        """Wait, for a second at most, for a free slot and the end of a hold."""
        if len(self._chains) >= self._options.concurrency:
            await self._waiter.release()
            self._slot_freed.clear()
            await wait_at_most(TICK_SECONDS, self._slot_freed.wait())
            return False
        if self._gate is not None:
            self._hold(await self._gate())
        if self._on_hold:
            await self._stop.sleep(min(TICK_SECONDS, self._held_until - time.monotonic()))
            return False
        return True

    async def _worth_a_look(self) -> bool:
        if not self._look:
            self._look = await self._waiter.wait(TICK_SECONDS, self._stop.requested)
        return self._look and not self._stopping

    async def _claim(self) -> Answer:
        try:
            return await self.scripts.claim()
        except RedisUnavailable:
            self._leases.look_for_orphans()
            await self._stop.sleep(PAUSE_AFTER_ERROR_SECONDS)
        except RedisError as error:
            log.error("claim_refused", queue=self._queue.label, error=str(error))  # noqa: TRY400  its text says it all
            await self._stop.sleep(TICK_SECONDS)
        return ASK_AGAIN

    def _take_note(self, answer: Answer) -> None:
        self._hold(answer.limited_ms / 1000)
        self._waiter.expect_delayed(answer.next_delayed_ms)

    def _hold(self, seconds: float) -> None:
        if seconds > 0:
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    @property
    def _on_hold(self) -> bool:
        return time.monotonic() < self._held_until

    def _note_idleness(self) -> None:
        if self._chains or self._look or self._on_hold:
            self.idle.clear()
        else:
            self.idle.set()

    # Running

    async def _start(self, job: ClaimedJob) -> None:
        if self._stopping:
            await self._hand_back([self._leases.take(job)])
            return
        self.idle.clear()
        chain = asyncio.create_task(self._run_chain(job), name=f"jobs of {self._queue.label}")
        self._chains.add(chain)
        chain.add_done_callback(self._end_chain)

    def _end_chain(self, chain: asyncio.Task[None]) -> None:
        self._chains.discard(chain)
        self._note_bug(chain)
        self._slot_freed.set()

    async def _run_chain(self, job: ClaimedJob) -> None:
        following: ClaimedJob | None = job
        while following is not None:
            answer = await self._run_job(following)
            self._take_note(answer)
            following = answer.job
            if following is not None and self._stopping:
                await self._hand_back([self._leases.take(following)])
                return

    async def _run_job(self, job: ClaimedJob) -> Answer:
        lease = self._leases.take(job)
        try:
            settlement = await self._execute(lease)
            return NOTHING if lease.gone else await self._settle(lease, settlement)
        finally:
            self._leases.release(lease)

    # Settling

    async def _settle(self, lease: Lease, settlement: Settlement) -> Answer:
        """Settle for certain: until Redis has answered, or the job has become somebody else's."""
        while not lease.gone:
            try:
                answer = await self._send(lease.job, settlement)
                if answer.code == MISSING_LOCK and await self._leases.retake(lease):
                    answer = await self._send(lease.job, settlement)
            except RedisUnavailable:
                self._leases.look_for_orphans()
                await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
                continue
            if answer.code in (CHILDREN_PENDING, CHILDREN_FAILED):
                settlement = Fail("CHILDREN_UNFINISHED: a child of this job is unfinished or has failed")
                continue
            self._explain(lease.job, answer.code)
            return answer
        return NOTHING

    async def _send(self, job: ClaimedJob, settlement: Settlement) -> Answer:
        scripts, fetch = self.scripts, not (self._stopping or self._on_hold)
        match settlement:
            case Complete(result):
                return await scripts.complete(job, result, self._kept(job, "removeOnComplete"), fetch=fetch)
            case Fail(reason, stack):
                kept = self._kept(job, "removeOnFail")
                return await scripts.fail(job, reason, stacks(job, stack), kept, fetch=fetch)
            case Delay(delay_ms=0, costs_attempt=True):
                self._look = True
                return await scripts.retry_now(job, failure_fields(job, settlement))
            case Delay(delay_ms, costs_attempt):
                fields = failure_fields(job, settlement)
                return await scripts.delay(job, delay_ms, costs_attempt=costs_attempt, fields=fields, fetch=fetch)
            case HandBack(hold_seconds):
                self._hold(hold_seconds)
                self._look = True
                return Answer(code=min(0, await scripts.hand_back(job.id)))

    def _kept(self, job: ClaimedJob, option: str) -> Mapping[str, int]:
        default = self._options.keep_completed if option == "removeOnComplete" else self._options.keep_failed
        return retention(job.options.get(option), default)

    def _explain(self, job: ClaimedJob, code: int) -> None:
        if code >= 0:
            return
        job_id = job.id.decode("utf-8", "backslashreplace")
        if code == MISSING_JOB:
            log.info("job_removed_while_active", queue=self._queue.label, jobId=job_id)
        else:
            # Taken by somebody else, or settled already by a call whose answer was lost with its connection.
            log.warning("settled_elsewhere", queue=self._queue.label, jobId=job_id, code=code)

    # Stopping

    async def _drain(self) -> None:
        """Let jobs finish until the deadline, then interrupt them and hand them back, oldest first in line."""
        if self._bug is not None:
            self._stop.request(0)
        deadline = asyncio.ensure_future(self._stop.deadline())
        try:
            while self._chains and not deadline.done():
                self.heartbeat.beat()
                await asyncio.wait({deadline, *self._chains}, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline.cancel()
        if self._chains:
            await self._give_up()

    async def _give_up(self) -> None:
        leases = list(self._leases)
        for lease in leases:
            lease.abort()
        if self._chains:
            await asyncio.wait(self._chains, timeout=UNWIND_SECONDS)
        self.interrupted += await self._hand_back(leases)

    async def _hand_back(self, leases: list[Lease]) -> int:
        # The head of `wait` is filled backwards: the job claimed last goes first.
        ordered = sorted(leases, key=lambda lease: lease.sequence, reverse=True)
        answers = await asyncio.gather(
            *(self.scripts.hand_back(lease.job.id) for lease in ordered), return_exceptions=True
        )
        returned = sum(isinstance(answer, int) and answer >= 0 for answer in answers)
        self._counters.handed_back(returned)
        for lease, answer in zip(ordered, answers, strict=True):
            self._leases.release(lease)
            if isinstance(answer, BaseException):
                log.warning("hand_back_failed", queue=self._queue.label, jobId=lease.job.id.decode(), error=str(answer))
        return returned


ASK_AGAIN = Answer(limited_ms=1)


def retention(asked: Any, default: Mapping[str, int]) -> Mapping[str, int]:
    """Translate `removeOnComplete` or `removeOnFail` as Node does: true, false, a count, or `{age, count, limit}`."""
    match asked:
        case True:
            return {"count": 0}
        case False:
            return {"count": -1}
        case int() | float():
            return {"count": int(asked)}
        case dict():
            return {
                key: int(asked[key]) for key in ("age", "count", "limit") if isinstance(asked.get(key), int | float)
            }
        case _:
            return default


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
    fields = {"failedReason": delay.reason, **delay.fields}
    if delay.stack:
        fields["stacktrace"] = json.dumps(stacks(job, delay.stack))
    return [text for pair in fields.items() for text in pair]
