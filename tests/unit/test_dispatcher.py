from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from events_worker.context import HandlerContexts
from events_worker.contracts import SHIPPED, load_contracts
from events_worker.dispatcher import Dispatcher, composed
from events_worker.event import EventJob
from events_worker.turns import Turns
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Outcome, PermanentError, Retry
from worker_runtime.redis.connection import RedisUnavailable
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events_worker.context import HandlerContext
    from worker_runtime.job import Job

SAMPLE = Path(__file__).parents[1] / "contracts_sample.yaml"
LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}


class Recording:
    """A handler that notes what it is given and ends as it is told."""

    def __init__(self, name: str, pattern: str = "*", end: Outcome | BaseException | None = None) -> None:
        self.name = name
        self.pattern = pattern
        self.timeout_seconds = 5.0
        self._end = end or Done(name)
        self.events: list[EventJob] = []

    @property
    def handled(self) -> list[str]:
        return [event.event_type for event in self.events]

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:  # noqa: ARG002  it needs none
        self.events.append(event)
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end


async def dispatch(handlers: Sequence[Recording], event_type: str = "lead.created", **payload: Any) -> Outcome:
    return await dispatcher(handlers).handle(job(event_type, payload or LEAD))


def dispatcher(handlers: Sequence[Recording], catalogue: Path = SHIPPED) -> Dispatcher:
    """Build one for events that never were in the outbox: nobody is asked for their turn."""
    return Dispatcher(load_contracts(catalogue), handlers, Turns(Mock(), Mock()), HandlerContexts(Mock(), Mock()))


def job(event_type: str, payload: dict[str, Any], version: str = "1.0") -> Job[EventJob]:
    event = EventJob.model_validate(
        {
            "eventId": "e-1",
            "eventType": event_type,
            "aggregateType": "lead",
            "aggregateId": "l-1",
            "tenantId": "t-1",
            "payload": payload,
            "metadata": {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": version},
            "occurredAt": "2026-01-01T10:00:00Z",
            "unknownField": 1,
        }
    )

    return job_for(event, job_id="e-1", name=event_type, queue="intelliflow:events", created_at=0.0)


async def test_every_matching_handler_runs_and_no_other() -> None:
    exact, family, everything = Recording("a", "lead.created"), Recording("b", "lead.*"), Recording("c", "*")
    other, stranger = Recording("d", "lead.updated"), Recording("e", "contact.*")
    outcome = await dispatch([exact, family, everything, other, stranger])
    assert outcome == Done({"a": "a", "b": "b", "c": "c"})
    assert [len(handler.handled) for handler in (exact, family, everything, other, stranger)] == [1, 1, 1, 0, 0]


async def test_a_broken_contract_is_a_dead_letter_and_no_handler_runs() -> None:
    handler = Recording("a")
    assert await dispatch([handler], tenantId="t-1", leadId="l-1") == DeadLetter("INVALID_PAYLOAD", "email is missing")
    assert handler.handled == []


async def test_handlers_see_an_older_event_as_a_new_one() -> None:
    handler = Recording("a")
    older = {"id": 7, "ownerId": "u-1", "value": 9, "state": "WON"}
    await dispatcher([handler], SAMPLE).handle(job("deal.signed", older))
    (event,) = handler.events
    assert (event.metadata.version, event.payload["owner"]) == ("3.0", {"id": "u-1", "kind": "user"})


async def test_a_version_nobody_knows_is_a_dead_letter_and_no_handler_runs() -> None:
    handler = Recording("a")
    outcome = await dispatcher([handler]).handle(job("lead.created", LEAD, version="2.0"))
    assert outcome == DeadLetter(
        "UNKNOWN_VERSION", "2.0 is newer than 1.0, the newest known here: deploy what knows it, then retry"
    )
    assert handler.handled == []


async def test_a_type_without_contract_is_handled_and_mentioned_once() -> None:
    handler = Recording("a")
    dispatched = dispatcher([handler])
    with capture_logs() as lines:
        for _ in range(3):
            assert isinstance(await dispatched.handle(job("invoice.paid", {})), Done)
    assert [line for line in lines if line["event"] == "event_without_contract"] == [
        {"event": "event_without_contract", "eventType": "invoice.paid", "log_level": "info"}
    ]


@pytest.mark.parametrize("end", [asyncio.CancelledError(), SystemExit(1), KeyError("name")])
async def test_whatever_a_handler_raises_is_its_own_failure(end: BaseException) -> None:
    well = Recording("b")
    assert await dispatch([Recording("a", end=end), well]) == Retry(
        "HANDLER_FAILED", f"handler a: {type(end).__name__}"
    )
    assert well.handled == ["lead.created"]


async def test_a_failing_handler_keeps_no_other_from_running() -> None:
    failing, well = Recording("a", end=RuntimeError("ada@example.com is unhappy")), Recording("b")
    assert await dispatch([failing, well]) == Retry("HANDLER_FAILED", "handler a: RuntimeError")
    assert well.handled == ["lead.created"]


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (PermanentError("GONE", "it is gone"), DeadLetter("GONE", "handler a: it is gone")),
        (RedisUnavailable("no answer"), Defer("REDIS_UNAVAILABLE", "handler a: Redis did not answer", 1.0)),
        (Hold("OUT", "closed", 5), Hold("OUT", "handler a: closed", 5)),
        (Retry("SLOW", "later", 60), Retry("SLOW", "handler a: later", 60)),
    ],
)
async def test_how_a_handler_ends_is_how_the_event_ends(end: Outcome | Exception, outcome: Outcome) -> None:
    assert await dispatch([Recording("a", end=end), Recording("b")]) == outcome


def test_a_failure_that_time_may_cure_comes_first() -> None:
    outcomes: dict[str, Outcome] = {
        "a": DeadLetter("BAD", "bad"),
        "b": Retry("X", "one", 2.0),
        "c": Retry("Y", "two", 9.0),
        "d": Defer("Z", "z", 1),
        "e": Done(),
    }
    assert composed(outcomes) == Retry("X", "handler b: one; handler c: two", 9.0)
    del outcomes["b"], outcomes["c"]
    assert composed(outcomes) == Defer("Z", "handler d: z", 1)
    del outcomes["d"]
    assert composed(outcomes) == DeadLetter("BAD", "handler a: bad")
    assert composed({}) == Done({})
