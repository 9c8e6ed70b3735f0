"""What the benchmark asks of a contender's programs, and what they say. It runs in the peers' Python, too: no packages.

A program that starts executions is told a role. `prepare`: make whatever tables there must be. `backlog`: start so
many, a hundred in a transaction. `singles`: start so many one by one, at moments that no timer could fit.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.workflows.effects import given

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH = 100
SEED = 1815


class Starter(Protocol):
    """A contender's way of starting executions."""

    async def prepare(self) -> None:
        """Make the tables; called in a process that then ends."""

    async def open(self) -> None:
        """Connect."""

    async def start(self, inputs: Sequence[dict[str, Any]], /) -> None:
        """Start an execution with each input, in one transaction."""


@dataclass(frozen=True)
class Task:
    """From the environment: executions are numbered from `first` on, singles start every `every_seconds` or so."""

    role: str
    first: int
    executions: int
    every_seconds: float

    @classmethod
    def told(cls) -> Task:
        return cls(**json.loads(os.environ["TASK"]))


async def do(starter: Starter) -> None:
    """Do what is asked."""
    task = Task.told()
    if task.role == "prepare":
        await starter.prepare()
        return
    await starter.open()
    numbers = range(task.first, task.first + task.executions)
    await (backlog(starter, numbers) if task.role == "backlog" else singles(starter, numbers, task.every_seconds))


async def backlog(starter: Starter, numbers: range) -> None:
    wall, cpu = time.perf_counter(), cpu_seconds()
    for place in range(0, len(numbers), BATCH):
        await starter.start([given(number) for number in numbers[place : place + BATCH]])
    say({"seconds": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu})


async def singles(starter: Starter, numbers: range, every_seconds: float) -> None:
    chance, began = random.Random(SEED), time.monotonic()
    moments = [(place + chance.random()) * every_seconds for place in range(len(numbers))]
    for number, moment in zip(numbers, moments, strict=True):
        await asyncio.sleep(began + moment - time.monotonic())
        asked = time.monotonic()
        await starter.start([given(number)])
        say({"number": number, "asked": asked})


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def say(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
