"""Handlers on the relay's harness, their jobs run by the test's hand."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine_harness import until
from events_worker.context import HandlerContexts
from events_worker.contracts import load_contracts
from events_worker.dispatcher import Dispatcher
from events_worker.event import EventJob
from events_worker.handlers.python import PythonHandler
from events_worker.store import Transactions
from outbox_harness import Bench, Instance, running
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.outcome import Outcome

LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}


@dataclass
class Handling:
    """An instance with handlers, whose jobs the test runs by hand."""

    bench: Bench
    instance: Instance
    dispatcher: Dispatcher
    ran: list[str] = field(default_factory=list)

    async def committed(self, count: int = 1, **columns: Any) -> list[str]:
        ids = await self.bench.commit(count, payload=LEAD, **columns)
        await until(lambda: self.published(ids[0]))
        return ids

    async def published(self, event_id: str) -> bool:
        return event_id in await self.bench.waiting()

    async def run(self, event_id: str, attempt: int = 1) -> Outcome:
        """Run the event's job as it stands in Redis."""
        fields = await self.bench.job(event_id)
        return await self.handle(EventJob.model_validate_json(fields["data"]), attempt)

    async def handle(self, event: EventJob, attempt: int = 1) -> Outcome:
        names = {"job_id": event.event_id, "name": event.event_type, "queue": "intelliflow:events"}
        return await self.dispatcher.handle(job_for(event, attempt=attempt, created_at=0.0, notes=None, **names))


Function = Any


@asynccontextmanager
async def handling(
    bench: Bench, functions: Callable[[list[str]], Sequence[Function]], timeout_seconds: float = 5.0
) -> AsyncIterator[Handling]:
    """Relay events whose handlers are `functions`, made by a call with the list in which they note that they ran."""
    async with AsyncExitStack() as opened:
        ran: list[str] = []
        instance = await opened.enter_async_context(bench.instance(balance_seconds=0.05))
        transactions = await opened.enter_async_context(Transactions(bench.database_url, 5))
        handlers = [PythonHandler(one.__name__, "lead.*", timeout_seconds, one) for one in functions(ran)]

        def queue(key: str | QueueName) -> JobQueue:
            assert key == "EVENTS"
            return bench.queue

        contexts = HandlerContexts(queue, transactions)
        dispatcher = Dispatcher(load_contracts(), handlers, instance.turns, contexts)
        async with running(instance.loops):
            yield Handling(bench, instance, dispatcher, ran)
