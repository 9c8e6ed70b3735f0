"""What kills its process, or lets nothing else run in it, is found out; nobody beside it pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.workflows.ground import LEASE_SECONDS
from chaos.workflows.plans import call, http
from worker_suite import wait_for

if TYPE_CHECKING:
    from chaos.workflows.ground import Ground
    from worker_suite import Process

pytestmark = pytest.mark.timeout(300)
NEIGHBOURS = 4
OVER = "SELECT count(*) FROM fw_workflow_executions WHERE status IN ('completed', 'failed', 'cancelled')"
DEAD = "SELECT message FROM pgmq.q_workflow_dlq"


def kept_up(ground: Ground, worker: Process, executions: int) -> None:
    """Start the worker again whenever it has died, until all is over."""

    def is_over() -> bool:
        if worker.popen.poll() is not None:
            worker.restart()
        return ground.asked(OVER) == [(executions,)]

    wait_for(is_over, 180, "the end of all executions")


def test_what_kills_its_process_is_quarantined_and_its_neighbours_are_not(ground: Ground) -> None:
    """They are claimed together with it each time, and take longer than it needs to kill."""
    ground.rule("exit", call("kill", "exit"))
    ground.rule("crash", call("kill", "crash"))
    ground.rule("neighbour", call("rest", "rest", seconds=0.3), http("last"))
    poison = [ground.start("exit"), ground.start("crash")]
    others = [ground.start("neighbour") for _ in range(NEIGHBOURS)]
    kept_up(ground, ground.worker(), NEIGHBOURS + len(poison))
    for one in poison:
        row = ground.row(one)
        assert (row["status"], row["last_error"].partition(":")[0]) == ("failed", "STALLED")
        # The other one was perhaps faster.
        assert 1 <= len(ground.told(one, "begun")) <= 3
    for other in others:
        row = ground.row(other)
        assert (row["status"], row["total_attempts"], row["retry_count"]) == ("completed", 1, 0), row["last_error"]
        assert ground.told(other, "effect") == ["last"]
    assert {letter["execution_id"] for (letter,) in ground.asked(DEAD)} == set(poison)


def test_what_blocks_its_process_longer_than_its_lease_takes_nothing_from_others(ground: Ground) -> None:
    """Its own turns are as good as lost, and so it is quarantined, too; what it wakes up to say is not written."""
    ground.rule("block", call("block", "block", seconds=LEASE_SECONDS + 1.5))
    ground.rule("neighbour", call("rest", "rest", seconds=0.2), http("last"))
    blocking = ground.start("block")
    others = [ground.start("neighbour") for _ in range(NEIGHBOURS)]
    ground.worker()
    ground.worker()
    row = ground.until(blocking, "failed", "completed", within=150)
    for other in others:
        found = ground.until(other, "completed", "failed")
        assert (found["status"], found["total_attempts"]) == ("completed", 1), found["last_error"]
        assert ground.told(other, "effect") == ["last"]
    assert row["status"] == "failed"
    assert row["last_error"].startswith("STALLED")
    assert len(ground.told(blocking, "begun")) == 3
