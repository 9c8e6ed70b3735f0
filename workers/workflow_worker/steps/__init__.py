"""What a workflow can do. A new kind of step is a file here and a line in `STEPS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workflow_worker.steps.call import Call
from workflow_worker.steps.condition import Condition
from workflow_worker.steps.http import Http
from workflow_worker.steps.notify import Notify
from workflow_worker.steps.parallel import Parallel
from workflow_worker.steps.set import Set
from workflow_worker.steps.wait import Wait
from workflow_worker.steps.wait_for_event import WaitForEvent
from workflow_worker.steps.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workflow_worker.steps.step import StepKind

__all__ = ["STEPS"]

# By the key under which it is written in a step.
STEPS: Mapping[str, type[StepKind]] = {
    "notify": Notify,
    "http": Http,
    "wait": Wait,
    "wait_for_event": WaitForEvent,
    "condition": Condition,
    "parallel": Parallel,
    "set": Set,
    "call": Call,
    "workflow": Workflow,
}
