"""How rows become what the engine knows, and the words that several statements share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from worker_runtime.postgres import BY_INDEX
from workflow_worker.execution import ChildEnd, Delivery, Execution, Lease, StepRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ACTIVE", "ALLOWED", "ROW_BY_ROW", "UNREADABLE", "execution_of", "record_of"]

# What a worker asks is about a few rows of tables that may hold millions; the planner knows what they held some time
# ago. A merge or a hash reads a table from end to end: with a million rows one claim took seven seconds.
ROW_BY_ROW = {
    **BY_INDEX,
    "enable_mergejoin": "off",
    "enable_hashjoin": "off",
    # Planning a claim takes longer than most claims do.
    "plan_cache_mode": "force_generic_plan",
}
# As the partial index has it.
ACTIVE = "status IN ('queued', 'running', 'waiting', 'retry_pending')"
# PostgreSQL holds JSON that Python does not: nested by the thousand, numbers of more than 4,300 digits.
UNREADABLE = (ValueError, RecursionError)
# Of an organisation's row `settings`: whether anything of it may run.
ALLOWED = "settings.fw_execution_worker_enabled AND settings.fw_worker_paused_at IS NULL"


def execution_of(
    row: Mapping[str, Any],
    records: Sequence[StepRecord] = (),
    deliveries: Mapping[str, Delivery] | None = None,
    children: Mapping[str, ChildEnd] | None = None,
    unreadable: str | None = None,
) -> Execution:
    """Return the execution of a claimed row."""
    given = None
    try:
        given = json.loads(row["input"])
    except UNREADABLE as error:
        unreadable = f"its input: {type(error).__name__}"
    return Execution(
        lease=Lease(row["id"], row["lease_token"]),
        organization_id=row["organization_id"],
        rule_id=row["rule_id"],
        rule_version=row["rule_version"],
        workflow=row["workflow"],
        workflow_version=row["workflow_version"],
        input=given,
        created_at=row["created_at"],
        claimed_at=row["heartbeat_at"],
        visibility_seconds=row["visibility_seconds"],
        round=row["round"],
        retry_count=row["retry_count"],
        total_attempts=row["total_attempts"],
        crash_count=row["crash_count"],
        cancel_requested=row["cancel_requested"],
        trace=row["trace"],
        parent_id=row["parent_id"],
        records=records,
        deliveries=deliveries or {},
        children=children or {},
        unreadable=unreadable,
    )


def record_of(row: Mapping[str, Any]) -> StepRecord:
    """Return the record of a row."""
    output = row["output"]
    return StepRecord(
        step=row["step"],
        kind=row["kind"],
        status=row["status"],
        output=None if output is None else json.loads(output),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        attempt=row["attempt"],
        error=row["error"],
    )
