"""What the contenders share: the task they are given, the body of a job, and a clock inside their own process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from dataclasses import dataclass, field

CALL_SIZE = 100


@dataclass(frozen=True)
class Task:
    """What the benchmark asks of a contender, from its environment.

    `role`: `enqueue` or `work` `jobs` of them as fast as it can, or `watch`: say `ready` and note when each job began.
    """

    role: str
    url: str
    jobs: int
    concurrency: int
    # About 300 bytes of JSON.
    body: str
    limit_max: int = 0
    limit_ms: int = 0
    # How long a watched job takes.
    hold_seconds: float = 0.0

    @classmethod
    def given(cls) -> Task:
        return cls(**json.loads(os.environ["TASK"]))

    def calls(self) -> list[int]:
        """How many jobs each bulk call adds."""
        whole, rest = divmod(self.jobs, CALL_SIZE)
        return [CALL_SIZE] * whole + [rest] * bool(rest)


@dataclass
class Stopwatch:
    """Wall clock and CPU from the first hit to the last; start-up and connecting are left out."""

    jobs: int
    hits: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    _from: tuple[float, float] = (0.0, 0.0)
    _to: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self._from = now()

    def stop(self) -> None:
        self._to = now()

    def hit(self) -> None:
        """Once a job."""
        self.hits += 1
        if self.hits == 1:
            self.start()
        if self.hits == self.jobs:
            self.stop()
            self.done.set()

    def report(self) -> None:
        """Print what the benchmark reads."""
        seconds, cpu = (to - start for start, to in zip(self._from, self._to, strict=True))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say({"seconds": seconds, "cpu": cpu, "peakMb": peak_mb})


class Arrivals:
    """When each job began, by the clock that all processes of a machine share."""

    def __init__(self, jobs: int) -> None:
        self.done = asyncio.Event()
        self._missing = jobs

    def note(self, job: str) -> None:
        """At the beginning of a job."""
        say({"job": job, "began": time.monotonic()})
        self._missing -= 1
        if self._missing == 0:
            self.done.set()


def say(line: object) -> None:
    """Tell the benchmark something, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime
