"""A worker is killed before each commit of a turn, in its midst and after it, and around each effect.

The table says how often the receiver is asked for each step then, and how many attempts the execution counts. Its
effects happen once, whatever is in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

import pytest
import redis

from chaos.workflows.audit import STRANGERS
from chaos.workflows.plans import CHILD, NOTIFY, call, http
from chaos.workflows.rest import QUEUE
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from chaos.workflows.ground import Ground

pytestmark = pytest.mark.timeout(400)
STEPS = ("first", "flaky", "last", "child's first", "child's last")
WHOLE = [
    http("first"),
    http("flaky", fails=1),
    NOTIFY,
    {"id": "child", "workflow": {"start": CHILD, "input": "input"}},
    http("last"),
]
SLOW = [call("rest", "rest", seconds=1.0), http("first"), http("last")]


@dataclass(frozen=True)
class Outcome:
    """How often the receiver is asked, step by step, and the attempts of the execution in all."""

    asked: tuple[int, ...] = (1, 2, 1, 1, 1)
    attempts: int = 2
    rule: str = "whole"


FIRST_AGAIN = Outcome((2, 2, 1, 1, 1))
# The failure that was not written down costs no attempt; the receiver counts it.
FAILURE_FORGOTTEN = Outcome(attempts=1)
CHILD_AGAIN = Outcome((1, 2, 1, 1, 2))
SLOWLY = Outcome((1, 0, 1, 0, 0), 1, "slow")
REFUSED = Outcome((1, 1, 0, 0, 0), 1, "chaos.refused")
POINTS: dict[str, Outcome] = {
    "claim uncommitted": Outcome(),
    "claim committed": Outcome(),
    "before the effect": Outcome(),
    "after the effect": FIRST_AGAIN,
    "before step": FIRST_AGAIN,
    "step uncommitted": FIRST_AGAIN,
    "after step": Outcome(),
    "before retry": FAILURE_FORGOTTEN,
    "retry uncommitted": FAILURE_FORGOTTEN,
    "after retry": Outcome(),
    "before the job": Outcome(),
    "after the job": Outcome(),
    "before the child": Outcome(),
    "after the child": Outcome(),
    "before suspend": Outcome(),
    "suspend uncommitted": Outcome(),
    "after suspend": Outcome(),
    "before complete": CHILD_AGAIN,
    "complete uncommitted": CHILD_AGAIN,
    "after complete": Outcome(),
    "before the renewal": SLOWLY,
    "after the renewal": SLOWLY,
    "before bury": Outcome((1, 2, 0, 0, 0), 1, "chaos.refused"),
    "bury uncommitted": Outcome((1, 2, 0, 0, 0), 1, "chaos.refused"),
    "after bury": REFUSED,
}
SWITCH_ON = "UPDATE fw_module_settings SET fw_execution_worker_enabled = true WHERE organization_id LIKE %s"
SWITCH_OFF = "UPDATE fw_module_settings SET fw_execution_worker_enabled = false WHERE organization_id LIKE %s"
OVER = "SELECT count(*) FROM fw_workflow_executions WHERE status NOT IN ('completed', 'failed')"
CHILDREN = "SELECT id::text FROM fw_workflow_executions WHERE parent_id = %s"
DEAD = "SELECT count(*) FROM pgmq.q_workflow_dlq WHERE message->>'execution_id' = %s"
LEFT = "SELECT (SELECT count(*) FROM pgmq.q_workflow_execution_queue), (SELECT count(*) FROM fw_workflow_waits)"


def test_another_worker_goes_on_where_one_was_killed(ground: Ground) -> None:
    executions = {point: prepared(ground, point, outcome) for point, outcome in POINTS.items()}
    kill_at_all(ground)
    ground.change(SWITCH_ON, "%")
    ground.worker()
    wait_for(lambda: ground.asked(OVER) == [(0,)], 120, "the end of all executions")
    found = {point: outcome_of(ground, execution, POINTS[point].rule) for point, execution in executions.items()}
    assert found == POINTS
    assert ground.asked(STRANGERS) == []
    wait_for(lambda: ground.asked(LEFT) == [(0, 0)], 10, "an empty queue")


def prepared(ground: Ground, point: str, outcome: Outcome) -> str:
    """Start an execution in an organisation of its own, which is not enabled."""
    ground.settle(point)
    ground.rule("whole", *WHOLE, organization=point)
    ground.rule("slow", *SLOW, organization=point)
    ground.change(SWITCH_OFF, point)
    return ground.start(outcome.rule, point)


def kill_at_all(ground: Ground) -> None:
    """Let a worker die at each point; the next one is started while the one before it is dying."""
    doomed = [(point, ground.folder / f"gate-{number}") for number, point in enumerate(POINTS)]

    def started(number: int) -> list[Process]:
        return [ground.worker(CHAOS_CRASH_AT=point, CHAOS_GATE=str(gate)) for point, gate in doomed[number:][:1]]

    ahead = started(0)
    for number, (point, gate) in enumerate(doomed):
        (worker,), ahead = ahead, started(number + 1)
        ground.change(SWITCH_ON, point)
        gate.touch()
        ground.wait_for_death(worker)
        ground.change(SWITCH_OFF, point)


def outcome_of(ground: Ground, execution: str, rule: str) -> Outcome:
    """Say what became of an execution, and look whether each of its effects happened once."""
    row, children = ground.row(execution), [name for (name,) in ground.asked(CHILDREN, execution)]
    dies = rule == "chaos.refused"
    assert row["status"] == ("failed" if dies else "completed"), row
    assert ground.asked(DEAD, execution) == [(int(dies),)]
    assert len(children) == (rule == "whole")
    effects = [step for one in (execution, *children) for step in ground.told(one, "effect")]
    asked = [ground.told(one, "asked") for one in (execution, *children)]
    own, others = asked[0], [step for those in asked[1:] for step in those]
    if rule == "whole":
        assert sorted(effects) == ["first", "first", "flaky", "last", "last"]
        with redis.Redis.from_url(ground.redis_url) as server:
            assert server.exists(f"{QUEUE}:{uuid5(UUID(execution), 'told')}") == 1
    else:
        assert sorted(effects) == (["first"] if dies else ["first", "last"])
    counts = [*(own.count(step) for step in ("first", "never" if dies else "flaky", "last"))]
    return Outcome((*counts, others.count("first"), others.count("last")), row["total_attempts"], rule)
