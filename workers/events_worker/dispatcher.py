"""One event from its turn and its contract to the handlers that want it, and how all of that ended."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from events_worker.contracts import Accepted, Violation
from events_worker.frozen import is_stale, is_surely_lost, was_frozen
from events_worker.handlers.marked import LONGEST_TIMEOUT_SECONDS
from events_worker.outbox import backoff_seconds
from events_worker.store import AlreadyReceipted, Standing, Turn, TurnOver, TurnTaken
from worker_runtime.event_patterns import matches
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Outcome, PermanentError, Retry
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.redis.connection import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from events_worker.context import HandlerContexts
    from events_worker.contracts import Contracts
    from events_worker.event import EventJob, Replay
    from events_worker.handlers import EventHandler
    from events_worker.turns import Turns
    from worker_runtime.job import Job

log = structlog.get_logger()

OUTAGE_SECONDS = 1.0
# How long a job whose effects are done waits for PostgreSQL to note it, before it is handed back.
PATIENCE_SECONDS = 20.0
LONGEST_TURN_SECONDS = LONGEST_TIMEOUT_SECONDS + PATIENCE_SECONDS + 15.0
MOST_STRANGERS = 1_000
# A replayed event is nobody's turn.
NO_TURN = Turn(Standing.UNKNOWN, frozenset())


class Dispatcher:
    """Runs every handler whose pattern matches and that is not done yet; the handlers do not know of each other."""

    def __init__(
        self, contracts: Contracts, handlers: Sequence[EventHandler], turns: Turns, contexts: HandlerContexts
    ) -> None:
        self._contracts = contracts
        self._handlers = handlers
        self._turns = turns
        self._contexts = contexts
        self._strangers: set[str] = set()

    async def handle(self, job: Job[EventJob]) -> Outcome:
        """Handle one event; what a `Consumer` of the events queue calls."""
        event = job.payload
        with structlog.contextvars.bound_contextvars(correlationId=event.metadata.correlation_id):
            try:
                return await self._take_turn(job)
            except DatabaseUnavailable as outage:
                return postgres_is_away(outage)

    async def bury(self, event_id: str, event_type: str, reason: str, attempt: int) -> Hold | None:
        """Note a dead letter before the queue does: see `OnDead`."""
        try:
            await self._turns.bury(event_id, reason, blocks=self._contracts.blocks(event_type), attempt=attempt)
        except DatabaseUnavailable as outage:
            return postgres_is_away(outage)
        return None

    async def _take_turn(self, job: Job[EventJob]) -> Outcome:
        event, asked_at = job.payload, time.monotonic()
        turn = NO_TURN if event.replay else await self._turns.begin(event.event_id)
        match turn.standing:
            case Standing.HANDLED:
                return Done("handled before")
            case Standing.PENDING:
                return Defer("NOT_ITS_TURN", "the relay has not published it yet", OUTAGE_SECONDS, planned=True)
            case Standing.UNDER_WAY if turn.dead_reason and turn.dead_attempt == job.attempt:
                # Nobody retried it: its worker was killed before Redis heard, and later events may have passed it by.
                return died_before(turn.dead_reason)
            case Standing.UNDER_WAY | Standing.UNKNOWN:
                return await self._read_and_run(job, turn, asked_at)

    async def _read_and_run(self, job: Job[EventJob], turn: Turn, asked_at: float) -> Outcome:
        readable = self._readable(job.payload)
        if isinstance(readable, DeadLetter):
            return readable
        if readable.replay is not None:
            return await self._replay(readable, readable.replay, asked_at)
        if turn.standing is Standing.UNKNOWN:
            return composed(await self._run_all(readable, asked_at, receipts=False))
        return await self._with_receipts(job, readable, turn.finished, asked_at)

    def _readable(self, event: EventJob) -> EventJob | DeadLetter:
        """Return the event as handlers know it, in the newest version of its contract, or why nobody can."""
        self._introduce(event.event_type)
        match self._contracts.read(event.event_type, event.metadata.version, event.payload):
            case Violation(code, sentence):
                return DeadLetter(code, sentence)
            case Accepted(version, payload):
                return event.read_as(version, payload)

    async def _with_receipts(
        self, job: Job[EventJob], event: EventJob, finished: frozenset[str], asked_at: float
    ) -> Outcome:
        outcomes = await self._run_all(event, asked_at, finished, receipts=True)
        outcome = composed(outcomes)
        if isinstance(outcome, Done) and is_stale(asked_at) and await is_surely_lost(job):
            # The end is for whoever has the job now: what follows may not begin while he is at it.
            outcome = was_frozen()
        if isinstance(outcome, Done):
            await patiently(lambda: self._turns.finish(event.event_id))
        elif done := [name for name, one in outcomes.items() if isinstance(one, Done)]:
            await patiently(lambda: self._turns.note_finished(event.event_id, done))
        return outcome

    async def _replay(self, event: EventJob, replay: Replay, asked_at: float) -> Outcome:
        known = {handler.name for handler in self._handlers}
        if strangers := [name for name in replay.handlers if name not in known]:
            return DeadLetter("UNKNOWN_HANDLER", f"the replay names {', '.join(strangers)}; here are {sorted(known)}")
        others = frozenset(known - set(replay.handlers))
        return composed(await self._run_all(event, asked_at, others, receipts=False))

    async def _run_all(
        self, event: EventJob, asked_at: float, left_out: frozenset[str] = frozenset(), *, receipts: bool
    ) -> Mapping[str, Outcome]:
        handlers = [handler for handler in self._wanting(event) if handler.name not in left_out]
        runs = (self._run_in_time(handler, event, asked_at, receipts=receipts) for handler in handlers)
        outcomes = await asyncio.gather(*runs)
        return {handler.name: outcome for handler, outcome in zip(handlers, outcomes, strict=True)}

    def _wanting(self, event: EventJob) -> list[EventHandler]:
        return [handler for handler in self._handlers if matches(handler.pattern, event.event_type)]

    def _introduce(self, event_type: str) -> None:
        """Say once that a type has no contract: a new family on its way, or a typing error."""
        if self._contracts.knows(event_type) or event_type in self._strangers:
            return
        if len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(event_type)
            log.info("event_without_contract", eventType=event_type)

    async def _run_in_time(self, handler: EventHandler, event: EventJob, asked_at: float, *, receipts: bool) -> Outcome:
        return was_frozen() if is_stale(asked_at) else await self._run(handler, event, receipts=receipts)

    async def _run(self, handler: EventHandler, event: EventJob, *, receipts: bool) -> Outcome:
        try:
            async with asyncio.timeout(handler.timeout_seconds) as limit:
                return await handler.handle(event, self._contexts.of(event, handler.name, receipts=receipts))
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return failed(handler, error)
        except TimeoutError as error:
            if limit.expired():
                return Retry("TIME_LIMIT", f"it took longer than {handler.timeout_seconds:g} s")
            return failed(handler, error)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a handler may fail in any way: `failed` logs it
            return outcome_of(handler, error)


def outcome_of(handler: EventHandler, error: BaseException) -> Outcome:  # noqa: PLR0911  one for each way to fail
    """Say what an error that a handler raised means to its event."""
    match error:
        case AlreadyReceipted():
            return Done("done before")
        case TurnOver():
            return Defer("TURN_OVER", "the event is not under way any more", OUTAGE_SECONDS)
        case TurnTaken():
            # A frozen process is not the event's failure, nor anybody else's.
            return Defer("TURN_TAKEN", "another process is in a transaction for it", OUTAGE_SECONDS)
        case PermanentError(code=code, sentence=sentence):
            return DeadLetter(code, sentence)
        case RedisUnavailable():
            # The queue's own outage is not the event's failure and burns none of its attempts.
            log.warning("handler_waits_for_redis", handler=handler.name, error=str(error))
            return Defer("REDIS_UNAVAILABLE", "Redis did not answer", OUTAGE_SECONDS)
        case DatabaseUnavailable():
            return postgres_is_away(error)
        case _:
            return failed(handler, error)


def failed(handler: EventHandler, error: BaseException) -> Retry:
    """Make an outcome of an error that a handler did not foresee."""
    log.error("handler_failed", handler=handler.name, exc_info=error)
    # The message may quote the event's data; the log has it, redacted.
    return Retry("HANDLER_FAILED", type(error).__name__)


def died_before(reason: str) -> DeadLetter:
    """Make the outcome again that a `failedReason` was written from."""
    code, _, sentence = reason.partition(": ")
    return DeadLetter(code, sentence)


def postgres_is_away(outage: DatabaseUnavailable) -> Hold:
    """Hold the queue: no event can be handled in its order and once without the database."""
    log.warning("events_wait_for_postgres", error=str(outage))
    return Hold("POSTGRES_UNAVAILABLE", "PostgreSQL did not answer", OUTAGE_SECONDS)


async def patiently(write: Callable[[], Awaitable[None]]) -> None:
    """Note what has happened, waiting out a short outage: handing the job back would make it happen again."""
    give_up, failures = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        try:
            await write()
        except DatabaseUnavailable:
            failures += 1
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(backoff_seconds(failures))
        else:
            return


def composed(outcomes: Mapping[str, Outcome]) -> Outcome:
    """Make one outcome of the handlers': a failure that another attempt may cure comes before one that it may not."""
    for kind in (Retry, Hold, Defer, DeadLetter):
        if unfinished := {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, kind)}:
            return _named(unfinished)
    return Done({name: outcome.result for name, outcome in outcomes.items() if isinstance(outcome, Done)})


def _named(unfinished: Mapping[str, Retry | Hold | Defer | DeadLetter]) -> Outcome:
    reason = "; ".join(f"handler {name}: {outcome.reason}" for name, outcome in unfinished.items())
    first = next(iter(unfinished.values()))
    match first:
        case Retry(code):
            return Retry(code, reason, max(getattr(outcome, "floor", 0.0) for outcome in unfinished.values()))
        case Hold(code, _, seconds):
            return Hold(code, reason, seconds)
        case Defer(code, _, seconds):
            return Defer(code, reason, seconds)
        case DeadLetter(code):
            return DeadLetter(code, reason)
