"""A worker's clock that jumps changes neither leases nor waits: they are by the database's."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from chaos.workflows.audit import STRANGERS
from chaos.workflows.plans import http

if TYPE_CHECKING:
    from chaos.workflows.ground import Ground

pytestmark = pytest.mark.timeout(120)
WAIT_SECONDS = 3
OVER = ("completed", "failed")
# By PostgreSQL's clock from the wait's beginning to its end, and to the end of the execution.
WAITED = """
SELECT extract(epoch FROM finished_at - started_at)::float,
       extract(epoch FROM (SELECT completed_at FROM fw_workflow_executions WHERE id = execution_id) - started_at)::float
  FROM fw_workflow_steps WHERE execution_id = %s AND step = 'pause'
"""
VANISHED = "SELECT count(*) FROM chaos_turns WHERE old_status = 'running' AND new_status = 'running' AND expired"
HOUR_OFF = "SELECT count(*) FROM fw_workflow_steps WHERE abs(extract(epoch FROM clock_timestamp() - started_at)) > 600"


def test_clocks_that_jump_shorten_no_wait_and_end_no_lease(ground: Ground) -> None:
    """An hour ahead in one worker and an hour back in the other, in the midst of work, waits and retries."""
    pause = {"id": "pause", "wait": {"seconds": WAIT_SECONDS}}
    ground.rule("paused", http("first"), pause, http("last", fails=1))
    workers = [ground.worker(CHAOS_CLOCK_HOURS=hours) for hours in ("1", "-1")]
    for worker in workers:
        worker.ready(60)
    before = [ground.start("paused") for _ in range(10)]
    ground.until(before[-1], "waiting")
    for worker in workers:
        worker.popen.send_signal(signal.SIGUSR1)
    after = [ground.start("paused") for _ in range(10)]
    for execution in (*before, *after):
        row = ground.until(execution, *OVER, within=60)
        assert (row["status"], row["total_attempts"], row["crash_count"]) == ("completed", 2, 0)
        assert ground.told(execution, "asked") == ["first", "last", "last"]
        ((waited, in_all),) = ground.asked(WAITED, execution)
        assert WAIT_SECONDS <= waited <= in_all < WAIT_SECONDS + 60
    assert ground.asked(HOUR_OFF) == [(0,)]
    assert ground.asked(VANISHED) == [(0,)]
    assert ground.asked(STRANGERS) == []
