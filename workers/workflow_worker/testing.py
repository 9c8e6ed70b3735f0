"""For the author of a workflow: run it by the engine's own rules, without a database, Redis or the time it takes.

    trial = Trial(definition, {"orderId": "7"})
    trial.will_answer(answer(201, {"id": "ch_1"}))
    assert (await trial.run()).status == "waiting"
    trial.signal("invoice.paid", "7", {"amount": 30})
    ended = await trial.run()
    assert (ended.status, ended.result) == ("completed", {"paid": 30})

`definition` is a document as it is saved, or the `async def` of a workflow in Python. Whenever something may begin the
workflow is started anew from its journal, as if its worker had stopped: if it does not find its way back, `run` raises.
"""

from __future__ import annotations

import functools
import inspect
import json
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import UUID, uuid4

from prometheus_client import CollectorRegistry

from worker_runtime.egress import EgressReply
from worker_runtime.outcome import PermanentError
from worker_runtime.redis.connection import RedisUnavailable
from worker_runtime.workflow_metrics import WorkflowMetrics
from workflow_worker.definition import Definition, Surroundings, read_definition
from workflow_worker.execution import (
    Cancelled,
    ChildEnd,
    Completed,
    Delivery,
    Execution,
    Failing,
    Lease,
    LeaseLost,
    Released,
    Suspended,
)
from workflow_worker.leases import Held
from workflow_worker.ledger import Standing
from workflow_worker.steps.step import Services
from workflow_worker.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from worker_runtime.bullmq.producer import NewJob
    from worker_runtime.egress.calls import Asking
    from workflow_worker.execution import Ending, EventWait, StepRecord
    from workflow_worker.ledger import Write

__all__ = ["Ended", "Request", "Trial", "answer"]

BEGINNING = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
VISIBILITY_SECONDS = 600
MOST_TURNS = 10_000
BAD_REQUEST = 400
EFFECTS = frozenset({"step", "notify", "http", "call"})


@dataclass(frozen=True, slots=True)
class Ended:
    """How far a workflow has come. `error` begins with its code."""

    status: Literal["completed", "failed", "cancelled", "waiting"]
    result: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request as a step has sent it. `json` is its body, if that is JSON."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Raises `ValueError` when the body is something else."""
        return json.loads(self.body)


def answer(status: int = 200, body: Any = None, **headers: str) -> EgressReply:
    """Return an answer with a JSON body, or with bytes as they are; in a header's name `_` stands for `-`."""
    own = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    if isinstance(body, bytes):
        return EgressReply(status, own, body, whole=True, remote="192.0.2.1")
    content = {} if body is None else {"content-type": "application/json"}
    written = b"" if body is None else json.dumps(body).encode()
    return EgressReply(status, content | own, written, whole=True, remote="192.0.2.1")


@dataclass(frozen=True, slots=True)
class Signal:
    id: int
    event: str
    correlation: str
    payload: Any


