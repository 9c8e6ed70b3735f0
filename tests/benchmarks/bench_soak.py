"""Node's workers and ours on one queue, killed at random like their Redis: is every job done, none twice for nothing?

  python tests/benchmarks/bench_soak.py [--jobs N] [--seed S] [--json]

Two processes of each kind, ten jobs at once each. Redis writes to disk before it answers (`appendfsync always`), so
that what was answered counts. Now and then a worker is killed or terminated, or Redis killed and started again. Jobs
are plain, delayed, prioritised, or fail at first. Afterwards Redis and the workers' own notes are compared: each job
must be completed once, have used up the attempts it was to use, and have run again only if a kill fell while it ran.
Exits with 1 when that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import structlog

HERE = Path(__file__).parent
# Run as a file, its own folder is what Python searches; servers and Node's packages are the tests' affair.
sys.path.insert(0, str(HERE.parent))

from benchmarks.soak_accounts import Account, account, summary, table  # noqa: E402
from benchmarks.soak_fleet import Fleet, Kind  # noqa: E402
from interop.node_packages import node_packages  # noqa: E402
from redis_servers import ConfiguredRedis  # noqa: E402
from worker_runtime.bullmq.names import QueueName  # noqa: E402
from worker_runtime.bullmq.producer import JobQueue, NewJob  # noqa: E402
from worker_runtime.redis.connection import RedisConnection, RedisUnavailable  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUEUE = QueueName("intelliflow", "soak")
EACH_KIND = 2
CHUNK = 200
MOST_WAITING = 1_000
JOBS_A_DISTURBANCE = 400
LEAST_DISTURBANCES = 8
LONGEST_OUTAGE_SECONDS = 1.5
# Without anything completed for so long, something hangs.
PATIENCE_SECONDS = 60.0
ASK_EVERY_SECONDS = 0.05


def main() -> None:
    arguments = parsed()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr), wrapper_class=QUIET)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(soak(arguments.jobs, Random(arguments.seed), Path(folder)))
    seconds = round(time.monotonic() - started, 1)
    write = sys.stdout.write
    write(summary(result, seconds=seconds) if arguments.json else f"{table(result)}{'seconds':26}{seconds:>8}\n")
    if result.faults:
        sys.exit(f"the accounts do not balance: {result.faults}")


QUIET = structlog.make_filtering_bound_logger(50)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=20_000, help="how many jobs (default 20000)")
    parser.add_argument("--seed", type=int, default=1, help="of what is killed when (default 1)")
    parser.add_argument("--json", action="store_true", help="one machine-readable line instead of the table")
    return parser.parse_args()


async def soak(number: int, chance: Random, folder: Path) -> Account:
    """Let the fleet work on so many jobs under fire, and settle the accounts."""
    jobs = [a_job(n, chance) for n in range(number)]
    with ConfiguredRedis(folder / "redis", appendfsync="always") as server:
        redis = RedisConnection(server.url, client_name="soak")
        await redis.open()
        # Every event is evidence.
        await redis.call("HSET", QUEUE.key("meta"), "opts.maxLenEvents", 100 * number)
        fleet = Fleet(server, folder, node_packages(), QUEUE.prefix, QUEUE.name)
        for kind in ("ours", "Node") * EACH_KIND:
            await fleet.start(kind)
        watch = Watch(JobQueue(redis, QUEUE), number)
        await asyncio.gather(produce(watch, jobs), disturb(watch, fleet, chance), watch.until(number))
        await fleet.disband()
        result = await account({str(job.job_id): planned_runs(job) for job in jobs}, fleet, redis, QUEUE)
        await redis.close()
    return result


def a_job(number: int, chance: Random) -> NewJob:
    kinds: Sequence[Mapping[str, int]] = [{"fails": 1}, {"delay": 300}, {"priority": 5}, {}, {}, {}]
    kind = kinds[number % len(kinds)]
    data = {"seconds": round(chance.uniform(0.005, 0.05), 3), "fails": kind.get("fails", 0)}
    options = {"attempts": 3, "backoff": 50}
    return NewJob(
        "soak",
        data,
        job_id=f"job-{number}",
        delay_ms=kind.get("delay", 0),
        priority=kind.get("priority", 0),
        options=options,
    )


def planned_runs(job: NewJob) -> int:
    return 1 + int(job.data["fails"])


class Watch:
    """How far the queue has come, asked through all outages."""

    def __init__(self, queue: JobQueue, jobs: int) -> None:
        self.queue = queue
        self.jobs = jobs
        self.finished = 0
        self.waiting = 0

    async def until(self, finished: int) -> None:
        """Wait until so many jobs have ended; raises TimeoutError when for too long none has."""
        last_progress = time.monotonic()
        while self.finished < finished:
            await asyncio.sleep(ASK_EVERY_SECONDS)
            before = self.finished
            await self._look()
            if self.finished > before:
                last_progress = time.monotonic()
            if time.monotonic() - last_progress > PATIENCE_SECONDS:
                raise TimeoutError(f"{self.finished} of {self.jobs} jobs have ended and no more do")

    async def _look(self) -> None:
        try:
            counts = await self.queue.counts()
        except RedisUnavailable:
            return
        self.finished = counts.completed + counts.failed
        self.waiting = counts.depth


async def produce(watch: Watch, jobs: Sequence[NewJob]) -> None:
    """Add jobs while few wait; adding again what an outage left in doubt is harmless."""
    added = 0
    while added < len(jobs):
        if watch.waiting > MOST_WAITING:
            await asyncio.sleep(ASK_EVERY_SECONDS)
            continue
        try:
            await watch.queue.add_bulk(jobs[added : added + CHUNK])
        except RedisUnavailable:
            continue
        added += CHUNK
        watch.waiting += CHUNK


async def disturb(watch: Watch, fleet: Fleet, chance: Random) -> None:
    """Break something each time so many more jobs have ended."""
    disturbances = max(LEAST_DISTURBANCES, watch.jobs // JOBS_A_DISTURBANCE)
    for number in range(1, disturbances + 1):
        await watch.until(watch.jobs * number // (disturbances + 2))
        # A little later, lest it always falls on a watch's look.
        await asyncio.sleep(chance.uniform(0, ASK_EVERY_SECONDS))
        kind: Kind = chance.choice(("ours", "Node"))
        match chance.choice(("kill", "kill", "terminate", "redis")) if number > 1 else "redis":
            case "kill":
                await fleet.kill(kind)
            case "terminate":
                await fleet.terminate(kind)
            case "redis":
                await fleet.kill_redis(chance.uniform(0, LONGEST_OUTAGE_SECONDS))


if __name__ == "__main__":
    main()
