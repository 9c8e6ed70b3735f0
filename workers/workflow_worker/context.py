"""What a workflow is handed: its input, and the verbs by which whatever it does is done once and remembered.

    async def welcome(ctx: WorkflowContext) -> str:
        lead = await ctx.step("load", lambda step: load(ctx.input["leadId"]))
        await ctx.sleep("a day", seconds=86_400)
        reply = await ctx.wait_event("reply", "lead.replied", correlation=lead["id"], timeout_seconds=604_800)
        return "answered" if reply else "silent"

A workflow runs from the top each time it goes on, and what its journal holds is returned instead of done. So everything
that has an effect, or that may come out otherwise the next time (the clock, chance, a query), belongs in a step.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid5

from worker_runtime.outcome import PermanentError
from worker_runtime.postgres import UnreadableJson, read_json, storable, storable_json
from worker_runtime.telemetry import work_span
from workflow_worker.execution import EventWait, LeaseLost, StepRecord, StepRetry
from workflow_worker.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from workflow_worker.execution import Execution

__all__ = ["EffectUnavailable", "StepCall", "StepFailed", "WorkflowContext"]

TIMEOUT_SECONDS = 60.0
MOST_OUTPUT_BYTES = 262_144
# Each turn reads the whole journal: what is too much for one is too much for all that are claimed with it.
MOST_JOURNAL_CHARACTERS = 16_777_216
MOST_ERROR_CHARACTERS = 1_000


class StepFailed(Exception):
    """A step failed for good. A workflow may catch it and do something else instead; uncaught it ends the execution.

    `error` begins with a stable code: `TIME_LIMIT: ...`.
    """

    def __init__(self, step: str, error: str) -> None:
        super().__init__(_of_step(step, error))
        self.step = step
        self.error = error


class EffectUnavailable(Exception):
    """Raised within a step: what it needs is out, which is not this execution's failure. It goes on later."""

    def __init__(self, reason: str, seconds: float = 5.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Unwinding(BaseException):
    """Leaves the workflow's code, to go on later or never; nobody's `except Exception` may stop it."""


class StepRetries(Unwinding):
    """A step failed and is tried again after `seconds`."""

    def __init__(self, step: str, error: str, seconds: float) -> None:
        super().__init__(_of_step(step, error))
        self.seconds = seconds


class PutOff(Unwinding):
    """Given back for `seconds`, at no cost."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.seconds = seconds


class CancelAsked(Unwinding):
    """Somebody wants it to end."""


class Waiting(Unwinding):
    """Nothing to do until a time, or until one of the waits is met."""

    def __init__(self, until: datetime | None, waits: Sequence[EventWait] = ()) -> None:
        super().__init__("waiting")
        self.until = until
        self.waits = tuple(waits)


@dataclass(frozen=True, slots=True)
class StepCall:
    """One try of a step. `idempotency_key` is the same for every try: hand it to receivers that know repetitions."""

    execution_id: UUID
    organization_id: str
    step: str
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """A UUID made of the execution and the step."""
        return str(uuid5(self.execution_id, self.step))


class Desk(Protocol):
    """What a context stands on: the side of the engine that it sees."""

    async def may_begin(self, records: Sequence[StepRecord], /) -> None:
        """Return when these records are safe and the next effect may begin.

        Raises `LeaseLost`; and once they are safe, `PutOff` when the worker or the organisation is stopping, and
        `CancelAsked`.
        """
        ...

    async def start_child(self, step: str, workflow: str, given: Any, /) -> UUID:
        """Start another workflow of the organisation, a rule by its name or one in Python, once per step.

        Raises `PermanentError` for a name that is none, and `LeaseLost`.
        """
        ...

    def delay_seconds(self, retry: StepRetry, attempt: int, floor: float, /) -> float:
        """Return how long to wait after that attempt failed."""
        ...

    def step_ended(self, kind: str, status: str, seconds: float, /) -> None:
        """Count a step."""
        ...


class WorkflowContext:
    """One execution to its own code. Made for each turn."""

    def __init__(self, execution: Execution, desk: Desk) -> None:
        self.execution_id = execution.id
        self.organization_id = execution.organization_id
        self.input: Any = execution.input
        self.created_at = execution.created_at
        self.progressed = False
        self.journal = Journal(execution.records)
        self.pending: list[StepRecord] = []
        self._execution = execution
        self._desk = desk
        self._began = time.monotonic()
        self._writing = asyncio.Lock()
        self._signals: dict[tuple[str, str], int] = {}

    def now(self) -> datetime:
        """Return the time by the database's clock. To be remembered it belongs in a step."""
        return self._execution.claimed_at + timedelta(seconds=time.monotonic() - self._began)

    async def step(
        self,
        name: str,
        function: Callable[[StepCall], Awaitable[Any]],
        *,
        kind: str = "step",
        retry: StepRetry | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Any:
        """Do something with an effect, and return its result, which is JSON; once it is completed, never again.

        Raises `StepFailed` when it failed for good: by `PermanentError`, or on its last attempt.
        """
        step = self._place(name)
        if (end := self.journal.end_of(step)) is not None:
            return _replayed(end)
        await self._may_begin()
        attempt = self.journal.failures(step) + 1
        call = StepCall(self.execution_id, self.organization_id, step, attempt)
        started, clock = self.now(), time.monotonic()
        try:
            with work_span(f"step {kind}", None, {"workflow.step": step, "workflow.step.attempt": attempt}):
                output = await _in_time(function, call, timeout_seconds)
        except Unwinding:
            raise
        except EffectUnavailable as outage:
            raise PutOff(f"step {step}: {outage}", outage.seconds) from outage
        except BaseException as error:
            if is_cancelled(error):
                raise
            self._desk.step_ended(kind, "failed", time.monotonic() - clock)
            raise self._failed(call, kind, started, error, retry or StepRetry()) from error
        self._desk.step_ended(kind, "completed", time.monotonic() - clock)
        self._note(StepRecord(step, kind, "completed", output, started, self.now(), attempt))
        return output

    async def value(self, name: str, compute: Callable[[], Any], *, kind: str = "set") -> Any:
        """Work something out that has no effect, and remember it: the next time it is the same."""
        step = self._place(name)
        if (end := self.journal.end_of(step)) is not None:
            return _replayed(end)
        started = self.now()
        output = as_json(compute())
        self._note(StepRecord(step, kind, "completed", output, started, self.now()))
        return output

    async def sleep(self, name: str, *, seconds: float | None = None, until: datetime | None = None) -> None:
        """Wait for some seconds from when this is first reached, or until a time; days cost nothing."""
        step = self._place(name)
        if self.journal.end_of(step) is not None:
            return
        begun = self.journal.waiting(step)
        due = _time(begun.output["until"]) if begun else until or self.now() + timedelta(seconds=seconds or 0)
        if begun is None:
            begun = self._note(StepRecord(step, "wait", "waiting", {"until": due.isoformat()}, self.now()))
        if self.now() < due:
            raise Waiting(due)
        self._note(StepRecord(step, "wait", "completed", {"until": due.isoformat()}, begun.started_at, self.now()))

    async def wait_event(
        self, name: str, event: str, correlation: str, *, timeout_seconds: float | None = None, fails: bool = False
    ) -> dict[str, Any] | None:
        """Wait for a signal of that name and correlation; return `{"payload": ...}`, or `None` after the time-out.

        One that came since the execution began counts, once: the next wait for the same gets the next. One that
        `fails` raises `StepFailed` after the time-out, and is waited for anew when the execution is opened again.
        """
        # As whoever sends a signal writes it.
        event, correlation = storable(event), storable(correlation)
        step = self._place(name)
        if (end := self.journal.end_of(step)) is not None:
            return self._met(event, correlation, end)
        begun = self.journal.waiting(step)
        if begun is None:
            due = None if timeout_seconds is None else (self.now() + timedelta(seconds=timeout_seconds)).isoformat()
            waits_for = {"event": event, "correlation": correlation, "until": due}
            begun = self._note(StepRecord(step, "wait_for_event", "waiting", waits_for, self.now()))
        if (delivery := self._execution.deliveries.get(step)) is not None:
            output = as_json({"payload": delivery.payload, "signalId": delivery.signal_id})
        elif (due_text := begun.output["until"]) is not None and self.now() >= _time(due_text):
            if fails:
                raise self._failed_for_good(begun, f"EVENT_TIMEOUT: {event} did not come in time")
            output = None
        else:
            after = self._signals.get((event, correlation), 0)
            until = _time(begun.output["until"]) if begun.output["until"] else None
            raise Waiting(until, [EventWait(step, event, correlation, after)])
        end = self._note(
            StepRecord(step, "wait_for_event", "completed", output, begun.started_at, self.now(), begun.attempt)
        )
        return self._met(event, correlation, end)

    async def parallel(self, *branches: Awaitable[Any]) -> list[Any]:
        """Run branches at the same time and return their results in order; each goes on as far as it can.

        What ends one ends all, once every other has come to its own end: first a lost lease, then a failure for good, a
        failure that is tried again, and last of all a wait.
        """
        ends = await asyncio.gather(*(_contained(branch) for branch in branches))
        if not (raised := [end for end in ends if isinstance(end, BaseException)]):
            return list(ends)
        if all(isinstance(error, Waiting) for error in raised):
            raise _joined([error for error in raised if isinstance(error, Waiting)])
        raise min(raised, key=_urgency)

    async def run(self, name: str, workflow: str, given: Any = None) -> Any:
        """Start another workflow of the organisation and wait for its result, which is JSON.

        `workflow` is a rule's name, or that of one in Python. Raises `StepFailed` when it fails or is cancelled.
        """
        step = self._place(name)
        if (end := self.journal.end_of(step)) is not None:
            return _replayed(end)
        begun = self.journal.waiting(step)
        if begun is None:
            await self._may_begin()
            started = self.now()
            child = await self._desk.start_child(step, workflow, as_json(given))
            begun = self._note(StepRecord(step, "workflow", "waiting", {"executionId": str(child)}, started))
        ended = self._execution.children.get(begun.output["executionId"])
        if ended is None:
            raise Waiting(None)
        if ended.status == "completed":
            self._note(StepRecord(step, "workflow", "completed", ended.result, begun.started_at, self.now()))
            return ended.result
        raise self._failed_for_good(
            begun, f"CHILD_{ended.status.upper()}: {ended.error or begun.output['executionId']}"
        )

    def _place(self, name: str) -> str:
        step = self.journal.place_of(name)
        if self.journal.characters > MOST_JOURNAL_CHARACTERS and self.journal.end_of(step) is None:
            sentence = f"its journal has {self.journal.characters} characters: let other workflows do parts of it"
            raise PermanentError("JOURNAL_TOO_LARGE", sentence)
        return step

    def _failed_for_good(self, begun: StepRecord, error: str) -> StepFailed:
        final, attempt = {"final": True}, begun.attempt
        self._note(StepRecord(begun.step, begun.kind, "failed", final, begun.started_at, self.now(), attempt, error))
        return StepFailed(begun.step, error)

    def _met(self, event: str, correlation: str, end: StepRecord) -> dict[str, Any] | None:
        if _replayed(end) is None:
            return None
        self._signals[event, correlation] = max(end.output["signalId"], self._signals.get((event, correlation), 0))
        return {"payload": end.output["payload"]}

    async def _may_begin(self) -> None:
        async with self._writing:
            records, self.pending = self.pending, []
            await self._desk.may_begin(records)

    def _note(self, record: StepRecord) -> StepRecord:
        self.journal.note(record)
        self.pending.append(record)
        self.progressed |= record.status == "completed"
        return record

    def _failed(
        self, call: StepCall, kind: str, started: datetime, error: BaseException, retry: StepRetry
    ) -> StepFailed | StepRetries:
        sentence, final = described(error), isinstance(error, PermanentError) or call.attempt >= retry.attempts
        output = {"final": True} if final else None
        self._note(StepRecord(call.step, kind, "failed", output, started, self.now(), call.attempt, sentence))
        if final:
            return StepFailed(call.step, sentence)
        floor = float(getattr(error, "floor_seconds", 0.0))
        return StepRetries(call.step, sentence, self._desk.delay_seconds(retry, call.attempt, floor))


def described(error: BaseException) -> str:
    """Say what went wrong, code first. What else an exception says may be personal: the log has it."""
    code, sentence = getattr(error, "code", None), storable(str(error))[:MOST_ERROR_CHARACTERS]
    return sentence if isinstance(code, str) and sentence.startswith(code) else f"STEP_FAILED: {type(error).__name__}"


def as_json(value: Any) -> Any:
    """Return a value as it will be read back. Raises `PermanentError` for what is not JSON, or too much."""
    try:
        text = json.dumps(value, allow_nan=False)
        if len(text) > MOST_OUTPUT_BYTES:
            raise PermanentError("RESULT_TOO_LARGE", f"{len(text)} bytes, and {MOST_OUTPUT_BYTES} are kept")
        value = read_json(text)
        # What PostgreSQL's text cannot hold, JSON writes as an escape.
        return storable_json(value) if "\\u" in text else value
    except UnreadableJson as error:
        raise PermanentError("RESULT_NOT_JSON", f"it {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError("RESULT_NOT_JSON", f"{type(value).__name__} is not JSON, or holds what is not") from error


def is_cancelled(error: BaseException) -> bool:
    """Tell whether our own task is to end. Code that raises `CancelledError`, or `SystemExit`, by itself has failed."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _in_time(function: Callable[[StepCall], Awaitable[Any]], call: StepCall, seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds) as limit:
            return as_json(await function(call))
    except TimeoutError as error:
        if limit.expired():
            raise StepTimeout(seconds) from error
        raise


class StepTimeout(Exception):
    """A step took longer than it may."""

    code = "TIME_LIMIT"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{self.code}: it took longer than {seconds:g} s")


async def _contained(branch: Awaitable[Any]) -> Any:
    try:
        return await branch
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  handed to `parallel`, which raises what matters most
        return error


def _of_step(step: str, error: str) -> str:
    """Name the step behind the code: executions and dead letters are counted by what comes before the first colon."""
    code, _, sentence = error.partition(": ")
    place = f"step {step}: "
    return f"{code}: {sentence}" if sentence.startswith(place) else f"{code}: {place}{sentence}".removesuffix(": ")


def _urgency(error: BaseException) -> int:
    order: Sequence[type[BaseException]] = (LeaseLost, StepFailed, Exception, StepRetries, CancelAsked, PutOff, Waiting)
    return next((place for place, kind in enumerate(order) if isinstance(error, kind)), -1)


def _joined(waits: Sequence[Waiting]) -> Waiting:
    times = [wait.until for wait in waits if wait.until is not None]
    return Waiting(min(times, default=None), [one for wait in waits for one in wait.waits])


def _replayed(end: StepRecord) -> Any:
    if end.status == "failed":
        raise StepFailed(end.step, end.error or "")
    return end.output


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
