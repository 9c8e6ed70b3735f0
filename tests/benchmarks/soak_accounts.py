"""The soak's bookkeeping: what Redis tells of each job, what the workers wrote of each run, and whether they agree."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from benchmarks.soak_fleet import Fleet, Kill, Kind, Member
    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.redis.connection import RedisConnection

# A command may reach Redis a little after its sender's end, and notes are written a little beside what they are of.
LATE_SECONDS = 0.05
CHUNK = 1_000
NEVER = float("inf")
# `waiting` is what a claim ends in that nobody settles: recovered from a dead worker, or handed back.
ENDS_A_CLAIM = {"completed", "failed", "delayed", "waiting"}
Cause = tuple["Kind | None", str]


@dataclass(frozen=True)
class Run:
    """One call of a handler, in seconds since the epoch; `ended` is infinite if it never did."""

    job_id: str
    by: Member
    began: float
    ended: float


@dataclass(frozen=True)
class Hold:
    """A job in a worker's hands, as the event stream tells: from its claim until it was settled or taken away."""

    job_id: str
    since: float
    until: float
    settled: bool

    def met(self, kill: Kill) -> bool:
        return self.since - LATE_SECONDS < kill.done and kill.begun < self.until

    def by(self, runs: Sequence[Run]) -> Member | None:
        """Return whose hands it was in; None if nothing was begun in them."""
        begun = [run for run in runs if self.since - LATE_SECONDS < run.began < self.until]
        return min(begun, key=lambda run: abs(run.began - self.since)).by if begun else None


@dataclass(frozen=True)
class Account:
    """The result. Repeated runs are told apart by who held the job and what was killed; the last six must be 0."""

    jobs: int
    completed: int
    stalled_too_often: int
    runs: int
    planned_runs: int
    held_at_a_kill: int
    repeated_ours_worker: int
    repeated_ours_redis: int
    repeated_node_worker: int
    repeated_node_redis: int
    repeated_by_nobody_known: int
    workers_killed: int
    workers_terminated: int
    redis_killed: int
    lost: int
    completed_more_than_once: int
    repeated_without_a_kill: int
    cut_off_without_a_kill: int
    let_go_without_a_kill: int
    wrong_attempts: int

    @property
    def faults(self) -> dict[str, int]:
        """What should not be."""
        wrong = [field.name for field in fields(self)][-6:]
        return {name: count for name in wrong if (count := getattr(self, name))}

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


async def account(planned: Mapping[str, int], fleet: Fleet, redis: RedisConnection, queue: QueueName) -> Account:
    """Compare what was to happen, runs by job id, with what did."""
    completed, failed = await ids(redis, queue, "completed"), await ids(redis, queue, "failed")
    given_up = {job_id for job_id in failed if await stalled_too_often(redis, queue, job_id)}
    events = [event async for event in told(redis, queue)]
    runs = list(all_runs(fleet.past))
    held = explained(holds(events), runs, fleet)
    causes = repetitions(planned, runs, held)
    settled = Counter(job_id for what, job_id, _ in events if what == "completed")
    return Account(
        jobs=len(planned),
        completed=len(completed),
        stalled_too_often=len(given_up),
        runs=len(runs),
        planned_runs=sum(planned.values()),
        held_at_a_kill=sum(what in ("worker", "redis") for _, what in held.values()),
        repeated_ours_worker=causes["ours", "worker"],
        repeated_ours_redis=causes["ours", "redis"],
        repeated_node_worker=causes["Node", "worker"],
        repeated_node_redis=causes["Node", "redis"],
        repeated_by_nobody_known=causes[None, "worker"] + causes[None, "redis"],
        workers_killed=sum(member.killed is not None for member in fleet.past),
        workers_terminated=sum(member.killed is None for member in fleet.past),
        redis_killed=len(fleet.outages),
        lost=len(planned.keys() - completed - given_up),
        completed_more_than_once=sum(count - 1 for count in settled.values()),
        repeated_without_a_kill=causes[None, "nothing"],
        cut_off_without_a_kill=sum(run.ended == NEVER and run.by.killed is None for run in runs),
        let_go_without_a_kill=sum(what == "nothing" and not hold.settled for hold, (_, what) in held.items()),
        wrong_attempts=len(completed) - await right_attempts(redis, queue, planned, sorted(completed)),
    )


async def ids(redis: RedisConnection, queue: QueueName, state: str) -> set[str]:
    return {job_id.decode() for job_id in await redis.call("ZRANGE", queue.key(state), 0, -1)}


