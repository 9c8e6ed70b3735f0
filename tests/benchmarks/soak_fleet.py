"""The soak's processes: workers of both kinds on one Redis, ended and restarted at the soak's word."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from redis_servers import ConfiguredRedis

HERE = Path(__file__).parent
CONCURRENCY = 10
# Longer than any outage, so that whoever lives can keep what he holds.
LOCK_MS, STALLED_INTERVAL_MS = 4_000, 500
# Ours dead-letters a job at its third stall; Node's default is the second.
MOST_STALLS = 2
AFTER_SIGTERM = {"ours": 143, "Node": 0}
# What a terminated worker may take to finish its jobs. Node's may wait for ever when Redis goes away meanwhile.
END_SECONDS = {"ours": 40.0, "Node": 8.0}

Kind = Literal["ours", "Node"]


@dataclass(frozen=True)
class Kill:
    """When something was killed: just before, and when it was certainly dead, in seconds since the epoch."""

    begun: float
    done: float


@dataclass
class Member:
    """One worker process. `killed` is None when it ended by itself; `stopped` is from its SIGTERM to its end."""

    kind: Kind
    runs: Path
    process: asyncio.subprocess.Process
    killed: Kill | None = None
    stopped: Kill | None = None


@dataclass
class Fleet:
    """The workers that are alive and those that were. `url`, `prefix` and `name` say where they work."""

    redis: ConfiguredRedis
    folder: Path
    packages: Path
    prefix: str
    name: str
    alive: list[Member] = field(default_factory=list)
    past: list[Member] = field(default_factory=list)
    outages: list[Kill] = field(default_factory=list)
    ending: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def start(self, kind: Kind) -> None:
        """Start another worker."""
        runs = self.folder / f"{kind}-{next(self._numbers)}.runs"
        runs.touch()
        command, more = self._ours(runs) if kind == "ours" else self._node(runs)
        with runs.with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **more}, stdout=log, stderr=log)
        self.alive.append(Member(kind, runs, process))

    def _ours(self, runs: Path) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, str(HERE / "soak_ours.py")], {
            "REDIS_URL": self.redis.url,
            "QUEUE_PREFIX": self.prefix,
            "QUEUE_CONCURRENCY": str(CONCURRENCY),
            "QUEUE_LOCK_DURATION_MS": str(LOCK_MS),
            "QUEUE_STALLED_INTERVAL_MS": str(STALLED_INTERVAL_MS),
            "RETRY_SOAK_DELAYS_MS": "50",
            "SOAK_RUNS": str(runs),
        }

    def _node(self, runs: Path) -> tuple[list[str], dict[str, str]]:
        options = {
            "concurrency": CONCURRENCY,
            "lockDuration": LOCK_MS,
            "stalledInterval": STALLED_INTERVAL_MS,
            "maxStalledCount": MOST_STALLS,
            "runRetryDelay": 500,
        }
        told = {"url": self.redis.url, "prefix": self.prefix, "name": self.name, "runs": str(runs), "options": options}
        return ["node", str(HERE / "soak_node.mjs"), str(self.packages)], {"SOAK": json.dumps(told)}

    def take_away(self, kind: Kind) -> Member:
        """Choose the oldest of a kind to be ended."""
        member = next(one for one in self.alive if one.kind == kind)
        self.alive.remove(member)
        self.past.append(member)
        return member

    async def kill(self, kind: Kind) -> None:
        """End one by SIGKILL and start another in its place."""
        await kill(self.take_away(kind))
        await self.start(kind)

    async def terminate(self, kind: Kind) -> None:
        """Ask one to end, start another, and go on: it has jobs to finish."""
        self.ending.add(asyncio.create_task(end(self.take_away(kind))))
        await self.start(kind)

    async def kill_redis(self, seconds: float) -> None:
        """Kill Redis and start it again after so many seconds."""
        begun = time.time()
        await asyncio.to_thread(self.redis.kill)
        self.outages.append(Kill(begun, time.time()))
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.redis.start)

    async def disband(self) -> None:
        """End everybody; raises what went wrong with one of them."""
        while self.alive:
            self.ending.add(asyncio.create_task(end(self.take_away(self.alive[0].kind))))
        await asyncio.gather(*self.ending)


async def kill(member: Member) -> None:
    """Kill a worker. Raises RuntimeError for one that has ended by itself."""
    if member.process.returncode is not None:
        raise RuntimeError(last_words(member))
    begun = time.time()
    member.process.kill()
    await member.process.wait()
    member.killed = Kill(begun, time.time())


async def end(member: Member) -> None:
    """Terminate a worker; one that does not end in time is killed. Raises RuntimeError for one that ended otherwise."""
    begun = time.time()
    if member.process.returncode is None:
        member.process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(END_SECONDS[member.kind]):
            code = await member.process.wait()
    except TimeoutError:
        await kill(member)
        return
    member.stopped = Kill(begun, time.time())
    # One that had hardly started knew nothing of signals yet.
    if code != AFTER_SIGTERM[member.kind] and (code != -signal.SIGTERM or member.runs.read_text()):
        raise RuntimeError(last_words(member))


def last_words(member: Member) -> str:
    said = member.runs.with_suffix(".log").read_text()[-2_000:]
    return f"{member.runs.stem} ended with exit code {member.process.returncode}, saying {said}"
