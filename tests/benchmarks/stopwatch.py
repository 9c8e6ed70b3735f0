"""What the contenders share: the body of a job, and a clock inside the process that enqueues or runs them."""

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
    """What the benchmark asks of a contender, from its environment: `role` is `enqueue` or `work`."""

    role: str
    url: str
    jobs: int
    concurrency: int
    # About 300 bytes of JSON.
    body: str

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
        sys.stdout.write(json.dumps({"seconds": seconds, "cpu": cpu}) + "\n")


def now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime
