"""One event from its contract to the handlers that want it, and how all of that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from events_worker.contracts import Accepted, Violation
from events_worker.event import EventJob, matches
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Outcome, PermanentError, Retry
from worker_runtime.redis.connection import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.contracts import Contracts
    from events_worker.handlers import EventHandler
    from worker_runtime.job import Job

log = structlog.get_logger()

REDIS_OUTAGE_SECONDS = 1.0
MOST_STRANGERS = 1_000


class Dispatcher:
    """Runs every handler whose pattern matches; the handlers do not know of each other."""

    def __init__(self, contracts: Contracts, handlers: Sequence[EventHandler]) -> None:
        self._contracts = contracts
        self._handlers = handlers
        self._strangers: set[str] = set()

    async def handle(self, job: Job[EventJob]) -> Outcome:
        """Handle one event; what a `Consumer` of the events queue calls."""
        event = job.payload
        self._introduce(event.event_type)
        with structlog.contextvars.bound_contextvars(correlationId=event.metadata.correlation_id):
            match self._contracts.read(event.event_type, event.metadata.version, event.payload):
                case Violation(code, sentence):
                    return DeadLetter(code, sentence)
                case Accepted(version, payload):
                    event = event.read_as(version, payload)
            return composed({handler.name: await _run(handler, event) for handler in self._wanting(event)})

    def _wanting(self, event: EventJob) -> list[EventHandler]:
        return [handler for handler in self._handlers if matches(handler.pattern, event.event_type)]

    def _introduce(self, event_type: str) -> None:
        """Say once that a type has no contract: a new family on its way, or a typing error."""
        if self._contracts.knows(event_type) or event_type in self._strangers:
            return
        if len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(event_type)
            log.info("event_without_contract", eventType=event_type)


def composed(outcomes: Mapping[str, Outcome]) -> Outcome:
    """Make one outcome of the handlers': a failure that another attempt may cure comes before one that it may not.

    The job is one: whatever is tried again is tried with every handler.
    """
    for kind in (Retry, Hold, Defer, DeadLetter):
        if failed := {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, kind)}:
            return _named(failed)
    return Done({name: outcome.result for name, outcome in outcomes.items() if isinstance(outcome, Done)})


def _named(failed: Mapping[str, Retry | Hold | Defer | DeadLetter]) -> Outcome:
    reason = "; ".join(f"handler {name}: {outcome.reason}" for name, outcome in failed.items())
    first = next(iter(failed.values()))
    match first:
        case Retry(code):
            return Retry(code, reason, max(getattr(outcome, "floor", 0.0) for outcome in failed.values()))
        case Hold(code, _, seconds):
            return Hold(code, reason, seconds)
        case Defer(code, _, seconds):
            return Defer(code, reason, seconds)
        case DeadLetter(code):
            return DeadLetter(code, reason)


async def _run(handler: EventHandler, event: EventJob) -> Outcome:
    try:
        return await handler.handle(event)
    except PermanentError as error:
        return DeadLetter(error.code, error.sentence)
    except RedisUnavailable as error:
        # The queue's own outage is not the event's failure and burns none of its attempts.
        log.warning("handler_waits_for_redis", handler=handler.name, error=str(error))
        return Defer("REDIS_UNAVAILABLE", "Redis did not answer", REDIS_OUTAGE_SECONDS)
    except Exception as error:
        log.exception("handler_failed", handler=handler.name)
        # The message may quote the event's data; the log has it, redacted.
        return Retry("HANDLER_FAILED", type(error).__name__)
