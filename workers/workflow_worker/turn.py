"""One turn of an execution: from the claim to how it ended. The engine's table of contents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid5

import structlog

from worker_runtime.outcome import PermanentError
from worker_runtime.retry import ScheduledRetry
from workflow_worker.context import (
    CancelAsked,
    PutOff,
    StepFailed,
    StepRetries,
    Unwinding,
    Waiting,
    WorkflowContext,
    as_json,
    is_cancelled,
)
from workflow_worker.execution import (
    MOST_CRASHES,
    Cancelled,
    Completed,
    Failing,
    LeaseLost,
    Released,
    StepRecord,
    StepRetry,
    Suspended,
)
from workflow_worker.ledger import Unwritable, Write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random
    from uuid import UUID

    from worker_runtime.workflow_metrics import WorkflowMetrics
    from workflow_worker.execution import Ending
    from workflow_worker.leases import Held, Leases
    from workflow_worker.ledger import Ledger
    from workflow_worker.programs import Programs
    from workflow_worker.store.children import ChildStore

__all__ = ["Turn"]

log = structlog.get_logger()

# What the workflow's own code is called in the journal, where it fails outside of a step.
OWN_CODE = "(workflow)"
UNKNOWN_CODE_SECONDS = 60.0


class Turn:
    """Runs the workflow's code as far as it goes, and settles how that ended. It is its context's `Desk`."""

    def __init__(
        self,
        held: Held,
        leases: Leases,
        ledger: Ledger,
        programs: Programs,
        children: ChildStore,
        metrics: WorkflowMetrics,
        random: Random,
    ) -> None:
        self.held = held
        self.began = time.monotonic()
        self.stopping = False
        self._execution = held.execution
        self._leases = leases
        self._ledger = ledger
        self._programs = programs
        self._children = children
        self._metrics = metrics
        self._random = random
        self._context = WorkflowContext(held.execution, self)

    async def run(self) -> Ending | None:
        """Run and settle; `None` when the lease was lost, and nothing was settled."""
        try:
            ending = await self._ended()
            try:
                await self._settle(ending)
            except Unwritable as error:
                ending = Failing(f"UNWRITABLE: PostgreSQL cannot hold what it wants to keep ({error})", None)
                await self._settle(ending)
        except LeaseLost:
            return None
        return ending

    async def give_back(self, reason: str) -> None:
        """Settle a turn that was interrupted: what was completed stays, and it goes on elsewhere at once."""
        await self._settle(Released(reason))

    async def may_begin(self, records: Sequence[StepRecord], /) -> None:
        """See `Desk`."""
        if records:
            write = Write(self._execution, records, progressed=self._context.progressed)
            standing = await self._ledger.write(write)
            self.held.may_go_on, self.held.cancel_requested = standing.may_go_on, standing.cancel_requested
        if not self.held.is_surely_ours:
            # This process stood still, or PostgreSQL was away for long: the next effect may be somebody else's.
            await self._leases.confirm(self.held)
        if self.held.cancel_requested:
            raise CancelAsked
        if self.stopping or not self.held.may_go_on:
            raise PutOff("the worker stops" if self.stopping else "the organisation's worker is off")

    async def start_child(self, step: str, workflow: str, given: Any, /) -> UUID:
        """See `Desk`."""
        child = uuid5(self._execution.id, f"{step}/{self._execution.round}")
        return await self._children.start(self._execution, child, step, workflow, given)

    def delay_seconds(self, retry: StepRetry, attempt: int, floor: float, /) -> float:
        """See `Desk`."""
        schedule = ScheduledRetry(retry.attempts, retry.delays_seconds)
        return max(schedule.delay({}, attempt, self._random) or 0.0, floor)

    def step_ended(self, kind: str, status: str, seconds: float, /) -> None:
        """See `Desk`."""
        self._metrics.step(kind, status, seconds)

    async def _settle(self, ending: Ending) -> None:
        records, self._context.pending = self._context.pending, []
        await self._ledger.write(Write(self._execution, records, ending, self._context.progressed))

    async def _ended(self) -> Ending:
        if self._execution.crash_count >= MOST_CRASHES:
            times = self._execution.crash_count
            return Failing(f"STALLED: the worker that ran it vanished {times} times; it was not run again", None)
        if self._execution.cancel_requested:
            return Cancelled("CANCELLED: on request")
        if self._execution.unreadable is not None:
            return Failing(f"UNREADABLE: {self._execution.unreadable}", None)
        return await self._interpreted()

    async def _interpreted(self) -> Ending:  # noqa: PLR0911  one for each way in which a workflow's code is left
        try:
            return await self._finished()
        except StepRetries as failure:
            return Failing(str(failure), failure.seconds)
        except StepFailed as failure:
            return Failing(str(failure), None)
        except PermanentError as error:
            return Failing(str(error), None)
        except Unwritable as error:
            return Failing(f"UNWRITABLE: PostgreSQL cannot hold what a step returned ({error})", None)
        except Waiting as wait:
            return Suspended(wait.until, wait.waits)
        except PutOff as put_off:
            return Released(put_off.reason, put_off.seconds)
        except CancelAsked:
            return Cancelled("CANCELLED: on request")
        except (LeaseLost, Unwinding):
            raise
        except BaseException as error:  # noqa: BLE001  a team's code may fail in any way: it is logged and tried again
            return self._own_failure(error)

    async def _finished(self) -> Ending:
        program = await self._programs.of(self._execution)
        if program is None:
            what = f"{self._execution.workflow} version {self._execution.workflow_version}"
            return Released(f"no worker here has {what}", UNKNOWN_CODE_SECONDS)
        result = as_json(await program(self._context))
        if strangers := self._context.journal.unasked():
            log.warning("workflow_journal_has_more", executionId=str(self._execution.id), steps=strangers[:10])
        return Completed(result)

    def _own_failure(self, error: BaseException) -> Failing:
        if is_cancelled(error):
            raise error
        log.error("workflow_failed", executionId=str(self._execution.id), exc_info=error)
        retry, attempt = StepRetry(), self._context.journal.failures(OWN_CODE) + 1
        sentence, now = f"WORKFLOW_FAILED: {type(error).__name__}", self._context.now()
        self._context.pending.append(
            StepRecord(OWN_CODE, "workflow", "failed", None, now, now, attempt=attempt, error=sentence)
        )
        final = attempt >= retry.attempts
        return Failing(sentence, None if final else self.delay_seconds(retry, attempt, 0.0))
