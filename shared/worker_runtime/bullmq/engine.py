"""A BullMQ worker: fetch, run, settle, fetch the next with the same call, and stop without losing or doubling a job.

One coroutine fetches while there are free slots; each job it claims starts a chain that runs job after job, for
settling one answers with the next. What running means, and what its outcome is, `consumer.py` knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from worker_runtime.bullmq import schedules
from worker_runtime.bullmq.claimed import NOTHING_ASKED, Answer, ClaimedJob
from worker_runtime.bullmq.leases import Lease, Leases, last_claimed_first
from worker_runtime.bullmq.reserve import LOOK_SECONDS, Reserve
from worker_runtime.bullmq.scripts import QueueScripts
from worker_runtime.bullmq.settlement import HandBack, Settlement
from worker_runtime.bullmq.settler import Refused, Settler, give_up
from worker_runtime.bullmq.waiter import MarkerWaiter
from worker_runtime.loops import UNWIND_SECONDS, Heartbeat, StopSignal, wait_at_most
from worker_runtime.redis.connection import PAUSE_AFTER_ERROR_SECONDS, RedisError, RedisUnavailable

if TYPE_CHECKING:
    from worker_runtime.bullmq.engine_options import EngineCounters, EngineOptions
    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.redis.connection import RedisConnection

log = structlog.get_logger()

Execute = Callable[[Lease], Awaitable[Settlement]]
Gate = Callable[[], Awaitable[float]]
TICK_SECONDS = 1.0
GATHER_SECONDS = 0.02
MOST_DOUBLINGS = 10


class QueueEngine:
    """Works one queue until it is told to stop.

    `execute` runs a leased job and must return its settlement whatever happens; an exception from it is a bug and ends
    `run`. `gate` says for how many seconds nothing should be fetched (0: go), `refused` what becomes of a job that may
    not be completed because of its children.
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
        refused: Refused = give_up,
    ) -> None:
        self._queue = queue
        self._execute = execute
        self._counters = counters
        self._options = options
        self._gate = gate
        self.scripts = QueueScripts(
            redis,
            queue,
            token=token,
            worker=options.worker,
            lock_ms=options.lock_ms,
            limit=options.limit,
            metrics_minutes=options.metrics_minutes,
        )
        self._reserve = Reserve(self.scripts, options)
        self._waiter = MarkerWaiter(blocking, redis, queue)
        self.leases = Leases(
            self.scripts,
            counters,
            label=queue.label,
            renew_seconds=options.renew_seconds,
            stalled_interval_ms=options.stalled_interval_ms,
            max_stalls=options.max_stalls,
        )
        self._settler = Settler(self.scripts, self.leases, options.keep_completed, options.keep_failed, refused)
        self._chains: set[asyncio.Task[None]] = set()
        self._returning: list[Lease] = []
        # Claimed when the stop had come.
        self._unstarted: list[Lease] = []
        self._slot_freed = asyncio.Event()
        self._stop = StopSignal()
        self._look = True
        # Of the claims made at once, as long as each brings a job. The first job brings none: it may be the only one.
        self._doublings = -1
        self._held_until = 0.0
        self._bug: BaseException | None = None
        self.heartbeat = Heartbeat()
        self.idle = asyncio.Event()
        # Jobs that had begun and outlived the drain deadline.
        self.interrupted = 0

    @property
    def in_flight(self) -> int:
        """Jobs running here now."""
        return len(self.leases)

    async def run(self, stop: StopSignal) -> None:
        """Work until `stop`, drain, hand back what outlives its deadline. Raises only what `execute` raised: a bug."""
        self._stop = stop
        closed = asyncio.Event()
        keeper = asyncio.create_task(self.leases.keep(closed), name=f"leases {self._queue.label}")
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
            self._note_answers(await self.heartbeat.while_waiting(self._claim_some()))
            if self._unstarted:
                late, self._unstarted = self._unstarted, []
                await self._hand_back(late)

    @property
    def _stopping(self) -> bool:
        return self._stop.requested.is_set() or self._bug is not None

    async def _free_to_fetch(self) -> bool:
        """Wait, for a second at most, for a free slot and the end of a hold."""
        if len(self._chains) >= self._options.concurrency and not await self._reserve.is_wanted(len(self._chains)):
            self._slot_freed.clear()
            await self._waiter.release()
            patience = LOOK_SECONDS if self._reserve.is_free(len(self._chains)) else TICK_SECONDS
            await wait_at_most(patience, self._slot_freed.wait(), self._stop.requested.wait())
            return False
        # Whoever comes for the reserve has looked.
        self._look = self._look or len(self._chains) >= self._options.concurrency
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

    async def _claim_some(self) -> list[Answer]:
        """Claim one job, and while there are more twice as many each time: else a far Redis fills slots one by one."""
        free = max(1, self._options.concurrency - len(self._chains))
        at_once = min(free, 2 ** min(max(0, self._doublings), MOST_DOUBLINGS))
        return [await self._claim()] if at_once == 1 else await asyncio.gather(*(self._claim() for _ in range(at_once)))

    async def _claim(self) -> Answer:
        try:
            answer = await self.scripts.claim()
        except RedisUnavailable:
            self.leases.look_for_orphans()
            await self._stop.sleep(PAUSE_AFTER_ERROR_SECONDS)
        except RedisError as error:
            log.error("claim_refused", queue=self._queue.label, error=str(error))  # noqa: TRY400  its text says it all
            await self._stop.sleep(TICK_SECONDS)
        else:
            if answer.job is not None:
                # Not only when the claims made with it are answered too: a job that nobody here holds is an orphan.
                self._start(answer.job)
            return answer
        return ASK_AGAIN

    def _note_answers(self, answers: list[Answer]) -> None:
        """See when, and how eagerly, to look again."""
        for answer in answers:
            self._take_note(answer)
        found = [answer.job is not None for answer in answers]
        self._doublings = self._doublings + 1 if all(found) else -1
        self._look = any(found) or any(answer.limited_ms > 0 for answer in answers)

    def _take_note(self, answer: Answer) -> None:
        self._hold(answer.limited_ms / 1000)
        self._waiter.expect_delayed(answer.next_delayed_ms)

    def _hold(self, seconds: float) -> None:
        if seconds > 0:
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    @property
    def _on_hold(self) -> bool:
        return time.monotonic() < self._held_until

    def _wants_more(self) -> bool:
        return not (self._stopping or self._on_hold or self._reserve.is_used(len(self._chains)))

    def _note_idleness(self) -> None:
        if self._chains or self._look or self._on_hold or self._waiter.knows_of_delayed:
            self.idle.clear()
        else:
            self.idle.set()

    # Running

    def _start(self, job: ClaimedJob) -> None:
        if self._stopping:
            self._unstarted.append(self.leases.take(job))
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
                await self._hand_back([self.leases.take(following)])
                return

    async def _run_job(self, job: ClaimedJob) -> Answer:
        lease = self.leases.take(job)
        try:
            await schedules.make_next(self.scripts, lease)
            if lease.gone:
                return NOTHING_ASKED
            settlement = await self._execute(lease)
            if isinstance(settlement, HandBack):
                self._hold(settlement.hold_seconds)
                return await self._return_in_order(lease)
            answer = await self._settler.settle(lease, settlement, fetch=self._wants_more)
            self._look = self._look or not answer.asked
            return answer
        finally:
            self.leases.release(lease)

    async def _return_in_order(self, lease: Lease) -> Answer:
        """Return held jobs together, or they would stand in `wait` in the order in which their handlers ended."""
        self._returning.append(lease)
        await asyncio.sleep(GATHER_SECONDS)
        together, self._returning = self._returning, []
        for one in last_claimed_first(together):
            await self._settler.settle(one, HandBack(), fetch=self._wants_more)
        self._look = True
        return NOTHING_ASKED

    # Stopping

    async def _drain(self) -> None:
        """Let jobs finish until the deadline, then interrupt them and hand them back, oldest first in line.

        After a bug there is no grace: what else runs here may be broken too, and is safe in the queue.
        """
        deadline = asyncio.ensure_future(self._stop.deadline())
        try:
            while self._chains and not deadline.done() and self._bug is None:
                self.heartbeat.beat()
                await asyncio.wait({deadline, *self._chains}, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline.cancel()
        if self._chains:
            await self._give_up()

    async def _give_up(self) -> None:
        leases = list(self.leases)
        for lease in leases:
            lease.abort()
        if self._chains:
            await asyncio.wait(self._chains, timeout=UNWIND_SECONDS)
        self.interrupted += await self._hand_back(leases)

    async def _hand_back(self, leases: list[Lease]) -> int:
        ordered = last_claimed_first(leases)
        for lease in ordered:
            lease.ending = True
        answers = await asyncio.gather(
            *(self.scripts.hand_back(lease.job.id) for lease in ordered), return_exceptions=True
        )
        returned = sum(isinstance(answer, int) and answer >= 0 for answer in answers)
        self._counters.handed_back(returned)
        for lease, answer in zip(ordered, answers, strict=True):
            self.leases.release(lease)
            if isinstance(answer, BaseException):
                log.warning("hand_back_failed", queue=self._queue.label, jobId=str(lease.job), error=str(answer))
        return returned


ASK_AGAIN = Answer(limited_ms=1)