class Trial:
    """One execution. `functions` are what `call` knows; `workflows` what a step `workflow` may start.

    A started workflow is a result, or a function of its input that returns one or raises `PermanentError`. Without
    `http`, an `EgressClient`, requests get the answers that the test says. With `killed_once` the worker is killed
    after every effect, before anybody has noted it, and the step is done again.
    """

    def __init__(
        self,
        definition: Mapping[str, Any] | Definition | Callable[..., Awaitable[Any]],
        given: Any = None,
        *,
        functions: Mapping[str, Callable[..., Awaitable[Any]]] | None = None,
        workflows: Mapping[str, Any] | None = None,
        organization_id: str = "org-1",
        http: Asking | None = None,
        killed_once: bool = False,
    ) -> None:
        """Read the definition; raises `DefinitionError`."""
        self.id = uuid4()
        self.now = BEGINNING
        self.cancel_requested = False
        self.requests: list[Request] = []
        self.jobs: dict[str, tuple[str, NewJob]] = {}
        self.redis_outages = 0
        self._given = {} if given is None else given
        self._organization_id = organization_id
        self._workflows = workflows or {}
        self._answers: deque[EgressReply | Exception] = deque()
        self._signals: list[Signal] = []
        self._deliveries: dict[str, Delivery] = {}
        self._children: dict[str, ChildEnd] = {}
        self._records: list[StepRecord] = []
        self._turns = 0
        self._retry_count = 0
        self._killed: set[str] | None = set() if killed_once else None
        self._answered: dict[str, EgressReply] = {}
        self._metrics = WorkflowMetrics(CollectorRegistry())
        self._random = Random(1)  # noqa: S311  for jitter
        self._problem: str | None = None
        self._http = http or self
        self._program = self._program_of(definition, dict(functions or {}))

    @property
    def outputs(self) -> dict[str, Any]:
        """What each completed step came to."""
        return {record.step: record.output for record in self._records if record.status == "completed"}

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Every failed attempt: its step and its error."""
        return [(record.step, record.error or "") for record in self._records if record.status == "failed"]

    @property
    def notifications(self) -> list[Any]:
        """The payloads of the notifications, in the order in which they were added."""
        return [job.data for _, job in self.jobs.values()]

    @property
    def seconds(self) -> float:
        """How long it has taken, in the time that was skipped."""
        return (self.now - BEGINNING).total_seconds()

    def will_answer(self, *answers: EgressReply | Exception) -> None:
        """Say what comes of the next requests, one after the other; of all others it is 200 without a body."""
        self._answers.extend(answers)

    def signal(self, event: str, correlation: str, payload: Any = None) -> None:
        """Send a signal; who waits for it goes on with the next `run`."""
        self._signals.append(Signal(len(self._signals) + 1, event, correlation, payload))

    async def run(self) -> Ended:
        """Run until it has ended, or waits for a signal that has not come. Waits for a time alone are skipped."""
        while self._turns < MOST_TURNS:
            self._turns += 1
            ended = self._followed(await self._turn())
            if ended is not None:
                return ended
        raise AssertionError(f"it did not end within {MOST_TURNS} turns")

    async def after(self, seconds: float) -> Ended:
        """Let so much time pass, and run."""
        self.now += timedelta(seconds=seconds)
        return await self.run()

    async def _turn(self) -> Ending | None:
        lease = Lease(self.id, self._turns)
        execution = Execution(
            *(lease, self._organization_id, None, None, "trial", 1, self._given, BEGINNING, self.now),
            visibility_seconds=VISIBILITY_SECONDS,
            retry_count=self._retry_count,
            cancel_requested=self.cancel_requested,
            records=tuple(self._records),
            deliveries=dict(self._deliveries),
            children=cast("Any", dict(self._children)),
        )
        us, held = cast("Any", self), Held(execution)
        turn = Turn(held, us, ledger=us, programs=us, children=us, metrics=self._metrics, random=self._random)
        began = time.monotonic()
        ending = await turn.run()
        # The clock that steps see has gone on as well.
        self.now += timedelta(seconds=time.monotonic() - began)
        if isinstance(ending, Completed) and (strangers := turn._context.journal.unasked()):  # noqa: SLF001  its own test
            raise AssertionError(f"it did not ask again for {', '.join(strangers)}: is it the same each time?")
        return ending

    def _followed(self, ending: Ending | None) -> Ended | None:
        """Return how it has ended, or let the time pass until it goes on."""
        match ending:
            case Completed(result):
                return Ended("completed", result)
            case Failing(error, None):
                return Ended("failed", error=error)
            case Cancelled(reason):
                return Ended("cancelled", error=reason)
            case Failing(_, seconds) | Released(_, seconds):
                self._retry_count += isinstance(ending, Failing)
                self.now += timedelta(seconds=seconds or 0)
            case Suspended(until, waits):
                return self._waited(until, waits)
        return None

    def _waited(self, until: datetime | None, waits: Sequence[EventWait]) -> Ended | None:
        delivered = [self._deliver(wait) for wait in waits]
        if waits and not any(delivered) and (until is None or until > self.now):
            return Ended("waiting")
        if not any(delivered):
            self.now = max(self.now, until or self.now)
        return None

    def _deliver(self, wait: EventWait) -> bool:
        for signal in self._signals:
            wanted = (signal.event, signal.correlation) == (wait.event, wait.correlation)
            if wanted and signal.id > wait.after_signal:
                self._deliveries[wait.step] = Delivery(signal.id, signal.payload)
                return True
        return False

    # What a turn asks of the ledger, of the programs and of the children.

    async def write(self, write: Write) -> Standing:
        """See `Ledger`."""
        effects = {one.step for one in write.records if one.status == "completed" and one.kind in EFFECTS}
        if self._killed is not None and effects - self._killed:
            self._killed |= effects
            raise LeaseLost(str(self.id))
        self._records += write.records
        # Where something has failed, what runs beside it still comes as far as it can.
        goes_on = any(one.status == "failed" for one in write.records)
        return Standing(cancel_requested=self.cancel_requested, may_go_on=goes_on)

    async def of(self, _execution: Execution) -> Callable[..., Awaitable[Any]]:
        """See `Programs`."""
        if self._problem:
            raise PermanentError("INVALID_INPUT", self._problem)
        return self._program

    async def start(self, _parent: Execution, child: UUID, _step: str, workflow: str, given: Any) -> UUID:
        """See `ChildStore`."""
        if workflow not in self._workflows:
            raise PermanentError("UNKNOWN_WORKFLOW", f"the organisation has no active workflow {workflow}")
        started = self._workflows[workflow]
        try:
            result = started(given) if callable(started) else started
            self._children[str(child)] = ChildEnd("completed", result, None)
        except PermanentError as error:
            self._children[str(child)] = ChildEnd("failed", None, str(error))
        return child

    def _program_of(
        self,
        definition: Mapping[str, Any] | Definition | Callable[..., Awaitable[Any]],
        functions: dict[str, Callable[..., Awaitable[Any]]],
    ) -> Callable[..., Awaitable[Any]]:
        if inspect.iscoroutinefunction(definition):
            return definition
        read = definition
        if not isinstance(read, Definition):
            read = read_definition(read, Surroundings(functions=functions))
        self._problem = read.input_problem(self._given)
        return functools.partial(read.run, services=Services(_Queues(self).of, self._http, functions))

    async def request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], _timeout_seconds: float, /
    ) -> EgressReply:
        """See `EgressClient`; a request that was answered well before, by its key, gets the same answer again."""
        self.requests.append(Request(method, url, dict(headers), body or b""))
        if known := self._answered.get(headers["Idempotency-Key"]):
            return known
        reply = self._answers.popleft() if self._answers else answer()
        if isinstance(reply, Exception):
            raise reply
        if reply.status < BAD_REQUEST:
            self._answered[headers["Idempotency-Key"]] = reply
        return reply


@dataclass(frozen=True)
class _Queues:
    """Takes jobs as Redis does: an id is taken once."""

    trial: Trial
    key: str = ""

    def of(self, key: str) -> _Queues:
        return _Queues(self.trial, key)

    async def add(self, job: NewJob, /) -> str:
        if self.trial.redis_outages:
            self.trial.redis_outages -= 1
            raise RedisUnavailable("it is out, as the test wants it")
        self.trial.jobs.setdefault(str(job.job_id), (self.key, job))
        return str(job.job_id)