async def stalled_too_often(redis: RedisConnection, queue: QueueName, job_id: str) -> bool:
    reason, stalls = await redis.call("HMGET", queue.key(job_id), "failedReason", "stc")
    return b"stalled" in reason.lower() and int(stalls or 0) > 0


async def told(redis: RedisConnection, queue: QueueName) -> AsyncIterator[tuple[str, str, float]]:
    """Yield the event stream: what, of which job, and when, in seconds since the epoch."""
    start = "-"
    while entries := await redis.call("XRANGE", queue.key("events"), start, "+", "COUNT", CHUNK):
        for entry_id, said in entries:
            event = dict(zip(said[::2], said[1::2], strict=True))
            if b"jobId" in event:
                yield event[b"event"].decode(), event[b"jobId"].decode(), int(entry_id.split(b"-")[0]) / 1000
        start = f"({entries[-1][0].decode()}"


def holds(events: Iterable[tuple[str, str, float]]) -> Iterator[Hold]:
    """Pair each claim with what became of it."""
    since: dict[str, float] = {}
    for what, job_id, moment in events:
        if what == "active":
            since[job_id] = moment
        elif what in ENDS_A_CLAIM and job_id in since:
            yield Hold(job_id, since.pop(job_id), moment, settled=what != "waiting")


def explained(held: Iterable[Hold], runs: Sequence[Run], fleet: Fleet) -> dict[Hold, Cause]:
    """Say of each claim whose it was, and what was killed meanwhile."""
    of_job: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        of_job[run.job_id].append(run)
    found: dict[Hold, Cause] = {}
    for hold in held:
        by = hold.by(of_job[hold.job_id])
        found[hold] = by.kind if by else None, what_was_killed(hold, by, fleet)
    return found


def what_was_killed(hold: Hold, by: Member | None, fleet: Fleet) -> str:
    # A claim may have died with its worker before anything began.
    suspects = [by] if by else fleet.past
    if any(member.killed and hold.met(member.killed) for member in suspects):
        return "worker"
    if any(map(hold.met, fleet.outages)):
        return "redis"
    # One that arrives at a worker that stops is handed back unbegun.
    returned = by is None and any(member.stopped and hold.met(member.stopped) for member in fleet.past)
    return "stopped" if returned else "nothing"


def repetitions(planned: Mapping[str, int], runs: Sequence[Run], held: Mapping[Hold, Cause]) -> Counter[Cause]:
    """Count the runs nobody planned by the unsettled claims that led to them."""
    unsettled: defaultdict[str, list[Cause]] = defaultdict(list)
    for hold, cause in held.items():
        if not hold.settled:
            unsettled[hold.job_id].append(cause)
    found: Counter[Cause] = Counter()
    for job_id, times in (Counter(run.job_id for run in runs) - Counter(planned)).items():
        # A claim that came to no run made nobody run it again.
        causes = sorted(unsettled[job_id], key=lambda cause: cause[0] is None)[:times]
        found.update((None, what) if what == "nothing" else (kind, what) for kind, what in causes)
        found[None, "nothing"] += times - len(causes)
    return found


async def right_attempts(
    redis: RedisConnection, queue: QueueName, planned: Mapping[str, int], job_ids: Sequence[str]
) -> int:
    """Count the jobs that used up as many attempts as they were to: a run that was cut off costs none."""
    right = 0
    for start in range(0, len(job_ids), CHUNK):
        chunk = job_ids[start : start + CHUNK]
        made = await asyncio.gather(*(redis.call("HGET", queue.key(job_id), "atm") for job_id in chunk))
        right += sum(int(count) == planned[job_id] for count, job_id in zip(made, chunk, strict=True))
    return right


def all_runs(members: Sequence[Member]) -> Iterator[Run]:
    """Read what the workers wrote; a job may run several times in one process."""
    for member in members:
        begun: defaultdict[str, list[float]] = defaultdict(list)
        for what, job_id, moment in map(json.loads, member.runs.read_text().splitlines()):
            if what == "begun":
                begun[job_id].append(moment)
            else:
                yield Run(job_id, member, begun[job_id].pop(0), moment)
        for job_id, moments in begun.items():
            yield from (Run(job_id, member, moment, NEVER) for moment in moments)


def table(result: Account) -> str:
    return "".join(f"{name.replace('_', ' '):26}{count:>8}\n" for name, count in result.as_dict().items())


def summary(result: Account, **more: Any) -> str:
    return json.dumps({**result.as_dict(), **more}) + "\n"
