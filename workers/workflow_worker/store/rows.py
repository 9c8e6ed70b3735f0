"""How rows become what the engine knows, and the words that several statements share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from workflow_worker.execution import ChildEnd, Delivery, Execution, Lease, StepRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ACTIVE", "ALLOWED", "execution_of", "record_of"]

# As the partial index has it.
ACTIVE = "status IN ('queued', 'running', 'waiting', 'retry_pending')"
# Of an organisation's row `settings`: whether anything of it may run.
ALLOWED = "settings.fw_execution_worker_enabled AND settings.fw_worker_paused_at IS NULL"


def execution_of(
    row: Mapping[str, Any],
    records: Sequence[StepRecord] = (),
    deliveries: Mapping[str, Delivery] | None = None,
    children: Mapping[str, ChildEnd] | None = None,
) -> Execution:
    """Return the execution of a claimed row."""
    return Execution(
        lease=Lease(row["id"], row["lease_token"]),
        organization_id=row["organization_id"],
        rule_id=row["rule_id"],
        rule_version=row["rule_version"],
        workflow=row["workflow"],
        workflow_version=row["workflow_version"],
        input=json.loads(row["input"]),
        created_at=row["created_at"],
        claimed_at=row["heartbeat_at"],
        waited_seconds=row["waited"],
        visibility_seconds=row["visibility_seconds"],
        round=row["round"],
        retry_count=row["retry_count"],
        total_attempts=row["total_attempts"],
        crash_count=row["crash_count"],
        cancel_requested=row["cancel_requested"],
        deadline_at=row["deadline_at"],
        trace=row["trace"],
        records=records,
        deliveries=deliveries or {},
        children=children or {},
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
