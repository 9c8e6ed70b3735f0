"""What a person does about dead letters: look first, then retry or discard.

One room; the command line is a door to it, and `POST /admin/dlq/...` another.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from events_worker.contracts import Violation
from events_worker.store.dead_letters import MOST_AT_ONCE, DeadGroup, DeadLetter, Edit, Selection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from events_worker.contracts import Contracts
    from events_worker.store import DeadLetterStore
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.loops import StopSignal

# A rate is kept by this many chunks a second: a chunk is a transaction.
CHUNKS_A_SECOND = 5
RETRIED, DISCARDED, NOT_FOUND = "retried", "discarded", "not found"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is selected: how many in all, and by what they died of."""

    count: int
    groups: Sequence[DeadGroup]


@dataclass(frozen=True, slots=True)
class Pace:
    """At most so many events a second; `None`: as fast as it goes."""

    per_second: float | None = None

    @property
    def chunk(self) -> int:
        """How many events to change at once."""
        if self.per_second is None:
            return MOST_AT_ONCE
        return max(1, min(MOST_AT_ONCE, int(self.per_second / CHUNKS_A_SECOND)))

    @property
    def seconds(self) -> float:
        """How long a chunk should take."""
        return 0.0 if self.per_second is None else self.chunk / self.per_second


class DeadLetters:
    """Every method may raise `DatabaseUnavailable`; those that discard, `RedisUnavailable` and `RedisError` too."""

    def __init__(self, store: DeadLetterStore, queue: JobQueue, contracts: Contracts) -> None:
        self._store = store
        self._queue = queue
        self._contracts = contracts

    async def plan(self, selection: Selection) -> Plan:
        """Say what is selected, and change nothing."""
        groups = await self._store.groups(selection)
        return Plan(sum(group.count for group in groups), groups)

    async def retry(self, event_ids: Sequence[str], edit: Edit, payload: str | None = None) -> dict[str, str]:
        """Retry at most `MOST_AT_ONCE` events and return what became of each: `retried`, or why not.

        `payload` is JSON, for one event; raises `PayloadRefused` when the event would only die of it again.
        """
        if payload is not None:
            await self.check(event_ids, payload)
        retried = await self._store.retry(event_ids, edit, payload)
        return await self._outcomes(event_ids, retried, RETRIED)

    async def discard(self, event_ids: Sequence[str], edit: Edit) -> dict[str, str]:
        """Discard at most `MOST_AT_ONCE` events and return what became of each: `discarded`, or why not.

        What waits for them goes on, and their jobs leave the failed set. One that is being run is left alone.
        """
        at_work = await self._queue.unfinished(event_ids)
        idle = [event_id for event_id in event_ids if event_id not in at_work]
        discarded = await self._store.discard(idle, edit)
        await self._queue.remove_finished(sorted(discarded))
        outcomes = await self._outcomes(event_ids, discarded, DISCARDED)
        return outcomes | dict.fromkeys(at_work, "its job is waiting or at work")

    async def retry_all(
        self, selection: Selection, edit: Edit, *, pace: Pace, stop: StopSignal, most: int | None = None
    ) -> AsyncIterator[int]:
        """Retry what is selected and was dead by now, at most `most`; yield the number retried after each chunk.

        What dies again meanwhile is not tried twice. Ends early when a stop is requested; run again, it goes on.
        """
        async for chunk in self._chunks(selection, pace, stop, most):
            yield len(await self._store.retry([dead.id for dead in chunk], edit))

    async def discard_all(self, selection: Selection, edit: Edit, *, stop: StopSignal) -> AsyncIterator[int]:
        """Discard what is selected and was dead by now; yield the number discarded after each chunk."""
        async for chunk in self._chunks(selection, Pace(), stop, None):
            outcomes = await self.discard([dead.id for dead in chunk], edit)
            yield list(outcomes.values()).count(DISCARDED)

    async def check(self, event_ids: Sequence[str], payload: str) -> None:
        """Raise `PayloadRefused` when that payload (JSON) cannot be the one event's."""
        if len(event_ids) != 1:
            raise PayloadRefused("a payload goes with one event: name exactly one")
        found = await self._store.find(Selection(event_ids=event_ids), 1)
        if found and (refusal := refuse_payload(found[0].event_type, found[0].version, payload, self._contracts)):
            raise PayloadRefused(refusal)

    async def _chunks(
        self, selection: Selection, pace: Pace, stop: StopSignal, most: int | None
    ) -> AsyncIterator[list[DeadLetter]]:
        dead_by_now = replace(selection, died_before=selection.died_before or await self._store.now())
        last, left, due = None, most, time.monotonic()
        while not stop.requested.is_set() and (left is None or left > 0):
            size = pace.chunk if left is None else min(pace.chunk, left)
            chunk = await self._store.find(dead_by_now, size, last)
            if not chunk:
                return
            yield chunk
            last, left = chunk[-1], None if left is None else left - len(chunk)
            due = max(due + pace.seconds, time.monotonic())
            await stop.sleep(due - time.monotonic())

    async def _outcomes(self, event_ids: Sequence[str], changed: set[str], verb: str) -> dict[str, str]:
        others = [event_id for event_id in event_ids if event_id not in changed]
        statuses = await self._store.statuses(others) if others else {}
        why_not = {
            event_id: f"its status is {statuses[event_id]}" if event_id in statuses else NOT_FOUND
            for event_id in others
        }
        return {event_id: why_not.get(event_id, verb) for event_id in event_ids}


class PayloadRefused(Exception):
    """The event would die of this payload again; the message says why, without its values."""


def refuse_payload(event_type: str, version: str, payload: str, contracts: Contracts) -> str | None:
    """Say why an event of that type and version cannot have that payload (JSON), or return `None`."""
    try:
        given = json.loads(payload)
    except (ValueError, RecursionError) as error:
        return f"the payload is not readable as JSON: {error}"
    if not isinstance(given, dict):
        return "the payload is not a JSON object"
    if "\\u0000" in payload:
        return "the payload holds a NUL character, which PostgreSQL cannot store"
    read = contracts.read(event_type, version, given)
    return f"the payload breaks the contract of {event_type}: {read.sentence}" if isinstance(read, Violation) else None
